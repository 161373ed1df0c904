"""The shapes of a map file, mended, indexed and drawn: what all vector sources share.

A source reads a file or asks a server and gives a :class:`ShapeSet`; everything after that
(mending, shorelines, choosing what lies in a window, painting) happens here, once.

The ground under the shapes is that of the embedded world layers. A street map rarely covers its
ground without gaps, so a file is drawn *on top* of what is known offline; the note of the layout
says so. Its shoreline, where it has one, replaces the embedded one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import shapely
from jaxtyping import UInt8
from shapely.geometry.base import BaseGeometry

from generation.geo.coast import Shore, divide
from generation.geo.layers import SHARP_ZOOM, EmbeddedSource, ground_cover
from generation.geo.layout import LAYERS, Feature, Layout, rasterize
from generation.geo.mercator import Window, world_px
from generation.geo.tags import COASTLINE, MAX_WIDTH_M

GROUND: tuple[str, ...] = LAYERS[LAYERS.index("land") : LAYERS.index("lake")]
"""Layers that say what the ground is made of."""
M_PER_DEG = 111_320.0
"""Metres in a degree of latitude."""
BASES: tuple[str, ...] = ("embedded", "land")
"""What may lie under a file's shapes: the world layers, or plain land (the same everywhere)."""


@dataclass(frozen=True, slots=True, eq=False)
class MapShape:
    """One shape of a map with the way it is drawn."""

    geometry: BaseGeometry
    """EPSG:4326, x = longitude; polygons or lines, valid and not empty."""
    layer: str
    """A name of ``LAYERS``, or ``COASTLINE``."""
    width_m: float | None = None
    from_zoom: int = 0


def mend(geometry: BaseGeometry | None) -> tuple[BaseGeometry | None, bool]:
    """Make a geometry drawable: valid, and made of polygons or of lines only.

    Args:
        geometry: Anything that a file may hold.

    Returns:
        The polygons of it, else its lines, else ``None`` for points and for what is empty; and
        whether it had to be changed because it was invalid (a ring that crosses itself).
    """
    if geometry is None or shapely.is_empty(geometry):
        return None, False
    broken = not shapely.is_valid(geometry)
    whole = shapely.make_valid(geometry) if broken else geometry
    dimension = int(shapely.get_dimensions(geometry))
    kinds = {1: ("LineString", "LinearRing"), 2: ("Polygon",)}.get(dimension, ())
    parts = [p for p in _parts(whole) if p.geom_type in kinds and not p.is_empty]
    if not parts:
        return None, broken
    if len(parts) == 1:
        return parts[0], broken
    multi = shapely.multipolygons if dimension == 2 else shapely.multilinestrings
    return multi(parts), broken


