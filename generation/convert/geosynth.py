"""GeoSynth: an ldm checkpoint's ControlNet and CoordNet, in diffusers' layout.

Source: Sastry et al., "GeoSynth: Contextually-Aware High-Resolution Satellite Image Synthesis"
(2024), arXiv 2404.06637; the keys are those of its published checkpoints.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generation.checkpoint import check_shapes, save_safetensors
from generation.convert.report import (
    WEIGHTS_NAME,
    Conversion,
    Shapes,
    Tensors,
    shapes_of,
    write_json,
)
from generation.errors import WeightsError

_CONTROL = "control_model."
_COORDNET = ("loc_blocks.", "loc_middle_block.")
_ELSEWHERE = {  # prefix in an ldm checkpoint: why it is not taken
    "model.diffusion_model.": "frozen base denoiser; it comes with the base model",
    "model_ema.": "running average of the frozen base denoiser",
    "first_stage_model.": "frozen base autoencoder; it comes with the base model",
    "cond_stage_model.": "frozen base text encoder; it comes with the base model",
}
_SCHEDULE = "constant of the noise schedule; the scheduler's configuration gives it"
_SCHEDULE_NAMES = ("betas", "alphas_cumprod", "sqrt_", "log_one_minus", "posterior_", "logvar")


def convert_controlnet(tensors: Tensors, out: Path, report: Conversion) -> None:
    """Rename the ControlNet's keys with diffusers' own converter, and check the result by it."""
    control, coordnet = _split(tensors, report)
    if not control:
        raise WeightsError(f"{report.source}: no key starts with {_CONTROL} (is it GeoSynth's?)")
    settings = controlnet_config(report.source, shapes_of(control))
    names = _controlnet_names(report.source, control, settings)
    result = {target: control[origin] for target, origin in names.items()}
    check_shapes(Path(report.source), shapes_of(result), _controlnet_shapes(settings))
    report.mapped.update(
        {_CONTROL + origin: f"controlnet/{target}" for target, origin in names.items()}
    )
    report.notes.append(
        "attention_head_dim is not stored in the weights: 64 channels a head for linear "
        "projections (Stable Diffusion 2), else 8 heads (Stable Diffusion 1)"
    )
    if coordnet:
        _write_coordnet(coordnet, out, report)
    _write_model(result, settings, out, "controlnet", report)


def convert_coordnet(tensors: Tensors, out: Path, report: Conversion) -> None:
    """Take the CoordNet and nothing else."""
    control, coordnet = _split(tensors, report)
    if not coordnet:
        raise WeightsError(
            f"{report.source}: no CoordNet inside, which only the checkpoints named Location have "
            "(use the kind controlnet for this one)"
        )
    reason = "ControlNet; the kind controlnet takes it"
    report.left.update({_CONTROL + name: reason for name in control})
    _write_coordnet(coordnet, out, report)


def _split(tensors: Tensors, report: Conversion) -> tuple[Tensors, Tensors]:
    """Part the ControlNet from the CoordNet inside it, and put down why the rest is left.

    diffusers' converter cannot do the first: it would drop ``loc_blocks`` and take
    ``loc_middle_block`` for a middle block.
    """
    inside = {
        name.removeprefix(_CONTROL): value
        for name, value in tensors.items()
        if name.startswith(_CONTROL)
    }
    for name in tensors:
        if not name.startswith(_CONTROL):
            report.left[name] = _reason(name)
    coordnet = {name: value for name, value in inside.items() if name.startswith(_COORDNET)}
    control = {name: value for name, value in inside.items() if name not in coordnet}
    return control, coordnet


def _reason(name: str) -> str:
    for prefix, reason in _ELSEWHERE.items():
        if name.startswith(prefix):
            return reason
    return _SCHEDULE if name.startswith(_SCHEDULE_NAMES) else "unknown: no part of GeoSynth"


def controlnet_config(source: str, shapes: Shapes) -> dict[str, Any]:
    """Read a ControlNet's diffusers configuration off the shapes of its ldm weights.

    Args:
        source: The file's name, for the error.
        shapes: Key, without ``control_model.``, -> shape.

    Raises:
        WeightsError: The blocks are not those of a Stable Diffusion ControlNet.
    """
    try:
        levels = _levels(shapes)
        context = next(
            shape[1] for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight")
        )
        linear = next(
            len(shape) == 2 for name, shape in shapes.items() if name.endswith(".proj_in.weight")
        )
        widths = [shapes[f"input_blocks.{level[0]}.0.out_layers.3.weight"][0] for level in levels]
        hints = [shapes[f"input_hint_block.{index}.weight"][0] for index in (0, 4, 8, 12)]
        return {
            "in_channels": shapes["input_blocks.0.0.weight"][1],
            "conditioning_channels": shapes["input_hint_block.0.weight"][1],
            "block_out_channels": widths,
            "down_block_types": [
                "CrossAttnDownBlock2D"
                if f"input_blocks.{level[0]}.1.norm.weight" in shapes
                else "DownBlock2D"
                for level in levels
            ],
            "layers_per_block": len(levels[0]),
            "cross_attention_dim": context,
            "use_linear_projection": linear,
            "attention_head_dim": [max(1, width // 64) for width in widths] if linear else 8,
            "conditioning_embedding_out_channels": hints,
            "controlnet_conditioning_channel_order": "rgb",
        }
    except (KeyError, StopIteration, IndexError) as error:
        raise WeightsError(
            f"{source}: not the ControlNet of a Stable Diffusion, {error or 'no attention'} is "
            "missing (is the file whole?)"
        ) from error


def _levels(shapes: Shapes) -> list[list[int]]:
    """Group the input blocks by resolution: a level ends where a downsampler (``op``) stands."""
    count = len({name.split(".")[1] for name in shapes if name.startswith("input_blocks.")})
    levels: list[list[int]] = [[]]
    for index in range(1, count):
        if f"input_blocks.{index}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(index)
    return levels


def _controlnet_names(source: str, control: Tensors, settings: Mapping[str, Any]) -> dict[str, str]:
    """Diffusers key -> ldm key.

    The converter only moves values from one name to another, so it is given the names as values.
    """
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    names: dict[str, str | None] = convert_controlnet_checkpoint(
        {name: name for name in control}, settings
    )
    absent = sorted(target for target, origin in names.items() if origin is None)
    lost = sorted(control.keys() - set(names.values()))
    if absent or lost:
        raise WeightsError(
            f"{source}: the ControlNet lacks {absent[:3]} ({len(absent)}) and has no place for "
            f"{lost[:3]} ({len(lost)}) (is it another architecture?)"
        )
    return {target: origin for target, origin in names.items() if origin is not None}


def _controlnet_shapes(settings: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    import torch
    from diffusers import ControlNetModel

    with torch.device("meta"):
        model = ControlNetModel(**settings)
    return shapes_of(model.state_dict())


def _write_coordnet(coordnet: Tensors, out: Path, report: Conversion) -> None:
    settings = _coordnet_config(report.source, shapes_of(coordnet))
    report.mapped.update({_CONTROL + name: f"coordnet/{name}" for name in coordnet})
    report.notes.append(
        f"CoordNet of {sum(tensor.numel() for tensor in coordnet.values())} parameters; its query "
        "and key weights have no effect, since each attention has a single key"
    )
    _write_model(coordnet, settings, out, "coordnet", report)


def _coordnet_config(source: str, shapes: Shapes) -> dict[str, Any]:
    """Read a CoordNet's sizes off its weights, and refuse one whose blocks are not all alike."""
    count = len({name.split(".")[1] for name in shapes if name.startswith(_COORDNET[0])})
    first = "loc_blocks.0.key_embed.weight"
    if first not in shapes:
        raise WeightsError(f"{source}: the CoordNet lacks {first} (is the file whole?)")
    embed, time = shapes[first]
    blocks = _coordnet_blocks(count)
    channels = [shapes.get(f"{block}.ff_zero.weight", (0,))[0] for block in blocks]
    check_shapes(Path(source), shapes, coordnet_shapes(channels, embed, time))
    return {"embed_dim": embed, "time_embed_dim": time, "num_heads": 4, "channels": channels}


