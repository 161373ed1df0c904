import json
import re
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from tiny_panorama import HEIGHT, WIDTH, make_home, write_panorama

from generation.errors import CancelledError, InvalidSpecError, MissingFileError, OutputError
from generation.media.artifact import read_artifact
from generation.media.image import open_rgb
from generation.pipelines import walk as walk_module
from generation.pipelines.overhead import ZOOM, overhead_of
from generation.pipelines.panorama_render import render
from generation.pipelines.walk import Walk, animated, render_walk
from generation.replay import compare, render_again
from generation.view_spec import ViewSpec

START, END = (7.60, 46.00), (7.68, 46.00)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _at_home(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    view = write_panorama(tmp_path_factory.mktemp("views") / "a.png")
    views = (ViewSpec(str(view), 46.03, 7.64, 20.0),)
    return {"views": views, "steps": 1, "model": "panorama-nano"}


def path_of(folder, *points):
    path = folder / "path.geojson"
    path.write_text(json.dumps({"type": "LineString", "coordinates": points}))
    return path


@pytest.fixture(scope="module")
def walked(home, fields, tmp_path_factory):
    """A walk of three frames over a generated ground; tests only read it."""
    folder = tmp_path_factory.mktemp("walk")
    walk = Walk.along(path_of(folder, START, END), 3, fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERRASCAPE_HOME", str(home))
        return walk, folder / "out", render_walk(walk, made(folder / "out"))


def made(folder):
    folder.mkdir()
    return folder


def test_the_frames_share_seed_views_and_files_and_look_the_way_they_go(tmp_path, fields):
    walk = Walk.along(path_of(tmp_path, START, END), 3, fields)
    assert [(s.lat, s.lon) for s in walk.specs][::2] == [(46.0, 7.6), (46.0, 7.68)]
    assert walk.specs[1].lat == pytest.approx(46.0, abs=1e-4)
    assert [s.heading for s in walk.specs] == pytest.approx([89.97, 90.0, 90.03], abs=0.01)
    assert {(s.seed, s.views) for s in walk.specs} == {(0, walk.specs[0].views)}
    assert walk.specs[0].views[0].sha256 is not None
    fixed = Walk.along(path_of(tmp_path, START, END), 3, fields, heading_deg=210.0)
    assert {s.heading for s in fixed.specs} == {210.0}


def test_a_frame_that_cannot_be_is_told_by_its_number(tmp_path, fields):
    long = path_of(tmp_path, (7.6, 46.0), (7.6, 47.9))
    with pytest.raises(InvalidSpecError, match=r"frame 3 of 4: .*a\.png.*100 km"):
        Walk.along(long, 4, fields)
    assert len(Walk.along(long, 4, {**fields, "far": True}).specs) == 4
    with pytest.raises(InvalidSpecError, match=r"frame 1 of 2: heading=400"):
        Walk.along(path_of(tmp_path, START, END), 2, fields, heading_deg=400.0)


def test_a_walk_is_listed_in_order_with_an_animation(walked):
    walk, out, done = walked
    listed = json.loads((out / "walk.json").read_text())
    assert [frame["file"] for frame in listed["frames"]] == [f.name for f in done.files[:3]]
    assert [frame["heading"] for frame in listed["frames"]] == [s.heading for s in walk.specs]
    assert listed["synthetic"] is True
    assert "rendered from terrain" in listed["label"]
    from PIL import Image

    with Image.open(out / "walk.webp") as animation:
        assert animation.n_frames == 3
        assert animation.size == (WIDTH, HEIGHT)
    assert done.drawn == 3


def test_every_frame_is_replayed_equal_from_its_own_file(walked):
    _, _, done = walked
    for frame in done.files[:3]:
        artifact = read_artifact(frame)
        assert compare(artifact, render_again(artifact, render)).text == "equal"


def test_a_folder_that_was_moved_is_replayed_from_where_it_is(walked, tmp_path):
    _, out, done = walked
    moved = tmp_path / "moved"
    shutil.copytree(out, moved)
    frame = moved / done.files[1].name
    ground = Path(read_artifact(frame).spec.satellite)
    away = ground.rename(ground.with_name("away.tif"))
    try:
        artifact = read_artifact(frame)
        assert compare(artifact, render_again(artifact, render)).text == "equal"
        (moved / ground.name).unlink()
        with pytest.raises(MissingFileError) as refusal:
            render_again(artifact, render)
    finally:
        away.rename(ground)
    said = (
        rf"satellite='.*{ground.name}' is no file whose fingerprint is \w+, nor does it lie beside"
    )
    assert re.search(said, str(refusal.value))
    assert f"{frame.name} (put it into one of the two places)" in str(refusal.value)


def test_a_prompt_is_for_the_ground_and_drawing_it_is_told(fields, tmp_path):
    seen = []
    walk = Walk.along(path_of(tmp_path, START, END), 2, {**fields, "prompt": "snow"})
    options = {"on_ground": lambda *step: seen.append(step[:2])}
    done = render_walk(walk, made(tmp_path / "out"), **options)
    assert seen == [(1, 1)]
    assert {read_artifact(frame).spec.prompt for frame in done.files[:2]} == {""}
    (ground,) = (tmp_path / "out").glob("satellite_*.json")
    assert read_artifact(ground).spec.prompt == "snow"
    with pytest.raises(CancelledError, match="stopped at step 0"):
        render_walk(walk, made(tmp_path / "more"), cancelled=lambda: True)
    assert not list((tmp_path / "more").iterdir())


def test_all_frames_look_at_one_ground(walked):
    _, out, done = walked
    specs = [read_artifact(frame).spec for frame in done.files[:3]]
    assert len({spec.satellite for spec in specs}) == 1
    assert specs[0].satellite.startswith(str(out))
    assert specs[0].satellite_sha256 is not None
    # A whole number of pixels apart the two are cut between the same pixels of it.
    apart, world = 15, 256 << ZOOM
    there = replace(specs[2], lon=specs[0].lon + 360 * apart / world)
    first, last = (overhead_of(spec).rgb for spec in (specs[0], there))
    assert np.array_equal(first[:, apart:], last[:, :-apart])
    assert not np.array_equal(first[:, apart + 1 :], last[:, : -apart - 1])


def test_started_again_it_keeps_what_is_whole_and_draws_what_is_not(walked, fields, tmp_path):
    walk = Walk.along(path_of(tmp_path, START, END), 3, fields)
    out = made(tmp_path / "out")
    counts = []
    with pytest.raises(CancelledError, match="after 1 of 3 frames"):
        render_walk(
            walk,
            out,
            on_frame=lambda done, _: counts.append(done),
            cancelled=lambda: bool(counts),
        )
    assert not (out / "walk.json").exists()
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    again = render_walk(walk, out)
    assert again.drawn == 2
    assert (out / "walk.webp").read_bytes() == (walked[1] / "walk.webp").read_bytes()
    assert render_walk(walk, out).drawn == 0


def test_a_folder_with_another_walk_is_refused_before_any_work(walked, fields, tmp_path):
    _, out, _ = walked
    before = sorted(path.name for path in out.iterdir())
    other = Walk.along(path_of(tmp_path, START, END), 2, {**fields, "satellite": "none"})
    with pytest.raises(OutputError, match=r"walk\.json lists another walk"):
        render_walk(other, out)
    assert sorted(path.name for path in out.iterdir()) == before


def test_a_path_too_long_for_one_image_gets_tiles_that_are_drawn_once(
    fields, tmp_path, monkeypatch
):
    monkeypatch.setattr(walk_module, "MAX_DRAWN_PX", 256)
    walk = Walk.along(path_of(tmp_path, START, END), 2, fields)
    out = made(tmp_path / "out")
    tiles = []
    done = render_walk(walk, out, on_ground=lambda done, count, _: tiles.append((done, count)))
    assert tiles == [(n, len(tiles)) for n in range(1, len(tiles) + 1)]
    (ground,) = out.glob("walk_satellite_*.tif")
    assert len(tiles) > 1
    specs = [read_artifact(frame).spec for frame in done.files[:2]]
    assert {spec.satellite for spec in specs} == {str(ground)}
    assert overhead_of(specs[1]).about["synthetic"] is True
    monkeypatch.setattr(walk_module, "MAX_TILES", 1)
    with pytest.raises(InvalidSpecError, match=r"tiles of a satellite image, 1 are drawn"):
        render_walk(walk, made(tmp_path / "more"))


def test_a_walk_may_cross_the_antimeridian(fields, tmp_path):
    views = (replace(fields["views"][0], lat=0.0, lon=179.9),)
    path = path_of(tmp_path, (179.95, 0.0), (-179.95, 0.0))
    # GeoJSON of a line over it: the shorter way counts
    walk = Walk.along(path, 2, {**fields, "views": views})
    assert [spec.heading for spec in walk.specs] == [90.0, 90.0]
    done = render_walk(walk, made(tmp_path / "out"))
    assert len(done.files) == 4


def test_equal_frames_give_equal_bytes_and_keep_their_order():
    from PIL import Image

    frames = [np.full((16, 32, 3), value, np.uint8) for value in (0, 120, 240)]
    data = animated(frames)
    assert data == animated(frames)
    with Image.open(BytesIO(data)) as animation:
        shown = []
        for number in range(3):
            animation.seek(number)
            shown.append(np.asarray(animation.convert("RGB")).mean())
    assert shown == sorted(shown)
    assert shown[-1] > 200


def test_no_ground_is_drawn_where_none_is_wanted(fields, tmp_path):
    walk = Walk.along(path_of(tmp_path, START, END), 2, {**fields, "satellite": "none"})
    out = made(tmp_path / "out")
    done = render_walk(walk, out)
    assert not list(out.glob("*.tif"))
    assert open_rgb(done.files[0]).shape == (HEIGHT, WIDTH, 3)
