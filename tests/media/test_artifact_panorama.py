import dataclasses
import json

import numpy as np
import pytest
from stand_in import draw, names
from stand_in_panorama import draw_panorama
from test_folder import largest_file

from generation.errors import InvalidSpecError, OutputError
from generation.media.artifact import (
    encode,
    find_done,
    manifest_mistakes,
    read_artifact,
    read_spec,
    save_render,
    stem_of,
)
from generation.media.image import open_rgb, png_text
from generation.media.panorama import open_panorama
from generation.spec import RunSpec, ViewSpec

VIEW = ViewSpec("alps.jpg", 45.9, 7.7, 120.0, "ab" * 32)


@pytest.fixture
def spec():
    return RunSpec(
        kind="panorama", lat=-45.98, lon=7.66, heading=90.0, seed=7, size=64,
        model="panorama-nano", satellite="generated",
    )  # fmt: skip


@pytest.fixture
def render(spec):
    return draw_panorama(spec)


def test_a_panorama_becomes_its_own_files_the_manifest_last(spec, render, tmp_path):
    paths = save_render(render, tmp_path / "out")
    assert [path.name.removeprefix(stem_of(spec)) for path in paths] == [
        *(".jpg", ".front.jpg", ".back.jpg", ".overlay.png", ".satellite.png", ".layout.png"),
        ".json",
    ]
    assert names(tmp_path / "out") == sorted(path.name for path in paths)
    assert stem_of(spec).startswith("panorama_45.980S_7.660E_")
    assert manifest_mistakes(paths[-1]) == []


def test_the_panorama_and_the_manifest_carry_the_spec_and_its_views(tmp_path):
    spec = RunSpec.from_dict(
        {"kind": "panorama", "lat": 45.98, "lon": 7.66, "size": 64, "views": [VIEW.to_dict()]}
    )
    paths = save_render(draw_panorama(spec), tmp_path)
    for path in (paths[0], paths[-1]):
        artifact = read_artifact(path)
        assert artifact.spec == spec
        assert artifact.spec.views == (VIEW,)
        np.testing.assert_array_equal(artifact.pixels(), open_rgb(paths[0]))
    for path in paths[1:-1]:
        with pytest.raises(InvalidSpecError, match="carries no RunSpec"):
            read_spec(path)


def test_viewers_and_people_are_told_what_it_is(render, tmp_path):
    paths = save_render(render, tmp_path)
    panorama = open_panorama(paths[0].rename(tmp_path / "by content.png"))
    assert panorama.band == render.band
    assert panorama.heading_deg == 90.0
    assert panorama.place.lat == pytest.approx(-45.98)
    for path in paths[1:3]:
        assert b"trainedAlgorithmicMedia" in path.read_bytes()
    assert png_text(paths[3].read_bytes())["Synthetic"] == "true"
    assert png_text(paths[4].read_bytes())["Copyright"] == "© nobody"
    assert read_spec(tmp_path / "by content.png") == render.spec


def test_the_record_tells_the_crop_of_the_sphere_and_is_the_same_in_both(render, tmp_path):
    paths = save_render(render, tmp_path)
    record = read_artifact(paths[0]).record
    assert record == read_artifact(paths[-1]).record
    assert record["projection"] == "equirectangular"
    assert record["elevations_deg"] == [45.0, -45.0]
    assert record["heading_deg"] == 90.0
    assert record["synthetic"] is True
    assert len(record["satellite"]["pixels_sha256"]) == 64
    assert "transform" not in record
    assert "seconds" not in json.dumps(record)


def test_without_a_satellite_image_there_is_no_file_of_one(tmp_path):
    spec = RunSpec(kind="panorama", lat=1.0, lon=2.0, satellite="none", size=64)
    paths = save_render(draw_panorama(spec), tmp_path)
    assert not any("satellite.png" in path.name or "layout" in path.name for path in paths)
    assert read_artifact(paths[0]).record["satellite"] is None
    assert manifest_mistakes(paths[-1]) == []


