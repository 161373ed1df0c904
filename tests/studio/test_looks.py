"""Looks, habitats and plausibility on the page."""

from dataclasses import replace

import pytest
from test_studio import SPEC, form

from generation.errors import InvalidSpecError
from generation.media.artifact import read_artifact, save_render
from generation.pipelines.satellite import render
from generation.studio.looks import range_of, styled_html, where_from
from generation.studio.plausible import card_html
from generation.studio.recall import restore


def test_where_a_look_comes_from_is_a_map_and_a_list():
    world, told = where_from(23.5, 5.0, 0.5, "range-nano")
    assert "ts-overlay" in world
    assert told.count("<li>") == 6
    assert "Half of the look comes from within" in told
    near, sharp = (where_from(23.5, 5.0, beta, "range-nano")[1] for beta in (0.0, 1.0))
    assert near != sharp


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ((120.0, 5.0, 0.5, "range-nano"), "no such place"),
        ((1.0, 1.0, 0.5, "panorama-nano"), "kind"),
    ],
)
def test_a_look_from_nowhere_is_told(asked, hint):
    world, told = where_from(*asked)
    assert hint in told
    assert "ts-overlay" not in world


def test_an_empty_place_has_no_look():
    assert where_from(None, 5.0, 0.5, "range-nano")[1] == ""


def test_a_range_is_shown_with_what_was_understood():
    world, told = range_of("Panthera leo", 45.98, 7.66)
    assert "ts-overlay" in world
    assert "Carnivora Felidae Panthera leo" in told
    assert "Predicted, not observed" in told
    world, told = range_of("Pantera", 45.98, 7.66)
    assert "close to it" in told
    assert 'role="alert"' in told
    assert "<b>" not in range_of("<b>x</b>", None, None)[1]


def test_what_is_switched_off_stays_out_of_the_spec(tmp_path):
    off = form(style_lat=1.0, style_lon=2.0, taxon="Panthera leo", warmer_c=3.0, sharpness=0.9)
    assert off.spec(tmp_path).sha256() == SPEC.sha256()
    on = form(style_on=True, style_lat=1.0, style_lon=2.0, sharpness=0.9).spec(tmp_path)
    assert (on.style_lat, on.style_lon, on.sharpness) == (1.0, 2.0, 0.9)
    assert form(climate_on=True, warmer_c=0.0, rain_percent=0.0).spec(tmp_path).has_climate


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"habitat_on": True, "taxon": " "}, "no taxon is named"),
        ({"style_on": True, "style_lat": None, "style_lon": 2.0}, "degrees for both"),
        ({"climate_on": True, "warmer_c": 90.0, "rain_percent": 0.0}, "-20 to 20"),
    ],
)
def test_a_wrong_look_is_told(changes, hint, tmp_path):
    with pytest.raises(InvalidSpecError, match=hint):
        form(**changes).spec(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    spec = replace(SPEC, style_lat=23.5, style_lon=5.0, taxon="Panthera leo", warmer_c=3.0)
    done = render(spec)
    return out, next(p for p in save_render(done, out) if p.suffix == ".json"), done


def test_a_result_says_whose_look_it_has_and_how_plausible_it_is(made):
    _, manifest, done = made
    artifact = read_artifact(manifest)
    told = styled_html(artifact.spec, artifact.record["provenance"])
    assert "Looks like 23.5° N, 5° E" in told
    assert "Habitat of Panthera leo" in told
    assert "+3 °C" in told
    card = card_html(artifact.record["provenance"])
    assert "Seems to be" in card
    assert "The taxon here" in card
    assert card == card_html(done.provenance)
    assert card_html({"plausibility": {"note": "not judged: <far>"}}).count("&lt;far&gt;") == 1
    assert card_html({}) == card_html(None) == ""


def test_panoramas_and_sounds_have_cards_too():
    panorama = {
        "agreement": {"satellite": 0.41, "match": 0.93},
        "satellite": {"note": "not judged: too small"},
        "rendered": {"satellite": [0.1, 0.3, 0.6], "match": [0.4, 0.9, 1.0]},
    }
    card = card_html({"plausibility": panorama})
    assert "93% likely" in card
    assert "40% to 100%" in card
    assert "not judged: too small" in card
    sound = {
        "fits_its_place": 0.2, "share_of_clips_that_fit_better": 0.25, "clips": 320,
        "novelty": {"most_alike": 0.7, "clip": "<rain>"},
    }  # fmt: skip
    card = card_html({"plausibility": sound})
    assert "25% fit better" in card
    assert "&lt;rain&gt;" in card


def test_a_result_comes_back_with_its_looks(made):
    out, manifest, done = made
    back = restore(read_artifact(manifest), out).form
    assert (back.style_on, back.habitat_on, back.climate_on) == (True, True, True)
    assert back.spec(out).sha256() == done.spec.pinned().sha256()
    plain = replace(SPEC, seed=5)
    paths = save_render(render(plain), out)
    again = restore(read_artifact(next(p for p in paths if p.suffix == ".json")), out).form
    assert (again.style_on, again.style_lat is None) == (False, False)
    assert again.spec(out).sha256() == plain.pinned().sha256()
