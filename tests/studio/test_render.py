"""From the page's fields to files without a browser: the real handlers, worker and a tiny model."""

import asyncio
import html
import re
import shutil
import socket
import time
from dataclasses import fields, replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from stand_in import draw
from tiny import make_pipeline

from generation.errors import CancelledError
from generation.geo.layers import EmbeddedSource
from generation.geo.overpass import OverpassSource
from generation.geo.sources import FileSource
from generation.media.artifact import manifest_mistakes, read_artifact, read_spec, save_render
from generation.spec import RunSpec
from generation.studio import worker
from generation.studio.form import SHARED, Form
from generation.studio.pictures import data_uri, png_uri
from generation.studio.recall import find_layout, restore
from generation.studio.satellite_tab import SatelliteTab
from generation.studio.worker import Desk, Job, StreetJob

DATA = Path(__file__).parents[1] / "data"
SPEC = RunSpec(lat=45.98, lon=7.66, size=64, steps=30, seed=7)
STREETS = replace(SPEC, lat=47.002, lon=8.003, zoom=16)
"""Where the street map of the test data lies."""
SOMEONE = gr.Request(session_hash="someone")
PATIENCE_S = 60


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder for TERRASCAPE_HOME in which satellite-nano is an untrained, tiny pipeline."""
    folder = tmp_path_factory.mktemp("home")
    make_pipeline().save_pretrained(folder / "satellite-nano")
    return folder


@pytest.fixture(scope="module")
def page():
    """The tab of a page that nobody has opened."""

    async def build():  # in a loop that is closed again; without one, Gradio leaves three open
        with gr.Blocks(analytics_enabled=False) as page:
            tab = SatelliteTab(Desk(Path("unused")))
            tab.wire(page)
        return tab

    return asyncio.run(build())


@pytest.fixture
def tab(page, home, tmp_path, monkeypatch):
    """The tab over an empty folder; its watchers look often, for the model is fast."""
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(worker, "LOOK_S", 0.01)
    page.desk = Desk(tmp_path / "out")
    return page


def values(spec=SPEC, **changes):
    given = {name: getattr(spec, name) for name in SHARED} | {"seed": str(spec.seed)}
    given |= {"choice": spec.layout, "file": None, "drawing": None, "online": False}
    given |= {"heard": "none", "sound_file": None, "style_on": False, "habitat_on": False}
    given |= {"climate_on": False, **changes}
    return [given[field.name] for field in fields(Form)]


def run(tab, *given, keep=True):
    """Render, and give what the page was told: each change, merged changes, the error if any."""
    return gather(tab.render(SOMEONE, *given, keep))


def gather(events):
    told, merged = [], {}
    try:
        for changes in events:
            told.append(changes)
            merged |= changes
    except gr.Error as error:
        return told, merged, error
    return told, merged, None


def pictures(page):
    return re.findall(r'<img src="([^"]+)"', page)


def test_a_render_tells_its_steps_and_offers_what_it_shows(tab):
    ui, out = tab.ui, tab.desk.out
    told, page, error = run(tab, *values())
    assert error is None
    stages = [changes[ui.stage] for changes in told if ui.stage in changes]
    previews = {uri for each in stages for uri in pictures(each) if "image/jpeg" in uri}
    assert len(previews) >= 2
    assert any("Step 2" in each and 'aria-busy="true"' in each for each in stages)

    (manifest,) = out.glob("*.json")
    assert manifest_mistakes(manifest) == []
    assert read_spec(manifest) == SPEC
    png, layout = manifest.with_suffix(".png"), manifest.with_suffix(".layout.png")
    assert pictures(page[ui.stage]) == [data_uri(each.read_bytes()) for each in (png, layout)]
    assert "27 km across, 425 m a pixel" in page[ui.stage]
    assert manifest.stem in page[ui.history]
    assert page[ui.downloads]["visible"] is True
    offered = [Path(page[button]["value"]) for button in ui.files]
    assert offered == [png, manifest.with_suffix(".tif"), manifest]
    assert all(path.is_file() for path in offered)
    assert page[ui.render]["interactive"] is True
    assert page[ui.cancel]["interactive"] is False
    assert tab.desk.work == {}


def test_a_new_seed_is_drawn_and_shown_unless_it_is_kept(tab):
    _, page, error = run(tab, *values(replace(SPEC, steps=1)), keep=False)
    (manifest,) = tab.desk.out.glob("*.json")
    assert error is None
    assert page[tab.ui.seed] == str(read_spec(manifest).seed) != "7"


def test_a_render_that_is_cancelled_between_steps_leaves_nothing(tab):
    events = tab.render(SOMEONE, *values(replace(SPEC, steps=200)), True)
    for changes in events:
        if "Step " in changes.get(tab.ui.stage, ""):
            break
    job = tab.desk.work["someone", Job]
    tab.cancel(SOMEONE)
    _, page, error = gather(events)
    assert error is None  # a person's own stop is no error
    assert "Stopped. Nothing was saved." in page[tab.ui.stage]
    assert job.progress.step < 200
    assert page[tab.ui.render]["interactive"] is True
    assert not tab.desk.out.exists()
    assert not tab.desk.seat.locked()


def test_a_render_stops_when_its_page_is_closed(tab):
    events = tab.render(SOMEONE, *values(replace(SPEC, steps=200)), True)
    next(events)
    job = tab.desk.work["someone", Job]
    events.close()
    job.join(PATIENCE_S)
    assert isinstance(job.error, CancelledError)
    assert not tab.desk.out.exists()
    assert tab.desk.work == {}


def test_the_end_of_the_studio_waits_for_the_step_that_is_drawn(tab):
    events = tab.render(SOMEONE, *values(replace(SPEC, steps=200)), True)
    for changes in events:
        if "Step " in changes.get(tab.ui.stage, ""):
            break
    job = tab.desk.work["someone", Job]
    tab.desk.close()
    job.join(PATIENCE_S)
    assert isinstance(job.error, CancelledError)
    assert tab.desk.seat.locked()  # nothing else is begun
    assert not tab.desk.out.exists()
    events.close()


def test_a_second_visitor_waits_and_may_stop_waiting(tab):
    with tab.desk.seat:
        events = tab.render(SOMEONE, *values(), True)
        for changes in events:
            if "Waiting for another render" in changes[tab.ui.stage]:
                break
        tab.cancel(SOMEONE)
        _, page, error = gather(events)
    assert error is None
    assert "Stopped" in page[tab.ui.stage]


@pytest.mark.parametrize(("change", "message"), [
    ({"lat": 95.0}, "no such place: lat=95"),
    ({"seed": "seven"}, "seed='seven' is no whole number"),
    ({"choice": "draw"}, "nothing is drawn yet"),
])  # fmt: skip
def test_a_wrong_field_is_told_before_anything_runs(tab, change, message):
    told, _, error = run(tab, *values(**change))
    assert told == []
    assert message in html.unescape(error.message)
    assert not tab.desk.out.exists()


def test_a_failed_render_is_told_as_text_and_the_page_is_ready_again(tab):
    _, page, error = run(tab, *values(model="geosynth"))
    assert "no weights of geosynth" in html.unescape(error.message)
    assert "Not drawn: no weights of geosynth" in html.unescape(page[tab.ui.stage])
    assert page[tab.ui.render]["interactive"] is True
    assert not tab.desk.out.exists()


class Broken:
    def layout(self, window):
        return 1 / 0


def test_a_mistake_of_ours_is_told_without_its_inner_words(tab):
    tab.desk.map_server = Broken()
    _, page, error = gather(tab.fetch_streets(SOMEONE, *values(STREETS, online=True)))
    assert "a mistake of ours" in error.message
    assert "a mistake of ours" in page[tab.ui.layout]
    assert "division" not in error.message + page[tab.ui.layout]


# Streets from OpenStreetMap


@pytest.mark.parametrize(("spec", "change", "asks"), [
    (STREETS, {"online": True}, True),
    (STREETS, {}, False),
    (SPEC, {"online": True}, False),
    (STREETS, {"online": True, "choice": "none"}, False),
])  # fmt: skip
def test_the_map_server_is_asked_only_where_it_is_allowed_and_of_use(spec, change, asks):
    assert Form.of(tuple(values(spec, **change))).asks is asks


def test_streets_are_shown_before_the_render_once_they_are_fetched(tab):
    given = values(STREETS, online=True)
    tab.desk.map_server = FileSource(DATA / "tiny.osm")
    assert "Fetch streets" in html.unescape(tab.refresh(*given)[tab.ui.layout])
    told, page, error = gather(tab.fetch_streets(SOMEONE, *given))
    assert error is None
    assert any("Asking OpenStreetMap" in changes[tab.ui.layout] for changes in told[1:])
    streets = tab.desk.map_server.layout(STREETS.window())
    assert pictures(page[tab.ui.layout]) == [png_uri(streets.rgb())]
    assert tab.refresh(*given)[tab.ui.layout] == page[tab.ui.layout]


def test_too_far_away_for_streets_the_world_layers_stay_and_it_is_told(tab):
    given = values(online=True)
    page = tab.refresh(*given)
    assert "asked from zoom 13 on" in page[tab.ui.layout]
    assert page[tab.ui.fetch]["interactive"] is False
    with pytest.raises(gr.Error, match="asked from zoom 13 on"):
        next(tab.fetch_streets(SOMEONE, *given))


@pytest.fixture
def silent_server():
    """A port that takes connections and never says a word; it hangs up in the end."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/api"


