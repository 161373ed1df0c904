"""Compare what a denoiser may predict: the velocity, or the clean latents.

    python -m training.probe_prediction configs/geosynth_nano_crops.yaml --steps 400 --out FILE.json

Two networks begin with the same weights and see the same batches, noise and times; they differ only
in how their output is read, and both are trained on the error of the velocity. That error is then
measured on tiles of blocks of 10 degrees that neither has seen, at several shares of noise.
Control: the best linear guess from each channel alone, which has learnt nothing of pictures.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, default_collate

from generation.atomic import atomic_path
from generation.conditioning import Condition
from generation.config import load_config
from generation.console import Parser, Progress, guarded, whole
from generation.diffusion.codec import signal
from generation.errors import ConfigError, OutputError
from training.data import TileDataset, counted_batches, held_blocks
from training.train_geosynth import GeoSynthConfig, GeoSynthModel, GeoSynthTask

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
LEAST_SHARE = 0.05
"""Below this much noise a guess of the clean latents is not divided further."""
HELD_BATCHES, HELD_BLOCKS = 8, 10


class CleanModel(GeoSynthModel):
    """The network's output is a guess of the clean latents.

    Source:
        Salimans and Ho, "Progressive distillation for fast sampling of diffusion models" (2022),
        §4, for the flow's interpolation: ``v = (x_t - x0) / s``.
    """

    def velocity(
        self,
        x_t: Float[Tensor, "batch channels rows cols"],
        share: Float[Tensor, " batch"],
        condition: Condition,
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Predict ``noise - x0`` by way of ``x0``."""
        clean = super().velocity(x_t, share, condition)
        return (x_t - clean) / share.clamp_min(LEAST_SHARE)[:, None, None, None]


class _Only(Dataset[dict[str, Tensor]]):
    """Some of the tiles, asked for in the same way."""

    def __init__(self, whole: TileDataset, rows: Int[np.ndarray, " k"]) -> None:
        self.whole, self.rows = whole, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        return self.whole[int(self.rows[key[0]]), key[1]]


KINDS: dict[str, type[GeoSynthModel]] = {"velocity": GeoSynthModel, "clean": CleanModel}


def compare(cfg: GeoSynthConfig) -> dict[str, dict[str, float]]:
    """Train a network of each kind and return errors by kind and share of noise."""
    results: dict[str, dict[str, float]] = {}
    for kind, model_class in KINDS.items():
        task = GeoSynthTask(cfg)
        held = held_blocks(task.dataset.rows, HELD_BLOCKS)
        if not 0 < held.sum() < len(held):
            raise ConfigError(
                f"{cfg.data} has {held.sum()} of {len(held)} tiles in held-out blocks (give tiles "
                "from more of the world)"
            )
        model = model_class(task.pipeline, cfg).train()
        _learn(model, task, held, Progress(kind, every_s=30.0))
        rows = np.flatnonzero(held)[:: max(1, held.sum() // (HELD_BATCHES * cfg.loop.batch_size))]
        results[kind], results["linear"] = _errors(model.eval(), task, rows)
    return results


def _learn(
    model: GeoSynthModel, task: GeoSynthTask, held: Bool[np.ndarray, " n"], progress: Progress
) -> None:
    loop = task.cfg.loop
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, loop.lr, (loop.beta1, loop.beta2), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, loop.lr, loop.steps, pct_start=min(0.3, loop.warmup_steps / loop.steps)
    )
    seen = _Only(task.dataset, np.flatnonzero(~held))
    batches = counted_batches(seen, loop, 0, 0, 1)
    for step in range(loop.steps):
        torch.manual_seed(step)
        loss = model(next(batches))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, loop.max_grad_norm)
        optimizer.step()
        schedule.step()
        progress(step + 1, loop.steps)


@torch.no_grad()
def _errors(
    model: GeoSynthModel, task: GeoSynthTask, rows: Int[np.ndarray, " k"]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return mean squared errors of the velocity, of the model and of the linear guess."""
    model.cfg = replace(task.cfg, drop=0.0, drop_all=0.0)
    spread = task.pipeline.decoder.spread[:, None, None] ** 2
    total = {f"share_{share:g}": np.zeros(2) for share in SHARES}
    size = task.cfg.loop.batch_size
    starts = range(0, len(rows), size)
    for start in starts:
        batch = default_collate([task.dataset[int(r), 0] for r in rows[start : start + size]])
        x0 = model.codec.encode(signal(batch["image"]))
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(start))
        condition = model.conditioner(model.given(batch))
        for share, sums in zip(SHARES, total.values(), strict=True):
            x_t = (1 - share) * x0 + share * noise
            guess = x_t * (1 - share) * spread / ((1 - share) ** 2 * spread + share**2)
            told = model.velocity(x_t, torch.full((len(x0),), share), condition)
            for column, velocity in enumerate((told, (x_t - guess) / share)):
                sums[column] += float(F.mse_loss(velocity, noise - x0)) / len(starts)
    ours, linear = ({name: float(v[k]) for name, v in total.items()} for k in (0, 1))
    return ours, linear


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table as JSON."""
    code = guarded("training.probe_prediction", lambda: _run(argv))
    if code:
        raise SystemExit(code)


def _run(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="training.probe_prediction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="a YAML file of train_geosynth.py")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. crop_px=64")
    parser.add_argument("--steps", type=whole, default=400, help="of each kind")
    parser.add_argument("--out", type=Path, required=True, help="a new .json file")
    args = parser.parse_args(argv)
    if args.out.exists():
        raise OutputError(f"{args.out} exists and is not overwritten (choose another)")
    words = [*args.overrides, f"loop.steps={args.steps}"]
    cfg = load_config(GeoSynthConfig, args.config, words)
    results = compare(cfg)
    with atomic_path(args.out) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(args.out)


if __name__ == "__main__":
    main()
