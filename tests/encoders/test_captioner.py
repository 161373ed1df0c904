"""The captioner of sounds, with a LLaVA of random weights in the published layout."""

import shutil

import numpy as np
import pytest
from tiny_llava import save_llava

from generation.encoders.captioner import MAX_TOKENS, load_captioner
from generation.errors import InvalidSpecError, MissingFileError, WeightsError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    save_llava(home / "llava")
    return home


@pytest.fixture
def captioner(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    return load_captioner()


def pictures(count=3):
    return np.random.default_rng(0).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)


def test_every_image_gets_a_caption_of_its_own_whatever_its_batch(captioner):
    images = pictures()
    told = captioner.captions(images)
    assert len(told) == 3
    assert len(set(told)) > 1
    assert [captioner.captions(images[i : i + 1])[0] for i in range(3)] == told
    assert all(len(text) <= MAX_TOKENS * len("<image>") for text in told)
    assert not any("USER" in text for text in told)


def test_another_question_gets_another_answer(captioner):
    image = pictures(1)[0]
    short = captioner(image, question="What is it?", max_new_tokens=5)
    assert short == captioner(image, question="What is it?", max_new_tokens=5)
    assert short != captioner(image, max_new_tokens=5)
    assert len(short) <= 5 * len("<image>")


def test_it_is_loaded_once_and_knows_its_weights(captioner):
    assert load_captioner("llava-hf/llava-1.5-7b-hf") is captioner
    assert len(captioner.sha256) == 64


def test_other_models_and_absent_weights_are_refused(home, tmp_path, monkeypatch):
    with pytest.raises(InvalidSpecError, match=r"'soundscape'.*llava"):
        load_captioner("soundscape-nano")
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingFileError, match=r"llava-hf/llava-1\.5-7b-hf into a folder"):
        load_captioner()


def test_damaged_folders_are_refused(home, tmp_path, monkeypatch):
    folder = shutil.copytree(home / "llava", tmp_path / "llava")
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 1
    kept = files[0].read_bytes()
    files[0].unlink()
    with pytest.raises(MissingFileError, match=f"lacks {files[0].name}"):
        load_captioner()
    files[0].write_bytes(kept[:-8])
    with pytest.raises(WeightsError, match="not whole"):
        load_captioner()
    files[0].write_bytes(kept)
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="no whole LLaVA"):
        load_captioner()
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match="lists no files"):
        load_captioner()
