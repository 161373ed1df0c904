"""Soundscape maps as pictures: colours that all can tell apart, shores, degrees and a legend."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from generation.geo.grid import MapGrid
from generation.geo.layers import EmbeddedSource, ground_cover
from generation.geo.layout import LAYERS, PALETTE
from generation.geo.location import Location
from generation.geo.mercator import MAX_ZOOM, Window, to_px
from generation.media.image import png_bytes
from generation.media.lettering import font
from generation.pipelines.maps import SoundMap
from generation.pipelines.maps_cache import MapCache

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

LIKELY = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58",
          "#b5de2b", "#fde725")  # fmt: skip
"""Ten colours of viridis: even steps of lightness, and no pair of red and green.

Source:
    Smith and van der Walt, "A better default colormap for matplotlib" (SciPy 2015); CC0.
"""
UNSURE = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369",
          "#e1cc55", "#fee838")  # fmt: skip
"""Ten colours of cividis, which looks alike with and without colour blindness.

Source:
    Nunez, Anderton and Renslow, "Optimizing colormaps with consideration for color vision
    deficiency" (PLOS ONE 13, 2018); CC0.
"""
RANGE_PERCENT = (2.0, 98.0)
"""The scores between which colours change; what lies beyond has the colour of the end."""
PANEL_PX = 640
"""A panel's longer side is at least this and below twice this."""
_MARGIN_PX, _LEGEND_PX, _LEAST_PX = 56, 112, 520
_STEPS_DEG = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
_INK, _SOFT, _PAPER = (20, 20, 20), (90, 90, 90), (255, 255, 255)
_LINE = 0.35
"""How far meridians and parallels brighten what they cross."""
COARSE_ZOOM = 4
"""Up to here the water of the ground cover is as fine as pixels; all shores would be too many."""
_PALE = 0.55
"""How far the base map, shown where there is no score, fades to white."""


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One quantity of a map, as it is drawn."""

    title: str
    values: Float32[np.ndarray, "rows cols"]
    colours: tuple[str, ...]


def colour_range(values: Float32[np.ndarray, "rows cols"]) -> tuple[float, float]:
    """Give the values that the first and the last colour stand for.

    Args:
        values: NaN where there is none; some must not be.
    """
    low, high = np.nanpercentile(values, RANGE_PERCENT).tolist()
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def coloured(
    values: Float32[np.ndarray, "rows cols"], ends: tuple[float, float], colours: Sequence[str]
) -> UInt8[np.ndarray, "rows cols 3"]:
    """Colour values; NaN as the lowest."""
    low, high = ends
    share = np.nan_to_num((values.astype(np.float64) - low) / (high - low)).clip(0, 1)
    stops = np.array([tuple(bytes.fromhex(colour[1:])) for colour in colours], np.float64)
    at = np.linspace(0, 1, len(stops))
    bands = [np.interp(share, at, stops[:, band]) for band in range(3)]
    return np.stack(bands, -1).round().astype(np.uint8)


def overlay_png(found: SoundMap, opacity: float = 0.75) -> bytes:
    """Give the scores as a transparent picture, one pixel a cell, to be laid over another map.

    Args:
        found: The map; its grid's bounds are those of the picture.
        opacity: Of cells with a score, 0 to 1; the others are not seen.
    """
    from io import BytesIO

    from PIL import Image

    rgb = coloured(found.scores, colour_range(found.scores), LIKELY)
    alpha = np.where(np.isnan(found.scores), 0, round(255 * opacity)).astype(np.uint8)
    out = BytesIO()
    Image.fromarray(np.dstack([rgb, alpha])).save(out, "PNG")
    return out.getvalue()


def map_png(
    found: SoundMap, title: str, credit: str, text: dict[str, str], cache: MapCache | None = None
) -> bytes:
    """Draw a map for people: title, scores and their uncertainty, shores, degrees, legends.

    Args:
        found: The map.
        title: What was asked for.
        credit: Small print below.
        text: Stored in the picture.
        cache: Keeps the base map.
    """
    from PIL import Image, ImageDraw

    panels = [Panel(f"likeness ({found.unit})", found.scores, LIKELY)]
    if found.uncertainty is not None:
        panels.append(Panel("uncertainty (sum of standard deviations)", found.uncertainty, UNSURE))
    base = base_classes(found.grid, cache)
    pictures = [_panel(panel, base, found.grid) for panel in panels]
    height, width = base.shape
    across = width + 2 * _MARGIN_PX
    total = max(_LEAST_PX, across * len(panels))
    heading, print_ = _wrapped(title, total, 18), _wrapped(credit, total, 12)
    top = 24 + 24 * len(heading)
    bottom = top + 24 + height + 28 + _LEGEND_PX
    canvas = Image.new("RGB", (total, bottom + 16 * len(print_) + 12), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(heading):
        draw.text((_MARGIN_PX, 14 + 24 * number), line, _INK, font(18))
    for number, (panel, picture) in enumerate(zip(panels, pictures, strict=True)):
        left = number * across + _MARGIN_PX
        draw.text((left, top), panel.title, _INK, font(14))
        canvas.paste(Image.fromarray(picture), (left, top + 24))
        _draw_degrees(draw, found.grid, (left, top + 24, width, height))
        _draw_legend(draw, canvas, panel, (left, top + height + 56, width))
    for number, line in enumerate(print_):
        draw.text((_MARGIN_PX, bottom + 16 * number), line, _SOFT, font(12))
    return png_bytes(np.asarray(canvas), text)


def _scale(grid: MapGrid) -> int:
    """Give the power of two by which cells become pixels of a panel; below zero they shrink."""
    return int(np.floor(np.log2(2 * PANEL_PX / max(grid.rows, grid.cols))))


def base_classes(grid: MapGrid, cache: MapCache | None = None) -> UInt8[np.ndarray, "h w"]:
    """Give the embedded layout under a map, in the pixels of its panel."""
    scale = _scale(grid)
    zoom = grid.zoom - int(np.log2(grid.cell_px)) + scale
    coarser = max(0, zoom - MAX_ZOOM)
    each = 2.0 ** (scale - coarser)
    top, left = (edge // grid.cell_px for edge in (grid.window.row_px, grid.window.col_px))
    rows, cols = (max(1, int(count * each)) for count in (grid.rows, grid.cols))
    window = Window(zoom - coarser, int(left * each), int(top * each), cols, rows)
    shelf = cache.shelf(kind="base") if cache is not None else None
    name = f"{window.zoom}-{window.col_px}-{window.row_px}-{cols}-{rows}"
    kept = (shelf.load(name) or {}).get("classes") if shelf is not None else None
    if kept is None or kept.shape != (rows, cols) or kept.dtype != np.uint8:
        kept = _drawn_base(window)
        if shelf is not None:
            shelf.save(name, {"classes": kept})
    return kept.repeat(2**coarser, 0).repeat(2**coarser, 1)


def _drawn_base(window: Window) -> UInt8[np.ndarray, "h w"]:
    if window.zoom > COARSE_ZOOM:
        return EmbeddedSource().layout(window).classes
    classes = ground_cover(window)
    return np.where(classes == LAYERS.index("lake"), LAYERS.index("ocean"), classes).astype(
        np.uint8
    )


def _panel(
    panel: Panel, base: UInt8[np.ndarray, "h w"], grid: MapGrid
) -> UInt8[np.ndarray, "h w 3"]:
    """Lay coloured values over the pale base map and draw the shores on top."""
    values = _fitted(panel.values, base.shape)
    rgb = coloured(values, colour_range(panel.values), panel.colours)
    pale = PALETTE[base] * (1 - _PALE) + 255 * _PALE
    out = np.where(np.isnan(values)[..., None], pale.astype(np.uint8), rgb)
    out = _gridded(out, grid)
    out[_edges(base == LAYERS.index("lake"))] = _SOFT
    out[_edges(base == LAYERS.index("ocean"))] = _INK
    return out


def _edges(inside: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Give the pixels inside that touch one outside."""
    edge = np.zeros_like(inside)
    edge[1:] |= inside[1:] & ~inside[:-1]
    edge[:-1] |= inside[:-1] & ~inside[1:]
    edge[:, 1:] |= inside[:, 1:] & ~inside[:, :-1]
    edge[:, :-1] |= inside[:, :-1] & ~inside[:, 1:]
    return edge


