"""What the panorama tab holds, and the RunSpec that it amounts to."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path

from generation.errors import InvalidSpecError
from generation.geo.location import Location
from generation.media.folder import atomic_write, output_folder
from generation.media.image import read_bytes
from generation.registry import find, list_models
from generation.spec import RunSpec
from generation.spec_checks import SATELLITE_WORDS
from generation.studio.form import plain, whole_seed
from generation.studio.map_widget import place_at
from generation.studio.panorama_views import GivenView, typed

SATELLITE_CHOICES: tuple[tuple[str, str], ...] = (
    ("Automatic", "auto"),
    ("None", "none"),
    ("Drawn", "generated"),
    ("My GeoTIFF", "file"),
)
"""Labels and values of the switch of the satellite image."""
VIEW_FOLDER, IMAGE_FOLDER = "panoramas", "imagery"
"""Folders of dropped panoramas and satellite images below the results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanoramaForm:
    """The values of the tab's fields, in the order in which the page lists them."""

    lat: float | int | None
    lon: float | int | None
    heading: float | int | None
    choice: str
    """One of the values of ``SATELLITE_CHOICES``."""
    image: str | None
    """The satellite image that was chosen."""
    prompt: str | None
    """Counts where it is read; elsewhere the page does not show it."""
    far: bool
    seed: str | None
    """Text, since a seed may be larger than a browser's numbers are exact."""
    steps: float | int
    satellite_guidance: float | int
    views_guidance: float | int
    model: str | None
    given: list[GivenView] | None
    """The panoramas as they were dropped."""
    rows: str | None
    """What stands in their list: JSON of the page."""

    @classmethod
    def of(cls, values: Sequence[object]) -> "PanoramaForm":
        """Name the values that the page sends."""
        return cls(**dict(zip((field.name for field in fields(cls)), values, strict=True)))  # type: ignore[arg-type]  # the page's fields have these types

    @property
    def views(self) -> list[GivenView]:
        """The panoramas, with what is typed of them.

        Raises:
            InvalidSpecError: The list is not what the page sends.
        """
        return typed(self.given or [], self.rows)

    @property
    def place(self) -> Location | None:
        """The place, if the fields hold one."""
        return place_at(self.lat, self.lon)

    def spec(self, out: Path) -> RunSpec:
        """Give the RunSpec; what was dropped is saved beside the results first.

        Raises:
            TerrascapeError: A field is wrong; nothing was written.
        """
        views = self.views
        told = [view.spec(view.file) for view in views]
        values, image = self._values(), image_or_refuse(self.choice, self.image)
        try:
            RunSpec.from_dict({**values, "views": told, "satellite": image}).pinned()
        except InvalidSpecError as error:
            text = str(error)
            for view in views:  # people know them by their names
                text = text.replace(view.file, view.name)
            raise InvalidSpecError(text) from None
        kept = [
            replace(view, file=str(keep_input(Path(view.file), out / VIEW_FOLDER))) for view in told
        ]
        image = keep_image(self.choice, self.image, out)
        return RunSpec.from_dict({**values, "views": kept, "satellite": image}).pinned()

    def _values(self) -> dict[str, object]:
        names = ("lat", "lon", "heading", "steps", "satellite_guidance", "views_guidance")
        return {
            "kind": "panorama",
            **{name: plain(getattr(self, name)) for name in names},
            "far": self.far,
            "prompt": (self.prompt or "") if reads_words(self.choice, self.model) else "",
            "seed": whole_seed(self.seed),
            "model": self.model or "",
        }


def image_or_refuse(choice: str, image: str | None) -> str:
    """Give a RunSpec's word for the chosen satellite image, or its file.

    Raises:
        InvalidSpecError: A file is wanted and there is none.
    """
    if choice != "file":
        return choice
    if not image:
        raise InvalidSpecError(
            "no satellite image is chosen (drop a GeoTIFF of red, green and blue that reaches "
            "around the place, or choose another one)"
        )
    return image


def keep_image(choice: str, image: str | None, out: Path) -> str:
    """Give the same, a file copied beside the results first.

    Raises:
        TerrascapeError: There is none, or it cannot be kept.
    """
    named = image_or_refuse(choice, image)
    return named if named in SATELLITE_WORDS else str(keep_input(Path(named), out / IMAGE_FOLDER))


def reads_words(choice: str | None, model: str | None) -> bool:
    """Tell whether words would be read: by a satellite image that is drawn, or by the model."""
    reads = model in list_models("panorama") and find(str(model)).reads_prompt
    return choice in ("auto", "generated") or reads


def keep_input(path: Path, folder: Path) -> Path:
    """Copy what was dropped beside the results, so that a replay finds it; it keeps its name.

    Raises:
        OutputError: The folder of the results cannot be written to.
    """
    if path.resolve().is_relative_to(folder.resolve()):
        return path
    data = read_bytes(path)
    with output_folder(folder / sha256(data).hexdigest()[:12], needed_bytes=len(data)) as made:
        kept = made / path.name[-80:]
        atomic_write(kept, data)
    return kept
