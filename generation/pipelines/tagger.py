"""A second opinion on what was made: an Audio Spectrogram Transformer that knows 527 sounds.

It has no part in making sounds, so what it hears checks them. It is used where a person has put its
weights below TERRASCAPE_HOME, and never fetched by itself.

Source:
    Gong et al., "AST: audio spectrogram transformer" (Interspeech 2021), as fine-tuned on AudioSet.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generation.checkpoint import model_sha256
from generation.errors import WeightsError
from generation.media.audio import Recording, fitted, resampled
from generation.pipelines.published_parts import load_transformer
from generation.registry import is_here, locate

TAGGER = "ast-audioset"
MOST = 5
"""Labels that are told of a sound."""
_WINDOWS = 6
"""Stretches of a long sound that are listened to, spread evenly over it."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A label and how sure the tagger is of it, 0 to 1; several may be heard at once."""

    label: str
    score: float


@dataclass(frozen=True)
class Tagger:
    """The model, and how its spectrograms are taken."""

    extractor: Any
    model: Any
    sha256: str

    @torch.no_grad()
    def __call__(self, sound: Recording) -> list[Tag]:
        """Say what is heard, the surest first.

        Of what lasts longer than the model listens, windows are heard one by one and their scores
        averaged; a shorter sound is heard once, with silence after it.

        Args:
            sound: One channel.
        """
        rate = int(self.extractor.sampling_rate)
        samples = resampled(sound, rate).samples
        window = round(
            self.extractor.max_length / 100 * rate
        )  # a column each hundredth of a second
        count = min(_WINDOWS, -(-len(samples) // window))
        starts = np.linspace(0, max(len(samples) - window, 0), count).astype(int)
        length = min(window, len(samples))
        parts = [fitted(samples, length, int(start)) for start in starts]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # narrow filters at low pitches
            given = self.extractor(parts, sampling_rate=rate, return_tensors="pt")
        heard = given["input_values"].to(self.model.device, self.model.dtype)
        scores = self.model(heard).logits.float().sigmoid().mean(0).cpu()
        best = scores.argsort(descending=True)[:MOST].tolist()
        names = self.model.config.id2label
        return [Tag(str(names[row]), round(float(scores[row]), 4)) for row in best]


def tagger_here() -> Tagger | None:
    """Give the tagger, if its weights are on this machine; loaded once while they stay the same.

    Raises:
        WeightsError: They are damaged.
        MissingFileError: A part of them is absent.
    """
    if not is_here(TAGGER):
        return None
    folder = locate(TAGGER)
    return _loaded(folder, tuple(f.stat().st_mtime for f in sorted(folder.glob("*.safetensors"))))


def told(name: str, tags: Sequence[Tag]) -> str:
    """Put into a sentence what is heard."""
    listed = ", ".join(f"{tag.label} {tag.score:.2f}" for tag in tags[:3])
    return f"{name}, which had no part in it, hears: {listed}"


@lru_cache(maxsize=1)
def _loaded(folder: Path, stamp: tuple[float, ...]) -> Tagger:
    from transformers import ASTFeatureExtractor, ASTForAudioClassification

    model = load_transformer(ASTForAudioClassification, folder)
    try:
        extractor = ASTFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{folder} does not say how its spectrograms are taken: "
            f"{' '.join(str(error).split())[:120]} (download its preprocessor_config.json)"
        ) from error
    if extractor.max_length != model.config.max_length:
        raise WeightsError(
            f"{folder}: spectrograms of {extractor.max_length} columns for a model of "
            f"{model.config.max_length} (download the folder again)"
        )
    gpu = torch.cuda.is_available()
    return Tagger(extractor, model.to("cuda" if gpu else "cpu"), model_sha256(folder))
