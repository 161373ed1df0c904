r"""Sets of panoramas for learning and measuring, drawn by :mod:`training.terrain`, as Parquet.

    python -m training.panorama_sets --dem DEM.png --dem-bounds 0,30,50,50 --dem-offset 500 \
        --tiles 'DIR/*.parquet' --split train --shards 12 --out runs/panoramas

A set is one place with up to five more around it, 1 to 30 km away, seen at one moment, and the
satellite image that holds them all. Each shard is a file of its own, written whole; shards that are
there are left alone, so an interrupted command goes on where it was. Every row says what it is:
``rendered from terrain``.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from generation.atomic import atomic_path
from generation.console import Parser, Progress, guarded, real, whole
from generation.errors import ConfigError
from generation.geo.location import Location, Region
from generation.geo.mercator import gsd_m
from generation.geo.sphere import Band
from generation.media.folder import output_folder
from generation.media.image import png_bytes
from training.terrain import (
    EYE_M,
    LABEL,
    Elevation,
    Moment,
    Mosaic,
    RenderedPanorama,
    goes_to,
    render_panorama,
)

SETS_A_SHARD = 50
NEIGHBOURS = 5
NEAREST_KM, FARTHEST_KM = 1.0, 30.0
SATELLITE_PX = 448
"""Side of the satellite image of a set: 256 px around any of its panoramas, and the way there."""
HELD_OUT = Region(20.0, 30.0, 30.0, 40.0)
"""Block kept for measuring: the Peloponnese, Crete, the Aegean and the west of Anatolia."""
APART_DEG = 1.0
"""How far from that block anything learnt from stands."""
_TRIES = 20_000
"""Places that are drawn for a set before there is said to be none."""
DEPTH_NEAR_M, DEPTH_FAR_M = 100.0, 160e3
"""Depths that the first and the last level above the sky's zero stand for."""


@dataclass(frozen=True, slots=True)
class World:
    """What panoramas are drawn from."""

    elevation: Elevation
    mosaic: Mosaic
    band: Band = field(default_factory=Band)


