"""What the soundscape tab holds, and the RunSpec that it amounts to."""

import calendar
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from generation.errors import InvalidSpecError, shown
from generation.layer_spec import LayerSpec
from generation.spec import RunSpec
from generation.studio.form import plain, whole_seed
from generation.studio.panorama_form import image_or_refuse, keep_image
from generation.studio.rows import number_of
from generation.studio.sounds import keep_sound
from generation.studio.soundscape_layers import GivenLayer, add_words, typed_layers

ANY = "any"
"""The value of month and hour that leaves them open."""
MONTHS: tuple[tuple[str, str | int], ...] = (
    ("Any month", ANY),
    *((calendar.month_name[number], number) for number in range(1, 13)),
)
"""Labels and values of the choice of a month."""
HOURS: tuple[tuple[str, str], ...] = (
    ("Any hour", ANY),
    *((f"{q // 4:02}:{q % 4 * 15:02}", f"{q // 4:02}:{q % 4 * 15:02}") for q in range(96)),
)
"""The same of an hour; others may be typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundscapeForm:
    """The values of the tab's fields, in the order in which the page lists them."""

    lat: float | int | None
    lon: float | int | None
    month: str | float | int | None
    """One of the values of ``MONTHS``."""
    hour: str | None
    """One of the values of ``HOURS``, or as typed."""
    seconds: float | int | None
    loop: bool
    choice: str
    """One of the values of ``SATELLITE_CHOICES``."""
    image: str | None
    """The satellite image that was chosen."""
    prompt: str | None
    """What a satellite image that is drawn should look like."""
    use_location: bool
    seed: str | None
    """Text, since a seed may be larger than a browser's numbers are exact."""
    steps: float | int
    sound_guidance: float | int
    candidates: float | int
    model: str | None
    sound_model: str | None
    caption: str | None
    """Words that are not yet sources of the list."""
    given: list[GivenLayer] | None
    """The sources as they came."""
    rows: str | None
    """What stands in their list: JSON of the page."""

    @classmethod
    def of(cls, values: Sequence[object]) -> "SoundscapeForm":
        """Name the values that the page sends."""
        return cls(**dict(zip((field.name for field in fields(cls)), values, strict=True)))  # type: ignore[arg-type]  # the page's fields have these types

    @property
    def layers(self) -> list[GivenLayer]:
        """The sources, with what is typed of them.

        Raises:
            InvalidSpecError: The list is not what the page sends.
        """
        return typed_layers(self.given or [], self.rows)

    def asking(self) -> RunSpec:
        """Give a spec that leaves the sources to the place; nothing is written.

        Raises:
            InvalidSpecError: A field is wrong.
        """
        image = image_or_refuse(self.choice, self.image)
        return RunSpec.from_dict({**self._where(), "satellite": image})

    def spec(self, out: Path) -> RunSpec:
        """Give the RunSpec; what was dropped is saved beside the results first.

        Raises:
            TerrascapeError: A field is wrong; nothing was written.
        """
        sources = self._sources()
        told = [source.layer(number) for number, source in enumerate(sources, start=1)]
        values = {**self._where(), **self._how()}
        if not sources:
            values["sound_text"] = (self.caption or "").strip()
        image = image_or_refuse(self.choice, self.image)
        RunSpec.from_dict({**values, "layers": told, "satellite": image}).pinned()
        layers = [_kept(layer, out) for layer in told]
        image = keep_image(self.choice, self.image, out)
        return RunSpec.from_dict({**values, "layers": layers, "satellite": image}).pinned()

    def _sources(self) -> list[GivenLayer]:
        """Give the list, and after it what is written and was not added yet."""
        layers = self.layers
        if not layers or not (self.caption or "").strip():
            return layers
        return add_words(layers, self.caption)

    def _where(self) -> dict[str, object]:
        names = ("lat", "lon", "use_location", "steps")
        return {
            "kind": "soundscape",
            **{name: plain(getattr(self, name)) for name in names},
            "month": None if self.month in (ANY, None, "") else plain(self.month),
            "hour": hour_of(self.hour),
            "prompt": (self.prompt or "") if self.choice in ("auto", "generated") else "",
            "seed": whole_seed(self.seed),
            "sound_model": self.sound_model or "",
        }

    def _how(self) -> dict[str, object]:
        names = ("seconds", "loop", "sound_guidance", "candidates")
        told = {name: plain(getattr(self, name)) for name in names}
        return {**told, "model": self.model or ""}


def hour_of(text: str | None) -> float | None:
    """Read an hour as it was chosen or typed: 6:30 or 6.5; ``None`` where it is left open.

    Raises:
        InvalidSpecError: It is no hour.
    """
    words = (text or "").strip()
    if words in ("", ANY, HOURS[0][0]):
        return None
    hours, colon, minutes = words.partition(":")
    if not colon:
        value = number_of(words)
    elif hours.isdecimal() and minutes.isdecimal() and int(minutes) < 60:
        value = int(hours) + int(minutes) / 60
    else:
        value = None
    if value is None or not 0 <= value < 24:
        raise InvalidSpecError(
            f"hour={shown(words)} is no hour of the day (give 0:00 to 23:59, local time)"
        )
    return value


def hour_text(hour: float | None) -> str:
    """Write an hour so that it reads back as it was."""
    if hour is None:
        return ANY
    minutes = round(hour * 60)
    text = f"{minutes // 60:02}:{minutes % 60:02}"
    return text if minutes < 24 * 60 and hour_of(text) == hour else repr(hour)


def when_text(month: int | None, hour: float | None) -> str:
    """Say when something is heard, for people."""
    parts = [
        "any month" if month is None else calendar.month_name[month],
        "any hour" if hour is None else hour_text(hour),
    ]
    return ", ".join(parts)


def _kept(layer: LayerSpec, out: Path) -> LayerSpec:
    if layer.file is None:
        return layer
    return replace(layer, file=str(keep_sound(Path(layer.file), out)))
