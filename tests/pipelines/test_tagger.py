"""The second opinion on sounds, with random weights in the published layout."""

import shutil

import numpy as np
import pytest
import torch
from tiny_ast import LABELS, save_ast
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from generation.errors import WeightsError
from generation.media.audio import Recording
from generation.pipelines.tagger import TAGGER, tagger_here, told


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    save_ast(home / TAGGER)
    return home


@pytest.fixture
def tagger(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    return tagger_here()


def noise(seconds, rate=16_000):
    samples = 0.1 * np.random.default_rng(0).normal(size=round(seconds * rate))
    return Recording(samples.astype(np.float32), rate)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
def test_it_says_what_transformers_says_of_one_window(home, tagger):
    sound = noise(0.64)
    tags = tagger(sound)
    extractor = ASTFeatureExtractor.from_pretrained(home / TAGGER)
    model = ASTForAudioClassification.from_pretrained(home / TAGGER).eval()
    with torch.no_grad():
        given = extractor(sound.samples, sampling_rate=16_000, return_tensors="pt")
        scores = model(**given).logits[0].sigmoid()
    assert [tag.label for tag in tags] == [LABELS[n] for n in scores.argsort(descending=True)]
    assert [tag.score for tag in tags] == pytest.approx(scores.sort(descending=True)[0], abs=1e-4)


def test_short_and_long_and_other_rates_are_heard(tagger):
    for sound in (noise(0.1), noise(30.0), noise(1.0, 44_100)):
        tags = tagger(sound)
        assert {tag.label for tag in tags} == set(LABELS)
        assert all(0 < tag.score < 1 for tag in tags)
    assert tagger(noise(3.0)) == tagger(noise(3.0))
    assert told(TAGGER, tags).startswith("ast-audioset, which had no part in it, hears: ")


def test_it_is_there_or_not_and_loaded_once(tagger, tmp_path, monkeypatch):
    assert tagger_here() is tagger
    assert len(tagger.sha256) == 64
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    assert tagger_here() is None


def test_damaged_weights_are_refused_by_name(home, tmp_path, monkeypatch):
    folder = shutil.copytree(home / TAGGER, tmp_path / TAGGER)
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="download its preprocessor_config"):
        tagger_here()
    ASTFeatureExtractor(max_length=128, num_mel_bins=32).save_pretrained(folder)
    with pytest.raises(WeightsError, match="128 columns for a model of 64"):
        tagger_here()
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="not whole"):
        tagger_here()
