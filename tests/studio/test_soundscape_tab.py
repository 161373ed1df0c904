"""The soundscape tab without a browser: the real handlers, worker and tiny models."""

import asyncio
import html
import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import gradio as gr
import pytest
from soundscape_fields import form, make_home, row, write_hum
from stand_in import draw

from generation.media.artifact import manifest_mistakes, read_artifact, read_spec, save_render
from generation.registry import SIMULATED_NOTE, find
from generation.spec import RunSpec
from generation.studio import worker
from generation.studio.soundscape_controls import SoundscapeControls, why_absent
from generation.studio.soundscape_recall import files_of, restore
from generation.studio.soundscape_stage import empty_stage, recent
from generation.studio.soundscape_tab import SoundscapeTab, choose_ground
from generation.studio.worker import Desk, PostcardJob, SoundscapeJob, SuggestJob

SOMEONE = gr.Request(session_hash="someone")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def page(home):
    """The tab of a page that nobody has opened."""

    async def build():  # in a loop that is closed again; without one, Gradio leaves three open
        with gr.Blocks(analytics_enabled=False) as page, gr.Tabs():
            with gr.Tab("Soundscape") as tab:
                made = SoundscapeTab(Desk(Path("unused")))
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
def hum(tmp_path):
    return write_hum(tmp_path / "hum.wav")


def values(told):
    return [getattr(told, each.name) for each in fields(type(told))]


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


def make(tab, told):
    return gather(tab.make(SOMEONE, True, *values(told)))


def suggest(tab, told, earlier=()):
    return gather(tab.suggest(SOMEONE, list(earlier), *values(told)))


# What a place suggests


def test_a_place_suggests_sources_with_their_origin_and_score(tab):
    told, page, error = suggest(tab, form(month=6, hour="06:30", steps=12))
    assert error is None
    ui = tab.ui
    layers = page[ui.given]
    assert 1 <= len(layers) <= 3
    assert all(each.origin == "retrieved" and each.score is not None for each in layers)
    assert "retrieved, likeness to the place 0." in page[ui.list]
    assert any("of 12" in changes.get(ui.ground, "") for changes in told)
    shown = page[ui.ground]
    assert "synthetic image" in shown  # the satellite image was drawn
    assert "June, 06:30" in shown
    assert SIMULATED_NOTE[1:] in shown
    assert page[ui.suggest]["interactive"] is True
    assert page[ui.stop_suggest]["visible"] is False
    assert not tab.desk.out.exists()  # nothing is saved
    assert tab.desk.work == {}


def test_suggesting_is_stopped(tab):
    events = tab.suggest(SOMEONE, [], *values(form(steps=200)))
    page = {}
    for changes in events:
        page |= changes
        if "Step" in changes.get(tab.ui.ground, ""):
            tab.stop_suggest(SOMEONE)
    assert "Stopped." in page[tab.ui.ground]
    assert tab.ui.given not in page
    assert page[tab.ui.suggest]["value"] == "Suggest"


def test_what_was_typed_before_a_suggestion_can_be_brought_back(tab):
    ui = tab.ui
    first = tab.add([], *values(form(caption="surf and gulls")))[ui.given]
    rows = json.dumps([row(first[0], level_db="-6"), row(first[1], text="a bell")])
    told = form(given=first, rows=rows)
    _, page, _ = suggest(tab, told)
    assert page[ui.undo]["interactive"] is True
    suggested = page[ui.given]
    back = tab.undo(page[ui.earlier], *values(form(given=suggested)))
    assert [(each.text, each.level_db) for each in back[ui.given]] == [
        ("surf", "-6"),
        ("a bell", "0"),
    ]
    again = tab.undo(back[ui.earlier], *values(form(given=back[ui.given])))
    assert again[ui.given] == suggested  # nothing is lost either way
    assert {each.key for each in suggested}.isdisjoint(each.key for each in first)
    with pytest.raises(gr.Error, match="no list of before"):
        tab.undo([], *values(form()))


def test_a_mistake_is_told_beside_the_button_and_as_a_message(tab):
    _, page, error = suggest(tab, form(lat=95))
    assert "no such place: lat=95" in error.message
    assert "no such place: lat=95" in page[tab.ui.ground]
    _, page, error = suggest(tab, form(choice="none"))
    assert "nothing says what is heard" in error.message
    assert "nothing says what is heard" in page[tab.ui.ground]


# The list of sources


