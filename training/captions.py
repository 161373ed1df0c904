"""Captions composed from what the rasters say: ground, water, climate, relief, lights, colours.

No sentence is stored; each is built from phrases that hold for the tile, in a random order and
wording, so one tile has many captions and none of them names something that is not there.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from generation.geo.layout import LAYERS

GROUND: Mapping[str, Sequence[str]] = {
    "bare": ("desert", "barren rock and sand", "arid bare ground", "a dry desert plain"),
    "grass": ("grassland", "open steppe", "prairie", "grassy plains"),
    "savanna": ("savanna", "wooded savanna", "scattered trees and grass"),
    "crop": ("farmland", "cropland", "a patchwork of fields", "agricultural fields"),
    "shrub": ("shrubland", "dry scrub", "tundra and shrubs"),
    "forest": ("forest", "dense woodland", "deep green forest", "wooded hills"),
    "wetland": ("wetland", "marsh and swamp", "boggy lowland"),
    "urban": ("a city", "a built-up area", "an urban region"),
    "glacier": ("ice sheet", "glaciers", "permanent snow and ice"),
}
_SEA = ("open sea", "the ocean", "blue water")
_COAST = ("a coastline", "a shore", "coast and sea", "a coastal area")
_ISLANDS = ("islands in the sea", "a small island", "an archipelago")
_LAKE = ("a lake", "lakes", "lakes and ponds")
_RIVER = ("a river", "a river valley", "rivers")
_ROADS = ("roads", "a road network", "main roads")
_LIGHTS = ("towns", "cities and towns", "populated land")
_TEMPERATURE = (
    (-8.0, ("polar", "arctic", "frozen")),
    (3.0, ("subarctic", "cold", "boreal")),
    (11.0, ("cool", "cool temperate", "temperate")),
    (19.0, ("mild", "warm temperate", "subtropical")),
    (99.0, ("hot", "tropical", "warm")),
)
_RAIN = (
    (150.0, ("hyper-arid", "very dry", "rainless")),
    (450.0, ("dry", "semi-arid", "arid")),
    (1100.0, ("moderately wet", "")),
    (1e9, ("humid", "wet", "rainy")),
)
_HIGH = ("mountains", "alpine terrain", "high mountains", "a mountain range")
_HIGH_SNOW = ("snowy mountains", "snowy alpine peaks", "a snowy alpine valley")
_HILLS = ("highlands", "upland", "hills")
_LOW = ("lowland", "plains")
_NAMED = 0.5
"""Share of the captions that name the place, where it has a name."""
_LEADS = ("", "", "satellite image of ", "aerial view of ", "a view from space of ")


def compose(
    row: Mapping[str, float],
    classes: UInt8[np.ndarray, "height width"],
    image: UInt8[np.ndarray, "height width 3"] | None,
    rng: np.random.Generator,
    names: Sequence[str] = (),
) -> str:
    """Write one caption of a tile.

    Args:
        row: Elevation, climate and light figures in the schema of the training data
            (``elev_m``, ``t_mean_c``, ``p_year_mm``, ``lit_frac``, ``road_frac``).
        classes: Its layout.
        image: The real tile, when colours may be named.
        rng: Chooses wording and order.
        names: Regions and countries that the tile lies in; at most one is named.

    Returns:
        A phrase of some 5 to 20 words, without a full stop.
    """
    share = np.bincount(classes.ravel(), minlength=len(LAYERS)) / classes.size
    by_name = dict(zip(LAYERS, share.tolist(), strict=True))
    looks = _looks(image, classes) if image is not None else []
    phrases = _ground(by_name, rng) + _water(by_name, rng) + _relief(row, looks, rng)
    if row["road_frac"] > 0.005:
        phrases.append(_pick(rng, _ROADS))
    if row["lit_frac"] > 0.02:
        phrases.append(_pick(rng, _LIGHTS))
    phrases = phrases or [_pick(rng, ("land", "ground"))]
    rng.shuffle(phrases)
    keep = phrases[: int(rng.integers(2, 5))]
    climate = _climate(row, rng) if by_name["ocean"] < 0.97 else ""
    adjectives = [a for a in (climate, _pick(rng, looks) if looks else "") if a]
    rng.shuffle(adjectives)
    if rng.random() < 0.15:
        adjectives = adjectives[:1]
    text = " ".join([*adjectives, keep[0]])
    if len(keep) > 1:
        text += _pick(rng, (" with ", ", ", " and ")) + ", ".join(keep[1:])
    if names and rng.random() < _NAMED:
        text += _pick(rng, (" in ", ", ", " near ")) + _pick(rng, names)
    return _pick(rng, _LEADS) + text


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _ground(by_name: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    land = sum(by_name[name] for name in GROUND)
    ranked = sorted(GROUND, key=lambda name: -by_name[name])
    least = max(0.02, 0.2 * land)
    return [_pick(rng, GROUND[name]) for name in ranked[:2] if by_name[name] > least]


def _water(by_name: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    phrases = []
    if by_name["ocean"] > 0.97:
        phrases.append(_pick(rng, _ISLANDS if by_name["ocean"] < 0.998 else _SEA))
    elif by_name["ocean"] > 0.02:
        phrases.append(_pick(rng, _COAST))
    if by_name["lake"] > 0.01:
        phrases.append(_pick(rng, _LAKE))
    if by_name["river"] > 0.004:
        phrases.append(_pick(rng, _RIVER))
    return phrases


def _relief(row: Mapping[str, float], looks: Sequence[str], rng: np.random.Generator) -> list[str]:
    if row["elev_m"] > 1400:
        return [_pick(rng, _HIGH_SNOW if "snowy" in looks else _HIGH)]
    if row["elev_m"] > 500:
        return [_pick(rng, _HILLS)]
    return [_pick(rng, _LOW)] if rng.random() < 0.3 else []


def _climate(row: Mapping[str, float], rng: np.random.Generator) -> str:
    warmth = next(words for limit, words in _TEMPERATURE if row["t_mean_c"] < limit)
    wetness = next(words for limit, words in _RAIN if row["p_year_mm"] < limit)
    words = [_pick(rng, warmth), _pick(rng, wetness)]
    return " ".join(w for w in words[: int(rng.integers(1, 3))] if w)


def _looks(
    image: UInt8[np.ndarray, "height width 3"], classes: UInt8[np.ndarray, "height width"]
) -> list[str]:
    """Name the colours of the dry part of a real tile."""
    thin = np.s_[::4, ::4]  # a sixteenth of the pixels tells the colour as well as all do
    dry = image[thin][classes[thin] != LAYERS.index("ocean")].astype(np.float32)
    if len(dry) < 125:
        return []
    red, green, blue = dry.mean(0)
    white = float(((dry.min(1) > 140) & (np.ptp(dry, axis=1) < 45)).mean())
    words = []
    if white > 0.12:
        words += ["snowy", "snow-covered", "white"] if white > 0.4 else ["snowy", "snow-capped"]
    elif red > 1.15 * green and red > 95:
        words += ["sandy", "orange", "sandy brown"]
    elif red > 1.03 * green and red > 70:
        words += ["brown", "ochre"]
    elif green > 1.12 * red and green > 1.1 * blue:
        words += ["lush green", "green", "verdant"]
    if not words and dry.mean() < 38:
        words += ["dark"]
    return words
