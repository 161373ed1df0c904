"""A picture of where a panorama was found: which view, and which part of the satellite image.

Above, the panorama in grey, tinted by its strongest source; below, each view as bright as it was
attended to, and the satellite image as bright as it was let through, with the places marked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.nn import functional as F

from generation.diffusion.surroundings import Guide
from generation.geo.sphere import Band, turn
from generation.media.lettering import font

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

WIDTH_PX = 1024
VIEW_COLOURS = ("#e69f00", "#56b4e9", "#cc79a7")
SATELLITE_COLOUR = "#009e73"
OWN_COLOUR = "#f0e442"
"""Five that stay apart for all kinds of eyes.

Source:
    Okabe and Ito, "Color universal design" (2002).
"""
_INK, _SOFT, _PAPER = (20, 20, 20), (90, 90, 90), (255, 255, 255)
_MARGIN_PX, _LINE_PX = 16, 22
_TINT = 0.9
"""Share of a source's colour where it alone gave what is seen."""
_DARKEST = 0.3
"""Brightness of what was not attended to."""
_COMPASS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")


@dataclass(frozen=True, slots=True, eq=False)
class SeenView:
    """A panorama that was given."""

    number: int
    """Its place among all that were given, from 1."""
    name: str
    pixels: UInt8[np.ndarray, "height width 3"]
    """On the model's grid, its middle looking north."""
    offset_m: tuple[float, float]
    """How far east and north of the target it stands."""
    mark_px: tuple[float, float]
    """Pixels right of and below the middle of the satellite image."""


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Where one panorama was found; the first of a batch counts."""

    guide: Guide
    views: Sequence[SeenView]
    """In the slots of the guide."""
    satellite: UInt8[np.ndarray, "side side 3"] | None
    band: Band
    heading_deg: float

    def shares(self) -> tuple[list[float], float, float]:
        """Give the shares of each view, of the satellite image, and of neither, 0 to 1."""
        views = [float(self.guide.view_weights[0, slot].mean()) for slot in range(len(self.views))]
        satellite = float(self.guide.satellite_weight[0].mean())
        return views, satellite, max(0.0, 1 - sum(views) - satellite)

    def in_order(self) -> list[tuple[int, SeenView, str]]:
        """Give slot, view and colour of each, in the order in which people gave them."""
        order = sorted(range(len(self.views)), key=lambda slot: self.views[slot].number)
        return [
            (slot, self.views[slot], colour)
            for slot, colour in zip(order, VIEW_COLOURS, strict=False)  # three are used at most
        ]


def overlay(
    panorama: UInt8[np.ndarray, "height width 3"], sources: Sources
) -> UInt8[np.ndarray, "rows cols 3"]:
    """Draw it; equal input gives an equal picture.

    Args:
        panorama: What was drawn, its middle looking at the heading.
        sources: Where it was found.

    Returns:
        A picture 1,024 px wide.
    """
    from PIL import Image, ImageDraw

    wide = WIDTH_PX - 2 * _MARGIN_PX
    tall = round(wide * sources.band.height / sources.band.width)
    thumb = (
        wide - _MARGIN_PX - wide // 2,
        round(wide / 2 * sources.band.height / sources.band.width),
    )
    top = 2 * _MARGIN_PX + tall + 3 * _LINE_PX
    below = max(len(sources.views) * (thumb[1] + _LINE_PX + 8), wide // 2 + _LINE_PX)
    canvas = Image.new("RGB", (WIDTH_PX, top + below + 2 * _LINE_PX), _PAPER)
    draw = ImageDraw.Draw(canvas)
    tinted = Image.fromarray(_tinted(panorama, sources))
    canvas.paste(tinted.resize((wide, tall), Image.Resampling.BICUBIC), (_MARGIN_PX, _MARGIN_PX))
    _draw_azimuths(draw, sources.heading_deg, (_MARGIN_PX, _MARGIN_PX + tall, wide))
    _draw_legend(draw, sources, _MARGIN_PX + tall + _LINE_PX + 8)
    for row, (slot, view, colour) in enumerate(sources.in_order()):
        at = _MARGIN_PX, top + row * (thumb[1] + _LINE_PX + 8)
        attended = np.sqrt(sources.guide.local[0, slot].numpy())  # its peak is one, its rest little
        picture = _dimmed(view.pixels, attended)
        _paste(canvas, draw, picture, (*at, *thumb), colour, _told(view))
    if not sources.views:
        draw.text((_MARGIN_PX, top), "no panorama was given", _SOFT, font(14))
    square = WIDTH_PX - _MARGIN_PX - wide // 2, top, wide // 2, wide // 2
    _draw_satellite(canvas, draw, sources, square)
    print_ = (
        "Synthetic. Above: the colour of the strongest source, deeper where it gave more. Below: "
        "bright where attended to, or let through."
    )
    draw.text((_MARGIN_PX, top + below + _LINE_PX // 2), print_, _SOFT, font(13))
    return np.asarray(canvas)


def _rgb(colour: str) -> Float[np.ndarray, " 3"]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)


def _tinted(
    panorama: UInt8[np.ndarray, "height width 3"], sources: Sources
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay the colour of the strongest source over the panorama's lightness, as far as it gave."""
    guide, shape = sources.guide, panorama.shape[:2]
    count = len(sources.views)
    known = torch.cat([guide.view_weights[:1, :count], guide.satellite_weight[:1, None]], 1)
    weights = torch.cat([known, (1 - known.sum(1, keepdim=True)).clamp_min(0)], 1)
    factor = shape[1] // weights.shape[3]
    turned = turn(F.interpolate(weights.float(), size=shape), 0.0, sources.heading_deg)
    smooth = F.avg_pool2d(  # as wide as a cell, around the whole circle
        F.pad(
            F.pad(turned, (factor // 2, factor // 2, 0, 0), mode="circular"),
            (0, 0, factor // 2, factor // 2),
            mode="replicate",
        ),
        factor // 2 * 2 + 1,
        stride=1,
    )
    share, strongest = smooth[0].max(0)
    by_slot = [colour for _, _, colour in sorted(sources.in_order(), key=lambda each: each[0])]
    named = (*by_slot, SATELLITE_COLOUR, OWN_COLOUR)
    tint = np.stack([_rgb(colour) for colour in named])[strongest.numpy()]
    depth = (_TINT * share.double().numpy())[..., None]
    grey = (panorama @ np.array([0.299, 0.587, 0.114]))[..., None]
    mixed = grey * (1 - depth) + tint * depth * (0.5 + 0.5 * grey / 255)
    return np.round(mixed).clip(0, 255).astype(np.uint8)


def _dimmed(
    pixels: UInt8[np.ndarray, "height width 3"], weight: Float[np.ndarray, "rows cols"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Darken what has little weight; weights are 0 to 1 on a coarser grid."""
    rows = np.arange(pixels.shape[0]) * weight.shape[0] // pixels.shape[0]
    cols = np.arange(pixels.shape[1]) * weight.shape[1] // pixels.shape[1]
    light = _DARKEST + (1 - _DARKEST) * weight[np.ix_(rows, cols)]
    return np.round(pixels * light[..., None]).clip(0, 255).astype(np.uint8)


def _draw_azimuths(draw: "ImageDraw", heading_deg: float, box: tuple[int, int, int]) -> None:
    """Name the eight winds below the panorama."""
    left, top, width = box
    for number, name in enumerate(_COMPASS):
        share = ((45 * number - heading_deg) / 360 + 0.5) % 1
        x = left + share * width
        draw.line([(x, top), (x, top + 4)], fill=_INK)
        draw.text(
            (min(max(x, left + 8), left + width - 8), top + 5), name, _INK, font(13), anchor="ma"
        )


def _draw_legend(draw: "ImageDraw", sources: Sources, top: int) -> None:
    views, satellite, own = sources.shares()
    entries = [
        (colour, f"view {view.number}: {views[slot]:.0%}")
        for slot, view, colour in sources.in_order()
    ]
    entries.append((SATELLITE_COLOUR, f"satellite image: {satellite:.0%}"))
    entries.append((OWN_COLOUR, f"the model's own: {own:.0%}"))
    x = float(_MARGIN_PX)
    for colour, text in entries:
        draw.rectangle([x, top, x + 16, top + 16], fill=colour)
        draw.text((x + 22, top - 1), text, _INK, font(15))
        x += 22 + font(15).getlength(text) + 28


def _told(view: SeenView) -> str:
    east, north = view.offset_m
    km = math.hypot(east, north) / 1000
    wind = _COMPASS[round(math.degrees(math.atan2(east, north)) / 45) % 8]
    where = f"{km:.1f} km {wind}" if km >= 0.05 else "at the place itself"
    name = view.name if len(view.name) <= 36 else f"{view.name[:20]}…{view.name[-15:]}"
    return f"view {view.number}: {name}, {where}"


def _paste(
    canvas: "Image",
    draw: "ImageDraw",
    pixels: UInt8[np.ndarray, "height width 3"],
    box: tuple[int, int, int, int],
    colour: str,
    title: str,
) -> None:
    """Put a titled picture with a coloured border into a box."""
    from PIL import Image

    left, top, width, height = box
    draw.text((left, top), title, _INK, font(14))
    top += _LINE_PX
    picture = Image.fromarray(pixels).resize((width - 6, height - 6), Image.Resampling.BICUBIC)
    draw.rectangle([left, top, left + width - 1, top + height - 1], fill=colour)
    canvas.paste(picture, (left + 3, top + 3))


def _draw_satellite(
    canvas: "Image", draw: "ImageDraw", sources: Sources, box: tuple[int, int, int, int]
) -> None:
    left, top, width, height = box
    if sources.satellite is None:
        draw.text((left, top), "no satellite image was given", _SOFT, font(14))
        return
    pixels = _dimmed(sources.satellite, sources.guide.overhead[0].numpy())
    _paste(canvas, draw, pixels, box, SATELLITE_COLOUR, "satellite image, north up")
    middle = left + width / 2, top + _LINE_PX + height / 2
    scale, reach = (width - 6) / len(sources.satellite), width / 2 - 14
    _mark(draw, middle, "#ffffff", "")
    for _, view, colour in sources.in_order():
        right, down = (scale * part for part in view.mark_px)
        beyond = max(abs(right), abs(down)) / reach
        if beyond > 1:  # it stands off the image: a white disc at the edge marks the way
            right, down = right / beyond, down / beyond
        at = middle[0] + right, middle[1] + down
        _mark(draw, at, "#ffffff" if beyond > 1 else colour, str(view.number))


def _mark(draw: "ImageDraw", at: tuple[float, float], colour: str, text: str) -> None:
    """Draw a numbered disc, or a cross for the place itself."""
    x, y = at
    if text:
        draw.ellipse([x - 9, y - 9, x + 9, y + 9], fill=colour, outline=_INK, width=2)
        draw.text((x, y), text, _INK, font(12), anchor="mm")
        return
    for width, ink in ((5, "#000000"), (3, colour)):
        draw.line([(x - 9, y), (x + 9, y)], fill=ink, width=width)
        draw.line([(x, y - 9), (x, y + 9)], fill=ink, width=width)
