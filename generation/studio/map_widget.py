"""Two maps to click, both drawn offline: the whole world, and the country around the place.

A map is plain HTML: a picture, a pin and, where it can be seen, the outline of what will be
rendered. A click travels as two fractions of the picture, from its left and from its top, and is
turned into degrees here, so the page's script knows nothing of projections.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import NamedTuple

import gradio as gr

from generation.errors import InvalidLocationError, InvalidSpecError
from generation.geo.layers import EmbeddedSource
from generation.geo.location import Location
from generation.geo.mercator import Window, from_px, to_px, world_px
from generation.studio.pictures import png_uri

BASEMAP_URL = "basemap.png"
"""Where the page finds the picture of the world, relative to itself."""
REGION_PX = 256
REGION_STEPS = 3
"""Zoom levels between the region's map and the picture: the picture is an eighth as wide."""


class Example(NamedTuple):
    """A place worth a first look."""

    name: str
    lat: float
    lon: float
    prompt: str


EXAMPLES: tuple[Example, ...] = (
    Example("Zermatt", 45.98, 7.66, "snowy alpine valley"),
    Example("Nile delta", 30.85, 31.1, "green river delta in a desert"),
    Example("Amazon", -3.1, -60.0, "rainforest and wide rivers"),
    Example("Great Salt Lake", 41.1, -112.5, "salt lake among dry mountains"),
    Example("Iceland", 63.6, -19.3, "glaciers and black sand by the sea"),
    Example("Lake Chad", 13.2, 14.1, "shallow lake at the edge of the desert"),
    Example("Bangkok", 13.7, 100.5, "city among rice fields"),
    Example("Patagonia", -49.3, -73.4, "ice field and turquoise lakes"),
    Example("Namib", -24.7, 15.5, "red sand dunes by the ocean"),
    Example("Florida", 26.1, -80.9, "wetlands and a city by the sea"),
)

CLICK_JS = """
const point = (box, u, v) => {
  const pin = box.querySelector('.ts-pin');
  if (pin) { pin.style.left = 100 * u + '%'; pin.style.top = 100 * v + '%'; }
  trigger('click', {u, v});
};
element.addEventListener('click', (event) => {
  const box = event.target.closest('.ts-map');
  if (!box) return;
  const at = box.getBoundingClientRect();
  point(box, (event.clientX - at.left) / at.width, (event.clientY - at.top) / at.height);
});
element.addEventListener('keydown', (event) => {
  const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  const box = event.target.closest('.ts-map');
  if (!move || !box) return;
  event.preventDefault();
  const step = (event.shiftKey ? 10 : 1) * Number(box.dataset.step);
  const pin = box.querySelector('.ts-pin').style;
  const held = (x) => Math.min(1, Math.max(0, x));
  point(box, held(parseFloat(pin.left) / 100 + move[0] * step),
        held(parseFloat(pin.top) / 100 + move[1] * step * Number(box.dataset.aspect)));
});
"""  # noqa: E501 - a line of JavaScript
CHIPS_JS = """
element.addEventListener('click', (event) => {
  const chip = event.target.closest('[data-pick]');
  if (chip) trigger('click', {pick: chip.dataset.pick});
});
"""


@dataclass(frozen=True, slots=True)
class RegionMap:
    """The map around a place, and where on it the picture lies, as fractions."""

    window: Window
    left: float
    top: float
    width: float
    height: float

    @classmethod
    def around(cls, window: Window) -> "RegionMap":
        """Give the map that shows a window with its surroundings."""
        zoom = max(0, window.zoom - REGION_STEPS)
        scale, size = 2 ** (window.zoom - zoom), world_px(zoom)
        x, y = to_px(window.center, zoom)
        row = min(max(0, round(y - REGION_PX / 2)), size - REGION_PX)
        col = round(x - REGION_PX / 2) % size
        shown = Window(zoom, col, row, REGION_PX, REGION_PX)
        width, height = window.width_px / scale, window.height_px / scale
        left = (x - width / 2 - col) % size
        if left > size - width / 2:  # it begins a little west of the map's left edge
            left -= size
        top = window.row_px / scale - row
        return cls(shown, *(each / REGION_PX for each in (left, top, width, height)))

    def location(self, u: float, v: float) -> Location:
        """Give the place under a point of the map."""
        window = self.window
        return from_px(
            window.col_px + u * window.width_px,
            min(window.row_px + v * window.height_px, world_px(window.zoom)),
            window.zoom,
        )


def world_location(u: float, v: float) -> Location:
    """Give the place under a point of the world's map (plate carrée)."""
    return Location(90 - 180 * v, 360 * u - 180)


def clicked(event: gr.EventData) -> tuple[float, float]:
    """Read where a map was clicked.

    Raises:
        InvalidSpecError: The event is not one that the page sends.
    """
    data = event._data if isinstance(event._data, dict) else {}
    u, v = data.get("u"), data.get("v")
    for value in (u, v):
        if not isinstance(value, int | float) or not -0.01 <= value <= 1.01:
            raise InvalidSpecError("that was no point of the map (click inside of it)")
    return min(max(float(u), 0.0), 1.0), min(max(float(v), 0.0), 1.0)  # type: ignore[arg-type]


