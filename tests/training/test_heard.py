"""Pictures for sounds, judged: a hand-computed contrast, and the command at tiny sizes."""

import json

import numpy as np
import pytest
import torch
from tiny import make_pipeline

from generation.checkpoint import model_sha256, save_part
from generation.cli import main as terrascape
from generation.conditioning import SoundConditioner
from generation.encoders.sound_space import SoundSpace
from training.evaluate_heard import contrast
from training.sound_pairs import HEARD

SPACES = ("sat2sound-nano", "geoclap-nano")


def test_contrast_counts_pairs_and_halves_ties():
    labels = np.array([0, 0, 1, 1])
    scores = np.array([[0.9, 0.5], [0.2, 0.5], [0.5, 0.5], [0.1, 0.5]])
    # of sound 0: 0.9 beats both, 0.2 beats one of two; of sound 1: everything ties
    assert contrast(scores, labels).tolist() == [0.75, 0.5]
    assert contrast(np.eye(4)[[0, 1, 2, 3]], np.arange(4)).tolist() == [1.0] * 4


@pytest.fixture
def world(tile_folder, tmp_path, monkeypatch):
    """Tiny models under the names of the embedded ones, and test pairs of every sound."""
    home, pairs = tmp_path / "home", tmp_path / "pairs"
    make_pipeline().save_pretrained(home / "satellite-nano")
    for name in SPACES:
        torch.manual_seed(len(name))
        sizes = {"dim": 8, "depth": 1, "heads": 2}
        towers = {"image": {**sizes, "image_px": 16}, "audio": {**sizes, "frames": 48}}
        save_part(SoundSpace(dim=12, width=16, towers=towers), home / name)
    made_for = {n: model_sha256(home / n) for n in ("satellite-nano", *SPACES)}
    sounds = SoundConditioner(dict.fromkeys(SPACES, 12), 16, 16, made_for=made_for)
    save_part(sounds, home / "satellite-nano-sound")
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    pairs.mkdir()
    clips = [{"label": label, "test": True, "month": None, "hour": None} for label in HEARD]
    (pairs / "clips.json").write_text(json.dumps(clips))
    np.save(pairs / "mels.npy", np.random.default_rng(0).normal(-5, 2, (len(clips), 64, 48)))
    rows = [[clip, tile] for clip in range(len(clips)) for tile in (clip % 4, (clip + 1) % 4)]
    np.save(pairs / "pairs.npy", np.array(rows))
    return pairs, tile_folder


def test_the_command_draws_judges_and_reports(world, tmp_path, capsys):
    pairs, tiles = world
    out, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    words = ["evaluate", "steering", f"--data={pairs}", f"--tiles={tiles}", "--per-sound=1"]
    assert terrascape([*words, f"--out={out}", f"--sheet={sheet}"]) == 0
    report = json.loads(out.read_text())
    assert report["data"] == {"pictures": len(HEARD), "location_source": "simulated"}
    assert report["sound_model"]["name"] == "sat2sound-nano"
    assert report["judge"]["name"] == "geoclap-nano"
    assert 0 <= report["metrics"]["sound_contrast"] <= 1
    assert report["controls"]["sound_contrast_shuffled"] == pytest.approx(0.5, abs=0.1)
    assert "sound_contrast_real/Rain" in report["controls"]
    assert sheet.stat().st_size > 10_000
    capsys.readouterr()
    assert terrascape([*words, f"--out={out}"]) == 2
    assert "not overwritten" in capsys.readouterr().err
    again = [*words, f"--out={tmp_path / 'other.json'}", "--judge=sat2sound-nano"]
    assert terrascape(again) == 2
    assert "give another space" in capsys.readouterr().err
