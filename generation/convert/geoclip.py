"""GeoCLIP: its location encoder's weights, in half precision, with licence and credit.

Source: Vivanco Cepeda, Nayak, Shah, "GeoCLIP: Clip-Inspired Alignment between Locations and Images
for Effective Worldwide Geo-localization" (NeurIPS 2023), arXiv 2309.16020.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.atomic import atomic_path
from generation.checkpoint import check_shapes, save_safetensors
from generation.convert.report import WEIGHTS_NAME, Conversion, Tensors, shapes_of, write_json

if TYPE_CHECKING:
    import torch

MEMBER = "geoclip/model/weights/location_encoder_weights.pth"
"""Where the weights lie inside the wheel."""

_CONFIG: dict[str, Any] = {
    "_class_name": "GeoClipLocationEncoder",
    "sigmas": [1.0, 16.0, 256.0],
    "fourier_dim": 256,
    "hidden_dim": 1024,
    "embed_dim": 512,
}
_LAYERS = {  # layer in the source: (layer in the result, shape of its weight)
    "capsule.1": (0, (1024, 512)),
    "capsule.3": (2, (1024, 1024)),
    "capsule.5": (4, (1024, 1024)),
    "head.0": (6, (512, 1024)),
}

_CARD = """# GeoCLIP location encoder (half precision)

Latitude and longitude in degrees to a 512-d embedding that lies near CLIP embeddings of photographs
taken there. Converted, not trained, by this project with `terrascape convert geoclip {source}`.

- Authors: Vicente Vivanco Cepeda, Gaurav Kumar Nayak, Mubarak Shah (NeurIPS 2023, arXiv 2309.16020)
- Source: PyPI package geoclip 1.3.0, file `{member}`;
  SHA-256 of the file that was read: `{sha}`
- Learnt from: MP-16, 4.7 million geotagged photographs; so it knows best where people take them
- Parameters: {count}; {notes}
- Precision: half, but the random frequencies single: they reach 1,000, where
  half precision steps by 0.5 and the phase would be off by up to 1.5 radians
- Architecture: Equal Earth projection, then three capsules (sigma 1, 16, 256): random Fourier
  features, three linear layers with ReLU, a linear head; their sum is the embedding

## Keys
| in the source | here | shape |
|---|---|---|
{keys}

## Licence
{licence}"""
_LICENCE = """MIT License

Copyright (c) 2024 Vicente Vivanco

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def convert_geoclip(tensors: Tensors, out: Path, report: Conversion) -> None:
    """Give the keys their names here and halve the precision, except of the frequencies.

    The random frequencies reach 1,000 and are multiplied by coordinates up to 1 and by 2 pi: in
    half precision, whose step at 1,000 is 0.5, the phase would be off by up to 1.5 radians.
    """
    check_shapes(Path(report.source), shapes_of(tensors), geoclip_shapes())
    halved: dict[str, torch.Tensor] = {}
    error = 0.0
    for name, tensor in tensors.items():
        target = geoclip_name(name)
        frequencies = target.startswith("frequencies.")
        halved[target] = tensor.float() if frequencies else tensor.half()
        error = max(error, float((halved[target].double() - tensor.double()).abs().max()))
        report.mapped[name] = target
    report.notes.append(f"largest rounding error of a parameter {error:.3g}")
    report.files.extend(["config.json", "card.md", WEIGHTS_NAME])
    write_json(out / "config.json", _CONFIG)
    with atomic_path(out / "card.md") as temporary:
        temporary.write_text(_card(tensors, report), encoding="utf-8")
    save_safetensors(halved, out / WEIGHTS_NAME, {"licence": "MIT"})


def geoclip_shapes() -> dict[str, tuple[int, ...]]:
    """Key -> shape of the published weights."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(len(_CONFIG["sigmas"])):
        shapes[f"LocEnc{index}.capsule.0.b"] = (256, 2)
        for layer, (_, shape) in _LAYERS.items():
            shapes[f"LocEnc{index}.{layer}.weight"] = shape
            shapes[f"LocEnc{index}.{layer}.bias"] = shape[:1]
    return shapes


def geoclip_name(name: str) -> str:
    """Translate ``LocEnc2.head.0.bias`` to ``towers.2.6.bias``."""
    capsule, layer, index, leaf = name.split(".")
    number = capsule.removeprefix("LocEnc")
    if leaf == "b":
        return f"frequencies.{number}"
    return f"towers.{number}.{_LAYERS[f'{layer}.{index}'][0]}.{leaf}"


def _card(tensors: Tensors, report: Conversion) -> str:
    rows = [
        f"| {name} | {report.mapped[name]} | {shape} |"
        for name, shape in shapes_of(tensors).items()
    ]
    return _CARD.format(
        source=report.source,
        member=MEMBER,
        sha=report.source_sha256,
        count=f"{sum(tensor.numel() for tensor in tensors.values()):,}",
        notes="; ".join(report.notes),
        keys="\n".join(rows),
        licence=_LICENCE,
    )
