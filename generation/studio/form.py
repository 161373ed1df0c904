"""What the page holds, and the RunSpec that it amounts to; the page is a view of a RunSpec."""

import secrets
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from generation.errors import InvalidSpecError, LayoutError
from generation.geo.layout import Layout
from generation.geo.overpass import MIN_ZOOM
from generation.geo.sources import FileSource, open_source
from generation.spec import RunSpec
from generation.studio.drawing import Drawing, keep_layout, save_drawing
from generation.studio.sounds import describe_sound, file_or_refuse, keep_sound, words_or_refuse

LAYOUT_CHOICES: tuple[tuple[str, str], ...] = (
    ("World layers", "auto"),
    ("None", "none"),
    ("My file", "file"),
    ("Draw", "draw"),
)
"""Labels and values of the layout switch."""
SOUND_CHOICES: tuple[tuple[str, str], ...] = (
    ("None", "none"),
    ("In words", "words"),
    ("My file", "file"),
)
"""Labels and values of the switch of the sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The values of the page's fields, in the order in which the page lists them."""

    lat: float | int | None
    lon: float | int | None
    zoom: float | int
    size: float | int
    choice: str
    """One of the values of ``LAYOUT_CHOICES``."""
    file: str | None
    """The map file that was chosen."""
    drawing: Drawing | None
    online: bool
    """Whether streets may be fetched from OpenStreetMap."""
    heard: str
    """One of the values of ``SOUND_CHOICES``."""
    sound_file: str | None
    """The recording, or the image of a place, that was chosen."""
    sound_text: str | None
    sound_guidance: float | int
    sound_model: str | None
    style_on: bool
    """Whether it looks like the place of the next two."""
    style_lat: float | int | None
    style_lon: float | int | None
    sharpness: float | int
    style_guidance: float | int
    style_database: str | None
    habitat_on: bool
    taxon: str | None
    habitat_guidance: float | int
    climate_on: bool
    warmer_c: float | int | None
    rain_percent: float | int | None
    climate_guidance: float | int
    prompt: str | None
    use_location: bool
    seed: str | None
    """Text, since a seed may be larger than a browser's numbers are exact."""
    steps: float | int
    text_guidance: float | int
    location_guidance: float | int
    layout_guidance: float | int
    model: str | None

    @classmethod
    def of(cls, values: tuple[object, ...]) -> "Form":
        """Name the values that the page sends."""
        return cls(**dict(zip((field.name for field in fields(cls)), values, strict=True)))  # type: ignore[arg-type]  # the page's fields have these types

    def place(self) -> RunSpec:
        """Give a spec of the place alone, to see whether it can be drawn.

        Raises:
            InvalidSpecError: There is no such place, or the picture would leave the map.
        """
        return RunSpec.from_dict(
            {name: plain(getattr(self, name)) for name in ("lat", "lon", "zoom", "size")}
        )

    @property
    def asks(self) -> bool:
        """Whether a render asks the map server: allowed to, and where streets can be seen."""
        near = isinstance(self.zoom, int | float) and self.zoom >= MIN_ZOOM
        return self.online and self.choice == "auto" and near

    def layout(self) -> Layout | None:
        """Give the layout as it would be rendered without streets from OpenStreetMap.

        Nothing is written and nobody is asked.

        Raises:
            TerrascapeError: The place or the layout is not one.
        """
        window = self.place().window()
        if self.choice == "draw":
            return self.drawn().layout(window)
        if self.choice == "file":
            path = Path(self.file_or_refuse())
            return _file_source(path, path.stat().st_mtime_ns if path.is_file() else 0).layout(
                window
            )
        source = open_source(self.choice)
        return None if source is None else source.layout(window)

    def spec(self, out: Path) -> RunSpec:
        """Give the RunSpec; a layout and a chosen sound are saved beside the results first.

        Without a sound, what else is said of sounds stays out: such a spec is as of old.

        Raises:
            TerrascapeError: A field is wrong; nothing was written.
        """
        values: dict[str, object] = {
            field.name: plain(getattr(self, field.name))
            for field in fields(self)
            if field.name in SHARED
        }
        values |= {"seed": whole_seed(self.seed), "prompt": self.prompt or "", "layout": "none"}
        values["model"] = self.model or ""
        values |= self._told_of_sound() | self._told_of_looks()
        RunSpec.from_dict(values)  # before anything is written
        self.layout()
        if self.heard == "file":
            describe_sound(file_or_refuse(self.sound_file))
            values["sound"] = str(keep_sound(file_or_refuse(self.sound_file), out))
        values["layout"] = self._layout_name(out)
        return RunSpec.from_dict(values).pinned()

    def _told_of_sound(self) -> dict[str, object]:
        if self.heard == "none":
            return {name: _DEFAULTS[name] for name in SHARED if name.startswith("sound_")}
        text = words_or_refuse(self.sound_text) if self.heard == "words" else ""
        return {"sound_text": text, "sound_model": self.sound_model or ""}

    def _told_of_looks(self) -> dict[str, object]:
        """Leave out what is switched off: such a spec is as of old."""
        off = [
            *(() if self.style_on else _LOOK),
            *(() if self.habitat_on else ("taxon", "habitat_guidance")),
            *(() if self.climate_on else ("warmer_c", "rain_percent", "climate_guidance")),
        ]
        told: dict[str, object] = {name: _DEFAULTS[name] for name in off}
        if self.style_on:
            told["style_database"] = self.style_database or ""
        if self.habitat_on and not (self.taxon or "").strip():
            raise InvalidSpecError(
                "no taxon is named (write one, or untick 'Be the habitat of a mammal')"
            )
        return told

    def _layout_name(self, out: Path) -> str:
        if self.choice == "draw":
            return str(save_drawing(self.drawn(), int(self.size), out))
        if self.choice == "file":
            return str(keep_layout(Path(self.file_or_refuse()), out))
        return self.choice

    def drawn(self) -> Drawing:
        """Give the drawing.

        Raises:
            LayoutError: There is none.
        """
        if self.drawing is None:
            raise LayoutError(
                "nothing is drawn yet (paint on the canvas, or choose another layout)"
            )
        return self.drawing

    def file_or_refuse(self) -> str:
        """Give the chosen file.

        Raises:
            LayoutError: There is none.
        """
        if not self.file:
            raise LayoutError(
                "no layout file is chosen (drop an .osm, .osm.pbf, .geojson, .parquet, .gpkg or "
                ".png file, or choose another layout)"
            )
        return self.file


