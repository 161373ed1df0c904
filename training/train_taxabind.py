"""Bind names of taxa, satellite images, places and environments into one space.

    python -m training.data --help                       # makes the tiles
    accelerate launch training/train_taxabind.py configs/taxabind_nano.yaml

Every modality learns against the names alone. A sample is a species, its string often cut at a
higher rank, a place in its range, and a tile that lies there. Add --resume to go on; any field:
key=value. The run leaves in ``weights/`` a space of life.
"""

import sys
from collections.abc import Iterator
from dataclasses import field
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a script: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from generation.checkpoint import load_part, save_part
from generation.config import config, load_config
from generation.encoders.life_encoder import environment_of
from generation.encoders.life_space import ENVIRONMENT, LOCATION, SATELLITE, TEXT, LifeSpace
from generation.encoders.retrieval_model import TileTower, load_retrieval
from generation.errors import ConfigError
from training.data import counted_batches
from training.life_losses import random_places, supervised, with_random_places
from training.losses import clamped_scale, info_nce
from training.ranges_data import Ranges, read_ranges
from training.style_samples import CUT, Inhabitants, nearest_cells
from training.trainer import LoopConfig, run_recipe

_LOG_SCALE = float(np.log(1 / 0.07))
_BLOCK_DEG = 10
_HALF_CELL_DEG = 0.4
"""Places are moved by up to so much within the cell of a range."""


