"""Simulated pairs of places and sounds as samples: see :mod:`training.sound_pairs`."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from generation.encoders.text import TextEncoder
from generation.errors import ConfigError, MissingFileError
from generation.geo.mercator import Window
from training.data import TILE, held_blocks
from training.sound_pairs import HEARD, SAID, TEST_BLOCKS, Undated, heard_at

SCALES_PX = (64, 128, 256)
"""Sides of the crops that are drawn at one size: a place from near and from afar."""


LOUDER = 1.0
"""Largest change of level of a sound while learning, in nepers: 8.7 dB."""
MASKED = (2, 12, 96)
"""Stripes of a spectrogram that are hidden while learning, each way; bands and frames at most."""


class SoundPairs(Dataset[dict[str, Tensor]]):
    """Pairs of one side, learning or test.

    An item is asked for by ``(index, draw)``: which pair, and the number that decides its crop, its
    caption and where its sound begins. Of a test pair, ``draw`` 0 is always the same middle view.
    """

    def __init__(
        self, pairs: Path, tiles: Path, image_px: int, *, test: bool, undated: Undated = "unknown"
    ) -> None:
        names = ("pairs.npy", "mels.npy", "clips.json")
        absent = [pairs / n for n in names if not (pairs / n).is_file()]
        absent += [tiles / n for n in ("images.npy", "rows.npy") if not (tiles / n).is_file()]
        if absent:
            raise MissingFileError(
                f"{absent[0]} is not there (build it: python -m training.sound_pairs --help)"
            )
        self.clips = json.loads((pairs / "clips.json").read_text(encoding="utf-8"))
        every = np.load(pairs / "pairs.npy")
        self.image_px, self.test, self.undated = image_px, test, undated
        side = np.array([clip["test"] for clip in self.clips])
        self.pairs = every[side[every[:, 0]] == test]
        self.mels = np.load(pairs / "mels.npy").astype(np.float32)
        self.rows = np.load(tiles / "rows.npy")
        if self.pairs[:, 1].max() >= len(self.rows):
            raise ConfigError(f"{pairs} was made on other tiles than {tiles} (build it again)")
        images = np.load(tiles / "images.npy", mmap_mode="r")
        used = np.unique(self.pairs[:, 1])
        self.images = {int(row): np.array(images[row]) for row in used}
        encoder = TextEncoder()
        number = {label: index for index, label in enumerate(HEARD)}
        self.labels = np.array([number[self.clips[row]["label"]] for row in self.pairs[:, 0]])
        self.plausible = self._plausible(pairs / "plausible.npy")
        self.said = {label: encoder(list(texts)) for label, texts in SAID.items()}

    def _plausible(self, file: Path) -> Float[np.ndarray, "pairs sounds"] | None:
        """Say how much of all pairs of each sound lies on the tile of each pair, if simulated."""
        if not file.is_file():
            return None
        weight = np.load(file).astype(np.float64)
        weight *= (held_blocks(self.rows, TEST_BLOCKS) == self.test)[:, None]
        counts = np.bincount(self.labels, minlength=weight.shape[1])
        total = weight.sum(0)
        share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0) * counts
        return np.asarray(share[self.pairs[:, 1]])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        clip_row, tile = self.pairs[index].tolist()
        clip, rng = self.clips[clip_row], np.random.default_rng([draw, index])
        size = SCALES_PX[1] if self.test else int(rng.choice(SCALES_PX))
        slack = TILE - size
        top, left = (slack // 2,) * 2 if self.test else rng.integers(0, slack + 1, 2).tolist()
        view = torch.from_numpy(self.images[tile][top : top + size, left : left + size].copy())
        image = F.adaptive_avg_pool2d(view.permute(2, 0, 1).float() / 127.5 - 1, self.image_px)
        mel = torch.from_numpy(self.mels[clip_row])
        states, words = self.said[clip["label"]]
        which = 0
        if not self.test:
            image = image.flip(-1) if rng.random() < 0.5 else image
            mel = mel.roll(int(rng.integers(mel.shape[1])), 1)
            mel = masked(mel + rng.uniform(-LOUDER, LOUDER), rng)
            which = int(rng.integers(len(states)))
        hour = heard_at(clip["hour"], self.undated, rng)
        zoom, col, row = (int(value) for value in self.rows[tile, :3])
        window = Window(zoom, col, row, TILE, TILE)
        return {
            "image": image,
            "gsd_m": torch.tensor(window.gsd_m * size / self.image_px),
            "mel": mel,
            "states": states[which],
            "words": words[which],
            "latlon": torch.tensor([window.center.lat, window.center.lon]),
            "month": torch.tensor(math.nan if clip["month"] is None else float(clip["month"])),
            "hour": torch.tensor(hour),
            "sound": torch.tensor(int(self.labels[index])),
        }

    def sound_statistics(self) -> tuple[float, float]:
        """Return mean and standard deviation of the spectrograms of this side."""
        used = self.mels[np.unique(self.pairs[:, 0])]
        return float(used.mean()), float(used.std())


def masked(
    mel: Float[Tensor, "bands frames"], rng: np.random.Generator
) -> Float[Tensor, "bands frames"]:
    """Hide some bands and some moments of a spectrogram behind its mean.

    Source:
        Park et al., "SpecAugment" (2019), its frequency and time masking.
    """
    mel, level = mel.clone(), mel.mean()
    stripes, *most = MASKED
    for axis, widest in enumerate(most):
        for _ in range(stripes):
            width = int(rng.integers(min(widest, mel.shape[axis]) + 1))
            start = int(rng.integers(mel.shape[axis] - width + 1))
            mel.narrow(axis, start, width).fill_(level)
    return mel
