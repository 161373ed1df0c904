"""The commands with a real pipeline: every class as shipped, at tiny sizes, untrained."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

from generation.cli import main
from generation.media.artifact import read_artifact
from generation.render_batch import main as render_batch

ROOT = Path(__file__).resolve().parents[1]
PLACE = ["--lat", "45.98", "--lon", "7.66", "--prompt", "snowy alpine valley"]
SMALL = ["--size", "64", "--steps", "2"]


@pytest.fixture(scope="module")
def tiny_home(tmp_path_factory):
    """A folder for TERRASCAPE_HOME in which satellite-nano is an untrained, tiny pipeline."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    from generation.conditioning import SatelliteConditioner
    from generation.diffusion.codec import PatchCodec
    from generation.diffusion.decoder import DetailDecoder
    from generation.diffusion.denoiser import build_networks
    from generation.pipelines.satellite import SatellitePipeline

    torch.manual_seed(0)
    sizes = {
        "block_out_channels": (16, 32),
        "attention_head_dim": (1, 2),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "norm_num_groups": 8,
        "vector_dim": 16,
    }
    unet, controlnet = build_networks(latent_channels=8, latent_size=8, patch=8, sizes=sizes)
    conditioner = SatelliteConditioner(token_dim=16, vector_dim=16, location_degree=4)
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    codec = PatchCodec.fit(images, patch=8, latent_channels=8)
    decoder = DetailDecoder(8, coarse_width=16, fine_width=8, coarse_blocks=1, fine_blocks=1)
    scheduler = FlowMatchEulerDiscreteScheduler()
    home = tmp_path_factory.mktemp("home")
    pipeline = SatellitePipeline(unet, controlnet, conditioner, codec, decoder, scheduler)
    pipeline.save_pretrained(home / "satellite-nano")
    return home


@pytest.fixture
def _tiny(tiny_home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tiny_home))


@pytest.fixture(scope="module")
def saved(tiny_home, tmp_path_factory):
    """The files of one render; tests only read them."""
    out = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERRASCAPE_HOME", str(tiny_home))
        words = [*PLACE, *SMALL, "--seed", "7", "--out", str(out)]
        assert main(["render", "satellite", *words]) == 0
    (png,) = (path for path in out.glob("*.png") if "layout" not in path.name)
    return [png, *(png.with_suffix(ending) for ending in (".tif", ".layout.png", ".json"))]


