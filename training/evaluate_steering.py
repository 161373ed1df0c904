"""Is a model steered by location alone and by words alone? Measured against real tiles only.

Both questions leave out every other condition, so that a layout cannot answer for a prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from generation.errors import ConfigError
from generation.geo.layout import LAYERS
from training.evaluate_tiles import Tiles
from training.metrics import Features, Images, LiteFeatures, colour_profile

Colours = Float[np.ndarray, "n colours"]
"""Rows of :func:`training.metrics.colour_profile`."""
RIVALS = 20
"""Real tiles of other climates that the right place's tile has to be nearer than."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A prompt, its opposite, and the layout classes whose real tiles show either."""

    name: str
    prompt: str
    opposite: str
    shows: tuple[str, ...]
    shows_opposite: tuple[str, ...]


CONTRASTS: tuple[Contrast, ...] = (
    Contrast("ice-desert", "permanent snow and ice", "a hot dry desert", ("glacier",), ("bare",)),
    Contrast("forest-desert", "deep green forest", "a dry desert plain", ("forest",), ("bare",)),
    Contrast("forest-ice", "lush green forest", "snow-covered glaciers", ("forest",), ("glacier",)),
    Contrast("sea-desert", "the open sea", "barren rock and sand", ("ocean", "lake"), ("bare",)),
    Contrast("sea-forest", "blue water", "dense woodland", ("ocean", "lake"), ("forest",)),
    Contrast("sea-ice", "the ocean", "white ice sheet", ("ocean", "lake"), ("glacier",)),
    Contrast("grass-forest", "arid brown steppe", "humid green forest", ("grass",), ("forest",)),
    Contrast("savanna-ice", "tropical savanna", "polar ice", ("savanna",), ("glacier",)),
)
"""Fixed before any model was measured; the words are plain and stand in for what a person types."""
LEAST_SHARE = 0.6
"""A tile shows a class when its layout gives it this much of the area."""
LEAST_TILES = 8
"""A contrast with fewer real tiles on either side is not judged."""


def describe(images: Images, ruler: LiteFeatures) -> tuple[Colours, Features]:
    """Return the colour profile and the network features of images."""
    return colour_profile(images), ruler(images)


class PlaceJudge:
    """How far apart two pictures are, in colour and in texture, on the scale of real tiles."""

    def __init__(self, colours: Colours, features: Features) -> None:
        self.colours, self.features = colours, _unit(features)
        self.scales = tuple(float(np.median(part)) for part in self._parts(colours, self.features))
        if min(self.scales) <= 0:
            raise ConfigError("the real tiles are all alike, so no place can be told from another")

    def distances(self, colours: Colours, features: Features) -> Float[np.ndarray, "n real"]:
        """Return the distance of each picture to each real tile: colour plus texture."""
        colour, texture = self._parts(colours, _unit(features))
        return colour / self.scales[0] + texture / self.scales[1]

    def _parts(self, colours: Colours, unit: Features) -> tuple[np.ndarray, np.ndarray]:
        colour = np.stack([np.abs(self.colours - row).mean(1) for row in colours])
        return colour, 1 - unit @ self.features.T


def _unit(features: Features) -> Features:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def place_table(
    distances: Float[np.ndarray, "n real"],
    own: Int[np.ndarray, " n"],
    climates: Int[np.ndarray, " real"],
    seed: int,
) -> Float[np.ndarray, "n 3"]:
    """Return for each picture the share of rivals that are farther, whether all are, and a one.

    Args:
        distances: From each picture to each real tile.
        own: Which real tile shows the picture's place.
        climates: The climate of each real tile; rivals have another than the own tile.
        seed: Chooses the rivals.
    """
    rows = np.zeros((len(own), 3))
    for row, (each, right) in enumerate(zip(distances, own, strict=True)):
        others = np.flatnonzero(climates != climates[right])
        if not len(others):
            continue
        rng = np.random.default_rng([seed, int(right)])
        rivals = rng.permutation(others)[:RIVALS]
        farther = (each[rivals] > each[right]) + 0.5 * (each[rivals] == each[right])
        rows[row] = farther.mean(), farther.min() == 1, 1
    return rows


def stand_ins(
    cells: Int[np.ndarray, " n"], climates: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Return for each tile another real one of its block and climate, or -1 where there is none.

    What such a tile reaches is the most that a picture can be asked for.
    """
    result = np.full(len(cells), -1)
    for row in range(len(cells)):
        same = np.flatnonzero((cells == cells[row]) & (climates == climates[row]))
        if len(same) > 1:
            result[row] = same[(np.searchsorted(same, row) + 1) % len(same)]
    return result


class Probe:
    """A ridge classifier of real tiles: a prompt's side is positive, its opposite's negative."""

    def __init__(
        self, rows: Features, positive: Bool[np.ndarray, " n"], ridge: float = 1.0
    ) -> None:
        weight = np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum())
        self.mean, self.sd = weight @ rows, rows.std(0) + 1e-6
        x = self._normal(rows)
        target = np.where(positive, 1.0, -1.0)
        kernel = x @ x.T / x.shape[1]
        inverse = np.linalg.inv(kernel + ridge * np.diag(1 / (weight * len(rows))))
        dual = inverse @ target
        self.weights = x.T @ dual / x.shape[1]
        right = (target - dual / np.diag(inverse) > 0) == positive
        self.accuracy = float(right[positive].mean() + right[~positive].mean()) / 2
        """Share of real tiles told rightly when each is left out, mean of both sides."""

    def __call__(self, rows: Float[np.ndarray, "m dim"]) -> Float[np.ndarray, " m"]:
        """Return a score, above zero for the prompt, below for its opposite."""
        return self._normal(rows) @ self.weights

    def _normal(self, rows: Float[np.ndarray, "k dim"]) -> Float[np.ndarray, "k dim"]:
        return ((rows - self.mean) / self.sd).astype(np.float64)


def fit_probes(
    tiles: Tiles, rows: Features, contrasts: Sequence[Contrast] = CONTRASTS
) -> dict[str, Probe]:
    """Return a probe for each contrast that has enough real tiles on both sides."""
    shares, probes = tiles.shares(), {}
    for contrast in contrasts:
        positive, negative = (
            shares[:, [LAYERS.index(name) for name in names]].sum(1) >= LEAST_SHARE
            for names in (contrast.shows, contrast.shows_opposite)
        )
        if min(positive.sum(), negative.sum()) >= LEAST_TILES:
            chosen = positive | negative
            probes[contrast.name] = Probe(rows[chosen], positive[chosen])
    return probes


def text_table(
    probes: Mapping[str, Probe],
    rows: Mapping[str, tuple[Features, Features]],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"], Int[np.ndarray, " n"]]:
    """Judge pictures of prompts against pictures of their opposites from the same noise.

    Args:
        probes: One for each contrast.
        rows: For each contrast the descriptions of pictures of the prompt and of its opposite,
            seed by seed.

    Returns:
        ``(won, 1)`` for each pair; the same where both pictures are of one prompt, from two seeds,
        which must come out at one half; and the number of each pair's contrast.
    """
    won, null, groups = [], [], []
    for number, (name, probe) in enumerate(probes.items()):
        left, right = (probe(each) for each in rows[name])
        won += _wins(left, right)
        null += _wins(left, np.roll(left, 1))
        groups += [number] * len(left)
    ones = np.ones(len(won))
    return np.stack([won, ones], 1), np.stack([null, ones], 1), np.array(groups, dtype=np.int64)


def _wins(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> list[float]:
    return ((a > b) + 0.5 * (a == b)).tolist()
