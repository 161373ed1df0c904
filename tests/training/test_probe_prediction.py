"""The comparison of what a denoiser predicts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from generation.conditioning import Condition
from training.data import held_blocks
from training.probe_prediction import CleanModel, main
from training.train_geosynth import GeoSynthModel

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "configs/geosynth_nano_tiny.yaml"


def test_a_network_that_knows_the_clean_latents_knows_the_velocity(monkeypatch):
    x0, noise = torch.randn(2, 2, 4, 3, 3).unbind(0)
    share = torch.tensor([0.2, 0.9])
    mix = share[:, None, None, None]
    model = CleanModel.__new__(CleanModel)
    monkeypatch.setattr(GeoSynthModel, "velocity", lambda *_: x0)
    condition = Condition(
        tokens=torch.zeros(2, 1, 8),
        mask=torch.ones(2, 1, dtype=torch.bool),
        vector=torch.zeros(2, 8),
        hint=torch.zeros(2, 3, 3, 3),
    )
    told = model.velocity((1 - mix) * x0 + mix * noise, share, condition)
    torch.testing.assert_close(told, noise - x0)


def test_whole_blocks_are_held_out():
    rows = np.array([[8, col * 256, row * 256] for row in range(60, 200, 4) for col in range(256)])
    held = held_blocks(rows.astype(float), 10)
    assert 0.05 < held.mean() < 0.15
    turns = (held.reshape(35, 256)[:, 1:] != held.reshape(35, 256)[:, :-1]).mean()
    assert turns < 0.06  # held tiles lie together


def test_both_kinds_are_trained_and_measured(tile_folder, tmp_path, monkeypatch, capsys):
    held = np.array([True, False, False, False])
    monkeypatch.setattr("training.probe_prediction.held_blocks", lambda *_: held)
    autoencoder = f"autoencoder={tile_folder / 'autoencoder'}"
    words = [str(TINY), f"data={tile_folder}", autoencoder, "--steps", "2"]
    main([*words, "--out", str(tmp_path / "table.json")])
    table = json.loads((tmp_path / "table.json").read_text())
    assert table.keys() == {"velocity", "clean", "linear"}
    for errors in table.values():
        assert all(0 < error < 1e3 for error in errors.values())
    assert table["velocity"] != table["clean"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--out", str(tmp_path / "table.json")])
    assert stopped.value.code == 2
    assert "not overwritten" in capsys.readouterr().err
