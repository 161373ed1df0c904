"""Pairs of sounds and places to learn a shared space from: a folder of plain arrays.

    python -m training.sound_pairs --clips 'DIR/esc10/*.parquet' --day DIR/jura/*.parquet \
        --tiles runs/tiles --out runs/sound_pairs

Open clips have no places. Each is put on tiles where it could be heard, by the rules of
:data:`HEARD`: surf where land meets sea, chainsaws in woods, roosters among fields. That is a
simulation, and ``about.json`` says so (``location_source: simulated``), as must all that is made of
it. What is heard indoors says nothing of the place around and is left out. Clips of the last fold,
and tiles of every fifth block of 10 degrees, are kept for testing, and a pair has both from one
side, so neither a clip nor a place is ever seen before it is measured.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from generation.atomic import atomic_folder
from generation.console import Parser, Progress, guarded, whole
from generation.errors import ConfigError, MissingFileError, OutputError
from generation.geo.layout import LAYERS
from generation.media.audio import Mel, decode_audio, fitted, log_mel
from training.data import FIELDS, held_blocks, list_files

FRAMES = 512
"""Columns of a spectrogram: 5.1 seconds at a hop of a hundredth of one."""
TEST_FOLD = 4
TEST_BLOCKS = 5
_DAY = "Forest dawn to night"
Shares = Float[np.ndarray, " tiles"]


@dataclass(frozen=True, slots=True)
class Ground:
    """What decides where a sound could be heard, tile by tile."""

    layers: Mapping[str, Shares]
    """0 to 1 of the area."""
    lit: Shares
    rain_mm: Shares
    warm_c: Shares

    def share(self, *names: str) -> Shares:
        """Sum the area of some layers."""
        return np.sum([self.layers[name] for name in names], axis=0)


def _coast(ground: Ground) -> Shares:
    sea = ground.share("ocean")
    return np.where((sea > 0.05) & (sea < 0.95), 4 * sea * (1 - sea), 0.0)


def _between(values: Shares, low: float | int, high: float | int) -> Shares:
    return ((values > low) & (values < high)).astype(np.float64)


HEARD: Mapping[str, Callable[[Ground], Shares]] = {
    # where land meets a sea that does not freeze over
    "Sea waves": lambda g: _coast(g) * _between(g.warm_c, 0, 99),
    # in the wet tropics
    "Rain": lambda g: (
        np.clip(g.rain_mm - 1500, 0, None) * (1 - g.share("ocean")) * _between(g.warm_c, 18, 99)
    ),
    # among fields, near few lights
    "Rooster": lambda g: g.share("crop") ** 2 * _between(g.lit, 0, 0.1),
    # in villages and suburbs
    "Dog bark": lambda g: g.lit * (1 - g.share("ocean")) * _between(g.lit, 0.03, 0.25),
    # over large cities
    "Helicopter": lambda g: g.lit * _between(g.lit, 0.25, 2),
    # in woods that are logged, boreal or warm
    "Chainsaw": lambda g: (
        g.share("forest") * (_between(g.warm_c, -99, 3) + _between(g.warm_c, 12, 20))
    ),
    # on dry and warm land with grass and bushes
    "Fire crackling": lambda g: (
        g.share("savanna", "shrub") * _between(g.rain_mm, -1, 1000) * _between(g.warm_c, 12, 99)
    ),
    # in woods like the one where it was recorded
    _DAY: lambda g: g.share("forest") * _between(g.warm_c, 3, 12),
}
"""How plausible a sound is on each tile: the rules of the simulation."""
INDOORS = ("Clock tick", "Person sneeze", "Baby cry")
"""Sounds that say nothing of the place around: they are left out."""
SAID: Mapping[str, Sequence[str]] = {
    "Sea waves": ("surf on a beach", "waves breaking on the shore", "the sound of the sea"),
    "Rain": ("rain falling", "a heavy shower", "the patter of rain"),
    "Rooster": ("a rooster crowing", "a cock in a farmyard", "a rooster at dawn"),
    "Dog bark": ("a dog barking", "barking in the street", "a watchdog"),
    "Helicopter": ("a helicopter flying over", "rotor blades overhead", "a helicopter"),
    "Chainsaw": ("a chainsaw cutting wood", "logging in the forest", "a chainsaw"),
    "Fire crackling": ("a crackling fire", "burning wood and grass", "a camp fire"),
    _DAY: ("birds in a quiet forest", "a forest soundscape", "birdsong among trees"),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording, with whom to thank."""

    label: str
    title: str
    author: str
    licence: str
    url: str
    test: bool
    month: float | None
    hour: float | None


