"""Earlier panoramas: back into the tab, and the files that belong to one of them."""

from dataclasses import dataclass
from pathlib import Path

from generation.errors import InvalidSpecError, TerrascapeError
from generation.media.artifact import Artifact, read_artifact, stem_of
from generation.spec import RunSpec
from generation.spec_checks import SATELLITE_WORDS
from generation.studio.panorama_form import PanoramaForm
from generation.studio.panorama_views import GivenView, kept_view
from generation.studio.recall import among_results, file_sha256

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
    if spec.kind != "panorama":
        raise InvalidSpecError(
            f"this is a {spec.kind} image (open it in the tab of its kind, or drop a panorama)"
        )
    given, notes = _views_in_reach(spec, out)
    image, choice = None, spec.satellite
    if spec.satellite not in SATELLITE_WORDS:
        choice = "file"
        image = _in_reach(Path(spec.satellite), spec.satellite_sha256, out)
        if image is None:
            name = Path(spec.satellite).name
            notes.append(f"its satellite image {name!r} is not among the results: choose it again")
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
    return Restored(form, "; ".join(notes))


def files_of(path: Path) -> dict[str, Path]:
    """Give the files that lie beside a render's file, by ending."""
    stem = path.name
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if stem.endswith(ending):
            stem = stem.removesuffix(ending)
            break
    found = {ending: path.with_name(f"{stem}{ending}") for ending in ENDINGS}
    return {ending: file for ending, file in found.items() if file.is_file()}


def find_files(artifact: Artifact, out: Path) -> dict[str, Path]:
    """Give the files of an opened render: those among the results if they are the same render."""
    for manifest in sorted(out.glob(f"{stem_of(artifact.spec)}*.json")):
        try:
            if read_artifact(manifest).record == artifact.record:
                return files_of(manifest)
        except TerrascapeError:
            continue
    return {".jpg": artifact.path} if artifact.ending == ".jpg" else {}


def _views_in_reach(spec: RunSpec, out: Path) -> tuple[list[GivenView], list[str]]:
    given: list[GivenView] = []
    notes = []
    for view in spec.views:
        path = Path(view.file)
        try:
            if _in_reach(path, view.sha256, out) is not None:
                given.append(kept_view(view, [each.key for each in given]))
                continue
        except TerrascapeError:  # damaged since
            pass
        notes.append(f"its panorama {path.name!r} is not among the results: drop it again")
    return given, notes


def _in_reach(path: Path, sha256: str | None, out: Path) -> str | None:
    there = among_results(path, out)
    return there if there is not None and file_sha256(path) == sha256 else None