def picked(event: gr.EventData) -> str:
    """Read which chip or thumbnail was pressed; empty if the event is not one of the page's."""
    data = event._data if isinstance(event._data, dict) else {}
    return str(data.get("pick", ""))


def world_html(lat: float | int | None, lon: float | int | None, overlay: str = "") -> str:
    """Draw the world with a pin; without one where the numbers are no place.

    Args:
        lat: Degrees north.
        lon: Degrees east.
        overlay: Source of a picture of the whole world, laid over the map; none if empty.
    """
    marks = f'<img class="ts-overlay" src="{overlay}" alt="">' if overlay else ""
    place = place_at(lat, lon)
    if place is not None:
        marks += pin_html((place.lon + 180) / 360, (90 - place.lat) / 180)
    return map_html(
        BASEMAP_URL,
        "World map: click to choose a place, or move the pin with the arrow keys",
        marks,
    )


def region_html(window: Window) -> str:
    """Draw the surroundings of a window and its outline."""
    region = RegionMap.around(window)
    x, y = region.left + region.width / 2, region.top + region.height / 2
    outline = (
        f'<span class="ts-outline" style="left:{region.left:.3%};top:{region.top:.3%};'
        f'width:{region.width:.3%};height:{region.height:.3%}"></span>'
    )
    source = region_uri(region.window)
    about = "Map of the surroundings: click to move the picture, or use the arrow keys"
    wide_km = region.window.gsd_m * REGION_PX / 1000
    marks = outline + pin_html(x, y, hidden=True)
    return (
        f"{map_html(source, about, marks, step=1 / 64, square=True)}"
        f'<p class="ts-caption">Surroundings, {_distance(wide_km)} across. The frame is the '
        "picture: click to move it.</p>"
    )


def size_text(window: Window) -> str:
    """Tell how large a picture is on the ground, at its middle."""
    wide = _distance(window.gsd_m * window.width_px / 1000)
    fine = f"{window.gsd_m:,.0f} m" if window.gsd_m >= 10 else f"{window.gsd_m:.2g} m"
    return f"{wide} across, {fine} a pixel"


@lru_cache(maxsize=64)
def region_uri(window: Window) -> str:
    """Draw the layout of a region; the last ones are kept."""
    return png_uri(EmbeddedSource().layout(window).rgb())


def examples_html() -> str:
    """List the example places as chips."""
    chips = "".join(
        f'<button type="button" class="ts-chip" data-pick="{escape(place.name)}">'
        f"{escape(place.name)}</button>"
        for place in EXAMPLES
    )
    return f'<div class="ts-chips" role="group" aria-label="Example places">{chips}</div>'


def find_example(name: str) -> Example:
    """Give an example place by its name.

    Raises:
        InvalidSpecError: There is none of this name.
    """
    for place in EXAMPLES:
        if place.name == name:
            return place
    raise InvalidSpecError(f"no example place is named {name[:40]!r} (choose one of the list)")


def place_text(lat: float, lon: float) -> str:
    """Write a place for people; degrees, latitude first."""
    return f"{abs(lat):.4g}° {'S' if lat < 0 else 'N'}, {abs(lon):.4g}° {'W' if lon < 0 else 'E'}"


def place_at(lat: object, lon: object) -> Location | None:
    """Take two values of the page's fields as a place; None where they are none."""
    for value in (lat, lon):
        if not isinstance(value, int | float) or not math.isfinite(value):
            return None
    try:
        return Location(float(lat), float(lon))  # type: ignore[arg-type]  # they are numbers
    except InvalidLocationError:
        return None


def _distance(km: float) -> str:
    return f"{km:,.0f} km" if km >= 10 else f"{km:.1f} km" if km >= 1 else f"{1000 * km:.0f} m"


def pin_html(u: float, v: float, *, hidden: bool = False) -> str:
    """Mark the chosen place, at fractions of a map's width and height."""
    look = "ts-pin ts-unseen" if hidden else "ts-pin"
    return f'<span class="{look}" style="left:{100 * u:.3f}%;top:{100 * v:.3f}%"></span>'


def map_html(
    source: str, about: str, marks: str, *, step: float = 1 / 360, square: bool = False
) -> str:
    """Draw a map to click.

    Args:
        source: Of its picture.
        about: What it is and what it is for, read aloud.
        marks: HTML of what lies on it.
        step: Share of its width that an arrow key moves the pin by.
        square: Whether it is as high as wide; else half as high.
    """
    look, aspect = ("ts-map ts-square", 1) if square else ("ts-map", 2)
    return (
        f'<div class="{look}" tabindex="0" role="application" aria-label="{escape(about)}" '
        f'data-step="{step:.5f}" data-aspect="{aspect}">'
        f'<img src="{source}" alt="" draggable="false">{marks}</div>'
    )
