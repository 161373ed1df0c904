"""The search of the studio without a browser: questions, results and the map of scores."""

# ruff: noqa: F811 - a fixture is asked for by the name under which it was imported

import base64
import html
import re
import time

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image
from test_sound_tab import (  # noqa: F401 - fixtures among them
    PLACES,
    clip,
    entries,
    event,
    page,
    sound_home,
    tabs,
)

from generation.encoders.gallery import Gallery
from generation.encoders.gallery_rows import Hit, Maker
from generation.encoders.heads import Embedding
from generation.errors import InvalidSpecError
from generation.geo.location import Location
from generation.studio.score_map import CELL_DEG, cells_of_scores, score_map
from generation.studio.sound_hits import QUERIES, hits_html, web_link
from generation.studio.sound_search import Answer, Question, around
from generation.studio.sound_tab import why_unanswered
from generation.studio.worker import Desk

ASKED = (["tile"], 10, False, 45.98, 7.66)
"""Kinds, results, whether near the place, and the place."""


def gather(events):
    """Give what the page was told first, and all of it."""
    first, *others = list(events)
    merged = dict(first)
    for changes in others:
        merged |= changes
    return first, merged


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
