"""Results on disk: whole or not at all, never overwritten, with the record of their making inside.

A render becomes files that share a stem. A satellite image:

    <stem>.png              the picture, the record as iTXt
    <stem>.tif              the same as GeoTIFF, the record as tags

A panorama:

    <stem>.jpg              the picture with GPano tags, the record in segments of its own
    <stem>.front.jpg, …     what is seen ahead, to the right, behind and to the left
    <stem>.overlay.png      which view and which part of the satellite image was used where
    <stem>.satellite.png    the satellite image it knew, if any

A soundscape:

    <stem>.flac, <stem>.wav the sound, the record inside
    <stem>.spectrogram.png  what it looks like
    <stem>.layers.json      its sources, a list to edit and give again
    <stem>.satellite.png    the satellite image it was made for, if any

And all:

    <stem>.layout.png       the layout it followed, if any
    <stem>.json             the manifest: record, SHA-256 of each file, timing; written last
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from generation.errors import AudioError, InvalidSpecError, MissingFileError, OutputError
from generation.media.folder import atomic_write, output_folder
from generation.media.geotiff import TIFF_MAGICS, geotiff_rgb, geotiff_tags
from generation.media.gpano import JPEG_MAGIC
from generation.media.image import PNG_MAGIC, open_rgb, png_text, read_bytes
from generation.media.panorama import panorama_texts
from generation.media.panorama_files import PANORAMA
from generation.media.record import (
    FORMAT,
    LAYOUT,
    VOLATILE,
    Content,
    Rendered,
    Renderer,
    canonical,
    encode,
    endings,
    make_record,
    pixels_sha256,
)
from generation.media.satellite_files import PICTURES
from generation.media.sound_files import (
    FLAC,
    FLAC_MAGIC,
    WAV,
    WAV_MAGIC,
    sound_samples,
    sound_texts,
)
from generation.media.soundscape import LAYERS
from generation.spec import DEFAULT_MODELS, RunSpec

__all__ = [
    "Artifact", "Rendered", "Renderer", "encode", "find_done", "make_record", "manifest_mistakes",
    "pixels_sha256", "read_artifact", "read_spec", "save_render", "stem",
    "stem_of",
]  # fmt: skip

_MANIFEST = ".json"


@dataclass(frozen=True)
class Artifact:
    """A file that Terrascape wrote, opened."""

    path: Path
    ending: str
    """``.png``, ``.tif``, ``.jpg``, ``.flac``, ``.wav`` or ``.json``."""
    spec: RunSpec
    record: dict[str, object]

    def pixels(self) -> Content:
        """Decode the picture or the sound; for a manifest, the PNG, JPEG or FLAC that it names."""
        path = self.sibling(self.picture) if self.ending == _MANIFEST else self.path
        if path.suffix in (FLAC, WAV) or self.ending in (FLAC, WAV):
            return sound_samples(read_bytes(path), str(path))
        if self.ending == ".tif":
            return geotiff_rgb(read_bytes(self.path))
        return open_rgb(path)

    @property
    def picture(self) -> str:
        """The ending of the file that is shown to people."""
        return {"panorama": PANORAMA, "soundscape": FLAC}.get(self.spec.kind, PICTURES[0])

    def sibling(self, ending: str) -> Path:
        """Give the path of another file of the same render."""
        return self.path.with_name(f"{self.path.name.removesuffix(self.path.suffix)}{ending}")

    def layout_file(self) -> Path | None:
        """Give the saved layout beside the file, if it is there and still the recorded one."""
        path, layout = self.sibling(LAYOUT), self.record.get("layout")
        if not isinstance(layout, dict) or not path.is_file():
            return None
        return path if pixels_sha256(open_rgb(path)) == layout.get("pixels_sha256") else None


def save_render(render: Rendered, out: Path) -> list[Path]:
    """Write a render's files, the manifest last; files that are already there are kept.

    If another process saves the same render meanwhile, its files are taken as this one's.

    Args:
        render: The picture and all that is known of it.
        out: A folder; made if need be.

    Returns:
        The picture's files, the layout and the manifest. The stem derives from the spec; if other
        files have it already (made by another version, or damaged since), a number is added.

    Raises:
        OutputError: The folder cannot be written to; nothing of this render is left in it.
    """
    files = encode(render)
    with output_folder(out):
        while True:
            stem = _free_stem(out, stem_of(render.spec), files)
            manifest = out / f"{stem}{_MANIFEST}"
            pictures = {out / f"{stem}{ending}": data for ending, data in files.items()}
            try:
                if not manifest.exists():
                    _write_set(pictures, manifest, _manifest_bytes(render, stem, files))
                return [*pictures, manifest]
            except OutputError:  # was another process faster, or can nothing be written here?
                if _fits(out, stem, files) and not manifest.exists():
                    raise


def read_spec(path: Path) -> RunSpec:
    """Give the RunSpec that a .png, .tif, .jpg, .flac, .wav or .json of Terrascape carries.

    Raises:
        MissingFileError: There is no such file.
        InvalidSpecError: It carries none, or is damaged.
    """
    return read_artifact(path).spec


def read_artifact(path: Path) -> Artifact:
    """Open a file that Terrascape wrote; its kind is told by its content, not by its name.

    Raises:
        MissingFileError: There is no such file.
        InvalidSpecError: It is no such file, or damaged.
    """
    data = read_bytes(path)
    try:
        ending, texts = _texts(data)
        spec, record = RunSpec.from_json(texts["spec"]), json.loads(texts["record"])
    except KeyError:
        raise InvalidSpecError(
            f"{path} carries no RunSpec (give a .png, .tif, .jpg, .flac, .wav or .json that "
            "`terrascape render` wrote; a file that was edited, converted or cut off loses what "
            "it carries)"
        ) from None
    except (InvalidSpecError, AudioError, ValueError, RecursionError) as error:
        raise InvalidSpecError(f"{path}: {error}") from None
    if not isinstance(record, dict) or record.get("spec") != spec.to_dict():
        raise InvalidSpecError(
            f"{path}: its RunSpec and its record disagree: one was edited (take the file as it was "
            "written)"
        )
    if record.get("format") != FORMAT:
        raise InvalidSpecError(
            f"{path} has a record of form {record.get('format')}, this version reads {FORMAT} "
            "(use the version of Terrascape that the record names)"
        )
    return Artifact(path, ending, spec, record)


def manifest_mistakes(path: Path) -> list[str]:
    """Compare the files of a render with its manifest; an empty list: all are there and whole.

    It must list all pictures and, if the record tells of one, the layout.

    Raises:
        InvalidSpecError: The manifest itself cannot be read.
    """
    content = _json_object(read_bytes(path))
    files = content.get("files")
    if not isinstance(files, dict) or not files:
        raise InvalidSpecError(f"{path} lists no files (render anew)")
    record = content.get("record")
    expected = [path.with_suffix(ending).name for ending in endings(record)]
    mistakes = [f"{name} is not listed" for name in expected if name not in files]
    for name, about in files.items():
        file = path.with_name(Path(name).name)
        if not file.is_file():
            mistakes.append(f"{file.name} is missing")
        elif not isinstance(about, dict) or _sha256(read_bytes(file)) != about.get("sha256"):
            mistakes.append(f"{file.name} has changed since it was written")
    return mistakes


def find_done(
    out: Path, spec: RunSpec, *, model_sha256: Callable[[str], str], online: bool
) -> tuple[Path | None, list[str]]:
    """Look for an earlier render that is what would be drawn now.

    Args:
        out: The folder of the results.
        spec: What would be drawn.
        model_sha256: Gives the hash of a model's weights by its name; asked only if need be, and
            of a panorama whose satellite image was drawn for that image's model, too.
        online: Whether the network would be allowed.

    Returns:
        Its manifest, whose files are all listed, there and whole; or None and, for each manifest
        of this name, why it will not do.
    """
    others = []
    for path in sorted(out.glob(f"{stem_of(spec)}*{_MANIFEST}")):
        if path.name.endswith(LAYERS):
            continue
        if not (reason := _unlike(path, spec, model_sha256, online=online)):
            return path, []
        others.append(f"{path.name}: {reason}")
    return None, others


def stem_of(spec: RunSpec) -> str:
    """Name a render by its kind, place and the fingerprint of its spec."""
    return stem(spec.kind, spec, spec.sha256())


def stem(kind: str, spec: RunSpec, sha256: str) -> str:
    """Name what was made of a place."""
    lat = f"{abs(spec.lat):.3f}{'S' if spec.lat < 0 else 'N'}"
    lon = f"{abs(spec.lon):.3f}{'W' if spec.lon < 0 else 'E'}"
    return f"{kind}_{lat}_{lon}_{sha256[:12]}"


def _unlike(path: Path, spec: RunSpec, model_sha256: Callable[[str], str], *, online: bool) -> str:
    """Say why the render of a manifest is not what would be drawn now; empty: it is."""
    unreadable = "its manifest cannot be read"
    try:
        artifact = read_artifact(path)
    except (InvalidSpecError, MissingFileError):
        return unreadable
    made = artifact.record.get("provenance")
    if artifact.spec != spec or not isinstance(made, dict):
        return "it has another description"
    if made.get("model_sha256") != model_sha256(spec.model):
        return "other weights drew it"
    ground = made.get("satellite")
    painter = ground.get("model_sha256") if isinstance(ground, dict) else None
    if painter is not None and painter != model_sha256(DEFAULT_MODELS["satellite"]):
        return "other weights drew its satellite image"
    if made.get("online") is not online:
        return f"it was drawn {'with' if made.get('online') else 'without'} the network"
    try:
        return "; ".join(manifest_mistakes(path))
    except (InvalidSpecError, MissingFileError):
        return unreadable


def _write_set(pictures: Mapping[Path, bytes], manifest: Path, content: bytes) -> None:
    """Write a render's files; after a failure, take away those that this very call has written."""
    written = []
    order = [*pictures.items(), (manifest, content)]
    try:
        for path, data in [*order, *order]:  # again: one that failed may have taken its own away
            if atomic_write(path, data):
                written.append(path)
    except BaseException:  # also Ctrl-C: nothing partial may stay
        if not manifest.exists():  # else another process has saved the same render with them
            for path in written:
                path.unlink(missing_ok=True)
        raise


