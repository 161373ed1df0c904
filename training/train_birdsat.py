"""Learn which satellite image a view from the ground belongs to: CVE-MAE and CVM-MAE.

    python -m training.panorama_sets --help              # renders the panoramas
    accelerate launch training/train_birdsat.py configs/birdsat_nano.yaml        # embeds
    accelerate launch training/train_birdsat.py configs/birdsat_nano_match.yaml  # matches

Each leaves its part in ``weights/``, ``embed`` or ``match``; both in one folder are a model. Add
--resume to go on; any field: key=value.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from generation.checkpoint import load_part, save_part
from generation.config import config, load_config
from generation.encoders.birdsat import DATE, PLACE, CveMae, CvmMae, as_view
from generation.encoders.heads import Embedding, unit
from generation.encoders.masked_vit import Images, Masking
from generation.errors import ConfigError
from training.birdsat_losses import CONTRAST, filling_in, matching, told_apart
from training.cross_view_data import (
    CrossViews,
    CrossViewSamples,
    PhotoPairs,
    is_table,
    read_pairs,
    read_photos,
)
from training.data import counted_batches
from training.gather import gathered
from training.losses import clamped_scale, info_nce
from training.panorama_data import open_sets
from training.ranks import both_ranks
from training.trainer import LoopConfig, run_recipe

_LOG_SCALE = float(np.log(1 / 0.07))
_SHOWN, _JUDGED = 6, 256


@config
class TowerConfig:
    """Sizes of one view's part, and of the transformer behind it."""

    view: tuple[int, int, int] = (384, 384, 32)
    """Height, width and side of a patch, pixels."""
    dim: int = 768
    depth: int = 12
    heads: int = 12
    cell: str = "vitae"
    """vit, or vitae with convolutions; the matching model takes vit."""


@config
class BirdSatConfig:
    """Everything that tells one run from another."""

    data: str = "runs/panoramas/train-*.parquet"
    """Sets of panoramas: a pattern of Parquet files, or a CSV file of real ones; or a CSV file of
    photographs (:mod:`training.cross_view_data`)."""
    kind: str = "embed"
    """embed (CVE-MAE) or match (CVM-MAE)."""
    out: Path = Path("runs/birdsat_nano")
    ground: TowerConfig = field(default_factory=TowerConfig)
    satellite: TowerConfig = field(default_factory=TowerConfig)
    """The matching model takes its view alone."""
    decoder: tuple[int, int, int] = (512, 8, 16)
    """Width, depth and heads."""
    metadata: bool = True
    """Whether place and, where data have any, date of the satellite image are read (-Meta)."""
    start_from: Path | None = None
    """A folder with ``embed`` or ``match``, as training or ``terrascape convert`` leaves it; sizes,
    and what is read of the metadata, are then its own."""
    hold_satellite: bool = False
    """Whether the satellite tower of the embedding model stays as it starts, as published."""
    drop: float = 0.25
    """How often a place is not told."""
    false: int = 1
    """Pairs that do not belong together for each that does; of kind=match."""
    begin_with: Path | None = None
    """Of kind=match: a folder with ``embed``, whose ground tower and patches it begins with."""
    align: float = 0.0
    """Of kind=match: weight of telling views apart by their class tokens, each read alone."""
    jitter: float = 0.1
    """How far colours of either view are stretched by lot."""
    validation: int | None = None
    """Number of the ten-degree block (36 x floor(lat / 10) + floor(lon / 10)) that panels judge."""
    compat: str = ""
    """``mvrl``: no temperature, as published."""
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.kind not in ("embed", "match"):
            raise ConfigError(f"kind={self.kind!r} is unknown (give embed or match)")
        if self.compat not in ("", "mvrl"):
            raise ConfigError(f"compat={self.compat!r} is unknown (give mvrl, or leave it out)")
        if self.hold_satellite and (self.kind == "match" or self.start_from is None):
            raise ConfigError(
                "hold_satellite is of kind=embed with start_from: the matching model has one "
                "tower, and a new one has learnt nothing"
            )
        if self.false < 1:
            raise ConfigError(
                f"false={self.false} leaves nothing to be told apart (give 1 or more)"
            )
        for name in ("drop", "jitter"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} (give 0 to 1, without 1)")


def sized(tower: TowerConfig) -> dict[str, Any]:
    """Give the sizes of a transformer as its class takes them."""
    return {"dim": tower.dim, "depth": tower.depth, "heads": tower.heads, "cell": tower.cell}