def _parts(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Take nested collections apart."""
    if geometry.geom_type == "GeometryCollection":
        return [leaf for part in shapely.get_parts(geometry) for leaf in _parts(part)]
    return list(shapely.get_parts(geometry))


def window_boxes(window: Window, pad_px: float = 0.0) -> list[tuple[Window, BaseGeometry]]:
    """Give a window as boxes in degrees, the part beyond the antimeridian as a second one.

    Args:
        window: What is drawn.
        pad_px: Pixels to add on every side, for the width of lines.

    Returns:
        Pairs of the window that a box belongs to (shifted by the world's width for the part beyond
        longitude 180) and the box itself.
    """
    size = world_px(window.zoom)
    shifts = [0, size] if window.col_px + window.width_px > size else [0]
    boxes = []
    for shift in shifts:
        col = window.col_px - shift
        part = Window(window.zoom, col, window.row_px, window.width_px, window.height_px)
        x = np.array([col - pad_px, col + window.width_px + pad_px])
        y = np.array([window.row_px - pad_px, window.row_px + window.height_px + pad_px])
        west, east = np.clip(x / size * 360 - 180, -180, 180)
        north, south = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y / size))))
        boxes.append((part, shapely.box(west, south, east, north)))
    return boxes


@dataclass(eq=False)
class ShapeSet:
    """All shapes of one map, indexed."""

    shapes: Sequence[MapShape]
    source: str
    """Provenance for the record."""
    attribution: str
    notes: tuple[str, ...] = ()
    """What was changed while reading, in words fit to be shown."""
    extent: tuple[float, float, float, float] | None = field(default=None)
    """West, south, east, north of what the source covers; from the shapes when absent."""

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees."""
        if self.extent is not None:
            return self.extent
        west, south, east, north = shapely.total_bounds([s.geometry for s in self.shapes])
        return float(west), float(south), float(east), float(north)

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree([s.geometry for s in self.shapes])

    @cached_property
    def _coastlines(self) -> list[BaseGeometry]:
        return [s.geometry for s in self.shapes if s.layer == COASTLINE]

    @cached_property
    def _whole_shore(self) -> Shore | None:
        return divide(self._coastlines, self.bounds) if self._coastlines else None

    def shore(self, box: BaseGeometry) -> Shore | None:
        """Give sea and land as the coastlines part them; ``None`` without coastlines.

        They are parted over the whole map, so that neighbouring windows agree also where only one
        of them has a coastline. Where the map's coastlines are cut off, as at the ragged edge of an
        extract, they are parted over the box alone.
        """
        whole = self._whole_shore
        if whole is None or not whole.note:
            return whole
        return divide(self._coastlines, box.bounds) or whole

    def within(self, box: BaseGeometry) -> list[MapShape]:
        """Choose the shapes that touch a box, in their own order."""
        hits = np.sort(self._tree.query(box, predicate="intersects"))
        return [self.shapes[int(i)] for i in hits]

    def covers(self, window: Window) -> bool:
        """Whether anything of the map lies in a window."""
        for _, box in window_boxes(window):
            if self.within(box):
                return True
            shore = self._whole_shore
            if shore is not None and (shore.sea.intersects(box) or shore.land.intersects(box)):
                return True
        return False

    def draw(self, window: Window, *, base: str = "embedded") -> Layout:
        """Draw the shapes over the ground.

        Args:
            window: What to draw.
            base: One of ``BASES``.

        Returns:
            The layout, with the notes of reading and of drawing.
        """
        classes, attribution, notes = _ground(window, base)
        hidden = 0
        pad_px = 4 + MAX_WIDTH_M / window.gsd_m
        for part, box in window_boxes(window, pad_px):
            shore = self.shore(box)
            if shore is not None:
                classes = shore.paint(part, classes)
                notes += (shore.note,) if shore.note else ()
            chosen = [s for s in self.within(box) if s.layer != COASTLINE]
            shown = [s for s in chosen if s.from_zoom <= window.zoom]
            hidden += len(chosen) - len(shown)
            classes = rasterize(nest(shown), part, classes)
        if hidden:
            notes += (f"{hidden} small features are left out at zoom {window.zoom}",)
        credits_ = " ".join(text for text in (self.attribution, attribution) if text)
        return Layout(classes, window, self.source, credits_, self.notes + notes)


def _ground(
    window: Window, base: str
) -> tuple[UInt8[np.ndarray, "height width"], str, tuple[str, ...]]:
    """Give what lies under the shapes, its attribution and its notes.

    The embedded rivers are dropped where they are coarser than a pixel: beside the true river of a
    street map they would be a second, wrong one.
    """
    if base == "land":
        shape = (window.height_px, window.width_px)
        return np.full(shape, LAYERS.index("land"), np.uint8), "", ()
    under = EmbeddedSource().layout(window)
    classes = under.classes
    if window.zoom > SHARP_ZOOM:
        wet = classes == LAYERS.index("river")
        classes = np.where(wet, ground_cover(window), classes).astype(np.uint8)
    return classes, under.attribution, (*under.notes, "gaps show the embedded world layers")


def nest(shapes: Sequence[MapShape]) -> list[Feature]:
    """Let a small patch of ground show through a larger one that is painted above it.

    Layers are painted in a fixed order, in which built-up ground covers grass; but a town's outline
    is mapped as one area with its parks inside. So every area of ground gives way to the smaller
    areas of lower layers that lie in it. Only whole areas are compared, so neighbouring windows
    agree.
    """
    depth = {name: i for i, name in enumerate(GROUND)}
    ground = [
        (s, float(s.geometry.area))
        for s in shapes
        if s.layer in depth and shapely.get_dimensions(s.geometry) == 2
    ]
    tree = shapely.STRtree([s.geometry for s, _ in ground])
    areas = {id(s): area for s, area in ground}
    out = []
    for shape in shapes:
        geometry = shape.geometry
        if id(shape) in areas and depth[shape.layer] > 0:
            holes = [
                ground[int(i)][0].geometry
                for i in tree.query(geometry, predicate="intersects")
                if depth[ground[int(i)][0].layer] < depth[shape.layer]
                and ground[int(i)][1] < areas[id(shape)]
            ]
            if holes:
                geometry = mend(geometry.difference(shapely.union_all(holes)))[0]
        if geometry is not None:
            out.append(Feature(geometry, shape.layer, shape.width_m))
    return out
