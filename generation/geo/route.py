"""A path to walk: one line out of a GeoJSON file, and evenly spaced places along it."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import torch

from generation.errors import InvalidSpecError, LayoutError, MissingFileError
from generation.geo.location import Location, great_circle_km
from generation.geo.sphere import bearing_deg, destination

MAX_STOPS = 500
_PLACE_DIGITS, _HEADING_DIGITS = 6, 2
"""Decimals that are kept: a tenth of a metre, and a hundredth of a degree."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A place on a path and the direction of travel there."""

    place: Location
    heading_deg: float


def read_route(path: Path) -> tuple[Location, ...]:
    """Read the line of a GeoJSON file.

    Raises:
        MissingFileError: There is no such file.
        LayoutError: It is no GeoJSON, or does not hold exactly one line.
    """
    from generation.geo.files import check_lon_lat, geojson_records

    try:
        if not path.is_file():
            raise MissingFileError(
                f"path={str(path)!r} is no file (give a .geojson file with one LineString)"
            )
        shapes = [shape for _, shape in geojson_records(path) if shape is not None]
        lines = [shape for shape in shapes if shape.geom_type == "LineString"]
        if len(shapes) != 1 or len(lines) != 1 or lines[0].is_empty:
            kinds = ", ".join(sorted({shape.geom_type for shape in shapes})) or "nothing"
            raise LayoutError(
                f"{path.name}: {len(shapes)} features ({kinds}) where one LineString is read (draw "
                "the path as one line)"
            )
        check_lon_lat(path, lines)
        points = [_on_earth(lat, lon) for lon, lat, *_ in lines[0].coords]
    except RecursionError:
        raise LayoutError(f"{path.name}: collections without end (draw one line)") from None
    except MissingFileError:
        raise
    except OSError as error:
        raise MissingFileError(
            f"path={str(path)!r} cannot be read: {error.strerror} (check its permissions)"
        ) from error
    apart = [points[0], *(b for a, b in pairwise(points) if b != a)]
    if len(apart) < 2:
        raise LayoutError(f"{path.name}: a line without length (give two points or more)")
    return tuple(apart)


def _on_earth(lat: float, lon: float) -> Location:
    """Give a point that :func:`check_lon_lat` has passed; it allows a little for rounding."""
    return Location(min(90.0, max(-90.0, lat)), min(180.0, max(-180.0, lon)))


def stops_along(route: Sequence[Location], count: int) -> list[Stop]:
    """Place stops evenly along a path, the first at its start and the last at its end.

    Between two points of the path the way is a great circle. Places are kept to a tenth of a metre
    and headings to a hundredth of a degree.

    Raises:
        InvalidSpecError: There cannot be that many.
    """
    if not 1 <= count <= MAX_STOPS:
        raise InvalidSpecError(f"frames={count} is not allowed (give 1 to {MAX_STOPS})")
    lengths = [great_circle_km(a, b) for a, b in pairwise(route)]
    ends = list(accumulate(lengths))
    stops = []
    for number in range(count):
        at = ends[-1] * number / max(1, count - 1)
        leg = min(bisect_right(ends, at), len(lengths) - 1)
        before = ends[leg - 1] if leg else 0.0
        stops.append(_stop(route[leg], route[leg + 1], min(at - before, lengths[leg])))
    return stops


def _stop(start: Location, end: Location, walked_km: float) -> Stop:
    """Go some way from one point towards another."""
    whole_km = great_circle_km(start, end)
    heading = (bearing_deg(end, start) + 180) % 360  # on arrival
    place = end
    if walked_km < whole_km:
        numbers = (start.lat, start.lon, bearing_deg(start, end), 1000 * walked_km)
        there = destination(*(torch.tensor(n, dtype=torch.float64) for n in numbers))
        lat, lon = (float(part) for part in there)
        place = Location(lat, (lon + 180) % 360 - 180)
        heading = bearing_deg(place, end)
    return Stop(
        Location(round(place.lat, _PLACE_DIGITS), round(place.lon, _PLACE_DIGITS)),
        round(heading, _HEADING_DIGITS) % 360,
    )