def test_a_record_of_many_views_is_kept_whole(spec, render, tmp_path):
    notes = tuple(f"{i}: {'x' * 1000}" for i in range(200))
    long = draw_panorama(spec)
    long.provenance["notes"] = notes
    path = save_render(long, tmp_path)[0]
    assert read_artifact(path).record["provenance"]["notes"] == list(notes)


def test_timing_does_not_reach_the_files_and_saving_again_changes_nothing(spec, render, tmp_path):
    paths = save_render(render, tmp_path)
    slower = draw_panorama(spec)
    slower.provenance["seconds"] = 99.0
    assert encode(slower) == encode(render)
    assert save_render(slower, tmp_path) == paths
    other = save_render(draw_panorama(spec, version="2"), tmp_path)
    assert other[0].name == f"{stem_of(spec)}-2.jpg"


@pytest.mark.parametrize(
    "ending", [".jpg", ".front.jpg", ".overlay.png", ".satellite.png", ".layout.png"]
)
def test_a_file_that_was_changed_gone_or_not_listed_is_reported(ending, spec, render, tmp_path):
    paths = save_render(render, tmp_path)
    file = tmp_path / f"{stem_of(spec)}{ending}"
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + b"x")
    assert manifest_mistakes(paths[-1]) == [f"{file.name} has changed since it was written"]
    found, others = find_done(tmp_path, spec, model_sha256=lambda _: "ab" * 32, online=False)
    assert found is None
    assert f"{file.name} has changed" in others[0]
    file.unlink()
    assert manifest_mistakes(paths[-1]) == [f"{file.name} is missing"]
    file.write_bytes(kept)
    content = json.loads(paths[-1].read_text())
    del content["files"][file.name]
    paths[-1].write_text(json.dumps(content))
    assert manifest_mistakes(paths[-1]) == [f"{file.name} is not listed"]


def test_a_disk_that_fills_up_leaves_nothing_of_a_panorama(render, tmp_path):
    limit = max(len(data) for data in encode(render).values()) - 1
    with largest_file(limit), pytest.raises(OutputError, match="File too large"):
        save_render(render, tmp_path / "out")
    assert names(tmp_path) == []


def test_a_cut_off_panorama_is_refused(render, tmp_path):
    path = save_render(render, tmp_path)[0]
    whole = path.read_bytes()
    for length in (10, 700, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidSpecError, match=r"\.jpg: the JPEG is cut off"):
            read_artifact(path)


def test_the_saved_layout_of_a_panorama_is_found(render, tmp_path):
    paths = save_render(render, tmp_path)
    assert read_artifact(paths[0]).layout_file() == paths[-2]


def test_a_satellite_image_knows_nothing_of_spheres(tmp_path):
    paths = save_render(draw(RunSpec(lat=1.0, lon=2.0, size=64)), tmp_path)
    record = read_artifact(paths[0]).record
    assert {"projection", "crops", "satellite"}.isdisjoint(record)
    assert record["crs"] == "EPSG:3857"


def test_a_satellite_image_that_other_weights_drew_is_not_done(spec, render, tmp_path):
    hashes = {"panorama-nano": "ab" * 32, "satellite-nano": "cd" * 32}
    ground = {"source": "generated by satellite-nano", "model_sha256": "cd" * 32}
    drawn = dataclasses.replace(render, provenance={**render.provenance, "satellite": ground})
    manifest = save_render(drawn, tmp_path)[-1]

    def look():
        return find_done(tmp_path, spec, model_sha256=hashes.__getitem__, online=False)

    assert look() == (manifest, [])
    hashes["satellite-nano"] = "ef" * 32
    assert look() == (None, [f"{manifest.name}: other weights drew its satellite image"])


def test_the_satellite_model_is_not_asked_for_where_it_drew_nothing(spec, render, tmp_path):
    ground = {"source": "ground.tif", "synthetic": False}
    drawn = dataclasses.replace(render, provenance={**render.provenance, "satellite": ground})
    manifest = save_render(drawn, tmp_path)[-1]
    known = {"panorama-nano": "ab" * 32}
    found = find_done(tmp_path, spec, model_sha256=known.__getitem__, online=False)
    assert found == (manifest, [])