def test_a_sentence_is_split_into_sources_and_placed(tab):
    ui = tab.ui
    page = tab.add([], *values(form(caption="surf on a beach, gulls and a dog")))
    layers = page[ui.given]
    assert [each.text for each in layers] == ["surf on a beach", "gulls", "a dog"]
    assert [each.pan for each in layers] == ["0", "-0.4", "0.4"]
    assert page[ui.caption] == ""
    more = tab.add([], *values(form(caption="a bell", given=layers)))[ui.given]
    assert more[:3] == layers
    assert more[3].pan == "-0.6"
    with pytest.raises(gr.Error, match="nothing is written"):
        tab.add([], *values(form(caption="  ")))
    with pytest.raises(gr.Error, match="9 sources would be given, 8 are allowed"):
        tab.add([], *values(form(caption="a, b, c, d, e", given=more)))


def test_changed_words_are_the_persons_own(tab):
    _, page, _ = suggest(tab, form())
    first = page[tab.ui.given][0]
    changed = form(given=[first], rows=json.dumps([row(first, text="a river")])).layers[0]
    assert (changed.text, changed.origin, changed.score) == ("a river", "given", None)
    kept = form(given=[first], rows=json.dumps([row(first, pan="0.5")])).layers[0]
    assert (kept.origin, kept.score, kept.pan) == ("retrieved", first.score, "0.5")


def test_a_recording_is_dropped_and_a_row_removed(tab, hum, tmp_path):
    ui = tab.ui
    one = tab.add([], *values(form(caption="surf")))[ui.given]
    two = tab.take(str(hum), [], *values(form(given=one)))
    assert two[ui.drop] is None
    assert "Sounds like hum.wav" in two[ui.list]
    assert "a recording of 0.5 s" in two[ui.list]
    layers = two[ui.given]
    page = tab.remove(
        event(rows=json.dumps([row(each) for each in layers]), remove=layers[0].key),
        [],
        *values(form(given=layers)),
    )
    assert [each.name for each in page[ui.given]] == ["hum.wav"]
    assert page[ui.undo]["interactive"] is True
    (tmp_path / "no.wav").write_bytes(b"no sound")
    with pytest.raises(gr.Error, match="is no readable sound"):
        tab.take(str(tmp_path / "no.wav"), [], *values(form()))


@pytest.mark.parametrize(("change", "message"), [
    ({"text": "  "}, "source 1 says nothing"),
    ({"level_db": ""}, "source 1: level='' is no number"),
    ({"pan": "2"}, "pan=2.0 is not allowed (give -1 to 1)"),
])  # fmt: skip
def test_a_wrong_row_is_told_by_its_number(tab, change, message):
    given = tab.add([], *values(form(caption="surf")))[tab.ui.given]
    told, _, error = make(tab, form(given=given, rows=json.dumps([row(given[0], **change)])))
    assert told == []
    assert message in html.unescape(error.message)
    assert not tab.desk.out.exists()


def test_what_a_person_wrote_is_shown_as_text(tab):
    hostile = '"><script>alert(1)</script>'
    page = tab.add([], *values(form(caption=hostile)))
    assert "<script>" not in page[tab.ui.list]


# Making


def test_a_sound_is_made_step_by_step_and_offered(tab, hum):
    ui, out = tab.ui, tab.desk.out
    given = tab.add([], *values(form(caption="surf and gulls")))[ui.given]
    given = tab.take(str(hum), [], *values(form(given=given)))[ui.given]
    spoken = form(given=given, candidates=2, loop=True, month=1, hour="23:45", steps=12)
    told, page, error = make(tab, spoken)
    assert error is None
    stages = [changes[ui.stage] for changes in told if ui.stage in changes]
    numbers = [int(n) for each in stages for n in re.findall(r"Step (\d+) of 24", each)]
    assert numbers
    assert numbers == sorted(numbers)

    (manifest,) = [path for path in out.glob("soundscape_*.json") if ".layers" not in path.name]
    assert manifest_mistakes(manifest) == []
    spec, shown = read_spec(manifest), page[ui.stage]
    assert (spec.month, spec.hour, spec.loop, spec.candidates) == (1, 23.75, True, 2)
    assert Path(spec.layers[2].file).parent == out / "sounds"
    assert re.search(r'<audio [^>]* loop src="gradio_api/file=[^"]+\.flac"', shown)
    assert shown.count("ts-badge") == 2  # the sound and the satellite image
    assert "synthetic sound" in shown
    assert SIMULATED_NOTE in shown
    assert find("soundscape-nano").learnt in shown
    assert "January, 23:45" in shown
    assert "given, likeness to the place" in shown
    assert "sounds like" in shown
    assert shown.count("(kept)") == 3
    assert shown.count("; the best of 2") == 3
    assert shown.count("Likeness to what was asked for 0.") + shown.count("asked for -0.") == 3
    offered = [page[button]["value"] for button in ui.files]
    assert offered == [str(files_of(manifest)[each]) for each in (".flac", ".wav", ".json")]
    assert manifest.stem in page[ui.history]
    assert page[ui.make]["interactive"] is True
    assert tab.desk.work == {}


