"""Sound in the studio without a browser: the search, its map, and a sound that steers a picture."""

import asyncio
import html
import re
import shutil
import time
from dataclasses import fields, replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from stand_in import draw
from tiny import make_pipeline

from generation.checkpoint import model_sha256, save_part
from generation.conditioning import SoundConditioner
from generation.encoders.gallery import Gallery
from generation.encoders.gallery_rows import Entry, Hit, Maker
from generation.encoders.heads import Embedding
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_space import SoundSpace
from generation.errors import InvalidSpecError, TerrascapeError
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.media.artifact import read_artifact, read_spec, save_satellite
from generation.media.geotiff import geotiff_bytes
from generation.spec import RunSpec
from generation.studio.form import SHARED, Form
from generation.studio.recall import restore
from generation.studio.satellite_tab import SatelliteTab, choose_sound, take_sound
from generation.studio.score_map import CELL_DEG, cells_of_scores, score_map
from generation.studio.sound_hits import QUERIES, hits_html, web_link
from generation.studio.sound_search import Answer, Question, around
from generation.studio.sound_tab import SoundTab, why_unanswered
from generation.studio.sounds import why_silent
from generation.studio.worker import Desk

SPEC = RunSpec(lat=45.98, lon=7.66, size=64, steps=1, seed=7, layout="none")
SOMEONE = gr.Request(session_hash="someone")
PLACES = [(45.5, 8.0), (-17.0, 179.9), (64.0, -19.0)]
HOSTILE = '<script>alert("1")</script>'
ASKED = (["tile"], 10, False, 45.98, 7.66)
"""Kinds, results, whether near the place, and the place."""


def make_space():
    torch.manual_seed(3)
    towers = {
        "image": {"image_px": 16, "patch": 8, "dim": 8, "depth": 1, "heads": 2},
        "audio": {"dim": 8, "depth": 1, "heads": 2, "frames": 48},
    }
    metadata = {"layers": 1, "heads": 2}
    return SoundSpace(
        "codebook", "early", 12, 16, towers=towers, metadata=metadata, codebook={"codes": 10}
    )


def entries():
    about = {"licence": "CC0", "author": "NASA", "gsd_m": 600.0, "location_source": "real"}
    tiles = [Entry(kind="tile", title="t", lat=lat, lon=lon, **about) for lat, lon in PLACES]
    web = {"licence": "CC-BY", "author": HOSTILE, "url": "https://example.org/a?b=1&c=2"}
    return [
        *tiles,
        Entry(kind="clip", title=HOSTILE, **web),
        Entry(kind="caption", title="a bell", licence="CC0", author="us"),
    ]


@pytest.fixture(scope="module")
def sound_home(tmp_path_factory):
    """Untrained, tiny models by their names, and in ``gallery`` what can be searched."""
    home = tmp_path_factory.mktemp("home")
    make_pipeline().save_pretrained(home / "satellite-nano")
    save_part(make_space(), home / "sat2sound-nano")
    made_for = {n: model_sha256(home / n) for n in ("satellite-nano", "sat2sound-nano")}
    steering = SoundConditioner({"sat2sound-nano": 12}, 16, 16, made_for=made_for)
    torch.nn.init.normal_(steering.to_vector[1].weight)  # as if it had learnt
    save_part(steering, home / "satellite-nano-sound")
    encoder = SoundEncoder.from_pretrained(home / "sat2sound-nano")
    given = entries()
    rows = torch.randn(len(given), 12, generator=torch.Generator().manual_seed(0))
    Gallery.create(str(home / "gallery"), Maker.of(encoder), given, Embedding(rows))
    return home


@pytest.fixture(scope="module")
def page(sound_home):
    """Both tabs of a page that nobody has opened."""

    async def build():  # in a loop that is closed again
        desk = Desk(Path("unused"), gallery=str(sound_home / "gallery"))
        with gr.Blocks(analytics_enabled=False) as page, gr.Tabs() as tabs:
            with gr.Tab("Satellite", id="satellite"):
                satellite = SatelliteTab(desk)
            with gr.Tab("Sound", id="sound") as tab:
                sound = SoundTab(desk, satellite, tabs, tab)
            satellite.wire(page)
            sound.wire()
        return satellite, sound

    return asyncio.run(build())


