"""Parts of an AudioLDM: their sizes, read off the weights, and where each weight goes.

Names of the U-Net and of the autoencoder come from diffusers' own converters, which are given
stand-ins for tensors, so that every key can be accounted for; those of CLAP and of the vocoder are
told here.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from generation.convert.report import Shapes, Tensors, shapes_of
from generation.convert.sound_parts import Layout, Slot, Source, clap_text, htsat
from generation.errors import WeightsError

if TYPE_CHECKING:
    import torch

_KERNELS, _STRIDES = (16, 16, 8, 4, 4), (5, 4, 2, 2, 2)
"""Of the vocoder's upsamplers; the strides make 160 samples of a column."""
_DILATIONS = (1, 3, 5)
_RATE = 16_000
_BETAS, _STEPS = (0.0015, 0.0195), 1000
_TOLERANCE = 1e-6


@dataclass
class Part:
    """A part in the making: its configuration, and what each of its tensors is made of."""

    settings: dict[str, Any]
    layout: Layout
    constants: "dict[str, torch.Tensor]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pointwise(Slot):
    """A matrix that is made of a convolution over single points."""

    @property
    def source_shape(self) -> tuple[int, ...]:
        """Shape that the foreign tensor must have."""
        return (*self.shape, 1, 1)


class _StandIn:
    """A tensor's name and shape in its place, as far as diffusers' converters look at it."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape

    def __getitem__(self, _: object) -> "_StandIn":
        """Give what is left where a convolution becomes a linear layer."""
        return _StandIn(self.name, self.shape[:2])


def unet_part(source: str, tensors: Tensors) -> Part:
    """Lay out the U-Net, whose vector of CLAP joins the time; its attention is to itself alone."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    shapes = shapes_of(tensors)
    settings = _sizes(source, "U-Net", lambda: _unet_settings(shapes))
    prefixed = {f"model.diffusion_model.{name}": shape for name, shape in shapes.items()}
    names = _renamed(source, prefixed, convert_ldm_unet_checkpoint, settings)
    names |= {f"class_embedding.{leaf}": f"film_emb.{leaf}" for leaf in ("weight", "bias")}
    settings = {"_class_name": "UNet2DConditionModel", **settings}
    return Part(settings, _slots(source, UNet2DConditionModel, settings, names))


def vae_part(source: str, tensors: Tensors) -> Part:
    """Lay out the autoencoder of spectrograms."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    shapes = shapes_of(tensors)
    settings = _sizes(source, "autoencoder", lambda: _vae_settings(shapes))
    prefixed = {f"first_stage_model.{name}": shape for name, shape in shapes.items()}
    names = _renamed(source, prefixed, convert_ldm_vae_checkpoint, settings)
    settings = {"_class_name": "AutoencoderKL", **settings}
    layout = _slots(source, AutoencoderKL, settings, names)
    for target, slot in layout.items():
        if len(slot.shape) == 2 and len(shapes[slot.source]) == 4:
            layout[target] = Pointwise(slot.source, slot.shape)
    return Part(settings, layout)


def vocoder_part(source: str, tensors: Tensors) -> Part:
    """Lay out the HiFi-GAN that makes sound of a spectrogram."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    shapes = shapes_of(tensors)
    settings = _sizes(source, "vocoder", lambda: _vocoder_settings(shapes))
    if tuple(settings["upsample_kernel_sizes"]) != _KERNELS:
        raise WeightsError(
            f"{source}: a vocoder with kernels of {settings['upsample_kernel_sizes']} is not known "
            f"(AudioLDM's has {list(_KERNELS)}, for 16 kHz and 160 samples a column)"
        )
    config = SpeechT5HifiGanConfig(**settings, architectures=["SpeechT5HifiGan"])
    model = SpeechT5HifiGan(config)
    state = model.state_dict()
    constants = {name: state[name] for name in ("mean", "scale")}
    layout = {
        name: Slot(name.replace("upsampler.", "ups."), tuple(value.shape))
        for name, value in state.items()
        if name not in constants
    }
    return Part(json.loads(config.to_json_string()), layout, constants)


def clap_part(source: str, tensors: Tensors) -> Part:
    """Lay out CLAP with both its sides."""
    from transformers import ClapConfig

    shapes = shapes_of(tensors)
    ears, audio, constants = htsat(Source(source, shapes), "audio_branch")
    named = {_clap_text_name(name): name for name in shapes}
    words, text, more = clap_text(
        Source(source, {ours: shapes[theirs] for ours, theirs in named.items()}), "clap"
    )
    dim = words["projection_dim"]
    layout: Layout = {
        f"audio_model.{name.removeprefix('audio.net.')}": slot for name, slot in audio.items()
    }
    for name, slot in text.items():
        origin = named.get(slot.source, slot.source)
        layout[name.removeprefix("text.net.")] = Slot(origin, slot.shape)
    for number, (inner, width) in enumerate(((0, ears["hidden_size"]), (2, dim)), start=1):
        ours, theirs = f"audio_projection.linear{number}", f"audio_projection.{inner}"
        layout[f"{ours}.weight"] = Slot(f"{theirs}.weight", (dim, width))
        layout[f"{ours}.bias"] = Slot(f"{theirs}.bias", (dim,))
    layout |= {name: Slot(name, ()) for name in ("logit_scale_a", "logit_scale_t")}
    config = ClapConfig(
        text_config=words,
        audio_config={**ears, "projection_dim": dim},
        projection_dim=dim,
        architectures=["ClapModel"],
    )
    kept = {
        f"audio_model.{name.removeprefix('audio.net.')}": value for name, value in constants.items()
    } | {name.removeprefix("text.net."): value for name, value in more.items()}
    return Part(json.loads(config.to_json_string()), layout, kept)


