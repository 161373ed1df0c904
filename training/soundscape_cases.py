"""The sounds that are measured: held-out recordings, and all that is made in their stead.

Every set has a row for each held-out recording and is of one length: the recordings themselves,
the same through codec and vocoder, what the model makes of their embeddings and of sentences, what
the learning side has that is nearest, and noise.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from generation.console import Progress
from generation.encoders.heads import Embedding, likeness
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_space import AUDIO, TEXT
from generation.errors import ConfigError
from generation.media.audio import Recording, fitted, log_mel, mel_signal
from generation.pipelines.soundscape import SoundscapePipeline
from training.sound_pairs import HEARD, SAID
from training.sound_tagger import MEL, STEPS
from training.soundscape_data import Wave
from training.soundscape_metrics import Groups, Labels, Sounds

MADE = ("from_recording", "from_caption")
"""What the model is asked with."""
COPY = "_copy"
"""Ends the name of the set of recordings that are nearest to what is asked with."""
BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a measurement of sounds is told."""

    clips: str
    """Pattern of Parquet files of labelled clips."""
    day: str
    """Pattern of those of one microphone's day."""
    model: str
    """A name of the registry, or a folder of weights."""
    limit: int | None = None
    """Held-out recordings of a kind at most; all if absent."""
    seconds: float = 5.0
    """Length of every sound: that of the labelled clips."""
    steps: int = 10
    guidance: float = 2.0
    seed: int = 0
    """Chooses noise, the tagger's weights and intervals."""
    tagger_steps: int = STEPS
    hour_seeds: int = 16
    """Sounds at each hour."""
    loop_seeds: int = 6
    """Loops of each kind."""
    tiles: Path | None = None
    """A folder of :mod:`training.data`, to ask with images as well."""
    pairs: Path | None = None
    """A folder of :mod:`training.sound_pairs` on these tiles."""
    sheet: Path | None = None

    def __post_init__(self) -> None:
        least = {"limit": 4, "steps": 1, "seed": 0, "tagger_steps": 1}
        least |= {"hour_seeds": 2, "loop_seeds": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name}={value} is too few (give {low} or more)")
        if not 0.5 <= self.seconds <= 60:
            raise ConfigError(f"seconds={self.seconds} is not allowed (give 0.5 to 60)")
        if (self.tiles is None) != (self.pairs is None):
            raise ConfigError("tiles and pairs belong together (give both, or neither)")