def _free_stem(out: Path, stem: str, files: Mapping[str, bytes]) -> str:
    """Give the first of stem, stem-2, … whose files are absent or just what would be written."""
    number, candidate = 1, stem
    while not _fits(out, candidate, files):
        number += 1
        candidate = f"{stem}-{number}"
    return candidate


def _fits(out: Path, stem: str, files: Mapping[str, bytes]) -> bool:
    manifest = out / f"{stem}{_MANIFEST}"
    try:
        for ending, data in files.items():
            path = out / f"{stem}{ending}"
            if path.exists() and read_bytes(path) != data:
                return False
        return not manifest.exists() or not manifest_mistakes(manifest)
    except (InvalidSpecError, MissingFileError):  # no file, or gone since we looked
        return False


def _manifest_bytes(render: Rendered, stem: str, files: Mapping[str, bytes]) -> bytes:
    content = {
        "synthetic": True,
        "record": make_record(render),
        "run": {name: render.provenance[name] for name in VOLATILE if name in render.provenance},
        "files": {
            f"{stem}{ending}": {"bytes": len(data), "sha256": _sha256(data)}
            for ending, data in files.items()
        },
    }
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"


def _texts(data: bytes) -> tuple[str, dict[str, str]]:
    """Give the ending that fits a file's content, and the texts ``spec`` and ``record`` in it."""
    if data.startswith(PNG_MAGIC):
        texts = png_text(data)
        return ".png", {"spec": texts["RunSpec"], "record": texts["Terrascape"]}
    if data.startswith(TIFF_MAGICS):
        tags = geotiff_tags(data)
        return ".tif", {"spec": tags["RUNSPEC"], "record": tags["TERRASCAPE"]}
    if data.startswith(JPEG_MAGIC):
        texts = panorama_texts(data)
        return ".jpg", {"spec": texts["RunSpec"], "record": texts["Terrascape"]}
    if data.startswith((FLAC_MAGIC, WAV_MAGIC)):
        texts = sound_texts(data)
        ending = FLAC if data.startswith(FLAC_MAGIC) else WAV
        return ending, {"spec": texts["RunSpec"], "record": texts["Terrascape"]}
    record = _json_object(data).get("record")
    if not isinstance(record, dict):
        raise KeyError("record")
    return _MANIFEST, {"spec": canonical(record["spec"]), "record": canonical(record)}


def _json_object(data: bytes) -> dict[str, object]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InvalidSpecError(
            "the file is neither a PNG nor a TIFF nor a manifest, and no JPEG, FLAC or WAV (give "
            "one that terrascape wrote)"
        )
    return content


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
