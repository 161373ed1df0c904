"""The layout: what lies where, as a raster of classes with one documented palette.

Layers are painted bottom to top in the order of :data:`CLASSES`, so a road crosses a lake and a
lake lies in a forest whatever order a source lists them in. Areas are clipped to the window, never
clamped, and keep their holes; lines are widened by metres on the ground at their own middle
latitude, but to no less than one pixel, so a thin river stays connected. Every decision is made
per pixel centre in global web-mercator pixels, so neighbouring windows agree along their common
border.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8

from generation.errors import LayoutError
from generation.geo.mercator import Window, gsd_m, world_px


@dataclass(frozen=True, slots=True)
class LayoutClass:
    """One class of the palette."""

    index: int
    name: str
    rgb: tuple[int, int, int]
    meaning: str


CLASSES: tuple[LayoutClass, ...] = tuple(
    LayoutClass(index, name, rgb, meaning)
    for index, (name, rgb, meaning) in enumerate(
        [
            ("ocean", (120, 170, 220), "sea and everything that is not land"),
            ("land", (242, 239, 233), "land of unknown cover"),
            ("bare", (222, 205, 170), "desert, rock, sand"),
            ("grass", (200, 230, 150), "grassland, pasture, park"),
            ("savanna", (214, 214, 120), "grass with scattered trees"),
            ("crop", (238, 220, 110), "fields, orchards"),
            ("shrub", (190, 190, 140), "open or closed shrubland, heath"),
            ("forest", (100, 160, 90), "woods of any kind"),
            ("wetland", (140, 190, 170), "marsh, bog, mangrove"),
            ("urban", (190, 190, 200), "built-up ground"),
            ("glacier", (235, 250, 255), "ice and permanent snow"),
            ("lake", (70, 130, 200), "standing inland water"),
            ("river", (40, 90, 190), "running water"),
            ("road", (250, 150, 60), "roads and tracks"),
            ("rail", (90, 90, 90), "railways"),
            ("building", (170, 80, 70), "buildings"),
            ("boundary", (170, 60, 170), "borders (off unless a source draws them)"),
        ]
    )
)
LAYERS: tuple[str, ...] = tuple(c.name for c in CLASSES)
"""Layer names in painting order; the position is the class index."""
PALETTE: UInt8[np.ndarray, "classes 3"] = np.array([c.rgb for c in CLASSES], dtype=np.uint8)
WATER: tuple[int, ...] = tuple(LAYERS.index(name) for name in ("ocean", "lake", "river"))
MIN_LINE_PX = 1.0
"""The least width of a drawn line in pixels."""
MAP_TOLERANCE = 12
"""The most a channel may differ from a palette colour and still be read as it."""
MAX_OFF_PALETTE = 0.01
"""The largest share of pixels of a drawn map that may have no palette colour near them."""


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """One shape of a map."""

    geometry: object
    """A shapely geometry in EPSG:4326 (x = longitude, y = latitude)."""
    layer: str
    """A name of :data:`LAYERS`."""
    width_m: float | None = None
    """Width on the ground of a line; ignored for areas."""
    unit_square: bool = False
    """Whether the geometry was projected already (:func:`to_unit_square`)."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A class raster and the window it covers."""

    classes: UInt8[np.ndarray, "height width"]
    window: Window
    source: str
    attribution: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        expected = (self.window.height_px, self.window.width_px)
        if self.classes.shape != expected:
            raise LayoutError(
                f"layout of {self.classes.shape[1]}x{self.classes.shape[0]} px does not fit the "
                f"window of {expected[1]}x{expected[0]} px (draw it at the size of the image)"
            )
        if self.classes.size and int(self.classes.max()) >= len(CLASSES):
            raise LayoutError(
                f"layout class {int(self.classes.max())} does not exist "
                f"(0 to {len(CLASSES) - 1}; see the palette)"
            )

    def rgb(self) -> UInt8[np.ndarray, "height width 3"]:
        """Give the layout as an image in the palette's colours."""
        return PALETTE[self.classes]

    @classmethod
    def from_rgb(
        cls, pixels: UInt8[np.ndarray, "height width 3"], window: Window, source: str
    ) -> "Layout":
        """Read a drawn map back into classes.

        Args:
            pixels: An image in the palette's colours.
            window: What it covers; same size as the image.
            source: Where it comes from, for the record.

        Raises:
            LayoutError: More than ``MAX_OFF_PALETTE`` of the pixels have no palette colour within
                ``MAP_TOLERANCE``: a photograph, not a map.
        """
        colours, inverse = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
        counts = np.bincount(inverse.ravel(), minlength=len(colours))
        distance = np.abs(colours[:, None].astype(np.int16) - PALETTE[None].astype(np.int16))
        nearest = distance.max(-1)  # (colours, classes)
        off = float(counts[nearest.min(1) > MAP_TOLERANCE].sum() / max(1, counts.sum()))
        if off > MAX_OFF_PALETTE:
            raise LayoutError(
                f"{source}: {off:.0%} of the pixels have no colour of the layout palette "
                f"(at most {MAX_OFF_PALETTE:.0%} may; draw with the palette that the guide shows, "
                "without smoothing)"
            )
        classes = nearest.argmin(1).astype(np.uint8)[inverse.ravel()].reshape(pixels.shape[:2])
        return cls(classes=classes, window=window, source=source)


