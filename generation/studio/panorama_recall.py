"""Earlier panoramas: back into the tab, and the files that belong to one of them."""

from dataclasses import dataclass
from pathlib import Path

from generation.errors import TerrascapeError
from generation.media.artifact import Artifact
from generation.spec import RunSpec
from generation.spec_checks import SATELLITE_WORDS
from generation.studio.panorama_form import PanoramaForm
from generation.studio.panorama_views import GivenView, kept_view
from generation.studio.recall import (
    among_results,
    file_sha256,
    files_among,
    files_beside,
    refuse_others,
)

ENDINGS = (
    *(".jpg", ".front.jpg", ".right.jpg", ".back.jpg", ".left.jpg"),
    *(".overlay.png", ".satellite.png", ".json"),
)
"""The files of a panorama, which share a stem."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The tab's fields for a spec of an earlier render."""

    form: PanoramaForm
    note: str = ""
    """What could not be brought back as it was."""


def restore(artifact: Artifact, out: Path) -> Restored:
    """Fill the tab from a saved render.

    A panorama or a satellite image is opened only if it lies among the results: a file from
    elsewhere must not make the page read whatever path it names.

    Raises:
        InvalidSpecError: It is no panorama.
    """
    spec = artifact.spec
    refuse_others(spec, "panorama")
    given, notes = _views_in_reach(spec, out)
    choice, image, lost = image_in_reach(spec, out)
    form = PanoramaForm(
        lat=spec.lat,
        lon=spec.lon,
        heading=spec.heading,
        choice=choice,
        image=image,
        prompt=spec.prompt,
        far=spec.far,
        seed=str(spec.seed),
        steps=spec.steps,
        satellite_guidance=spec.satellite_guidance,
        views_guidance=spec.views_guidance,
        model=spec.model,
        given=given,
        rows="[]",
    )
    return Restored(form, "; ".join([*notes, *lost]))


def files_of(path: Path) -> dict[str, Path]:
    """Give the files that lie beside a render's file, by ending."""
    return files_beside(path, ENDINGS)


def find_files(artifact: Artifact, out: Path) -> dict[str, Path]:
    """Give the files of an opened render: those among the results if they are the same render."""
    return files_among(artifact, out, ENDINGS)


def _views_in_reach(spec: RunSpec, out: Path) -> tuple[list[GivenView], list[str]]:
    given: list[GivenView] = []
    notes = []
    for view in spec.views:
        path = Path(view.file)
        try:
            if in_reach(path, view.sha256, out) is not None:
                given.append(kept_view(view, [each.key for each in given]))
                continue
        except TerrascapeError:  # damaged since
            pass
        notes.append(f"its panorama {path.name!r} is not among the results: drop it again")
    return given, notes


def image_in_reach(spec: RunSpec, out: Path) -> tuple[str, str | None, list[str]]:
    """Give the switch and the file for a render's satellite image, and what is to be told of it."""
    if spec.satellite in SATELLITE_WORDS:
        return spec.satellite, None, []
    path = Path(spec.satellite)
    image = in_reach(path, spec.satellite_sha256, out)
    lost = f"its satellite image {path.name!r} is not among the results: choose it again"
    return "file", image, [] if image else [lost]


def in_reach(path: Path, sha256: str | None, out: Path) -> str | None:
    """Give the path of a file that lies among the results and still is the one that was named."""
    there = among_results(path, out)
    return there if there is not None and file_sha256(path) == sha256 else None
