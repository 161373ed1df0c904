"""How well views from the ground are found for satellite images of places that no training saw.

Every satellite image asks for its view among all of the held-out region, by vectors with and
without its place, and again with the first of them matched. Right is the view itself; a second
score takes any view from within ten kilometres, since their satellite images are nearly one.
Pairs are told from those with the satellite image of a place so far off that the two share no
ground. Controls: chance; the mean colour of the ground held to that of the image; a far place told;
and a far image with the right place, which is what the place alone gives away. Intervals are by
bootstrap over cells of two degrees, which are wider than an image.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from generation.checkpoint import sha256_file
from generation.encoders.birdsat import PLACE
from generation.encoders.cross_view import FIRST, Above, CrossViewEncoder, load_cross_view
from generation.encoders.retrieval import distances_km
from generation.errors import ConfigError
from training.cross_view_data import CrossViews, read_pairs
from training.data import list_files
from training.evaluate_controls import Scores
from training.evaluate_taxabind import area
from training.floors import quantiles
from training.metrics import bootstrap, ratio
from training.panorama_data import open_sets
from training.ranks import summary

NEAR_KM, APART_KM = 10.0, 200.0
"""Views that are nearly one; places whose satellite images, of up to 160 km, share no ground."""
_CELL_DEG = 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a measurement is told."""

    data: str
    """Pattern of Parquet files of sets of panoramas, or a CSV file of real ones."""
    model: str = "birdsat-nano"
    limit: int | None = None
    """Sets at most; all if absent."""
    first: int = FIRST
    """How many views are matched for each image."""
    seed: int = 0


def measured(settings: Settings) -> tuple[dict[str, Any], Scores, Scores]:
    """Measure a model.

    Returns:
        The report without its command, the scores and the controls.

    Raises:
        TerrascapeError: The model or the data are not here, or are damaged.
    """
    encoder = load_cross_view(settings.model)
    files = list_files(settings.data)
    pairs = _limited(read_pairs(open_sets(settings.data)[1], None, None), settings)
    if len(np.unique(pairs.sets)) < 3:
        raise ConfigError("fewer than 3 sets tell nothing of one another (give more panoramas)")
    metrics, controls = Scores(), Scores()
    above = Above(pairs.satellite, pairs.latlon if PLACE in encoder.reads else None)
    asked = {"image": Above(pairs.satellite)}
    other = strangers(pairs.latlon, settings.seed)
    beside: dict[str, Float[Tensor, "n n"]] = {"colour": _colours(pairs)}
    ground = encoder.ground(pairs.ground)
    if above.latlon is not None:
        asked["place"] = above
        beside["other_place"] = _likeness(encoder, Above(above.images, above.latlon[other]), ground)
        beside["other_image"] = _likeness(encoder, Above(above.images[other], above.latlon), ground)
    orders = {name: _order(_likeness(encoder, each, ground)) for name, each in asked.items()}
    if encoder.matches:
        orders["matched"] = encoder.found(above, pairs.ground, first=settings.first)
        _told_apart(settings, encoder, pairs, above, other, (metrics, controls))
    for into, ways in ((metrics, orders), (controls, {n: _order(s) for n, s in beside.items()})):
        for name, order in ways.items():
            _found(into, name, order, pairs.latlon, settings.seed)
    controls.add("chance/recall_at_10", min(1.0, 10 / len(pairs)))
    report = {
        "task": "birdsat",
        "model": encoder.sha256,
        "data": {
            "files": {f.name: sha256_file(f) for f in files},
            "pairs": len(pairs),
            "sets": len(np.unique(pairs.sets)),
        },
        "rendered": floor_of(encoder, pairs, above, other),
        "settings": {"first": settings.first, "limit": settings.limit, "seed": settings.seed},
    }
    return report, metrics, controls


def floor_of(
    encoder: CrossViewEncoder, pairs: CrossViews, above: Above, other: Int[np.ndarray, " n"]
) -> dict[str, list[float]]:
    """Give the 5th, 50th and 95th percentile of true pairs, and of those far apart."""
    ground, seen = encoder.ground(pairs.ground), encoder.satellite(above)
    figures = {
        "satellite": (ground * seen).sum(1),
        "satellite_of_others": (ground * seen[torch.from_numpy(other)]).sum(1),
    }
    if encoder.matches:
        figures["match"] = encoder.match(pairs.ground, above)
        figures["match_of_others"] = encoder.match(pairs.ground, above[other])
    return quantiles(figures)


def _limited(pairs: CrossViews, settings: Settings) -> CrossViews:
    if settings.limit is None:
        return pairs
    return pairs[np.isin(pairs.sets, np.unique(pairs.sets)[: settings.limit])]