def _fitted(
    values: Float32[np.ndarray, "rows cols"], shape: tuple[int, ...]
) -> Float32[np.ndarray, "h w"]:
    """Repeat cells, or leave some out, until they fill the panel."""
    rows = np.arange(shape[0]) * values.shape[0] // shape[0]
    cols = np.arange(shape[1]) * values.shape[1] // shape[1]
    return values[np.ix_(rows, cols)]


def round_degrees(low: float, high: float) -> list[float]:
    """Give round degrees between two, about five of them."""
    step = next((s for s in _STEPS_DEG if (high - low) / s <= 6), _STEPS_DEG[-1])
    return [float(step * n) for n in range(int(np.ceil(low / step)), int(high // step) + 1)]


def _lines(grid: MapGrid) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """Give meridians and parallels: their shares of width and height, and their names."""
    region, window = grid.bounds, grid.window
    east = region.east + (360 if region.east <= region.west else 0)
    meridians = [
        ((lon - region.west) / (east - region.west), _named((lon + 180) % 360 - 180, "EW"))
        for lon in round_degrees(region.west, east)
    ]
    parallels = [
        (
            (to_px(Location(lat, 0.0), grid.zoom)[1] - window.row_px) / window.height_px,
            _named(lat, "NS"),
        )
        for lat in round_degrees(region.south, region.north)
    ]
    return meridians, parallels


def _named(degrees: float, sides: str) -> str:
    side = "" if abs(degrees) in (0.0, 180.0) else sides[degrees < 0]
    return f"{abs(degrees):g}°{side}"


def _gridded(rgb: UInt8[np.ndarray, "h w 3"], grid: MapGrid) -> UInt8[np.ndarray, "h w 3"]:
    """Draw thin meridians and parallels."""
    height, width = rgb.shape[:2]
    lines = np.zeros((height, width), bool)
    meridians, parallels = _lines(grid)
    lines[:, [min(width - 1, int(share * width)) for share, _ in meridians]] = True
    lines[[min(height - 1, int(share * height)) for share, _ in parallels]] = True
    out = rgb.copy()
    out[lines] = out[lines] + ((255 - out[lines]) * _LINE).astype(np.uint8)
    return out


def _draw_degrees(draw: "ImageDraw", grid: MapGrid, box: tuple[int, int, int, int]) -> None:
    """Name the lines beside the panel; a name that would touch the one before is left out."""
    left, top, width, height = box
    meridians, parallels = _lines(grid)
    typeface, until = font(12), 0.0
    for share, name in meridians:
        at, half = left + share * width, typeface.getlength(name) / 2
        if at - half > until:
            draw.text((at, top + height + 4), name, _INK, typeface, anchor="ma")
            until = at + half + 4
    for share, name in parallels:
        draw.text((left - 4, top + share * height), name, _INK, typeface, anchor="rm")


def _draw_legend(
    draw: "ImageDraw", canvas: "Image", panel: Panel, box: tuple[int, int, int]
) -> None:
    """Draw the colours with five values, and what lies beyond them."""
    from PIL import Image

    left, top, width = box
    ends = colour_range(panel.values)
    ramp = np.linspace(*ends, width, dtype=np.float32)[None].repeat(16, 0)
    canvas.paste(Image.fromarray(coloured(ramp, ends, panel.colours)), (left, top))
    typeface, values = font(12), np.linspace(*ends, 5).tolist()
    digits = max(0, 2 - int(np.floor(np.log10(ends[1] - ends[0]))))
    for number, value in enumerate(values):
        anchor = "la" if number == 0 else "ra" if number == len(values) - 1 else "ma"
        at = left + number * (width - 1) / (len(values) - 1)
        draw.text((at, top + 20), f"{value:.{digits}f}", _INK, typeface, anchor=anchor)
    low, high = np.nanmin(panel.values), np.nanmax(panel.values)
    told = f"colours span 96 % of the cells; lowest {low:.{digits}f}, highest {high:.{digits}f}"
    draw.text((left, top + 40), told, _SOFT, typeface)
    if np.isnan(panel.values).any():
        draw.text((left, top + 56), "pale: no imagery, no value", _SOFT, typeface)


def _wrapped(text: str, width_px: int, size: int) -> list[str]:
    """Break a text into lines that fit a width, roughly."""
    return textwrap.wrap(" ".join(text.split()), max(20, int(width_px / (size * 0.55))))