def rasterize(
    features: Sequence[Feature],
    window: Window,
    base: UInt8[np.ndarray, "height width"] | None = None,
) -> UInt8[np.ndarray, "height width"]:
    """Paint features over a base.

    Args:
        features: Shapes in degrees, in any order.
        window: What the raster covers.
        base: Classes to paint on; all ``land`` when absent.

    Returns:
        Class indices, one a pixel.

    Raises:
        LayoutError: A feature names a layer that does not exist.
    """
    from rasterio import features as raster_features

    shape = (window.height_px, window.width_px)
    out = np.full(shape, LAYERS.index("land"), np.uint8) if base is None else base.copy()
    painted: list[tuple[int, object]] = []
    for feature in features:
        if feature.layer not in LAYERS:
            raise LayoutError(
                f"layer {feature.layer!r} is unknown (one of {', '.join(LAYERS)}; rename it)"
            )
        shape_px = _to_window_px(feature, window)
        if shape_px is not None:
            painted.append((LAYERS.index(feature.layer), shape_px))
    if painted:
        painted.sort(key=lambda item: item[0])
        raster_features.rasterize(((s, index) for index, s in painted), out=out)
    return out


def _to_window_px(feature: Feature, window: Window) -> object | None:
    """Project a feature to the window's pixels, widen lines, clip; ``None`` if nothing is left."""
    import shapely

    geometry = feature.geometry
    if shapely.is_empty(geometry):
        return None
    if not feature.unit_square:
        geometry = shapely.transform(geometry, to_unit_square)
    half_px = _half_width_px(geometry, feature.width_m or 0.0, window.zoom)
    size, margin = world_px(window.zoom), 4.0 + 2 * half_px
    clipped = shapely.clip_by_rect(
        geometry,
        (window.col_px - margin) / size,
        (window.row_px - margin) / size,
        (window.col_px + window.width_px + margin) / size,
        (window.row_px + window.height_px + margin) / size,
    )
    in_px = shapely.transform(
        clipped, lambda xy: xy * size - np.array([window.col_px, window.row_px])
    )
    widened = shapely.buffer(in_px, half_px, quad_segs=4) if half_px else in_px
    return None if shapely.is_empty(widened) else widened


def _half_width_px(line: object, width_m: float, zoom: int) -> float:
    """Give half the drawn width of a line in the unit square; 0 for anything but a line.

    The ground sample distance is that of the line's own middle and not of the window, so a line
    is as wide in one window as in the next.
    """
    import shapely

    if shapely.get_dimensions(line) != 1:
        return 0.0
    _, top, _, bottom = shapely.bounds(line)
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - top - bottom))))
    return max(width_m / gsd_m(float(lat), zoom), MIN_LINE_PX) / 2


def to_unit_square(lonlat: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Project (lon, lat) degrees to web mercator with the whole map as the unit square, y down.

    Straight edges stay straight from here to the pixels of any window, so clipping bends nothing.
    Latitudes beyond the map are moved to its far outside, where they are clipped away.
    """
    lat = np.radians(np.clip(lonlat[:, 1], -89.9, 89.9))
    return np.stack([(lonlat[:, 0] + 180) / 360, (1 - np.arcsinh(np.tan(lat)) / np.pi) / 2], axis=1)
