"""Soundscapes from a description to files and back."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch
from tiny_ast import LABELS, save_ast
from tiny_llava import save_llava
from tiny_soundscape import save_soundscape_model

from generation.errors import (
    AudioError,
    CancelledError,
    ConfigError,
    InvalidSpecError,
    MissingFileError,
    WeightsError,
)
from generation.media.artifact import find_done, manifest_mistakes, read_artifact, save_render
from generation.pipelines.sound_maker import SoundAsk, sound_maker
from generation.pipelines.soundscape_render import render, seed_of
from generation.pipelines.tagger import TAGGER
from generation.replay import compare, render_again
from generation.spec import LayerSpec, RunSpec

NICE = {"kind": "soundscape", "lat": 43.7, "lon": 7.27, "steps": 2, "seconds": 0.6}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    save_soundscape_model(home)
    return home


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))


def spec(**changes):
    return RunSpec.from_dict({**NICE, "sound_text": "surf", **changes})


def tone(path, seconds=1.0, size=0.3, rate=16_000):
    wave = size * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, wave, rate)
    return str(path)


def test_it_has_exactly_the_samples_asked_for_in_two_channels():
    made = render(spec(seconds=0.731))
    assert made.samples.shape == (round(0.731 * 16_000), 2)
    assert abs(made.samples).max() <= 1
    assert made.rate == 16_000
    assert made.image.ndim == 3


def test_it_is_saved_read_and_made_again_to_the_last_byte(tmp_path):
    made = render(spec(hour=6, month=5))
    paths = save_render(made, tmp_path)
    endings = [path.name.removeprefix(paths[0].stem) for path in paths]
    assert endings == [".flac", ".wav", ".spectrogram.png", ".layers.json", ".json"]
    assert not manifest_mistakes(paths[-1])
    for path in (paths[0], paths[1], paths[-1]):
        artifact = read_artifact(path)
        assert artifact.spec == made.spec
        again = render_again(artifact, render)
        assert compare(artifact, again).text == "equal"
    other = render(spec(hour=6, month=5, seed=3))
    verdict = compare(read_artifact(paths[0]), dataclasses.replace(other, spec=made.spec))
    assert not verdict.equal
    done = find_done(
        tmp_path,
        made.spec,
        model_sha256=lambda _: str(made.provenance["model_sha256"]),
        online=False,
    )
    assert done == (paths[-1], [])


def test_a_file_whose_samples_were_changed_is_told(tmp_path):
    path = save_render(render(spec()), tmp_path)[0]
    with soundfile.SoundFile(path) as file:
        samples, comment = file.read(dtype="int16"), file.comment
    samples[5] += 1
    with soundfile.SoundFile(path, "w", 16_000, 2, subtype="PCM_16", format="FLAC") as file:
        file.comment = comment
        file.write(samples)
    artifact = read_artifact(path)
    verdict = compare(artifact, render_again(artifact, render))
    assert "samples were changed after it was made" in verdict.text


def test_its_layers_can_be_edited_and_given_again(tmp_path):
    made = render(spec(sound_text="surf, a dog barking and rain"))
    assert [layer.text for layer in made.layers] == ["surf", "a dog barking", "rain"]
    assert len({layer.pan for layer in made.layers}) == 3
    listed = json.loads(save_render(made, tmp_path)[3].read_text())
    same = render(spec(sound_text="", layers=listed))
    assert np.array_equal(same.samples, made.samples)
    listed[1]["level_db"] = -60.0
    quieter = render(spec(sound_text="", layers=listed))
    assert not np.array_equal(quieter.samples, made.samples)
    assert quieter.layers[1].level_db == -60


def test_a_place_alone_suggests_captions_and_says_where_they_are_from():
    made = render(spec(sound_text="", hour=6))
    assert 1 <= len(made.layers) <= 3
    captions = made.provenance["captions"]
    assert {caption["origin"] for caption in captions} == {"retrieved"}
    assert [caption["text"] for caption in captions] == [layer.text for layer in made.layers]
    assert made.satellite is not None
    assert made.provenance["satellite"]["synthetic"] is True
    assert any("location_source=simulated" in note for note in made.provenance["notes"])


def test_a_captioner_may_write_what_is_heard(home, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    save_llava(tmp_path / "llava")
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    made = render(spec(sound_text="", captioner="llava"))
    captions = made.provenance["captions"]
    assert {caption["origin"] for caption in captions} == {"written"}
    assert [caption["text"] for caption in captions] == [layer.text for layer in made.layers]
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingFileError, match="no weights of llava"):
        render(spec(sound_text="", captioner="llava"))


def test_a_tagger_that_is_here_says_what_it_hears(home, tmp_path, monkeypatch):
    import shutil

    assert render(spec()).provenance["tagger"] is None
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    save_ast(tmp_path / TAGGER)
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    made = render(spec(sound_text="surf and rain"))
    opinion = made.provenance["tagger"]
    assert opinion["model"] == TAGGER
    assert {tag["label"] for tag in opinion["mix"]} == set(LABELS)
    assert len(opinion["layers"]) == len(made.layers) == 2
    assert any("had no part in it, hears: " in note for note in made.provenance["notes"])
    assert np.array_equal(made.samples, render(spec(sound_text="surf and rain")).samples)


def test_a_month_that_was_never_learnt_is_said_to_change_nothing(monkeypatch):
    from generation.diffusion.soundscape import SoundscapeConditioner

    plain = render(spec(hour=6.0, month=5))
    assert not any("never learnt" in note for note in plain.provenance["notes"])
    ours = SoundscapeConditioner(embed_dim=8, token_dim=8, vector_dim=8, reads=("hour",))
    batch = torch.randn(2, 8), torch.ones(2, dtype=torch.bool)
    months, hours = torch.tensor([1.0, 7.0]), torch.tensor([6.0, float("nan")])
    told = ours(*batch, months, hours)
    assert torch.equal(told.tokens, ours(*batch, months.flip(0), hours).tokens)
    assert told.tokens.shape == (2, 5, 8)
    assert not torch.equal(told.tokens, ours(*batch, months, hours.flip(0)).tokens)
    with pytest.raises(ConfigError, match="reads='week'"):
        SoundscapeConditioner(reads=("week",))
    maker = sound_maker("soundscape-nano")
    names = {name: maker.conditioner.config[name] for name in ("space", "space_sha256")}
    monkeypatch.setattr(maker, "conditioner", SoundscapeConditioner(reads=("hour",), **names))
    notes = maker.unread([SoundAsk(seed=0, text="surf")], 5, 6.0)
    assert "the month changed no sound: it was never learnt" in notes
    assert not any("hour" in note for note in notes)


def test_mid_ocean_is_a_place_too():
    made = render(spec(sound_text="", lat=-30, lon=-130))
    assert made.layers


def test_where_there_is_nothing_to_go_by_it_says_so():
    with pytest.raises(InvalidSpecError, match="nothing says what is heard"):
        render(spec(sound_text="", satellite="none"))
    with pytest.raises(InvalidSpecError, match="nothing says what is heard"):
        render(spec(sound_text="", lat=89))


def test_the_best_of_several_is_kept_and_all_scores_are_told():
    made = render(spec(candidates=3, satellite="none"))
    (about,) = made.provenance["candidates"]
    scores = [each["asked"] for each in about["scores"]]
    assert about["kept"] == int(np.argmax(scores))
    alone = [render(spec(seed=seed_of(0, 0, n))).samples for n in range(3)]
    np.testing.assert_allclose(made.samples, alone[about["kept"]], atol=1e-5)


def test_it_can_be_asked_for_with_a_recording(tmp_path):
    file = tone(tmp_path / "a.wav")
    made = render(spec(sound_text="", sound=file).pinned())
    assert made.layers[0].file == file
    mixed = render(spec(sound_text="", layers=[{"file": file}, "rain"]))
    assert len(mixed.layers) == 2
    paths = save_render(made, tmp_path / "out")
    artifact = read_artifact(paths[0])
    assert compare(artifact, render_again(artifact, render)).equal
    (tmp_path / "a.wav").unlink()
    with pytest.raises(MissingFileError, match="nor does it lie beside"):
        render_again(artifact, render)
    tone(tmp_path / "out" / "a.wav")
    assert compare(artifact, render_again(artifact, render)).equal


def test_recordings_that_say_nothing_are_refused_and_clipped_ones_are_told(tmp_path):
    silent = tone(tmp_path / "silent.wav", size=0.0)
    with pytest.raises(AudioError, match="is silent"):
        render(spec(sound_text="", sound=silent))
    soundfile.write(tmp_path / "six.wav", np.random.default_rng(0).normal(size=(9_000, 6)), 44_100)
    assert render(spec(sound_text="", sound=str(tmp_path / "six.wav"))).samples.any()
    loud = tone(tmp_path / "loud.wav", size=9.0)
    notes = render(spec(sound_text="", sound=loud)).provenance["notes"]
    assert any("is clipped in" in note for note in notes)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(AudioError, match="no readable sound"):
        render(spec(sound_text="", sound=str(tmp_path / "text.wav")))


def test_steps_of_image_and_sound_are_counted_as_one_and_it_can_be_stopped():
    told = []
    render(spec(sound_text=""), on_step=lambda *step: told.append(step[:2]))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(CancelledError):
        render(spec(), cancelled=lambda: True)


def test_another_space_than_it_was_trained_with_is_refused(home, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(home / "soundscape-nano", tmp_path / "soundscape-nano")
    config = tmp_path / "soundscape-nano/conditioner/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"space_sha256": "0" * 64}))
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="restore the two together"):
        render(spec())


@pytest.mark.parametrize("words", ["a violin concert", "волны и собака"])
def test_words_for_sounds_that_it_does_not_know_are_told(words):
    made = render(spec(sound_text="", layers=[words, "waves on a beach"]))
    told = [note for note in made.provenance["notes"] if "is no sound that it knows" in note]
    assert len(told) == 1
    assert words in told[0]


def test_noise_of_layers_and_candidates_differs():
    seeds = {seed_of(seed, n, k) for seed in (0, 1) for n in range(8) for k in range(16)}
    assert len(seeds) == 2 * 8 * 16
    assert seed_of(7, 0, 0) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_layers_of_one_kind_sound_different():
    made = render(
        spec(sound_text="", layers=[LayerSpec("surf", pan=-1.0), LayerSpec("surf", pan=1.0)])
    )
    left, right = made.samples.T
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.5
