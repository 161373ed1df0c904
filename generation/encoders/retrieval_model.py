"""A folder of RANGE: a location encoder, an image tower in its space, and a database.

::

    config.json                  temperatures and beta; which places learnt what
    location/, image/            the encoder of places; the tower, if the database may be built anew
    database.safetensors         latlon, keys, values, sha256 of each image; half precision
    database.json                where the rows are from

Every folder is whole: one that ``terrascape range build`` makes takes its encoders along.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from generation.checkpoint import (
    load_part,
    load_safetensors,
    model_sha256,
    save_part,
    save_safetensors,
)
from generation.encoders.heads import unit
from generation.encoders.location import LocationEncoder
from generation.encoders.retrieval import RetrievalDatabase, RetrievalEncoder
from generation.encoders.tile_statistics import STATISTICS, tile_statistics
from generation.errors import InvalidSpecError, MissingFileError, WeightsError
from generation.registry import find, list_models, locate

CONFIG, DATABASE, ABOUT = "config.json", "database.safetensors", "database.json"
_FARTHEST = 6.0
"""Deviations from the mean at which a statistic of a look stops counting for more."""


class TileTower(ModelMixin, ConfigMixin):
    """An image to what it looks like, and to what that says of where it is."""

    @register_to_config
    def __init__(
        self, statistics: int = STATISTICS, width: int = 256, dim: int = 64, drop: float = 0.1
    ) -> None:
        """Build an untrained tower.

        Args:
            statistics: Numbers that describe an image.
            width: Of the hidden layers.
            dim: Of the keys.
            drop: Probability of a feature to be dropped while learning.
        """
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("deviation", torch.ones(statistics))
        self.layers = nn.Sequential(
            nn.Linear(statistics, width),
            nn.GELU(),
            nn.Dropout(drop),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(drop),
            nn.Linear(width, dim),
        )

    def fit(self, statistics: Float[Tensor, "n statistics"]) -> None:
        """Take mean and deviation of looks from examples."""
        self.mean.copy_(statistics.mean(0))
        self.deviation.copy_(statistics.std(0).clamp_min(1e-4))

    def look(self, statistics: Float[Tensor, "n statistics"]) -> Float[Tensor, "n statistics"]:
        """Give values of a database: statistics in deviations from what is usual."""
        return ((statistics - self.mean) / self.deviation).clamp(-_FARTHEST, _FARTHEST)

    def forward(self, looks: Float[Tensor, "n statistics"]) -> Float[Tensor, "n dim"]:
        """Give keys of looks, of any length."""
        found: Tensor = self.layers(looks)
        return found


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What a folder of RANGE holds."""

    encoder: RetrievalEncoder
    location: LocationEncoder
    """The encoder's own."""
    tower: TileTower | None
    folder: Path
    sha256: str
    settings: Mapping[str, Any]

    @property
    def towers_sha256(self) -> str:
        """The fingerprint of the encoders: databases that they made are exchangeable."""
        return towers_sha256(self.location, self.image_tower)

    @property
    def image_tower(self) -> TileTower:
        """What reads images.

        Raises:
            WeightsError: This folder has none.
        """
        if self.tower is None:
            raise WeightsError(
                f"{self.folder} has no image/ and reads no images (its database was made "
                "elsewhere; use a folder that has one)"
            )
        return self.tower

    @torch.no_grad()
    def read(
        self, images: UInt8[np.ndarray, "n height width 3"]
    ) -> tuple[Float[Tensor, "n value"], Float[Tensor, "n key"]]:
        """Give the look and the key, a unit vector, of images.

        Raises:
            WeightsError: This folder has no tower for images.
        """
        looks = self.image_tower.look(tile_statistics(images))
        return looks, unit(self.image_tower(looks))


