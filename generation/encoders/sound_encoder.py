"""A shared space with all that turns what people have into what its towers take.

``SoundSpace`` takes tensors; here are tiles as pixels, recordings and sentences. Which reader goes
with which tower is written in the configuration of the space.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from generation.checkpoint import load_part, model_sha256
from generation.encoders.heads import Embedding, masked_mean, unit
from generation.encoders.metadata import (
    HOUR,
    KNOWN_PARTS,
    MONTH,
    Metadata,
    checked_hour,
    checked_month,
)
from generation.encoders.sound_readers import Pixels, TextReader, audio_reader, text_reader
from generation.encoders.sound_space import AUDIO, IMAGE, TEXT, SoundSpace
from generation.errors import InvalidSpecError
from generation.geo.location import Location
from generation.media.audio import Mel, Recording
from generation.media.geotiff import PlacedImage
from generation.registry import find, list_models, locate


class SoundEncoder:
    """Places, sounds and sentences to embeddings of one space."""

    def __init__(
        self, space: SoundSpace, *, name: str = "", sha256: str = "", folder: Path | None = None
    ) -> None:
        self.space, self.name, self.sha256 = space.eval(), name, sha256
        self.folder = folder
        tower: Any = space.image
        self.pixels = Pixels(tower.config["image_px"], **space.settings[IMAGE]["pixels"])
        self.listen = audio_reader(space.settings[AUDIO], space.audio)
        self._read: TextReader | None = None

    @classmethod
    def from_pretrained(cls, folder: Path, name: str = "") -> "SoundEncoder":
        """Load a space from its folder, every tensor checked.

        Raises:
            MissingFileError: The folder lacks its configuration or its weights.
            WeightsError: A file is damaged, or they do not fit each other.
        """
        space = load_part(SoundSpace, folder)
        sha256 = model_sha256(folder)
        return cls(space, name=name or folder.name, sha256=sha256, folder=folder)

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return next(self.space.parameters()).device

    @property
    def mel(self) -> Mel:
        """How spectrograms are taken."""
        return self.listen.mel

    @property
    def vocabularies(self) -> tuple[str, ...]:
        """The names of what else can be told of a place."""
        return tuple(self.space.metadata_encoder.vocabularies) if self.takes_metadata else ()

    @property
    def takes_metadata(self) -> bool:
        """Whether place, month and hour change how an image is embedded."""
        return bool(self.space.config["joined"] != "none")

    @property
    def reads(self) -> tuple[str, ...]:
        """Which of place, month and hour it was trained to read."""
        if not self.takes_metadata:
            return ()
        return tuple(part for part in self.space.metadata_encoder.parts if part in KNOWN_PARTS)

    def unread(self, month: int | None, hour: float | None) -> list[str]:
        """Name what is told of the time and changes nothing, as it was never learnt.

        :func:`unread_notes` puts it into sentences.
        """
        told = {MONTH: month, HOUR: hour}
        return [
            part for part, value in told.items() if value is not None and part not in self.reads
        ]

    def check_time(self, month: int | None, hour: float | None) -> None:
        """Refuse what is no month or hour, and either where a space takes none at all.

        Raises:
            InvalidSpecError: See there.
        """
        if month is not None:
            checked_month(month)
        if hour is not None:
            checked_hour(hour)
        unread = self.unread(month, hour)
        if unread and not self.takes_metadata:
            takes = [name for name in list_models("sound-space") if "hour" in find(name).summary]
            raise InvalidSpecError(
                f"model {self.name!r} knows no {' and no '.join(unread)} (leave it out, or choose "
                f"a model that does: {', '.join(takes)})"
            )

    def known(
        self,
        places: Sequence[Location | None],
        month: int | None = None,
        hour: float | None = None,
    ) -> Metadata:
        """Gather what is known of some places, seen in one month and at one hour.

        Args:
            places: ``None`` where a place is not to be told.
            month: 1 to 12.
            hour: Local time, 0 to below 24.

        Raises:
            InvalidSpecError: There is no such month or hour.
        """
        known = Metadata.unknown(len(places), self.vocabularies)
        rows = [(nan, nan) if place is None else (place.lat, place.lon) for place in places]
        known.latlon[:] = torch.tensor(rows).reshape(-1, 2)
        if month is not None:
            known.month.fill_(checked_month(month))
        if hour is not None:
            known.hour.fill_(checked_hour(hour))
        return known

    @torch.no_grad()
    def text(self, sentences: Sequence[str]) -> Embedding:
        """Embed sentences.

        Raises:
            InvalidSpecError: There is none, or one is empty.
            MissingFileError: The tokenizer or the text encoder is not beside the weights.
        """
        if not sentences or not all(s.strip() for s in sentences):
            raise InvalidSpecError(
                "an empty sentence sounds like nothing (say what is to be heard)"
            )
        if self._read is None:
            self._read = text_reader(self.space.settings[TEXT], self.space.text, self.folder)
        return Embedding.cat(
            [
                self.space.embed_text(given.to(self.device), words.to(self.device))
                for given, words in self._read(sentences)
            ]
        )

    @torch.no_grad()
    def word_likeness(
        self, sentences: Sequence[str], others: Sequence[str]
    ) -> Float[Tensor, "sentences others"]:
        """Compare the words of sentences, as the text encoder reads them before any sound is heard.

        The shared space puts all words near some sound that it knows; this tells new ones.
        """
        if self._read is None:
            self._read = text_reader(self.space.settings[TEXT], self.space.text, self.folder)
        read = self._read
        one, two = (
            torch.cat([unit(masked_mean(*part)) for part in read(each)])
            for each in (sentences, others)
        )
        return one @ two.T

    @torch.no_grad()
    def audio(self, recordings: Sequence[Recording]) -> Embedding:
        """Embed recordings.

        Of a long one, the mean over parts that are spread evenly over it; CLAP's tower hears it as
        a whole.

        Raises:
            AudioError: A recording has no samples.
        """
        return Embedding.cat([self._recording(each) for each in recordings])

    def _recording(self, recording: Recording) -> Embedding:
        return mean_of(self.space.embed_audio(self.listen(recording).to(self.device)))

    @torch.no_grad()
    def tokens(
        self, images: UInt8[np.ndarray, "batch height width 3"], gsd_m: Float[np.ndarray, " batch"]
    ) -> Float[Tensor, "batch patches dim"]:
        """Run the image tower alone: what a place looks like, before place and time are told.

        Args:
            images: RGB, square.
            gsd_m: Metres on the ground that a pixel covers.

        Raises:
            InvalidSpecError: The images are not square.
        """
        height, width = images.shape[1:3]
        if height != width:
            raise InvalidSpecError(f"images of {width}x{height} px are not square (crop them)")
        scaled = self.pixels(images)
        metres = torch.from_numpy(np.asarray(gsd_m, np.float32)) * width / self.pixels.side
        tokens: Tensor = self.space.image(scaled.to(self.device), metres.to(self.device))
        return tokens

    @torch.no_grad()
    def headed(
        self, tokens: Float[Tensor, "batch patches dim"], known: Metadata | None = None
    ) -> Embedding:
        """Finish what :meth:`tokens` began; another hour or month costs no other look.

        ``known`` is passed over by a space that takes no metadata.
        """
        device = self.device
        told = known.to(device) if known is not None and self.takes_metadata else None
        return self.space.head_image(tokens.to(device), told)

    def image(
        self,
        images: UInt8[np.ndarray, "batch height width 3"],
        gsd_m: Float[np.ndarray, " batch"],
        known: Metadata | None = None,
    ) -> Embedding:
        """Embed satellite images; see :meth:`tokens` and :meth:`headed`."""
        return self.headed(self.tokens(images, gsd_m), known)

    def placed(
        self, image: PlacedImage, month: int | None = None, hour: float | None = None
    ) -> Embedding:
        """Embed the middle square of an image that knows where it lies.

        Its place, and what is given of the time, are told to a space that takes them.

        Raises:
            InvalidSpecError: There is no such month or hour.
        """
        side = min(image.rgb.shape[:2])
        top, left = ((n - side) // 2 for n in image.rgb.shape[:2])
        square = image.rgb[top : top + side, left : left + side]
        known = self.known([image.center], month, hour)
        return self.image(square[None], np.array([image.gsd_m], np.float32), known)


def unread_notes(name: str, unread: Sequence[str]) -> list[str]:
    """Say what was told and changed nothing, a sentence each."""
    return [f"the {part} changed nothing: {name} has not learnt it" for part in unread]


def mean_of(parts: Embedding) -> Embedding:
    """Give one embedding for several parts of one thing: mean vector, mean variance."""
    if len(parts) == 1:
        return parts
    vector = parts.vector.mean(0, keepdim=True)
    log_variance, weights = parts.log_variance, parts.weights
    return Embedding(
        vector if weights is not None else unit(vector),
        None if log_variance is None else log_variance.exp().mean(0, keepdim=True).log(),
        None if weights is None else weights.mean(0, keepdim=True),
    )


@lru_cache(maxsize=4)
def _encoder(folder: Path, stamp: tuple[float, ...], name: str) -> SoundEncoder:
    return SoundEncoder.from_pretrained(folder, name)


def load_sound_encoder(name: str) -> SoundEncoder:
    """Give a registered space, loaded once as long as its files do not change.

    Raises:
        InvalidSpecError: No model has this name, or it is no space of sounds.
        MissingFileError: Its weights are not on this machine.
    """
    card = find(name)
    if card.kind != "sound-space":
        raise InvalidSpecError(
            f"model={name!r} is of kind {card.kind!r} and hears nothing (give one of "
            f"{', '.join(list_models('sound-space'))})"
        )
    folder = locate(card.name)
    stamp = tuple(p.stat().st_mtime for p in sorted(folder.rglob("*.safetensors")))
    return _encoder(folder, stamp, card.name)
