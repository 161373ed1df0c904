"""The training loop, on a model that learns in no time: exact, crash-safe, open about its terms."""

import itertools
import json
import os
import shutil
import signal

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from generation.checkpoint import load_safetensors
from generation.errors import ConfigError, WeightsError
from training.snapshot import newest
from training.trainer import LoopConfig, fit


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """Accelerate keeps one state a process; every run here is a run of its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Regression(nn.Module):
    """Two weights, one of them not learned, and noise that depends on the random state."""

    def __init__(self, noise=0.1):
        super().__init__()
        self.line = nn.Linear(2, 1)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("offset", torch.tensor([0.25]))
        self.noise = noise
        self.seen = []

    def forward(self, batch):
        self.seen.append(self.line.weight.detach().clone())
        guess = self.line(batch["x"])[:, 0] * self.frozen + self.offset
        target = batch["y"] + self.noise * torch.randn_like(batch["y"])
        return {"loss": (guess - target).square().mean()}


class Task:
    """A recipe as small as recipes get."""

    def __init__(self, cfg, noise=0.1, stop_at=None):
        torch.manual_seed(cfg.seed)
        self.cfg, self.stop_at = cfg, stop_at
        self.model = Regression(noise)
        self.panels, self.exported = [], None

    def batches(self, start, rank, world_size):
        for number in itertools.count(start // self.cfg.batch_size):
            if number == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            x = torch.randn(self.cfg.batch_size, 2, generator=torch.Generator().manual_seed(number))
            yield {"x": x, "y": x @ torch.tensor([2.0, -1.0])}

    def panel(self, path):
        torch.rand(100)  # a panel may draw from any generator
        self.panels.append((path.name, self.model.line.weight.detach().clone()))

    def export(self, folder):
        self.exported = {n: p.detach().clone() for n, p in self.model.named_parameters()}


def settings(**changes):
    values = {
        "steps": 12, "batch_size": 4, "lr": 0.05, "warmup_steps": 3, "log_every": 4,
        "snapshot_every": 4, "panel_every": 0, "keep_snapshots": 9,
    }  # fmt: skip
    return LoopConfig(**{**values, **changes})


def train(out, *, resume=False, noise=0.1, stop_at=None, **changes):
    cfg = settings(**changes)
    task = Task(cfg, noise, stop_at)
    try:
        fit(task, cfg, out, resume=resume, record="settings\n")
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    return task


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def drop_after(out, step):
    for folder in (out / "snapshots").glob("step-*"):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)


# --- resuming ------------------------------------------------------------------------------------
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(tmp_path):
    whole = train(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    drop_after(tmp_path / "cut", 4)
    resumed = train(tmp_path / "cut", resume=True)
    assert len(resumed.model.seen) == 8
    assert_equal(resumed.exported, whole.exported)
    first, second = (newest(tmp_path / name / "snapshots") for name in ("whole", "cut"))
    assert (first.step, second.step) == (12, 12)
    assert_equal(first.weights, second.weights)
    for index, entry in first.optimizer["state"].items():
        assert_equal(entry, second.optimizer["state"][index])


def test_resuming_falls_back_past_a_broken_snapshot(tmp_path):
    whole = train(tmp_path / "run")
    drop_after(tmp_path / "run", 8)
    file = tmp_path / "run/snapshots/step-00000008/weights.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    resumed = train(tmp_path / "run", resume=True)
    assert len(resumed.model.seen) == 8  # from step 4 on
    assert_equal(resumed.exported, whole.exported)


def test_a_finished_run_that_is_resumed_only_exports(tmp_path):
    whole = train(tmp_path / "run")
    again = train(tmp_path / "run", resume=True)
    assert again.model.seen == []
    assert_equal(again.exported, whole.exported)


def test_to_resume_nothing_is_to_begin(tmp_path):
    assert_equal(train(tmp_path / "a", resume=True).exported, train(tmp_path / "b").exported)


def test_buffers_are_part_of_a_snapshot_and_older_ones_lack_them(tmp_path):
    train(tmp_path / "run")
    drop_after(tmp_path / "run", 4)
    folder = tmp_path / "run/snapshots/step-00000004"
    assert load_safetensors(folder / "weights.safetensors")["offset"].tolist() == [0.25]


def test_a_snapshot_of_another_model_is_refused(tmp_path, monkeypatch):
    train(tmp_path / "run")
    monkeypatch.setattr(Regression, "__init__", other_model)
    with pytest.raises(ConfigError, match=r"another model \(line\.weight"):
        train(tmp_path / "run", resume=True)


def other_model(self, noise):
    nn.Module.__init__(self)
    self.line = nn.Linear(3, 1)
    self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)


def test_a_run_is_not_overwritten_by_accident(tmp_path):
    train(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"holds a run already .*--resume"):
        train(tmp_path / "run")


# --- stopping ------------------------------------------------------------------------------------
def test_a_termination_leaves_a_snapshot_from_which_the_run_goes_on(tmp_path):
    whole = train(tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)
    stopped = train(tmp_path / "run", stop_at=5)
    assert signal.getsignal(signal.SIGTERM) is before
    assert newest(tmp_path / "run/snapshots").step == 6  # the step in which it came, finished
    assert stopped.exported is None
    assert_equal(train(tmp_path / "run", resume=True).exported, whole.exported)


def test_a_termination_in_the_last_step_still_exports(tmp_path):
    assert train(tmp_path, stop_at=11).exported is not None


def test_weights_that_are_no_numbers_stop_the_run_and_spare_the_last_snapshot(tmp_path):
    train(tmp_path, steps=4)
    with pytest.raises(WeightsError, match="NaN"):
        train(tmp_path, steps=8, resume=True, noise=float("nan"))
    assert newest(tmp_path / "snapshots").step == 4


# --- what a step does ----------------------------------------------------------------------------
def test_the_loss_falls_and_is_logged(tmp_path):
    train(tmp_path, steps=80, log_every=20, lr=0.2, final_lr=0.01)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [20, 40, 60, 80]
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"] + 0.05
    assert {"grad_norm", "lr", "steps_per_s"} <= rows[0].keys()
    assert list((tmp_path / "tensorboard").iterdir())


def test_the_rate_rises_to_its_peak_and_falls_to_its_end(tmp_path):
    train(tmp_path, steps=10, warmup_steps=4, lr=0.1, final_lr=0.2, log_every=1)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [row["lr"] for row in rows]
    assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
    assert 0.02 < rates[-1] < 0.03


def test_the_average_follows_the_weights(tmp_path):
    task = train(tmp_path, ema_decay=0.6)
    path = [*task.model.seen[1:], newest(tmp_path / "snapshots").weights["line.weight"]]
    average = task.model.seen[0]
    for step, weight in enumerate(path):
        decay = min(0.6, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(task.exported["line.weight"], average)
    torch.testing.assert_close(task.model.line.weight, path[-1])  # put back after the export


def test_panels_show_the_average_and_disturb_nothing(tmp_path):
    plain = train(tmp_path / "plain")
    watched = train(tmp_path / "watched", panel_every=3)
    assert [name for name, _ in watched.panels] == [f"step-{n:07d}.png" for n in (3, 6, 9, 12)]
    assert not torch.equal(watched.panels[0][1], watched.model.seen[3])
    assert_equal(watched.exported, plain.exported)


def test_small_batches_that_are_accumulated_are_one_large_one(tmp_path):
    parts = train(tmp_path / "parts", noise=0.0, accumulate=2)
    cfg = settings(batch_size=8)
    whole = Task(cfg, noise=0.0)
    whole.batches = lambda *place: doubled(place)
    fit(whole, cfg, tmp_path / "whole", resume=False, record="")
    assert len(parts.model.seen) == 2 * len(whole.model.seen)
    for name, value in whole.exported.items():
        torch.testing.assert_close(parts.exported[name], value, atol=1e-6, rtol=1e-5)


def doubled(place):
    small = Task(settings()).batches(*place)
    while True:
        first, second = next(small), next(small)
        yield {name: torch.cat([first[name], second[name]]) for name in first}


def test_what_is_frozen_stays_as_it_was(tmp_path):
    assert train(tmp_path).exported["frozen"].item() == 1


def test_another_seed_is_another_run(tmp_path):
    first, second = train(tmp_path / "a"), train(tmp_path / "b", seed=1)
    assert not torch.equal(first.exported["line.weight"], second.exported["line.weight"])


# --- what is refused -----------------------------------------------------------------------------
def test_a_number_of_processes_that_was_not_planned_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"world_size=2 but 1 processes run .*torchrun"):
        train(tmp_path / "run", world_size=2)
    assert not (tmp_path / "run").exists()


def test_settings_that_cannot_work_are_refused_together():
    with pytest.raises(ConfigError) as told:
        LoopConfig(steps=0, log_every=0, keep_snapshots=0, ema_decay=1.0, mixed_precision="fp8")
    for name in ("steps=0", "log_every=0", "keep_snapshots=0", "ema_decay=1.0", "'fp8'"):
        assert name in str(told.value)
    with pytest.raises(ConfigError, match="seed=-1"):
        LoopConfig(seed=-1)
