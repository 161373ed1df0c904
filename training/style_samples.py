"""What a conditioner for styles is told of tiles: looks, places, climates and who lives there."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from generation.encoders.retrieval import distances_km
from generation.encoders.retrieval_model import Retrieval
from generation.encoders.taxonomy import RANKS
from generation.encoders.text import TextEncoder
from generation.errors import ConfigError
from generation.geo.environment import BIOCLIM, embedded_environment, sampled
from generation.pipelines.styling import CLIMATE, PLACE, TAXON, VISUAL, taxon_vectors
from training.data import TileDataset
from training.ranges_data import LEARNT, Ranges
from training.train_retrieval import places_of

OWN = 0.4
"""How often a tile is told its own look and not what is retrieved for its place."""
CUT = (0.1, 0.1, 0.1)
"""Probabilities that a taxon ends at the order, the family, the genus."""
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Told:
    """All that the tiles of a folder can be told, computed once."""

    own: Float[Tensor, "tiles value"]
    near: Float[Tensor, "tiles value"]
    """What is retrieved at beta 0; a mixture of this and the next is what any beta gives."""
    alike: Float[Tensor, "tiles value"]
    place: Float[Tensor, "tiles key"]
    climate: Float[Tensor, "tiles variables"]
    taxa: Float[Tensor, "strings state"]
    lives: list[Int[np.ndarray, " species"]]
    """For each tile, who of those learnt from lives there."""
    rarity: Float[np.ndarray, " species"]
    strings: Int[np.ndarray, "species ranks"]
    """For each species the rows of ``taxa`` of its order, family, genus and whole string."""

    def vectors(self) -> dict[str, Tensor]:
        """Give examples of each part, to take mean and deviation from."""
        return {
            VISUAL: torch.cat([self.own, self.near, self.alike]),
            PLACE: self.place,
            CLIMATE: self.climate,
            TAXON: self.taxa,
        }


@torch.no_grad()
def gather(retrieval: Retrieval, tiles: Path, ranges: Ranges) -> Told:
    """Compute what the tiles of a folder can be told.

    Raises:
        ConfigError: The database holds other rows than the folder has tiles.
    """
    rows, encoder = np.load(tiles / "rows.npy"), retrieval.encoder
    latlon = places_of(rows)
    if len(latlon) != len(encoder.database):
        raise ConfigError(
            f"{retrieval.folder} holds {len(encoder.database)} rows and {tiles} {len(latlon)} "
            "tiles (train the database on these tiles)"
        )
    fields = embedded_environment().variables()[: len(BIOCLIM)]
    lives = _lives(ranges, latlon.numpy())
    taxa, strings = _strings(ranges)
    return Told(
        own=encoder.database.values,
        near=encoder.visual(latlon, 0.0),
        alike=encoder.visual(latlon, 1.0),
        place=encoder.key(latlon),
        climate=torch.from_numpy(sampled(fields, latlon.numpy())),
        taxa=taxa,
        lives=lives,
        rarity=1 / np.sqrt(ranges.present[ranges.of(LEARNT)].sum(1)),
        strings=strings,
    )


def _lives(ranges: Ranges, latlon: Float[np.ndarray, "tiles 2"]) -> list[Int[np.ndarray, " n"]]:
    """Find who of those learnt from lives in the cell of each tile."""
    cells = torch.from_numpy(ranges.cells.latlon)
    near = [
        distances_km(torch.from_numpy(latlon[at : at + _AT_ONCE]), cells).argmin(1)
        for at in range(0, len(latlon), _AT_ONCE)
    ]
    present = ranges.present[ranges.of(LEARNT)]
    return [np.flatnonzero(present[:, cell]) for cell in torch.cat(near).tolist()]


def _strings(ranges: Ranges) -> tuple[Float[Tensor, "strings state"], Int[np.ndarray, "n ranks"]]:
    taxa = [ranges.taxa[row] for row in ranges.of(LEARNT)]
    every = [[" ".join(ranks[:depth]) for depth in range(1, len(RANKS) + 1)] for ranks in taxa]
    rows = {string: row for row, string in enumerate(dict.fromkeys(chain.from_iterable(every)))}
    numbers = np.array([[rows[string] for string in each] for each in every])
    return taxon_vectors(list(rows), TextEncoder(remembered=1)), numbers


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
        who = told.lives[index]
        item["lived"] = torch.tensor(len(who) > 0)
        item[TAXON] = (
            told.taxa[self._taxon(who, rng)] if len(who) else torch.zeros_like(told.taxa[0])
        )
        return item

    def _taxon(self, who: Int[np.ndarray, " n"], rng: np.random.Generator) -> int:
        """Draw one that lives there, the rarer the sooner: who lives everywhere says least."""
        weight = self.told.rarity[who]
        species = int(rng.choice(who, p=weight / weight.sum()))
        depth = int(np.searchsorted(np.cumsum(CUT), rng.random()))
        return int(self.told.strings[species, depth])
