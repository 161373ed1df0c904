"""What a satellite model's pictures of unseen places are worth, with the controls beside it.

Every picture is asked for as a render asks for it: a window, its layout, a caption, a location, a
seed. The noise belongs to the window and the seed, so a shuffled condition changes nothing but that
condition.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.pipelines.scene import Scene
from training.evaluate_controls import BLOCK_DEGREES, Scores, Yardstick
from training.evaluate_steering import (
    CONTRASTS,
    RIVALS,
    PlaceJudge,
    describe,
    fit_probes,
    place_table,
    stand_ins,
    text_table,
)
from training.evaluate_tiles import Tiles, evenly, partners
from training.metrics import Features, Images, bootstrap, ratio

MAX_PLACES = 200
"""Tiles that are drawn from their location alone."""
TEXT_SEEDS = 8
"""Pairs of pictures for each contrast of prompts."""
NEUTRAL = Location(45.0, 0.0)
"""Where the windows of the prompt pairs lie. The location is not told to the model, but metres per
pixel always are, and on this map they follow from the latitude: hence one in the middle."""


Painter = Callable[[Sequence[Scene]], Images]
"""Anything that draws one picture for each scene."""
Draw = Callable[[str, Sequence[Scene]], Images]
"""The same, told what the scenes are for."""
Report = Callable[[str, int, int], None]
"""Called with what is being drawn, how many pictures are done, and of how many."""


def in_batches(paint: Painter, size: int, report: Report | None = None) -> Draw:
    """Return a function that draws ``(what, scenes)`` a batch at a time and reports on it."""

    def draw(what: str, scenes: Sequence[Scene]) -> Images:
        parts = []
        for start in range(0, len(scenes), size):
            parts.append(paint(scenes[start : start + size]))
            if report is not None:
                report(what, min(start + size, len(scenes)), len(scenes))
        return np.concatenate(parts)

    return draw


def scenes_of(tiles: Tiles, seed: int) -> list[Scene]:
    """Return the scene for each tile with all that is known of it."""
    rows = zip(tiles.windows, tiles.captions, tiles.classes, strict=True)
    return [Scene(window, text, classes, seed=seed) for window, text, classes in rows]


def measure_model(
    yardstick: Yardstick, draw: Draw, known: Tiles | None = None
) -> tuple[Scores, Scores, Images]:
    """Draw every test place and score the pictures.

    Args:
        yardstick: The real tiles of the places.
        draw: Draws scenes.
        known: More real tiles, for the probes that judge prompts; by default those of the places.

    Returns:
        The model's scores, the controls that need the model, and the pictures of the tiles.
    """
    metrics, controls = Scores(), Scores()
    scenes = scenes_of(yardstick.tiles, yardstick.seed)
    images = draw("tiles", scenes)
    metrics.update(yardstick.likeness("lite_kid", yardstick.ruler(images)))
    metrics.update(yardstick.texture(images))
    metrics.update(yardstick.closeness(images, yardstick.tiles.images))
    metrics.update(yardstick.keeping(images, yardstick.water, yardstick.roads))
    other = yardstick.partner
    shuffled = yardstick.closeness(images, yardstick.tiles.images[other], "_shuffled")
    controls.update(shuffled)
    controls.update(
        yardstick.keeping(images, yardstick.water[other], yardstick.roads[other], "_shuffled")
    )
    for name, changed in _shuffled(scenes, other).items():
        drawn = draw(f"tiles, {name.replace('_', ' ')}", changed)
        controls.update(yardstick.likeness("lite_kid", yardstick.ruler(drawn), f"_{name}"))
        controls.update(yardstick.texture(drawn, f"_{name}"))
    judge = PlaceJudge(*describe(yardstick.tiles.images, yardstick.ruler))
    measure_places(yardstick, judge, draw, metrics, controls)
    measure_prompts(yardstick, known or yardstick.tiles, draw, metrics, controls)
    return metrics, controls, images


def measure_latents(
    yardstick: Yardstick,
    reconstruct: Callable[[Sequence[Scene], Images], Images | None],
    size: int,
) -> Scores:
    """Score real tiles that went through the model's latents: all that its decoder can do.

    Args:
        yardstick: The real tiles.
        reconstruct: Takes scenes and their real images; ``None`` where a model has no such way.
        size: Images at once.
    """
    scores, scenes = Scores(), scenes_of(yardstick.tiles, yardstick.seed)
    parts = []
    for start in range(0, len(scenes), size):
        rows = slice(start, start + size)
        part = reconstruct(scenes[rows], yardstick.tiles.images[rows])
        if part is None:
            return scores
        parts.append(part)
    images = np.concatenate(parts)
    scores.update(yardstick.likeness("lite_kid", yardstick.ruler(images), "_reconstructed"))
    scores.update(yardstick.texture(images, "_reconstructed"))
    scores.update(yardstick.closeness(images, yardstick.tiles.images, "_reconstructed"))
    return scores


def _shuffled(scenes: Sequence[Scene], other: Int[np.ndarray, " n"]) -> dict[str, list[Scene]]:
    """Return the scenes with one condition each taken from the partner tile."""
    pairs = [(scene, scenes[row]) for scene, row in zip(scenes, other, strict=True)]
    return {
        "shuffled_layout": [replace(own, layout=theirs.layout) for own, theirs in pairs],
        "shuffled_location": [
            replace(own, place=(theirs.window.center.lat, theirs.window.center.lon))
            for own, theirs in pairs
        ],
        "shuffled_text": [replace(own, prompt=theirs.prompt) for own, theirs in pairs],
    }


def measure_places(
    yardstick: Yardstick,
    judge: PlaceJudge,
    draw: Draw,
    metrics: Scores,
    controls: Scores,
) -> None:
    """Score pictures drawn from their location alone.

    ``location_pairs`` is the share of real tiles of other climates that lie farther from the
    picture than the real tile of its place (chance 0.5); ``location_top1`` how often all of
    ``RIVALS`` such tiles do (chance 1 / (RIVALS + 1)).
    """
    tiles, seed = yardstick.tiles, yardstick.seed
    own = evenly(len(tiles), min(MAX_PLACES, len(tiles)))
    windows = [tiles.windows[row] for row in own]
    scenes = [Scene(window, seed=seed) for window in windows]
    images = draw("places", scenes)
    distances = judge.distances(*describe(images, yardstick.ruler))

    def add(scores: Scores, suffix: str, rows: np.ndarray, each: np.ndarray) -> None:
        if not len(rows):
            return
        table, cells = place_table(each, rows, tiles.climates, seed), yardstick.cells[rows]
        for column, name in enumerate(("location_pairs", "location_top1")):
            value = bootstrap(table[:, [column, 2]], cells, ratio, seed=seed)
            scores.add(f"{name}{suffix}", *value)

    add(metrics, "", own, distances)
    # The same pictures, held to the place of another climate's tile instead of their own.
    add(controls, "_shuffled", partners(tiles.climates, seed)[own], distances)
    near = stand_ins(tiles.cells(BLOCK_DEGREES), tiles.climates)
    rows = own[near[own] >= 0]
    real = judge.distances(judge.colours[near[rows]], judge.features[near[rows]])
    add(controls, "_real_neighbour", rows, real)
    controls.add("location_pairs_chance", 0.5)
    controls.add("location_top1_chance", 1 / (RIVALS + 1))


def measure_prompts(
    yardstick: Yardstick,
    known: Tiles,
    draw: Draw,
    metrics: Scores,
    controls: Scores,
) -> None:
    """Score pictures drawn from a prompt alone against those of its opposite.

    ``text_pairs`` is the share of pairs, from equal noise, in which a probe that knows real tiles
    only puts the prompt's picture on the prompt's side of the opposite's (chance 0.5).
    """
    probes = fit_probes(known, np.hstack(describe(known.images, yardstick.ruler)))
    if not probes:
        return
    rows: dict[str, tuple[Features, Features]] = {}
    for contrast in CONTRASTS:
        if contrast.name in probes:
            left, right = (
                _prompted(yardstick, draw, f"prompts, {contrast.name}", prompt)
                for prompt in (contrast.prompt, contrast.opposite)
            )
            rows[contrast.name] = left, right
    won, null, groups = text_table(probes, rows)
    metrics.add("text_pairs", *bootstrap(won, groups, ratio, seed=yardstick.seed))
    controls.add("text_pairs_same_prompt", *bootstrap(null, groups, ratio, seed=yardstick.seed))
    controls.add("text_pairs_chance", 0.5)
    controls.add("text_pairs_real", float(np.mean([probe.accuracy for probe in probes.values()])))
    for number, (name, probe) in enumerate(probes.items()):
        metrics.add(f"text_pairs/{name}", won[groups == number, 0].mean())
        controls.add(f"text_pairs_real/{name}", probe.accuracy)


def _prompted(
    yardstick: Yardstick,
    draw: Draw,
    what: str,
    prompt: str,
) -> Float[np.ndarray, "seeds dim"]:
    size, zoom = yardstick.tiles.images.shape[1], yardstick.tiles.windows[0].zoom
    window = Window.around(NEUTRAL, zoom, size)
    scenes = [
        Scene(window, prompt, use_location=False, seed=yardstick.seed + index)
        for index in range(TEXT_SEEDS)
    ]
    return np.hstack(describe(draw(what, scenes), yardstick.ruler))


def derived(metrics: Scores, controls: Scores) -> None:
    """Add the shares of a scale by which the scores are read.

    ``lite_kid_of_blurred`` is where the score lies between the real-vs-real floor (0) and real
    tiles blurred four times (1); ``water_iou_of_real`` is the agreement with the layout over that
    of real tiles.
    """
    values = {**controls.values, **metrics.values}

    def share(part: float | None, whole: float | None) -> float:
        return part / whole if part is not None and whole else float("nan")

    floor, soft, score = (
        values.get(f"lite_kid{suffix}") for suffix in ("_real_floor", "_blurred", "")
    )
    if floor is not None and soft is not None and score is not None:
        metrics.add("lite_kid_of_blurred", share(score - floor, soft - floor))
    metrics.add("water_iou_of_real", share(values.get("water_iou"), values.get("water_iou_real")))
    metrics.add(
        "road_contrast_of_real",
        share(values.get("road_contrast"), values.get("road_contrast_real")),
    )