@pytest.fixture
def tabs(page, sound_home, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(sound_home))
    satellite, sound = page
    satellite.desk = sound.desk = Desk(tmp_path / "out", gallery=str(sound_home / "gallery"))
    return satellite, sound


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "surf.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(path, noise.astype(np.float32), 16_000)
    return path


def gather(events):
    """Give what the page was told first, and all of it."""
    first, *others = list(events)
    merged = dict(first)
    for changes in others:
        merged |= changes
    return first, merged


def event(data):
    return gr.EventData(None, data)


# The search


def test_a_sentence_finds_places_and_colours_the_map(tabs):
    _, sound = tabs
    first, page = gather(sound.search(" waves on a beach ", None, *ASKED))
    assert 'aria-busy="true"' in first[sound.hits]
    assert page[sound.hits].count('<li class="ts-hit">') == len(PLACES)
    assert page[sound.text] == "waves on a beach"
    assert page[sound.clip] is None
    assert "Places of sounds are simulated" in page[sound.hits]
    overlay = page[sound.overlay]
    assert overlay.startswith("data:image/png;base64,")
    assert f'src="{overlay}"' in page[sound.world]
    assert "ts-pin" in page[sound.world]
    assert "3 tiles" in page[sound.scale]
    scores = [float(s) for s in re.findall(r'alike">([-.\d]+)</span>', page[sound.hits])]
    assert scores == sorted(scores, reverse=True)


def test_a_clip_and_an_example_ask_too(tabs, clip):
    _, sound = tabs
    _, page = gather(sound.search_clip(str(clip), ["clip", "caption"], *ASKED[1:]))
    assert page[sound.text] == ""
    assert "most alike surf.wav" in page[sound.hits]
    assert sound.clip not in page  # it stays in sight
    chip = event({"pick": QUERIES[1]})
    _, page = gather(sound.search_example(chip, str(clip), *ASKED))
    assert page[sound.text] == QUERIES[1]
    assert page[sound.clip] is None
    with pytest.raises(gr.Error, match="is no example question"):
        next(sound.search_example(event({"pick": "<b>"}), None, *ASKED))


def test_a_search_near_the_place_gives_what_lies_there(tabs):
    _, sound = tabs
    _, page = gather(sound.search("wind", None, ["tile"], 10, True, 45.98, 7.66))
    assert page[sound.hits].count('<li class="ts-hit">') == 1
    _, page = gather(sound.search("wind", None, ["clip"], 10, True, 45.98, 7.66))
    assert "has no clip within 1,000 km of the place" in page[sound.hits]


@pytest.mark.parametrize(("given", "told"), [
    (("", None, *ASKED), "nothing to search by"),
    (("   ", None, *ASKED), "nothing to search by"),
    (("x" * 2001, None, *ASKED), "has 2001 characters"),
    (("wind", None, [], 10, False, 0, 0), "no kind of result is chosen"),
    (("wind", None, ["whale"], 10, False, 0, 0), "kind='whale' is none of them"),
    (("wind", None, ["tile"], 0, False, 0, 0), "0 results cannot be shown"),
    (("wind", None, ["tile"], None, False, 0, 0), "None results cannot be shown"),
    (("wind", None, ["tile"], 10, True, 95, 0), "lat=95, lon=0 is no place"),
])  # fmt: skip
def test_a_question_that_cannot_be_asked_is_told_in_the_results(tabs, given, told):
    _, sound = tabs
    _, page = gather(sound.search(*given))
    assert told in html.unescape(page[sound.hits])
    assert 'role="alert"' in page[sound.hits]
    assert sound.world not in page  # the map of before stays


def test_what_is_no_clip_is_told_by_its_name_alone(tabs, tmp_path):
    _, sound = tabs
    wrong = tmp_path / "<b>.wav"
    wrong.write_text("no sound")
    _, page = gather(sound.search_clip(str(wrong), *ASKED))
    assert "&lt;b&gt;.wav is no readable sound" in page[sound.hits]
    assert str(tmp_path) not in page[sound.hits]


def test_a_gallery_that_is_absent_or_of_another_model_is_told(tabs, sound_home, tmp_path):
    _, sound = tabs
    sound.desk = Desk(tmp_path, gallery=str(tmp_path / "none"))
    _, page = gather(sound.search("wind", None, *ASKED))
    assert "no gallery in" in page[sound.hits]
    other = Maker("sat2sound-nano", "b" * 64, "codebook", 12)
    rows = Embedding(torch.ones(1, 12))
    Gallery.create(str(tmp_path / "other"), other, entries()[:1], rows)
    sound.desk = Desk(tmp_path, gallery=str(tmp_path / "other"))
    _, page = gather(sound.search("wind", None, *ASKED))
    assert "embeddings of two models cannot be compared" in page[sound.hits]

    assert why_unanswered(str(sound_home / "gallery")) == ""
    (tmp_path / "card only").mkdir()
    assert "There is no gallery in" in why_unanswered(str(tmp_path / "card only"))