class SoundscapeCases:
    """Held-out recordings, those that were learnt from, and a model that makes sounds."""

    def __init__(
        self,
        pipeline: SoundscapePipeline,
        encoder: SoundEncoder,
        learnt: Sequence[Wave],
        held: Sequence[Wave],
        settings: Settings,
    ) -> None:
        if pipeline.rate != MEL.rate:
            raise ConfigError(
                f"the model makes {pipeline.rate} samples a second, the tagger hears {MEL.rate} "
                "(give a model of that rate)"
            )
        self.pipeline, self.encoder, self.settings = pipeline, encoder, settings
        self.count = round(settings.seconds * pipeline.rate)
        self.kinds = [
            name
            for name in HEARD
            if all(any(wave.clip.label == name for wave in side) for side in (learnt, held))
        ]
        if len(self.kinds) < 2:
            raise ConfigError(
                f"recordings of {len(self.kinds)} kinds are on both sides (give files of two kinds "
                "or more)"
            )
        self.learnt = [wave for wave in learnt if wave.clip.label in self.kinds]
        self.held = self._chosen([wave for wave in held if wave.clip.label in self.kinds])
        self.labels, self.learnt_labels = self._labels(self.held), self._labels(self.learnt)
        self.groups = self._groups()
        self.seeds = [settings.seed + row for row in range(len(self.held))]
        self.said = self._said()

    def _labels(self, waves: Sequence[Wave]) -> Labels:
        return np.array([self.kinds.index(wave.clip.label) for wave in waves])

    def _chosen(self, held: Sequence[Wave]) -> list[Wave]:
        """Take some of each kind, evenly spread."""
        by_kind = defaultdict(list)
        for wave in held:
            by_kind[wave.clip.label].append(wave)
        chosen = []
        for name in self.kinds:
            every = by_kind[name]
            most = min(self.settings.limit or len(every), len(every))
            at = np.linspace(0, len(every) - 1, most).round().astype(int)
            chosen += [every[row] for row in at.tolist()]
        if len(chosen) < 4:
            raise ConfigError(
                f"{len(chosen)} held-out recordings are too few to compare (give 4 or more)"
            )
        return chosen

    def _groups(self) -> Groups:
        """Number the uploads: clips that were cut from one are no independent witnesses."""
        names = [(w.clip.label, w.clip.url or w.clip.title) for w in self.held]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return np.array([numbers[name] for name in names])

    def _said(self) -> list[str]:
        """Give each recording a sentence of its kind, in turns."""
        turn: dict[str, int] = defaultdict(int)
        said = []
        for wave in self.held:
            texts = SAID[wave.clip.label]
            said.append(texts[turn[wave.clip.label] % len(texts)])
            turn[wave.clip.label] += 1
        return said

    def cut(self, waves: Sequence[Wave]) -> Sounds:
        """Take the beginning of each recording; a shorter one is repeated."""
        return np.stack([fitted(wave.samples, self.count) for wave in waves]).astype(np.float32)

    def pieces(self) -> Sounds:
        """Cut all that was learnt from into pieces that overlap by half."""
        parts = []
        for wave in self.learnt:
            last = max(len(wave.samples) - self.count, 0)
            parts += [
                fitted(wave.samples, self.count, start)
                for start in range(0, last + 1, max(self.count // 2, 1))
            ]
        return np.stack(parts).astype(np.float32)

    def matched(self) -> Int[np.ndarray, " n"]:
        """Choose as many of what was learnt from as are held out of each kind, evenly spread."""
        rows = []
        for kind in range(len(self.kinds)):
            every = np.flatnonzero(self.learnt_labels == kind)
            wanted = int((self.labels == kind).sum())
            rows.append(every[np.linspace(0, len(every) - 1, wanted).round().astype(int)])
        return np.concatenate(rows)

    def embed(self, sounds: Sounds) -> Embedding:
        """Listen with the shared space."""
        rate = self.pipeline.rate
        return self.encoder.audio([Recording(sound, rate) for sound in sounds])

    def ask(
        self,
        asked: Embedding,
        kind: str,
        seeds: Sequence[int],
        *,
        loop: bool = False,
        month: int | None = None,
        hour: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Sounds:
        """Make one sound for each embedding."""
        parts, settings = [], self.settings
        for start in range(0, len(asked), BATCH):
            part = slice(start, start + BATCH)
            made = self.pipeline(
                asked[part],
                kind,
                seconds=settings.seconds,
                seeds=list(seeds[part]),
                loop=loop,
                month=month,
                hour=hour,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
            )
            parts.append(made.clip(-1, 1))
            if progress is not None:
                progress(min(start + BATCH, len(asked)), len(asked))
        return np.concatenate(parts)

    @torch.no_grad()
    def vocoded(self, sounds: Sounds) -> Sounds:
        """Send sounds through codec and vocoder: the best that the model could do."""
        pipeline, parts = self.pipeline, []
        mel, patch = pipeline.vocoder.mel, pipeline.codec.patch
        columns = -(-mel.frames(self.count) // patch) * patch
        for start in range(0, len(sounds), BATCH):
            wide = [fitted(s, (columns - 1) * mel.hop) for s in sounds[start : start + BATCH]]
            seen = log_mel(torch.from_numpy(np.stack(wide)), mel, pipeline.vocoder.filters)
            latents = pipeline.codec.encode(mel_signal(seen)[:, None])
            seeds = [self.settings.seed + start + row for row in range(len(wide))]
            parts.append(pipeline.sounds(latents, seeds)[:, : self.count].clip(-1, 1))
        return np.concatenate(parts)

    def noise(self, sounds: Sounds) -> Sounds:
        """Make white noise as loud as each sound."""
        level = np.sqrt(np.square(sounds, dtype=np.float64).mean(1, keepdims=True))
        rng = np.random.default_rng(self.settings.seed)
        return (level * rng.normal(size=sounds.shape)).clip(-1, 1).astype(np.float32)

    def sets(self) -> dict[str, Sounds]:
        """Make every set, by name; those of :data:`MADE` come from the model."""
        real, learnt = self.cut(self.held), self.cut(self.learnt)
        asked = {"from_recording": (self.embed(real), AUDIO)}
        asked["from_caption"] = (self.encoder.text(self.said), TEXT)
        at_hand = self.embed(learnt)
        found = {
            "real": real,
            "vocoded": self.vocoded(real),
            "learnt": learnt[self.matched()],
            "noise": self.noise(real),
        }
        for name, (embedding, kind) in asked.items():
            bar = Progress(f"sounds {name.replace('_', ' ')}", every_s=30.0)
            found[name] = self.ask(embedding, kind, self.seeds, progress=bar)
            nearest = likeness(embedding, at_hand).argmax(1).numpy()
            found[f"{name}{COPY}"] = learnt[nearest]
        return found
