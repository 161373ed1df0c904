"""Every error that Terrascape raises on purpose.

A message has three parts: what was given, what is accepted, what to do::

    TerrascapeError
    ├── InvalidLocationError   (ValueError)         a coordinate outside its range
    ├── InvalidSpecError       (ValueError)         a field of a RunSpec
    ├── LayoutError            (ValueError)         a layout that cannot be read or drawn
    ├── ConfigError            (ValueError)         a YAML file or an override
    ├── WeightsError           (ValueError)         a weight file that must not be trusted
    ├── MissingFileError       (FileNotFoundError)  something that should be on disk
    ├── OutputError            (OSError)            a place that cannot be written to
    ├── NetworkError           (ConnectionError)    the network, when it was asked for
    ├── MissingExtraError      (ImportError)        an optional package
    └── CancelledError         (RuntimeError)       the person pressed stop
"""

import math

_HUGE = 10**40
"""Whole numbers from here on are told by their first digits and their length."""


class TerrascapeError(Exception):
    """Any mistake that a person can mend; its text is fit to be shown."""


class InvalidLocationError(TerrascapeError, ValueError):
    """A latitude or longitude lies outside its range."""

    def __init__(self, lat: float, lon: float) -> None:
        swapped = abs(lat) <= 180 and abs(lon) <= 90
        hint = f"are the two swapped? try lat={lon:g}, lon={lat:g}" if swapped else "check both"
        super().__init__(
            f"no such place: lat={lat:g}, lon={lon:g} "
            f"(lat must lie in [-90, 90] and lon in [-180, 180] degrees; {hint})"
        )


class InvalidSpecError(TerrascapeError, ValueError):
    """A field of a render's description has a value that cannot be rendered."""


class LayoutError(TerrascapeError, ValueError):
    """A layout cannot be read, is no map, or does not cover the place."""


class AudioError(TerrascapeError, ValueError):
    """A recording cannot be read, or holds nothing that could be heard."""


class ConfigError(TerrascapeError, ValueError):
    """A configuration has unknown keys or values of the wrong kind."""


class WeightsError(TerrascapeError, ValueError):
    """A weight file is damaged, of another shape, or of a kind that is never loaded."""


class MissingFileError(TerrascapeError, FileNotFoundError):
    """A file that is needed is not there."""


class OutputError(TerrascapeError, OSError):
    """A result cannot be written where it was asked for."""


class NetworkError(TerrascapeError, ConnectionError):
    """A service that the person asked for did not answer in its bounds."""


class MissingExtraError(TerrascapeError, ImportError):
    """An optional package is needed for what was asked."""


class CancelledError(TerrascapeError, RuntimeError):
    """The work was stopped by the person who started it."""


def shown(value: object, longest: int | None = 60) -> str:
    """Quote a value for a message: printable, on one line, not too long."""
    if isinstance(value, int) and abs(value) >= _HUGE:
        return _shortened(value)
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except (ValueError, RecursionError):  # it holds a number too long to write, or itself
        text = f"a {type(value).__name__}"
    return text if longest is None or len(text) <= longest else f"{text[: longest - 3]}…{text[-1]}"


def _shortened(value: int) -> str:
    """Quote the first digits of a huge number; Python refuses to write more than 4300 of them."""
    cut = int(value.bit_length() * math.log10(2)) - 8
    first = str(abs(value) // 10**cut)
    return f"{'-' if value < 0 else ''}{first}…({len(first) + cut} digits)"