@pytest.mark.usefixtures("_tiny")
def test_a_render_is_replayed_byte_by_byte_from_each_of_its_files(saved, tmp_path, capsys):
    for path in (saved[0], saved[1], saved[3]):
        assert main(["replay", str(path)]) == 0
        assert capsys.readouterr().out == "equal\n"
    again = tmp_path / "again"
    assert main(["replay", str(saved[0]), "--out", str(again)]) == 0
    for path in saved[:3]:
        assert (again / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("_tiny")
def test_a_replay_computes_with_as_many_threads_as_the_original(saved, capsys):
    import torch

    recorded, before = read_artifact(saved[0]).record, torch.get_num_threads()
    try:
        torch.set_num_threads(recorded["provenance"]["threads"] + 1)
        assert main(["replay", str(saved[0])]) == 0
        assert capsys.readouterr().out == "equal\n"
        assert torch.get_num_threads() == recorded["provenance"]["threads"] + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_a_replay_by_another_process_is_equal(saved, tiny_home):
    ran = subprocess.run(
        [sys.executable, "-m", "generation.cli", "replay", saved[1]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TERRASCAPE_HOME": str(tiny_home)},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("equal")


def test_a_replay_with_other_weights_names_them(saved, tiny_home, tmp_path, monkeypatch, capsys):
    from generation.checkpoint import load_safetensors, save_safetensors

    shutil.copytree(tiny_home, tmp_path / "home")
    file = tmp_path / "home/satellite-nano/codec/diffusion_pytorch_model.safetensors"
    weights = load_safetensors(file)
    save_safetensors({**weights, "mean": weights["mean"] + 0.01}, file)
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path / "home"))
    assert main(["replay", str(saved[0])]) == 1
    verdict = capsys.readouterr().out
    assert verdict.startswith("close: PSNR")
    assert "provenance.model_sha256" in verdict


def test_damaged_weights_are_told_in_one_sentence(tiny_home, tmp_path, monkeypatch, capsys):
    shutil.copytree(tiny_home, tmp_path / "home")
    file = tmp_path / "home/satellite-nano/unet/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path / "home"))
    assert main(["render", "satellite", *PLACE, *SMALL, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert "unet/diffusion_pytorch_model.safetensors" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("content", ["", "hello", '{"type": "FeatureCollection", "features": []}'])
def test_a_layout_that_is_no_map_is_told_in_one_sentence(content, tmp_path, capsys):
    layout, out = tmp_path / "map.geojson", tmp_path / "out"
    layout.write_text(content)
    words = [*PLACE, *SMALL, "--layout", str(layout), "--out", str(out)]
    assert main(["render", "satellite", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert "map.geojson" in told
    assert not out.exists()


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.geojson", '{"type": "Feature", "geometry": null, "crs": {"properties": [1]}}'),
        ("a.geojson", '{"type": "Point", "coordinates": [1' + "0" * 400 + ", 2]}"),
        ("a.osm", '<osm><node id="1" lat="145" lon="207"/></osm>'),
        ("a.osm", '<osm><node id="1" lat="45" lon="nan"/></osm>'),
    ],
)
def test_a_map_of_impossible_places_is_told_in_one_sentence(name, text, tmp_path, capsys):
    layout, out = tmp_path / name, tmp_path / "out"
    layout.write_text(text)
    words = [*PLACE, *SMALL, "--layout", str(layout), "--out", str(out)]
    assert main(["render", "satellite", *words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"terrascape: {name}: ")
    assert told.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("ending", [".parquet", ".gpkg"])
def test_what_was_changed_in_a_map_is_told_and_kept_in_the_manifest(ending, tmp_path, capsys):
    ring = [(7.3, 45.8), (8.0, 46.2), (8.0, 45.8), (7.3, 46.2)]  # it crosses itself
    frame = geopandas.GeoDataFrame({"layer": ["lake"]}, geometry=[shapely.Polygon(ring)], crs=4326)
    layout = tmp_path / f"lake{ending}"
    metres = frame.to_crs("EPSG:32632")
    metres.to_parquet(layout) if ending == ".parquet" else metres.to_file(layout)
    words = [*PLACE, *SMALL, "--layout", str(layout), "--out", str(tmp_path / "out")]
    assert main(["render", "satellite", *words]) == 0
    told = capsys.readouterr()
    manifest = next(Path(line) for line in told.out.splitlines() if line.endswith(".json"))
    record = json.loads(manifest.read_text())["record"]
    for note in (
        "converted from WGS 84 / UTM zone 32N to longitude and latitude",
        "1 self-intersecting areas were repaired",
    ):
        assert f"note: {note}\n" in told.err
        assert note in record["provenance"]["notes"]
        assert note in record["layout"]["notes"]


@pytest.mark.usefixtures("_tiny")
def test_a_drawn_layout_is_replayed_after_it_was_deleted(saved, tmp_path, capsys):
    layout, out = tmp_path / "mine.png", tmp_path / "mine"
    layout.write_bytes(saved[2].read_bytes())
    words = [*PLACE, *SMALL, "--layout", str(layout), "--out", str(out)]
    assert main(["render", "satellite", *words]) == 0
    png = Path(capsys.readouterr().out.splitlines()[0])
    layout.unlink()
    assert main(["replay", str(png)]) == 0
    assert capsys.readouterr().out == "equal\n"


@pytest.mark.usefixtures("_tiny")
def test_a_batch_gives_the_bytes_that_single_renders_give(saved, tmp_path, capsys):
    spec = read_artifact(saved[0]).spec
    requests, out = tmp_path / "r.jsonl", tmp_path / "batch"
    bad = json.dumps({"lat": 95, "lon": 0})
    requests.write_text(f"{bad}\n{spec.to_json()}\n")
    assert render_batch([str(requests), "--out", str(out)]) == 2
    manifest = Path(capsys.readouterr().out.strip())
    for path in saved[:3]:
        assert manifest.with_name(path.name).read_bytes() == path.read_bytes()
    assert json.loads((out / "failed.jsonl").read_text())["row"] == 1