def test_an_unreachable_map_server_is_told_within_its_bounds(tab, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    tab.desk.map_server = OverpassSource(tmp_path / "cache", endpoint, total_s=1.0)
    given = values(STREETS, online=True)
    began = time.monotonic()
    _, page, error = gather(tab.fetch_streets(SOMEONE, *given))
    assert time.monotonic() - began < PATIENCE_S
    for text in map(html.unescape, (error.message, page[tab.ui.layout])):
        assert "cannot be reached" in text
        assert "untick 'Allow OpenStreetMap'" in text
        assert "--online" not in text
    assert page[tab.ui.fetch]["interactive"] is True

    _, page, error = run(tab, *given)
    assert "cannot be reached" in error.message
    assert "Not drawn" in page[tab.ui.stage]
    assert not tab.desk.out.exists()


@pytest.mark.parametrize("kind", [StreetJob, Job])
def test_nobody_has_to_wait_for_a_silent_map_server(tab, tmp_path, silent_server, kind):
    tab.desk.map_server = OverpassSource(tmp_path / "cache", silent_server, total_s=20.0)
    given = values(STREETS, online=True)
    if kind is Job:
        events, stop, place = tab.render(SOMEONE, *given, True), tab.cancel, tab.ui.stage
    else:
        events, stop, place = tab.fetch_streets(SOMEONE, *given), tab.stop_fetch, tab.ui.layout
    for changes in events:
        if "Asking OpenStreetMap" in changes.get(place, ""):
            break
    assert not tab.desk.seat.locked()  # the others can render meanwhile
    stop(SOMEONE)
    began = time.monotonic()
    _, page, error = gather(events)
    assert error is None
    assert time.monotonic() - began < 10
    assert "Not to be had" not in page[place]
    assert not tab.desk.out.exists()


def test_an_opened_file_does_not_give_leave_to_use_the_network(tab):
    job = Job(SPEC, tab.desk, online=True)  # at this zoom the answer is the world layers
    job.run()
    assert job.error is None
    (manifest,) = tab.desk.out.glob("*.json")
    artifact = read_artifact(manifest)
    assert artifact.record["provenance"]["online"] is True
    back = restore(artifact, tab.desk.out)
    assert back.form.online is False
    assert (back.form.choice, Path(back.form.file)) == ("file", job.paths[2])
    job.paths[2].unlink()
    back = restore(artifact, tab.desk.out)
    assert (back.form.choice, back.form.online) == ("auto", False)
    assert "OpenStreetMap" in back.note
    assert find_layout(artifact, tab.desk.out) is None  # maps change: it is not drawn again


# Files of earlier renders


@pytest.fixture
def rendered(tab):
    """The files of one render: picture, GeoTIFF, layout, manifest."""
    job = Job(replace(SPEC, steps=1), tab.desk)
    job.run()
    assert job.error is None
    return job.paths


@pytest.mark.parametrize("index", [0, 1, 3])
@pytest.mark.parametrize("kept", [True, False])
def test_an_opened_file_shows_its_layout_beside_it(tab, rendered, tmp_path, index, kept):
    uploaded = tmp_path / f"a copy{rendered[index].suffix}"
    shutil.copy(rendered[index], uploaded)
    if not kept:
        rendered[2].unlink()  # it is drawn again from the world layers
    page = tab.open_file(str(uploaded))[tab.ui.stage]
    picture, layout = pictures(page)
    assert find_layout(read_artifact(uploaded), tab.desk.out).shape == (64, 64, 3)
    window = SPEC.window()
    np.testing.assert_array_equal(
        find_layout(read_artifact(uploaded), tab.desk.out), EmbeddedSource().layout(window).rgb()
    )
    assert picture != layout


def test_a_layout_that_cannot_be_had_as_it_was_is_not_made_up(tab, tmp_path):
    manifest = save_render(draw(SPEC), tmp_path / "elsewhere")[-1]  # its layout is no real one
    manifest.with_suffix(".layout.png").unlink()
    page = tab.open_file(str(manifest.with_suffix(".tif")))[tab.ui.stage]
    assert len(pictures(page)) == 1
    assert "Its layout is not here" in page
    none = save_render(draw(replace(SPEC, layout="none")), tmp_path / "elsewhere")[0]
    assert "Drawn without a layout" in tab.open_file(str(none))[tab.ui.stage]


def test_a_file_of_another_program_is_refused(tab, tmp_path):
    (tmp_path / "other.png").write_bytes((DATA / "tiny.osm").read_bytes())
    with pytest.raises(gr.Error, match="neither a PNG nor a TIFF nor a manifest"):
        tab.open_file(str(tmp_path / "other.png"))
    with pytest.raises(gr.Error, match="no file came"):
        tab.open_file(None)
