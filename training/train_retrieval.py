"""Train what RANGE retrieves with: places and satellite tiles in one space, and the database.

    python -m training.data --help                       # makes the tiles
    accelerate launch training/train_retrieval.py configs/retrieval_nano.yaml

A location encoder and an image tower learn to find each other's partners, as SatCLIP's do; then
the key and the look of every tile become rows of the database. Add --resume to go on; any field:
key=value. The run leaves in ``weights/`` a folder of RANGE.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import field
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a script: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from generation.config import config, load_config
from generation.encoders.heads import unit
from generation.encoders.location import LocationEncoder
from generation.encoders.retrieval import RetrievalDatabase, distances_km
from generation.encoders.retrieval_model import TileTower, save_retrieval, towers_sha256
from generation.encoders.tile_statistics import tile_statistics
from generation.errors import ConfigError
from generation.geo.mercator import Window
from training.data import TILE, counted_batches
from training.losses import clamped_scale, info_nce
from training.trainer import LoopConfig, run_recipe

_AT_ONCE = 256
_LOG_SCALE = float(np.log(1 / 0.07))
SOURCE = "NASA Blue Marble, web-mercator tiles of zoom 8; credit: NASA Earth Observatory"


@config
class RetrievalConfig:
    """Everything that tells one run from another."""

    tiles: Path = Path("runs/tiles")
    """What ``python -m training.data`` built."""
    out: Path = Path("runs/retrieval_nano")
    degree: int = 6
    """Of the spherical harmonics: few, so that keys say what holds at unseen places too."""
    width: int = 256
    dim: int = 64
    """Of the keys."""
    alike_km: float = 500.0
    """No place is asked to be told from those within this distance."""
    moved_deg: float = 0.2
    """Deviation by which places are moved while learning."""
    blur: float = 0.1
    """Deviation of the noise on looks."""
    temperature: float = 12.0
    geo_temperature: float = 40.0
    beta: float = 0.5
    """What the finished encoder reads with; the published figures of RANGE+."""
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        for name in ("degree", "width", "dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is too few (give 1 or more)")
        for name in ("alike_km", "moved_deg", "blur"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} is no length (give 0 or more)")


class TilePlaces(Dataset[dict[str, Tensor]]):
    """Looks of tiles and where they lie, moved a little in each draw."""

    def __init__(self, root: Path, moved_deg: float, blur: float) -> None:
        rows = np.load(root / "rows.npy")
        images = np.load(root / "images.npy", mmap_mode="r")
        self.latlon = places_of(rows)
        self.statistics = torch.cat(
            [
                tile_statistics(np.asarray(images[at : at + _AT_ONCE]))
                for at in range(0, len(images), _AT_ONCE)
            ]
        )
        self.sha256 = np.stack(
            [np.frombuffer(hashlib.sha256(image.tobytes()).digest(), np.uint8) for image in images]
        )
        self.moved_deg, self.blur = moved_deg, blur

    def __len__(self) -> int:
        return len(self.latlon)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        rng = torch.Generator().manual_seed(draw * 1_000_003 + index)
        place = self.latlon[index] + self.moved_deg * torch.randn(2, generator=rng)
        statistics = self.statistics[index]
        return {
            "latlon": torch.stack([place[0].clamp(-90, 90), (place[1] + 180) % 360 - 180]),
            "statistics": statistics,
            "noise": self.blur * torch.randn(len(statistics), generator=rng),
        }


def places_of(rows: Float[np.ndarray, "n figures"]) -> Float[Tensor, "n 2"]:
    """Give the centres of the tiles of a folder, degrees, latitude first."""
    corners = rows[:, :3].astype(int).tolist()
    centres = [Window(zoom, col, row, TILE, TILE).center for zoom, col, row in corners]
    return torch.tensor([(centre.lat, centre.lon) for centre in centres], dtype=torch.float32)


class RetrievalModel(nn.Module):
    """A step as a forward pass."""

    def __init__(self, location: LocationEncoder, tower: TileTower, alike_km: float) -> None:
        super().__init__()
        self.location, self.tower, self.alike_km = location, tower, alike_km
        self.log_scale = nn.Parameter(torch.tensor(_LOG_SCALE))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Ask tiles and places for each other, but never to tell neighbours apart."""
        near = distances_km(batch["latlon"], batch["latlon"]) < self.alike_km
        looks = self.tower.look(batch["statistics"]) + batch["noise"]
        scale = clamped_scale(self.log_scale)
        loss = info_nce(self.tower(looks), self.location(batch["latlon"]), scale, near)
        return {"loss": loss, "scale": scale.detach()}


class RetrievalTask:
    """Model, data and panels of a run."""

    def __init__(self, cfg: RetrievalConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        self.dataset = TilePlaces(cfg.tiles, cfg.moved_deg, cfg.blur)
        self.location = LocationEncoder(degree=cfg.degree, hidden_dim=cfg.width, embed_dim=cfg.dim)
        self.tower = TileTower(width=cfg.width, dim=cfg.dim)
        self.tower.fit(self.dataset.statistics)
        self.model = RetrievalModel(self.location, self.tower, cfg.alike_km).train()

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    @torch.no_grad()
    def panel(self, path: Path) -> None:
        """Draw for some tiles how well every place of the Earth fits them."""
        self.model.eval()
        device = self.tower.mean.device
        chosen = torch.linspace(0, len(self.dataset) - 1, 6).long()
        keys = unit(self.tower(self.tower.look(self.dataset.statistics[chosen].to(device))))
        lat, lon = torch.meshgrid(
            torch.arange(88.75, -90, -2.5), torch.arange(-178.75, 180, 2.5), indexing="ij"
        )
        places = torch.stack([lat.flatten(), lon.flatten()], 1).to(device)
        fit = (keys @ unit(self.location(places)).T).clamp(0, 1).unflatten(1, lat.shape)
        maps = (255 * fit.cpu().numpy()).astype(np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(list(maps))).save(path)
        self.model.train()

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Save the encoders and the database that they make of the tiles."""
        self.model.eval()
        location, tower = self.location.cpu(), self.tower.cpu()
        looks = tower.look(self.dataset.statistics)
        about = {
            "rows": len(looks),
            "key_dim": self.cfg.dim,
            "value_dim": looks.shape[1],
            "towers_sha256": towers_sha256(location, tower),
            "source": SOURCE,
            "licence": "open NASA data",
        }
        database = RetrievalDatabase(self.dataset.latlon, unit(tower(looks)), looks, about)
        settings = {n: getattr(self.cfg, n) for n in ("temperature", "geo_temperature", "beta")}
        save_retrieval(folder, settings, location, tower, database, self.dataset.sha256)


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_config, RetrievalConfig), RetrievalTask)


if __name__ == "__main__":
    main()
