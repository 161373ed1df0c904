"""AudioLDM: an original checkpoint as the folder of a diffusers pipeline.

The U-Net is that of the running average where the checkpoint holds one, since the published code
draws with it. CLAP is taken whole, words and ears, so that a sound can be made like a recording.

Source: Liu et al., "AudioLDM" (2023), arXiv 2301.12503; the keys are those of its published
checkpoints.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from generation.checkpoint import check_shapes, save_safetensors
from generation.convert.audioldm_parts import (
    Part,
    clap_part,
    schedule,
    unet_part,
    vae_part,
    vocoder_part,
)
from generation.convert.report import Conversion, Tensors, shapes_of, write_json
from generation.errors import WeightsError

if TYPE_CHECKING:
    import torch

UNET, VAE = "model.diffusion_model.", "first_stage_model."
VOCODER, CLAP = "first_stage_model.vocoder.", "cond_stage_model.model."
_AVERAGE = "model_ema."
_SCHEDULE = ("betas", "alphas_cumprod", "sqrt_", "log_one_minus", "posterior_", "logvar")
_LEFT = {  # how a key begins, or what it holds: why it is left
    _AVERAGE: "count or rate of the running average",
    f"{VAE}loss.": "discriminator of the autoencoder's training",
    f"{CLAP}text_transform.": "for CLAP's training alone",
    f"{CLAP}audio_transform.": "for CLAP's training alone",
    f"{CLAP}audio_branch.tscam_conv.": "classes of AudioSet, which no embedding uses",
    f"{CLAP}audio_branch.head.": "classes of AudioSet, which no embedding uses",
    f"{CLAP}audio_branch.spectrogram_extractor.": "constant of the spectrogram",
    f"{CLAP}audio_branch.logmel_extractor.": "constant of the spectrogram",
}
_CONSTANTS = ("position_ids", "token_type_ids", "relative_position_index", "attn_mask")
_CLASSES = {
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "ClapModel"],
    "tokenizer": ["transformers", "RobertaTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "vocoder": ["transformers", "SpeechT5HifiGan"],
}
_WEIGHTS = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}


def convert_audioldm(tensors: Tensors, out: Path, report: Conversion) -> None:
    """Rename every tensor, check the shapes by the classes that will load them, and write.

    Raises:
        WeightsError: Keys are missing or unknown, or it is another architecture.
    """
    taken, average = _with_average(report.source, tensors)
    for name in tensors:
        if reason := _reason(name, average):
            report.left[name] = reason
    kept = {n: value for n, value in taken.items() if n in average or n not in report.left}
    parts = {
        "unet": unet_part(report.source, _under(kept, UNET)),
        "vae": vae_part(report.source, _under(kept, VAE, VOCODER)),
        "vocoder": vocoder_part(report.source, _under(kept, VOCODER)),
        "text_encoder": clap_part(report.source, _under(kept, CLAP)),
    }
    parts["vae"].settings["scaling_factor"] = _scale(report.source, tensors)
    report.mapped["scale_factor"] = "vae/config.json: scaling_factor"
    settings = schedule(report.source, tensors.get("betas"))
    prefixes = {"unet": UNET, "vae": VAE, "vocoder": VOCODER, "text_encoder": CLAP}
    filled = {}
    for name, part in parts.items():
        filled[name] = _filled(report.source, part, _under(kept, prefixes[name]))
        for target, slot in part.layout.items():
            origin = average.get(prefixes[name] + slot.source, prefixes[name] + slot.source)
            before = report.mapped.get(origin)
            here = f"{name}/{target}"
            report.mapped[origin] = f"{before}, {here}" if before else here
    _refuse_unknown(report, tensors, average)
    _note(report, average)
    for name, part in parts.items():
        write_json(out / name / "config.json", part.settings)
        weights = _WEIGHTS[_CLASSES[name][0]]
        save_safetensors(filled[name], out / name / weights)
        report.files.extend([f"{name}/config.json", f"{name}/{weights}"])
    write_json(out / "scheduler" / "scheduler_config.json", settings)
    write_json(out / "model_index.json", {"_class_name": "AudioLDMPipeline", **_CLASSES})
    report.files.extend(["scheduler/scheduler_config.json", "model_index.json"])


def _with_average(source: str, tensors: Tensors) -> "tuple[Tensors, dict[str, str]]":
    """Put the running average of the U-Net in its place.

    Returns:
        The tensors, and for each name of the U-Net that of its running average; none at all where
        the checkpoint holds none.

    Raises:
        WeightsError: It holds the running average of a part of it.
    """
    names = {
        name: _AVERAGE + name.removeprefix("model.").replace(".", "")
        for name in tensors
        if name.startswith(UNET)
    }
    there = {name: average for name, average in names.items() if average in tensors}
    if there and len(there) < len(names):
        absent = sorted(names[name] for name in names.keys() - there.keys())
        raise WeightsError(
            f"{source}: the running average lacks {', '.join(absent[:3])} ({len(absent)} of "
            f"{len(names)}; is the file whole?)"
        )
    return {**tensors, **{name: tensors[average] for name, average in there.items()}}, there


def _reason(name: str, average: Mapping[str, str]) -> str | None:
    """Say why a key is left, if it is."""
    if name in average:
        return "its running average is taken instead, with which the published code draws"
    if name in average.values():
        return None
    if name.endswith(_CONSTANTS):
        return "constant of its sizes; computed again"
    if name.startswith(_SCHEDULE):
        return "constant of the noise schedule; the scheduler's configuration gives it"
    return next((reason for start, reason in _LEFT.items() if name.startswith(start)), None)


def _under(tensors: Tensors, prefix: str, but: str = "-") -> "dict[str, torch.Tensor]":
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix) and not name.startswith(but)
    }


def _scale(source: str, tensors: Tensors) -> float:
    if "scale_factor" not in tensors:
        raise WeightsError(
            f"{source}: scale_factor is missing, by which latents are scaled (is it an AudioLDM?)"
        )
    return float(tensors["scale_factor"])


def _filled(source: str, part: Part, tensors: Tensors) -> "dict[str, torch.Tensor]":
    """Make every tensor of a part, its shape checked."""
    wanted = {slot.source: slot.source_shape for slot in part.layout.values()}
    there = {name: value for name, value in tensors.items() if name in wanted}
    check_shapes(Path(source), shapes_of(there), wanted)
    return {t: slot.take(there[slot.source]) for t, slot in part.layout.items()} | part.constants


def _refuse_unknown(report: Conversion, tensors: Tensors, average: Mapping[str, str]) -> None:
    """Refuse a key that no part has a place for; one that is of none of them is left."""
    lost = []
    for name in tensors.keys() - report.mapped.keys() - report.left.keys():
        if name.startswith((UNET, VAE, "cond_stage_model.")):
            lost.append(name)
        else:
            report.left[name] = "unknown: no part of AudioLDM"
    if lost:
        raise WeightsError(
            f"{report.source}: no part has a place for {', '.join(sorted(lost)[:3])} ({len(lost)} "
            "such keys; is it another architecture?)"
        )


def _note(report: Conversion, average: Mapping[str, str]) -> None:
    if average:
        report.notes.append("the U-Net is its running average, with which the published code draws")
    report.notes.extend(
        [
            "heads are not stored in the weights: 32 channels each, 64 where the first level has "
            "256 or more, as in the published code; diffusers' published folders have 8 everywhere",
            "strides of the vocoder and dilations of its blocks are not stored: as published",
            "sentences are read where their tokenizer lies beside the weights, in the folder "
            "tokenizer (roberta-base, or that of cvssp/audioldm-s-full-v2)",
        ]
    )