def test_a_mistake_of_ours_is_told_without_its_inner_words(tabs):
    _, sound = tabs
    sound.desk.gallery = None  # nothing that can be opened
    events = sound.search("wind", None, *ASKED)
    next(events)
    assert "a mistake of ours" in next(events)[sound.hits]
    with pytest.raises(gr.Error, match="a mistake of ours"):
        next(events)


def test_the_place_of_a_result_is_taken_and_shown(tabs):
    _, sound = tabs
    lat, lon, world, words = sound.pick_hit(event({"pick": "-17.0004,179.9000"}), "data:,x")
    assert (lat, lon) == (-17.0, 179.9)
    assert 'src="data:,x"' in world
    assert "17° S, 179.9° E" in words
    lat, lon, words = sound.pick_world(event({"u": 0.75, "v": 0.25}))
    assert (lat, lon) == (45.0, 90.0)
    assert "45° N, 90° E" in words
    world, words = sound.show_place(None, 3, "")
    assert "ts-pin" not in world
    assert "none is chosen" in words


@pytest.mark.parametrize("pick", ["", "here", "1,2,3", "95,0", "nan,0", "0,inf"])
def test_a_place_that_no_result_has_is_refused(tabs, pick):
    with pytest.raises(gr.Error):
        tabs[1].pick_hit(event({"pick": pick}), "")


def test_what_others_wrote_is_text_and_only_web_pages_are_links(tabs):
    _, sound = tabs
    _, page = gather(sound.search("wind", None, ["clip"], 10, False, 0, 0))
    assert "<script" not in page[sound.hits]
    assert page[sound.hits].count("&lt;script&gt;") == 3  # title, author and the link's name
    assert 'href="https://example.org/a?b=1&amp;c=2"' in page[sound.hits]
    assert 'rel="noopener noreferrer"' in page[sound.hits]


@pytest.mark.parametrize(("url", "linked"), [
    ("http://example.org/x", True), ("https://example.org", True), ("javascript:alert(1)", False),
    ("data:text/html,x", False), ("//example.org", False), ("https:", False), ("", False),
    ("http://[", False), ("file:///etc/passwd", False),
])  # fmt: skip
def test_only_addresses_of_web_pages_are_links(url, linked):
    assert web_link(url) == (url if linked else "")


def test_a_simulated_place_is_told_to_be_one():
    hit = Hit(
        **{"kind": "clip", "title": "t", "licence": "CC0", "author": "a", "lat": 1.0, "lon": 2.0},
        location_source="simulated", row=0, score=0.5,
    )  # fmt: skip
    question = Question.of("wind", None, ["clip"], 1, None)
    assert "1° N, 2° E (simulated)" in hits_html(Answer(question, [hit], None, "m"))


@pytest.mark.parametrize(("place", "west", "east"), [
    ((0.0, 0.0), -8.99, 8.99), ((0.0, 179.0), 170.01, -172.01), ((-85.0, 20.0), -180.0, 180.0),
])  # fmt: skip
def test_around_a_place_lies_a_box_that_reaches_so_far(place, west, east):
    box = around(Location(*place), 1000.0)
    assert (box.west, box.east) == pytest.approx((west, east), abs=0.2)
    assert box.north - box.south == pytest.approx(17.99 if place[0] > -80 else 13.99, abs=0.01)


# The map of scores


@pytest.mark.parametrize("kind", ["pooled", "gaussian", "codebook"])
def test_every_tile_has_the_score_that_a_search_gives_it(kind, tmp_path):
    draw = torch.Generator().manual_seed(1)
    rows, query = (torch.randn(n, 6, generator=draw) for n in (len(entries()), 1))
    wide = [torch.randn(len(x), 6, generator=draw) if kind == "gaussian" else None
            for x in (rows, query)]  # fmt: skip
    maker = Maker("psm-nano", "a" * 64, kind, 6)
    gallery = Gallery.create(str(tmp_path / "g"), maker, entries(), Embedding(rows, wide[0]))
    latlon, scores = gallery.tile_scores(Embedding(query, wide[1]))
    found = dict(zip(map(tuple, latlon.tolist()), scores.tolist(), strict=True))
    hits = gallery.search(Embedding(query, wide[1]), 10, kinds=["tile"])
    assert {(hit.lat, hit.lon): hit.score for hit in hits} == found
    with pytest.raises(InvalidSpecError, match="2 queries at once"):
        gallery.tile_scores(Embedding(rows[:2], None if wide[0] is None else wide[0][:2]))
    with pytest.raises(InvalidSpecError, match="are not of psm-nano"):
        gallery.tile_scores(Embedding(torch.ones(1, 5)))


