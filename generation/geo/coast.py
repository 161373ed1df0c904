"""Coastlines to sea and land.

OpenStreetMap has no sea polygons, only coastlines with the land on their left and the water on
their right. Inside a box they part the plane into faces; each face is sea or land by the side on
which it lies of the coastlines that bound it, counted over all of their segments. A face that the
lines contradict each other about (a coastline that ends inside the box, as at the ragged edge of an
extract) is left to the embedded world layers, and a note says so.

Source:
    wiki.openstreetmap.org/wiki/Tag:natural=coastline (direction of the ways).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Float64, UInt8
from shapely.geometry.base import BaseGeometry

from generation.geo.layers import ground_cover
from generation.geo.layout import LAYERS, Feature, rasterize
from generation.geo.mercator import Window

STEP_DEG = 2e-7
"""How far beside a coastline its sides are probed (about 2 cm)."""
MAX_DISSENT = 0.2
"""The largest share of the probes of a face that may disagree with the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Shore:
    """Sea and land inside a box, both in EPSG:4326."""

    sea: BaseGeometry
    land: BaseGeometry
    note: str = ""

    def paint(
        self, window: Window, classes: UInt8[np.ndarray, "height width"]
    ) -> UInt8[np.ndarray, "height width"]:
        """Correct the ocean of a raster: sea becomes ocean, ocean on land becomes ground."""
        marks = np.full_like(classes, LAYERS.index("boundary"))
        faces = [Feature(g, n) for g, n in ((self.sea, "ocean"), (self.land, "land"))]
        marks = rasterize(faces, window, marks)
        ocean = np.uint8(LAYERS.index("ocean"))
        out = np.where(marks == ocean, ocean, classes)
        dried = (marks == LAYERS.index("land")) & (classes == ocean)
        return np.where(dried, ground_cover(window), out).astype(np.uint8) if dried.any() else out


def divide(
    lines: Sequence[BaseGeometry], bounds: tuple[float, float, float, float]
) -> Shore | None:
    """Part a box into sea and land.

    Args:
        lines: Coastlines in EPSG:4326, land on their left; an island mapped as a polygon is land.
        bounds: West, south, east, north of the box.

    Returns:
        The faces; ``None`` if no coastline enters the box, or the box has no area.
    """
    west, south, east, north = bounds
    if not (west < east and south < north):  # all that is known lies on one line: no area to part
        return None
    segments = _segments([_directed(line) for line in lines], bounds)
    if not len(segments):
        return None
    frame = shapely.box(*bounds)
    edges = shapely.union_all([frame.boundary, *shapely.linestrings(segments)])
    faces = shapely.get_parts(shapely.polygonize([edges]))
    if not len(faces):
        return None
    share, counted = _land_share(faces, segments)
    land = counted & (share >= 1 - MAX_DISSENT)
    sea = counted & (share <= MAX_DISSENT)
    open_ = int((counted & ~land & ~sea).sum())
    note = (
        f"{open_} coastal areas have an unfinished coastline; the embedded shore is shown there"
        if open_
        else ""
    )
    return Shore(shapely.union_all(faces[sea]), shapely.union_all(faces[land]), note)


def _directed(line: BaseGeometry) -> BaseGeometry:
    """Turn an island's polygon into its ring with the land on the left."""
    if shapely.get_dimensions(line) < 2:
        return line
    islands = shapely.get_parts(shapely.orient_polygons(line))
    return shapely.multilinestrings(
        [
            shapely.linestrings(shapely.get_coordinates(shapely.get_exterior_ring(island)))
            for island in islands
        ]
    )


def _segments(
    lines: Sequence[BaseGeometry], bounds: tuple[float, float, float, float]
) -> Float64[np.ndarray, "n 2 2"]:
    """Give the directed segments of lines as far as they lie in a box."""
    parts = shapely.get_parts(np.array(lines, dtype=object))
    points, owner = shapely.get_coordinates(parts, return_index=True)
    joined = owner[1:] == owner[:-1]
    pairs = np.stack([points[:-1], points[1:]], axis=1)[joined]
    pairs = pairs[(pairs[:, 0] != pairs[:, 1]).any(1)]
    clipped = shapely.clip_by_rect(shapely.linestrings(pairs), *bounds)
    kept = np.flatnonzero(~shapely.is_empty(clipped) & (shapely.get_num_points(clipped) == 2))
    if not len(kept):
        return np.zeros((0, 2, 2))
    inside = shapely.get_coordinates(clipped[kept]).reshape(-1, 2, 2)
    along = ((inside[:, 1] - inside[:, 0]) * (pairs[kept, 1] - pairs[kept, 0])).sum(1)
    inside[along < 0] = inside[along < 0, ::-1]  # clipping may turn a segment round
    return inside


def _land_share(
    faces: np.ndarray, segments: Float64[np.ndarray, "n 2 2"]
) -> tuple[Float64[np.ndarray, " faces"], np.ndarray]:
    """Count, by length, how much of each face's coast has it on the land side."""
    step = segments[:, 1] - segments[:, 0]
    length = np.hypot(step[:, 0], step[:, 1])
    left = np.stack([-step[:, 1], step[:, 0]], axis=1) / length[:, None] * STEP_DEG
    middle = segments.mean(1)
    votes = np.zeros((2, len(faces)))
    tree = shapely.STRtree(faces)
    for side, sign in ((0, 1.0), (1, -1.0)):
        probe, face = tree.query(shapely.points(middle + sign * left), predicate="within")
        np.add.at(votes[side], face, length[probe])
    total = votes.sum(0)
    return np.divide(votes[0], total, out=np.full(len(faces), 0.5), where=total > 0), total > 0
