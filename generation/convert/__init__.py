"""Foreign checkpoints to safetensors, with every key accounted for.

``geoclip``     the location encoder of GeoCLIP 1.3.0, from its wheel or its .pth
``controlnet``  a GeoSynth .ckpt: its ControlNet in diffusers' layout, and its CoordNet if any
``coordnet``    a GeoSynth .ckpt: its CoordNet alone
``satclip``     a SatCLIP .ckpt: its location encoder, which GeoSynth's CoordNet was trained with
``sinr``        a SINR .pt: its network of places
``range``       a folder with a range_db_*.npz and the SatCLIP checkpoint of its keys
``geoclap``     a GeoCLAP .ckpt: images, sounds and sentences in one space
``psm``         a PSM .ckpt, with Gaussians or points, with metadata or without
``sat2sound``   a Sat2Sound .ckpt, with metadata or without
``birdsat``     a BirdSAT .ckpt, CVE-MAE or CVM-MAE, or a folder with one of each
``taxabind``    a folder of the published parts of TaxaBind, each as its repository has it
``audioldm``    an AudioLDM .ckpt: all its parts but the tokenizer, in diffusers' layout

Whatever is not converted is named in ``conversion.json`` with the reason, and a key that belongs
to the converted part but has no place in it is an error.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from generation.checkpoint import sha256_file
from generation.convert.audioldm import convert_audioldm
from generation.convert.birdsat import convert_birdsat
from generation.convert.geoclip import MEMBER, convert_geoclip
from generation.convert.geosynth import convert_controlnet, convert_coordnet
from generation.convert.report import REPORT_NAME, Conversion, Tensors, write_json
from generation.convert.retrieval import convert_retrieval
from generation.convert.satclip import convert_satclip
from generation.convert.sinr import convert_sinr
from generation.convert.sound import SOUND_KINDS, convert_sound
from generation.convert.taxabind import convert_taxabind
from generation.errors import InvalidSpecError, OutputError
from generation.foreign_checkpoint import read_foreign, read_hyper_parameters

__all__ = ["Conversion", "convert", "kinds"]

_OF_FOLDERS: dict[str, Callable[[Path, Path], Conversion]] = {
    "birdsat": convert_birdsat,
    "range": convert_retrieval,
    "taxabind": convert_taxabind,
}
_CONVERTERS: dict[str, Callable[[Tensors, Path, Conversion], None]] = {
    "audioldm": convert_audioldm,
    "controlnet": convert_controlnet,
    "coordnet": convert_coordnet,
    "geoclip": convert_geoclip,
    "satclip": convert_satclip,
    "sinr": convert_sinr,
}


def convert(kind: str, source: Path, out: Path) -> Conversion:
    """Convert a foreign checkpoint into a folder that holds no weights yet.

    Args:
        kind: One of ``kinds()``.
        source: The foreign file, or the folder of parts for those kinds that have some.
        out: A folder; it is made if needed.

    Raises:
        InvalidSpecError: There is no such kind.
        MissingFileError: There is no such file.
        WeightsError: The file is damaged, or not what the kind says.
        OutputError: The folder holds weights already or cannot be written to.
    """
    if kind not in kinds():
        raise InvalidSpecError(f"kind={kind!r} cannot be converted (choose {', '.join(kinds())})")
    if next(out.rglob("*.safetensors"), None) is not None:
        raise OutputError(
            f"{out} holds weights already (nothing is overwritten; name a new folder)"
        )
    if kind in _OF_FOLDERS:
        report = _OF_FOLDERS[kind](source, out)
        write_json(out / REPORT_NAME, asdict(report))
        return report
    tensors, notes = read_foreign(source, _member(kind, source))
    report = Conversion(
        kind=kind, source=source.name, source_sha256=sha256_file(source), notes=notes
    )
    if kind in SOUND_KINDS:
        convert_sound(kind, tensors, read_hyper_parameters(source), out, report)
    else:
        _CONVERTERS[kind](tensors, out, report)
    write_json(out / REPORT_NAME, asdict(report))
    return report


def kinds() -> list[str]:
    """Names of what can be converted."""
    return sorted([*_CONVERTERS, *SOUND_KINDS, *_OF_FOLDERS])


def _member(kind: str, source: Path) -> str | None:
    """Return the file inside an archive that a kind is read from."""
    return MEMBER if kind == "geoclip" and source.suffix == ".whl" else None