def test_a_cell_has_the_best_score_of_the_tiles_in_it():
    latlon = np.array([[89.9, -179.9], [0.1, 180.0], [0.2, -179.9], [-89.9, 179.9]])
    cells = cells_of_scores(latlon, np.array([1.0, 2.0, 3.0, 4.0]))
    assert cells.shape == (128, 256)
    assert np.argwhere(~np.isnan(cells)).tolist() == [[0, 0], [63, 0], [127, 255]]
    assert [cells[0, 0], cells[63, 0], cells[127, 255]] == [1, 3, 4]


def test_the_map_of_a_whole_gallery_is_quick_and_small():
    rng = np.random.default_rng(0)
    latlon = np.stack([rng.uniform(-70, 75, 11_000), rng.uniform(-180, 180, 11_000)], 1)
    score_map(latlon[:5], np.arange(5.0))  # what is imported for it counts not
    began = time.process_time()
    found = score_map(latlon, rng.normal(size=11_000))
    assert time.process_time() - began < 1
    assert len(found.overlay) < 200_000
    assert found.tiles == 11_000
    assert found.low < found.high


def test_colours_lie_where_the_tiles_lie_and_nowhere_else(tmp_path):
    import base64

    latlon = np.array([[45.0, 90.0], [-30.0, -60.0]])
    found = score_map(latlon, np.array([0.0, 1.0]))
    (tmp_path / "map.png").write_bytes(base64.b64decode(found.overlay.partition(",")[2]))
    with Image.open(tmp_path / "map.png") as image:
        rgba = np.asarray(image)
    assert (rgba[..., 3] > 0).sum() == 2
    dull, bright = (
        rgba[int((90 - lat) / CELL_DEG), int((lon + 180) / CELL_DEG)] for lat, lon in latlon
    )
    assert dull[3] == bright[3] > 0
    assert dull[:3].sum() < bright[:3].sum()


# A sound that steers a picture


def form(**changes):
    values = {name: getattr(SPEC, name) for name in SHARED} | {"seed": str(SPEC.seed)}
    given = {"choice": "none", "file": None, "drawing": None, "online": False}
    return Form(**{**values, **given, "heard": "none", "sound_file": None, **changes})


def test_without_a_sound_a_spec_is_as_of_old(tmp_path):
    said = form(sound_text="surf", sound_guidance=9, sound_model="psm-nano")
    assert said.spec(tmp_path).sha256() == SPEC.sha256()


def test_words_and_files_reach_the_spec(tmp_path, clip):
    spec = form(heard="words", sound_text="surf", sound_guidance=3).spec(tmp_path)
    assert (spec.sound, spec.sound_text, spec.sound_guidance) == ("none", "surf", 3)
    spec = form(heard="file", sound_text="surf", sound_file=str(clip)).spec(tmp_path)
    assert spec.sound_text == ""
    assert spec.sound_path.parent == tmp_path / "sounds"
    assert spec.sound_path.read_bytes() == clip.read_bytes()
    assert spec.sound_sha256
    again = form(heard="file", sound_file=spec.sound).spec(tmp_path)
    assert again == spec
    assert len(list((tmp_path / "sounds").iterdir())) == 1


