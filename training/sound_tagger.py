"""A judge of sounds that has no part in making them: a small network that names their kind.

It learns inside a measurement, from the recordings of the learning side alone, in a minute or two.
Its spectrograms have shorter windows and fewer bands than those of the shared space, the codec and
the vocoder, and loudness is taken out, so that it judges neither by level nor by how deep a silence
is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from generation.console import Progress
from generation.errors import ConfigError
from generation.media.audio import Mel, fitted, log_mel

MEL = Mel(rate=16_000, n_fft=512, hop=320, bands=48, low_hz=60.0, high_hz=7_600.0)
DEPTH = 8.0
"""From the loudest down to so much less, in natural logarithms (69 dB), it listens."""
FEATURES = 64
STEPS, BATCH = 400, 32
_PEAK_LR, _DECAY, _SMOOTHING = 4e-3, 0.02, 0.1
_MASKS = (2, 10, 40)
"""Stripes that are hidden while learning, each way; bands and frames at most."""
_AT_ONCE = 64


def heard(samples: Float[np.ndarray, "batch n"]) -> Float[Tensor, "batch bands frames"]:
    """Take spectrograms at ``MEL.rate``: 0 is the loudest of each sound, -1 is ``DEPTH`` below."""
    seen = log_mel(torch.from_numpy(samples), MEL, MEL.filters())
    return (seen - seen.amax((1, 2), keepdim=True)).clamp_min(-DEPTH) / DEPTH


class Tagger(nn.Module):
    """Convolutions over a spectrogram, then means and peaks over time."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        widths = (16, 32, 48, FEATURES)
        layers = [nn.Conv2d(1, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        for before, width in pairwise(widths):
            layers += [
                nn.Conv2d(before, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.maps = nn.Sequential(*layers)
        self.narrow = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * FEATURES, FEATURES), nn.ReLU())
        self.leave = nn.Linear(FEATURES, kinds)

    def features(
        self, seen: Float[Tensor, "batch bands frames"]
    ) -> Float[Tensor, "batch features"]:
        """Give what the last layer reads."""
        maps = self.maps(seen[:, None]).mean(2)  # (batch, width, frames)
        features: Tensor = self.narrow(torch.cat([maps.mean(2), maps.amax(2)], 1))
        return features

    def forward(self, seen: Float[Tensor, "batch bands frames"]) -> Float[Tensor, "batch kinds"]:
        """Score each kind."""
        scores: Tensor = self.leave(self.features(seen))
        return scores


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the tagger says of some sounds."""

    features: Float[np.ndarray, "n features"]
    said: Int[np.ndarray, " n"]
    """The kind that each is most like."""
    shares: Float[np.ndarray, "n kinds"]
    """How sure it is of each kind; a row adds up to 1."""


@torch.no_grad()
def ask(tagger: Tagger, samples: Float[np.ndarray, "n samples"]) -> Opinion:
    """Ask a tagger about sounds at ``MEL.rate``."""
    tagger.eval()
    features = torch.cat(
        [
            tagger.features(heard(samples[start : start + _AT_ONCE]))
            for start in range(0, len(samples), _AT_ONCE)
        ]
    )
    scores = tagger.leave(features)
    return Opinion(features.numpy(), scores.argmax(1).numpy(), scores.softmax(1).numpy())


def train_tagger(
    recordings: Sequence[Float[np.ndarray, " _n"]],
    labels: Int[np.ndarray, " n"],
    count: int,
    *,
    seed: int = 0,
    steps: int = STEPS,
) -> Tagger:
    """Teach a tagger; one seed gives one tagger.

    Kinds come equally often, however many recordings each has. A piece of a recording starts
    anywhere, has another level and hidden stripes, and is mixed with another piece.

    Args:
        recordings: To learn from, at ``MEL.rate``.
        labels: The kind of each, from zero on.
        count: Samples of a piece.
        seed: Decides weights, order and pieces.
        steps: Batches.

    Raises:
        ConfigError: There are less than two kinds, or one has no recording.

    Source:
        Park et al., "SpecAugment" (2019), for the stripes; Zhang et al., "mixup" (ICLR 2018), § 2,
        for the mixture.
    """
    kinds = int(labels.max()) + 1 if len(labels) else 0
    if kinds < 2 or set(labels.tolist()) != set(range(kinds)):
        raise ConfigError(
            f"a tagger cannot learn {kinds} kinds of which some have no recording (give recordings "
            "of two kinds or more, numbered from zero)"
        )
    whole = [_wrapped(samples, count) for samples in recordings]
    rows = [np.flatnonzero(labels == kind) for kind in range(kinds)]
    rng, progress = np.random.default_rng(seed), Progress("tagger", every_s=30.0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tagger = Tagger(kinds).train()
        optimizer = torch.optim.AdamW(tagger.parameters(), lr=_PEAK_LR, weight_decay=_DECAY)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LR, total_steps=steps)
        for step in range(steps):
            named = rng.integers(kinds, size=BATCH)
            chosen = [whole[int(rng.choice(rows[kind]))] for kind in named]
            seen = torch.stack([_piece(each, MEL.frames(count), rng) for each in chosen])
            share = float(rng.beta(0.3, 0.3))
            mixed = share * seen + (1 - share) * seen.flip(0)
            scores, told = tagger(mixed), torch.from_numpy(named)
            own, other = (
                F.cross_entropy(scores, kind, label_smoothing=_SMOOTHING)
                for kind in (told, told.flip(0))
            )
            optimizer.zero_grad()
            (share * own + (1 - share) * other).backward()
            optimizer.step()
            rates.step()
            progress(step + 1, steps)
    return tagger.eval()


def _wrapped(samples: Float[np.ndarray, " _n"], count: int) -> Float[Tensor, "bands frames"]:
    """Take the spectrogram of a whole recording, repeated to the length of a piece or more."""
    return heard(fitted(samples, max(count, len(samples)))[None].astype(np.float32))[0]


def _piece(
    whole: Float[Tensor, "bands all"], frames: int, rng: np.random.Generator
) -> Float[Tensor, "bands frames"]:
    """Cut a piece from anywhere, with the loudest at 0 again, and hide stripes of it."""
    piece = whole.roll(-int(rng.integers(whole.shape[1])), 1)[:, :frames].clone()
    piece -= piece.max()
    stripes, *most = _MASKS
    for axis, widest in enumerate(most):
        for _ in range(stripes):
            width = int(rng.integers(min(widest, piece.shape[axis] // 3) + 1))
            start = int(rng.integers(piece.shape[axis] - width + 1))
            piece.narrow(axis, start, width).fill_(float(piece.mean()))
    return piece.clamp_min(-1)
