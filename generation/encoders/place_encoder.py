"""Every way of telling a place by numbers, behind one interface: (n, 2) degrees to (n, dim).

    load_place_encoder("geoclip-location")      published weights, if they are on this machine
    load_place_encoder("harmonics-10")          a basis without weights
    load_place_encoder("runs/mine/location")    a folder that a recipe or `terrascape convert` wrote

Latitude comes first everywhere; what others take longitude first is flipped here.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from generation.checkpoint import load_part
from generation.encoders.location import (
    GeoClipLocationEncoder,
    LocationEncoder,
    ResidualBlock,
    spherical_harmonics,
)
from generation.encoders.retrieval import check_places, on_sphere
from generation.encoders.retrieval_model import load_retrieval
from generation.errors import InvalidSpecError, WeightsError, shown
from generation.registry import find, list_models, locate

LatLon = Float[Tensor, "n 2"]
Features = Float[Tensor, "n dim"]
MAX_DEGREE = 100
_HARMONICS = re.compile(r"harmonics-(\d{1,3})")
_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class PlaceEncoder:
    """A way of telling a place by numbers."""

    name: str
    dim: int
    features: Callable[[LatLon], Features]

    @torch.no_grad()
    def __call__(self, latlon: LatLon) -> Features:
        """Tell places.

        Args:
            latlon: Degrees, latitude first.

        Raises:
            InvalidLocationError: One is no place.
        """
        check_places(latlon)
        parts = [
            self.features(latlon[at : at + _AT_ONCE]) for at in range(0, len(latlon), _AT_ONCE)
        ]
        return torch.cat([torch.empty(0, self.dim, dtype=latlon.dtype), *parts])


class SinrLocationEncoder(ModelMixin, ConfigMixin):
    """SINR's network of residual blocks, without its classes of species.

    Its input takes both poles for one place: sin(pi lat / 90) and cos(pi lat / 90) have the period
    of the whole range of latitudes.

    Source:
        Cole et al., "Spatial Implicit Neural Representations for Global-Scale Species Mapping"
        (ICML 2023), §3.2 and appendix; the order of features is that of the published weights.
    """

    @register_to_config
    def __init__(
        self, inputs: int = 4, width: int = 256, blocks: int = 4, drop: float = 0.5
    ) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.residuals = nn.ModuleList(ResidualBlock(width, drop) for _ in range(blocks))

    def forward(self, latlon: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch width"]:
        """Embed points given as (lat, lon) degrees."""
        hidden = torch.relu(self.first(wrapped(latlon, doubled=True).to(self.first.weight)))
        for block in self.residuals:
            hidden = block(hidden)
        return hidden


def wrapped(latlon: LatLon, *, doubled: bool = False) -> Float[Tensor, "n 4"]:
    """Give sines of longitude and latitude, then their cosines.

    Args:
        latlon: Degrees, latitude first.
        doubled: Whether latitude goes around once between the poles, as in SINR, and not half.

    Source:
        Mac Aodha et al., "Presence-only geographical priors for fine-grained image
        classification" (ICCV 2019), §3.1.
    """
    lat, lon = torch.deg2rad(latlon).unbind(1)
    lat = 2 * lat if doubled else lat
    return torch.stack([lon.sin(), lat.sin(), lon.cos(), lat.cos()], 1)


def sphere2vec(
    latlon: LatLon, *, plus: bool, scales: int = 16, least: float = 1e-2
) -> Float[Tensor, "n features"]:
    """Give Sphere2Vec's sphereC, or with ``plus`` sphereC+, of several scales.

    Args:
        latlon: Degrees, latitude first.
        plus: Whether the sines and cosines of all scales stand beside.
        scales: Wave lengths, in equal ratios from the whole circle down to ``least`` of it.
        least: The shortest.

    Source:
        Mai et al., "Sphere2Vec" (ISPRS 2023), Eqs. 8 and 10. Numbers and lengths of the scales
        that published tables were made with are not stated there.
    """
    lat, lon = torch.deg2rad(latlon)[..., None].unbind(1)
    share = torch.arange(scales, dtype=latlon.dtype) / max(scales - 1, 1)
    lengths = least**share
    lats, lons = lat / lengths, lon / lengths
    found = [lats.sin(), lats.cos() * lons.cos(), lats.cos() * lons.sin()]
    if plus:
        found += [lats.cos(), lons.sin(), lons.cos()]
    return torch.cat(found, 1)


def _harmonics(degree: int) -> PlaceEncoder:
    return PlaceEncoder(
        f"harmonics-{degree}",
        degree**2,
        lambda latlon: spherical_harmonics(latlon.double(), degree).to(latlon),
    )


_BASES: dict[str, tuple[int, Callable[[LatLon], Features]]] = {
    "direct": (2, lambda latlon: latlon),
    "cartesian3d": (3, on_sphere),
    "wrap": (4, wrapped),
    "sinr-input": (4, lambda latlon: wrapped(latlon, doubled=True)),
    "spherec": (48, lambda latlon: sphere2vec(latlon, plus=False)),
    "spherec-plus": (96, lambda latlon: sphere2vec(latlon, plus=True)),
}
_CLASSES: dict[str, type] = {
    "LocationEncoder": LocationEncoder,
    "GeoClipLocationEncoder": GeoClipLocationEncoder,
    "SinrLocationEncoder": SinrLocationEncoder,
}
RETRIEVED = {"range": (15.0, 1.0), "range-plus": (12.0, 0.5)}
"""RANGE and RANGE+: the temperature of likeness and the beta that they were published with."""


def load_place_encoder(name: str) -> PlaceEncoder:
    """Give an encoder by name, or from a folder of weights.

    Args:
        name: ``direct``, ``cartesian3d``, ``wrap``, ``sinr-input``, ``spherec``, ``spherec-plus``;
            ``harmonics-L`` with L of 1 to 100; a location model of ``terrascape models``;
            ``range``, ``range-plus`` and ``range-key`` with ``:FOLDER`` or of the embedded
            database; or the folder of a location encoder.

    Raises:
        InvalidSpecError: There is no such encoder.
        MissingFileError: Its weights are not on this machine.
        WeightsError: They are damaged, or of no location encoder.
    """
    if name in _BASES:
        return PlaceEncoder(name, *_BASES[name])
    if (match := _HARMONICS.fullmatch(name)) and 1 <= int(match[1]) <= MAX_DEGREE:
        return _harmonics(int(match[1]))
    kind, _, source = name.partition(":")
    if kind in (*RETRIEVED, "range-key"):
        return _retrieved(kind, source or "range-nano")
    folder = Path(name)
    if not folder.is_dir():
        known = list_models("location")
        if name not in known:
            raise InvalidSpecError(
                f"no place encoder is named {shown(name)} (give one of "
                f"{', '.join([*_BASES, 'harmonics-10', *known, *RETRIEVED, 'range-key'])}, or a "
                "folder of weights)"
            )
        folder = locate(find(name).name)
    return _of_folder(folder)


def _of_folder(folder: Path) -> PlaceEncoder:
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    if kind not in _CLASSES:
        raise WeightsError(
            f"{folder} holds no location encoder that is known here (its config.json names "
            f"{shown(kind)}; one of {', '.join(_CLASSES)} is)"
        )
    model = load_part(_CLASSES[kind], folder).eval()
    dim = model(torch.zeros(1, 2)).shape[1]
    return PlaceEncoder(folder.name, dim, lambda latlon: model(latlon.to(torch.float32)).to(latlon))


def _retrieved(kind: str, source: str) -> PlaceEncoder:
    encoder = load_retrieval(source).encoder
    if kind == "range-key":
        return PlaceEncoder(kind, encoder.key_dim, lambda latlon: encoder.key(latlon).to(latlon))
    temperature, beta = RETRIEVED[kind]
    read = encoder.read_with(temperature)
    dim = encoder.value_dim + encoder.key_dim
    return PlaceEncoder(kind, dim, lambda latlon: read(latlon, beta).to(latlon))
