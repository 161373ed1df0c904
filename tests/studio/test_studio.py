"""What stands behind the page: forms, drawings, maps and the gate, without a browser."""

from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from stand_in import draw

from generation.errors import InvalidSpecError, LayoutError, TerrascapeError
from generation.geo.layers import EmbeddedSource
from generation.geo.layout import LAYERS, PALETTE
from generation.geo.overpass import OverpassSource
from generation.media.artifact import read_artifact, save_render
from generation.spec import RunSpec
from generation.studio.drawing import CANVAS_PX, canvas, read_drawing, save_drawing
from generation.studio.form import SHARED, Form
from generation.studio.gate import Gate
from generation.studio.map_widget import (
    EXAMPLES,
    RegionMap,
    clicked,
    size_text,
    world_html,
    world_location,
)
from generation.studio.recall import restore
from generation.studio.stage import history_html, layout_html, page_words, recent

SPEC = RunSpec(lat=45.98, lon=7.66, prompt="snowy <b>valley</b>", layout="none", size=64, steps=2)


def form(spec=SPEC, **changes):
    values = {name: getattr(spec, name) for name in SHARED} | {"seed": str(spec.seed)}
    given = {"choice": spec.layout, "file": None, "drawing": None, "online": False}
    given |= {"heard": "none", "sound_file": None}
    given |= {"style_on": spec.style_lat is not None, "habitat_on": bool(spec.taxon)}
    given |= {"climate_on": spec.warmer_c is not None}
    return Form(**{**values, **given, **changes})


@pytest.mark.parametrize("change", [
    {}, {"seed": 2**63 - 1}, {"lat": -33.123456789, "lon": 180.0}, {"text_guidance": 2.05},
    {"use_location": False}, {"steps": 200, "size": 1024, "zoom": 5}, {"prompt": ""},
    {"style_lat": 23.5, "style_lon": 5.0, "sharpness": 0.2}, {"taxon": "Panthera leo"},
    {"warmer_c": 3.0, "rain_percent": -20.0, "climate_guidance": 1.0},
])  # fmt: skip
def test_the_page_holds_every_field_of_a_spec(change, tmp_path):
    spec = replace(SPEC, **change)
    assert form(spec).spec(tmp_path) == spec


def test_whole_numbers_may_come_as_floats(tmp_path):
    assert form(size=64.0, steps=2.0, zoom=8.0).spec(tmp_path) == SPEC


