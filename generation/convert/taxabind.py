"""TaxaBind: the repositories of its published parts as one space of ours.

A folder holds some of these, each as it was fetched from the Hub (``MVRL/...``):

``taxabind-vit-b-16``  names and photographs, in open_clip's layout, with its tokenizer
``ecosat``             satellite images, as transformers saves ``CLIPVisionModelWithProjection``
``ecogeo``             places, in GeoCLIP's layout
``ecoclim``            environments, a residual network
``ecosound``           sounds, as transformers saves ``ClapAudioModelWithProjection``

Source: Sastry et al., "TaxaBind" (WACV 2025) and the layout of its published weights; open_clip's
names of CLIP's layers.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from generation.checkpoint import check_shapes, load_safetensors, save_safetensors, sha256_file
from generation.convert.geoclip import geoclip_name
from generation.convert.report import WEIGHTS_NAME, Conversion, Tensors, shapes_of, write_json
from generation.errors import MissingFileError, WeightsError
from generation.foreign_checkpoint import read_foreign

if TYPE_CHECKING:
    import torch

Named: TypeAlias = dict[str, tuple[str, "torch.Tensor"]]
"""Name of a tensor here: its name in the source, and the tensor."""
_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OUTSIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_TURNED = ("visual.proj", "text_projection")
_LAST = (
    "towers.clip.text_projection.weight",
    "towers.satellite.visual_projection.weight",
    "towers.audio.net.audio_projection.linear2.weight",
    "towers.location.towers.0.6.weight",
    "towers.environment.residuals.0.w1.weight",
)
"""Whose rows are the dimensions of the space."""
_LAYER = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")


def convert_taxabind(folder: Path, out: Path) -> Conversion:
    """Convert those parts that a folder holds into one space.

    Args:
        folder: Of the parts.
        out: A folder without weights.

    Raises:
        MissingFileError: It holds no part, or a part lacks its weights or its settings.
        WeightsError: A part is damaged or of another model.
    """
    found = {name: folder / name for name in _PARTS if (folder / name).is_dir()}
    if not found:
        raise MissingFileError(
            f"{folder} holds no part of TaxaBind (put {', '.join(_PARTS)} there)"
        )
    files = {name: _weights_file(path) for name, path in found.items()}
    hashes = "".join(sha256_file(file) for file in files.values())
    report = Conversion(
        kind="taxabind",
        source=folder.name,
        source_sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        notes=[f"parts: {', '.join(found)}; the hash is that of their hashes in this order"],
    )
    settings: dict[str, Any] = {}
    result: dict[str, torch.Tensor] = {}
    for name, path in found.items():
        part, read = _PARTS[name]
        file = files[name]
        tensors = load_safetensors(file) if file.suffix == ".safetensors" else read_foreign(file)[0]
        settings[part], named = read(tensors, path)
        for target, (source, tensor) in named.items():
            key, here = f"{name}/{source}", f"towers.{part}.{target}"
            report.mapped[key] = ", ".join(filter(None, (report.mapped.get(key), here)))
            result[here] = tensor
        left = {f"{name}/{key}" for key in tensors} - report.mapped.keys()
        report.left.update(dict.fromkeys(left, "a constant, which its tower makes itself"))
    _write(settings, result, report, out)
    if "clip" in settings:
        _copy_tokenizer(found["taxabind-vit-b-16"], out, report)
    return report


def _write(
    settings: dict[str, Any], result: "dict[str, torch.Tensor]", report: Conversion, out: Path
) -> None:
    """Check the tensors against the towers that the settings describe, and write both."""
    expected, own = _expected(settings)
    for name, value in own.items():
        result.setdefault(f"towers.{name}", value)
    wanted = {f"towers.{name}": shape for name, shape in expected.items()}
    check_shapes(Path(report.source), shapes_of(result), wanted)
    dims = {result[name].shape[0] for name in result if name in _LAST}
    if len(dims) > 1:
        raise WeightsError(
            f"{report.source}: parts of {sorted(dims)} dimensions are not of one space (take parts "
            "of one release)"
        )
    (out / "space").mkdir(parents=True, exist_ok=True)
    config = {"_class_name": "PublishedLifeSpace", **settings, "dim": next(iter(dims))}
    write_json(out / "space" / "config.json", config)
    save_safetensors(result, out / "space" / WEIGHTS_NAME)
    report.files.extend(["space/config.json", f"space/{WEIGHTS_NAME}"])


def _expected(
    settings: Mapping[str, Any],
) -> "tuple[dict[str, tuple[int, ...]], dict[str, torch.Tensor]]":
    """Give the shapes of the towers, and those tensors that published weights may lack."""
    import torch
    from transformers import (
        ClapAudioConfig,
        ClapAudioModelWithProjection,
        CLIPConfig,
        CLIPModel,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    shapes: dict[str, tuple[int, ...]] = {}
    own: dict[str, torch.Tensor] = {}
    makers: dict[str, tuple[Any, Any]] = {
        "clip": (CLIPModel, CLIPConfig),
        "satellite": (CLIPVisionModelWithProjection, CLIPVisionConfig),
        "audio": (ClapAudioModelWithProjection, ClapAudioConfig),
    }
    for part in makers.keys() & settings.keys():
        model, sizes = makers[part]
        start = f"{part}.net." if part == "audio" else f"{part}."
        state = model(sizes(**settings[part])).state_dict()
        shapes |= {f"{start}{name}": tuple(value.shape) for name, value in state.items()}
        whole = {name: value for name, value in state.items() if not value.is_floating_point()}
        own |= {f"{start}{name}": value for name, value in whole.items()}
    if "location" in settings:
        shapes |= _location_shapes(settings["location"])
    if "environment" in settings:
        sizes = settings["environment"]
        shapes |= _environment_shapes(sizes)
        variables = int(sizes["variables"])
        own["environment.mean"] = torch.zeros(variables)  # they are scaled before
        own["environment.deviation"] = torch.ones(variables)
    return shapes, own


def _location_shapes(sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    fourier, hidden, dim = sizes["fourier_dim"], sizes["hidden_dim"], sizes["embed_dim"]
    layers = {0: (hidden, 2 * fourier), 2: (hidden,) * 2, 4: (hidden,) * 2, 6: (dim, hidden)}
    shapes: dict[str, tuple[int, ...]] = {}
    for tower in range(len(sizes["sigmas"])):
        shapes[f"location.frequencies.{tower}"] = (fourier, 2)
        for at, shape in layers.items():
            shapes[f"location.towers.{tower}.{at}.weight"] = shape
            shapes[f"location.towers.{tower}.{at}.bias"] = shape[:1]
    return shapes


def _environment_shapes(sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, variables = sizes["width"], sizes["variables"]
    shapes: dict[str, tuple[int, ...]] = {
        "environment.first.weight": (width, variables),
        "environment.first.bias": (width,),
        "environment.mean": (variables,),
        "environment.deviation": (variables,),
    }
    for at in range(sizes["blocks"]):
        for layer in ("w1", "w2"):
            shapes[f"environment.residuals.{at}.{layer}.weight"] = (width, width)
            shapes[f"environment.residuals.{at}.{layer}.bias"] = (width,)
    return shapes


def _clip(tensors: Tensors, folder: Path) -> "tuple[dict[str, Any], Named]":
    """Read BioCLIP's towers."""
    told = _settings(folder, "open_clip_config.json")
    told = told.get("model_cfg", told)
    named: Named = {}
    for name, tensor in tensors.items():
        for target, value in _open_clip(name, tensor):
            named[target] = (name, value)
    shapes = shapes_of({target: value for target, (_, value) in named.items()})
    try:
        settings = _clip_settings(shapes, told)
    except KeyError as error:
        raise WeightsError(
            f"{folder} lacks {error} of open_clip's CLIP (is it complete?)"
        ) from None
    return settings, named


