"""Does a picture follow the style that it is told? Measured against real tiles of other places.

Pairs of real tiles A and B of different climates, from blocks that no training saw. Two pictures
have the layout of A and the same noise, and no location; one is told the style of A, the other that
of B. The second should lie nearer than the first to real tiles of B: the nearest ones of its
climate, B among them. Controls: real tiles of a third climate in place of B's (shuffled), the real
tiles A and B in place of the pictures (real), and one half (chance).

Also measured: the card of plausibility on real tiles, which is what pictures are held to.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from generation.checkpoint import model_sha256, sha256_file
from generation.console import Progress
from generation.diffusion.guidance import GuidanceScales
from generation.encoders.life_encoder import environment_of, load_life
from generation.encoders.retrieval import distances_km
from generation.encoders.retrieval_model import load_retrieval
from generation.errors import ConfigError
from generation.pipelines import plausibility
from generation.pipelines.satellite import SatellitePipeline, load_pipeline
from generation.pipelines.scene import Scene
from generation.pipelines.styling import CLIMATE, LIFE, SUFFIX, TAXON, conditioner_of, looks
from generation.registry import locate
from training.data import list_files
from training.evaluate_controls import Scores
from training.evaluate_steering import PlaceJudge, describe
from training.evaluate_tiles import Tiles, evenly, partners, read_tiles
from training.floors import quantiles
from training.metrics import LiteFeatures, bootstrap, ratio
from training.ranges_data import UNSEEN_GENUS, UNSEEN_SPECIES, Ranges, read_ranges
from training.style_samples import nearest_cells

STYLE, HABITAT = "style", "habitat"
KINDS = (STYLE, CLIMATE, HABITAT)
_NEAREST = 8
_BLOCK_DEG = 10
_BATCH = 8
Parts = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a measurement of styles is told."""

    data: str
    """Pattern of Parquet files of real tiles that no training saw."""
    ranges: Path | None = None
    traits: Path | None = None
    """PHYLACINE's; without them habitats are not measured."""
    model: str = "satellite-nano"
    limit: int = 64
    """Pairs."""
    steps: int = 10
    guidance: float = 2.0
    sharpness: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit < 3:
            raise ConfigError(f"limit={self.limit} makes no third place (give 3 or more)")
        if (self.ranges is None) != (self.traits is None):
            raise ConfigError("--ranges and --traits belong together (give both or neither)")


@dataclass(frozen=True, slots=True)
class Triples:
    """Rows of real tiles: where the layout is from, whose style is told, and a third climate's."""

    a: Int[np.ndarray, " n"]
    b: Int[np.ndarray, " n"]
    c: Int[np.ndarray, " n"]


def measured(settings: Settings) -> tuple[dict[str, Any], Scores, Scores]:
    """Measure a model.

    Returns:
        The report without its command, the scores and the controls.

    Raises:
        TerrascapeError: The model or the data are not here, or are damaged.
    """
    files = list_files(settings.data)
    tiles = read_tiles(files, seed=settings.seed)
    judge, latlon = _judge(tiles), _latlon(tiles)
    pipeline = load_pipeline(settings.model)
    triples = triples_of(tiles, settings.limit, settings.seed)
    metrics, controls = Scores(), Scores()
    for kind, parts in _told(settings, latlon).items():
        kept = np.array([n for n in range(len(triples.a)) if _both(parts, triples, n)])
        if not len(kept):
            raise ConfigError(f"no pair of tiles has a {kind} to be told (give other tiles)")
        some = Triples(triples.a[kept], triples.b[kept], triples.c[kept])
        _swapped(settings, pipeline, tiles, judge, some, parts, kind, (metrics, controls))
    report = {
        "task": "style",
        "model": pipeline.sha256,
        "conditioner": model_sha256(locate(f"{settings.model}{SUFFIX}")),
        "data": {"files": {f.name: sha256_file(f) for f in files}, "tiles": len(tiles)},
        "settings": {
            "pairs": len(triples.a),
            "steps": settings.steps,
            "guidance": settings.guidance,
            "sharpness": settings.sharpness,
            "seed": settings.seed,
        },
        "real": floor_of(tiles),
    }
    return report, metrics, controls