@pytest.mark.parametrize(("change", "told"), [
    ({"heard": "words", "sound_text": " "}, "nothing is said of what is heard there"),
    ({"heard": "words", "sound_text": "x" * 2001}, "sound_text has 2001 characters"),
    ({"heard": "file"}, "no sound is chosen"),
    ({"heard": "file", "sound_file": "nowhere.wav"}, "nowhere.wav is no file"),
    ({"heard": "file", "sound_file": __file__}, "is no readable sound"),
    ({"heard": "words", "sound_text": "surf", "sound_guidance": 21}, "sound_guidance=21"),
    ({"heard": "words", "sound_text": "surf", "sound_model": None}, "sound_model=''"),
])  # fmt: skip
def test_a_wrong_sound_is_told_and_nothing_is_written(change, told, tmp_path):
    with pytest.raises(TerrascapeError, match=told):
        form(**change).spec(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dropped_file_is_taken_only_if_it_can_be_read(clip, tmp_path):
    assert take_sound(str(clip)) == (
        str(clip),
        '<p class="ts-caption" role="status">Taken: a recording of 1.0 s.</p>',
    )
    tile = tmp_path / "tile.tif"
    pixels = np.zeros((64, 64, 3), np.uint8)
    tile.write_bytes(geotiff_bytes(pixels, Window.around(Location(45.98, 7.66), 8, 64), {}))
    path, told = take_sound(str(tile))
    assert path == str(tile)
    assert "the image of a place, 45.98, 7.6" in told
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(301 * 4000, np.float32), 4000)
    path, told = take_sound(str(long))
    assert path is None
    assert "long.wav lasts 301 s, 300 s are allowed" in told


def test_only_what_the_chosen_sound_needs_is_shown():
    seen = {heard: [each["visible"] for each in choose_sound(heard)]
            for heard in ("none", "words", "file")}  # fmt: skip
    assert seen == {
        "none": [False, False, False],
        "words": [True, False, True],
        "file": [False, True, True],
    }


def test_a_steered_render_is_told_of_and_brought_back(tabs, clip):
    satellite, _ = tabs
    ui, out = satellite.ui, satellite.desk.out
    steered = form(heard="file", sound_file=str(clip), sound_guidance=3.5)
    values = [getattr(steered, field.name) for field in fields(Form)]
    page = {}
    for changes in satellite.render(SOMEONE, *values, True):
        page |= changes
    (manifest,) = out.glob("*.json")
    spec = read_spec(manifest)
    assert "location_source=simulated" in page[ui.stage]
    assert "surf.wav (guidance 3.5, understood by sat2sound-nano)" in page[ui.stage]
    back = satellite.bring_back(event({"pick": manifest.stem}))
    assert back[ui.heard] == "file"
    assert back[ui.sound_file] == back[ui.sound_upload] == spec.sound
    assert back[ui.sound_guidance] == 3.5
    assert restore(read_artifact(manifest), out).form.spec(out) == spec


def saved(spec, out):
    return read_artifact(save_satellite(draw(spec), out)[-1])


def test_words_come_back_and_the_prompt_is_its_own(tabs):
    out = tabs[0].desk.out
    back = restore(saved(replace(SPEC, prompt="a valley", sound_text="surf"), out), out)
    assert (back.form.heard, back.form.sound_text, back.form.prompt) == (
        "words",
        "surf",
        "a valley",
    )
    assert back.note == ""


def test_a_sound_outside_of_the_results_or_changed_is_not_opened(tabs, clip):
    out = tabs[0].desk.out
    back = restore(saved(replace(SPEC, sound=str(clip)).pinned(), out), out)
    assert (back.form.heard, back.form.sound_file) == ("file", None)
    assert "'surf.wav' is not among the results: choose it again" in back.note
    (out / "sounds").mkdir()
    kept = shutil.copy(clip, out / "sounds/surf.wav")
    spec = replace(SPEC, seed=8, sound=str(kept)).pinned()
    assert restore(saved(spec, out), out).form.sound_file == str(kept)
    kept.write_bytes(b"other")
    assert restore(saved(spec, out), out).form.sound_file is None


def built(desk):
    """Give the controls of a satellite tab that is made now."""

    async def build():
        with gr.Blocks(analytics_enabled=False):
            return SatelliteTab(desk).ui

    return asyncio.run(build())


def test_where_nothing_can_be_steered_it_is_said_and_a_sound_is_left_out(tabs, monkeypatch):
    desk = tabs[0].desk
    assert why_silent() == ""
    assert built(desk).heard.interactive is True
    artifact = saved(replace(SPEC, sound_text="surf"), desk.out)
    monkeypatch.delenv("TERRASCAPE_HOME")
    monkeypatch.setattr("generation.registry.ASSETS", desk.out)
    assert built(desk).heard.interactive is False
    assert "the weights of satellite-nano-sound are missing" in why_silent()
    back = restore(artifact, desk.out)
    assert back.form.heard == "none"
    assert "its sound is left out" in back.note