def save_retrieval(
    folder: Path,
    settings: Mapping[str, Any],
    location: LocationEncoder,
    tower: TileTower | None,
    database: RetrievalDatabase,
    sha256: UInt8[np.ndarray, "rows 32"] | None = None,
) -> None:
    """Write a folder of RANGE; a database is kept in half precision."""
    save_part(location, folder / "location", half=True)
    if tower is not None:
        save_part(tower, folder / "image")  # deviations of looks need their digits
    tensors = {
        "latlon": database.latlon.float(),
        "keys": database.keys.half(),
        "values": database.values.half(),
    }
    if sha256 is not None:
        tensors["sha256"] = torch.from_numpy(sha256)
    save_safetensors(tensors, folder / DATABASE)
    _write(folder / CONFIG, settings)
    _write(folder / ABOUT, database.about)


def open_retrieval(folder: Path) -> Retrieval:
    """Read a folder of RANGE.

    Raises:
        MissingFileError: A part of it is not there.
        WeightsError: A file is damaged, or the parts do not belong together.
    """
    settings, about = _read(folder / CONFIG), _read(folder / ABOUT)
    tensors = load_safetensors(folder / DATABASE)
    if absent := {"latlon", "keys", "values"} - tensors.keys():
        raise WeightsError(
            f"{folder / DATABASE} lacks {', '.join(sorted(absent))} (build it anew with "
            "`terrascape range build`)"
        )
    database = RetrievalDatabase(
        tensors["latlon"].float(), tensors["keys"].float(), tensors["values"].float(), about
    )
    location = load_part(LocationEncoder, folder / "location").eval()
    tower = None
    if (folder / "image").is_dir():
        tower = load_part(TileTower, folder / "image").eval()
        _same_model(folder, about, location, tower)
    encoder = RetrievalEncoder(
        location,
        database,
        **{name: float(settings[name]) for name in ("temperature", "geo_temperature", "beta")},
    )
    return Retrieval(
        encoder.eval().requires_grad_(False),
        location,
        tower,
        folder,
        model_sha256(folder),
        settings,
    )


def load_retrieval(name: str = "range-nano") -> Retrieval:
    """Give a registered RANGE, or a folder of one, opened once as long as its files do not change.

    Raises:
        InvalidSpecError: It is neither a folder nor the name of such a model.
        MissingFileError: Its files are not on this machine.
    """
    folder = Path(name)
    if not folder.is_dir():
        card = find(name)
        if card.kind != "retrieval":
            raise InvalidSpecError(
                f"model={name!r} is of kind {card.kind!r} and retrieves no looks (give a folder "
                f"of RANGE, or one of {', '.join(list_models('retrieval'))})"
            )
        folder = locate(card.name)
    stamp = tuple(file.stat().st_mtime for file in sorted(folder.rglob("*")) if file.is_file())
    return _opened(folder, stamp)


@lru_cache(maxsize=2)
def _opened(folder: Path, stamp: tuple[float, ...]) -> Retrieval:
    return open_retrieval(folder)


def towers_sha256(location: LocationEncoder, tower: TileTower) -> str:
    """Give one fingerprint of the two encoders that decide what a database holds."""
    import hashlib

    digest = hashlib.sha256()
    for part in (location, tower):
        for name, value in sorted(part.state_dict().items()):
            digest.update(name.encode() + value.half().numpy().tobytes())
    return digest.hexdigest()


def _same_model(
    folder: Path, about: Mapping[str, Any], location: LocationEncoder, tower: TileTower
) -> None:
    told, here = about.get("towers_sha256"), towers_sha256(location, tower)
    if told != here:
        raise WeightsError(
            f"{folder}: keys and values were made by encoders of sha256 {str(told)[:12]}, beside "
            f"them lie encoders of {here[:12]} (build the database anew with these)"
        )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(content), indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"{path} is not there (restore the folder, or build it anew)")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error} (restore it)") from error
    if path.name == CONFIG:
        for name in ("temperature", "geo_temperature", "beta"):
            value = content.get(name) if isinstance(content, dict) else None
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise WeightsError(f"{path}: {name}={value!r} is no number (restore it)")
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is no JSON object (restore it)")
    return content