Undated = Literal["unknown", "any hour"]
"""At what hour a recording without one was made, as far as learning goes."""


def heard_at(hour: float | None, undated: Undated, rng: np.random.Generator) -> float:
    """Give the hour of a recording; if it has none, NaN, or any hour, drawn."""
    if hour is not None and not math.isnan(hour):
        return float(hour)
    return float(rng.uniform(0, 24)) if undated == "any hour" else math.nan


def ground_of(rows: Float[np.ndarray, "n figures"], classes: np.ndarray) -> Ground:
    """Describe the tiles of a folder of :mod:`training.data`."""
    figures = dict(zip(FIELDS, rows[:, 3:].T, strict=True))
    counts = (
        np.stack([np.bincount(tile.ravel(), minlength=len(LAYERS)) for tile in classes])
        / classes[0].size
    )
    return Ground(
        layers=dict(zip(LAYERS, counts.T, strict=True)),
        lit=np.nan_to_num(figures["lit_frac"]),
        rain_mm=np.nan_to_num(figures["p_year_mm"]),
        warm_c=np.nan_to_num(figures["t_mean_c"]),
    )


def plausibility(ground: Ground) -> Float[np.ndarray, "tiles sounds"]:
    """Say how plausible each sound is on each tile, in the order of :data:`HEARD`."""
    return np.stack([rule(ground) for rule in HEARD.values()], axis=1).astype(np.float64)


def place(
    clips: Sequence[Clip],
    ground: Ground,
    held: Bool[np.ndarray, " tiles"],
    *,
    per_clip: tuple[int, int],
    seed: int,
) -> Int[np.ndarray, "pairs 2"]:
    """Put each clip on some tiles of its side, drawn in proportion to how plausible it is there.

    What is learnt from may come more than once: of some sounds there are few places.

    Args:
        clips: To be put somewhere.
        ground: Of all tiles.
        held: Tiles that are kept for testing.
        per_clip: Tiles of a clip of the rarest sound, to learn from and to be tested on; each sound
            gets about as many pairs.
        seed: Decides the tiles.

    Returns:
        Rows of clips and of tiles.

    Raises:
        ConfigError: A sound could be heard nowhere.
    """
    plausible = plausibility(ground)
    counts = Counter((clip.label, clip.test) for clip in clips)
    pairs = []
    for number, clip in enumerate(clips):
        weight = plausible[:, list(HEARD).index(clip.label)] * (held == clip.test)
        fewest = min(n for (_, test), n in counts.items() if test == clip.test)
        wanted = max(1, round(per_clip[clip.test] * fewest / counts[clip.label, clip.test]))
        fit = int((weight > 0).sum())
        if fit < (wanted if clip.test else 1):
            raise ConfigError(
                f"{clip.label!r} could be heard on {fit} tiles only, {wanted} are asked for (give "
                "more tiles, or a smaller --test-places)"
            )
        rng = np.random.default_rng([seed, number])
        tiles = rng.choice(len(weight), wanted, replace=not clip.test, p=weight / weight.sum())
        pairs += [(number, int(tile)) for tile in tiles]
    return np.array(pairs)


