"""Results on disk: whole or not at all, never overwritten, with the record of their making inside.

A render becomes four files that share a stem:

    <stem>.png          the picture, the record as iTXt
    <stem>.tif          the same as GeoTIFF, the record as tags
    <stem>.layout.png   the layout it followed, if any
    <stem>.json         the manifest: record, SHA-256 of each file, timing; written last

The record depends on nothing but the spec, the model and the machine's software, so a replay can
be compared byte by byte; what changes from run to run (seconds) stands in the manifest only.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from generation.errors import InvalidSpecError, MissingFileError, OutputError
from generation.geo.layout import Layout
from generation.geo.mercator import Window
from generation.media.folder import atomic_write, output_folder
from generation.media.geotiff import TIFF_MAGICS, geotiff_bytes, geotiff_rgb, geotiff_tags
from generation.media.image import PNG_MAGIC, open_rgb, png_bytes, png_text, read_bytes
from generation.spec import RunSpec

FORMAT = 1
"""Version of the record's form."""
PICTURES = (".png", ".tif")
"""The endings of the files that hold the picture, in the order in which they are told."""
_MANIFEST, _LAYOUT = ".json", ".layout.png"
_VOLATILE = ("seconds",)
"""Keys of a render's provenance that differ from run to run."""
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    "Iptc4xmpExt:DigitalSourceType="
    '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    "</rdf:RDF></x:xmpmeta>"
)
"""What photo software reads as "made by AI" (IPTC Photo Metadata Standard 2023.1)."""


@runtime_checkable
class Rendered(Protocol):
    """What a pipeline hands over to be saved."""

    @property
    def image(self) -> UInt8[np.ndarray, "height width 3"]:
        """The picture."""

    @property
    def layout(self) -> Layout | None:
        """The layout that it followed."""

    @property
    def spec(self) -> RunSpec:
        """What was asked for."""

    @property
    def window(self) -> Window:
        """Where it lies."""

    @property
    def provenance(self) -> dict[str, object]:
        """How it was made: model, hashes, versions, licences, attribution, seconds."""


Renderer = Callable[..., Rendered]
"""What renders, as the pipelines do: called with ``(spec, *, on_step, cancelled, online)``."""


@dataclass(frozen=True)
class Artifact:
    """A file that Terrascape wrote, opened."""

    path: Path
    ending: str
    """``.png``, ``.tif`` or ``.json``."""
    spec: RunSpec
    record: dict[str, object]

    def pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        """Decode the picture; for a manifest, the PNG that it names."""
        if self.ending == ".tif":
            return geotiff_rgb(read_bytes(self.path))
        return open_rgb(self.sibling(".png") if self.ending == _MANIFEST else self.path)

    def sibling(self, ending: str) -> Path:
        """Give the path of another file of the same render."""
        return self.path.with_name(f"{self.path.name.removesuffix(self.path.suffix)}{ending}")

    def layout_file(self) -> Path | None:
        """Give the saved layout beside the file, if it is there and still the recorded one."""
        path, layout = self.sibling(_LAYOUT), self.record.get("layout")
        if not isinstance(layout, dict) or not path.is_file():
            return None
        return path if pixels_sha256(open_rgb(path)) == layout.get("pixels_sha256") else None


def save_satellite(render: Rendered, out: Path) -> list[Path]:
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


def encode(render: Rendered) -> dict[str, bytes]:
    """Give the bytes of a render's files by ending, the manifest excepted."""
    record, spec = make_record(render), render.spec.to_json()
    files = {
        ".png": png_bytes(
            render.image,
            {
                "Software": "Terrascape",
                "Synthetic": "true",
                "RunSpec": spec,
                "Terrascape": _canonical(record),
                "XML:com.adobe.xmp": _XMP,
            },
        ),
        ".tif": geotiff_bytes(
            render.image,
            render.window,
            {
                "TIFFTAG_SOFTWARE": "Terrascape",
                "SYNTHETIC": "true",
                "RUNSPEC": spec,
                "TERRASCAPE": _canonical(record),
            },
        ),
    }
    if render.layout is not None:
        about = {"Software": "Terrascape", "Description": "layout: a map, drawn from data"}
        credit = {"Source": render.layout.source, "Copyright": render.layout.attribution}
        files[_LAYOUT] = png_bytes(
            render.layout.rgb(), about | {key: value for key, value in credit.items() if value}
        )
    return files