def strangers(latlon: Float[np.ndarray, "n 2"], seed: int) -> Int[np.ndarray, " n"]:
    """Give each row one that is so far off that their satellite images share no ground.

    Raises:
        ConfigError: A row has none.
    """
    km = distances_km(*(2 * [torch.from_numpy(latlon)])).numpy()
    rng, found = np.random.default_rng(seed), []
    for row in range(len(latlon)):
        far = np.flatnonzero(km[row] >= APART_KM)
        if not len(far):
            raise ConfigError(
                f"view {row} has none that is {APART_KM:g} km away (give sets of a larger region)"
            )
        found.append(int(rng.choice(far)))
    return np.array(found)


def cells(latlon: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
    """Number the cells of two degrees that views stand in."""
    rows, columns = np.floor(latlon / _CELL_DEG).astype(np.int64).T
    return np.asarray(rows * 1000 + columns)


def _likeness(
    encoder: CrossViewEncoder, above: Above, ground: Float[Tensor, "n dim"]
) -> Float[Tensor, "n n"]:
    return encoder.satellite(above) @ ground.T


def _colours(pairs: CrossViews) -> Float[Tensor, "n n"]:
    """Compare mean colours of the lower half of views with those of satellite images."""
    below = pairs.ground[:, pairs.ground.shape[1] // 2 :]
    one, other = (_standard(each) for each in (pairs.satellite, below))
    return -torch.cdist(one, other)


def _standard(images: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n 3"]:
    means = torch.from_numpy(images.mean((1, 2))).float()
    return (means - means.mean(0)) / means.std(0)


def _order(scores: Float[Tensor, "n n"]) -> Int[Tensor, "n n"]:
    return scores.argsort(dim=1, descending=True, stable=True)


def _found(
    into: Scores, name: str, order: Int[Tensor, "n n"], latlon: np.ndarray, seed: int
) -> None:
    """Add recalls of the view itself, and of any that stands near it."""
    groups = cells(latlon)
    rows = torch.arange(len(order))[:, None]
    ranks = 1 + (order == rows).int().argmax(1).double().numpy()
    for score, figures in summary(ranks, groups, seed=seed).items():
        into.add(f"{name}/{score}", *figures)
    places = torch.from_numpy(latlon)
    near = distances_km(places, places) <= NEAR_KM
    first = near.gather(1, order).int().argmax(1).numpy()
    for k in (1, 10):
        hit = np.stack([(first < k).astype(float), np.ones(len(first))], 1)
        into.add(f"{name}/near_at_{k}", *bootstrap(hit, groups, ratio, seed=seed))


def _told_apart(
    settings: Settings,
    encoder: CrossViewEncoder,
    pairs: CrossViews,
    above: Above,
    other: Int[np.ndarray, " n"],
    scores: tuple[Scores, Scores],
) -> None:
    """Say whether pairs belong together; as a control, with the places of both exchanged."""
    swapped = above if above.latlon is None else replace(above, latlon=above.latlon[other])
    far = above[other]
    back = far if above.latlon is None else replace(far, latlon=above.latlon)
    ways = ((scores[0], "", above, far), (scores[1], "_other_place", swapped, back))
    for into, ending, mine, theirs in ways if above.latlon is not None else ways[:1]:
        true, false = encoder.match(pairs.ground, mine), encoder.match(pairs.ground, theirs)
        right = torch.cat([true > 0.5, false < 0.5]).double().numpy()
        table = np.stack([right, np.ones(len(right))], 1)
        groups = np.concatenate([cells(pairs.latlon)] * 2)
        into.add(f"pairs/right{ending}", *bootstrap(table, groups, ratio, seed=settings.seed))
        order = area(torch.cat([true, false]).numpy(), np.arange(len(right)) < len(true))
        into.add(f"pairs/area{ending}", order)


def command_of(settings: Settings, out: Path) -> str:
    """Return the command line that gives this report."""
    words = ["terrascape", "evaluate", "birdsat", "--data", f"DIR/{Path(settings.data).name}"]
    words += ["--model", settings.model, "--first", f"{settings.first}"]
    words += [] if settings.limit is None else ["--limit", f"{settings.limit}"]
    return shlex.join([*words, "--seed", f"{settings.seed}", "--out", out.name])


def lines(report: Mapping[str, Any], metrics: Scores, controls: Scores) -> list[str]:
    """Put a report into lines for people."""
    told = [f"{report['data']['pairs']} views of {report['data']['sets']} sets"]
    for scores in (metrics, controls):
        for name in dict.fromkeys(n.split("/")[0] for n in scores.values if "/near_at_1" in n):
            v = scores.values
            told.append(
                f"{name}: itself within 1, 5, 10 {v[f'{name}/recall_at_1']:.3f} "
                f"{v[f'{name}/recall_at_5']:.3f} {v[f'{name}/recall_at_10']:.3f}, one near it "
                f"first {v[f'{name}/near_at_1']:.3f}"
            )
    told += [
        f"{n}: {v:.3f}" for s in (metrics, controls) for n, v in s.values.items() if "pairs/" in n
    ]
    return [*told, f"chance within 10: {controls.values['chance/recall_at_10']:.3f}"]