def coordnet_shapes(
    channels: Sequence[int], embed_dim: int = 256, time_embed_dim: int = 1280
) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a CoordNet.

    Args:
        channels: Width of each skip connection of the denoiser, then of its middle block.
        embed_dim: Size of the location embedding.
        time_embed_dim: Size of the time embedding.
    """
    inner, square = (embed_dim,), (embed_dim, embed_dim)
    shared: dict[str, tuple[int, ...]] = {
        "query_embed.weight": square,
        "key_embed.weight": (embed_dim, time_embed_dim),
        "value_embed.weight": (embed_dim, time_embed_dim),
        "cross_attn.in_proj_weight": (3 * embed_dim, embed_dim),
        "cross_attn.in_proj_bias": (3 * embed_dim,),
        "cross_attn.out_proj.weight": square,
        "cross_attn.out_proj.bias": inner,
        "ff.weight": square,
    }
    shared |= {f"norm{i}.{name}": inner for i in (1, 2) for name in ("weight", "bias")}
    shapes: dict[str, tuple[int, ...]] = {}
    for block, width in zip(_coordnet_blocks(len(channels) - 1), channels, strict=True):
        shapes |= {f"{block}.{name}": shape for name, shape in shared.items()}
        shapes[f"{block}.ff_zero.weight"] = (width, embed_dim)
    return shapes


def _coordnet_blocks(skips: int) -> list[str]:
    return [f"loc_blocks.{index}" for index in range(skips)] + ["loc_middle_block"]


def _write_model(
    tensors: Tensors, settings: Mapping[str, Any], out: Path, part: str, report: Conversion
) -> None:
    class_name = {"controlnet": "ControlNetModel", "coordnet": "CoordNet"}[part]
    write_json(out / part / "config.json", {"_class_name": class_name, **settings})
    save_safetensors(tensors, out / part / WEIGHTS_NAME)
    report.files.extend([f"{part}/config.json", f"{part}/{WEIGHTS_NAME}"])