def new_model(cfg: BirdSatConfig, *, dated: bool) -> CveMae | CvmMae:
    """Build the model of a run, untrained or as it was left.

    Args:
        cfg: The settings.
        dated: Whether the data have dates.

    Raises:
        ConfigError: What is started from has views of other sizes than the settings.
    """
    views = [list(cfg.ground.view), list(cfg.satellite.view)]
    if cfg.start_from is not None:
        kind = {"embed": CveMae, "match": CvmMae}[cfg.kind]
        model: CveMae | CvmMae = load_part(kind, cfg.start_from / cfg.kind)
        found = [list(size) for size in sizes_of(model)]
        if found != views:
            raise ConfigError(
                f"{cfg.start_from} reads views of {found} and not of {views} (set ground.view and "
                "satellite.view to them)"
            )
        model.metadata.drop = cfg.drop
        return model
    reads = ((PLACE, DATE) if dated else (PLACE,)) if cfg.metadata else ()
    if cfg.kind == "match":
        tower = {"views": views, **sized(cfg.ground), "decoder": list(cfg.decoder)}
        matcher = CvmMae(tower, reads, cfg.drop)
        if cfg.begin_with is not None:
            begin(matcher, load_part(CveMae, cfg.begin_with / "embed"))
        return matcher
    ground = {"views": views[:1], **sized(cfg.ground), "decoder": list(cfg.decoder)}
    satellite = {"views": views[1:], **sized(cfg.satellite), "decoder": [0, 0, 0]}
    return CveMae(ground, satellite, reads, cfg.drop)


def begin(model: CvmMae, embed: CveMae) -> None:
    """Copy what reads either view from an embedding model, and the blocks of its ground tower.

    Raises:
        ConfigError: They are of other sizes.
    """
    tower = model.joint_tower
    parts = {
        "patches.0.": (embed.ground_tower, "patches.0."),
        "blocks.": (embed.ground_tower, "blocks."),
    }
    parts |= {"patches.1.": (embed.satellite_tower, "patches.0.")}
    state = tower.state_dict()
    for here, (source, there) in parts.items():
        for name, value in source.state_dict().items():
            if name.startswith(there):
                target = here + name.removeprefix(there)
                if state.get(target, value[:0]).shape != value.shape:
                    raise ConfigError(
                        f"{target} of the matching model has not the size {tuple(value.shape)} of "
                        "begin_with (give both the same views, dim, depth and heads)"
                    )
                state[target] = value
    tower.load_state_dict(state)


def sizes_of(model: CveMae | CvmMae) -> list[tuple[int, int, int]]:
    """Give height, width and patch of the ground view and of the satellite image."""
    if isinstance(model, CvmMae):
        return list(model.joint_tower.sizes)
    return [*model.ground_tower.sizes, *model.satellite_tower.sizes]


