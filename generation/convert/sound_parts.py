"""Parts of published sound spaces: where each of their weights lies in a checkpoint.

A layout says for every tensor of ours which foreign one it is made of. Sizes are read off the
weights, so that a part of any size is converted; two things no weight tells, and they are as in
every published one: 64 features a head of a transformer, and four map rows a mel band of HTS-AT.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from generation.convert.report import Shapes, shapes_of
from generation.errors import WeightsError

if TYPE_CHECKING:
    import torch

HEAD_DIM = 64
MAP_ROWS = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """What one of our tensors is made of."""

    source: str
    """Name of the foreign tensor."""
    shape: tuple[int, ...]
    """Of ours."""
    third: int | None = None
    """Which of three equal parts along the first axis it is, where it is one."""
    ones: int = 0
    """Leading axes of length one that the foreign tensor has more."""

    @property
    def source_shape(self) -> tuple[int, ...]:
        """Shape that the foreign tensor must have."""
        shape = self.shape if self.third is None else (3 * self.shape[0], *self.shape[1:])
        return (1,) * self.ones + shape

    def take(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """Make ours of the foreign one."""
        part = tensor if self.third is None else tensor.chunk(3)[self.third]
        return part.reshape(self.shape)


Layout: TypeAlias = dict[str, Slot]


class Source:
    """Shapes of the tensors of a foreign file, asked for by name."""

    def __init__(self, file: str, shapes: Shapes) -> None:
        self.file, self.shapes = file, shapes

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """Give the shape of a tensor from which sizes are read.

        Raises:
            WeightsError: It is not there, or has another number of axes.
        """
        if name not in self.shapes:
            raise WeightsError(
                f"{self.file}: {name} is missing, from which sizes are read (is the file whole, "
                "and of this kind?)"
            )
        if len(self.shapes[name]) != axes:
            raise WeightsError(
                f"{self.file}: {name} has shape {self.shapes[name]}, where {axes} axes are "
                "expected (is it of this kind?)"
            )
        return self.shapes[name]

    def count(self, prefix: str) -> int:
        """Count layers: one more than the highest number after a prefix."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
        found = [int(match[1]) for name in self.shapes if (match := pattern.match(name))]
        return max(found, default=-1) + 1

    def has(self, prefix: str) -> bool:
        """Whether any name starts so."""
        return any(name.startswith(prefix) for name in self.shapes)


def linear(target: str, source: str, rows: int, columns: int) -> Layout:
    """Lay out a layer with a bias."""
    return {
        f"{target}.weight": Slot(f"{source}.weight", (rows, columns)),
        f"{target}.bias": Slot(f"{source}.bias", (rows,)),
    }


def norm(target: str, source: str, dim: int) -> Layout:
    """Lay out a layer norm."""
    return {f"{target}.{leaf}": Slot(f"{source}.{leaf}", (dim,)) for leaf in ("weight", "bias")}


def mlp(target: str, source: Source, prefix: str) -> tuple[int, Layout]:
    """Lay out two layers that are named ``linear1`` and ``linear2``; give their width too."""
    hidden, inputs = source.shape(f"{prefix}.linear1.weight", 2)
    first = linear(f"{target}.0", f"{prefix}.linear1", hidden, inputs)
    return hidden, first | linear(f"{target}.2", f"{prefix}.linear2", hidden, hidden)