def triples_of(tiles: Tiles, limit: int, seed: int) -> Triples:
    """Pair tiles with others of another climate, and with a third of yet another where there is."""
    a = evenly(len(tiles), min(limit, len(tiles)))
    climates = tiles.climates
    partner = partners(climates, seed)
    b = partner[a]
    rng = np.random.default_rng([seed, 1])
    c = []
    for first, second in zip(a.tolist(), b.tolist(), strict=True):
        others = np.flatnonzero((climates != climates[first]) & (climates != climates[second]))
        c.append(int(rng.choice(others)) if len(others) else first)
    return Triples(a, b, np.array(c))


def neighbours(
    tiles: Tiles, latlon: Float[Tensor, "tiles 2"], row: int, without: int
) -> Int[np.ndarray, " k"]:
    """Give the nearest real tiles of the climate of one, itself among them."""
    km = distances_km(latlon[row : row + 1], latlon)[0].numpy()
    same = np.flatnonzero(tiles.climates == tiles.climates[row])
    same = same[same != without]
    return same[np.argsort(km[same], kind="stable")[:_NEAREST]]


def floor_of(tiles: Tiles) -> dict[str, list[float]]:
    """Give the 5th, 50th and 95th percentile of what the card says of real tiles."""
    retrieval, life = load_retrieval(plausibility.RETRIEVAL), load_life(LIFE)
    latlon = _latlon(tiles)
    best, _, seems, fit = plausibility.judged(tiles.images, retrieval)
    own = retrieval.encoder.key(latlon)
    _, keys = retrieval.read(tiles.images)
    agrees = (keys * own).sum(1)
    location = (life.satellite(tiles.images) * life.location(latlon)).sum(1)
    figures = {
        "most_alike": best,
        "seems_to_be_km": distances_km(latlon, seems).diagonal(),
        "share_of_land_that_fits_better": (fit > agrees[:, None]).float().mean(1),
        "fits_its_place": agrees,
        "agreement_location": location,
    }
    return quantiles(figures)


def _judge(tiles: Tiles) -> PlaceJudge:
    return PlaceJudge(*describe(tiles.images, LiteFeatures()))


def _latlon(tiles: Tiles) -> Float[Tensor, "tiles 2"]:
    return torch.tensor([(w.center.lat, w.center.lon) for w in tiles.windows], dtype=torch.float32)


def _told(settings: Settings, latlon: Float[Tensor, "tiles 2"]) -> dict[str, list[Parts]]:
    """Give the parts of each kind of style for every tile; none where nothing is known."""
    retrieval = load_retrieval(plausibility.RETRIEVAL)
    climate = environment_of(latlon)
    told = {
        STYLE: [looks(retrieval, lat, lon, settings.sharpness) for lat, lon in latlon.tolist()],
        CLIMATE: [{CLIMATE: row} if bool(row.isfinite().all()) else {} for row in climate],
    }
    if settings.ranges is not None and settings.traits is not None:
        told[HABITAT] = _inhabitants(read_ranges(settings.ranges, settings.traits), latlon)
    return told


def _inhabitants(ranges: Ranges, latlon: Float[Tensor, "tiles 2"]) -> list[Parts]:
    """Give for each tile the rarest species living there that no training saw."""
    life = load_life(LIFE)
    rows = np.flatnonzero(np.isin(ranges.side, (UNSEEN_SPECIES, UNSEEN_GENUS)))
    vectors = life.text([ranges.names[row] for row in rows])
    size = ranges.present[rows].sum(1)
    found: list[Parts] = []
    for cell in nearest_cells(ranges, latlon):
        here = np.flatnonzero(ranges.present[rows, cell])
        found.append({TAXON: vectors[here[size[here].argmin()]]} if len(here) else {})
    return found


def _both(parts: list[Parts], triples: Triples, number: int) -> bool:
    return bool(parts[triples.a[number]]) and bool(parts[triples.b[number]])


