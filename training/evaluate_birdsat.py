"""How well views from the ground are found for satellite images of places that no training saw.

Every satellite image asks for its view among all of the held-out region, by vectors with and
without its place, and again with the first of them matched. Right is the view itself; a second
score takes any view of the same set, whose places stand within 60 km at one moment. Pairs are told
from those with the satellite image of another set. Controls: chance; the mean colour of the ground
held to that of the image; the place of another set told; and another set's image with the right
place, which is what the place alone gives away.
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
from generation.errors import ConfigError
from training.cross_view_data import CrossViews, read_pairs
from training.data import list_files
from training.evaluate_controls import Scores
from training.evaluate_style import QUANTILES
from training.evaluate_taxabind import area
from training.metrics import bootstrap, ratio
from training.panorama_data import open_sets
from training.ranks import summary


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
    other = other_sets(pairs.sets)
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
            _found(into, name, order, pairs.sets, settings.seed)
    controls.add("chance/recall_at_10", *(3 * (min(1.0, 10 / len(pairs)),)))
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
    """Give the 5th, 50th and 95th percentile of true pairs, and of those of two sets."""
    ground, seen = encoder.ground(pairs.ground), encoder.satellite(above)
    strangers = torch.from_numpy(other)
    figures = {
        "satellite": (ground * seen).sum(1),
        "satellite_of_others": (ground * seen[strangers]).sum(1),
    }
    if encoder.matches:
        figures["match"] = encoder.match(pairs.ground, above)
        figures["match_of_others"] = encoder.match(pairs.ground, above[other])
    marks = torch.tensor(QUANTILES)
    return {
        name: [round(value, 4) for value in each.quantile(marks).tolist()]
        for name, each in figures.items()
    }


def _limited(pairs: CrossViews, settings: Settings) -> CrossViews:
    if settings.limit is None:
        return pairs
    return pairs[np.isin(pairs.sets, np.unique(pairs.sets)[: settings.limit])]


def other_sets(sets: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Give each row the place of a row of another set, each once: rows of a set lie together."""
    order = np.argsort(sets, kind="stable")
    widest = int(np.unique(sets, return_counts=True)[1].max())
    partner = np.empty(len(sets), np.int64)
    partner[order] = np.roll(order, -widest)
    if (sets[partner] == sets).any():
        raise ConfigError("one set holds half of all views or more (give more sets)")
    return partner


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
    into: Scores, name: str, order: Int[Tensor, "n n"], sets: Int[np.ndarray, " n"], seed: int
) -> None:
    """Add recalls of the view itself, and of any of its set."""
    rows = torch.arange(len(order))[:, None]
    ranks = 1 + (order == rows).int().argmax(1).double().numpy()
    for score, figures in summary(ranks, sets, seed=seed).items():
        into.add(f"{name}/{score}", *figures)
    numbers = torch.from_numpy(sets)
    same = (numbers[order] == numbers[:, None]).int().argmax(1).numpy()
    for k in (1, 10):
        hit = np.stack([(same < k).astype(float), np.ones(len(same))], 1)
        into.add(f"{name}/set_at_{k}", *bootstrap(hit, sets, ratio, seed=seed))


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
    strangers = above[other]
    back = strangers if above.latlon is None else replace(strangers, latlon=above.latlon)
    ways = ((scores[0], "", above, strangers), (scores[1], "_other_place", swapped, back))
    for into, ending, mine, theirs in ways if above.latlon is not None else ways[:1]:
        true, false = encoder.match(pairs.ground, mine), encoder.match(pairs.ground, theirs)
        right = torch.cat([true > 0.5, false < 0.5]).double().numpy()
        table = np.stack([right, np.ones(len(right))], 1)
        sets = np.concatenate([pairs.sets, pairs.sets])
        into.add(f"pairs/right{ending}", *bootstrap(table, sets, ratio, seed=settings.seed))
        order = area(torch.cat([true, false]).numpy(), np.arange(len(right)) < len(true))
        into.add(f"pairs/area{ending}", order, order, order)


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
        for name in dict.fromkeys(n.split("/")[0] for n in scores.values if "/set_at_1" in n):
            v = scores.values
            told.append(
                f"{name}: itself within 1, 5, 10 {v[f'{name}/recall_at_1']:.3f} "
                f"{v[f'{name}/recall_at_5']:.3f} {v[f'{name}/recall_at_10']:.3f}, its set first "
                f"{v[f'{name}/set_at_1']:.3f}"
            )
    told += [
        f"{n}: {v:.3f}" for s in (metrics, controls) for n, v in s.values.items() if "pairs/" in n
    ]
    return [*told, f"chance within 10: {controls.values['chance/recall_at_10']:.3f}"]
