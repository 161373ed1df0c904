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
