"""Snapshots: whole or not there."""

import json

import pytest
import torch

from training import snapshot as module
from training.snapshot import Snapshot, newest, write_snapshot


def optimizer_state():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, 2))
    optimizer = torch.optim.AdamW([weight], lr=0.1 / 3, betas=(0.9, 0.99))
    weight.square().sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def make(step):
    values = torch.arange(6.0).reshape(3, 2) + step
    return Snapshot(
        step=step,
        weights={"layer.weight": values, "codec.mean": torch.tensor([0.5])},
        average={"layer.weight": values / 3},
        optimizer=optimizer_state(),
        record="lr: 0.1\n",
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_snapshot_comes_back_bit_by_bit(tmp_path):
    written = make(12)
    folder = write_snapshot(tmp_path, written, keep=2)
    assert folder.name == "step-00000012"
    found = newest(tmp_path)
    assert (found.step, found.record) == (12, "lr: 0.1\n")
    for mine, theirs in ((written.weights, found.weights), (written.average, found.average)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_an_optimiser_goes_on_from_what_was_saved(tmp_path):
    written = make(1)
    write_snapshot(tmp_path, written, keep=1)
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.AdamW([weight])
    optimizer.load_state_dict(newest(tmp_path).optimizer)
    again, before = optimizer.state_dict(), written.optimizer
    assert again["param_groups"][0]["lr"] == 0.1 / 3
    for name, value in before["state"][0].items():
        assert torch.equal(again["state"][0][name], value)
    weight.grad = torch.ones_like(weight)
    optimizer.step()


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 100, 20):
        write_snapshot(tmp_path, make(step), keep=2)
    assert names(tmp_path) == ["step-00000010", "step-00000020"]  # 100: a course that was left
    assert newest(tmp_path).step == 20


def test_without_a_snapshot_there_is_none(tmp_path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None


def truncate(folder):
    file = folder / "average.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(folder):
    file = folder / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


CHEAP = {
    "truncated": truncate,
    "file gone": lambda folder: (folder / "moments.safetensors").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: (folder / "manifest.json").write_text("{"),
    "list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "state": lambda folder: (folder / "state.json").write_text("{}"),
}
"""Damage that shows without reading the weights."""
DAMAGES = {**CHEAP, "bit": flip_a_bit}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_broken_snapshot_is_passed_over(tmp_path, damage):
    write_snapshot(tmp_path, make(5), keep=3)
    damage(write_snapshot(tmp_path, make(10), keep=3))
    assert newest(tmp_path).step == 5


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize(("keep", "left"), [(1, [6]), (2, [4, 6]), (3, [4, 6])])
def test_after_a_fall_back_the_new_snapshot_stays_and_the_broken_ones_go(
    tmp_path, damage, keep, left
):
    write_snapshot(tmp_path, make(4), keep=3)
    for step in (8, 12):
        damage(write_snapshot(tmp_path, make(step), keep=3))
    assert newest(tmp_path).step == 4
    written = write_snapshot(tmp_path, make(6), keep=keep)
    assert written.is_dir()
    assert names(tmp_path) == [f"step-{step:08d}" for step in left]
    assert newest(tmp_path).step == 6


@pytest.mark.parametrize("damage", CHEAP.values(), ids=CHEAP)
def test_a_broken_snapshot_takes_no_place_of_a_whole_one(tmp_path, damage):
    write_snapshot(tmp_path, make(4), keep=2)
    damage(write_snapshot(tmp_path, make(8), keep=2))
    write_snapshot(tmp_path, make(12), keep=2)
    assert names(tmp_path) == ["step-00000004", "step-00000012"]


def test_old_snapshots_are_judged_without_reading_their_weights(tmp_path, monkeypatch):
    for step in (4, 8, 12):
        write_snapshot(tmp_path, make(step), keep=3)
    hashed, sha256_file = [], module.sha256_file

    def counting(path):
        hashed.append(path)
        return sha256_file(path)

    monkeypatch.setattr(module, "sha256_file", counting)
    write_snapshot(tmp_path, make(16), keep=3)
    old = [path for path in hashed if not path.parent.name.endswith(".writing")]
    assert {path.name for path in old} <= {"state.json"}
    assert names(tmp_path) == [f"step-{step:08d}" for step in (8, 12, 16)]


def test_a_copy_under_another_name_is_neither_read_nor_removed(tmp_path):
    write_snapshot(tmp_path, make(5), keep=1).rename(tmp_path / "step-00000005.mine")
    assert newest(tmp_path) is None
    write_snapshot(tmp_path, make(10), keep=1)
    assert names(tmp_path) == ["step-00000005.mine", "step-00000010"]


@pytest.mark.parametrize("call", range(1, 4))
def test_a_crash_while_writing_leaves_the_former(tmp_path, monkeypatch, call):
    write_snapshot(tmp_path, make(5), keep=1)
    calls = []

    def crash(tensors, path, **options):
        calls.append(path)
        if len(calls) == call:
            raise KeyboardInterrupt
        save(tensors, path, **options)

    save = module.save_safetensors
    monkeypatch.setattr(module, "save_safetensors", crash)
    with pytest.raises(KeyboardInterrupt):
        write_snapshot(tmp_path, make(10), keep=1)
    assert newest(tmp_path).step == 5
    monkeypatch.undo()
    write_snapshot(tmp_path, make(15), keep=1)
    assert names(tmp_path) == ["step-00000015"]  # what the crash left is gone, too


def test_a_step_that_was_reached_twice_is_written_anew(tmp_path):
    truncate(write_snapshot(tmp_path, make(5), keep=2))
    write_snapshot(tmp_path, make(5), keep=2)
    assert newest(tmp_path).step == 5


def test_the_manifest_names_every_file(tmp_path):
    folder = write_snapshot(tmp_path, make(5), keep=1)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(names(folder)) == {*manifest, "manifest.json"}