@pytest.mark.parametrize(("change", "told"), [
    ({"lat": None}, "lat=None"),
    ({"lat": 95}, "no such place"),
    ({"seed": "seven"}, "seed='seven'"),
    ({"seed": ""}, "seed=''"),
    ({"steps": 2.5}, "steps=2.5"),
    ({"text_guidance": float("nan")}, "text_guidance=nan"),
    ({"choice": "file"}, "no layout file is chosen"),
    ({"choice": "draw"}, "nothing is drawn"),
])  # fmt: skip
def test_a_mistake_is_told_and_nothing_is_written(change, told, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(TerrascapeError, match=told):
        form(**change).spec(out)
    assert not out.exists()


def test_a_drawing_is_read_as_it_was_painted_whatever_its_soft_edges():
    classes = np.full((CANVAS_PX, CANVAS_PX), LAYERS.index("forest"), np.uint8)
    classes[:, :200] = LAYERS.index("ocean")
    pixels = PALETTE[classes]
    pixels[:, 199:201] = pixels[:, 199:201] // 2 + np.array([250, 0, 0], np.uint8) // 2
    drawing = read_drawing(np.dstack([pixels, np.full(classes.shape, 255, np.uint8)]))
    np.testing.assert_array_equal(drawing.classes, classes)
    assert drawing.unclear == pytest.approx(2 / CANVAS_PX)
    assert "between two colours" in drawing.note


def test_a_photograph_is_no_drawing():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(LayoutError, match="no colour of the palette"):
        read_drawing(noise)


def test_a_drawn_layout_is_a_file_that_a_spec_can_name(tmp_path):
    classes = np.zeros((CANVAS_PX, CANVAS_PX), np.uint8)
    classes[:256] = LAYERS.index("glacier")
    drawing = read_drawing(PALETTE[classes])
    spec = form(choice="draw", drawing=drawing).spec(tmp_path)
    assert spec.layout_path.is_file()
    assert spec.layout_sha256
    assert form(choice="draw", drawing=drawing).spec(tmp_path) == spec
    again = form(choice="file", file=spec.layout).layout()
    np.testing.assert_array_equal(again.classes, drawing.fitted(64))
    np.testing.assert_array_equal(canvas(again), PALETTE[classes])


def test_a_result_fills_the_page_again(tmp_path):
    path = save_drawing(read_drawing(np.tile(PALETTE[5], (64, 64, 1))), 64, tmp_path)
    for spec in (SPEC, replace(SPEC, layout=str(path)).pinned()):
        manifest = save_render(draw(spec), tmp_path)[-1]
        back = restore(read_artifact(manifest), tmp_path)
        assert back.note == ""
        assert back.form.spec(tmp_path) == spec


def test_a_layout_outside_of_the_results_is_not_opened(tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "private.png"
    drawn = save_drawing(read_drawing(np.tile(PALETTE[5], (64, 64, 1))), 64, tmp_path)
    elsewhere.write_bytes(drawn.read_bytes())
    spec = replace(SPEC, layout=str(elsewhere)).pinned()
    manifest = save_render(draw(spec), out)[-1]
    back = restore(read_artifact(manifest), out)
    assert back.form.file == str(manifest.with_name(f"{manifest.stem}.layout.png"))
    (out / f"{manifest.stem}.layout.png").unlink()
    back = restore(read_artifact(manifest), out)
    assert back.form.file is None
    assert "private.png" in back.note


def test_the_strip_lists_whole_results_newest_first_and_escapes(tmp_path):
    for seed in range(3):
        save_render(draw(replace(SPEC, seed=seed)), tmp_path)
    (tmp_path / "broken.json").write_text("{")
    found = recent(tmp_path, limit=2)
    assert [artifact.spec.seed for artifact in found] == [2, 1]
    html = history_html(found, found[0].path.stem)
    assert html.count("<button") == 2
    assert html.count("aria-current") == 1
    assert "<b>" not in html


@pytest.mark.parametrize("place", EXAMPLES)
def test_every_example_lies_where_the_map_shows_it(place):
    html = world_html(place.lat, place.lon)
    u, v = (place.lon + 180) / 360, (90 - place.lat) / 180
    assert f"left:{100 * u:.3f}%;top:{100 * v:.3f}%" in html
    back = world_location(u, v)
    assert (back.lat, back.lon) == pytest.approx((place.lat, place.lon))


@pytest.mark.parametrize(("lat", "lon", "zoom"), [
    (45.98, 7.66, 8), (0.0, 179.99, 8), (-17.0, -179.99, 8), (84.0, 0.0, 8), (10.0, 20.0, 1),
])  # fmt: skip
def test_the_middle_of_the_frame_is_the_middle_of_the_picture(lat, lon, zoom):
    window = RunSpec(lat=lat, lon=lon, zoom=zoom).window()
    region = RegionMap.around(window)
    centre = region.location(region.left + region.width / 2, region.top + region.height / 2)
    assert (centre.lat, centre.lon) == pytest.approx((window.center.lat, window.center.lon))
    assert region.width == pytest.approx(2.0 ** -min(3, zoom))


@pytest.mark.parametrize(("lat", "zoom", "size", "told"), [
    (0.0, 8, 256, "157 km across, 611 m a pixel"),
    (60.0, 8, 256, "78 km across, 306 m a pixel"),
    (0.0, 14, 256, "2.4 km across, 9.6 m a pixel"),
    (0.0, 18, 256, "153 m across, 0.6 m a pixel"),
    (0.0, 2, 1024, "40,075 km across, 39,136 m a pixel"),
])  # fmt: skip
def test_the_size_on_the_ground_is_told(lat, zoom, size, told):
    assert size_text(RunSpec(lat=lat, lon=0.0, zoom=zoom, size=size).window()) == told


def test_the_page_names_its_own_controls_and_no_options_of_the_commands():
    notes = layout_html(EmbeddedSource().layout(RunSpec(lat=46.0, lon=8.0, zoom=15).window()))
    assert "tick &#x27;Allow OpenStreetMap&#x27; for streets" in notes
    far = OverpassSource(Path("unused"))
    with pytest.raises(LayoutError) as refused:
        far.layout(SPEC.window())
    for text in (notes, page_words(str(refused.value)), page_words("choose --layout auto")):
        assert " --" not in text
    assert page_words("<b>") == "&lt;b&gt;"


def test_no_pin_is_drawn_where_there_is_no_place():
    assert "ts-pin" not in world_html(None, 3)
    assert "ts-pin" not in world_html(95, 3)


def answer(path, headers):
    sent = []

    async def behind(scope, receive, send):
        await send({"type": "http.response.start", "status": 299, "headers": []})

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    with pytest.raises(StopIteration):  # nothing in it waits, so that no event loop is needed
        Gate(behind)({"type": "http", "path": path, "headers": raw}, None, send).send(None)
    return sent[0]["status"], sent[-1].get("body", b"")


@pytest.mark.parametrize(("path", "headers", "status"), [
    ("/", {"host": "127.0.0.1:7860"}, 299),
    ("/", {"host": "localhost:7860", "origin": "http://localhost:7860"}, 299),
    ("/healthz", {"host": "127.0.0.1:7860"}, 200),
    ("/basemap.png", {"host": "127.0.0.1:7860"}, 200),
    ("/healthz", {"host": "evil.example"}, 403),
    ("/", {"host": "127.0.0.1:7860", "origin": "http://evil.example"}, 403),
    ("/", {"host": "127.0.0.1:7860", "origin": "null"}, 403),
])  # fmt: skip
def test_the_gate_lets_in_the_page_alone(path, headers, status):
    assert answer(path, headers)[0] == status


def test_the_map_of_the_world_is_small():
    data = answer("/basemap.png", {"host": "localhost"})[1]
    assert data.startswith(b"\x89PNG")
    assert len(data) <= 400_000


@pytest.mark.parametrize("data", [{"u": float("nan"), "v": 0.5}, {"u": 7, "v": 0}, {}, None, "u"])
def test_an_event_that_the_page_does_not_send_is_refused(data):
    with pytest.raises(InvalidSpecError, match="no point of the map"):
        clicked(gr.EventData(None, data))
