"""SatCLIP: the location tower of a published checkpoint, as our own location encoder.

Both evaluate real spherical harmonics and then a network with sine activations; they differ in
where angles start and in a scale. SatCLIP measures both angles from the other side, which changes
the sign of every odd band, and its zonal functions (m = 0) are pi times too large, a slip that its
weights were trained with. Both are factors of single features, so they move into the first layer.

Source: Klemmer et al., "SatCLIP" (2023), arXiv 2311.17179; its published code and checkpoints.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    import torch

_TOWER = "nnet."


def convert_satclip(tensors: Tensors, out: Path, report: Conversion) -> None:
    """Take the location tower, rename its layers and put the features' factors into the first."""
    names = {name[name.index(_TOWER) + len(_TOWER) :]: name for name in tensors if _TOWER in name}
    report.left.update(
        {name: "not of the location tower" for name in tensors if name not in names.values()}
    )
    settings = _settings(report.source, shapes_of({n: tensors[key] for n, key in names.items()}))
    targets = satclip_names(settings["layers"])
    check_shapes(
        Path(report.source),
        shapes_of({name: tensors[key] for name, key in names.items()}),
        _shapes(settings),
    )
    result = {target: tensors[names[name]].double() for name, target in targets.items()}
    result["sines.0.linear.weight"] *= satclip_factors(settings["degree"])
    report.mapped.update({names[name]: target for name, target in targets.items()})
    report.notes.append("the factors of SatCLIP's spherical harmonics moved into the first layer")
    report.files.extend(["config.json", WEIGHTS_NAME])
    write_json(out / "config.json", {"_class_name": "LocationEncoder", **settings})
    save_safetensors(result, out / WEIGHTS_NAME, {"licence": "MIT"})


def satclip_factors(degree: int) -> "torch.Tensor":
    """SatCLIP's spherical harmonics divided by ours, in the order of the features."""
    import torch

    return torch.tensor(
        [
            (-1.0) ** band * (math.pi if m == 0 else 1.0)
            for band in range(degree)
            for m in range(-band, band + 1)
        ],
        dtype=torch.float64,
    )


def satclip_names(layers: int) -> dict[str, str]:
    """Name of a layer's parameter in SatCLIP -> its name here."""
    leaves = ("weight", "bias")
    names = {
        f"layers.{i}.{leaf}": f"sines.{i}.linear.{leaf}" for i in range(layers) for leaf in leaves
    }
    return names | {f"last_layer.{leaf}": f"out.{leaf}" for leaf in leaves}


def _settings(source: str, shapes: Shapes) -> dict[str, int]:
    """Read the sizes of the tower off its weights."""
    first, last = shapes.get("layers.0.weight"), shapes.get("last_layer.weight")
    if first is None or last is None or len(first) != 2 or math.isqrt(first[1]) ** 2 != first[1]:
        raise WeightsError(
            f"{source}: no location tower of SatCLIP on spherical harmonics (it has nnet.layers.0 "
            "and nnet.last_layer; is it another model?)"
        )
    layers = {name.split(".")[1] for name in shapes if name.startswith("layers.")}
    return {
        "degree": math.isqrt(first[1]),
        "hidden_dim": first[0],
        "embed_dim": last[0],
        "layers": len(layers),
    }


def _shapes(settings: dict[str, int]) -> dict[str, tuple[int, ...]]:
    hidden, inputs = settings["hidden_dim"], settings["degree"] ** 2
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(settings["layers"]):
        shapes[f"layers.{index}.weight"] = (hidden, inputs if index == 0 else hidden)
        shapes[f"layers.{index}.bias"] = (hidden,)
    embed = settings["embed_dim"]
    return shapes | {"last_layer.weight": (embed, hidden), "last_layer.bias": (embed,)}
