"""Tiny checkpoints with the keys of GeoCLAP, PSM and Sat2Sound, and what their code computes.

Written from the papers and from what the published names stand for, without our own modules.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

VIT = {"dim": 8, "depth": 2, "patch": 8}
SIDE = 16
WIDTH, STATES, CODES = 16, 12, 24
BANDS, EMBED, DEPTHS, HEADS, WINDOW = 16, 8, (2, 2), (2, 4), 4
FRAMES, DEEPEST = 256, 16
TOLD = {"sat_type": "bingmap", "sat_input_size": SIDE, "meta_droprate": 0.5, "batch_size": 128}
CLAP_AUDIO = {
    "num_mel_bins": BANDS,
    "spec_size": 4 * BANDS,
    "patch_embeds_hidden_size": EMBED,
    "depths": list(DEPTHS),
    "num_attention_heads": list(HEADS),
    "num_hidden_layers": 2,
    "window_size": WINDOW,
    "hidden_size": DEEPEST,
    "projection_dim": WIDTH,
    "enable_fusion": True,
}
CLAP_TEXT = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 16,
    "max_position_embeddings": 90,
    "projection_dim": WIDTH,
}


class Weights(dict):
    """A state dict that is filled layer by layer, from one seed."""

    def __init__(self, seed=0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def tensor(self, name, *shape, scale=0.3):
        self[name] = scale * torch.randn(shape, generator=self.generator)

    def linear(self, name, rows, columns, bias=True):
        self.tensor(f"{name}.weight", rows, columns)
        if bias:
            self.tensor(f"{name}.bias", rows)

    def norm(self, name, dim):
        self[f"{name}.weight"] = 1 + 0.2 * torch.randn(dim, generator=self.generator)
        self.tensor(f"{name}.bias", dim)

    def batch_norm(self, name, dim):
        self.norm(name, dim)
        self.tensor(f"{name}.running_mean", dim)
        self[f"{name}.running_var"] = 0.5 + torch.rand(dim, generator=self.generator)
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def module(self, prefix, module):
        """Take the names of a module of transformers, and random values."""
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                self[f"{prefix}.{name}"] = value
            elif name.endswith("running_var"):
                self[f"{prefix}.{name}"] = 0.5 + torch.rand(value.shape, generator=self.generator)
            else:
                self.tensor(f"{prefix}.{name}", *value.shape)

    def under(self, prefix):
        """Give what lies below a prefix, without it."""
        return {n.removeprefix(prefix): v for n, v in self.items() if n.startswith(prefix)}


def vit(weights, prefix):
    dim, patch = VIT["dim"], VIT["patch"]
    weights.tensor(f"{prefix}.patch_embed.proj.weight", dim, 3, patch, patch, scale=0.1)
    weights.tensor(f"{prefix}.patch_embed.proj.bias", dim)
    for index in range(VIT["depth"]):
        block = f"{prefix}.blocks.{index}"
        weights.norm(f"{block}.norm1", dim)
        weights.linear(f"{block}.attn.qkv", 3 * dim, dim)
        weights.linear(f"{block}.attn.proj", dim, dim)
        weights.norm(f"{block}.norm2", dim)
        weights.linear(f"{block}.mlp.fc1", 4 * dim, dim)
        weights.linear(f"{block}.mlp.fc2", dim, 4 * dim)


def two_layers(weights, prefix, inputs, hidden=WIDTH):
    weights.linear(f"{prefix}.linear1", hidden, inputs)
    weights.linear(f"{prefix}.linear2", hidden, hidden)


def fuser(weights, prefix, parts=("asource", "tsource", "latlong", "month", "time")):
    layer = nn.TransformerEncoderLayer(WIDTH, 8, 20, batch_first=True, activation="gelu")
    weights.module(f"{prefix}.transformer_encoder", nn.TransformerEncoder(layer, 3))
    embed = f"{prefix}.meta_embed"
    tables = {"asource": ("audio_source_fc", 4), "tsource": ("caption_source_fc", 3)}
    circles = {"latlong": ("location_fc", 4), "month": ("month_fc", 2), "time": ("time_fc", 2)}
    for part in parts:
        if part in tables:
            name, rows = tables[part]
            weights.tensor(f"{embed}.{name}.source_embed.weight", rows, WIDTH)
        else:
            name, size = circles[part]
            weights.linear(f"{embed}.{name}.fc1", 64, size)
            weights.linear(f"{embed}.{name}.fc2", WIDTH, 64)


def htsat(weights, prefix):
    weights.batch_norm(f"{prefix}.bn0", BANDS)
    weights.tensor(f"{prefix}.patch_embed.proj.weight", EMBED, 1, 4, 4)
    weights.tensor(f"{prefix}.patch_embed.proj.bias", EMBED)
    weights.norm(f"{prefix}.patch_embed.norm", EMBED)
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        dim = EMBED * 2**stage
        for index in range(depth):
            block = f"{prefix}.layers.{stage}.blocks.{index}"
            weights.norm(f"{block}.norm1", dim)
            weights.tensor(
                f"{block}.attn.relative_position_bias_table", (2 * WINDOW - 1) ** 2, heads
            )
            weights[f"{block}.attn.relative_position_index"] = window_index()
            weights.linear(f"{block}.attn.qkv", 3 * dim, dim)
            weights.linear(f"{block}.attn.proj", dim, dim)
            weights.norm(f"{block}.norm2", dim)
            weights.linear(f"{block}.mlp.fc1", 4 * dim, dim)
            weights.linear(f"{block}.mlp.fc2", dim, 4 * dim)
            if index % 2:
                weights[f"{block}.attn_mask"] = torch.zeros(4, WINDOW**2, WINDOW**2)
        if stage + 1 < len(DEPTHS):
            weights.linear(f"{prefix}.layers.{stage}.downsample.reduction", 2 * dim, 4 * dim, False)
            weights.norm(f"{prefix}.layers.{stage}.downsample.norm", 4 * dim)
    weights.norm(f"{prefix}.norm", DEEPEST)
    weights.tensor(f"{prefix}.tscam_conv.weight", 5, DEEPEST, 2, 3)
    weights.linear(f"{prefix}.head", 5, 5)
    weights.tensor(f"{prefix}.audio_feats_extractor.mel_trans.stft.conv_real.weight", 3, 1, 4)
    weights.tensor(f"{prefix}.audio_feats_extractor.log_trans.melW", 3, BANDS)


def clap(weights, audio, text):
    from transformers import (
        ClapAudioConfig,
        ClapAudioModelWithProjection,
        ClapTextConfig,
        ClapTextModelWithProjection,
    )

    weights.module(audio, ClapAudioModelWithProjection(ClapAudioConfig(**CLAP_AUDIO)))
    weights.module(text, ClapTextModelWithProjection(ClapTextConfig(**CLAP_TEXT)))


def sat2sound(metadata=True):
    weights = Weights()
    vit(weights, "satmae_backbone.backbone")
    two_layers(weights, "satmae_backbone.projector", VIT["dim"])
    if metadata:
        fuser(weights, "sat_encoder.meta_fuser")
    htsat(weights, "audio_encoder.model.audio_enc")
    weights.tensor("fdt.space_dict", CODES, WIDTH, scale=1.0)
    for name, inputs in (("img", WIDTH), ("audio", DEEPEST), ("txt", STATES)):
        query = f"fdt.{name}_query_model.q_map"
        weights.norm(f"{query}.0", inputs)
        weights.linear(f"{query}.1", WIDTH, inputs)
        weights.norm(f"{query}.3", WIDTH)
        weights.linear(f"{query}.4", WIDTH, WIDTH)
    for pair in ("at", "it", "ia", "fdt", "i_at", "it_a"):
        weights[f"logit_scale_{pair}"] = torch.tensor(2.6)
    return weights


def psm(gaussian=True, metadata=True):
    weights, encoder = Weights(), "sat_encoder.encoder"
    vit(weights, f"{encoder}.backbone")
    weights.norm(f"{encoder}.backbone.fc_norm", VIT["dim"])
    two_layers(weights, f"{encoder}.projector", VIT["dim"])
    if metadata:
        fuser(weights, f"{encoder}.meta_fuser")
        weights.tensor(f"{encoder}.meta_fuser.cls_token", 1, 1, WIDTH)
    clap(weights, "audio_encoder.model.model", "text_encoder.model.model")
    for name in (encoder, "audio_encoder", "text_encoder"):
        if gaussian:
            two_layers(weights, f"{name}.mean_head", WIDTH)
            two_layers(weights, f"{name}.std_head", WIDTH)
        elif name != encoder:
            two_layers(weights, f"{name}.head", WIDTH)
    for name in ("shift", "negative_scale") if gaussian else ("tau",):
        weights[f"criterion.{name}"] = torch.full((1,), 5.0)
    return weights


def geoclap():
    weights, model = Weights(), "sat_encoder.model"
    weights.tensor(f"{model}.cls_token", 1, 1, VIT["dim"])
    weights.tensor(f"{model}.pos_embed", 1, 1 + (SIDE // VIT["patch"]) ** 2, VIT["dim"])
    vit(weights, model)
    weights.norm(f"{model}.norm", VIT["dim"])
    weights.linear(f"{model}.head", 20, VIT["dim"])
    weights.linear("sat_encoder.fc", WIDTH, 20)
    clap(weights, "audio_encoder.model", "text_encoder.model")
    for pair in ("ia", "it", "at"):
        weights[f"temp_layer.logit_scale_{pair}"] = torch.tensor(2.6)
    return weights


def saved(weights, path, **told):
    """Write a checkpoint as Lightning does."""
    content = {
        "epoch": 1,
        "global_step": 500,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": dict(weights),
        "hparams_name": "hparams",
        "hyper_parameters": {**TOLD, **told},
    }
    torch.save(content, path)
    return path


def norm_of(w, x, name, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def linear_of(w, x, name):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def two_layers_of(w, x, name):
    return linear_of(w, F.gelu(linear_of(w, x, f"{name}.linear1")), f"{name}.linear2")


def patches_of(w, prefix, images):
    patch = VIT["patch"]
    weight, bias = (w[f"{prefix}.patch_embed.proj.{leaf}"] for leaf in ("weight", "bias"))
    return F.conv2d(images, weight, bias, stride=patch).flatten(2).transpose(1, 2)


def blocks_of(w, prefix, x):
    """The blocks of a vision transformer with one head."""
    for index in range(VIT["depth"]):
        block = f"{prefix}.blocks.{index}"
        query, key, value = linear_of(
            w, norm_of(w, x, f"{block}.norm1", 1e-6), f"{block}.attn.qkv"
        ).chunk(3, -1)
        share = (query @ key.transpose(1, 2) / math.sqrt(x.shape[-1])).softmax(-1)
        x = x + linear_of(w, share @ value, f"{block}.attn.proj")
        hidden = linear_of(w, norm_of(w, x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1")
        x = x + linear_of(w, F.gelu(hidden), f"{block}.mlp.fc2")
    return x


def positions_of(resolution):
    """Positions by resolution, feature by feature: columns, then rows; sines, then cosines."""
    side, quarter = SIDE // VIT["patch"], VIT["dim"] // 4
    rows = []
    for row in range(side):
        for column in range(side):
            told = []
            for place in (column, row):
                angles = [place * resolution / 10000 ** (k / quarter) for k in range(quarter)]
                told += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            rows.append(told)
    return torch.tensor(rows)


def metadata_of(w, prefix, known):
    """Tokens of rows of (asource, tsource, lat, lon, month, hour), zero where not known."""
    embed = f"{prefix}.meta_embed"
    tokens, there = [], []
    for asource, tsource, lat, lon, month, hour in known:

        def circle(name, value):
            hidden = F.gelu(linear_of(w, torch.tensor(value), f"{embed}.{name}.fc1"))
            return linear_of(w, hidden, f"{embed}.{name}.fc2")

        zero, pi = torch.zeros(WIDTH), math.pi
        place = lat is not None and [pi * lat / 90, pi * lat / 90, pi * lon / 180, pi * lon / 180]
        row = [
            zero if asource is None else w[f"{embed}.audio_source_fc.source_embed.weight"][asource],
            zero
            if tsource is None
            else w[f"{embed}.caption_source_fc.source_embed.weight"][tsource],
            circle(
                "location_fc", [f(a) for f, a in zip((math.sin, math.cos) * 2, place, strict=True)]
            )
            if place
            else zero,
        ]
        for name, value, length in (("month_fc", month, 12), ("time_fc", hour, 23)):
            angle = 0.0 if value is None else 2 * pi * value / length
            row.append(zero if value is None else circle(name, [math.sin(angle), math.cos(angle)]))
        tokens.append(torch.stack(row))
        told = (asource, tsource, lat, month, hour)
        there.append(torch.tensor([value is not None for value in told]))
    return torch.stack(tokens), torch.stack(there)


def joined_of(w, prefix, x, there):
    layer = nn.TransformerEncoderLayer(WIDTH, 8, 20, batch_first=True, activation="gelu")
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    encoder.load_state_dict(w.under(f"{prefix}.transformer_encoder."))
    return encoder(x, src_key_padding_mask=~there)


def simplex(scores):
    """The nearest point of the simplex, by bisection of the threshold."""
    low, high = scores.min(-1, keepdim=True).values - 1, scores.max(-1, keepdim=True).values
    low, high = low.double(), high.double()
    for _ in range(80):
        middle = (low + high) / 2
        more = (scores.double() - middle).clamp_min(0).sum(-1, keepdim=True) > 1
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return (scores.double() - low).clamp_min(0).float()


def codebook_of(w, name, tokens, words=None):
    query = f"fdt.{name}_query_model.q_map"
    x = F.gelu(linear_of(w, norm_of(w, tokens, f"{query}.0"), f"{query}.1"))
    x = linear_of(w, norm_of(w, x, f"{query}.3"), f"{query}.4")
    scores = x @ w["fdt.space_dict"].T / math.sqrt(WIDTH)
    if words is not None:
        scores = scores * words[..., None]
    shares = simplex((scores / 1000).max(1).values)
    return shares @ w["fdt.space_dict"], shares


def window_index():
    """Which entry of the bias table belongs to each pair of places of a window."""
    rows, columns = torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    apart_rows = rows[:, None] - rows[None] + WINDOW - 1
    apart_columns = columns[:, None] - columns[None] + WINDOW - 1
    return apart_rows * (2 * WINDOW - 1) + apart_columns


def attended_of(w, block, x, heads, shift):
    """Attention in windows, one window after the other."""
    count, side, _, dim = x.shape
    x = x.roll((-shift, -shift), (1, 2))
    out = torch.zeros_like(x)
    region = torch.zeros(side)
    if shift:
        region[side - WINDOW :] += 1
        region[side - shift :] += 1
    bias = w[f"{block}.attn.relative_position_bias_table"][window_index()].permute(2, 0, 1)
    for top in range(0, side, WINDOW):
        for left in range(0, side, WINDOW):
            rows, columns = slice(top, top + WINDOW), slice(left, left + WINDOW)
            part = x[:, rows, columns].reshape(count, WINDOW**2, dim)
            query, key, value = (
                each.unflatten(-1, (heads, -1)).transpose(1, 2)
                for each in linear_of(w, part, f"{block}.attn.qkv").chunk(3, -1)
            )
            scores = query @ key.transpose(-1, -2) / math.sqrt(dim / heads) + bias
            where = (3 * region[rows, None] + region[None, columns]).flatten()
            scores = scores - 100.0 * (where[:, None] != where[None])
            mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
            out[:, rows, columns] = linear_of(w, mixed, f"{block}.attn.proj").view(
                count, WINDOW, WINDOW, dim
            )
    return out.roll((shift, shift), (1, 2))


def moments_of(w, prefix, mels):
    """MGA-CLAP's frame tokens of spectrograms (batch, bands, frames)."""
    mean, variance = w[f"{prefix}.bn0.running_mean"], w[f"{prefix}.bn0.running_var"]
    weight, bias = w[f"{prefix}.bn0.weight"], w[f"{prefix}.bn0.bias"]
    x = F.batch_norm(mels, mean, variance, weight, bias)
    image = torch.cat(x.chunk(4, -1), 1)[:, None]  # four stretches of time, one under the other
    weight, bias = (w[f"{prefix}.patch_embed.proj.{leaf}"] for leaf in ("weight", "bias"))
    x = F.conv2d(image, weight, bias, stride=4).permute(0, 2, 3, 1)
    x = norm_of(w, x, f"{prefix}.patch_embed.norm")
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        for index in range(depth):
            block = f"{prefix}.layers.{stage}.blocks.{index}"
            last = stage + 1 == len(DEPTHS) and index + 1 == depth
            inner = norm_of(w, x, f"{block}.norm1")
            if last:
                own = linear_of(w, inner, f"{block}.attn.qkv").chunk(3, -1)[2]
                x = x + linear_of(w, own, f"{block}.attn.proj")
                x = x + norm_of(w, x, f"{block}.norm2")
                continue
            x = x + attended_of(w, block, inner, heads, WINDOW // 2 if index % 2 else 0)
            hidden = linear_of(w, norm_of(w, x, f"{block}.norm2"), f"{block}.mlp.fc1")
            x = x + linear_of(w, F.gelu(hidden), f"{block}.mlp.fc2")
        if stage + 1 < len(DEPTHS):
            down = f"{prefix}.layers.{stage}.downsample"
            every = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            x = linear_of(w, norm_of(w, torch.cat(every, -1), f"{down}.norm"), f"{down}.reduction")
    x = norm_of(w, x, f"{prefix}.norm")
    stretches = x.chunk(4, 1)  # each (batch, frequencies, moments, dim)
    return torch.cat([stretch.mean(1) for stretch in stretches], 1)
