"""Panoramas that are given: found, checked, and brought to the grid of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from generation.errors import InvalidSpecError, shown
from generation.geo.location import Location, great_circle_km
from generation.geo.sphere import Band
from generation.media.panorama import open_panorama, placed_view, to_band
from generation.spec import RunSpec
from generation.view_spec import FAR_KM, ViewSpec

MAX_VIEWS = 3
"""Panoramas that the model looks at."""
TRAINED_KM = 30.0
"""How far away they stood while it learnt."""
_HERE_KM = 0.005
_SAME_KM = 0.001


@dataclass(frozen=True, slots=True, eq=False)
class OpenView:
    """A panorama that is looked at, on the model's grid, its middle looking north."""

    number: int
    """Its place among all views of the spec, from 1."""
    spec: ViewSpec
    place: Location
    km: float
    pixels: UInt8[np.ndarray, "height width 3"]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file, for people."""
        return Path(self.spec.file).name


def open_views(spec: RunSpec, band: Band) -> tuple[list[OpenView], list[str]]:
    """Open the panoramas of a spec that are looked at: the nearest, in the order of distance.

    Args:
        spec: What names them.
        band: The grid that they are brought to.

    Returns:
        The views, and what is to be known of them.

    Raises:
        TerrascapeError: One of them cannot be read, has no place, stands too far away, or is
            another one once more.
    """
    target = Location(spec.lat, spec.lon)
    there = [_placed(view) for view in spec.views]
    _refuse_twins(there)
    views: list[OpenView] = []
    near = sorted(
        (great_circle_km(target, place), view.file, number)
        for number, (view, place) in enumerate(there, start=1)
    )
    for km, _, number in near:
        view, place = there[number - 1]
        if km > FAR_KM and not spec.far:
            raise InvalidSpecError(
                f"view {shown(view.file, None)} stands {km:.0f} km away, {FAR_KM:g} km are "
                "allowed (is its place right? give --far to take it all the same)"
            )
        if len(views) < MAX_VIEWS:
            views.append(_opened(number, view, place, km, band))
    notes = []
    if len(there) > MAX_VIEWS:
        used = ", ".join(str(number) for number in sorted(view.number for view in views))
        notes.append(f"{len(there)} views given, the {MAX_VIEWS} nearest are used: {used}")
    for each in views:
        notes += [f"{each.name}: {note}" for note in each.notes]
        notes += _distance_notes(each)
    return views, notes


def _placed(view: ViewSpec) -> tuple[ViewSpec, Location]:
    """Give a view that knows its heading, and its place."""
    found = placed_view(view)
    if found.place is None:
        raise InvalidSpecError(
            f"view {shown(view.file, None)} does not tell where it was taken (give "
            "FILE@LAT,LON,HEADING)"
        )
    return found, found.place


def _opened(number: int, view: ViewSpec, place: Location, km: float, band: Band) -> OpenView:
    panorama = open_panorama(Path(view.file))
    try:
        pixels = to_band(panorama, band, view.heading)
    except InvalidSpecError as error:
        raise InvalidSpecError(f"view {shown(view.file, None)}: {error}") from None
    return OpenView(number, view, place, km, pixels, panorama.notes)


def _refuse_twins(views: Sequence[tuple[ViewSpec, Location]]) -> None:
    """Refuse a panorama that is there twice; files that tell their own place are compared here."""
    for j, (b, there) in enumerate(views):
        for a, here in views[:j]:
            same = a.file == b.file or (a.sha256 is not None and a.sha256 == b.sha256)
            if same and great_circle_km(here, there) < _SAME_KM:
                raise InvalidSpecError(
                    f"views {shown(a.file, None)} and {shown(b.file, None)} are one panorama at "
                    "one place (give it once)"
                )


def _distance_notes(view: OpenView) -> list[str]:
    if view.km < _HERE_KM:
        return [f"{view.name} stands at the place itself: what is drawn should repeat it"]
    if view.km > TRAINED_KM:
        return [
            f"{view.name} stands {view.km:.0f} km away; the model learnt from panoramas up to "
            f"{TRAINED_KM:g} km away"
        ]
    return []