@config
class TaxaBindConfig:
    """Everything that tells one run from another."""

    tiles: Path = Path("runs/tiles")
    """What ``python -m training.data`` built."""
    ranges: Path = Path("data/phylacine/ranges.npz")
    traits: Path = Path("data/phylacine/traits.csv")
    looks: Path = Path("assets/range-nano")
    """A database of the looks of those tiles."""
    out: Path = Path("runs/taxabind_nano")
    dim: int = 64
    width: int = 256
    degree: int = 8
    blur: float = 0.1
    """Deviation of the noise on looks."""
    compat: str = ""
    """``mvrl``: as in the published code, random places are drawn evenly in degrees, and only rows
    of one taxon are no negatives; by default neither is a place where a taxon lives as well, since
    some hundred mammals share each."""
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        for name in ("dim", "width", "degree"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is too few (give 1 or more)")
        if self.compat not in ("", "mvrl"):
            raise ConfigError(f"compat={self.compat!r} is unknown (give mvrl, or leave it out)")


class LifeSamples(Dataset[dict[str, Tensor]]):
    """Species that live on some tile, asked for by ``(index, draw)``.

    Places are drawn in blocks of 10 degrees where tiles stand that are learnt from: of other blocks
    no modality sees who lives there.
    """

    def __init__(self, ranges: Ranges, who: Inhabitants, latlon: Tensor, looks: Tensor) -> None:
        self.who, self.looks = who, looks
        self.tile_cells = nearest_cells(ranges, latlon)
        self.cells = torch.from_numpy(ranges.cells.latlon)
        self.present = ranges.present[who.rows]
        self.drawn = self.present & learnt_blocks(self.cells, latlon)
        self.tiles: list[list[int]] = [[] for _ in who.rows]
        for tile, species in enumerate(who.lives):
            for each in species.tolist():
                self.tiles[each].append(tile)
        drawn = self.drawn.any(1)
        self.seen = np.array([n for n, tiles in enumerate(self.tiles) if tiles and drawn[n]])

    def __len__(self) -> int:
        return len(self.seen)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        rng = np.random.default_rng([draw, index, 3])
        species = int(self.seen[index])
        depth = int(np.searchsorted(np.cumsum(CUT), rng.random()))
        string = int(self.who.strings[species, depth])
        cell = int(rng.choice(np.flatnonzero(self.drawn[species])))
        moved = torch.from_numpy(rng.uniform(-_HALF_CELL_DEG, _HALF_CELL_DEG, 2)).float()
        lat, lon = self.cells[cell] + moved
        tile = int(rng.choice(self.tiles[species]))
        return {
            "string": torch.tensor(string),
            "species": torch.tensor(species),
            "cell": torch.tensor(cell),
            "tile_cell": torch.tensor(self.tile_cells[tile]),
            "state": self.who.states[string],
            "latlon": torch.stack([lat.clamp(-90, 90), (lon + 180) % 360 - 180]),
            "looks": self.looks[tile],
        }


def learnt_blocks(
    cells: Float[Tensor, "cells 2"], tiles: Float[Tensor, "tiles 2"]
) -> Bool[np.ndarray, " cells"]:
    """Tell which cells lie in a block of 10 degrees where a tile stands."""
    where, known = ((each / _BLOCK_DEG).floor().long().numpy() for each in (cells, tiles))
    return np.isin(where @ [360, 1], known @ [360, 1])


class TaxaBindModel(nn.Module):
    """A step as a forward pass."""

    def __init__(self, space: LifeSpace, present: Tensor, cfg: TaxaBindConfig) -> None:
        """Keep the parts.

        Args:
            space: What learns.
            present: Which species lives in which cell.
            cfg: The settings.
        """
        super().__init__()
        self.space, self.present, self.cfg = space, present, cfg
        self.log_scales = nn.ParameterDict(
            {
                name: nn.Parameter(torch.tensor(_LOG_SCALE))
                for name in (LOCATION, ENVIRONMENT, SATELLITE)
            }
        )

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bind three modalities to the names of a batch."""
        space, scales = self.space, {n: clamped_scale(s) for n, s in self.log_scales.items()}
        names = space.raw(TEXT, batch["state"])
        taxon = batch["string"][:, None] == batch["string"]
        away = random_places(len(names), compat=self.cfg.compat)
        losses, same = {}, taxon | self._lives(batch, "cell")
        for name, read in ((LOCATION, lambda where: where), (ENVIRONMENT, environment_of)):
            here, there = (
                space.raw(name, read(where.cpu()).to(names)) for where in (batch["latlon"], away)
            )
            losses[name] = with_random_places(names, here, there, scales[name], same)
        looks = batch["looks"] + self.cfg.blur * torch.randn_like(batch["looks"])
        images = space.raw(SATELLITE, looks)
        if self.cfg.compat:
            losses[SATELLITE] = supervised(names, images, scales[SATELLITE], taxon)
        else:
            same = taxon | self._lives(batch, "tile_cell")
            losses[SATELLITE] = info_nce(names, images, scales[SATELLITE], same)
        return {"loss": torch.stack(list(losses.values())).sum(), **{
            name: value.detach() for name, value in losses.items()
        }}  # fmt: skip

    def _lives(self, batch: dict[str, Tensor], cell: str) -> Tensor:
        """Tell which taxon of a batch lives at which place of it; nothing if that is not asked."""
        species, cells = batch["species"].cpu(), batch[cell].cpu()
        lives = self.present[species][:, cells]
        return (lives & (self.cfg.compat == "")).to(batch["state"].device)


class TaxaBindTask:
    """Model, data and panels of a run."""

    def __init__(self, cfg: TaxaBindConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        ranges = read_ranges(cfg.ranges, cfg.traits)
        database = load_retrieval(str(cfg.looks)).encoder.database
        self.who = Inhabitants.of(ranges, database.latlon)
        self.dataset = LifeSamples(ranges, self.who, database.latlon, database.values)
        self.space = LifeSpace(dim=cfg.dim, width=cfg.width, degree=cfg.degree)
        self.examples = self._examples(ranges, database.values)
        self.space.environment.fit(environment_of(self.examples[LOCATION]))
        self.model = TaxaBindModel(self.space, torch.from_numpy(self.dataset.present), cfg).train()

    def _examples(self, ranges: Ranges, looks: Tensor) -> dict[str, Tensor]:
        """Give what each modality is centred on: all species learnt, where they live, all tiles."""
        lived = np.flatnonzero(self.dataset.drawn.any(0))
        latlon = torch.from_numpy(ranges.cells.latlon[lived])
        return {
            TEXT: self.who.states[torch.from_numpy(self.who.strings[:, -1])],
            SATELLITE: looks,
            LOCATION: latlon,
            ENVIRONMENT: environment_of(latlon),
        }

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    @torch.no_grad()
    def panel(self, path: Path) -> None:
        """Draw for some species how well the environment of every place fits its name."""
        self.model.eval()
        lat, lon = torch.meshgrid(
            torch.arange(88.75, -90, -2.5), torch.arange(-178.75, 180, 2.5), indexing="ij"
        )
        places = torch.stack([lat.flatten(), lon.flatten()], 1)
        device = self.space.text_mean.device
        rows = torch.from_numpy(self.who.strings[:, -1])[:: max(1, len(self.who.strings) // 6)][:6]
        names = self.space.raw(TEXT, self.who.states[rows].to(device))
        there = self.space.raw(ENVIRONMENT, environment_of(places).to(device))
        fit = (names @ there.T).clamp(0, 1).unflatten(1, lat.shape).cpu().numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * np.concatenate(list(fit))).astype(np.uint8)).save(path)
        self.model.train()

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Save the space, centred, and what measures looks."""
        self.model.eval()
        self.space.centre(self.examples)
        save_part(self.space, folder / "space", half=True)
        save_part(load_part(TileTower, self.cfg.looks / "image"), folder / "looks")


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_config, TaxaBindConfig), TaxaBindTask)


if __name__ == "__main__":
    main()
