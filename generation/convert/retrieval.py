"""RANGE: a published database with the SatCLIP that made its keys, as one folder of ours.

A folder holds one ``range_db_*.npz`` (``locs`` with longitude first, ``satclip_embeddings``,
``image_embeddings``) and one SatCLIP checkpoint (``.ckpt``, or ``.safetensors`` as repacked).
Nothing in a published file says whether its rows belong together, so a share of them is held to
the location encoder: keys of their own places must fit better than keys of others.

Source: Dhakal et al., "RANGE" (CVPR 2025), and the layout of its published database.
"""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from generation.checkpoint import load_part, save_safetensors, sha256_file
from generation.convert.report import Conversion, write_json
from generation.convert.satclip import convert_satclip
from generation.errors import InvalidLocationError, MissingFileError, WeightsError
from generation.foreign_checkpoint import read_foreign

if TYPE_CHECKING:
    import torch

_ARRAYS = ("locs", "satclip_embeddings", "image_embeddings")
_SETTINGS = {"temperature": 12.0, "geo_temperature": 40.0, "beta": 0.5}
"""As published for RANGE+; RANGE has a temperature of 15 and a beta of 1."""
_HELD = 512
_CERTAIN = 5.0
"""Standard errors by which keys must fit their own places better."""


def convert_retrieval(folder: Path, out: Path) -> Conversion:
    """Convert a database and its location encoder.

    Args:
        folder: See the module.
        out: A folder without weights.

    Raises:
        MissingFileError: One of the two is not there.
        WeightsError: A file is damaged, or the two do not belong together.
    """
    database, encoder = _one(folder, ("*.npz",)), _one(folder, ("*.ckpt", "*.safetensors"))
    report = Conversion(
        kind="range",
        source=database.name,
        source_sha256=sha256_file(database),
        notes=[f"location encoder from {encoder.name}, SHA-256 {sha256_file(encoder)}"],
    )
    latlon, keys, values = _read(database, report)
    tower = Conversion(kind="satclip", source=encoder.name, source_sha256="")
    convert_satclip(read_foreign(encoder)[0], out / "location", tower)
    report.mapped.update({f"{encoder.name}/{n}": f"location/{t}" for n, t in tower.mapped.items()})
    report.left.update({f"{encoder.name}/{name}": why for name, why in tower.left.items()})
    report.notes.extend(tower.notes)
    report.notes.append(_held_together(out / "location", latlon, keys, database.name))
    save_safetensors(
        {"latlon": latlon, "keys": keys, "values": values}, out / "database.safetensors"
    )
    write_json(out / "config.json", _SETTINGS)
    about = {
        "source": database.name,
        "source_sha256": report.source_sha256,
        "rows": len(latlon),
        "key_dim": keys.shape[1],
        "value_dim": values.shape[1],
        "licence": "none is stated by its authors",
    }
    write_json(out / "database.json", about)
    report.files.extend(f"location/{name}" for name in tower.files)
    report.files.extend(["database.safetensors", "database.json", "config.json"])
    return report


def _one(folder: Path, patterns: tuple[str, ...]) -> Path:
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if len(found) != 1:
        raise MissingFileError(
            f"{folder} holds {len(found)} files {' or '.join(patterns)} (put there one database "
            "range_db_*.npz and the one SatCLIP checkpoint that its keys are of)"
        )
    return found[0]


def _read(file: Path, report: Conversion) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
    import torch

    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            absent = [name for name in _ARRAYS if name not in arrays.files]
            if absent:
                raise WeightsError(
                    f"{file.name} lacks {', '.join(absent)} (it holds {', '.join(arrays.files)})"
                )
            locs, keys, values = (
                torch.from_numpy(np.asarray(arrays[name], np.float32)) for name in _ARRAYS
            )
            left = [name for name in arrays.files if name not in _ARRAYS]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{file.name} is no readable .npz: {error} (fetch it again)") from error
    report.left.update(dict.fromkeys(left, "nothing here reads it"))
    report.mapped.update(zip(_ARRAYS, ("latlon", "keys", "values"), strict=True))
    counts = {len(each) for each in (locs, keys, values)}
    if len(counts) != 1 or locs.ndim != 2 or locs.shape[1] != 2 or keys.ndim != 2:
        raise WeightsError(
            f"{file.name} has {len(locs)} places, {len(keys)} keys and {len(values)} values (row i "
            "of each must be of one place)"
        )
    for name, each in zip(_ARRAYS, (locs, keys, values), strict=True):
        if not bool(each.isfinite().all()):
            raise WeightsError(f"{file.name}: {name} holds NaN or infinity (fetch it again)")
    return locs.flip(1).contiguous(), torch.nn.functional.normalize(keys, dim=1), values


def _held_together(location: Path, latlon: "torch.Tensor", keys: "torch.Tensor", name: str) -> str:
    """Refuse keys that fit the places of other rows as well as their own."""
    import torch

    from generation.encoders.location import LocationEncoder
    from generation.encoders.retrieval import check_places

    try:
        check_places(latlon)
    except InvalidLocationError as error:
        raise WeightsError(f"{name}: {error}; locs must hold longitude, then latitude") from error
    rows = torch.linspace(0, len(latlon) - 1, min(_HELD, len(latlon))).long()
    encoder = load_part(LocationEncoder, location).eval()
    with torch.no_grad():
        found = torch.nn.functional.normalize(encoder(latlon[rows].double()).float(), dim=1)
    if found.shape[1] != keys.shape[1]:
        raise WeightsError(
            f"{name} has keys of {keys.shape[1]} dimensions and the location encoder gives "
            f"{found.shape[1]} (give the SatCLIP that made them)"
        )
    fits = found @ keys[rows].T
    own, other = float(fits.diagonal().mean()), float(fits.mean())
    gain = fits.diagonal() - fits.mean(1)
    if len(rows) > 1 and float(gain.mean()) <= _CERTAIN * float(gain.std()) / len(rows) ** 0.5:
        raise WeightsError(
            f"{name}: keys fit their own places ({own:.3f}) no better for certain than those of "
            f"other rows ({other:.3f}); the rows are mixed up, or the keys are of another SatCLIP"
        )
    return f"keys fit their own places by {own:.3f} and those of other rows by {other:.3f}"