def test_without_sources_the_place_decides_and_words_alone_are_the_caption(tab):
    _, page, error = make(tab, form())
    assert error is None
    assert "retrieved, likeness to the place" in page[tab.ui.stage]
    assert " loop" not in page[tab.ui.stage].split("<audio")[1].split(">")[0]
    spec = form(caption="surf and gulls").spec(tab.desk.out)
    assert (spec.sound_text, spec.layers) == ("surf and gulls", ())
    given = tab.add([], *values(form(caption="surf")))[tab.ui.given]
    both = form(caption="gulls", given=given).spec(tab.desk.out)
    assert [layer.text for layer in both.layers] == ["surf", "gulls"]


def test_a_sound_is_stopped_and_nothing_is_saved(tab):
    page = {}
    for changes in tab.make(SOMEONE, True, *values(form(steps=200, caption="surf"))):
        page |= changes
        if "Step" in changes.get(tab.ui.stage, ""):
            tab.stop(SOMEONE)
    assert "Stopped. Nothing was saved." in page[tab.ui.stage]
    assert not list(tab.desk.out.glob("soundscape_*"))


@pytest.mark.parametrize(("change", "message"), [
    ({"hour": "24:30"}, "hour='24:30' is no hour of the day"),
    ({"hour": "noon"}, "hour='noon' is no hour of the day"),
    ({"seconds": None}, "seconds=None is not allowed"),
    ({"seconds": 0.123, "loop": True}, "multiple of 0.01"),
    ({"seed": "seven"}, "seed='seven' is no whole number"),
    ({"choice": "file"}, "no satellite image is chosen"),
])  # fmt: skip
def test_a_wrong_field_is_told_before_anything_runs(tab, change, message):
    told, _, error = make(tab, form(**change))
    assert told == []
    assert message in html.unescape(error.message)
    assert not tab.desk.out.exists()


def test_a_silent_recording_is_told_in_the_results_place(tab, tmp_path):
    silent = write_hum(tmp_path / "silent.wav", loudness=0.0)
    given = tab.take(str(silent), [], *values(form()))[tab.ui.given]
    _, page, error = make(tab, form(given=given))
    assert "silent.wav is silent" in error.message
    assert "Not made:" in page[tab.ui.stage]
    assert page[tab.ui.make]["interactive"] is True


def test_a_model_that_is_not_here_is_told_in_a_sentence(tab, tmp_path, monkeypatch):
    _, page, error = make(tab, form(model="audioldm"))
    assert "no weights of audioldm" in error.message
    assert "no weights of audioldm" in page[tab.ui.stage]
    assert why_absent() == ""
    assert find("soundscape-nano").learnt in empty_stage()
    monkeypatch.setattr("generation.registry.ASSETS", tmp_path)
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    assert why_absent().startswith("no weights of soundscape-nano in")
    assert "no weights of soundscape-nano" in empty_stage(why_absent())


# Results


@pytest.fixture
def saved(tab, hum):
    """A sound of words and a recording, its spec and its manifest."""
    given = tab.add([], *values(form(caption="surf")))[tab.ui.given]
    given = tab.take(str(hum), [], *values(form(given=given)))[tab.ui.given]
    _, _, error = make(tab, form(given=given, hour="06:30", month=3, candidates=1))
    assert error is None
    (artifact,) = recent(tab.desk.out)
    return artifact.spec, artifact.path


def test_a_saved_sound_fills_the_tab_again(tab, saved):
    spec, manifest = saved
    back = restore(read_artifact(manifest), tab.desk.out)
    assert back.note == ""
    assert back.form.spec(tab.desk.out) == spec
    before = tab.add([], *values(form(caption="a bell")))[tab.ui.given]
    page = tab.bring_result(event(pick=manifest.stem), [], *values(form(given=before)))
    assert page[tab.ui.hour] == "06:30"
    assert page[tab.ui.earlier] == [before]  # what was in the list can be brought back
    assert "<audio" in page[tab.ui.stage]
    assert page[tab.ui.downloads]["visible"] is True


@pytest.mark.parametrize("changes", [
    {"caption": "surf and gulls"}, {"hour": "6.123"}, {"seed": str(2**63 - 1)},
    {"use_location": False, "prompt": "snow"}, {"choice": "none", "caption": "surf"},
])  # fmt: skip
def test_every_field_comes_back(tab, changes):
    spec = form(**changes).spec(tab.desk.out)
    _, _, error = make(tab, form(**changes))
    assert error is None
    (artifact,) = recent(tab.desk.out)
    back = restore(artifact, tab.desk.out)
    assert back.form.spec(tab.desk.out) == spec == artifact.spec


