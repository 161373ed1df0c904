"""Captions say what is there, and nothing that is not."""

import re

import numpy as np
import pytest

from generation.geo.layout import LAYERS
from training.captions import GROUND, compose

FIGURES = {
    "elev_m": 300.0, "t_mean_c": 9.0, "p_year_mm": 800.0, "lit_frac": 0.0, "road_frac": 0.0
}  # fmt: skip


def tile(**shares):
    flat = np.concatenate(
        [np.full(round(64 * 64 * share), LAYERS.index(name)) for name, share in shares.items()]
    )
    return np.resize(flat, (64, 64)).astype(np.uint8)


def captions(classes, image=None, count=60, **figures):
    row = {**FIGURES, **figures}
    return [compose(row, classes, image, np.random.default_rng(seed)) for seed in range(count)]


def told(texts, words):
    return [text for text in texts if any(word in text for word in words)]


def test_one_tile_has_many_wordings_each_decided_by_its_number():
    first, second = (captions(tile(forest=0.6, crop=0.4)) for _ in range(2))
    assert first == second
    assert len(set(first)) > 30


@pytest.mark.parametrize(
    "classes",
    [tile(forest=1.0), tile(ocean=1.0), tile(land=1.0), tile(ocean=0.5, glacier=0.3, lake=0.2)],
    ids=["forest", "sea", "unknown", "mixed"],
)
def test_a_caption_is_a_phrase(classes):
    for text in captions(classes, road_frac=0.01, lit_frac=0.1):
        assert re.fullmatch(r"[a-z][a-z ,-]*[a-z]", text)
        assert "  " not in text
        assert 1 <= len(text.split()) <= 30


@pytest.mark.parametrize("name", GROUND)
def test_ground_is_named_only_where_it_lies(name):
    here, elsewhere = {name: 1.0}, {"ocean": 0.5, "land": 0.5}
    assert told(captions(tile(**here)), GROUND[name])
    assert not told(captions(tile(**elsewhere)), GROUND[name])


def test_water_is_named_only_where_it_lies():
    sea = ("coast", "shore", "sea", "ocean", "island", "archipelago", "water")
    assert not told(captions(tile(crop=1.0)), (*sea, "lake", "river"))
    assert len(told(captions(tile(ocean=0.4, crop=0.6)), sea)) > 30
    assert told(captions(tile(lake=0.2, crop=0.8)), ("lake",))
    assert told(captions(tile(river=0.02, crop=0.98)), ("river",))
    assert all(told([text], sea) for text in captions(tile(ocean=1.0)))
    assert told(captions(tile(ocean=0.99, land=0.01)), ("island", "archipelago"))


def test_roads_and_towns_need_roads_and_lights():
    plain = captions(tile(crop=1.0))
    assert not told(plain, ("road", "town", "cities", "populated"))
    lit = captions(tile(crop=1.0), road_frac=0.02, lit_frac=0.1)
    assert told(lit, ("road",))
    assert told(lit, ("town", "populated"))


def test_climate_and_height_come_from_the_figures():
    cold = captions(tile(shrub=1.0), t_mean_c=-20.0, p_year_mm=100.0, elev_m=2500.0)
    assert not told(cold, ("hot", "tropical", "humid", "lowland"))
    assert len(told(cold, ("polar", "arctic", "frozen"))) > 30
    assert told(cold, ("mountain", "alpine"))
    assert told(captions(tile(forest=1.0), t_mean_c=26.0, p_year_mm=2500.0), ("tropical",))


def test_snow_is_named_where_it_is_seen():
    white, green = (np.full((64, 64, 3), c, np.uint8) for c in ((230, 232, 235), (40, 70, 30)))
    classes = tile(crop=1.0)
    assert told(captions(classes, white, elev_m=2000.0), ("snowy",))
    assert not told(captions(classes, green, elev_m=2000.0), ("snow", "white"))
    assert told(captions(classes, green), ("green", "verdant"))
    assert not told(captions(classes, None, elev_m=2000.0), ("snow", "green", "verdant"))


def test_a_place_is_named_in_some_captions_and_only_by_its_own_names():
    rng, classes = np.random.default_rng, tile(bare=1.0)
    texts = [compose(FIGURES, classes, None, rng(k), ["Sahara", "Chad"]) for k in range(80)]
    named = told(texts, ("Sahara", "Chad"))
    assert 20 < len(named) < 60
    assert all(re.search(r"( in |, | near )(Sahara|Chad)$", text) for text in named)
    assert told(texts, ("Sahara",)) != named != told(texts, ("Chad",))
    assert not told(captions(classes), ("Sahara", "Chad"))
