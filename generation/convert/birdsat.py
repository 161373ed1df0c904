"""BirdSAT: its published checkpoints as models of ours.

A checkpoint of CVE-MAE becomes ``embed/``, one of CVM-MAE ``match/``; a folder that holds both
becomes a model that finds and matches. Sizes are read off the weights; the satellite tower's own
decoder, which nothing reads, is left.

Source: Sastry et al., "BirdSAT" (WACV 2024), and the names of its published layers.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.checkpoint import check_shapes, save_safetensors, sha256_file
from generation.convert.report import WEIGHTS_NAME, Conversion, Tensors, shapes_of, write_json
from generation.errors import MissingFileError, WeightsError
from generation.foreign_checkpoint import read_foreign

if TYPE_CHECKING:
    import torch

_EMBED, _MATCH = "embed", "match"
_GROUND, _SATELLITE, _BOTH = "ground_encoder.", "sat_encoder.", "model."
_TOWERS = {_GROUND: "ground_tower.", _SATELLITE: "satellite_tower.", _BOTH: "joint_tower."}
_METADATA = {"geo_encode.": "metadata.layers.place.", "date_encode.": "metadata.layers.date."}
_NUMBERED = re.compile(r"(patch_embed|decoder_pred)([12]?)\.")
_HEADS = {768: 12, 1024: 16, 512: 16}
"""Heads by the width of tokens, which no weight tells; of other widths, 64 dimensions a head."""
_HEAD_DIM = 64


def convert_birdsat(source: Path, out: Path) -> Conversion:
    """Convert a checkpoint, or all of a folder.

    Args:
        source: A .ckpt file, or a folder of them.
        out: A folder without weights.

    Raises:
        MissingFileError: There is none.
        WeightsError: One is damaged or of another model, or two are of one kind.
    """
    files = sorted(source.glob("*.ckpt")) if source.is_dir() else [source]
    if not files:
        raise MissingFileError(f"{source} holds no .ckpt file (put BirdSAT's there)")
    hashes = [sha256_file(file) for file in files if file.is_file()]
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    report = Conversion(kind="birdsat", source=source.name, source_sha256=whole)
    found: dict[str, tuple[Path, Tensors]] = {}
    for file in files:
        read, notes = read_foreign(file)
        report.notes.extend(notes)
        kind = _kind(file, read)
        if kind in found:
            raise WeightsError(f"{found[kind][0].name} and {file.name} are both {kind} (leave one)")
        found[kind] = (file, read)
    for kind, (file, tensors) in found.items():
        _convert_part(kind, tensors, out / kind, report, f"{file.name}/" if len(files) > 1 else "")
    report.notes.append("positions and the order of patches as published (compat mvrl)")
    return report


def _kind(file: Path, tensors: Tensors) -> str:
    starts = {f"{name.split('.')[0]}." for name in tensors}
    if {_GROUND, _SATELLITE} <= starts:
        return _EMBED
    if _BOTH in starts and "match." in starts:
        return _MATCH
    raise WeightsError(
        f"{file.name}: neither CVE-MAE (ground_encoder, sat_encoder) nor CVM-MAE (model, match) of "
        "BirdSAT (is it another model?)"
    )


def _convert_part(
    kind: str, tensors: Tensors, folder: Path, report: Conversion, prefix: str
) -> None:
    import torch

    from generation.encoders.birdsat import CveMae, CvmMae

    named: dict[str, tuple[tuple[str, ...], torch.Tensor]] = {}
    for name in tensors:
        target = _target(name)
        if target is None:
            report.left[prefix + name] = "the satellite tower's own decoder, which nothing reads"
        elif target.endswith(("attn.q_bias", "attn.v_bias")):
            at = target.rsplit(".", 1)[0]
            named[f"{at}.qkv.bias"] = _joined_bias(name.rsplit(".", 1)[0], tensors)
        else:
            named[target] = ((name,), tensors[name])
    settings = _settings(report.source, kind, shapes_of({n: t for n, (_, t) in named.items()}))
    with torch.device("meta"):
        model = {_EMBED: CveMae, _MATCH: CvmMae}[kind](**settings)
    expected = {n: tuple(value.shape) for n, value in model.state_dict().items()}
    result = {target: value for target, (_, value) in named.items()}
    for name in (n for n in expected if n.startswith("metadata.null.")):
        result[name] = torch.zeros(expected[name])  # published weights know no metadata as nothing
    check_shapes(Path(report.source), shapes_of(result), expected)
    for target, (sources, _) in named.items():
        report.mapped.update({prefix + each: f"{kind}/{target}" for each in sources})
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {"_class_name": type(model).__name__, **settings})
    save_safetensors(result, folder / WEIGHTS_NAME, {"licence": "MIT"})
    report.files.extend([f"{kind}/config.json", f"{kind}/{WEIGHTS_NAME}"])


def _target(name: str) -> str | None:
    """Give the name of a published tensor here; none where it is left."""
    for source, here in _METADATA.items():
        if name.startswith(source):
            return here + name.removeprefix(source)
    for source, here in _TOWERS.items():
        if name.startswith(source):
            inside = name.removeprefix(source)
            if source == _SATELLITE and inside.startswith(("decoder_", "mask_token")):
                return None
            return here + _inside(inside)
    return name


def _inside(name: str) -> str:
    """Translate a layer of a tower."""

    def numbered(found: "re.Match[str]") -> str:
        part = "patches" if found[1] == "patch_embed" else found[1]
        return f"{part}.{int(found[2] or 1) - 1}."

    return _NUMBERED.sub(numbered, name).replace(".PCM.", ".parallel.")


def _joined_bias(at: str, tensors: Tensors) -> "tuple[tuple[str, ...], torch.Tensor]":
    """Put the biases of queries and values around zeros: keys have none."""
    import torch

    names = (f"{at}.q_bias", f"{at}.v_bias")
    if not all(name in tensors for name in names):
        raise WeightsError(f"{at} has a bias of queries or of values alone (is it complete?)")
    query, value = (tensors[name] for name in names)
    return names, torch.cat([query, torch.zeros_like(query), value])


def _settings(source: str, kind: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Read the sizes of a model off its weights."""
    try:
        if kind == _MATCH:
            tower = _tower(shapes, "joint_tower.", 2)
            return {"tower": tower, "reads": _reads(shapes), "drop": 0.25}
        ground = _tower(shapes, "ground_tower.", 1)
        satellite = _tower(shapes, "satellite_tower.", 1)
    except KeyError as error:
        raise WeightsError(f"{source} lacks {error} of BirdSAT (is it complete?)") from None
    parts = {"ground": ground, "satellite": satellite}
    return {**parts, "reads": _reads(shapes), "drop": 0.25, "compat": "mvrl"}


