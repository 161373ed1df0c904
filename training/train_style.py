"""Teach a satellite image model that has been trained to follow looks, climates and taxa.

    python -m training.data --help                       # makes the tiles
    accelerate launch training/train_style.py configs/style_nano.yaml

Only a conditioner learns: the model that draws, the database of looks and the reader of names do
not move. Each sample is told some of what is known of its tile: its look or what RANGE retrieves
for its place, the place itself, its climate, and a mammal that lives there. Add --resume to go on;
any field: key=value. The run leaves in ``weights/`` the averaged weights of a ``StyleConditioner``.
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
from PIL import Image
from torch import Tensor

from generation.checkpoint import save_part
from generation.conditioning import Condition, Given, StyleConditioner
from generation.config import config, load_config
from generation.encoders.life_encoder import load_life
from generation.encoders.retrieval_model import load_retrieval
from generation.errors import ConfigError
from generation.geo.mercator import Window
from generation.pipelines.satellite import SatellitePipeline
from generation.pipelines.scene import Scene
from generation.pipelines.styling import CLIMATE, PLACE, RETRIEVAL, TAXON, VISUAL
from training.data import TILE, TileDataset, counted_batches
from training.ranges_data import read_ranges
from training.style_samples import StyleTiles, gather
from training.train_geosynth import GeoSynthConfig, GeoSynthModel
from training.trainer import LoopConfig, run_recipe


@config
class StyleConfig:
    """Everything that tells one run from another."""

    tiles: Path = Path("runs/tiles")
    """What ``python -m training.data`` built, with captions."""
    ranges: Path = Path("data/phylacine/ranges.npz")
    traits: Path = Path("data/phylacine/traits.csv")
    base: Path = Path("assets/satellite-nano")
    """The model that draws."""
    retrieval: Path = Path("assets/range-nano")
    """The database of looks."""
    life: Path = Path("assets/taxabind-nano")
    """The space that taxa are understood in."""
    out: Path = Path("runs/style_nano")
    crop_px: int = TILE
    keep_visual: float = 0.6
    """Probability that a sample is told its look; the same of the others below."""
    keep_place: float = 0.4
    keep_climate: float = 0.35
    keep_taxon: float = 0.45
    keep_text: float = 0.1
    keep_location: float = 0.25
    keep_layout: float = 0.5
    blur: float = 0.1
    """Deviation of the noise on looks and places, in their own deviations."""
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        for name in ("visual", "place", "climate", "taxon", "text", "location", "layout"):
            value = getattr(self, f"keep_{name}")
            if not 0 <= value <= 1:
                raise ConfigError(f"keep_{name}={value} is no probability (give 0 to 1)")
        if self.blur < 0:
            raise ConfigError(f"blur={self.blur} is no deviation (give 0 or more)")


class StyleModel(GeoSynthModel):
    """A step of a denoiser that does not move, told styles by a conditioner that learns."""

    def __init__(
        self, pipeline: SatellitePipeline, styles: StyleConditioner, cfg: StyleConfig
    ) -> None:
        super().__init__(pipeline, GeoSynthConfig())
        self.requires_grad_(False)
        self.styles, self.told = styles, cfg

    def condition(self, batch: dict[str, Tensor]) -> Condition:
        """Say what a batch is told, some of it dropped."""
        told = {
            name: (self._blurred(name, batch[name]), self._keep(batch, f"keep_{name}"))
            for name in (VISUAL, PLACE, CLIMATE, TAXON)
        }
        condition: Condition = self.styles(self.conditioner(self.given(batch)), told)
        return condition

    def given(self, batch: dict[str, Tensor]) -> Given:
        """Drop inputs of a batch at random, most of them."""
        return Given(
            states=batch["states"],
            words=batch["mask"],
            latlon=batch["latlon"],
            gsd_m=batch["gsd_m"],
            classes=batch["classes"],
            has_text=self._keep(batch, "keep_text"),
            has_location=self._keep(batch, "keep_location"),
            has_layout=self._keep(batch, "keep_layout"),
        )

    def _blurred(self, name: str, vectors: Tensor) -> Tensor:
        deviation = self.styles.deviation(name)
        return vectors + self.told.blur * deviation * torch.randn_like(vectors)

    def _keep(self, batch: dict[str, Tensor], share: str) -> Tensor:
        return torch.rand(len(batch["image"]), device=batch["image"].device) < getattr(
            self.told, share
        )


class StyleTask:
    """Model, data and panels of a run."""

    def __init__(self, cfg: StyleConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        self.pipeline = SatellitePipeline.from_pretrained(cfg.base)
        retrieval = load_retrieval(str(cfg.retrieval))
        life = load_life(str(cfg.life))
        told = gather(retrieval, life, cfg.tiles, read_ranges(cfg.ranges, cfg.traits))
        vectors, sizes = told.vectors(), self.pipeline.conditioner.config
        self.styles = StyleConditioner(
            parts={name: each.shape[1] for name, each in vectors.items()},
            token_dim=sizes["token_dim"],
            vector_dim=sizes["vector_dim"],
            made_for={
                cfg.base.name: self.pipeline.sha256,
                RETRIEVAL: retrieval.towers_sha256,
                cfg.life.name: life.sha256,
            },
        )
        for name, each in vectors.items():
            self.styles.fit(name, each)
        self.dataset = StyleTiles(TileDataset(cfg.tiles, crop_px=cfg.crop_px), told)
        self.model = StyleModel(self.pipeline, self.styles, cfg)

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    def panel(self, path: Path) -> None:
        """Draw at no place by the retrieved looks of six tiles, the tiles above."""
        told, rows = self.dataset.told, np.linspace(0, len(self.dataset) - 1, 6).astype(int)
        window = Window(8, 0, 24_576, TILE, TILE)
        scenes = [
            Scene(
                window,
                use_location=False,
                style={
                    VISUAL: torch.lerp(told.near[row], told.alike[row], 0.5),
                    PLACE: told.place[row],
                },
            )
            for row in rows.tolist()
        ]
        drawn = self.pipeline(scenes, num_inference_steps=10, styling=self.styles.eval())
        self.styles.train()
        real = np.concatenate([self.dataset.tiles.images[row] for row in rows], 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate([real, np.concatenate(list(drawn), 1)])).save(path)

    def export(self, folder: Path) -> None:
        """Save the conditioner."""
        save_part(self.styles, folder)


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_config, StyleConfig), StyleTask)


if __name__ == "__main__":
    main()