def _swapped(
    settings: Settings,
    pipeline: SatellitePipeline,
    tiles: Tiles,
    judge: PlaceJudge,
    triples: Triples,
    parts: list[Parts],
    kind: str,
    scores: tuple[Scores, Scores],
) -> None:
    """Draw with either style and compare the distances to real tiles."""
    own, other = (_drawn(settings, pipeline, tiles, triples.a, rows, parts, kind)
                  for rows in (triples.a, triples.b))  # fmt: skip
    ruler, latlon = LiteFeatures(), _latlon(tiles)
    before, after = (judge.distances(*describe(images, ruler)) for images in (own, other))
    real = judge.distances(judge.colours, judge.features)
    rows: dict[str, list[float]] = {"": [], "_shuffled": [], "_real": []}
    for n, (a, b, c) in enumerate(zip(triples.a, triples.b, triples.c, strict=True)):
        there = neighbours(tiles, latlon, int(b), int(a))
        elsewhere = neighbours(tiles, latlon, int(c), int(a))
        rows[""].append(float((before[n, there] - after[n, there]).mean()))
        rows["_shuffled"].append(float((before[n, elsewhere] - after[n, elsewhere]).mean()))
        beside = there[there != b]
        gained = (real[a, beside] - real[b, beside]).mean() if len(beside) else np.nan
        rows["_real"].append(float(gained))
    groups = tiles.cells(_BLOCK_DEG)[triples.b]
    metrics, controls = scores
    for ending, values in rows.items():
        gains = np.array(values)
        kept = np.isfinite(gains)
        into = controls if ending else metrics
        for name, each in (("towards", gains > 0), ("gain", gains)):
            table = np.stack([each[kept].astype(float), np.ones(int(kept.sum()))], 1)
            into.add(
                f"{kind}_{name}{ending}", *bootstrap(table, groups[kept], ratio, seed=settings.seed)
            )
    controls.add(f"{kind}_towards_chance", 0.5)
    metrics.add(f"{kind}_pairs", float(len(triples.a)))


def _drawn(
    settings: Settings,
    pipeline: SatellitePipeline,
    tiles: Tiles,
    places: Int[np.ndarray, " n"],
    styles: Int[np.ndarray, " n"],
    parts: list[Parts],
    kind: str,
) -> np.ndarray:
    """Draw the layouts of some tiles in the style of others."""
    styling = conditioner_of(settings.model, pipeline.sha256)
    scale = settings.guidance
    guidance = GuidanceScales(layout=scale, climate=scale, habitat=scale, style=scale)
    scenes = [
        Scene(
            window=tiles.windows[place],
            layout=tiles.classes[place],
            use_location=False,
            seed=settings.seed + number,
            style=parts[style],
        )
        for number, (place, style) in enumerate(zip(places, styles, strict=True))
    ]
    progress, drawn = Progress(kind), []
    for at in range(0, len(scenes), _BATCH):
        drawn.append(
            pipeline(
                scenes[at : at + _BATCH],
                num_inference_steps=settings.steps,
                guidance=guidance,
                styling=styling,
            )
        )
        progress(min(at + _BATCH, len(scenes)), len(scenes))
    return np.concatenate(drawn)


def command_of(settings: Settings, out: Path) -> str:
    """Return the command line that gives this report."""
    words = ["terrascape", "evaluate", "style", "--data", f"DIR/{Path(settings.data).name}"]
    if settings.ranges is not None and settings.traits is not None:
        words += ["--ranges", f"DIR/{settings.ranges.name}"]
        words += ["--traits", f"DIR/{settings.traits.name}"]
    words += ["--model", settings.model]
    for name in ("limit", "steps", "guidance", "sharpness", "seed"):
        words += [f"--{name}", f"{getattr(settings, name):g}"]
    return shlex.join([*words, "--out", out.name])


def lines(metrics: Scores, controls: Scores) -> list[str]:
    """Put a report into lines for people."""
    told = []
    for kind in KINDS:
        share = metrics.values.get(f"{kind}_towards")
        if share is None:
            continue
        beside = ", ".join(
            f"{name} {controls.values[f'{kind}_towards_{name}']:.3f}"
            for name in ("real", "shuffled", "chance")
        )
        told.append(f"{kind}: {share:.3f} of pictures move towards the other place ({beside})")
    return told
