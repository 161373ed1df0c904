"""Recordings to learn sounds from: waveforms in memory, and pieces of them.

Clips of the held-out fold, and every fourth recording of the day, are for measuring only, as in
:mod:`training.sound_pairs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from generation.console import Progress
from generation.encoders.heads import Embedding
from generation.encoders.sound_encoder import SoundEncoder
from generation.errors import ConfigError, MissingFileError
from generation.geo.mercator import Window
from generation.media.audio import Mel, Recording, decode_audio, fitted, log_mel
from training.data import TILE, held_blocks
from training.sound_gallery import VIEW_PX
from training.sound_pairs import TEST_BLOCKS, Clip, Undated, heard_at, read_clips

GAIN = 2.0
"""Pieces are made louder or softer by up to this factor."""
LOUDER = 0.5
"""The same for spectrograms, in units of the natural logarithm."""


@dataclass(frozen=True, slots=True)
class Wave:
    """One recording and what is known of it."""

    clip: Clip
    samples: Float[np.ndarray, " n"]


def read_waves(clips: str | None, day: str | None, *, rate: int, test: bool) -> list[Wave]:
    """Decode the recordings of one side.

    Args:
        clips: Pattern of Parquet files in the schema of ESC-10.
        day: Pattern of those of one microphone's day.
        rate: Samples a second.
        test: The side.

    Raises:
        MissingFileError: There are none.
        ConfigError: None are of this side.
    """
    wanted = [(clip, data) for clip, data in read_clips(clips, day) if clip.test == test]
    if not wanted:
        raise ConfigError(
            f"no recording is {'held out' if test else 'to learn from'} (name more files)"
        )
    progress, waves = Progress("recordings"), []
    for number, (clip, data) in enumerate(wanted, start=1):
        recording = decode_audio(data, f"{clip.label} {clip.title!r}", rate=rate)
        waves.append(Wave(clip, recording.samples))
        progress(number, len(wanted))
    return waves


class Pieces(Dataset[dict[str, Tensor]]):
    """Pieces of recordings, asked for by ``(index, draw)``: which recording, and where it begins.

    Silence is passed over: of a few places the first that is not far below the recording's level is
    taken.
    """

    def __init__(self, waves: Sequence[Wave], count: int) -> None:
        self.waves, self.count = waves, count

    def __len__(self) -> int:
        return len(self.waves)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        samples = self.waves[index].samples
        rng = np.random.default_rng([draw, index])
        level = float(np.sqrt(np.mean(samples**2)))
        for _ in range(4):
            piece = fitted(samples, self.count, int(rng.integers(len(samples))))
            if float(np.sqrt(np.mean(piece**2))) > level / 4:
                break
        gain = GAIN ** rng.uniform(-1, 1)
        return {"samples": torch.from_numpy((gain * piece).astype(np.float32))}


@dataclass(frozen=True, slots=True)
class Heard:
    """Spectrograms of pieces, how the shared space hears each, and when it was recorded."""

    mels: Float[np.ndarray, "pieces bands frames"]
    embeddings: Float[Tensor, "pieces dim"]
    months: Float[np.ndarray, " pieces"]
    hours: Float[np.ndarray, " pieces"]


def hear(waves: Sequence[Wave], encoder: SoundEncoder, mel: Mel, frames: int, each: int) -> Heard:
    """Cut pieces from recordings at even distances, and listen to them.

    Args:
        waves: The recordings.
        encoder: Of the shared space.
        mel: How spectrograms are taken.
        frames: Columns of a piece.
        each: Pieces of a recording.
    """
    filters, count = mel.filters(), (frames - 1) * mel.hop
    progress, mels, embeddings, times = Progress("pieces"), [], [], []
    for number, wave in enumerate(waves, start=1):
        starts = np.linspace(0, len(wave.samples), each, endpoint=False).astype(int).tolist()
        pieces = [fitted(wave.samples, count, start) for start in starts]
        mels.append(log_mel(torch.from_numpy(np.stack(pieces)), mel, filters).half().numpy())
        embeddings.append(encoder.audio([Recording(piece, mel.rate) for piece in pieces]).vector)
        known = (wave.clip.month, wave.clip.hour)
        times += [[np.nan if value is None else value for value in known]] * each
        progress(number, len(waves))
    months, hours = np.array(times, np.float32).T
    return Heard(np.concatenate(mels), torch.cat(embeddings), months, hours)


def tiles_seen(encoder: SoundEncoder, tiles: Path, count: int = 512) -> Embedding:
    """Embed the middles of some tiles to learn from, spread evenly over a folder.

    Raises:
        MissingFileError: It is no folder of :mod:`training.data`.
    """
    absent = [name for name in ("images.npy", "rows.npy") if not (tiles / name).is_file()]
    if absent:
        raise MissingFileError(
            f"{tiles} lacks {', '.join(absent)} (build it: python -m training.data --help)"
        )
    rows = np.load(tiles / "rows.npy")
    learnt = np.flatnonzero(~held_blocks(rows, TEST_BLOCKS))
    chosen = learnt[np.linspace(0, len(learnt) - 1, min(count, len(learnt))).astype(int)]
    images = np.load(tiles / "images.npy", mmap_mode="r")
    start = (TILE - VIEW_PX) // 2
    middle = slice(start, start + VIEW_PX)
    gsd = np.array(
        [
            Window(zoom, col, row, TILE, TILE).gsd_m
            for zoom, col, row in rows[chosen, :3].astype(int).tolist()
        ],
        np.float32,
    )
    return encoder.image(np.stack([images[row, middle, middle] for row in chosen]), gsd)


class HeardPieces(Dataset[dict[str, Tensor]]):
    """Those, as what the denoiser learns from; asked for by ``(index, draw)``."""

    def __init__(self, heard: Heard, undated: Undated = "unknown") -> None:
        self.heard, self.undated = heard, undated

    def __len__(self) -> int:
        return len(self.heard.mels)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        rng, heard = np.random.default_rng([draw, index]), self.heard
        mel = torch.from_numpy(heard.mels[index]).float() + LOUDER * rng.uniform(-1, 1)
        hour = heard_at(float(heard.hours[index]), self.undated, rng)
        return {
            "mel": mel,
            "embedding": heard.embeddings[index],
            "month": torch.tensor(heard.months[index]),
            "hour": torch.tensor(hour),
        }
