"""SINR: the network of a published checkpoint, without its classes of species.

Source: Cole et al., "Spatial Implicit Neural Representations for Global-Scale Species Mapping"
(ICML 2023), and the names of its published layers.
"""

import re
from pathlib import Path

from generation.checkpoint import check_shapes, save_safetensors
from generation.convert.report import WEIGHTS_NAME, Conversion, Tensors, shapes_of, write_json
from generation.errors import WeightsError

_LAYER = re.compile(r"(?:.*\.)?feats\.(\d+)\.(?:(w1|w2)\.)?(weight|bias)")
_INPUTS = 4


def convert_sinr(tensors: Tensors, out: Path, report: Conversion) -> None:
    """Take the network, and name its blocks from zero."""
    named: dict[str, str] = {}
    for name in tensors:
        found = _LAYER.fullmatch(name)
        if found is None:
            report.left[name] = "a class of species, or not of the network"
            continue
        at, layer, leaf = int(found[1]), found[2], found[3]
        named[name] = f"residuals.{at - 2}.{layer}.{leaf}" if layer else f"first.{leaf}"
    shapes = shapes_of({target: tensors[name] for name, target in named.items()})
    first = shapes.get("first.weight")
    if first is None or len(first) != 2:
        raise WeightsError(f"{report.source}: no network of SINR (it has feats.0; is it another?)")
    width, inputs = first
    if inputs != _INPUTS:
        raise WeightsError(
            f"{report.source} reads {inputs} numbers and not {_INPUTS}: an environment too (take a "
            "model that reads places alone)"
        )
    blocks = len({name.split(".")[1] for name in shapes if name.startswith("residuals.")})
    square, line = (width, width), (width,)
    expected = {"first.weight": (width, _INPUTS), "first.bias": line}
    for block in range(blocks):
        for layer in ("w1", "w2"):
            expected[f"residuals.{block}.{layer}.weight"] = square
            expected[f"residuals.{block}.{layer}.bias"] = line
    check_shapes(Path(report.source), shapes, expected)
    report.mapped.update(named)
    report.files.extend(["config.json", WEIGHTS_NAME])
    settings = {"inputs": _INPUTS, "width": width, "blocks": blocks}
    write_json(out / "config.json", {"_class_name": "SinrLocationEncoder", **settings})
    result = {target: tensors[name].float() for name, target in named.items()}
    save_safetensors(result, out / WEIGHTS_NAME, {"licence": "MIT"})