def schedule(source: str, betas: "torch.Tensor | None") -> dict[str, Any]:
    """Give the configuration of the sampler, with the schedule of noise that was trained.

    Args:
        source: The file's name, for the error.
        betas: The schedule in the checkpoint; that of the published code where there is none.

    Raises:
        WeightsError: It is of another kind.
    """
    import torch

    (start, end), steps = _BETAS, _STEPS
    if betas is not None:
        start, end, steps = float(betas[0]), float(betas[-1]), len(betas)
        even = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        if float((even - betas.double()).abs().max()) > _TOLERANCE:
            raise WeightsError(
                f"{source}: its noise schedule is not linear in the square root, as AudioLDM's is "
                "(is it another model?)"
            )
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": steps,
        "beta_start": round(start, 9),
        "beta_end": round(end, 9),
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "epsilon",
    }


def _unet_settings(shapes: Shapes) -> dict[str, Any]:
    levels: list[list[int]] = [[]]
    for index in range(1, _count(shapes, "input_blocks.")):
        if f"input_blocks.{index}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(index)
    widths = [shapes[f"input_blocks.{level[0]}.0.out_layers.3.weight"][0] for level in levels]
    attends = [f"input_blocks.{level[0]}.1.norm.weight" in shapes for level in levels]
    each = 64 if widths[0] >= 256 else 32
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "sample_size": 128,
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]],
        "layers_per_block": len(levels[0]),
        "cross_attention_dim": widths,
        "attention_head_dim": [max(1, width // each) for width in widths],
        "class_embed_type": "simple_projection",
        "projection_class_embeddings_input_dim": shapes["film_emb.weight"][1],
        "class_embeddings_concat": True,
    }


def _vae_settings(shapes: Shapes) -> dict[str, Any]:
    count = _count(shapes, "encoder.down.")
    widths = [shapes[f"encoder.down.{i}.block.0.conv2.weight"][0] for i in range(count)]
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "sample_size": 512,
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "up_block_types": ["UpDecoderBlock2D"] * count,
        "layers_per_block": _count(shapes, "encoder.down.0.block."),
        "latent_channels": shapes["post_quant_conv.weight"][1],
    }


def _vocoder_settings(shapes: Shapes) -> dict[str, Any]:
    ups = range(_count(shapes, "ups."))
    blocks = _count(shapes, "resblocks.") // len(ups)
    sizes = [shapes[f"resblocks.{index}.convs1.0.weight"][2] for index in range(blocks)]
    return {
        "model_in_dim": shapes["conv_pre.weight"][1],
        "sampling_rate": _RATE,
        "upsample_initial_channel": shapes["conv_pre.weight"][0],
        "upsample_rates": list(_STRIDES),
        "upsample_kernel_sizes": [shapes[f"ups.{index}.weight"][2] for index in ups],
        "resblock_kernel_sizes": sizes,
        "resblock_dilation_sizes": [list(_DILATIONS) for _ in sizes],
        "normalize_before": False,
    }


def _sizes(source: str, what: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read()
    except (KeyError, IndexError, ZeroDivisionError) as error:
        lost = error if isinstance(error, KeyError) else "a level"
        raise WeightsError(
            f"{source}: no {what} of AudioLDM, {lost} is missing (is the file whole?)"
        ) from error


def _count(shapes: Shapes, prefix: str) -> int:
    """Count numbered things after a prefix: one more than the highest number."""
    found = [re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in shapes]
    return max((int(match[1]) for match in found if match), default=-1) + 1


def _renamed(
    source: str,
    shapes: Shapes,
    converter: Callable[..., Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> dict[str, str]:
    """Diffusers key -> key in the checkpoint, by a converter that only moves and flattens."""
    given = {name: _StandIn(name, shape) for name, shape in shapes.items()}
    found = converter(given, dict(settings))
    absent = sorted(target for target, value in found.items() if value is None)
    if absent:
        raise WeightsError(f"{source}: {', '.join(absent[:3])} is missing (is the file whole?)")
    prefix = re.compile(r"^(model\.diffusion_model|first_stage_model)\.")
    return {target: prefix.sub("", value.name) for target, value in found.items()}


def _slots(
    source: str,
    kind: Any,  # noqa: ANN401 - a class of diffusers
    settings: Mapping[str, Any],
    names: Mapping[str, str],
) -> Layout:
    """Give every tensor of a class of diffusers its origin; a matrix may come as a convolution."""
    import torch

    with torch.device("meta"):
        wanted = shapes_of(kind.from_config(dict(settings)).state_dict())
    lacking = sorted(wanted.keys() - names.keys())
    if lacking:
        raise WeightsError(
            f"{source}: nothing becomes {', '.join(lacking[:3])} of the {kind.__name__} "
            f"({len(lacking)} such; is the file whole, and an AudioLDM?)"
        )
    return {target: Slot(names[target], shape) for target, shape in wanted.items()}


def _clap_text_name(name: str) -> str:
    """Give transformers' name of a key of CLAP's text side, below ``clap.``."""
    name = re.sub(r"^text_branch\.", "text_model.", name)
    name = re.sub(r"^text_projection\.0\.", "text_projection.linear1.", name)
    return "clap." + re.sub(r"^text_projection\.2\.", "text_projection.linear2.", name)
