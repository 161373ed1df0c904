"""Train a model of ranges: a taxonomic string and a place to how likely the one is at the other.

    accelerate launch training/train_ranges.py configs/ranges_nano.yaml

Add --resume to go on; any field: key=value, for example loop.steps=2000. The run leaves snapshots,
metrics, maps of a few species beside their ranges, and in ``weights/`` the averaged weights.
"""

import sys
from collections.abc import Iterator
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # run as a script: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from generation.checkpoint import save_part
from generation.config import config, load_config
from generation.encoders.language_model import MINILM, text_encoder
from generation.encoders.location import spherical_harmonics
from generation.encoders.ranges import RangeModel, logits
from generation.errors import ConfigError
from generation.geo.environment import VARIABLES, embedded_environment, sampled
from training.data import counted_batches
from training.range_losses import (
    an_full,
    an_slds,
    an_ssdl,
    asymmetric,
    robust_asymmetric,
    surveyed,
)
from training.ranges_data import VALIDATION_SPECIES, Ranges, RangeSamples, read_ranges
from training.trainer import LoopConfig, run_recipe

_ASSUMED = {"an_full": an_full, "an_ssdl": an_ssdl, "an_slds": an_slds}
Loss = Literal[
    "surveyed",
    "an_full",
    "an_ssdl",
    "an_slds",
    "an_full_me",
    "an_ssdl_me",
    "an_slds_me",
    "asl",
    "ral",
]


@config
class RangesConfig:
    """Everything that tells one run from another."""

    ranges: Path = Path("data/phylacine/ranges.npz")
    traits: Path = Path("data/phylacine/traits.csv")
    out: Path = Path("runs/ranges_nano")
    loss: Loss = "surveyed"
    """``surveyed`` takes ranges as known everywhere; the others know only where each was seen."""
    own: int = 4
    """Cells that are drawn of each range in a step."""
    land: int = 1024
    """Cells that are drawn where any species of the land lives."""
    elsewhere: int = 256
    """Cells that are drawn of all others."""
    degree: int = 16
    width: int = 384
    blocks: int = 4
    dim: int = 256
    queries: int = 4
    drop: float = 0.1
    text: str = MINILM
    """What reads the strings: ``minilm``, or a frozen language model by its name or folder."""
    online: bool = False
    """Whether its weights may be fetched from the Hub."""
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        for name in ("own", "land", "elsewhere", "degree", "width", "dim", "queries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is too few (give 1 or more)")


class RangesModel(nn.Module):
    """A step as a forward pass."""

    def __init__(self, model: RangeModel, ranges: Ranges, cfg: RangesConfig) -> None:
        super().__init__()
        self.model, self.cfg = model, cfg
        latlon = ranges.cells.latlon
        variables = sampled(embedded_environment().variables(), latlon)
        harmonics = spherical_harmonics(torch.from_numpy(latlon).double(), cfg.degree).float()
        self.variables = torch.from_numpy(variables)
        self.harmonics = harmonics
        lived = torch.from_numpy(ranges.present.sum(0) > 5)  # more than the sea's few
        self.grounds = lived.nonzero()[:, 0], (~lived).nonzero()[:, 0]
        model.mean.copy_(self.variables[lived].mean(0))
        model.deviation.copy_(self.variables[lived].std(0).clamp_min(1e-3))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Score a batch of taxa at their own cells and at drawn ones."""
        cfg = self.cfg
        taxa = self.model.embed_taxa(batch["states"], batch["words"])
        counts = (cfg.land, cfg.elsewhere)
        drawn = [g[torch.randint(len(g), (n,))] for g, n in zip(self.grounds, counts, strict=True)]
        cells = torch.cat([batch["own"].flatten(), *drawn])
        places = self.model.embed_features(
            self.harmonics[cells].to(taxa.device), self.variables[cells].to(taxa.device)
        )
        own_count = batch["own"].numel()
        scores = logits(places, taxa)
        if cfg.loss == "surveyed":
            return {"loss": self._surveyed(scores, own_count, torch.cat(drawn), batch)}
        which = torch.arange(len(taxa), device=taxa.device)
        seen = scores[: own_count : cfg.own]  # one place of each
        away = scores[own_count:][torch.randperm(sum(counts))[: len(taxa)]]
        if cfg.loss in ("asl", "ral"):
            present = torch.zeros_like(torch.cat([seen, away]))
            present[: len(seen)] = torch.eye(len(seen), device=seen.device)
            kind = asymmetric if cfg.loss == "asl" else robust_asymmetric
            return {"loss": kind(torch.cat([seen, away]), present)}
        name = cfg.loss.removesuffix("_me")
        return {"loss": _ASSUMED[name](seen, which, away, entropy=name != cfg.loss)}

    def _surveyed(
        self, scores: Tensor, own_count: int, drawn: Tensor, batch: dict[str, Tensor]
    ) -> Tensor:
        taxa = len(batch["present"])
        own = scores[:own_count].unflatten(0, (taxa, -1))
        mine = own[torch.arange(taxa), :, torch.arange(taxa)]
        present = batch["present"][:, drawn].to(scores.dtype)
        cells = len(self.harmonics)
        weight = torch.cat(
            [
                torch.full((count,), len(ground) / cells / count)
                for ground, count in zip(
                    self.grounds, (self.cfg.land, self.cfg.elsewhere), strict=True
                )
            ]
        )
        return surveyed(mine, scores[own_count:].T, present, weight.to(scores), batch["share"])


class RangesTask:
    """Model, data and panels of a run."""

    def __init__(self, cfg: RangesConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        self.ranges = read_ranges(cfg.ranges, cfg.traits)
        self.text = text_encoder(cfg.text, remembered=64, online=cfg.online)
        self.dataset = RangeSamples(self.ranges, cfg.own, self.text)
        self.range_model = RangeModel(
            variables=list(VARIABLES),
            degree=cfg.degree,
            width=cfg.width,
            blocks=cfg.blocks,
            dim=cfg.dim,
            queries=cfg.queries,
            drop=cfg.drop,
            state_dim=self.text.dim,
            text=cfg.text,
        )
        self.model = RangesModel(self.range_model, self.ranges, cfg).train()

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    @torch.no_grad()
    def panel(self, path: Path) -> None:
        """Draw the ranges of some species of validation, and below each what is predicted."""
        rows = self.ranges.of(VALIDATION_SPECIES)
        rows = rows[np.linspace(0, len(rows) - 1, 6).astype(int)]
        self.range_model.eval()
        device = self.range_model.mean.device
        states, words = self.text([self.ranges.names[row] for row in rows])
        taxa = self.range_model.embed_taxa(states.to(device), words.to(device))
        places = self.range_model.embed_features(
            self.model.harmonics.to(device), self.model.variables.to(device)
        )
        found = logits(places, taxa).sigmoid().T.cpu().numpy()
        shape = (len(rows), self.ranges.cells.rows, self.ranges.cells.cols)
        real = self.ranges.present[rows].reshape(shape)
        sheet = np.concatenate([np.concatenate(list(a), 1) for a in (real, found.reshape(shape))])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * np.sqrt(sheet.clip(0, 1))).astype(np.uint8)).save(path)
        self.range_model.train()

    def export(self, folder: Path) -> None:
        """Save the model."""
        save_part(self.range_model, folder)


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_config, RangesConfig), RangesTask)


if __name__ == "__main__":
    main()
