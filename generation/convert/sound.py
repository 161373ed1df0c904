"""GeoCLAP, PSM and Sat2Sound: their published checkpoints as shared spaces of ours.

Source: the code of Khanal et al., "GeoCLAP" (BMVC 2023), "PSM" (ACM MM 2024) and "Sat2Sound"
(2025); their keys are those of Lightning checkpoints that it writes. Converted spaces compute what
that code computes, slips included (``compat="mvrl"``), with one exception: metadata are dropped
while learning alone, as its evaluation has it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.checkpoint import check_shapes, save_safetensors
from generation.convert.report import (
    WEIGHTS_NAME,
    Conversion,
    Tensors,
    shapes_of,
    write_json,
)
from generation.convert.sound_parts import (
    Layout,
    Slot,
    Source,
    clap_audio,
    clap_text,
    htsat,
    is_constant,
    joint,
    linear,
    mlp,
    norm,
    vit,
)
from generation.errors import WeightsError

if TYPE_CHECKING:
    import torch

Told = Mapping[str, str | int | float | bool]
"""The hyper-parameters of a checkpoint."""
_TILES = {"sentinel": 256, "bingmap": 300, "googleEarth": 256}
"""Pixels of a published tile, by the name of its imagery."""
_VOCABULARIES = {
    "asource": ("audio_source_fc", ["yfcc", "iNat", "aporee", "freesound"]),
    "tsource": ("caption_source_fc", ["meta", "qwen", "pengi"]),
}
_CIRCLES = {"place": ("location_fc", 4), "month": ("month_fc", 2), "hour": ("time_fc", 2)}
_CIRCLE_HIDDEN = 64
_GEOCLAP_WORDS, _PSM_WORDS, _T5_WORDS = 77, 128, 512
"""Tokens that are read of a sentence."""
_LISTED = 20
_READ = {"sat_type", "sat_input_size", "meta_droprate", "metadata_type", "dataset_type"}
"""Hyper-parameters that are put down; the first two decide how an image is read."""
_LEFT = (
    (r"(^|\.)logit_scale_\w+$|^criterion\.", "temperature or slope of the loss"),
    (r"\.(tscam_conv|head)\.", "classes of AudioSet, which no embedding uses"),
    (r"(feats|logmel|spectrogram)_extractor\.", "constant of the spectrogram; its reader has it"),
)
"""Pattern of a foreign name: why it is left."""


@dataclass
class Space:
    """A space in the making: its configuration, and what each of its tensors is made of."""

    source: Source
    settings: dict[str, Any]
    towers: dict[str, dict[str, Any]] = field(default_factory=dict)
    layout: Layout = field(default_factory=dict)
    constants: "dict[str, torch.Tensor]" = field(default_factory=dict)


def convert_sound(kind: str, tensors: Tensors, told: Told, out: Path, report: Conversion) -> None:
    """Convert a checkpoint of one of the three systems.

    Args:
        kind: One of ``SOUND_KINDS``.
        tensors: Its state dict.
        told: Its hyper-parameters.
        out: Folder of the space.
        report: Filled in with what became of each key.

    Raises:
        WeightsError: Keys are missing, unknown or of other shapes, or it is a variant that has no
            place in a space of ours.
    """
    space = SOUND_KINDS[kind](Source(report.source, shapes_of(tensors)), told)
    result = _filled(space, tensors, report)
    _note(space, told, report)
    settings = {**space.settings, "towers": space.towers, "compat": "mvrl"}
    write_json(out / "config.json", {"_class_name": "SoundSpace", **settings})
    save_safetensors(result, out / WEIGHTS_NAME)
    report.files.extend(["config.json", WEIGHTS_NAME])


def _note(space: Space, told: Told, report: Conversion) -> None:
    report.notes[:] = [note for note in report.notes if not note.startswith("hyper_parameters:")]
    for name in sorted(_READ & told.keys()):
        report.notes.append(f"hyper_parameters: {name}={told[name]!r}")
    report.notes.append(
        "heads are not stored in the weights: 64 features each, 8 where metadata are joined"
    )
    report.notes.append(
        "sentences are read where their tokenizer lies beside the weights, in the folder "
        f"tokenizer ({_text_source(space)})"
    )
    if "metadata" in space.settings:
        report.notes.append("metadata are never dropped, as where the published model is evaluated")


def _text_source(space: Space) -> str:
    if space.towers["text"]["kind"] == "t5":
        return "google/flan-t5-large, whose encoder goes into the folder text_encoder"
    return "roberta-base"


def _geoclap(source: Source, told: Told) -> Space:
    """Lay out GeoCLAP: SatMAE with its classes, a layer, and CLAP as it is."""
    if source.has("sat_encoder.metamodel.") or source.has("sat_encoder.fc_final."):
        raise WeightsError(
            f"{source.file}: GeoCLAP with metadata_type=lat_long, whose place joins the image by "
            "layers of its own, is not converted (take a checkpoint with metadata_type=none)"
        )
    dim, classes = source.shape("sat_encoder.fc.weight", 2)
    space = Space(source, {"kind": "pooled", "joined": "none", "dim": dim, "width": dim})
    model = "sat_encoder.model"
    sizes, layout = vit("image", source, model)
    count, width = source.shape(f"{model}.pos_embed", 3)[1], sizes["dim"]
    layout |= {
        "image.cls_token": Slot(f"{model}.cls_token", (1, 1, width)),
        "image.pos_embed": Slot(f"{model}.pos_embed", (1, count, width)),
    }
    layout |= norm("image.norm", f"{model}.norm", width)
    layout |= linear("image.head", f"{model}.head", classes, width)
    layout |= linear("head.project.image", "sat_encoder.fc", dim, classes)
    side = round((count - 1) ** 0.5) * sizes["patch"]
    pixels = {"normalised": "imagenet", "resized_px": side * 256 // 224, "antialias": False}
    extra = {"image_px": side, "classes": classes, "projected": False, "pixels": pixels}
    space.towers["image"] = {"kind": "satmae", **sizes, **extra}
    space.layout |= layout
    _add_clap(space, "audio_encoder.model", "text_encoder.model", _GEOCLAP_WORDS)
    for name in ("audio", "text"):
        space.towers[name] |= {"projected": False, "mapped": False}
    return space


def _psm(source: Source, told: Told) -> Space:
    """Lay out PSM, with Gaussians or, as its baseline, with points."""
    encoder = "sat_encoder.encoder"
    gaussian = source.has(f"{encoder}.mean_head.")
    width = _add_scale_vit(space := Space(source, {}), f"{encoder}.backbone", encoder, told)
    space.towers["image"] |= {"pooled": True, "mapped": gaussian}
    vit_dim = space.towers["image"]["dim"]
    space.layout |= norm("image.norm", f"{encoder}.backbone.fc_norm", vit_dim)
    space.settings = {"kind": "pooled", "joined": "none", "dim": width, "width": width}
    if source.has(f"{encoder}.meta_fuser."):
        _add_metadata(space, f"{encoder}.meta_fuser", "late")
        space.layout["summary"] = Slot(f"{encoder}.meta_fuser.cls_token", (width,), ones=2)
    _add_clap(space, "audio_encoder.model.model", "text_encoder.model.model", _PSM_WORDS)
    for name, theirs in (("audio", "audio_encoder"), ("text", "text_encoder")):
        space.towers[name] |= {"projected": not gaussian, "mapped": gaussian}
        if not gaussian:
            space.layout |= mlp(f"project.{name}", source, f"{theirs}.head")[1]
    if gaussian:
        space.settings["kind"] = "gaussian"
        for name, theirs in (
            ("image", encoder),
            ("audio", "audio_encoder"),
            ("text", "text_encoder"),
        ):
            dim, mean = mlp(f"head.mean.{name}", source, f"{theirs}.mean_head")
            space.layout |= mean
            space.layout |= mlp(f"head.log_variance.{name}", source, f"{theirs}.std_head")[1]
            space.settings["dim"] = dim
    return space


def _sat2sound(source: Source, told: Told) -> Space:
    """Lay out Sat2Sound: all patches, HTS-AT's moments and FLAN-T5's words on one codebook."""
    codes, dim = source.shape("fdt.space_dict", 2)
    space = Space(source, {"kind": "codebook", "joined": "none", "dim": dim})
    backbone = "satmae_backbone"
    width = _add_scale_vit(space, f"{backbone}.backbone", backbone, told)
    space.towers["image"] |= {"final_norm": False}
    space.settings |= {"width": width, "codebook": {"codes": codes, "temperature": 1000.0}}
    if source.has("sat_encoder."):
        _add_metadata(space, "sat_encoder.meta_fuser", "early")
    net, layout, constants = htsat(source, "audio_encoder.model.audio_enc")
    space.towers["audio"] = {"kind": "htsat", "net": net, "projected": False}
    space.layout |= layout
    space.constants |= constants
    states = source.shape("fdt.txt_query_model.q_map.1.weight", 2)[1]
    text = {"kind": "t5", "dim": states, "max_tokens": _T5_WORDS, "projected": False}
    space.towers["text"] = text
    space.layout["head.codes"] = Slot("fdt.space_dict", (codes, dim))
    inputs = {"image": width, "audio": net["hidden_size"], "text": states}
    for name, theirs in (("image", "img"), ("audio", "audio"), ("text", "txt")):
        query, key = f"head.query.{name}", f"fdt.{theirs}_query_model.q_map"
        space.layout |= norm(f"{query}.0", f"{key}.0", inputs[name])
        space.layout |= linear(f"{query}.1", f"{key}.1", dim, inputs[name])
        space.layout |= norm(f"{query}.3", f"{key}.3", dim)
        space.layout |= linear(f"{query}.4", f"{key}.4", dim, dim)
    return space


SOUND_KINDS: dict[str, Callable[[Source, Told], Space]] = {
    "geoclap": _geoclap,
    "psm": _psm,
    "sat2sound": _sat2sound,
}


def _add_scale_vit(space: Space, backbone: str, projector: str, told: Told) -> int:
    """Add an image tower with positions in metres and its projection; give the width of this."""
    imagery, side = told.get("sat_type"), told.get("sat_input_size")
    if imagery not in _TILES or not isinstance(side, int):
        raise WeightsError(
            f"{space.source.file}: its hyper_parameters have sat_type={imagery!r} and "
            f"sat_input_size={side!r} (one of {', '.join(_TILES)} and a number of pixels say how "
            "large a pixel is on the ground; convert the checkpoint as it was published)"
        )
    sizes, layout = vit("image", space.source, backbone)
    width, projected = mlp("project.image", space.source, f"{projector}.projector")
    space.layout |= layout | projected
    # A tile of so many pixels is brought to the side; the published scale is that of the tile's.
    reference = {"reference_gsd_m": _TILES[str(imagery)] / side}
    pixels = {"normalised": "imagenet"}
    space.towers["image"] = {
        "kind": "scale-vit",
        "image_px": side,
        **sizes,
        **reference,
        "pixels": pixels,
    }
    return width


def _add_clap(space: Space, audio: str, text: str, max_tokens: int) -> None:
    for name, prefix in (("sound", audio), ("text", text)):
        if not space.source.has(f"{prefix}."):
            raise WeightsError(
                f"{space.source.file}: no {name} tower inside, as where a space was trained on "
                "saved embeddings or without sentences (take a checkpoint of all three modalities)"
            )
    net, layout, constants = clap_audio(space.source, audio)
    space.towers["audio"] = {"kind": "clap", "net": net}
    words, more, others = clap_text(space.source, text)
    space.towers["text"] = {"kind": "clap", "net": words, "max_tokens": max_tokens}
    space.layout |= layout | more
    space.constants |= constants | others


def _add_metadata(space: Space, prefix: str, joined: str) -> None:
    source, embed = space.source, f"{prefix}.meta_embed"
    absent = [
        name for name, (theirs, _) in _CIRCLES.items() if not source.has(f"{embed}.{theirs}.")
    ]
    if absent:
        raise WeightsError(
            f"{source.file}: a metadata_type without {' and '.join(absent)} is not converted (take "
            "a checkpoint with place, month and hour, or one with metadata_type=none)"
        )
    settings, layout = joint(source, f"{prefix}.transformer_encoder")
    width = source.shape(f"{embed}.location_fc.fc2.weight", 2)[0]
    for name, (theirs, size) in _CIRCLES.items():
        ours, key = f"metadata_encoder.circles.{name}", f"{embed}.{theirs}"
        layout |= linear(f"{ours}.0", f"{key}.fc1", _CIRCLE_HIDDEN, size)
        layout |= linear(f"{ours}.2", f"{key}.fc2", width, _CIRCLE_HIDDEN)
    vocabularies = {}
    for name, (theirs, words) in _VOCABULARIES.items():
        if source.has(f"{embed}.{theirs}."):
            vocabularies[name] = words
            layout[f"metadata_encoder.words.{name}.weight"] = Slot(
                f"{embed}.{theirs}.source_embed.weight", (len(words), width)
            )
    space.layout |= layout
    space.settings |= {
        "joined": joined,
        "metadata": {**settings, "vocabularies": vocabularies, "drop": 0.0},
    }


def _filled(space: Space, tensors: Tensors, report: Conversion) -> "dict[str, torch.Tensor]":
    """Make every tensor of the space, and put down what became of every foreign one."""
    wanted = {slot.source: slot.source_shape for slot in space.layout.values()}
    left = {name: reason for name in tensors if name not in wanted and (reason := _reason(name))}
    missing = sorted(wanted.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - wanted.keys() - left.keys())
    if missing or unknown:
        raise WeightsError(
            f"{report.source}: {_listed(missing)} missing, {_listed(unknown)} unknown (is the file "
            f"whole, and of the kind {report.kind}?)"
        )
    taken = {name: tensors[name] for name in wanted}
    check_shapes(Path(report.source), shapes_of(taken), wanted)
    report.left.update(left)
    for target, slot in space.layout.items():
        before = report.mapped.get(slot.source)
        report.mapped[slot.source] = f"{before}, {target}" if before else target
    filled = {target: slot.take(taken[slot.source]) for target, slot in space.layout.items()}
    return filled | space.constants


def _reason(name: str) -> str | None:
    if is_constant(name):
        return "constant of its sizes; computed again"
    return next((reason for pattern, reason in _LEFT if re.search(pattern, name)), None)


def _listed(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
