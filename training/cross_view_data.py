"""Ground views with the satellite images around them, decoded once and kept at the sizes learnt.

Both look north: the middle of a panorama, and up in a satellite image. So a quarter turn of a place
turns the one and shifts the other, and a mirrored place mirrors both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from generation.encoders.birdsat import resized
from generation.errors import ConfigError
from training.panorama_data import PanoramaDataset, ViewSet

Size = tuple[int, int]
_AT_ONCE = 64
_BLOCK_DEG = 10


@dataclass(frozen=True, slots=True)
class CrossViews:
    """Pairs of a ground view and the satellite image around it."""

    ground: UInt8[np.ndarray, "n height width 3"]
    satellite: UInt8[np.ndarray, "n side side 3"]
    latlon: Float[np.ndarray, "n 2"]
    """Degrees, latitude first, float32."""
    sets: Int[np.ndarray, " n"]
    """Which pairs stand near each other, at one moment."""

    def __len__(self) -> int:
        return len(self.latlon)

    def __getitem__(self, rows: Int[np.ndarray, " k"] | Bool[np.ndarray, " n"]) -> "CrossViews":
        """Take some of them."""
        return CrossViews(
            self.ground[rows], self.satellite[rows], self.latlon[rows], self.sets[rows]
        )

    @property
    def blocks(self) -> Int[np.ndarray, " n"]:
        """A number for each block of ten degrees that a pair lies in."""
        rows, columns = np.floor(self.latlon / _BLOCK_DEG).astype(np.int64).T
        return 36 * rows + columns


def read_pairs(sets: Sequence[ViewSet], ground: Size | None, satellite: Size | None) -> CrossViews:
    """Decode all panoramas of sets with the square of satellite image around each.

    Args:
        sets: What :mod:`training.panorama_data` reads.
        ground: Height and width that panoramas are brought to; their own if absent.
        satellite: The same of satellite images.

    Raises:
        ConfigError: A set has no satellite image, or there are fewer than two pairs.
    """
    lacking = [each.name for each in sets if each.satellite is None]
    if lacking:
        raise ConfigError(
            f"{len(lacking)} of {len(sets)} sets lack a satellite image, {lacking[0]} first (leave "
            "them out)"
        )
    data = PanoramaDataset(sets, views=0)
    if len(data) < 2:
        raise ConfigError(f"{len(data)} pair has nothing to be told from (give two or more)")
    seen, above = [], []
    for part in _parts(data):
        seen.append(_sized(np.stack([each["image"].numpy() for each in part]), ground))
        above.append(_sized(np.stack([each["satellite"].numpy() for each in part]), satellite))
    places = [sets[number].views[target].place for number, target in data.targets]
    return CrossViews(
        ground=np.concatenate(seen),
        satellite=np.concatenate(above),
        latlon=np.array([(place.lat, place.lon) for place in places], np.float32),
        sets=np.array([number for number, _ in data.targets]),
    )


def _parts(data: PanoramaDataset) -> Iterator[list[dict[str, Tensor]]]:
    for start in range(0, len(data), _AT_ONCE):
        number_target = data.targets[start : start + _AT_ONCE]
        yield [data.sample(number, target, []) for number, target in number_target]


def _sized(
    images: UInt8[np.ndarray, "n height width 3"], size: Size | None
) -> UInt8[np.ndarray, "n rows columns 3"]:
    return images if size is None or images.shape[1:3] == size else resized(images, size)


def turned(
    ground: UInt8[np.ndarray, "height width 3"],
    satellite: UInt8[np.ndarray, "side side 3"],
    quarters: int,
    mirrored: bool,
) -> tuple[UInt8[np.ndarray, "height width 3"], UInt8[np.ndarray, "side side 3"]]:
    """Show the same place turned clockwise by quarters, and then perhaps mirrored east to west."""
    ground = np.roll(ground, quarters * ground.shape[1] // 4, axis=1)
    satellite = np.rot90(satellite, -quarters)
    if mirrored:
        ground, satellite = ground[:, ::-1], satellite[:, ::-1]
    return np.ascontiguousarray(ground), np.ascontiguousarray(satellite)


class CrossViewSamples(Dataset[dict[str, Tensor]]):
    """Pairs, turned and mirrored by lot, asked for by ``(index, draw)``."""

    def __init__(self, pairs: CrossViews) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        rng = np.random.default_rng([draw, index, 7])
        ground, satellite = turned(
            self.pairs.ground[index],
            self.pairs.satellite[index],
            int(rng.integers(4)),
            bool(rng.integers(2)),
        )
        return {
            "ground": torch.from_numpy(ground),
            "satellite": torch.from_numpy(satellite),
            "latlon": torch.from_numpy(self.pairs.latlon[index]),
        }