def depth_levels(depth_m: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """Turn depths into levels 1 to 255, evenly spaced in their logarithm; 0 is the sky."""
    ground = np.isfinite(depth_m)
    clipped = np.clip(np.where(ground, depth_m, DEPTH_FAR_M), DEPTH_NEAR_M, DEPTH_FAR_M)
    share = np.log(clipped / DEPTH_NEAR_M) / math.log(DEPTH_FAR_M / DEPTH_NEAR_M)
    return np.where(ground, 1 + np.round(share * 254), 0).astype(np.uint8)


def draw_set(world: World, split: str, seed: int) -> dict[str, Any]:
    """Draw the places and the moment of a set from a seed, and its panoramas."""
    rng = np.random.default_rng([seed, 0 if split == "train" else 1])
    places = _places(world, split, rng)
    moment = Moment.draw(rng)
    views = [
        _view(place, render_panorama(world.elevation, world.mosaic, place, moment, world.band))
        for place in places
    ]
    here = places[0]
    return {
        "set_id": f"{split}-{seed}",
        "split": split,
        "source": LABEL,
        "lat": here.lat,
        "lon": here.lon,
        "eye_m": EYE_M,
        "satellite": _stored(world.mosaic.crop(here, SATELLITE_PX)),
        "satellite_gsd_m": gsd_m(here.lat, world.mosaic.zoom),
        "sun_azimuth_deg": moment.sun_azimuth_deg,
        "sun_elevation_deg": moment.sun_elevation_deg,
        "views": views,
    }


def _places(world: World, split: str, rng: np.random.Generator) -> list[Location]:
    """Draw a place, hilly ones more often, and its neighbours, which lie in the same split.

    Raises:
        ConfigError: There is no such place in the world that is given.
    """
    box = world.elevation.bounds
    inner = (
        HELD_OUT
        if split == "test"
        else Region(box.west + 1, box.south + 1, box.east - 1, box.north - 1)
    )
    for _ in range(_TRIES):
        sine = rng.uniform(*np.sin(np.radians([inner.south, inner.north])))
        here = Location(
            float(np.degrees(np.arcsin(sine))), float(rng.uniform(inner.west, inner.east))
        )
        around_lat, around_lon = goes_to(
            here, np.arange(0, 360, 15.0)[:, None], np.array([[3e3, 9e3, 20e3]])
        )
        heights = world.elevation.at(around_lat, around_lon)
        if not _in_split(here, split) or (heights > 0).mean() < 0.3:
            continue
        if not world.mosaic.covers(here, SATELLITE_PX):
            continue
        if rng.uniform() < np.clip(heights.std() / 300, 0.1, 1):
            break
    else:
        raise ConfigError(
            f"no place for a set of split {split} was found in {_TRIES} tries: it needs land, and "
            f"imagery all around, between {inner} (give a raster and tiles that reach there)"
        )
    places = [here]
    while len(places) <= NEIGHBOURS:
        distance = 1000 * np.exp(rng.uniform(np.log(NEAREST_KM), np.log(FARTHEST_KM)))
        lat, lon = goes_to(here, np.array([rng.uniform(0, 360)]), np.array([distance]))
        there = Location(float(lat[0]), float(lon[0]))
        if _in_split(there, split):
            places.append(there)
    return places


def _in_split(place: Location, split: str) -> bool:
    margin = 0.0 if split == "test" else APART_DEG
    held = (
        HELD_OUT.west - margin <= place.lon <= HELD_OUT.east + margin
        and HELD_OUT.south - margin <= place.lat <= HELD_OUT.north + margin
    )
    return held if split == "test" else not held


def _view(place: Location, drawn: RenderedPanorama) -> dict[str, Any]:
    return {
        "lat": place.lat,
        "lon": place.lon,
        "heading_deg": 0.0,
        "altitude_m": drawn.altitude_m,
        "image": _stored(drawn.rgb),
        "depth": _stored(depth_levels(drawn.depth_m)),
    }


def _stored(pixels: UInt8[np.ndarray, "height width *channels"]) -> dict[str, Any]:
    """Give the column of a picture, in the layout that ``datasets`` reads as an image.

    Without loss: the blocks of a JPEG would be learnt, and count as borders of patches.
    """
    return {"bytes": png_bytes(pixels), "path": None}


def write_shard(world: World, split: str, out: Path, shard: int) -> Path:
    """Draw the sets of a shard and write them, unless its file is there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = out / f"{split}-{shard:05d}.parquet"
    if not path.exists():
        first = shard * SETS_A_SHARD
        rows = [draw_set(world, split, seed) for seed in range(first, first + SETS_A_SHARD)]
        table = pa.Table.from_pylist(rows).replace_schema_metadata(
            {"terrascape": json.dumps({"source": LABEL, "band": _band(world.band)})}
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as staging:
            pq.write_table(table, staging, row_group_size=10)
    return path


def _band(band: Band) -> dict[str, float | int]:
    return {
        "height": band.height,
        "width": band.width,
        "top_deg": band.top_deg,
        "bottom_deg": band.bottom_deg,
    }


_WORLD: World | None = None


def _shard_of_worker(split: str, out: Path, shard: int) -> Path:
    if _WORLD is None:
        raise RuntimeError("a worker was started without its world")
    return write_shard(_WORLD, split, out, shard)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m training.panorama_sets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dem", type=Path, required=True, help="16-bit raster of heights")
    parser.add_argument("--dem-bounds", required=True, metavar="W,S,E,N", help="its box, degrees")
    parser.add_argument("--dem-offset", type=real, default=0.0, help="value of sea level")
    parser.add_argument("--tiles", required=True, help="pattern of Parquet files of tiles")
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--shards", type=whole, default=12, help=f"files of {SETS_A_SHARD} sets")
    parser.add_argument(
        "--height", type=whole, default=Band().height, help="rows; there are 4 columns for each"
    )
    parser.add_argument("--workers", type=whole, default=1, help="processes")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    return parser.parse_args(argv)


def _run(argv: Sequence[str] | None) -> None:
    global _WORLD  # workers are forked with it, so that they need no copy
    args = _parse(argv)
    try:
        bounds = Region(*(float(part) for part in args.dem_bounds.split(",")))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--dem-bounds {args.dem_bounds!r} is no box (give W,S,E,N)") from error
    for name, least in (("shards", 1), ("workers", 1), ("height", 8)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name} {getattr(args, name)} is too few (give {least} or more)")
    elevation = Elevation.open(args.dem, bounds, offset_m=args.dem_offset)
    band = Band(args.height, 4 * args.height)
    _WORLD = World(elevation, Mosaic.of_tiles(args.tiles, bounds), band)
    work = partial(_shard_of_worker, args.split, args.out)
    progress = Progress("shards")
    pool = ProcessPoolExecutor(args.workers, mp_context=get_context("fork"))
    with output_folder(args.out), pool:
        for done, path in enumerate(pool.map(work, range(args.shards)), start=1):
            progress(done, args.shards)
            sys.stdout.write(f"{path}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Write shards; see the module's description."""
    return guarded("terrascape panorama sets", lambda: _run(argv))


if __name__ == "__main__":
    raise SystemExit(main())
