"""ViewSpec: a panorama that is given, with the place it was taken at and where its middle looks."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from generation.errors import InvalidLocationError, InvalidSpecError, shown
from generation.geo.location import Location, great_circle_km
from generation.spec_checks import (
    as_real,
    heading_mistakes,
    is_path,
    is_sha256,
    refuse,
)

MAX_VIEWS_GIVEN = 20
"""Views that a description may name; a model looks at the nearest few of them."""
FAR_KM = 100.0
"""From here on a view is taken only where that is asked for."""
_SAME_PLACE_KM = 0.001
_FORM = "FILE@LAT,LON,HEADING, such as alps.jpg@45.98,7.66,120"
_UNPLACED = re.compile(r"[^@,]*[^@,\s\d.+-][^@,]*")
"""What may follow an @ that belongs to a file's name: no comma, and no number."""


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """A panorama as an input. One that exists is valid: all fields are checked on construction.

    Without a place, the file itself must tell it and its heading; ``media.panorama`` asks it.
    """

    file: str
    """Path of the panorama."""
    lat: float | None = None
    """Where it was taken: latitude, degrees."""
    lon: float | None = None
    """Longitude, degrees."""
    heading: float = 0.0
    """Where its middle looks, degrees clockwise from north, 0 up to 360."""
    sha256: str | None = None
    """SHA-256 of the file, filled by ``RunSpec.pinned``."""

    def __post_init__(self) -> None:
        refuse(_view_mistakes(dataclasses.asdict(self)))
        for name in ("lat", "lon", "heading"):  # 45 and 45.0, 0.0 and -0.0 are one view
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, float(value) + 0.0)

    @classmethod
    def parse(cls, text: str) -> "ViewSpec":
        """Read ``FILE@LAT,LON,HEADING``, ``FILE@LAT,LON`` (its middle looks north) or ``FILE``.

        An ``@`` may be part of the file's name, as long as no number and no comma follows it.

        Raises:
            InvalidSpecError: It has another form.
        """
        file, at, numbers = text.rpartition("@")
        if not at or _UNPLACED.fullmatch(numbers):
            return cls(text)
        parts = numbers.split(",")
        parts += ["0"] * (len(parts) == 2)  # its middle looks north
        try:
            lat, lon, heading = map(float, parts)
        except ValueError:
            raise InvalidSpecError(f"view {shown(text)} has another form (give {_FORM})") from None
        return cls(file, lat, lon, heading)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "ViewSpec":
        """Build a view from named values.

        Raises:
            InvalidSpecError: Unknown or missing names, wrong types or values, all in one message.
        """
        known = {field.name: field.default for field in dataclasses.fields(cls)}
        wrong = [
            f"{shown(name)} is no field of a view (known: {', '.join(known)})"
            for name in values
            if name not in known
        ]
        if "file" not in values:
            refuse([*wrong, "a view without a file (give the path of a panorama)"])
        filled = {**known, **{name: values[name] for name in known if name in values}}
        refuse(wrong + _view_mistakes(filled))
        return cls(
            str(filled["file"]),
            as_real(filled["lat"]),
            as_real(filled["lon"]),
            as_real(filled["heading"]) or 0.0,
            None if filled["sha256"] is None else str(filled["sha256"]),
        )

    def to_dict(self) -> dict[str, object]:
        """Give the fields by name, without those that are not known."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

    def __str__(self) -> str:
        """Give the form that ``parse`` reads."""
        if self.lat is None or self.lon is None:
            return self.file
        return f"{self.file}@{self.lat!r},{self.lon!r},{self.heading!r}"

    @property
    def place(self) -> Location | None:
        """Where it was taken, if that is told."""
        return None if self.lat is None or self.lon is None else Location(self.lat, self.lon)


def read_views(value: object) -> tuple[object, list[str]]:
    """Read the views of a description: a list of objects or texts, or texts between semicolons.

    Returns:
        The views, or the value as it was where it holds no views; and what is wrong with it.
    """
    if isinstance(value, str):
        value = [text.strip() for text in value.split(";") if text.strip()]
    if not isinstance(value, list | tuple):
        return value, []  # views_mistakes tells
    views: list[ViewSpec] = []
    wrong = []
    for number, each in enumerate(value, start=1):
        try:
            views.append(_read_view(each))
        except InvalidSpecError as error:
            wrong.append(f"view {number}: {error}")
    return tuple(views), wrong


def views_mistakes(views: object, place: Sequence[float | None], *, far: object) -> list[str]:
    """Say what is wrong with the views of a place, given as latitude and longitude."""
    if not isinstance(views, tuple) or not all(isinstance(view, ViewSpec) for view in views):
        return [f'views={shown(views)} (give a list like [{{"file": "a.jpg", "lat": …}}])']
    if len(views) > MAX_VIEWS_GIVEN:
        return [
            f"{len(views)} views are given, {MAX_VIEWS_GIVEN} are allowed (give the nearest ones)"
        ]
    return [*_twins(views), *(() if far is True else _far_ones(views, place))]


def _read_view(value: object) -> ViewSpec:
    if isinstance(value, ViewSpec):
        return value
    if isinstance(value, str):
        return ViewSpec.parse(value)
    if isinstance(value, Mapping):
        return ViewSpec.from_dict(value)
    raise InvalidSpecError(
        f'{shown(value)} is no view (give {{"file": "a.jpg", "lat": 45.98, "lon": 7.66, '
        '"heading": 120})'
    )


def _view_mistakes(values: Mapping[str, object]) -> list[str]:
    if not is_path(values["file"]):
        return [f"file={shown(values['file'])} (give the path of a panorama)"]
    wrong = [
        *_place_mistakes(values),
        *heading_mistakes("heading", values["heading"]),
    ]
    if values["sha256"] is not None and not is_sha256(values["sha256"]):
        wrong.append(f"sha256={shown(values['sha256'])} (give 64 hexadecimal digits, or no sha256)")
    return [f"{shown(values['file'], None)}: {each}" for each in wrong]


def _place_mistakes(values: Mapping[str, object]) -> list[str]:
    given = {name: values[name] for name in ("lat", "lon") if values[name] is not None}
    wrong = [
        f"{name}={shown(value)} is no number (give degrees)"
        for name, value in given.items()
        if as_real(value) is None
    ]
    if wrong:
        return wrong
    if len(given) == 1:
        return [f"only {next(iter(given))} is given (give both, latitude first, or {_FORM})"]
    if not given:
        return [] if values["heading"] == 0 else [f"a heading without a place (give {_FORM})"]
    try:
        Location(float(as_real(given["lat"]) or 0), float(as_real(given["lon"]) or 0))
    except InvalidLocationError as error:
        return [str(error)]
    return []


def _twins(views: Sequence[ViewSpec]) -> list[str]:
    """Name the views that are one panorama at one place."""
    return [
        f"views {i} and {j} are the same: {shown(a.file, None)} and {shown(b.file, None)} at "
        "one place (give it once)"
        for j, b in enumerate(views, start=1)
        for i, a in enumerate(views[: j - 1], start=1)
        if _same(a, b)
    ]


def _same(a: ViewSpec, b: ViewSpec) -> bool:
    if a.place is None or b.place is None:
        near = a.place is b.place
    else:
        near = great_circle_km(a.place, b.place) < _SAME_PLACE_KM
    if a.sha256 is not None and b.sha256 is not None:
        return near and a.sha256 == b.sha256
    return near and a.file == b.file


def _far_ones(views: Sequence[ViewSpec], place: Sequence[float | None]) -> list[str]:
    lat, lon = place
    if lat is None or lon is None or not (-90 <= lat <= 90 and -180 <= lon <= 180):
        return []  # that is told already
    distances = [
        (view, great_circle_km(Location(lat, lon), view.place)) for view in views if view.place
    ]
    return [
        f"view {shown(view.file, None)} stands {km:.0f} km away, {FAR_KM:g} km are allowed (is "
        "its place right? give far=true, --far on the command line, to take it all the same)"
        for view, km in distances
        if km > FAR_KM
    ]
