"""One training loop for every model, on Accelerate.

The loop knows batches and a loss, nothing else. Every random number of step ``n`` comes from the
seed and ``n``, so a resumed run gives the same weights as one that was never interrupted.
"""

import argparse
import itertools
import json
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from generation.config import config, to_yaml
from generation.errors import ConfigError, TerrascapeError
from training.snapshot import Snapshot, newest, write_snapshot

_log = logging.getLogger(__name__)


@config
class LoopConfig:
    """How long and how fast to learn."""

    steps: int = 1000
    """Optimiser steps."""
    batch_size: int = 32
    """Samples a step and process."""
    lr: float = 5e-4
    """Peak learning rate."""
    warmup_steps: int = 100
    final_lr: float = 0.05
    """Share of the peak that the cosine ends at."""
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    max_grad_norm: float = 1.0
    accumulate: int = 1
    """Batches a step; the effective batch is batch_size x accumulate x processes."""
    mixed_precision: str = "no"
    """no, bf16 or fp16. On a CPU without AMX or AVX512-BF16, bf16 is slower than no."""
    ema_decay: float = 0.9995
    seed: int = 0
    log_every: int = 20
    snapshot_every: int = 500
    keep_snapshots: int = 2
    panel_every: int = 500
    """Steps between validation panels; 0 for none."""
    world_size: int = 1
    """Processes that the run was planned for; another number is refused."""

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "accumulate", "log_every", "snapshot_every")
        wrong = [
            f"{name}={getattr(self, name)} (give 1 or more)"
            for name in (*counts, "keep_snapshots", "world_size")
            if getattr(self, name) < 1
        ]
        wrong += [
            f"{name}={getattr(self, name)} (give 0 or more)"
            for name in ("warmup_steps", "panel_every", "lr", "final_lr", "weight_decay")
            if getattr(self, name) < 0
        ]
        wrong += [
            f"{name}={getattr(self, name)} (give 0 to 1, without 1)"
            for name in ("beta1", "beta2", "ema_decay")
            if not 0 <= getattr(self, name) < 1
        ]
        if self.max_grad_norm <= 0:
            wrong.append(f"max_grad_norm={self.max_grad_norm} (give more than 0)")
        if not 0 <= self.seed < 2**32:
            wrong.append(f"seed={self.seed} (give 0 to 2^32 - 1)")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            wrong.append(f"mixed_precision={self.mixed_precision!r} (give no, bf16 or fp16)")
        if wrong:
            raise ConfigError("; ".join(wrong))


@runtime_checkable
class Task(Protocol):
    """What the loop asks of a recipe."""

    @property
    def model(self) -> nn.Module:
        """Called with a batch, returns ``{"loss": scalar, ...}``."""

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield the batches from a number of samples on, for one process."""

    def panel(self, path: Path) -> None:
        """Draw the validation panel with the averaged weights."""

    def export(self, folder: Path) -> None:
        """Save the averaged weights in the published form."""


def fit(task: Task, cfg: LoopConfig, out: Path, *, resume: bool, record: str) -> None:
    """Train until ``cfg.steps``, leaving snapshots, metrics, panels and the final weights.

    Args:
        task: Model, data and panels.
        cfg: The schedule.
        out: Folder of the run.
        resume: Go on from the newest whole snapshot, if there is one.
        record: The resolved configuration, saved beside every snapshot.

    Raises:
        ConfigError: The number of processes is not the planned one, or the folder holds a run.
    """
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # or processes of torchrun do not find each other
        mixed_precision=cfg.mixed_precision,
        gradient_accumulation_steps=cfg.accumulate,
    )
    if accelerator.num_processes != cfg.world_size:
        raise ConfigError(
            f"loop.world_size={cfg.world_size} but {accelerator.num_processes} processes run (on "
            "CPUs start them with torchrun --nproc_per_node N; 'accelerate launch --cpu "
            "--num_processes N' runs one)"
        )
    if cfg.mixed_precision == "bf16" and accelerator.device.type == "cpu" and not _has_bf16():
        _log.warning(
            "loop.mixed_precision=bf16: this processor has no instructions for it, and a step will "
            "take many times as long as with loop.mixed_precision=no"
        )
    if not resume and (out / "snapshots").exists() and newest(out / "snapshots") is not None:
        raise ConfigError(f"{out} holds a run already (add --resume, or choose another folder)")
    out.mkdir(parents=True, exist_ok=True)
    set_seed(cfg.seed)
    Loop(task, cfg, out, accelerator, record).run(resume=resume)


class RunConfig(Protocol):
    """What every recipe's configuration has."""

    @property
    def loop(self) -> LoopConfig:
        """The schedule."""

    @property
    def out(self) -> Path:
        """Folder of the run."""


