import pickle
import struct
from pathlib import Path

import pytest
import torch

from generation.atomic import atomic_folder, atomic_path
from generation.checkpoint import (
    load_part,
    load_safetensors,
    model_sha256,
    read_shapes,
    save_part,
    save_safetensors,
    sha256_file,
)
from generation.errors import MissingFileError, OutputError, WeightsError


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(3)
    return {
        "a.weight": torch.randn(4, 3, generator=generator),
        "b": torch.randn(2, generator=generator).half(),
        "c": torch.randn(5, generator=generator).bfloat16(),
        "n": torch.arange(3),
    }


@pytest.fixture
def saved(tensors, tmp_path):
    path = tmp_path / "model.safetensors"
    save_safetensors(tensors, path)
    return path


def test_weights_come_back_bit_for_bit(tensors, saved):
    loaded = load_safetensors(saved, {name: tuple(t.shape) for name, t in tensors.items()})
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_views_and_shared_tensors_are_saved_each_by_itself(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    path = tmp_path / "m.safetensors"
    save_safetensors({"all": base, "again": base, "row": base[1], "turned": base.T}, path)
    loaded = load_safetensors(path)
    assert torch.equal(loaded["row"], base[1])
    assert torch.equal(loaded["turned"], base.T)
    assert torch.equal(loaded["again"], base)


def test_shapes_are_read_without_opening_the_tensors(saved):
    assert read_shapes(saved) == {"a.weight": (4, 3), "b": (2,), "c": (5,), "n": (3,)}


@pytest.mark.parametrize("keep", [0, 5, 8, 40, -1])
def test_a_truncated_file_is_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"model\.safetensors.*fetch the file again"):
        load_safetensors(saved)


def test_extra_bytes_are_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"x")
    with pytest.raises(WeightsError, match="not whole"):
        load_safetensors(saved)


@pytest.mark.parametrize("header", [b"[]", b"{nope", b'{"a": 3}', b'{"a": {"shape": [1]}}'])
def test_a_damaged_header_is_refused(tmp_path, header):
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    with pytest.raises(WeightsError, match="damaged"):
        load_safetensors(path)


def test_offsets_that_contradict_the_shape_are_refused(tmp_path):
    header = b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}'
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    with pytest.raises(WeightsError, match="unreadable weights"):
        load_safetensors(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    from safetensors.torch import save_file

    path = tmp_path / "m.safetensors"
    save_file({"good": torch.ones(2), "bad.bias": torch.tensor([1.0, value, 2.0])}, path)
    with pytest.raises(WeightsError, match=r"bad\.bias holds NaN or infinity in 1 of 3"):
        load_safetensors(path)
    with pytest.raises(WeightsError, match="not saved"):
        save_safetensors({"bad": torch.tensor([value])}, tmp_path / "n.safetensors")
    assert not (tmp_path / "n.safetensors").exists()


def test_every_difference_from_the_model_is_told(saved):
    expected = {"a.weight": (4, 4), "b": (2,), "n": (3,), "d": (1,)}
    with pytest.raises(WeightsError) as caught:
        load_safetensors(saved, expected)
    message = str(caught.value)
    assert "a.weight has shape (4, 3) and not (4, 4)" in message
    assert "d is missing" in message
    assert "c is unknown" in message


def test_pickles_and_pointers_are_never_loaded(tmp_path):
    path = tmp_path / "m.safetensors"
    for content in (pickle.dumps({"a": 1}), b"version https://git-lfs.github.com/spec/v1\noid"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="only safetensors"):
            load_safetensors(path)
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match=r"a pickled torch file.*terrascape convert"):
        load_safetensors(path)


def test_an_absent_file_is_named(tmp_path):
    for call in (load_safetensors, sha256_file, model_sha256):
        with pytest.raises(MissingFileError, match="nowhere"):
            call(tmp_path / "nowhere")


def test_a_failed_save_leaves_what_was_there(saved):
    before = saved.read_bytes()

    def stop_halfway():
        with atomic_path(saved) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_halfway()
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path, tensors):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="choose a folder"):
        save_safetensors(tensors, tmp_path / "file" / "m.safetensors")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="room"), atomic_path(tmp_path / "x"):
        Path("/dev/full").write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_checksums_are_the_known_ones(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(path) == known


def test_a_models_hash_tells_of_weights_and_their_names_only(tensors, tmp_path):
    for folder in ("one", "two"):
        for part in ("unet", "codec"):
            save_safetensors(tensors, tmp_path / folder / part / "w.safetensors")
    (tmp_path / "two" / "card.md").write_text("words")
    one, two = tmp_path / "one", tmp_path / "two"
    assert model_sha256(one) == model_sha256(two)
    (two / "unet").rename(two / "other")
    assert model_sha256(one) != model_sha256(two)
    (two / "other").rename(two / "unet")
    save_safetensors({"a": torch.zeros(1)}, two / "unet" / "w.safetensors")
    assert model_sha256(one) != model_sha256(two)


def test_a_header_length_that_looks_like_a_pickle_is_no_pickle(tmp_path):
    for padding in range(256):  # one of these gives a header whose length begins with byte 0x80
        path = tmp_path / f"{padding}.safetensors"
        save_safetensors({"w" * (padding + 1): torch.ones(2)}, path)
        if path.read_bytes()[0] == 0x80:
            assert load_safetensors(path)
            return
    pytest.fail("no header of the wanted length was made")


# --- folders -------------------------------------------------------------------------------------
def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "weights"
    for name in ("first", "second"):
        with atomic_folder(target) as staging:
            (staging / name).write_text(name)
    assert [file.name for file in target.iterdir()] == ["second"]
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_a_folder_stays_as_it_was_when_the_work_fails(tmp_path):
    target = tmp_path / "weights"
    with atomic_folder(target) as staging:
        (staging / "first").write_text("first")

    def fail():
        with atomic_folder(target) as staging:
            (staging / "second").mkdir()
            (staging / "second").write_text("not a file")

    with pytest.raises(OutputError, match="weights cannot be written"):
        fail()
    assert [file.name for file in target.iterdir()] == ["first"]
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_the_hash_of_a_model_covers_its_settings_but_no_notes(tmp_path):
    save_safetensors({"w": torch.zeros(2)}, tmp_path / "part/model.safetensors")

    def told(text):
        (tmp_path / "part/config.json").write_text(text)
        return model_sha256(tmp_path)

    first = told('{"hand_over": 0.1, "_name_or_path": "here"}')
    assert told('{"_name_or_path": "there",  "hand_over": 0.1}') == first
    assert told('{"hand_over": 0.2}') != first
    assert told("no JSON") != first


def test_counters_are_kept_whole_beside_halved_weights(tmp_path):
    """A batch norm counts batches: beyond 65,504 half precision has no number for them."""
    from diffusers import ConfigMixin, ModelMixin
    from diffusers.configuration_utils import register_to_config

    class Normed(ModelMixin, ConfigMixin):
        @register_to_config
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(2)

    part = Normed()
    part.norm.num_batches_tracked.fill_(200_000)
    save_part(part, tmp_path, half=True)
    assert load_part(Normed, tmp_path).norm.num_batches_tracked == 200_000
