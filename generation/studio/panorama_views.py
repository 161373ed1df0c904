"""The panoramas that were dropped: a list with the place and the heading of each, and their map."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from generation.errors import InvalidSpecError, TerrascapeError, shown
from generation.geo.location import Location, great_circle_km
from generation.geo.mercator import Window
from generation.studio.map_widget import REGION_PX, RegionMap, map_html, pin_html, place_at
from generation.studio.map_widget import region_uri as layout_uri
from generation.studio.panorama_viewer import compass_text
from generation.studio.pictures import preview_uri
from generation.studio.rows import new_key, number_of, number_text, read_rows
from generation.view_spec import FAR_KM, MAX_VIEWS_GIVEN, ViewSpec

THUMB_PX = (192, 48)
"""Width and height of a panorama's small picture."""
_ZOOMS = range(14, 4, -1)
"""Zoom levels of the window in the map's middle; the finest that shows all views is taken."""
_LEAST_KM = 5.0
"""How far the map reaches around the place at least, were all views nearer."""
_ALONE_KM = 50.0
"""The same without any view."""
_NUMBERS = ("lat", "lon", "heading")
_LABELS = {"lat": "Latitude, °N", "lon": "Longitude, °E", "heading": "Heading, °"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenView:
    """A panorama that was dropped, and what is known of it."""

    key: str
    """Tells it from the others of the list."""
    file: str
    """Where it lies."""
    name: str
    """What its file was called."""
    thumb: str
    """Source of a small picture."""
    lat: str = ""
    """As typed; empty where it is not known."""
    lon: str = ""
    heading: str = "0"
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> Location | None:
        """Where it was taken, if what is typed is a place."""
        return place_at(number_of(self.lat), number_of(self.lon))

    def spec(self, file: str) -> ViewSpec:
        """Give it as a part of a RunSpec, under the path of its kept copy.

        Raises:
            InvalidSpecError: A number is missing or is none.
        """
        values = {each: number_of(getattr(self, each)) for each in _NUMBERS}
        bad = [each for each, value in values.items() if value is None]
        if bad:
            given = ", ".join(f"{each}={shown(getattr(self, each))}" for each in bad)
            raise InvalidSpecError(
                f"{self.name}: {given} is no number (write where it was taken, and the degrees "
                "clockwise from north that its middle looks to; or remove it)"
            )
        try:
            return ViewSpec(file, values["lat"], values["lon"], values["heading"] or 0.0)
        except InvalidSpecError as error:
            raise InvalidSpecError(str(error).replace(file, self.name)) from None


def take_views(paths: Sequence[str], given: Sequence[GivenView]) -> tuple[list[GivenView], str]:
    """Add files to the list, each with what it tells of its own place and heading.

    Args:
        paths: Files that were dropped.
        given: Views that are there already.

    Returns:
        All views, and why files were left out; empty if none was.
    """
    views, refused = list(given), []
    for path in map(Path, paths):
        if len(views) == MAX_VIEWS_GIVEN:
            refused.append(
                f"{path.name}: {MAX_VIEWS_GIVEN} panoramas are allowed (remove one of them first)"
            )
            continue
        try:
            views.append(_given(path, {view.key for view in views}))
        except TerrascapeError as error:
            refused.append(str(error).replace(str(path), path.name))
    return views, "; ".join(refused)


def kept_view(view: ViewSpec, taken: Sequence[str] = ()) -> GivenView:
    """Give a view of an earlier RunSpec as a row of the list.

    Raises:
        TerrascapeError: Its file is no panorama any more.
    """
    fresh = _given(Path(view.file), set(taken))
    told: dict[str, Any] = {each: number_text(getattr(view, each)) for each in _NUMBERS}
    if view.place is None:
        return fresh
    return replace(fresh, **told)


def typed(given: Sequence[GivenView], rows: str | None) -> list[GivenView]:
    """Fill in what stands in the page's list.

    Args:
        given: The views that were dropped.
        rows: JSON of the page's rows; views that it does not name stay as they are.

    Raises:
        InvalidSpecError: It is not what the page sends.
    """
    texts = read_rows(rows, _NUMBERS, "panoramas")
    return [replace(view, **dict[str, Any](texts.get(view.key, {}))) for view in given]


def list_html(given: Sequence[GivenView]) -> str:
    """Show the views with fields for their places and headings."""
    if not given:
        return (
            '<p class="ts-caption">None yet: the panorama then follows the satellite image alone.'
            "</p>"
        )
    rows = "".join(_row(number, view) for number, view in enumerate(given, start=1))
    return f'<ol class="ts-views" aria-label="Panoramas that are given">{rows}</ol>'


def region_of(place: Location, given: Sequence[GivenView]) -> RegionMap:
    """Give the map around a place that shows all views which stand within reach."""
    places = [view.place for view in given if view.place is not None]
    far = max([great_circle_km(place, each) for each in places], default=_ALONE_KM)
    for zoom in _ZOOMS:
        region = RegionMap.around(Window.around(place, zoom, REGION_PX))
        if 2.4 * min(max(far, _LEAST_KM), FAR_KM) <= _wide_km(region):
            break
    return region


def around_html(place: Location, given: Sequence[GivenView], heading_deg: float | None) -> str:
    """Draw the map around the place, with the views where they stand and where they look.

    Args:
        place: The middle.
        given: The views.
        heading_deg: Where the panorama's middle will look; unknown while the field holds none.
    """
    region = region_of(place, given)
    marks = _arrow(0.5, _spot(region, place)[1], heading_deg) + pin_html(*_spot(region, place))
    beyond = 0
    for number, view in enumerate(given, start=1):
        if view.place is None:
            continue
        u, v = _spot(region, view.place)
        if 0 <= u <= 1 and 0 <= v <= 1:
            marks += _arrow(u, v, number_of(view.heading)) + _mark(u, v, number)
        else:
            beyond += 1
    about = "Map around the place: click to move it, or use the arrow keys"
    told = f", {beyond} of the panoramas stand{'s' * (beyond == 1)} beyond it" if beyond else ""
    return (
        f"{map_html(layout_uri(region.window), about, marks, step=1 / 64, square=True)}"
        f'<p class="ts-caption">{_wide_km(region):,.0f} km across{told}. Click to move the place; '
        f"the numbers are the panoramas.</p>{_distances(place, given)}"
    )


def _given(path: Path, taken: set[str]) -> GivenView:
    from generation.media.panorama import open_panorama

    panorama = open_panorama(path)
    place, heading = panorama.place, panorama.heading_deg
    unknown = ("its file does not tell where its middle looks: north is assumed",)
    return GivenView(
        key=new_key("v", sorted(taken)),
        file=str(path),
        name=path.name,
        thumb=_thumb(panorama.pixels),
        lat="" if place is None else number_text(round(place.lat, 6)),  # a decimetre
        lon="" if place is None else number_text(round(place.lon, 6)),
        heading=number_text(round(heading or 0.0, 3) % 360),
        notes=(*panorama.notes, *(unknown if heading is None else ())),
    )


def _thumb(pixels: UInt8[np.ndarray, "height width 3"]) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    return preview_uri(np.asarray(image.resize(THUMB_PX, Image.Resampling.BOX)))


def _row(number: int, view: GivenView) -> str:
    name = escape(view.name)
    fields = "".join(
        f'<label>{_LABELS[each]}<input type="number" step="any" name="{each}" '
        f'value="{escape(getattr(view, each))}" aria-label="{_LABELS[each]} of panorama {number}">'
        "</label>"
        for each in _NUMBERS
    )
    notes = "".join(f'<p class="ts-caption">{escape(note)}</p>' for note in view.notes)
    return (
        f'<li data-row="{escape(view.key)}"><div class="ts-view-head"><b>{number}</b>'
        f'<img src="{view.thumb}" alt=""><span title="{name}">{name}</span>'
        f'<button type="button" class="ts-chip" data-remove="{escape(view.key)}" '
        f'aria-label="Remove panorama {number}, {name}">Remove</button></div>'
        f'<div class="ts-view-fields">{fields}</div>{notes}</li>'
    )


def _distances(place: Location, given: Sequence[GivenView]) -> str:
    """Say how far and in which direction each view stands."""
    lines = []
    for number, view in enumerate(given, start=1):
        if view.place is None:
            lines.append(
                f'<li class="ts-missing">{number}: its file tells no place; write latitude and '
                "longitude</li>"
            )
            continue
        from generation.geo.sphere import bearing_deg

        km = great_circle_km(place, view.place)
        where = f"{km:,.1f} km {compass_text(bearing_deg(place, view.place))}" if km else "here"
        far = f"; over {FAR_KM:g} km, tick 'Take far panoramas'" if km > FAR_KM else ""
        lines.append(f"<li>{number}: {where}{far}</li>")
    return f'<ul class="ts-caption ts-distances">{"".join(lines)}</ul>' if lines else ""


def _wide_km(region: RegionMap) -> float:
    return region.window.gsd_m * REGION_PX / 1000


def _spot(region: RegionMap, place: Location) -> tuple[float, float]:
    """Give where a place lies on a map, as fractions; outside of 0 to 1: not on it."""
    from generation.geo.mercator import to_px, world_px

    window = region.window
    x, y = to_px(place, window.zoom)
    size = world_px(window.zoom)
    right = (x - window.col_px - REGION_PX / 2 + size / 2) % size - size / 2 + REGION_PX / 2
    return right / REGION_PX, (y - window.row_px) / REGION_PX


def _mark(u: float, v: float, number: int) -> str:
    return f'<span class="ts-spot" style="left:{u:.3%};top:{v:.3%}">{number}</span>'


def _arrow(u: float, v: float, heading_deg: float | None) -> str:
    """Mark where a middle looks; nothing where that is not known."""
    if heading_deg is None:
        return ""
    return (
        f'<span class="ts-look" style="left:{u:.3%};top:{v:.3%};'
        f'transform:rotate({heading_deg % 360:.1f}deg)"></span>'
    )
