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
from panorama_fields import PLACE, form, row, write_ridge
from stand_in import draw
from tiny_panorama import make_home, write_panorama

from generation.media.artifact import manifest_mistakes, read_artifact, read_spec, save_render
from generation.registry import find
from generation.spec import RunSpec
from generation.studio import worker
from generation.studio.gate import FILES
from generation.studio.panorama_form import SATELLITE_CHOICES, PanoramaForm
from generation.studio.panorama_recall import files_of, restore
from generation.studio.panorama_stage import empty_stage, recent
from generation.studio.panorama_tab import PanoramaTab, choose_image
from generation.studio.panorama_viewer import VIEWER, VIEWER_CSS, VIEWER_JS
from generation.studio.panorama_views import (
    region_of,
    take_views,
)
from generation.studio.worker import Desk

SOMEONE = gr.Request(session_hash="someone")


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
    return write_ridge(tmp_path / "ridge.jpg")


def values(told):
    return [getattr(told, each.name) for each in fields(PanoramaForm)]


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


def test_a_panorama_is_drawn_step_by_step_and_offered(tab, placed):
    ui, out = tab.ui, tab.desk.out
    views, _ = take_views([str(placed)], [])
    told, page, error = draw_form(tab, form(given=views, choice="generated", steps=12))
    assert error is None
    stages = [changes[ui.stage] for changes in told if ui.stage in changes]
    previews = {uri for each in stages[:-1] for uri in re.findall(r'src="([^"]+)"', each)}
    assert len(previews) >= 2
    assert any('aria-busy="true"' in each for each in stages)
    numbers = [int(n) for each in stages for n in re.findall(r"Step (\d+) of 24", each)]
    assert numbers == sorted(numbers)
    first = [each for each in stages if "The satellite image comes first" in each]
    assert first
    assert all(int(re.search(r"Step (\d+)", each).group(1)) <= 12 for each in first)

    (manifest,) = out.glob("panorama_*.json")
    assert manifest_mistakes(manifest) == []
    shown, files = page[ui.stage], files_of(manifest)
    assert set(files) >= {".jpg", ".front.jpg", ".overlay.png", ".satellite.png", ".json"}
    assert shown.count("ts-badge") == 6  # the panorama, four crops, the drawn satellite image
    assert 'data-heading="90" data-top="45" data-bottom="-45"' in shown
    assert shown.count(find("panorama-nano").learnt) == 1
    assert find("panorama-nano").learnt in empty_stage()
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


def test_drawing_the_satellite_image_is_stopped_too(tab):
    events = tab.draw(SOMEONE, True, *values(form(steps=200, choice="generated")))
    page = {}
    for changes in events:
        page |= changes
        if "The satellite image comes first" in changes.get(tab.ui.stage, ""):
            tab.stop(SOMEONE)
    assert "Stopped. Nothing was saved." in page[tab.ui.stage]
    assert "Step" not in page[tab.ui.stage]
    assert not list(tab.desk.out.glob("panorama_*"))


def test_a_place_beyond_the_map_is_drawn_without_a_satellite_image(tab):
    assert "web mercator" in tab.refresh(*values(form(lat=88.0)))[1].replace(
        "web-mercator", "web mercator"
    )
    _, page, error = draw_form(tab, form(lat=88.0, choice="auto", steps=1))
    assert error is None
    assert "around latitude 88 the map of the world ends" in page[tab.ui.stage]


def test_words_are_asked_for_and_kept_only_where_they_are_read(tab, tmp_path):
    for choice, model, shown in (
        ("generated", "panorama-nano", True),
        ("none", "panorama-nano", False),
        ("none", "mixed-view", True),
        ("none", None, False),
    ):
        assert choose_image(choice, model)[2]["visible"] is shown
    told = {"prompt": "snow", "choice": "none"}
    assert form(**told).spec(tmp_path).prompt == ""
    assert form(**told, model="mixed-view").spec(tmp_path).prompt == "snow"


def test_a_scale_beyond_the_slider_is_brought_back(tab, saved):
    _, manifest = saved
    artifact = read_artifact(manifest)
    assert tab.ui.views_guidance.maximum == 3
    page = tab._restored(replace(artifact, spec=replace(artifact.spec, views_guidance=7.5)))
    assert page[tab.ui.views_guidance]["value"] == page[tab.ui.views_guidance]["maximum"] == 7.5
    assert page[tab.ui.satellite_guidance]["maximum"] == 3


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
    told = {value: choose_image(value, "panorama-nano") for _, value in SATELLITE_CHOICES}
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
