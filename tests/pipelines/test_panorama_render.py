import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tiny import make_pipeline
from tiny_panorama import HEIGHT, WIDTH, make_home, panorama_pixels, write_panorama

from generation.errors import CancelledError, InvalidSpecError, MissingFileError
from generation.geo.imagery import cut_square
from generation.geo.location import Location
from generation.geo.mercator import Window, to_px
from generation.geo.sphere import Band
from generation.media.artifact import find_done, save_render
from generation.media.geotiff import geotiff_bytes
from generation.pipelines.overhead import SIDE_PX, ZOOM, cut_around, overhead_of
from generation.pipelines.overlay import VIEW_COLOURS, overlay
from generation.pipelines.panorama_render import (
    CROP_PX,
    cut_crops,
    load_panorama,
    render,
    turned,
)
from generation.pipelines.panorama_views import open_views
from generation.registry import find
from generation.render_batch import weights_sha256
from generation.spec import RunSpec
from generation.view_spec import ViewSpec

LAT, LON = 45.98, 7.66
SPEC = RunSpec(kind="panorama", lat=LAT, lon=LON, model="panorama-nano", steps=2, satellite="none")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _at_home(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    return [str(write_panorama(folder / f"{n}.png", seed=n)) for n in range(5)]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A GeoTIFF of 320 px whose colours tell its own pixels."""
    path = tmp_path_factory.mktemp("ground") / "ground.tif"
    window = Window.around(Location(LAT, LON), ZOOM, 320)
    rows, cols = np.mgrid[:320, :320]
    rgb = np.stack([rows // 2, cols // 2, (rows + cols) // 4], -1).astype(np.uint8)
    path.write_bytes(geotiff_bytes(rgb, window, {"SYNTHETIC": "true", "ATTRIBUTION": "© me"}))
    return path


def near(files, count):
    """Give views 2, 4, 6, … km north of the place."""
    return tuple(ViewSpec(f, LAT + 0.018 * (n + 1), LON, 0.0) for n, f in enumerate(files[:count]))


def notes_of(drawn):
    return "\n".join(drawn.provenance["notes"])


def test_a_panorama_comes_with_crops_overlay_and_the_story_of_its_making(files, ground):
    spec = replace(SPEC, views=near(files, 2), satellite=str(ground), heading=90.0)
    drawn = render(spec)
    assert drawn.image.shape == (HEIGHT, WIDTH, 3)
    assert {name: crop.shape for name, crop in drawn.crops.items()} == dict.fromkeys(
        ("front", "right", "back", "left"), (CROP_PX, CROP_PX, 3)
    )
    assert drawn.overlay.shape[1] == 1024
    assert drawn.satellite.shape == (SIDE_PX, SIDE_PX, 3)
    made = drawn.provenance
    assert made["notes"][0] == find("panorama-nano").learnt
    assert "rendered from terrain" in made["notes"][0]
    assert made["synthetic"] is True
    assert made["attribution"] == "© me"
    assert [view["km"] for view in made["views"]] == pytest.approx([2.0, 4.0], abs=0.05)
    assert [view["bearing_deg"] for view in made["views"]] == [0.0, 0.0]
    shares = [view["share"] for view in made["views"]]
    total = sum(shares) + made["satellite"]["share"] + made["own_share"]
    assert total == pytest.approx(1, abs=1e-3)
    assert made["model_sha256"] == load_panorama("panorama-nano").sha256


def test_a_heading_turns_the_picture_and_nothing_else(files):
    north = render(replace(SPEC, views=near(files, 1)))
    east = render(replace(SPEC, views=near(files, 1), heading=90.0))
    np.testing.assert_array_equal(east.image, np.roll(north.image, -WIDTH // 4, axis=1))
    assert np.abs(east.crops["left"].astype(int) - north.crops["front"]).max() <= 1


def test_the_file_may_be_turned_as_long_as_its_heading_says_so(files, tmp_path):
    from PIL import Image

    pixels = panorama_pixels(0)
    Image.fromarray(np.roll(pixels, -64, axis=1)).save(tmp_path / "turned.png")  # a quarter of it
    views, _ = open_views(
        replace(SPEC, views=(ViewSpec(str(tmp_path / "turned.png"), LAT, LON, 90.0),)), Band()
    )
    plain, _ = open_views(replace(SPEC, views=(ViewSpec(files[0], LAT, LON, 0.0),)), Band())
    np.testing.assert_array_equal(views[0].pixels, plain[0].pixels)


def test_the_nearest_three_are_used_in_any_order_and_that_is_told(files):
    views = near(files, 5)
    some = render(replace(SPEC, views=(views[4], views[2], views[0], views[3], views[1])))
    three = render(replace(SPEC, views=views[:3]))
    np.testing.assert_array_equal(some.image, three.image)
    assert "5 views given, the 3 nearest are used: 2, 3, 5" in notes_of(some)
    told = [(view["number"], view["file"]) for view in some.provenance["views"]]
    assert told == [(2, "2.png"), (3, "0.png"), (5, "1.png")]
    at = {view["file"]: view["share"] for view in three.provenance["views"]}
    assert {view["file"]: view["share"] for view in some.provenance["views"]} == at


def test_what_is_given_changes_what_is_drawn(files, ground):
    pictures = [
        render(SPEC),
        render(replace(SPEC, views=near(files, 1))),
        render(replace(SPEC, views=near(files[1:], 1))),
        render(replace(SPEC, satellite=str(ground))),
        render(replace(SPEC, seed=1)),
    ]
    assert len({drawn.image.tobytes() for drawn in pictures}) == len(pictures)
    assert "is no place" in notes_of(pictures[0])


def test_a_scale_of_zero_is_the_same_as_not_giving_it(files, ground):
    both = replace(SPEC, views=near(files, 1), satellite=str(ground))
    no_views = render(replace(both, views_guidance=0.0))
    np.testing.assert_array_equal(
        no_views.image, render(replace(SPEC, satellite=str(ground))).image
    )
    assert "views_guidance=0" in notes_of(no_views)
    no_ground = render(replace(both, satellite_guidance=0.0))
    np.testing.assert_array_equal(no_ground.image, render(replace(both, satellite="none")).image)


def test_distances_are_told_where_they_are_unusual(files):
    here = ViewSpec(files[0], LAT, LON, 0.0)
    away = ViewSpec(files[1], LAT + 0.5, LON, 0.0)
    told = notes_of(render(replace(SPEC, views=(here, away))))
    assert "0.png stands at the place itself" in told
    assert "1.png stands 56 km away; the model learnt from panoramas up to 30 km away" in told


def test_a_prompt_that_nothing_reads_is_refused(ground):
    said = r"prompt='snow' is read by nobody: panorama-nano takes none"
    for satellite in ("none", str(ground)):
        with pytest.raises(InvalidSpecError, match=said):
            render(replace(SPEC, prompt="snow", satellite=satellite))
    with pytest.raises(InvalidSpecError, match=said):
        render(replace(SPEC, lat=84.98, prompt="snow", satellite="auto"))
    plain = replace(SPEC, steps=1, satellite="generated")
    snowy = render(replace(plain, prompt="snow"))
    assert not np.array_equal(snowy.satellite, render(plain).satellite)


@pytest.mark.parametrize(("scale", "told"), [(1.0, 0), (2.0, 0), (2.1, 1), (20.0, 1)])
def test_a_scale_that_exaggerates_far_is_told_of(files, scale, told):
    spec = replace(SPEC, steps=1, views=near(files, 1), views_guidance=scale)
    notes = [note for note in render(spec).provenance["notes"] if "exaggerates far" in note]
    assert len(notes) == told
    assert all(f"views_guidance={scale:g}" in note for note in notes)


def test_drawing_the_satellite_image_is_told_first_and_may_be_stopped():
    seen = []
    spec = replace(SPEC, satellite="generated")
    render(spec, on_step=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [step[2] is None for step in seen] == [True, True, False, False]
    asked = []

    def stop():
        asked.append(len(asked))
        return len(asked) == 2  # before the second step of the satellite image

    seen.clear()
    with pytest.raises(CancelledError, match="step 1 of 2"):
        render(spec, on_step=lambda *step: seen.append(step), cancelled=stop)
    assert [step[:2] for step in seen] == [(1, 4)]


def test_previews_are_turned_and_the_last_is_the_picture(files):
    seen = []
    drawn = render(
        replace(SPEC, views=near(files, 1), heading=33.0),
        on_step=lambda step, steps, preview: seen.append((step, steps, preview)),
    )
    assert [(step, steps) for step, steps, _ in seen] == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(seen[-1][2], drawn.image)


def test_it_stops_when_it_is_asked_to():
    with pytest.raises(CancelledError):
        render(SPEC, cancelled=lambda: True)


def test_models_and_kinds_that_do_not_fit_are_refused_in_one_sentence(home, monkeypatch):
    with pytest.raises(InvalidSpecError, match=r"satellite-nano.*draws no panoramas.*panorama-n"):
        render(replace(SPEC, model="satellite-nano"))
    with pytest.raises(InvalidSpecError, match=r"kind='satellite' is no panorama"):
        render(RunSpec(lat=LAT, lon=LON))
    from generation.pipelines.satellite import render as render_satellite

    with pytest.raises(InvalidSpecError, match=r"panorama-nano.*draws no satellite images"):
        render_satellite(RunSpec(lat=LAT, lon=LON, model="panorama-nano"))
    monkeypatch.setenv("TERRASCAPE_HOME", str(home / "empty"))
    monkeypatch.setattr("generation.registry.ASSETS", home / "none")
    with pytest.raises(MissingFileError, match="panorama-nano"):
        render(SPEC)


def test_a_view_that_is_gone_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"gone\.jpg"):
        render(replace(SPEC, views=(ViewSpec(str(tmp_path / "gone.jpg"), LAT, LON, 0.0),)))


def test_satellite_imagery_is_cut_exactly_around_the_place(ground):
    x, y = to_px(Location(LAT, LON), ZOOM)
    window = Window.around(Location(LAT, LON), ZOOM, 320)
    found = overhead_of(replace(SPEC, satellite=str(ground))).rgb
    rows = y - window.row_px - SIDE_PX / 2 + np.arange(SIDE_PX)  # from edge to middle: half each
    cols = x - window.col_px - SIDE_PX / 2 + np.arange(SIDE_PX)
    assert np.abs(found[:, 0, 0] - (rows - 0.5) / 2).max() <= 1.0
    assert np.abs(found[0, :, 1] - (cols - 0.5) / 2).max() <= 1.0


def test_a_square_is_cut_to_the_pixel_and_between_pixels():
    rows, cols = np.mgrid[:20, :30]
    rgb = np.stack([rows * 10, cols * 8, rows + cols], -1).astype(np.uint8)
    np.testing.assert_array_equal(cut_square(rgb, 12.0, 9.0, 6), rgb[6:12, 9:15])
    half = cut_square(rgb, 12.5, 9.0, 6).astype(int)
    np.testing.assert_array_equal(half[..., 1], rgb[6:12, 9:15, 1] + 4)
    with pytest.raises(InvalidSpecError, match="30x20 px does not hold 16x16"):
        cut_square(rgb, 27.0, 9.0, 16)


def test_imagery_that_does_not_reach_all_around_is_refused(ground):
    with pytest.raises(InvalidSpecError, match=r"ground\.tif covers \d+ %|ground\.tif covers \d+%"):
        overhead_of(replace(SPEC, lat=LAT + 0.5, satellite=str(ground)))


def test_a_generated_image_is_drawn_around_the_place_and_labelled():
    found = overhead_of(replace(SPEC, satellite="auto"))
    assert found.rgb.shape == (SIDE_PX, SIDE_PX, 3)
    assert found.about["synthetic"] is True
    assert "synthetic" in found.notes[0]
    assert found.layout.classes.shape == (320, 320)
    assert "GSHHG" in found.attribution


def test_done_means_that_the_satellite_model_is_the_same_too(home, tmp_path, monkeypatch):
    spec = replace(SPEC, steps=1, satellite="auto")
    manifest = save_render(render(spec), tmp_path / "out")[-1]
    weights = partial(weights_sha256, online=False)
    done = find_done(manifest.parent, spec, model_sha256=weights, online=False)
    assert done == (manifest, [])
    shutil.copytree(home, tmp_path / "home")
    other = make_pipeline()
    with torch.no_grad():
        next(other.unet.parameters()).add_(0.1)
    other.save_pretrained(tmp_path / "other")
    shutil.rmtree(tmp_path / "home" / "satellite-nano")
    shutil.move(tmp_path / "other", tmp_path / "home" / "satellite-nano")
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path / "home"))
    done, why = find_done(manifest.parent, spec, model_sha256=weights, online=False)
    assert done is None
    assert "other weights drew its satellite image" in why[0]


def test_near_the_end_of_the_map_auto_does_without_and_says_so():
    edge = replace(SPEC, lat=84.98)
    found = overhead_of(replace(edge, satellite="auto"))
    assert found.rgb is None
    assert "map of the world ends" in found.notes[0]
    with pytest.raises(InvalidSpecError, match="leave"):
        overhead_of(replace(edge, satellite="generated"))


@pytest.mark.parametrize("lat", [86.0, 90.0])
def test_beyond_the_map_panoramas_alone_are_followed(files, lat):
    spec = replace(SPEC, steps=1, lat=lat, satellite="auto")
    views = tuple(ViewSpec(f, lat - 0.01 * (n + 1), LON, 0.0) for n, f in enumerate(files[:2]))
    drawn = render(replace(spec, views=views))
    assert drawn.satellite is None
    assert "map of the world ends" in notes_of(drawn)
    assert [view["km"] for view in drawn.provenance["views"]] == pytest.approx([1.1, 2.2], abs=0.1)
    assert not np.array_equal(drawn.image, render(spec).image)


def test_a_square_across_the_antimeridian_is_one(ground):
    window = Window.around(Location(0.0, 179.99), ZOOM, 320)
    rgb = np.zeros((320, 320, 3), np.uint8)
    rgb[:, 200:] = 255
    for lon in (179.99, -179.99):
        x = to_px(Location(0.0, lon), ZOOM)[0] - window.col_px
        white = int((cut_around(rgb, window, Location(0.0, lon))[0, :, 0] > 127).sum())
        assert white == pytest.approx(320 - 200 - (320 - x % 65536 - SIDE_PX / 2), abs=1)


def test_crops_are_what_a_camera_sees_and_grey_beyond_the_band():
    band = Band(64, 512, 22.5, -22.5)
    panorama = np.zeros((64, 512, 3), np.uint8)
    panorama[:, 256 + 128 - 4 : 256 + 128 + 4] = 255  # due east
    crops, notes = cut_crops(panorama, band, 45.0)
    bright = crops["front"][CROP_PX // 2].mean(-1)  # it looks north-east: east is its right edge
    assert bright[-1] == 255
    assert bright[: CROP_PX // 2].max() == 0
    assert (crops["front"][0] == 128).all()
    assert "grey above 22.5 and below -22.5" in notes[0]
    _, none = cut_crops(panorama, Band(64, 512, 45.0, -45.0), 0.0)
    assert none == []


def test_an_overlay_shows_each_source_in_its_colour_where_it_was_found(files):
    pipeline = load_panorama("panorama-nano")
    spec = replace(SPEC, views=near(files, 2))
    drawn = render(spec)
    from generation.pipelines.overhead import Overhead
    from generation.pipelines.overlay import SeenView, Sources
    from generation.pipelines.panorama_render import _surroundings

    views, _ = open_views(spec, pipeline.views.band)
    with torch.no_grad():
        around = _surroundings(spec, views, Overhead(about={}), pipeline.views.band)
        guide = pipeline.views(around)
    weights = torch.zeros_like(guide.view_weights)
    half = weights.shape[-1] // 2
    weights[:, 0, :, half:] = 1  # the first view, to the east of north
    weights[:, 1, :, :half] = 1
    told = replace(guide, view_weights=weights, satellite_weight=guide.satellite_weight * 0)
    seen = [SeenView(v.number, v.name, v.pixels, (0.0, 2000.0), (0.0, -4.0)) for v in views]
    sources = Sources(told, seen, None, pipeline.views.band, 90.0)
    grey = np.full_like(drawn.image, 128)
    picture = overlay(turned(grey, 90.0), sources)
    np.testing.assert_array_equal(picture, overlay(turned(grey, 90.0), sources))
    assert sources.shares() == ([0.5, 0.5], 0.0, 0.0)
    middle, row = picture.shape[1] // 2, 100  # it looks east: the first view all around the middle
    first, second = (
        np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in VIEW_COLOURS[:2]
    )
    for col, near_, far in ((middle, first, second), (40, second, first)):
        there = picture[row, col].astype(float)
        assert np.abs(there - 0.75 * near_).sum() < np.abs(there - 0.75 * far).sum()
    # Given the other way round, the second slot is the first view, with its number and colour.
    given = [replace(view, number=number) for number, view in zip((7, 2), seen, strict=True)]
    swapped = replace(sources, views=given)
    assert [(slot, v.number, c) for slot, v, c in swapped.in_order()] == [
        (1, 2, VIEW_COLOURS[0]),
        (0, 7, VIEW_COLOURS[1]),
    ]
    for col, near_, far in ((middle, second, first), (40, first, second)):
        there = overlay(turned(grey, 90.0), swapped)[row, col].astype(float)
        assert np.abs(there - 0.75 * near_).sum() < np.abs(there - 0.75 * far).sum()