_Cfg = TypeVar("_Cfg", bound=RunConfig)


def run_recipe(
    argv: list[str] | None,
    doc: str | None,
    load: Callable[[Path, list[str]], _Cfg],
    build: Callable[[_Cfg], Task],
) -> None:
    """Be the command line of a recipe: read the configuration, build the task, train.

    Args:
        argv: The words; those of the process if absent.
        doc: The recipe's own description.
        load: Reads a file with overrides.
        build: Makes the task.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="a YAML file of configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. loop.lr=1e-4")
    parser.add_argument("--resume", action="store_true", help="go on from the newest snapshot")
    args = parser.parse_args(argv)
    try:
        cfg = load(args.config, args.overrides)
        fit(build(cfg), cfg.loop, cfg.out, resume=args.resume, record=to_yaml(cfg))
    except TerrascapeError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


def _has_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class Loop:
    """The state of a run."""

    def __init__(
        self, task: Task, cfg: LoopConfig, out: Path, accelerator: Accelerator, record: str
    ) -> None:
        self.task, self.cfg, self.out, self.accelerator = task, cfg, out, accelerator
        self.record = record
        learned = [p for p in task.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            learned, lr=cfg.lr, betas=(cfg.beta1, cfg.beta2), weight_decay=cfg.weight_decay
        )
        self.model, self.optimizer = accelerator.prepare(task.model, optimizer)
        self.average = {
            name: p.detach().clone() for name, p in task.model.named_parameters() if p.requires_grad
        }
        self.step = 0
        self.stopping = False

    def run(self, *, resume: bool) -> None:
        """Train from the start or from the newest snapshot."""
        found = newest(self.out / "snapshots") if resume else None
        if found is not None:
            self._restore(found)
        with StopRequests(self):
            self._train()
        if self.step >= self.cfg.steps:
            self.with_average(lambda: self.task.export(self.out / "weights"))

    def _train(self) -> None:
        cfg, world = self.cfg, self.accelerator.num_processes
        done = self.step * cfg.batch_size * cfg.accumulate * world
        loader = self.task.batches(done, self.accelerator.process_index, world)
        stop = False
        main = self.accelerator.is_main_process
        with closing(Meters(self.out, main, self.step, cfg.steps)) as meters:
            while self.step < cfg.steps and not stop:
                losses = self._one_step(itertools.islice(loader, cfg.accumulate))
                self.step += 1
                stop = self._all_stop()
                if self.step % cfg.log_every == 0:
                    meters.write(self.step, {**losses, "lr": self._lr(self.step - 1)})
                meters.advance()
                if cfg.panel_every and self.step % cfg.panel_every == 0 and not stop:
                    path = self.out / "panels" / f"step-{self.step:07d}.png"
                    self.with_average(partial(self.task.panel, path))
                if stop or self.step % cfg.snapshot_every == 0 or self.step == cfg.steps:
                    self._save()

    def _all_stop(self) -> bool:
        """Whether any process was asked to stop: one that went on alone would wait for ever."""
        if self.accelerator.num_processes == 1:
            return self.stopping
        asked = torch.tensor([float(self.stopping)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, reduction="sum").item() > 0)

    def _one_step(self, batches: Iterator[dict[str, Tensor]]) -> dict[str, float]:
        # One seed a step and process: noise, times and drops do not depend on what came before.
        torch.manual_seed(
            (self.cfg.seed * 1_000_003 + self.step) * 4096 + self.accelerator.process_index
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(self.step)
        losses: dict[str, Tensor] = {}
        for batch in batches:
            with self.accelerator.accumulate(self.model), self.accelerator.autocast():
                losses = self.model({k: v.to(self.accelerator.device) for k, v in batch.items()})
                self.accelerator.backward(losses["loss"])
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(
                        self.model.parameters(), self.cfg.max_grad_norm
                    )
                    losses["grad_norm"] = torch.as_tensor(norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        self._update_average()
        return {name: float(value.detach()) for name, value in losses.items()}

    def _lr(self, step: int) -> float:
        cfg = self.cfg
        if step < cfg.warmup_steps:
            return cfg.lr * (step + 1) / cfg.warmup_steps
        through = (step - cfg.warmup_steps) / max(1, cfg.steps - cfg.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, through)))
        return cfg.lr * (cfg.final_lr + (1 - cfg.final_lr) * cosine)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.cfg.ema_decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self._bare().named_parameters():
            if name in self.average:
                self.average[name].lerp_(parameter, 1 - decay)

    def _bare(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.model)

    @torch.no_grad()
    def with_average(self, action: Callable[[], None]) -> None:
        """Run something on the main process with the averaged weights in the model."""
        if self.accelerator.is_main_process:
            parameters = dict(self._bare().named_parameters())
            kept = {name: parameters[name].detach().clone() for name in self.average}
            state = torch.get_rng_state()
            for name, value in self.average.items():
                parameters[name].copy_(value)
            self._bare().eval()
            try:
                action()
            finally:
                for name, value in kept.items():
                    parameters[name].copy_(value)
                self._bare().train()
                torch.set_rng_state(state)
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            snapshot = Snapshot(
                step=self.step,
                weights=self._bare().state_dict(),
                average=self.average,
                optimizer=self.optimizer.state_dict(),
                record=self.record,
            )
            write_snapshot(self.out / "snapshots", snapshot, keep=self.cfg.keep_snapshots)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def _restore(self, found: Snapshot) -> None:
        state = self._bare().state_dict()  # shares its memory with the model
        needed = {name for name, _ in self._bare().named_parameters()}
        odd = needed - found.weights.keys()
        odd |= {n for n, v in found.weights.items() if n not in state or state[n].shape != v.shape}
        if odd or self.average.keys() != found.average.keys():
            raise ConfigError(
                f"the snapshot is of another model ({', '.join(sorted(odd)[:3])} …; resume with "
                "the configuration that lies beside it)"
            )
        for name, value in found.weights.items():
            state[name].copy_(value)
        for name, value in found.average.items():
            self.average[name].copy_(value)
        self.optimizer.load_state_dict(found.optimizer)
        self.step = found.step


class StopRequests:
    """Turns the first interrupt or termination into a snapshot at the end of the step."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequests":
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._stop)
        except ValueError:  # not the main thread: the caller stops us in other ways
            self.before.clear()
        return self

    def _stop(self, number: int, frame: object) -> None:
        self.loop.stopping = True
        signal.signal(number, self.before[number])  # a second one ends the program at once

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Meters:
    """Progress bar, JSON lines and TensorBoard, on the main process."""

    def __init__(self, out: Path, active: bool, start: int, total: int) -> None:
        self.active = active
        self.began, self.start = time.monotonic(), start
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        self.bar = tqdm(total=total, initial=start, unit="step", mininterval=10)
        self.board = SummaryWriter(out / "tensorboard")
        self.lines = (out / "metrics.jsonl").open("a", encoding="utf-8")

    def advance(self) -> None:
        """Count one step."""
        if self.active:
            self.bar.update()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log one line."""
        if not self.active:
            return
        rate = (step - self.start) / (time.monotonic() - self.began)
        row = {"step": step, **values, "steps_per_s": round(rate, 3)}
        self.lines.write(json.dumps(row) + "\n")
        self.lines.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        self.bar.set_postfix(loss=f"{values['loss']:.4f}")

    def close(self) -> None:
        """Flush everything."""
        if self.active:
            self.bar.close()
            self.board.close()
            self.lines.close()