_PAGE_ONLY = (
    *("choice", "file", "drawing", "online", "seed", "heard", "sound_file"),
    *("style_on", "habitat_on", "climate_on"),
)
_LOOK = ("style_lat", "style_lon", "sharpness", "style_guidance", "style_database")
_DEFAULTS = {field.name: field.default for field in fields(RunSpec)}
SHARED = tuple(field.name for field in fields(Form) if field.name not in _PAGE_ONLY)
"""The fields that a RunSpec has under the same name, as the same kind of value."""


def random_seed() -> str:
    """Draw a seed short enough to be read aloud."""
    return str(secrets.randbelow(10**9))


@lru_cache(maxsize=2)
def _file_source(path: Path, _stamp: int) -> FileSource:
    """Keep the map that was read last: it is drawn anew whenever the place moves."""
    return FileSource(path)


def plain(value: object) -> object:
    """Turn a whole number that came as 8.0 back into 8."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole_seed(text: str | None) -> int:
    """Read a seed as it was typed.

    Raises:
        InvalidSpecError: It is no whole number.
    """
    try:
        return int((text or "").strip())
    except ValueError:
        raise InvalidSpecError(
            f"seed={(text or '')[:40]!r} is no whole number (give 0 to 2^63 - 1, or press New)"
        ) from None
