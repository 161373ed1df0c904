"""Panoramas with known places, as samples of one kind, from rendered sets or from files.

Two sources give the same samples: folders of Parquet that :mod:`training.panorama_sets` wrote, and
a table of real panoramas (CSV with ``file, lat, lon, heading_deg`` and, if there is one,
``satellite``, a GeoTIFF for the row's place).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from generation.diffusion.views import Surroundings
from generation.errors import ConfigError, InvalidSpecError, MissingFileError
from generation.geo.imagery import cut_square
from generation.geo.location import Location
from generation.geo.mercator import gsd_m, to_px
from generation.geo.sphere import offset_m

SATELLITE_PX = 256
"""Side of the satellite image that a target is given."""
MAX_VIEWS = 3
_ZOOM = 8


@dataclass(frozen=True, slots=True)
class SeenFrom:
    """One panorama of a set: its encoded pixels and where it stands."""

    image: bytes
    depth: bytes | None
    place: Location


@dataclass(frozen=True, slots=True)
class ViewSet:
    """Panoramas that may look at each other's ground."""

    name: str
    satellite: bytes
    place: Location
    views: tuple[SeenFrom, ...]


def read_sets(files: Sequence[Path]) -> list[ViewSet]:
    """Read what :mod:`training.panorama_sets` wrote, the pictures still encoded.

    Raises:
        MissingFileError: No file is given.
        ConfigError: A file is no such Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not files:
        raise MissingFileError("no Parquet file of panoramas matches (quote the pattern)")
    found = []
    for path in files:
        try:
            rows = pq.read_table(path).to_pylist()
            found += [_set_of(row) for row in rows]
        except (pa.ArrowException, OSError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} holds no sets of panoramas ({error!s:.80}; build them with python -m "
                "training.panorama_sets)"
            ) from error
    return found


def _set_of(row: dict[str, Any]) -> ViewSet:
    return ViewSet(
        name=row["set_id"],
        satellite=row["satellite"]["bytes"],
        place=Location(row["lat"], row["lon"]),
        views=tuple(
            SeenFrom(v["image"]["bytes"], v["depth"]["bytes"], Location(v["lat"], v["lon"]))
            for v in row["views"]
        ),
    )


class PanoramaDataset(Dataset[dict[str, Tensor]]):
    """Targets with other panoramas of their sets and the satellite image around them.

    An item is asked for by ``(index, draw)``: which panorama is the target, and the number that
    decides which others it is given, so that a batch is a pure function of the step.
    """

    def __init__(self, sets: Sequence[ViewSet], *, views: int = MAX_VIEWS) -> None:
        self.sets, self.views = sets, views
        self.targets = [(s, t) for s, group in enumerate(sets) for t in range(len(group.views))]

    def __len__(self) -> int:
        return len(self.targets)

    def target(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Give the panorama that stands for an index."""
        number, target = self.targets[index]
        return _pixels(self.sets[number].views[target].image, "RGB")

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        number, target = self.targets[index]
        others = [v for v in range(len(self.sets[number].views)) if v != target]
        order = np.random.default_rng([draw, index]).permutation(others).tolist()
        return self.sample(number, target, order[: self.views])

    def sample(self, number: int, target: int, others: Sequence[int]) -> dict[str, Tensor]:
        """Give a target with stated panoramas in its slots.

        Returns:
            Bytes for pictures, metres, degrees and flags, as :func:`surroundings` takes them.
        """
        group = self.sets[number]
        here = group.views[target]
        image = _pixels(here.image, "RGB")
        panoramas = np.zeros((self.views, *image.shape), np.uint8)
        valid, offsets = np.zeros(self.views, bool), np.ones((self.views, 2), np.float32)
        for slot, other in enumerate(others):
            there = group.views[other]
            panoramas[slot], valid[slot] = _pixels(there.image, "RGB"), True
            offsets[slot] = offset_m(here.place, there.place)
        depth = np.zeros(image.shape[:2], np.uint8)
        if here.depth is not None:
            depth = _pixels(here.depth, "L")
        satellite = _pixels(group.satellite, "RGB")
        return {
            "image": torch.from_numpy(image),
            "panoramas": torch.from_numpy(panoramas),
            "valid": torch.from_numpy(valid),
            "offset_m": torch.from_numpy(offsets),
            "satellite": torch.from_numpy(crop_at(satellite, group.place, here.place)),
            "has_satellite": torch.tensor(True),
            "gsd_m": torch.tensor(gsd_m(here.place.lat, _ZOOM), dtype=torch.float32),
            "lat_deg": torch.tensor(here.place.lat, dtype=torch.float32),
            "depth": torch.from_numpy(depth),
            "has_depth": torch.tensor(here.depth is not None),
        }


def crop_at(
    image: UInt8[np.ndarray, "side side 3"], centre: Location, place: Location
) -> UInt8[np.ndarray, "256 256 3"]:
    """Cut the square around a place out of an image centred elsewhere."""
    (x, y), (x0, y0) = to_px(place, _ZOOM), to_px(centre, _ZOOM)
    half = len(image) / 2
    try:
        return cut_square(image, x - x0 + half, y - y0 + half, SATELLITE_PX)
    except InvalidSpecError:
        raise ConfigError(
            f"the satellite image of {len(image)} px around {centre} does not reach "
            f"{SATELLITE_PX} px around {place} (give larger ones)"
        ) from None


def surroundings(batch: dict[str, Tensor]) -> Surroundings:
    """Turn a batch of samples into what the encoder of views takes."""
    values = {f.name: batch[f.name] for f in fields(Surroundings)}
    values["panoramas"] = signal(batch["panoramas"])
    values["satellite"] = signal(batch["satellite"])
    values["depth"] = batch["depth"][:, None].float() / 255
    return Surroundings(**values)


def signal(
    pixels: UInt8[Tensor, "*batch height width 3"],
) -> Float[Tensor, "*batch 3 height width"]:
    """Turn bytes into [-1, 1], channels first."""
    return pixels.movedim(-1, -3).float() / 127.5 - 1


def _pixels(data: bytes, mode: str) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as file:
        return np.array(file.convert(mode))
