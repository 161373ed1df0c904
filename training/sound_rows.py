"""Real pairs of places and sounds, from Parquet: the data of a run on a region of one's own.

A row has the columns ``image`` and ``audio`` (encoded files, as bytes or as a struct with
``bytes``), ``caption`` (what is heard), ``lat``, ``lon`` and ``gsd_m`` (metres that a pixel of the
image covers); ``date`` (2024-05-31) and ``hour`` (local, 0 to below 24) may be absent or null. Rows
are read as they are needed: write the files with small row groups (``row_group_size=16``).
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from generation.encoders.metadata import checked_hour, parsed_date
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_readers import text_reader
from generation.encoders.sound_space import TEXT
from generation.errors import ConfigError
from generation.geo.location import Location
from generation.media.audio import Recording, decode_audio, fitted
from generation.media.image import decode_rgb

NEEDED = ("image", "audio", "caption", "lat", "lon", "gsd_m")
WHEN = ("date", "hour")
LEAST_SIDE = 0.5
"""The smallest crop while learning, as a share of the image's shorter side."""
LISTEN_S = 10.24
"""Seconds of a recording that a sample hears; where they begin is drawn."""
_GROUPS = 8
"""Row groups that are kept after they were read."""


class SoundRows(Dataset[dict[str, Tensor]]):
    """Rows of Parquet files, read as the towers of a space take them.

    An item is asked for by ``(index, draw)``: which row, and the number that decides the crop and
    where the sound begins; ``draw`` is passed over where ``fixed``.
    """

    def __init__(
        self, files: Sequence[Path], encoder: SoundEncoder, *, fixed: bool = False
    ) -> None:
        import pyarrow.parquet as pq

        self.encoder, self.fixed = encoder, fixed
        self.read = text_reader(encoder.space.settings[TEXT], encoder.space.text, encoder.folder)
        self.files = [pq.ParquetFile(file, memory_map=True) for file in files]
        self.where: list[tuple[int, int, int]] = []
        for number, file in enumerate(self.files):
            names = file.schema_arrow.names
            absent = [name for name in NEEDED if name not in names]
            if absent:
                raise ConfigError(
                    f"{files[number]} lacks the column {', '.join(absent)} (needed: "
                    f"{', '.join(NEEDED)}; {' and '.join(WHEN)} may be absent)"
                )
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                self.where += [(number, group, row) for row in range(count)]
        if not self.where:
            raise ConfigError("the Parquet files have no rows (give files with some)")
        self._kept: OrderedDict[tuple[int, int], list[dict[str, Any]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        row, told = self._row(index), f"row {index}"
        rng = None if self.fixed else np.random.default_rng([draw, index])
        pixels = _crop(decode_rgb(_bytes(row["image"]), told), rng)
        recording = _part(decode_audio(_bytes(row["audio"]), told), rng)
        spectrograms = self.encoder.listen(recording)
        if not str(row["caption"] or "").strip():
            raise ConfigError(f"{told} has no caption (say what is heard, or drop the row)")
        states, words = self.read([str(row["caption"])])[0]
        place = Location(float(row["lat"]), float(row["lon"]))
        month, hour = _when(row)
        image = self.encoder.pixels(pixels[None])[0]
        gsd_m = float(row["gsd_m"]) * len(pixels) / self.encoder.pixels.side
        return {
            "image": image,
            "gsd_m": torch.tensor(gsd_m),
            "mel": spectrograms[0],
            "states": _filled(states[0], self.encoder.space.text.max_tokens),
            "words": _filled(words[0], self.encoder.space.text.max_tokens),
            "latlon": torch.tensor([place.lat, place.lon]),
            "month": torch.tensor(month),
            "hour": torch.tensor(hour),
        }

    def _row(self, index: int) -> dict[str, Any]:
        number, group, row = self.where[index]
        if (number, group) not in self._kept:
            file = self.files[number]
            columns = [n for n in (*NEEDED, *WHEN) if n in file.schema_arrow.names]
            self._kept[number, group] = file.read_row_group(group, columns=columns).to_pylist()
            while len(self._kept) > _GROUPS:
                self._kept.popitem(last=False)
        return self._kept[number, group][row]


def _bytes(value: Any) -> bytes:  # noqa: ANN401 - as Arrow gives it
    data = value["bytes"] if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise ConfigError(
            f"an encoded file was expected, found {type(data).__name__} (store the bytes of a file)"
        )
    return data


def _crop(
    pixels: UInt8[np.ndarray, "height width 3"], rng: np.random.Generator | None
) -> UInt8[np.ndarray, "side side 3"]:
    """Cut a square: the largest in the middle, or a drawn one, perhaps mirrored."""
    height, width = pixels.shape[:2]
    share = 1.0 if rng is None else float(rng.uniform(LEAST_SIDE, 1))
    side = max(1, round(share * min(height, width)))
    slack = np.array([height - side, width - side])
    top, left = slack // 2 if rng is None else rng.integers(0, slack + 1)
    square = pixels[top : top + side, left : left + side]
    if rng is not None and rng.random() < 0.5:
        square = square[:, ::-1]
    return np.ascontiguousarray(square)


def _part(recording: Recording, rng: np.random.Generator | None) -> Recording:
    length = round(LISTEN_S * recording.rate)
    slack = len(recording.samples) - length
    if slack <= 0:
        return recording
    start = slack // 2 if rng is None else int(rng.integers(slack + 1))
    return Recording(fitted(recording.samples, length, start), recording.rate)


def _when(row: Mapping[str, Any]) -> tuple[float, float]:
    date, hour = row.get("date"), row.get("hour")
    month = math.nan if date is None else float(parsed_date(str(date)[:10]).month)
    return month, math.nan if hour is None else checked_hour(float(hour))


def _filled(values: Tensor, count: int) -> Tensor:
    """Fill up with zeros, so that rows can be put together."""
    filled = values.new_zeros((count, *values.shape[1:]))
    filled[: len(values)] = values
    return filled
