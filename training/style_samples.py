"""What a conditioner for styles is told of tiles: looks, places, climates and who lives there."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from generation.encoders.life_encoder import LifeEncoder, environment_of, text_states
from generation.encoders.life_space import SATELLITE, TEXT
from generation.encoders.retrieval import distances_km
from generation.encoders.retrieval_model import Retrieval
from generation.encoders.taxonomy import RANKS
from generation.encoders.text import TextEncoder
from generation.errors import ConfigError
from generation.pipelines.styling import CLIMATE, PLACE, TAXON, VISUAL
from training.data import TileDataset
from training.ranges_data import LEARNT, Ranges
from training.train_retrieval import places_of

OWN = 0.4
"""How often a tile is told its own look and not what is retrieved for its place."""
NAMED = 0.7
"""How often a tile is told a taxon by its name, and not by what the tile itself says of life."""
CUT = (0.1, 0.1, 0.1)
"""Probabilities that a taxon ends at the order, the family, the genus."""
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Inhabitants:
    """Who of the species learnt from lives where, and their names."""

    rows: Int[np.ndarray, " species"]
    """Of the ranges."""
    lives: list[Int[np.ndarray, " _some"]]
    """For each place, who lives there."""
    rarity: Float[np.ndarray, " species"]
    names: list[str]
    """Taxonomic strings of all ranks."""
    states: Float[Tensor, "strings state"]
    """Theirs, from the text encoder."""
    strings: Int[np.ndarray, "species ranks"]
    """For each species the rows of ``names`` of its order, family, genus and whole string."""

    @classmethod
    def of(cls, ranges: Ranges, latlon: Float[Tensor, "places 2"]) -> "Inhabitants":
        """Look places up in ranges."""
        rows = ranges.of(LEARNT)
        present = ranges.present[rows]
        taxa = [ranges.taxa[row] for row in rows]
        every = [[" ".join(each[:n]) for n in range(1, len(RANKS) + 1)] for each in taxa]
        names = {string: row for row, string in enumerate(dict.fromkeys(chain(*every)))}
        return cls(
            rows=rows,
            lives=[np.flatnonzero(present[:, cell]) for cell in nearest_cells(ranges, latlon)],
            rarity=1 / np.sqrt(present.sum(1)),
            names=list(names),
            states=text_states(list(names), TextEncoder(remembered=1)),
            strings=np.array([[names[string] for string in each] for each in every]),
        )


def nearest_cells(ranges: Ranges, latlon: Float[Tensor, "places 2"]) -> list[int]:
    """Find the cell of the ranges that each place lies in, or next to."""
    cells = torch.from_numpy(ranges.cells.latlon)
    near = [
        distances_km(latlon[at : at + _AT_ONCE], cells).argmin(1)
        for at in range(0, len(latlon), _AT_ONCE)
    ]
    return [int(cell) for part in near for cell in part]


@dataclass(frozen=True, slots=True)
class Told:
    """All that the tiles of a folder can be told, computed once."""

    own: Float[Tensor, "tiles value"]
    near: Float[Tensor, "tiles value"]
    """What is retrieved at beta 0; a mixture of this and the next is what any beta gives."""
    alike: Float[Tensor, "tiles value"]
    place: Float[Tensor, "tiles key"]
    climate: Float[Tensor, "tiles variables"]
    taxa: Float[Tensor, "strings dim"]
    """Of the names of the inhabitants, in a space of life."""
    images: Float[Tensor, "tiles dim"]
    """Of the tiles, in the same space."""
    who: Inhabitants

    def vectors(self) -> dict[str, Tensor]:
        """Give examples of each part, to take mean and deviation from."""
        return {
            VISUAL: torch.cat([self.own, self.near, self.alike]),
            PLACE: self.place,
            CLIMATE: self.climate,
            TAXON: torch.cat([self.taxa, self.images]),
        }


@torch.no_grad()
def gather(retrieval: Retrieval, life: LifeEncoder, tiles: Path, ranges: Ranges) -> Told:
    """Compute what the tiles of a folder can be told.

    Raises:
        ConfigError: The database holds other rows than the folder has tiles.
    """
    latlon, encoder = places_of(np.load(tiles / "rows.npy")), retrieval.encoder
    if len(latlon) != len(encoder.database):
        raise ConfigError(
            f"{retrieval.folder} holds {len(encoder.database)} rows and {tiles} {len(latlon)} "
            "tiles (train the database on these tiles)"
        )
    who = Inhabitants.of(ranges, latlon)
    return Told(
        own=encoder.database.values,
        near=encoder.visual(latlon, 0.0),
        alike=encoder.visual(latlon, 1.0),
        place=encoder.key(latlon),
        climate=environment_of(latlon),
        taxa=life.space(TEXT, who.states),
        images=life.space(SATELLITE, encoder.database.values),
        who=who,
    )


class StyleTiles(Dataset[dict[str, Tensor]]):
    """Crops of tiles, with all that they can be told."""

    def __init__(self, tiles: TileDataset, told: Told) -> None:
        self.tiles, self.told = tiles, told

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        told, rng = self.told, np.random.default_rng([draw, index, 2])
        beta = float(rng.random())
        retrieved = torch.lerp(told.near[index], told.alike[index], beta)
        item = self.tiles[index, draw]
        item[VISUAL] = told.own[index] if rng.random() < OWN else retrieved
        item[PLACE], item[CLIMATE] = told.place[index], told.climate[index]
        who = told.who.lives[index]
        named = len(who) > 0 and rng.random() < NAMED
        item[TAXON] = told.taxa[self._taxon(who, rng)] if named else told.images[index]
        return item

    def _taxon(self, who: Int[np.ndarray, " n"], rng: np.random.Generator) -> int:
        """Draw one that lives there, the rarer the sooner: who lives everywhere says least."""
        weight = self.told.who.rarity[who]
        species = int(rng.choice(who, p=weight / weight.sum()))
        depth = int(np.searchsorted(np.cumsum(CUT), rng.random()))
        return int(self.told.who.strings[species, depth])