def _clip_settings(
    shapes: Mapping[str, tuple[int, ...]], told: Mapping[str, Any]
) -> dict[str, Any]:
    text, vision = told.get("text_cfg", {}), told.get("vision_cfg", {})
    act = "quick_gelu" if told.get("quick_gelu") else "gelu"

    def tower(side: str, width: int, heads: int) -> dict[str, Any]:
        hidden = shapes[f"{side}.encoder.layers.0.mlp.fc1.weight"][0]
        layers = {name.split(".")[3] for name in shapes if name.startswith(f"{side}.encoder.")}
        return {
            "hidden_size": width,
            "intermediate_size": hidden,
            "num_hidden_layers": len(layers),
            "num_attention_heads": heads,
            "hidden_act": act,
        }

    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    seen, _, patch, _ = shapes["vision_model.embeddings.patch_embedding.weight"]
    places = shapes["vision_model.embeddings.position_embedding.weight"][0]
    return {
        "projection_dim": shapes["text_projection.weight"][0],
        "text_config": {
            **tower("text_model", width, int(text.get("heads", 8))),
            "vocab_size": vocabulary,
            "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
        },
        "vision_config": {
            **tower("vision_model", seen, seen // int(vision.get("head_width", 64))),
            "patch_size": patch,
            "image_size": patch * round((places - 1) ** 0.5),
        },
    }


def _open_clip(name: str, tensor: "torch.Tensor") -> "list[tuple[str, torch.Tensor]]":
    """Give a tensor of open_clip its names in transformers; its attention holds three in one."""
    if name in _OUTSIDE:
        return [(_OUTSIDE[name], tensor.T if name in _TURNED else tensor)]
    if name == "attn_mask":
        return []
    found = _LAYER.fullmatch(name)
    if found is None:
        raise WeightsError(f"{name} is no layer of open_clip's CLIP (is it another model?)")
    side, number, layer, leaf = found.groups()
    at = f"{'vision' if side else 'text'}_model.encoder.layers.{number}"
    if layer == "attn.in_proj":
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return [(f"{at}.self_attn.{each}_proj.{leaf}", value) for each, value in parts]
    if layer not in _BLOCK:
        raise WeightsError(f"{name} is no layer of open_clip's CLIP (is it another model?)")
    return [(f"{at}.{_BLOCK[layer]}.{leaf}", tensor)]


def _satellite(tensors: Tensors, folder: Path) -> "tuple[dict[str, Any], Named]":
    told = _settings(folder, "config.json")
    kept = {n: v for n, v in tensors.items() if not n.endswith("position_ids")}
    return _known(told), {name: (name, value) for name, value in kept.items()}


def _audio(tensors: Tensors, folder: Path) -> "tuple[dict[str, Any], Named]":
    told = _settings(folder, "config.json")
    return _known(told), {f"net.{name}": (name, value) for name, value in tensors.items()}


def _known(told: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a configuration of transformers what is no size of the model."""
    outside = ("architectures", "torch_dtype", "dtype", "transformers_version", "model_type")
    return {name: value for name, value in told.items() if name not in outside}


def _location(tensors: Tensors, folder: Path) -> "tuple[dict[str, Any], Named]":
    try:
        named = {geoclip_name(name): (name, value) for name, value in tensors.items()}
        frequencies = [named[f"frequencies.{i}"][1] for i in range(len(tensors) // 9)]
        first, last = named["towers.0.0.weight"][1], named["towers.0.6.weight"][1]
    except (KeyError, ValueError):
        raise WeightsError(f"{folder}: no location encoder of GeoCLIP (is it complete?)") from None
    sizes = {
        "sigmas": [1.0, 16.0, 256.0][: len(frequencies)],
        "fourier_dim": len(frequencies[0]),
        "hidden_dim": len(first),
        "embed_dim": len(last),
    }
    return sizes, named


def _environment(tensors: Tensors, folder: Path) -> "tuple[dict[str, Any], Named]":
    """Read the residual network: a layer, its ReLU, then blocks of two layers."""
    named: Named = {}
    for name, value in tensors.items():
        found = re.fullmatch(r"(?:feats|layers)\.(\d+)\.(.+)", name)
        if found is None:
            raise WeightsError(f"{folder}: {name} is no layer of a residual network of TaxaBind")
        at, leaf = int(found[1]), found[2]
        named["first." + leaf if at == 0 else f"residuals.{at - 2}.{leaf}"] = (name, value)
    if "first.weight" not in named:
        raise WeightsError(f"{folder} lacks the first layer of its network (is it complete?)")
    width, variables = named["first.weight"][1].shape
    blocks = len({name.split(".")[1] for name in named if name.startswith("residuals.")})
    sizes = {"variables": variables, "width": width, "dim": width, "blocks": blocks}
    return {**sizes, "clamped": False}, named


_PARTS: "dict[str, tuple[str, Callable[[Tensors, Path], tuple[dict[str, Any], Named]]]]" = {
    "taxabind-vit-b-16": ("clip", _clip),
    "ecosat": ("satellite", _satellite),
    "ecogeo": ("location", _location),
    "ecoclim": ("environment", _environment),
    "ecosound": ("audio", _audio),
}
"""Folder of a part: what it is called here, and what reads it."""


def _weights_file(folder: Path) -> Path:
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    raise MissingFileError(f"{folder} holds no weights (put one of {', '.join(_FILES)} there)")


def _settings(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise MissingFileError(f"{path} is not there (fetch the whole repository)")
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error} (fetch it again)") from error
    return told


def _copy_tokenizer(folder: Path, out: Path, report: Conversion) -> None:
    if not (folder / _TOKENIZER[0]).is_file():
        report.notes.append("no tokenizer.json: names are read once it lies in tokenizer/")
        return
    (out / "tokenizer").mkdir(exist_ok=True)
    for name in _TOKENIZER:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / "tokenizer" / name)
            report.files.append(f"tokenizer/{name}")