@pytest.mark.parametrize("ending", [".flac", ".wav", ".json"])
def test_a_file_from_elsewhere_finds_the_rest_among_the_results(tab, saved, tmp_path, ending):
    _, manifest = saved
    shutil.copy(manifest.with_suffix(ending), tmp_path / f"sound{ending}")
    page = tab.open_file(str(tmp_path / f"sound{ending}"), [], *values(form()))
    assert "Spectrogram of 1 s" in page[tab.ui.stage]
    assert page[tab.ui.downloads]["visible"] is True


def test_a_sound_whose_results_are_gone_is_heard_alone_and_says_what_is_missing(
    tab, saved, tmp_path
):
    _, manifest = saved
    alone = shutil.copy(manifest.with_suffix(".wav"), tmp_path / "alone.wav")
    tab.desk = Desk(tmp_path / "other")
    page = tab.open_file(str(alone), [], *values(form()))
    assert "alone.wav" in page[tab.ui.stage]
    assert "synthetic sound" in page[tab.ui.stage]
    assert "Its spectrogram is not here" in page[tab.ui.stage]
    assert page[tab.ui.downloads]["visible"] is False
    assert [each.text for each in page[tab.ui.given]] == ["surf"]
    note = restore(read_artifact(Path(alone)), tab.desk.out).note
    assert re.fullmatch(
        r"its recording '\w+_hum.wav' is not among the results: drop it again", note
    )


def test_a_recording_outside_of_the_results_is_not_opened(tab, saved, hum):
    spec, manifest = saved
    artifact = read_artifact(manifest)
    layers = (spec.layers[0], replace(spec.layers[1], file=str(hum)))
    outside = replace(artifact, spec=replace(spec, layers=layers))
    assert len(restore(outside, tab.desk.out).form.given) == 1


def test_a_file_of_another_kind_is_refused_in_a_sentence(tab, tmp_path):
    manifest = save_render(draw(RunSpec(lat=1.0, lon=2.0, size=64)), tmp_path / "sat")[-1]
    with pytest.raises(gr.Error, match="this is a satellite image"):
        tab.open_file(str(manifest), [], *values(form()))
    with pytest.raises(gr.Error, match="no file came"):
        tab.open_file(None, [], *values(form()))
    with pytest.raises(gr.Error, match="not in the folder any more"):
        tab.bring_result(event(pick="../out"), [], *values(form()))
    assert recent(manifest.parent) == []


# Postcards, and the page


def test_a_postcard_is_made_and_offered(tab):
    ui = tab.ui
    told, page, error = gather(
        tab.make_postcard(SOMEONE, True, *values(form(caption="surf", steps=1)))
    )
    assert error is None
    offered = page[ui.get_postcard]
    assert offered["visible"] is True
    assert Path(offered["value"]).suffix == ".html"
    assert Path(offered["value"]).is_file()
    assert any('role="progressbar"' in changes.get(ui.carded, "") for changes in told)
    assert page[ui.postcard]["interactive"] is True
    assert [each.spec.kind for each in recent(tab.desk.out)] == ["soundscape"]


def test_a_postcard_is_stopped(tab):
    page = {}
    for changes in tab.make_postcard(SOMEONE, True, *values(form(steps=200, caption="surf"))):
        page |= changes
        if "Step" in changes.get(tab.ui.carded, ""):
            tab.stop_postcard(SOMEONE)
    assert "Stopped." in page[tab.ui.carded]
    assert tab.ui.get_postcard not in page or page[tab.ui.get_postcard]["visible"] is False


def test_stopping_one_thing_leaves_the_others_alone(tab):
    spec = form(caption="surf").spec(tab.desk.out)
    jobs = [kind(spec, tab.desk) for kind in (SoundscapeJob, SuggestJob, PostcardJob)]
    tab.desk.work |= {("someone", type(job)): job for job in jobs}
    tab.stop(SOMEONE)
    assert [job.stopped.is_set() for job in jobs] == [True, False, False]


def test_each_choice_of_satellite_image_says_what_it_means():
    told = {value: choose_ground(value) for value in ("auto", "none", "generated", "file")}
    assert len({text for text, *_ in told.values()}) == 4
    assert told["file"][1]["visible"] is True
    assert told["none"][2]["visible"] is False


def test_every_control_that_is_typed_into_has_a_name(tab):
    typed = (gr.Textbox, gr.Number, gr.Dropdown, gr.Slider, gr.Checkbox, gr.File, gr.Radio)
    controls = [each for each in vars(tab.ui).values() if isinstance(each, typed)]
    assert isinstance(tab.ui, SoundscapeControls)
    assert all(each.label for each in controls if each is not tab.ui.rows)