def vit(target: str, source: Source, prefix: str) -> tuple[dict[str, int], Layout]:
    """Lay out the patches and the blocks of a vision transformer with timm's names."""
    dim, _, patch, _ = source.shape(f"{prefix}.patch_embed.proj.weight", 4)
    depth = max(1, source.count(f"{prefix}.blocks."))
    layout: Layout = {
        f"{target}.patch_embed.proj.weight": Slot(
            f"{prefix}.patch_embed.proj.weight", (dim, 3, patch, patch)
        ),
        f"{target}.patch_embed.proj.bias": Slot(f"{prefix}.patch_embed.proj.bias", (dim,)),
    }
    for index in range(depth):
        ours, theirs = f"{target}.blocks.{index}", f"{prefix}.blocks.{index}"
        layout |= norm(f"{ours}.norm1", f"{theirs}.norm1", dim)
        layout |= linear(f"{ours}.attn.qkv", f"{theirs}.attn.qkv", 3 * dim, dim)
        layout |= linear(f"{ours}.attn.proj", f"{theirs}.attn.proj", dim, dim)
        layout |= norm(f"{ours}.norm2", f"{theirs}.norm2", dim)
        layout |= linear(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1", 4 * dim, dim)
        layout |= linear(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2", dim, 4 * dim)
    sizes = {"patch": patch, "dim": dim, "depth": depth, "heads": max(1, dim // HEAD_DIM)}
    return sizes, layout


def clap_audio(source: Source, prefix: str) -> tuple[dict[str, Any], Layout, dict[str, Any]]:
    """Lay out CLAP's sound tower, whose names are transformers' own.

    Returns:
        Its settings, its layout, and the constants that it computes by itself.
    """
    encoder = f"{prefix}.audio_model.audio_encoder"
    net = _swin(source, encoder, "batch_norm", "attention.self", "intermediate.dense")
    squeezed = source.shape(f"{encoder}.patch_embed.fusion_model.local_att.0.weight", 4)[0]
    net |= {
        "enable_fusion": True,
        "aff_block_r": net["patch_embeds_hidden_size"] // squeezed,
        "projection_dim": source.shape(f"{prefix}.audio_projection.linear2.weight", 2)[0],
    }
    from transformers import ClapAudioConfig, ClapAudioModelWithProjection

    model = ClapAudioModelWithProjection(ClapAudioConfig(**net))
    layout, constants = _of_module("audio.net", model, lambda name: (f"{prefix}.{name}", None))
    return net, layout, constants


def htsat(source: Source, prefix: str) -> tuple[dict[str, Any], Layout, dict[str, Any]]:
    """Lay out an HTS-AT with its authors' names as transformers' sound encoder.

    Returns:
        Its settings, its layout, and the constants that it computes by itself.
    """
    net = _swin(source, prefix, "bn0", "attn", "mlp.fc1")
    from transformers import ClapAudioConfig, ClapAudioModel

    model = ClapAudioModel(ClapAudioConfig(**net))

    def named(name: str) -> tuple[str, int | None]:
        theirs, third = htsat_name(name.removeprefix("audio_encoder."))
        return f"{prefix}.{theirs}", third

    layout, constants = _of_module("audio.net", model, named)
    return net, layout, constants


_HTSAT_NAMES = (
    (r"^batch_norm\.", "bn0."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.self\.(query|key|value)\.", ".attn.qkv."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


def htsat_name(name: str) -> tuple[str, int | None]:
    """Give HTS-AT's name of a parameter of transformers' sound encoder, and which third it is.

    Queries, keys and values are one tensor there, one after the other.
    """
    part = re.search(r"\.self\.(query|key|value)\.", name)
    third = ("query", "key", "value").index(part[1]) if part else None
    for pattern, replacement in _HTSAT_NAMES:
        name, hits = re.subn(pattern, replacement, name)
        if hits:
            break
    return name, third


def clap_text(source: Source, prefix: str) -> tuple[dict[str, Any], Layout, dict[str, Any]]:
    """Lay out CLAP's text tower, whose names are transformers' own.

    Returns:
        Its settings, its layout, and the constants that it computes by itself.
    """
    model_name = f"{prefix}.text_model"
    vocabulary, hidden = source.shape(f"{model_name}.embeddings.word_embeddings.weight", 2)
    positions = source.shape(f"{model_name}.embeddings.position_embeddings.weight", 2)[0]
    types = source.shape(f"{model_name}.embeddings.token_type_embeddings.weight", 2)[0]
    layer = f"{model_name}.encoder.layer."
    net = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": source.count(layer),
        "num_attention_heads": max(1, hidden // HEAD_DIM),
        "intermediate_size": source.shape(f"{layer}0.intermediate.dense.weight", 2)[0],
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "projection_dim": source.shape(f"{prefix}.text_projection.linear2.weight", 2)[0],
    }
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    model = ClapTextModelWithProjection(ClapTextConfig(**net))
    layout, constants = _of_module("text.net", model, lambda name: (f"{prefix}.{name}", None))
    return net, layout, constants


def joint(source: Source, prefix: str) -> tuple[dict[str, int], Layout]:
    """Lay out a transformer of torch, and give its settings."""
    layers = source.count(f"{prefix}.layers.")
    hidden, width = source.shape(f"{prefix}.layers.0.linear1.weight", 2)
    layout: Layout = {}
    for index in range(layers):
        ours, theirs = f"join.layers.{index}", f"{prefix}.layers.{index}"
        layout |= {
            f"{ours}.self_attn.in_proj_{leaf}": Slot(f"{theirs}.self_attn.in_proj_{leaf}", shape)
            for leaf, shape in (("weight", (3 * width, width)), ("bias", (3 * width,)))
        }
        layout |= linear(f"{ours}.self_attn.out_proj", f"{theirs}.self_attn.out_proj", width, width)
        layout |= linear(f"{ours}.linear1", f"{theirs}.linear1", hidden, width)
        layout |= linear(f"{ours}.linear2", f"{theirs}.linear2", width, hidden)
        layout |= norm(f"{ours}.norm1", f"{theirs}.norm1", width)
        layout |= norm(f"{ours}.norm2", f"{theirs}.norm2", width)
    return {"layers": layers, "heads": 8, "hidden": hidden}, layout


def _swin(source: Source, prefix: str, bands: str, attention: str, hidden: str) -> dict[str, Any]:
    """Read the sizes of an HTS-AT in transformers' words, by the names of three of its parts."""
    mels = source.shape(f"{prefix}.{bands}.weight", 1)[0]
    embed, _, patch, _ = source.shape(f"{prefix}.patch_embed.proj.weight", 4)
    stages = [f"{prefix}.layers.{index}" for index in range(source.count(f"{prefix}.layers."))]
    tables = [
        source.shape(f"{stage}.blocks.0.{attention}.relative_position_bias_table", 2)
        for stage in stages or [f"{prefix}.layers.0"]
    ]
    wide = source.shape(f"{stages[0]}.blocks.0.{hidden}.weight", 2)[0]
    return {
        "num_mel_bins": mels,
        "spec_size": MAP_ROWS * mels,
        "patch_size": patch,
        "patch_stride": [patch, patch],
        "patch_embeds_hidden_size": embed,
        "depths": [source.count(f"{stage}.blocks.") for stage in stages],
        "num_attention_heads": [heads for _, heads in tables],
        "window_size": (math.isqrt(tables[0][0]) + 1) // 2,
        "mlp_ratio": wide / embed,
        "hidden_size": embed * 2 ** (len(stages) - 1),
        "num_hidden_layers": len(stages),
    }


def _of_module(
    target: str,
    module: "torch.nn.Module",
    named: Callable[[str], tuple[str, int | None]],
) -> tuple[Layout, "dict[str, torch.Tensor]"]:
    """Lay out a module of transformers, and part from it the constants that it computes itself."""
    state = module.state_dict()
    constants = {f"{target}.{name}": value for name, value in state.items() if is_constant(name)}
    layout = {}
    for name, shape in shapes_of(state).items():
        if not is_constant(name):
            source, third = named(name)
            layout[f"{target}.{name}"] = Slot(source, shape, third)
    return layout, constants


def is_constant(name: str) -> bool:
    """Whether a tensor is computed from sizes alone, in every release or in some."""
    last = name.rpartition(".")[2]
    return last in ("relative_position_index", "position_ids", "token_type_ids", "attn_mask")
