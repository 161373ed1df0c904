"""Whether places that look different sound different: sea, forest and city.

For held-out tiles of each, the captions that fit the image best become a soundscape, as a person
who gives nothing but the place would hear it. The tagger, which sees no tile, says what each one
sounds like; the ground is then guessed from what it said of the other tiles.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, UInt8

from generation.atomic import atomic_path
from generation.console import Progress
from generation.encoders.heads import Embedding, likeness
from generation.encoders.sound_space import TEXT
from generation.errors import ConfigError
from generation.geo.mercator import Window
from generation.media.lettering import font
from generation.media.mixing import mix
from generation.pipelines.soundscape_plan import VIEW_PX, Plan, best_of
from generation.pipelines.soundscape_render import picture_of
from training.data import TILE, held_blocks
from training.sound_pairs import SAID, TEST_BLOCKS, Ground, ground_of
from training.sound_tagger import Opinion, Tagger, ask
from training.soundscape_cases import SoundscapeCases
from training.soundscape_findings import Findings, Order, dealt
from training.soundscape_metrics import Labels, Sounds, balanced, balanced_mean

if TYPE_CHECKING:
    from PIL import ImageDraw

GROUNDS: dict[str, Callable[[Ground], Bool[np.ndarray, " tiles"]]] = {
    "sea": lambda ground: ground.layers["ocean"] >= 0.5,
    "forest": lambda ground: ground.layers["forest"] >= 0.9,
    "city": lambda ground: ground.lit >= 0.25,
}
"""Tiles that are clearly the one or the other; a city is what is lit at night."""
TOLD = "ground_told"
PLACE = "from_place"
_MOST = 16
"""Tiles of each."""
_SEEDS_FROM = 30_000
_ROW_PX, _WIDTH_PX, _GAP_PX, _TEXT_PX = 128, 384, 6, 250


@dataclass(frozen=True, slots=True)
class Place:
    """A held-out tile."""

    ground: int
    image: UInt8[np.ndarray, "view view 3"]
    window: Window


@dataclass(frozen=True, slots=True)
class Heard:
    """Places, what was found for them, and how that sounds."""

    places: list[Place]
    plans: list[Plan]
    sounds: Sounds
    opinion: Opinion


def open_places(tiles: Path) -> list[Place]:
    """Choose held-out tiles of each ground, spread evenly over the map.

    Raises:
        ConfigError: There are fewer than two of one.
    """
    rows = np.load(tiles / "rows.npy")
    held = np.flatnonzero(held_blocks(rows, TEST_BLOCKS))
    images = np.load(tiles / "images.npy", mmap_mode="r")
    ground = ground_of(rows[held], np.load(tiles / "classes.npy", mmap_mode="r")[held])
    start = (TILE - VIEW_PX) // 2
    middle, places = slice(start, start + VIEW_PX), []
    for number, (name, rule) in enumerate(GROUNDS.items()):
        every = held[rule(ground)]
        if len(every) < 2:
            raise ConfigError(f"{len(every)} held-out tiles show a {name} (give more tiles)")
        for row in every[np.linspace(0, len(every) - 1, min(_MOST, len(every))).astype(int)]:
            zoom, col, line = (int(value) for value in rows[row, :3])
            window = Window(zoom, col, line, TILE, TILE)
            places.append(Place(number, np.array(images[row, middle, middle]), window))
    return places


def measure_places(cases: SoundscapeCases, tagger: Tagger, tiles: Path, found: Findings) -> Heard:
    """Make a soundscape of each place, and ask the tagger what it is."""
    places = open_places(tiles)
    heard = _hear(cases, tagger, places)
    ground = np.array([place.ground for place in places])
    said, seed = heard.opinion.said, cases.settings.seed
    hits = told(said, ground)
    found.metrics.add(f"{PLACE}/{TOLD}", *balanced(hits, ground, np.arange(len(ground)), seed=seed))

    def score(order: Order) -> float:
        return balanced_mean(told(said, ground[order]), ground[order])

    found.beside(TOLD, PLACE, dealt(len(ground), score, seed))
    found.tables["places"] = {
        name: {
            "tiles": int((ground == number).sum()),
            "tagger": _shares(said[ground == number], cases.kinds),
            "captions": _counted(
                [
                    p.captions[0].text
                    for p, g in zip(heard.plans, ground, strict=True)
                    if g == number
                ]
            ),
        }
        for number, name in enumerate(GROUNDS)
    }
    return heard


def told(said: Labels, ground: Labels) -> Bool[np.ndarray, " n"]:
    """Guess each ground from the others of which the same was said; say which guesses are right.

    A guess needs more others of one ground than of any other.
    """
    hits = np.zeros(len(said), bool)
    for row, (word, own) in enumerate(zip(said, ground, strict=True)):
        others = (said == word) & (np.arange(len(said)) != row)
        counts = np.bincount(ground[others], minlength=int(ground.max()) + 1)
        best = counts.max()
        hits[row] = best > 0 and counts[own] == best and (counts == best).sum() == 1
    return hits


def _hear(cases: SoundscapeCases, tagger: Tagger, places: list[Place]) -> Heard:
    encoder = cases.encoder
    embedding = encoder.image(
        np.stack([place.image for place in places]),
        np.array([place.window.gsd_m for place in places], np.float32),
        encoder.known([place.window.center for place in places]),
    )
    said = [text for texts in SAID.values() for text in texts]
    alike = likeness(embedding, encoder.text(said)).numpy()
    plans = []
    for row, scores in enumerate(alike):
        order = np.argsort(-scores, kind="stable")
        found = [(said[each], float(scores[each])) for each in order]
        plans.append(best_of(found, embedding[row : row + 1], encoder))
    texts = [layer.text for plan in plans for layer in plan.layers]
    seeds = [cases.settings.seed + _SEEDS_FROM + number for number in range(len(texts))]
    words: Embedding = encoder.text(texts)
    bar = Progress("sounds of places", every_s=30.0)
    made = cases.ask(words, TEXT, seeds, progress=bar)
    sounds, first = [], 0
    for plan in plans:
        last = first + len(plan.layers)
        sounds.append(mix(list(made[first:last]), plan.layers)[0].mean(1))
        first = last
    every = np.stack(sounds).astype(np.float32)
    return Heard(places, plans, every, ask(tagger, every))


def _shares(said: Labels, kinds: list[str]) -> dict[str, float]:
    counts = np.bincount(said, minlength=len(kinds)) / len(said)
    return {kinds[kind]: float(counts[kind]) for kind in np.argsort(-counts) if counts[kind]}


def _counted(texts: list[str]) -> dict[str, int]:
    return {text: texts.count(text) for text in sorted(set(texts), key=lambda t: -texts.count(t))}


def save_places(cases: SoundscapeCases, heard: Heard, out: Path) -> None:
    """Write a PNG: of each ground a tile, its soundscape, and what the tagger says of it.

    It is the first tile of which the tagger says what it says of most of that ground.
    """
    from PIL import Image, ImageDraw

    rows = [_usual(heard, number) for number in range(len(GROUNDS))]
    width = _ROW_PX + _WIDTH_PX + _TEXT_PX + 2 * _GAP_PX
    sheet = Image.new("RGB", (width, len(rows) * (_ROW_PX + _GAP_PX) - _GAP_PX), "white")
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = number * (_ROW_PX + _GAP_PX)
        tile = Image.fromarray(heard.places[row].image).resize((_ROW_PX, _ROW_PX))
        sheet.paste(tile, (0, top))
        seen = Image.fromarray(picture_of(heard.sounds[row], cases.pipeline.rate))
        sheet.paste(seen.resize((_WIDTH_PX, _ROW_PX)), (_ROW_PX + _GAP_PX, top))
        _tell(pen, cases, heard, row, (width - _TEXT_PX, top))
    with atomic_path(out) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _usual(heard: Heard, ground: int) -> int:
    rows = [n for n, place in enumerate(heard.places) if place.ground == ground]
    said = heard.opinion.said[rows]
    return rows[int(np.flatnonzero(said == np.bincount(said).argmax())[0])]


def _tell(
    pen: "ImageDraw.ImageDraw",
    cases: SoundscapeCases,
    heard: Heard,
    row: int,
    at: tuple[int, int],
) -> None:
    place, shares = heard.places[row], heard.opinion.shares[row]
    centre = place.window.center
    lines = [f"{list(GROUNDS)[place.ground]}, {centre.lat:.2f}, {centre.lon:.2f}"]
    lines += [f"“{layer.text}”" for layer in heard.plans[row].layers]
    lines += [f"tagger: {cases.kinds[kind]} {shares[kind]:.2f}" for kind in np.argsort(-shares)[:3]]
    for number, line in enumerate(lines):
        pen.text((at[0], at[1] + 18 * number), line, fill="black", font=font(12))
