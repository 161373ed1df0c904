"""``terrascape render soundscape``: files, refusals that leave nothing behind."""

import json

import pytest
from tiny_soundscape import save_soundscape_model

from generation.cli import main

NICE = ("render", "soundscape", "--lat", "43.7", "--lon", "7.27", "--steps", "1")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    save_soundscape_model(home)
    return home


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))


def test_it_writes_sound_spectrogram_layers_and_manifest(tmp_path, capsys):
    out = tmp_path / "out"
    words = ("--caption", "surf and rain", "--seconds", "0.5", "--loop", "--out", str(out))
    assert main([*NICE, *words, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    endings = [name.rpartition("_")[2].partition(".")[2] for name in done["files"]]
    assert endings == ["flac", "wav", "spectrogram.png", "layers.json", "json"]
    layers = next(name for name in done["files"] if name.endswith(".layers.json"))
    assert main([*NICE, "--layers", layers, "--seconds", "0.5", "--out", str(tmp_path / "b")]) == 0
    assert main(["replay", done["files"][0]]) == 0
    assert "equal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--seconds", "0"), "seconds=0"),
        (("--seconds", "3600"), "give 0.1 to 600"),
        (("--seconds", "nan"), "nan"),
        (("--hour", "24"), "hour=24"),
        (("--month", "0"), "month=0"),
        (("--caption", " "), "says nothing"),
        (("--caption", "a", "--audio-like", "b.wav"), "give one of the two"),
        (("--audio-like", "absent.wav"), "sound='absent.wav' is no file"),
        (("--layers", "absent.json"), "absent.json"),
        (("--satellite", "none"), "nothing says what is heard"),
        (("--candidates", "0", "--caption", "a"), "candidates=0"),
        (("--model", "satellite-nano", "--caption", "a"), "makes no sounds"),
        (("--sound-model", "geoclap-nano"), "was made by sat2sound-nano"),
    ],
)
def test_each_mistake_is_one_sentence_and_leaves_nothing(words, told, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*NICE, *words, "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert told in message.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no json", "is no JSON list of layers"),
        ("[]", "is an empty list (give one layer or more)"),
        ('[{"text": "a", "level_db": 400}]', "level_db=400"),
        ('[{"text": "a", "level_db": 1e999}]', "level_db=inf"),
        ('["a", 3]', "layer 2"),
    ],
)
def test_layers_that_are_none_are_refused(content, told, tmp_path, capsys):
    file = tmp_path / "layers.json"
    file.write_text(content)
    assert main([*NICE, "--layers", str(file), "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
