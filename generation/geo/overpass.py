"""Layouts from an Overpass server: bounded in tries and time, and kept on disk.

A query never takes longer than ``TOTAL_S``, whatever the resolver, the server or the line do: it
runs in a thread of its own that is given up at the deadline. It still blocks its caller for that
long, so keep it off a user interface's thread.
"""

import contextlib
import hashlib
import json
import math
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from generation.errors import LayoutError, NetworkError
from generation.geo.layout import Layout
from generation.geo.mercator import Window
from generation.geo.osm import ATTRIBUTION, Call, Row, query
from generation.geo.shapes import MapShape, ShapeSet, mend, window_boxes
from generation.geo.tags import QUERY, RULES, classify

ENDPOINT = "https://overpass-api.de/api"
TRIES = 3
TOTAL_S = 60.0
"""The most seconds that all tries and waits of one query may take together."""
MIN_ZOOM = 13
"""Below it a window holds more streets than a public server should be asked for."""
MAX_SIDE_KM = 30.0
SNAP_DEG = 0.002
"""Query boxes are widened to this grid, so windows a few pixels apart share an answer."""


def shapes_from_rows(rows: list[Row]) -> tuple[list[MapShape], int]:
    """Apply the tag table to features.

    Returns:
        The shapes that are drawn, and how many of them had to be mended.
    """
    shapes, mended = [], 0
    for tags, geometry in rows:
        rule = classify(tags, is_area=geometry.geom_type.endswith("Polygon"))
        if rule is None:
            continue
        whole, broken = mend(geometry)
        mended += broken
        if whole is not None:
            shapes.append(MapShape(whole, rule.layer, rule.width_m, rule.from_zoom))
    return shapes, mended


@dataclass(frozen=True)
class OverpassSource:
    """Street maps from the network, when the person asked for it."""

    cache_dir: Path
    endpoint: str = ENDPOINT
    total_s: float = TOTAL_S
    """Bound of one query with all its tries, in seconds."""

    def layout(self, window: Window) -> Layout:
        """Fetch and draw a window; the second time it comes from the disk.

        Args:
            window: No larger than ``MAX_SIDE_KM``, at zoom ``MIN_ZOOM`` or above.

        Raises:
            LayoutError: The window is too large to ask for.
            NetworkError: No answer within the bounds.
        """
        side_km = max(window.width_px, window.height_px) * window.gsd_m / 1000
        if window.zoom < MIN_ZOOM or side_km > MAX_SIDE_KM:
            raise LayoutError(
                f"a window of {side_km:.0f} km at zoom {window.zoom} is too large to ask a map "
                f"server for (zoom {MIN_ZOOM} or above and at most {MAX_SIDE_KM:.0f} km; zoom in, "
                "or leave out --online)"
            )
        shapes: list[MapShape] = []
        notes: list[str] = []
        boxes = [_snapped(box) for _, box in window_boxes(window, pad_px=4.0)]
        deadline_s = time.monotonic() + self.total_s  # one for both sides of the antimeridian
        for box in boxes:
            found, when, note = self._shapes(box, deadline_s)
            shapes += found
            notes += [n for n in (note,) if n]
        source = f"OpenStreetMap through {self.endpoint}, fetched {when}"
        if not shapes:
            notes.append("the map server knows nothing drawable here")
        extent = boxes[0] if len(boxes) == 1 else (-180.0, boxes[0][1], 180.0, boxes[0][3])
        return ShapeSet(shapes, source, ATTRIBUTION, tuple(notes), extent).draw(window)

    def _shapes(
        self, box: tuple[float, float, float, float], deadline_s: float
    ) -> tuple[list[MapShape], str, str]:
        """Give the shapes of a box, the day they were fetched and a note if they were mended."""
        path = self.cache_dir / f"{self._key(box)}.geojson"
        kept = _read_cache(path)
        if kept is not None:
            return kept
        shapes, mended = shapes_from_rows(self._fetch(box, deadline_s))
        when = time.strftime("%Y-%m-%d", time.gmtime())
        note = f"{mended} self-intersecting areas were repaired" if mended else ""
        try:
            _write_cache(path, shapes, when, note)
        except OSError as error:
            return shapes, when, f"the answer was not kept: {error.strerror or error}"
        return shapes, when, note

    def _key(self, box: tuple[float, float, float, float]) -> str:
        """Name an answer by all that it depends on, the tag table included."""
        parts = (self.endpoint, [f"{v:.3f}" for v in box], repr(QUERY), repr(RULES))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _fetch(self, box: tuple[float, float, float, float], deadline_s: float) -> list[Row]:
        """Ask at most ``TRIES`` times before the deadline, waiting as the server wishes."""
        for attempt in range(1, TRIES + 1):
            call = Call(deadline_s)
            try:
                return _in_thread(box, self.endpoint, call)
            except NetworkError as error:
                if not call.may_retry or attempt == TRIES:
                    raise
                wait_s = 2.0**attempt if call.retry_after_s is None else call.retry_after_s
                if wait_s >= call.left_s:
                    raise NetworkError(
                        f"{error}; the next try would be in {wait_s:.0f} s, past the limit of "
                        f"{self.total_s:g} s"
                    ) from error
                time.sleep(wait_s)
        raise NetworkError("no try was made (TRIES must be at least 1; restore it)")


def _in_thread(box: tuple[float, float, float, float], endpoint: str, call: Call) -> list[Row]:
    """Run one request in a thread that is left behind at the deadline.

    Sockets have time limits, name resolution and a server that sends a byte now and then have none.
    """
    rows: list[Row] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            rows.extend(query(box, endpoint, call))
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="overpass", daemon=True)
    thread.start()
    thread.join(max(0.0, call.left_s))
    if thread.is_alive():
        call.may_retry = False
        raise NetworkError(
            f"the map server {endpoint.split('//')[-1]} did not answer in time (try again later, "
            "or leave out --online)"
        )
    if errors:
        raise errors[0]
    return rows


def _snapped(box: BaseGeometry) -> tuple[float, float, float, float]:
    west, south, east, north = box.bounds
    low = [math.floor(v / SNAP_DEG) * SNAP_DEG for v in (west, south)]
    high = [math.ceil(v / SNAP_DEG) * SNAP_DEG for v in (east, north)]
    return max(-180.0, low[0]), max(-90.0, low[1]), min(180.0, high[0]), min(90.0, high[1])


def _read_cache(path: Path) -> tuple[list[MapShape], str, str] | None:
    """Read a kept answer; a damaged one counts as absent and is fetched again."""
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        shapes = [
            MapShape(
                shapely.from_geojson(json.dumps(row["geometry"])),
                row["properties"]["layer"],
                row["properties"]["width_m"],
                row["properties"]["from_zoom"],
            )
            for row in data["features"]
        ]
        return shapes, str(data["fetched"]), str(data["note"])
    except (OSError, ValueError, KeyError, TypeError, shapely.GEOSException):
        return None


def _write_cache(path: Path, shapes: list[MapShape], when: str, note: str) -> None:
    """Keep an answer as GeoJSON: whole or not at all."""
    features = [
        {
            "type": "Feature",
            "properties": {"layer": s.layer, "width_m": s.width_m, "from_zoom": s.from_zoom},
            "geometry": json.loads(shapely.to_geojson(s.geometry)),
        }
        for s in shapes
    ]
    data = {
        "type": "FeatureCollection",
        "fetched": when,
        "note": note,
        "attribution": ATTRIBUTION,
        "features": features,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(data, allow_nan=False).encode())
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