class BirdSatModel(nn.Module):
    """A step as a forward pass."""

    def __init__(self, model: CveMae | CvmMae, cfg: BirdSatConfig) -> None:
        """Keep the parts.

        Args:
            model: What learns.
            cfg: The settings.
        """
        super().__init__()
        self.net, self.cfg = model, cfg
        if isinstance(model, CveMae):
            model.satellite_tower.requires_grad_(not cfg.hold_satellite)
        if (isinstance(model, CveMae) or cfg.align) and not cfg.compat:
            self.log_scale = nn.Parameter(torch.tensor(_LOG_SCALE))

    def train(self, mode: bool = True) -> "BirdSatModel":
        """Turn learning on or off; a tower that is held stays off, its batch norms too."""
        super().train(mode)
        if self.cfg.hold_satellite and isinstance(self.net, CveMae):
            self.net.satellite_tower.eval()
        return self

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compare the pairs of a batch, and fill in what is masked of it."""
        ground = self._seen(batch["ground"], self.cfg.ground)
        satellite = self._seen(batch["satellite"], self.cfg.satellite)
        known = (batch["latlon"], batch["date"])
        if isinstance(self.net, CvmMae):
            logits = matching(self.net, ground, satellite, known, self.cfg.false)
            told = told_apart(logits)
            filled = filling_in(self.net.joint_tower, [ground, satellite])
            right = ((logits[0] > 0).float().mean() + (logits[1:] < 0).float().mean()) / 2
            found = {"told": told, "filled": filled, "right": right}
            if not self.cfg.align:
                return {"loss": told + filled, **found}
            aligned = self._aligned(self.net, [ground, satellite], known)
            return {"loss": told + filled + self.cfg.align * aligned, **found, "aligned": aligned}
        one = gathered(Embedding(self.net.embed_ground(ground))).vector
        other = gathered(Embedding(self.net.embed_satellite(satellite, *known))).vector
        scale = one.new_ones(()) if self.cfg.compat else clamped_scale(self.log_scale)
        told = info_nce(one, other, scale)
        filled = filling_in(self.net.ground_tower, [ground])
        return {"loss": CONTRAST * told + filled, "told": told, "filled": filled}

    def _aligned(self, net: CvmMae, views: list[Images], known: tuple[Tensor, Tensor]) -> Tensor:
        """Let either view find the other among those of the batch, each read without the other."""
        tower, first = net.joint_tower, net.joint_tower.counts[0]
        rows = torch.arange(sum(tower.counts), device=views[0].device).expand(len(views[0]), -1)
        alone = [
            tower.encode(views, Masking(kept, sum(tower.counts)))[:, 0]
            for kept in (rows[:, :first], rows[:, first:])
        ]
        one, other = (
            gathered(Embedding(unit(each))).vector
            for each in (alone[0], alone[1] + net.metadata(*known))
        )
        scale = one.new_ones(()) if self.cfg.compat else clamped_scale(self.log_scale)
        return info_nce(one, other, scale)

    def _seen(self, pixels: Tensor, tower: TowerConfig) -> Images:
        images = as_view(pixels, tower.view[:2])
        if not self.training or not self.cfg.jitter:
            return images
        stretch, shift = self.cfg.jitter * torch.randn(2, len(images), 3, 1, 1).to(images)
        return images * (1 + stretch) + shift


class BirdSatTask:
    """Model, data and panels of a run."""

    def __init__(self, cfg: BirdSatConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        pairs = _pairs(cfg)
        judged = pairs.blocks == cfg.validation
        self.learnt, self.judged = pairs[~judged], pairs[judged]
        if len(self.learnt) < 2:
            raise ConfigError(
                f"{len(self.learnt)} pairs are left outside of block {cfg.validation} (choose "
                "another for validation)"
            )
        self.dataset = CrossViewSamples(self.learnt)
        self.model = BirdSatModel(new_model(cfg, dated=pairs.has_dates), cfg).train()

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    @torch.no_grad()
    def panel(self, path: Path) -> None:
        """Draw pairs of the validation block, and put down how well they are told from others."""
        self.model.eval()
        from_learnt = len(self.judged) < 2
        pairs = self.learnt if from_learnt else self.judged
        chosen = pairs[np.random.default_rng(0).permutation(len(pairs))[:_JUDGED]]
        shown = chosen.decoded(np.arange(len(chosen)))
        figures = self._judge(shown, torch.from_numpy(chosen.date))
        told = {"pairs": len(shown), "learnt_from": from_learnt, **figures}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(told) + "\n", encoding="utf-8")
        Image.fromarray(_sheet(shown)).save(path)
        self.model.train()

    def _judge(self, pairs: CrossViews, date: Tensor) -> dict[str, float]:
        device = next(self.model.parameters()).device
        ground, satellite, latlon = (
            torch.from_numpy(each).to(device)
            for each in (pairs.ground, pairs.satellite, pairs.latlon)
        )
        date = date.to(device)
        net, found = self.model.net, []
        for start in range(0, len(pairs), 32):
            rows = slice(start, start + 32)
            one = as_view(ground[rows], self.cfg.ground.view[:2])
            other = as_view(satellite[rows], self.cfg.satellite.view[:2])
            known = (latlon[rows], date[rows])
            if isinstance(net, CvmMae):
                if len(one) > 1:  # a single one has no other to be told from
                    found.append(matching(net, one, other, known))
            else:
                found.append(
                    torch.stack([net.embed_ground(one), net.embed_satellite(other, *known)])
                )
        return _figures(found, isinstance(net, CvmMae))

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Save the model as a part of a folder."""
        self.model.eval()
        save_part(self.model.net, folder / self.cfg.kind, half=True)


def _pairs(cfg: BirdSatConfig) -> CrossViews | PhotoPairs:
    sizes = cfg.ground.view[:2], cfg.satellite.view[:2]
    if is_table(cfg.data):
        return read_photos(Path(cfg.data), *sizes)
    return read_pairs(open_sets(cfg.data)[1], *sizes)


def _figures(found: list[Float[Tensor, "two n *dim"]], logits: bool) -> dict[str, float]:
    both = torch.cat(found, 1).cpu()
    if logits:
        right = torch.stack([both[0] > 0, both[1] < 0]).float().mean()
        return {"right": float(right), "told": float(told_apart(both))}
    first, second = both_ranks(Embedding(both[0]), Embedding(both[1]))
    return {
        f"recall_at_{k}{way}": float((ranks <= k).mean())
        for way, ranks in (("", first), ("_back", second))
        for k in (1, 5, 10)
    }


def _sheet(pairs: CrossViews) -> np.ndarray:
    """Put ground views and, under each, its satellite image beside each other."""
    ground, satellite = pairs.ground[:_SHOWN], pairs.satellite[:_SHOWN]
    width = max(ground.shape[2], satellite.shape[2])

    def wide(images: np.ndarray) -> np.ndarray:
        return np.pad(images, ((0, 0), (0, 0), (0, width - images.shape[2]), (0, 0)))

    columns = np.concatenate([wide(ground), wide(satellite)], 1)
    return np.concatenate(list(columns), 1)


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_config, BirdSatConfig), BirdSatTask)


if __name__ == "__main__":
    main()
