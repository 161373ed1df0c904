"""Recipes of looks: a database, a conditioner told with it, and the report on what it does."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny import write_tiles
from tiny_ranges import write_ranges

from generation.checkpoint import load_part, model_sha256
from generation.cli import main as terrascape
from generation.conditioning import StyleConditioner
from generation.encoders.life_encoder import load_life
from generation.encoders.retrieval_model import load_retrieval, towers_sha256
from generation.registry import locate
from training.evaluate_style import neighbours, triples_of
from training.evaluate_tiles import read_tiles
from training.train_retrieval import main as train_retrieval
from training.train_style import StyleConfig, StyleTask
from training.train_style import main as train_style

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def home(tmp_path_factory, tile_folder):
    """A database of four tiles, and ranges of a few made-up species."""
    folder = tmp_path_factory.mktemp("style")
    write_ranges(folder)
    words = [f"tiles={tile_folder}", f"out={folder}/retrieval", "degree=2", "width=8", "dim=4"]
    words += ["loop.steps=2", "loop.batch_size=4", "loop.panel_every=2"]
    train_retrieval([str(CONFIGS / "retrieval_nano.yaml"), *words])
    return folder


def tiles_of_three_climates(path):
    table = pq.read_table(write_tiles(path))
    at = table.schema.get_field_index("koppen")
    table = table.set_column(at, table.schema.field(at), pa.array([15, 4, 27, 4], pa.int64()))
    pq.write_table(table, path)
    return path


def told(home, tile_folder, *more):
    return [
        f"tiles={tile_folder}", f"ranges={home}/ranges.npz", f"traits={home}/traits.csv",
        f"base={locate('satellite-nano')}", f"retrieval={home}/retrieval/weights",
        f"life={locate('taxabind-nano')}", "crop_px=64", *more,
    ]  # fmt: skip


def test_a_run_leaves_a_database_that_reads_its_own_tiles(home, tile_folder):
    found = load_retrieval(str(home / "retrieval/weights"))
    assert len(found.encoder.database) == 4
    assert found.towers_sha256 == found.encoder.database.about["towers_sha256"]
    assert found.towers_sha256 == towers_sha256(found.location, found.image_tower)
    images = np.load(tile_folder / "images.npy")
    looks, keys = found.read(images)
    torch.testing.assert_close(looks, found.encoder.database.values, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(keys, found.encoder.database.keys, atol=5e-3, rtol=5e-3)
    assert next((home / "retrieval/panels").glob("*.png")).stat().st_size


def test_only_the_conditioner_learns_and_says_what_it_goes_with(home, tile_folder):
    out = home / "run"
    words = told(home, tile_folder, f"out={out}", "loop.steps=1", "loop.batch_size=2")
    train_style([str(CONFIGS / "style_nano.yaml"), *words, "loop.panel_every=1"])
    styles = load_part(StyleConditioner, out / "weights")
    assert styles.config["made_for"] == {
        "satellite-nano": model_sha256(locate("satellite-nano")),
        "retrieval": load_retrieval(str(home / "retrieval/weights")).towers_sha256,
        "taxabind-nano": load_life().sha256,
    }
    assert set(styles.config["parts"]) == {"visual", "place", "climate", "taxon"}
    assert next((out / "panels").glob("*.png")).stat().st_size


def test_a_step_moves_nothing_that_was_trained_before(home, tile_folder):
    from generation.config import load_config

    cfg = load_config(StyleConfig, CONFIGS / "style_nano.yaml", told(home, tile_folder))
    task = StyleTask(cfg)
    learning = {name for name, p in task.model.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.startswith("styles.") for name in learning)
    batch = next(task.batches(0, 0, 1))
    task.model(batch)["loss"].backward()
    graded = [p.grad for p in task.styles.parameters() if p.grad is not None]
    assert any(bool(grad.abs().sum() > 0) for grad in graded)


def test_the_report_stands_beside_its_controls(home, tmp_path, capsys):
    data = tiles_of_three_climates(tmp_path / "test-0.parquet")
    out = tmp_path / "report.json"
    assert terrascape([
        "evaluate", "style", "--data", str(data), "--limit", "3", "--steps", "1", "--out", str(out),
        "--ranges", f"{home}/ranges.npz", "--traits", f"{home}/traits.csv",
        "--floor", str(tmp_path),
    ]) == 0  # fmt: skip
    report = json.loads(out.read_text())
    assert report["model"] == model_sha256(locate("satellite-nano"))
    assert report["conditioner"] == model_sha256(locate("satellite-nano-style"))
    for ending in ("real", "shuffled", "chance"):
        assert f"style_towards_{ending}" in report["controls"]
    assert 0 <= report["metrics"]["style_towards"] <= 1
    floor = json.loads((tmp_path / "floor.json").read_text())
    assert floor == report["real"]
    for low, middle, high in floor.values():
        assert low <= middle <= high
    assert "style:" in capsys.readouterr().err


def test_the_third_tile_is_of_neither_climate(tmp_path):
    tiles = read_tiles([tiles_of_three_climates(tmp_path / "test-0.parquet")])
    found = triples_of(tiles, 4, seed=0)
    for a, b, c in zip(found.a, found.b, found.c, strict=True):
        assert len(set(tiles.climates[[a, b, c]])) == 3
    latlon = torch.tensor([(w.center.lat, w.center.lon) for w in tiles.windows])
    near = neighbours(tiles, latlon, int(found.b[0]), int(found.a[0]))
    assert near[0] == found.b[0]
    assert set(tiles.climates[near]) == {tiles.climates[found.b[0]]}