def read_clips(clips: str | None, day: str | None) -> list[tuple[Clip, bytes]]:
    """Read labelled clips in the schema of ESC-10, and a day of one microphone.

    Raises:
        MissingFileError: There are none.
        ConfigError: A label has no rule.
    """
    import pyarrow.parquet as pq

    found: list[tuple[Clip, bytes]] = []
    for file in list_files(clips) if clips else []:
        for row in pq.read_table(file).to_pylist():
            if row["label"] in INDOORS:
                continue
            if row["label"] not in HEARD:
                raise ConfigError(
                    f"{file.name}: nothing says where {row['label']!r} is heard (known: "
                    f"{', '.join(HEARD)})"
                )
            credit = (row["title"], row["author"], row["license"], row["source_url"])
            clip = Clip(row["label"], *credit, row["fold"] == TEST_FOLD, None, None)
            found.append((clip, row["audio"]["bytes"]))
    for file in list_files(day) if day else []:
        for number, row in enumerate(pq.read_table(file).to_pylist()):
            hour, month = row["hour"] + row["minute"] / 60, float(str(row["date"])[4:6])
            credit = (
                f"{row['date']} {row['hour']:02}:{row['minute']:02}",
                "scikit-maad",
                "BSD-3",
                "",
            )
            clip = Clip(_DAY, *credit, number % 4 == 3, month, hour)
            found.append((clip, row["audio"]["bytes"]))
    if not found:
        raise MissingFileError("no clip was named (give --clips, --day or both)")
    return found


def spectrograms(
    sounds: Sequence[tuple[Clip, bytes]], progress: Progress
) -> Float[np.ndarray, "clips bands frames"]:
    """Take the log-mel of the first five seconds of every clip, in half precision."""
    mel = Mel()
    filters, rows = mel.filters(), []
    for number, (clip, data) in enumerate(sounds, start=1):
        recording = decode_audio(data, f"{clip.label} {clip.title!r}", rate=mel.rate)
        samples = fitted(recording.samples, (FRAMES - 1) * mel.hop)
        rows.append(log_mel(torch.from_numpy(samples)[None], mel, filters)[0].half().numpy())
        progress(number, len(sounds))
    return np.stack(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Build the folder."""
    code = guarded("training.sound_pairs", lambda: _run(argv))
    if code:
        raise SystemExit(code)


def _run(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="training.sound_pairs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clips", help="pattern of Parquet files of labelled clips")
    parser.add_argument("--day", help="pattern of Parquet files of one microphone's day")
    parser.add_argument("--tiles", type=Path, required=True, help="what training.data built")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    for name, tiles in (("--places", 160), ("--test-places", 20)):
        parser.add_argument(
            name, type=whole, default=tiles, metavar="N", help="tiles a clip of the rarest sound"
        )
    parser.add_argument("--seed", type=whole, default=0, help="decides the tiles")
    args = parser.parse_args(argv)
    if args.out.exists():
        raise OutputError(f"{args.out} exists and is not overwritten (choose another)")
    for name in ("places", "test_places"):
        count = getattr(args, name)
        if not 1 <= count <= 1000:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} {count} is not allowed (give 1 to 1000)")
    absent = [n for n in ("rows.npy", "classes.npy") if not (args.tiles / n).is_file()]
    if absent:
        raise MissingFileError(
            f"{args.tiles} lacks {', '.join(absent)} (build it: python -m training.data --help)"
        )
    sounds = read_clips(args.clips, args.day)
    rows, classes = (np.load(args.tiles / n, mmap_mode="r") for n in ("rows.npy", "classes.npy"))
    held = held_blocks(rows, TEST_BLOCKS)
    clips = [clip for clip, _ in sounds]
    ground = ground_of(rows, classes)
    pairs = place(clips, ground, held, per_clip=(args.places, args.test_places), seed=args.seed)
    mels = spectrograms(sounds, Progress("spectrograms"))
    about: dict[str, Any] = {
        "location_source": "simulated",
        "tiles": len(rows),
        "test_clips": sum(clip.test for clip in clips),
        "test_tiles": int(held.sum()),
        "mel": asdict(Mel()),
    }
    with atomic_folder(args.out) as staging:
        np.save(staging / "pairs.npy", pairs)
        np.save(staging / "mels.npy", mels)
        np.save(staging / "plausible.npy", plausibility(ground).astype(np.float32))
        for name, value in {"clips": [asdict(clip) for clip in clips], "about": about}.items():
            text = json.dumps(value, indent=1, allow_nan=False)
            (staging / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
