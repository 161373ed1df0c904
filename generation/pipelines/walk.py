"""A walk: panoramas of evenly spaced places along a path, whose noise and ground are shared.

Every frame is a render of its own, with its RunSpec inside, so it can be made again alone. Their
noise is one, since it is keyed by the direction and the seed; a satellite image that is generated
is drawn once for the whole path, saved beside the frames and named by each of them.
"""

import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from generation.errors import CancelledError, InvalidSpecError, OutputError
from generation.geo.location import Location, great_circle_km
from generation.geo.mercator import TILE_PX, Window, from_px, to_px, world_px
from generation.geo.route import read_route, stops_along
from generation.media.artifact import find_done, read_artifact, save_render
from generation.media.folder import atomic_write
from generation.media.geotiff import geotiff_bytes
from generation.media.image import open_rgb, read_bytes
from generation.pipelines.overhead import DRAWN_PX, SIDE_PX, ZOOM, satellite_spec
from generation.pipelines.panorama import OnStep
from generation.pipelines.panorama_render import open_pipeline, render
from generation.registry import find
from generation.spec import RunSpec

LIST, ANIMATION = "walk.json", "walk.webp"
FRAME_MS = 300
MAX_DRAWN_PX = 1024
"""The largest satellite image that is drawn at once; longer paths get tiles."""
MAX_TILES = 400
"""At about 2 s each on two cores."""
_TILED_PX = 16384
"""The longest side of a satellite image that is made of tiles."""
_MULTIPLE_PX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What to draw: one description a frame, in the order of the walk."""

    route_file: str
    route_sha256: str
    route_km: float
    specs: tuple[RunSpec, ...]

    @classmethod
    def along(
        cls,
        path: Path,
        frames: int,
        fields: Mapping[str, object],
        *,
        heading_deg: float | None = None,
    ) -> "Walk":
        """Describe a walk along the line of a GeoJSON file.

        Args:
            path: The file.
            frames: How many panoramas, the first at the start and the last at the end.
            fields: What the RunSpecs of all frames have in common.
            heading_deg: Where the middle of all of them looks; without it the way of travel.

        Raises:
            TerrascapeError: Whatever the person can mend; a frame is named by its number.
        """
        route = read_route(path)
        stops = stops_along(route, frames)
        common: RunSpec | None = None
        specs = []
        for number, stop in enumerate(stops, start=1):
            heading = stop.heading_deg if heading_deg is None else heading_deg
            own = {"lat": stop.place.lat, "lon": stop.place.lon, "heading": heading}
            try:
                if common is None:  # files are read and fingerprinted once
                    common = RunSpec(**{**fields, **own, "kind": "panorama"}).pinned()  # type: ignore[arg-type]
                specs.append(dataclasses.replace(common, **own))  # type: ignore[arg-type]
            except InvalidSpecError as error:
                raise InvalidSpecError(f"frame {number} of {frames}: {error}") from None
        return cls(
            route_file=path.name,
            route_sha256=hashlib.sha256(read_bytes(path)).hexdigest(),
            route_km=sum(great_circle_km(a, b) for a, b in pairwise(route)),
            specs=tuple(specs),
        )


@dataclass(frozen=True, slots=True)
class Walked:
    """What came of a walk."""

    files: list[Path]
    """The frames in their order, the animation, and the list, last."""
    notes: list[str]
    drawn: int
    """Frames that were drawn now; the others were there already."""
    seconds: float


def render_walk(
    walk: Walk,
    out: Path,
    *,
    on_frame: Callable[[int, int], None] | None = None,
    on_ground: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
    online: bool = False,
) -> Walked:
    """Draw the frames of a walk that are not there yet, and list them all.

    Args:
        walk: What to draw.
        out: A folder that is there; frames that it holds whole are kept.
        on_frame: Told how many frames are done, and of how many.
        on_ground: Told ``(step, steps, preview)`` of a satellite image that is drawn at once, and
            of one in tiles how many of them are done, and of how many.
        cancelled: Asked before each step; frames that are finished stay.
        online: Whether the network may be used, as for one panorama.

    Raises:
        OutputError: Another walk is there, or nothing can be written.
        CancelledError: ``cancelled`` said so.
        TerrascapeError: Whatever else the person can mend.
    """
    began = time.perf_counter()
    weights = open_pipeline(walk.specs[0].model, online=online).sha256
    specs, notes = _on_one_ground(walk.specs, out, on_ground, cancelled, online)
    _check_list(out / LIST, specs, weights)
    frames, drawn = [], 0
    for number, spec in enumerate(specs, start=1):
        if cancelled is not None and cancelled():
            raise CancelledError(f"stopped after {number - 1} of {len(specs)} frames, as asked")
        done, _ = find_done(out, spec, model_sha256=lambda _: weights, online=online)
        if done is None:
            done = save_render(render(spec, cancelled=cancelled, online=online), out)[-1]
            drawn += 1
        notes += _notes_of(done)
        frames.append(done.with_suffix(".jpg"))
        if on_frame is not None:
            on_frame(number, len(specs))
    animation, listed = out / ANIMATION, out / LIST
    atomic_write(animation, animated([open_rgb(frame) for frame in frames]))
    atomic_write(listed, _list_bytes(walk, specs, weights, frames))
    files = [*frames, animation, listed]
    return Walked(files, list(dict.fromkeys(notes)), drawn, round(time.perf_counter() - began, 3))


def animated(frames: Sequence[UInt8[np.ndarray, "height width 3"]]) -> bytes:
    """Give frames as an animated WebP; equal frames give equal bytes."""
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    options = {"duration": FRAME_MS, "loop": 0, "quality": 90, "method": 4}
    first.save(buffer, "WEBP", save_all=True, append_images=others, **options)
    return buffer.getvalue()


def _notes_of(manifest: Path) -> list[str]:
    made = read_artifact(manifest).record.get("provenance")
    notes = made.get("notes") if isinstance(made, dict) else None
    return [str(note) for note in notes] if isinstance(notes, list) else []


def _check_list(path: Path, specs: Sequence[RunSpec], weights: str) -> None:
    """Refuse, before any work, a folder that holds the list of another walk."""
    if not path.exists():
        return
    try:
        told = json.loads(read_bytes(path))
        same = [frame["spec_sha256"] for frame in told["frames"]] == [s.sha256() for s in specs]
        same &= told["model_sha256"] == weights
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise OutputError(f"{path} lists another walk (give another folder)")


def _list_bytes(
    walk: Walk, specs: Sequence[RunSpec], weights: str, frames: Sequence[Path]
) -> bytes:
    first = specs[0]
    content = {
        "synthetic": True,
        "label": find(first.model).learnt,
        "model": first.model,
        "model_sha256": weights,
        "seed": first.seed,
        "path": {
            "file": walk.route_file,
            "sha256": walk.route_sha256,
            "km": round(walk.route_km, 3),
        },
        "satellite": Path(first.satellite).name,
        "animation": ANIMATION,
        "frames": [
            {
                "file": frame.name,
                "lat": spec.lat,
                "lon": spec.lon,
                "heading": spec.heading,
                "spec_sha256": spec.sha256(),
            }
            for spec, frame in zip(specs, frames, strict=True)
        ],
    }
    return json.dumps(content, indent=2, allow_nan=False).encode() + b"\n"


def _on_one_ground(
    specs: Sequence[RunSpec],
    out: Path,
    on_ground: OnStep | None,
    cancelled: Callable[[], bool] | None,
    online: bool,
) -> tuple[tuple[RunSpec, ...], list[str]]:
    """Let all frames look at one satellite image, drawn now if it is to be generated."""
    first = specs[0]
    if first.satellite not in ("auto", "generated"):
        return tuple(specs), []
    try:
        windows = [Window.around(Location(s.lat, s.lon), ZOOM, DRAWN_PX) for s in specs]
    except InvalidSpecError:
        if first.satellite == "generated":
            raise
        note = "no satellite image: along this path the map of the world ends"
        return tuple(dataclasses.replace(s, satellite="none") for s in specs), [note]
    side_px = _side_px(windows)
    drawn = (
        _drawn_at_once(specs, windows, side_px, out, on_ground, cancelled, online)
        if side_px <= MAX_DRAWN_PX
        else _drawn_in_tiles(specs, windows, out, on_ground, cancelled, online)
    )
    on_it = dataclasses.replace(first, satellite=str(drawn)).pinned()
    shared: dict[str, object] = {
        "satellite": on_it.satellite,
        "satellite_sha256": on_it.satellite_sha256,
    }
    if not find(first.model).reads_prompt:
        shared["prompt"] = ""  # the image was drawn to it, and that is all that reads it
    note = f"one satellite image for all frames, generated (synthetic): {drawn.name}"
    return tuple(dataclasses.replace(s, **shared) for s in specs), [note]  # type: ignore[arg-type]


def _box(windows: Sequence[Window]) -> tuple[int, int, int, int]:
    """Give left, top, right and bottom of all windows, the first where it is on the map."""
    size, start = world_px(ZOOM), windows[0].col_px
    lefts = [start + (w.col_px - start + size // 2) % size - size // 2 for w in windows]
    tops = [w.row_px for w in windows]
    return min(lefts), min(tops), max(lefts) + DRAWN_PX, max(tops) + DRAWN_PX


def _side_px(windows: Sequence[Window]) -> int:
    """Give the side of the square that holds all windows."""
    left, top, right, bottom = _box(windows)
    longest = max(right - left, bottom - top)
    return longest + 2 * _MULTIPLE_PX if longest > DRAWN_PX else longest


def _drawn_at_once(
    specs: Sequence[RunSpec],
    windows: Sequence[Window],
    side_px: int,
    out: Path,
    on_ground: OnStep | None,
    cancelled: Callable[[], bool] | None,
    online: bool,
) -> Path:
    """Draw one satellite image that holds the whole path, or find it; give its GeoTIFF."""
    from generation.pipelines.satellite import load_pipeline
    from generation.pipelines.satellite import render as render_satellite

    left, top, right, bottom = _box(windows)
    half = side_px / 2
    y = min(max((top + bottom) / 2, half), world_px(ZOOM) - half)  # not over the map's end
    middle = from_px((left + right) / 2, y, ZOOM)
    spec = satellite_spec(specs[0], middle, side_px)
    done, _ = find_done(
        out, spec, model_sha256=lambda name: load_pipeline(name).sha256, online=online
    )
    if done is None:
        drawn = render_satellite(spec, on_step=on_ground, cancelled=cancelled, online=online)
        done = save_render(drawn, out)[-1]
    return done.with_suffix(".tif")


def _drawn_in_tiles(
    specs: Sequence[RunSpec],
    windows: Sequence[Window],
    out: Path,
    on_ground: OnStep | None,
    cancelled: Callable[[], bool] | None,
    online: bool,
) -> Path:
    """Draw the tiles that the frames look at, each alone, into one GeoTIFF; give its path.

    Raises:
        InvalidSpecError: The path is too long.
    """
    from generation.pipelines.satellite import load_pipeline
    from generation.pipelines.satellite import render as render_satellite

    left, top, right, bottom = (edge // TILE_PX for edge in _box(windows))
    tiles = sorted(set(_tiles(specs, left)))
    cols, rows = right - left + 1, min(bottom + 1, world_px(ZOOM) // TILE_PX) - top
    if len(tiles) > MAX_TILES or max(cols, rows) * TILE_PX > _TILED_PX:
        raise InvalidSpecError(
            f"the path looks at {len(tiles)} tiles of a satellite image, {MAX_TILES} are drawn "
            "(give --satellite FILE or none, or a shorter path)"
        )
    plan = [satellite_spec(specs[0], _middle(tile), TILE_PX) for tile in tiles]
    weights = load_pipeline(plan[0].model).sha256
    about = {"model_sha256": weights, "tiles": [spec.to_dict() for spec in plan]}
    text = json.dumps(about, sort_keys=True)
    path = out / f"walk_satellite_{hashlib.sha256(text.encode()).hexdigest()[:12]}.tif"
    if path.exists():
        return path
    window = Window(ZOOM, left % 256 * TILE_PX, top * TILE_PX, cols * TILE_PX, rows * TILE_PX)
    rgb = np.zeros((window.height_px, window.width_px, 3), np.uint8)
    seen = np.zeros(rgb.shape[:2], np.uint8)
    for done, ((col, row), spec) in enumerate(zip(tiles, plan, strict=True), start=1):
        if cancelled is not None and cancelled():
            raise CancelledError("stopped while the satellite image was drawn, as asked")
        there = np.s_[
            (row - top) * TILE_PX : (row - top + 1) * TILE_PX,
            (col - left) * TILE_PX : (col - left + 1) * TILE_PX,
        ]
        rgb[there] = render_satellite(spec, cancelled=cancelled, online=online).image
        seen[there] = 255
        if on_ground is not None:
            on_ground(done, len(tiles), None)
    tags = {"TIFFTAG_SOFTWARE": "Terrascape", "SYNTHETIC": "true", "TERRASCAPE_TILES": text}
    atomic_write(path, geotiff_bytes(rgb, window, tags, seen))
    return path


def _tiles(specs: Sequence[RunSpec], left: int) -> Iterator[tuple[int, int]]:
    """Give column and row of each tile that a frame looks at; columns go on from the left one."""
    across = world_px(ZOOM) // TILE_PX
    for spec in specs:
        x, y = to_px(Location(spec.lat, spec.lon), ZOOM)
        reach = SIDE_PX / 2 + 2
        rows = range(max(0, int((y - reach) // TILE_PX)), int((y + reach) // TILE_PX) + 1)
        for col in range(int((x - reach) // TILE_PX), int((x + reach) // TILE_PX) + 1):
            for row in rows:
                if row < across:
                    yield left + (col - left) % across, row


def _middle(tile: tuple[int, int]) -> Location:
    col, row = tile
    return from_px((col + 0.5) * TILE_PX, (row + 0.5) * TILE_PX, ZOOM)