def make_record(render: Rendered) -> dict[str, object]:
    """Describe a render by what is the same in every replay."""
    layout = None
    if render.layout is not None:
        layout = {
            "attribution": render.layout.attribution,
            "notes": list(render.layout.notes),
            "pixels_sha256": pixels_sha256(render.layout.rgb()),
            "source": render.layout.source,
        }
    kept = {name: value for name, value in render.provenance.items() if name not in _VOLATILE}
    record = {
        "format": FORMAT,
        "synthetic": True,
        "spec": render.spec.to_dict(),
        "pixels_sha256": pixels_sha256(render.image),
        "crs": "EPSG:3857",
        "transform": list(render.window.transform),
        "layout": layout,
        "provenance": kept,
    }
    plain: dict[str, object] = json.loads(_canonical(record))  # tuples as lists, as in a file
    return plain


def pixels_sha256(rgb: UInt8[np.ndarray, "height width 3"]) -> str:
    """Give the fingerprint of an image's size and pixels, however it is stored."""
    height, width = rgb.shape[:2]
    return hashlib.sha256(b"%d,%d;" % (height, width) + rgb.tobytes()).hexdigest()


def read_spec(path: Path) -> RunSpec:
    """Give the RunSpec that a .png, .tif or .json of Terrascape carries.

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
            f"{path} carries no RunSpec (give a .png, .tif or .json that `terrascape render` "
            "wrote; a picture that was edited, converted or cut off loses what it carries)"
        ) from None
    except (InvalidSpecError, ValueError, RecursionError) as error:
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

    It must list both pictures and, if the record tells of one, the layout.

    Raises:
        InvalidSpecError: The manifest itself cannot be read.
    """
    content = _json_object(read_bytes(path))
    files = content.get("files")
    if not isinstance(files, dict) or not files:
        raise InvalidSpecError(f"{path} lists no files (render anew)")
    record = content.get("record")
    layout = isinstance(record, dict) and record.get("layout") is not None
    expected = [path.with_suffix(ending).name for ending in PICTURES + (_LAYOUT,) * layout]
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
        model_sha256: Gives the hash of a model's weights by its name; asked only if need be.
        online: Whether the network would be allowed.

    Returns:
        Its manifest, whose files are all listed, there and whole; or None and, for each manifest
        of this name, why it will not do.
    """
    found = sorted(out.glob(f"{stem_of(spec)}*{_MANIFEST}"))
    weights = model_sha256(spec.model) if found else ""
    others = []
    for path in found:
        if not (reason := _unlike(path, spec, weights, online=online)):
            return path, []
        others.append(f"{path.name}: {reason}")
    return None, others


def stem_of(spec: RunSpec) -> str:
    """Name a render by its kind, place and the fingerprint of its spec."""
    lat = f"{abs(spec.lat):.3f}{'S' if spec.lat < 0 else 'N'}"
    lon = f"{abs(spec.lon):.3f}{'W' if spec.lon < 0 else 'E'}"
    return f"{spec.kind}_{lat}_{lon}_{spec.sha256()[:12]}"


def _unlike(path: Path, spec: RunSpec, weights: str, *, online: bool) -> str:
    """Say why the render of a manifest is not what would be drawn now; empty: it is."""
    try:
        artifact = read_artifact(path)
        made = artifact.record.get("provenance")
        if artifact.spec != spec or not isinstance(made, dict):
            return "it has another description"
        if made.get("model_sha256") != weights:
            return "other weights drew it"
        if made.get("online") is not online:
            return f"it was drawn {'with' if made.get('online') else 'without'} the network"
        return "; ".join(manifest_mistakes(path))
    except (InvalidSpecError, MissingFileError):
        return "its manifest cannot be read"


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
        "run": {name: render.provenance[name] for name in _VOLATILE if name in render.provenance},
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
    record = _json_object(data).get("record")
    if not isinstance(record, dict):
        raise KeyError("record")
    return _MANIFEST, {"spec": _canonical(record["spec"]), "record": _canonical(record)}


def _json_object(data: bytes) -> dict[str, object]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InvalidSpecError(
            "the file is neither a PNG nor a TIFF nor a manifest (give one that terrascape wrote)"
        )
    return content


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
