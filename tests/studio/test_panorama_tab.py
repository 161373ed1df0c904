"""The panorama tab without a browser: the real handlers, worker and a tiny model."""

import asyncio
import base64
import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import gradio as gr
import pytest
from stand_in import draw
from tiny_panorama import make_home, panorama_pixels, write_panorama

from generation.errors import InvalidSpecError, TerrascapeError
from generation.geo.location import Location
from generation.geo.sphere import Band
from generation.media.artifact import manifest_mistakes, read_artifact, read_spec, save_render
from generation.media.panorama import panorama_jpeg
from generation.spec import RunSpec
from generation.studio import worker
from generation.studio.gate import FILES
from generation.studio.panorama_form import SATELLITE_CHOICES, PanoramaForm
from generation.studio.panorama_recall import files_of, restore
from generation.studio.panorama_stage import LEARNT, recent
from generation.studio.panorama_tab import PanoramaTab, choose_image
from generation.studio.panorama_viewer import VIEWER, VIEWER_CSS, VIEWER_JS
from generation.studio.panorama_views import (
    around_html,
    list_html,
    region_of,
    take_views,
    typed,
)
from generation.studio.worker import Desk
from generation.view_spec import MAX_VIEWS_GIVEN

PLACE = Location(45.98, 7.66)
SOMEONE = gr.Request(session_hash="someone")
FULL = Band(128, 256, 90.0, -90.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def page():
    """The tab of a page that nobody has opened."""

    async def build():  # in a loop that is closed again; without one, Gradio leaves three open
        with gr.Blocks(analytics_enabled=False) as page, gr.Tabs():
            with gr.Tab("Panorama") as tab:
                made = PanoramaTab(Desk(Path("unused")))
            made.wire(page, tab)
        return made

    return asyncio.run(build())


@pytest.fixture
def tab(page, home, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    monkeypatch.setattr(worker, "LOOK_S", 0.01)
    page.desk = Desk(tmp_path / "out")
    return page


@pytest.fixture
def placed(tmp_path):
    """A panorama whose file tells its place and heading."""
    path = tmp_path / "ridge.jpg"
    path.write_bytes(
        panorama_jpeg(panorama_pixels(1), FULL, heading_deg=120.0, place=Location(46.0, 7.7))
    )
    return path


def form(**changes):
    given = {"lat": PLACE.lat, "lon": PLACE.lon, "heading": 90, "choice": "none", "image": None}
    given |= {"prompt": "", "far": False, "seed": "7", "steps": 3, "model": "panorama-nano"}
    given |= {"satellite_guidance": 1.0, "views_guidance": 1.0, "given": [], "rows": "[]"}
    return PanoramaForm(**{**given, **changes})


def values(told):
    return [getattr(told, each.name) for each in fields(PanoramaForm)]


def row(view, **changes):
    return {"key": view.key, "lat": view.lat, "lon": view.lon, "heading": view.heading} | changes


def event(**data):
    return gr.EventData(None, data)


def gather(events):
    told, merged = [], {}
    try:
        for changes in events:
            told.append(changes)
            merged |= changes
    except gr.Error as error:
        return told, merged, error
    return told, merged, None


def draw_form(tab, told):
    return gather(tab.draw(SOMEONE, True, *values(told)))


def test_a_file_fills_in_its_own_place_and_heading(placed, tmp_path):
    bare = write_panorama(tmp_path / "bare.png")
    views, refused = take_views([str(placed), str(bare)], [])
    assert refused == ""
    assert (views[0].lat, views[0].lon, views[0].heading) == ("46", "7.7", "120")
    assert views[0].notes == ()
    assert (views[1].lat, views[1].lon, views[1].heading) == ("", "", "0")
    assert any("north is assumed" in note for note in views[1].notes)
    shown = list_html(views)
    assert shown.count("data-view=") == 2
    assert shown.count('value="46"') == 1


def test_what_is_no_panorama_is_left_out_and_told(placed, tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    views, refused = take_views([str(empty), str(placed)], [])
    assert [view.name for view in views] == ["ridge.jpg"]
    assert "empty.jpg" in refused
    assert str(tmp_path) not in refused  # a person knows the name alone


def test_no_more_views_are_taken_than_may_be_named(placed):
    views, refused = take_views([str(placed)] * (MAX_VIEWS_GIVEN + 1), [])
    assert len(views) == MAX_VIEWS_GIVEN
    assert len({view.key for view in views}) == MAX_VIEWS_GIVEN
    assert f"{MAX_VIEWS_GIVEN} panoramas are allowed" in refused


def test_a_key_that_was_removed_is_not_given_to_two_views(placed):
    views, _ = take_views([str(placed)] * 3, [])
    views, _ = take_views([str(placed)] * 2, [views[0], views[2]])
    assert len({view.key for view in views}) == 4


def test_what_is_typed_replaces_what_the_file_told(placed, tmp_path):
    views, _ = take_views([str(placed)], [])
    rows = json.dumps([row(views[0], lat="46.01", heading="10.5"), {**row(views[0]), "key": "v9"}])
    spec = form(given=views, rows=rows).spec(tmp_path / "out")
    (view,) = spec.views
    assert (view.lat, view.lon, view.heading) == (46.01, 7.7, 10.5)
    assert Path(view.file).read_bytes() == placed.read_bytes()
    assert Path(view.file).is_relative_to(tmp_path / "out")
    assert Path(view.file).name == "ridge.jpg"
    assert view.sha256


@pytest.mark.parametrize("rows", ["[", "[1]", '{"key": 1}', '[{"key": "v1"}]', "[" * 5000])
def test_rows_that_the_page_does_not_send_are_refused(rows):
    with pytest.raises(InvalidSpecError, match="reload the page"):
        typed([], rows)


@pytest.mark.parametrize(("change", "message"), [
    ({"lat": None}, "lat=None"),
    ({"lat": 95}, "no such place"),
    ({"heading": 400}, "heading=400"),
    ({"heading": float("nan")}, "heading=nan"),
    ({"heading": None}, "heading=None"),
    ({"seed": "x"}, "seed='x'"),
    ({"steps": 2.5}, "steps=2.5"),
    ({"choice": "file"}, "no satellite image is chosen"),
    ({"choice": "file", "image": "gone.tif"}, "gone.tif"),
    ({"typed": {"lat": ""}}, "ridge.jpg: lat=''"),
    ({"typed": {"lat": "95"}}, "no such place"),
    ({"typed": {"heading": "400"}}, "heading=400"),
    ({"typed": {"heading": "nan"}}, "heading='nan'"),
    ({"typed": {"lat": "51"}}, "ridge.jpg' stands 558 km away"),
    ({"twice": True}, "views 1 and 2 are the same: 'ridge.jpg' and 'ridge.jpg'"),
])  # fmt: skip
def test_a_mistake_is_told_and_nothing_is_written(placed, change, message, tmp_path):
    out = tmp_path / "out"
    views, _ = take_views([str(placed)] * (2 if change.pop("twice", False) else 1), [])
    rows = json.dumps([row(views[0], **change.pop("typed", {}))])
    with pytest.raises(TerrascapeError, match=re.escape(message)) as caught:
        form(given=views, rows=rows, **change).spec(out)
    assert str(tmp_path) not in str(caught.value)
    assert not out.exists()


def test_a_far_view_is_taken_where_that_is_ticked(placed, tmp_path):
    views, _ = take_views([str(placed)], [])
    spec = form(given=views, rows=json.dumps([row(views[0], lat="51")]), far=True).spec(tmp_path)
    assert spec.far
    assert spec.views[0].lat == 51


def test_the_map_shows_each_view_where_it_stands(placed):
    views, _ = take_views([str(placed)] * 2, [])
    views[1] = replace(views[1], lat="46.3", lon="7.66")  # 36 km to the north
    region = region_of(PLACE, views)
    shown = around_html(PLACE, views, 90.0)
    spots = re.findall(r'ts-spot" style="left:([\d.]+)%;top:([\d.]+)%">(\d)', shown)
    assert [number for *_, number in spots] == ["1", "2"]
    for (left, top, _), view in zip(spots, views, strict=True):
        back = region.location(float(left) / 100, float(top) / 100)
        assert back.lat == pytest.approx(float(view.lat), abs=1e-3)
        assert back.lon == pytest.approx(float(view.lon), abs=1e-3)
    assert "2: 35.6 km N, 0°" in shown
    assert "rotate(90.0deg)" in shown


def test_the_map_tells_of_views_beyond_it_and_without_a_place(placed):
    views, _ = take_views([str(placed)] * 2, [])
    views = [replace(views[0], lat="-33"), replace(views[1], lat="")]
    shown = around_html(PLACE, views, None)
    assert "1 of the panoramas stands beyond it" in shown
    assert "2: its file tells no place" in shown
    assert "Take far panoramas" in shown
    assert "ts-spot" not in shown


def test_the_map_crosses_the_antimeridian(placed):
    views, _ = take_views([str(placed)], [])
    views = [replace(views[0], lat="-17", lon="-179.95")]
    shown = around_html(Location(-17.0, 179.95), views, 0.0)
    (left,) = re.findall(r'ts-spot" style="left:([\d.]+)%', shown)
    assert 50 < float(left) < 100  # to the east


def test_a_panorama_is_drawn_step_by_step_and_offered(tab, placed):
    ui, out = tab.ui, tab.desk.out
    views, _ = take_views([str(placed)], [])
    told, page, error = draw_form(tab, form(given=views, choice="generated", steps=12))
    assert error is None
    stages = [changes[ui.stage] for changes in told if ui.stage in changes]
    previews = {uri for each in stages[:-1] for uri in re.findall(r'src="([^"]+)"', each)}
    assert len(previews) >= 2
    assert any("Step 2 of 12" in each and 'aria-busy="true"' in each for each in stages)

    (manifest,) = out.glob("panorama_*.json")
    assert manifest_mistakes(manifest) == []
    shown, files = page[ui.stage], files_of(manifest)
    assert set(files) >= {".jpg", ".front.jpg", ".overlay.png", ".satellite.png", ".json"}
    assert shown.count("ts-badge") == 6  # the panorama, four crops, the drawn satellite image
    assert 'data-heading="90" data-top="45" data-bottom="-45"' in shown
    assert LEARNT in shown
    assert shown.count("rendered from terrain") == 1
    inside = re.search(r'<img src="data:image/jpeg;base64,([^"]+)"', shown).group(1)
    assert base64.b64decode(inside) == files[".jpg"].read_bytes()
    assert ["Ahead, E, 90°" in shown, "Left, N, 0°" in shown] == [True, True]
    offered = [page[button]["value"] for button in ui.files]
    assert offered == [str(files[ending]) for ending in (".jpg", ".overlay.png", ".json")]
    assert manifest.stem in page[ui.history]
    assert page[ui.draw]["interactive"] is True
    assert tab.desk.work == {}


def test_a_panorama_is_stopped_and_nothing_is_saved(tab):
    events = tab.draw(SOMEONE, True, *values(form(steps=200)))
    page = {}
    for changes in events:
        page |= changes
        if "Step" in changes.get(tab.ui.stage, ""):
            tab.stop(SOMEONE)
    assert "Stopped. Nothing was saved." in page[tab.ui.stage]
    assert not list(tab.desk.out.glob("panorama_*"))


def test_a_mistake_of_the_fields_is_a_message(tab):
    told, _, error = draw_form(tab, form(heading=400))
    assert told == []
    assert "heading=400" in str(error)
    assert tab.desk.work == {}


def test_an_image_that_reaches_nowhere_near_is_told_after_the_start(tab, tmp_path):
    saved = save_render(draw(RunSpec(lat=-3.1, lon=-60.0, size=64)), tmp_path / "elsewhere")
    image = next(path for path in saved if path.suffix == ".tif")
    _, page, error = draw_form(tab, form(choice="file", image=str(image)))
    assert error is not None
    assert "Not drawn" in page[tab.ui.stage]
    assert not list(tab.desk.out.glob("panorama_*"))


def test_views_are_dropped_edited_and_removed(tab, placed, tmp_path):
    ui, bare = tab.ui, write_panorama(tmp_path / "bare.png")
    page = tab.take([str(placed), str(bare)], *values(form()))
    assert page[ui.drop] is None
    views = page[ui.given]
    rows = json.dumps([row(views[0]), row(views[1], lat="45.99", lon="7.6")])
    shown = tab.edit(event(rows=rows), *values(form(given=views)))
    assert "2: 4.8 km W, 284°" in shown
    page = tab.remove(event(rows=rows, remove=views[0].key), *values(form(given=views)))
    (left,) = page[ui.given]
    assert (left.name, left.lat, left.lon) == ("bare.png", "45.99", "7.6")
    assert "ridge.jpg" not in page[ui.list]


def test_a_click_on_the_map_around_the_place_moves_it(tab):
    told = form()
    lat, lon = tab.pick_around(event(u=0.75, v=0.5), *values(told))
    there = region_of(PLACE, []).location(0.75, 0.5)
    assert (lat, lon) == (round(there.lat, 4), round(there.lon, 4))
    assert lon > PLACE.lon
    with pytest.raises(gr.Error, match="no place yet"):
        tab.pick_around(event(u=0.5, v=0.5), *values(form(lat=None)))


@pytest.fixture
def saved(tab, placed):
    """A panorama from one view, its spec and its manifest."""
    views, _ = take_views([str(placed)], [])
    _, _, error = draw_form(tab, form(given=views, steps=2))
    assert error is None
    (manifest,) = tab.desk.out.glob("panorama_*.json")
    return read_spec(manifest), manifest


def test_a_saved_panorama_fills_the_tab_again(tab, saved):
    spec, manifest = saved
    back = restore(read_artifact(manifest), tab.desk.out)
    assert back.note == ""
    assert back.form.spec(tab.desk.out) == spec
    page = tab.bring_back(event(pick=manifest.stem))
    assert page[tab.ui.lat] == spec.lat
    assert "ts-pano-view" in page[tab.ui.stage]
    assert [each.path for each in recent(tab.desk.out)] == [manifest]


@pytest.mark.parametrize("ending", [".jpg", ".json"])
def test_a_file_from_elsewhere_finds_the_rest_among_the_results(tab, saved, tmp_path, ending):
    _, manifest = saved
    shutil.copy(manifest.with_suffix(ending), tmp_path / f"photo{ending}")
    page = tab.open_file(str(tmp_path / f"photo{ending}"))
    assert "Four views without distortion" in page[tab.ui.stage]
    assert page[tab.ui.downloads]["visible"] is True


def test_a_panorama_whose_results_are_gone_is_shown_alone_and_says_what_is_missing(
    tab, saved, tmp_path
):
    _, manifest = saved
    alone = shutil.copy(manifest.with_suffix(".jpg"), tmp_path / "alone.jpg")
    tab.desk = Desk(tmp_path / "other")
    page = tab.open_file(str(alone))
    assert "ts-pano-view" in page[tab.ui.stage]
    assert "Four views" not in page[tab.ui.stage]
    assert page[tab.ui.downloads]["visible"] is False
    assert page[tab.ui.given] == []
    note = restore(read_artifact(Path(alone)), tab.desk.out).note
    assert note == "its panorama 'ridge.jpg' is not among the results: drop it again"


def test_a_view_outside_of_the_results_is_not_opened(tab, saved, placed, tmp_path):
    spec, manifest = saved
    artifact = read_artifact(manifest)
    outside = replace(spec, views=(replace(spec.views[0], file=str(placed)),))
    assert restore(replace(artifact, spec=outside), tab.desk.out).form.given == []


def test_a_file_of_the_other_kind_is_refused_in_a_sentence(tab, tmp_path):
    manifest = save_render(draw(RunSpec(lat=1.0, lon=2.0, size=64)), tmp_path / "sat")[-1]
    with pytest.raises(gr.Error, match="this is a satellite image"):
        tab.open_file(str(manifest))
    assert recent(manifest.parent) == []


@pytest.mark.parametrize("pick", ["", "../out", "gone"])
def test_a_result_that_is_not_there_is_told(tab, pick):
    with pytest.raises(gr.Error, match="not in the folder any more"):
        tab.bring_back(event(pick=pick))


def test_each_choice_of_satellite_image_says_what_it_means():
    told = {value: choose_image(value) for _, value in SATELLITE_CHOICES}
    assert len({text for text, *_ in told.values()}) == len(SATELLITE_CHOICES)
    assert told["file"][1]["visible"] is True
    assert told["none"][1]["visible"] is False


def test_drawing_leaves_the_visitors_satellite_image_alone(tab):
    other = worker.Job(RunSpec(lat=1.0, lon=2.0, size=64), tab.desk)
    tab.desk.work["someone", worker.Job] = other
    draw_form(tab, form(steps=1))
    assert not other.stopped.is_set()
    tab.stop(SOMEONE)
    assert not other.stopped.is_set()


def test_the_viewer_is_served_from_here_with_its_version_and_licence():
    kind, script = FILES[VIEWER_JS]
    assert kind.startswith("text/javascript")
    assert script.read_text().startswith("// Pannellum 2.5.7")
    assert "Permission is hereby granted" in (VIEWER / "COPYING").read_text()
    sheet = FILES[VIEWER_CSS][1].read_text()
    fetched = re.findall(r"url\([\"']?([^\"')]{0,20})", sheet)
    assert fetched
    assert all(each.startswith("data:") for each in fetched)  # nothing comes from elsewhere