def _reads(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    return [name for name in ("place", "date") if f"metadata.layers.{name}.weight" in shapes]


def _tower(shapes: Mapping[str, tuple[int, ...]], at: str, views: int) -> dict[str, Any]:
    patches = [shapes[f"{at}patches.{view}.proj.weight"] for view in range(views)]
    tokens, dim = shapes[f"{at}pos_embed"][1] - 1, shapes[f"{at}pos_embed"][2]
    sides = _sides(tokens, [shape[-1] for shape in patches])
    vitae = f"{at}blocks.0.parallel.0.weight" in shapes
    settings: dict[str, Any] = {
        "views": [[side, side, shape[-1]] for side, shape in zip(sides, patches, strict=True)],
        "dim": dim,
        "depth": _count(shapes, f"{at}blocks."),
        "heads": _heads(dim),
        "decoder": [0, 0, 0],
        "cell": "vitae" if vitae else "vit",
    }
    if f"{at}decoder_embed.weight" in shapes:
        width = shapes[f"{at}decoder_embed.weight"][0]
        depth = _count(shapes, f"{at}decoder_blocks.")
        settings["decoder"] = [width, depth, _HEADS.get(width, max(1, width // _HEAD_DIM))]
    return settings


def _heads(dim: int) -> int:
    return _HEADS.get(dim, max(1, dim // _HEAD_DIM))


def _count(shapes: Mapping[str, tuple[int, ...]], start: str) -> int:
    return len({n.removeprefix(start).split(".")[0] for n in shapes if n.startswith(start)})


def _sides(tokens: int, patches: list[int]) -> list[int]:
    """Give the sides of square views that have so many patches together.

    Of two, the published views are 384 and 224 pixels; others are told apart by no weight, so the
    pair of sides is the one nearest to these in shape.
    """
    if len(patches) == 1:
        return [patches[0] * round(tokens**0.5)]
    most = range(1, math.isqrt(tokens) + 1)
    found = [(a, b) for a in most for b in most if a * a + b * b == tokens]
    if not found:
        raise WeightsError(f"{tokens} positions are of no two square views (is it another model?)")
    best = min(found, key=lambda ab: abs(ab[0] * patches[0] / (ab[1] * patches[1]) - 384 / 224))
    return [count * patch for count, patch in zip(best, patches, strict=True)]
