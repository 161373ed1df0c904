"""What makes single sounds: one interface for the embedded model and for the published ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from generation.media.audio import Recording

OnStep = Callable[[int, int], None]
"""Told ``(step, steps)``."""
Cancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundAsk:
    """One sound that is wanted: in words, or like a recording."""

    seed: int
    """Chooses the noise; equal seeds start from equal noise."""
    text: str = ""
    recording: Recording | None = None


@runtime_checkable
class SoundMaker(Protocol):
    """Makes sounds, a batch at a time."""

    sha256: str
    """Of the weights."""

    @property
    def rate(self) -> int:
        """Samples a second."""

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""

    def unread(self, asks: Sequence[SoundAsk], month: int | None, hour: float | None) -> list[str]:
        """Say what is asked for and not heeded, a sentence each; for the notes of a render."""

    def make(  # noqa: PLR0913 - all that a sound may be asked for with
        self,
        asks: Sequence[SoundAsk],
        *,
        seconds: float,
        loop: bool = False,
        month: int | None = None,
        hour: float | None = None,
        steps: int = 10,
        guidance: float = 2.0,
        on_step: OnStep | None = None,
        cancelled: Cancelled | None = None,
    ) -> Float[np.ndarray, "batch samples"]:
        """Make one sound for each ask.

        Args:
            asks: What is wanted; one at least.
            seconds: How long; rounded to a sample, and exactly so many come.
            loop: Whether the end goes over into the beginning.
            month: 1 to 12, if known.
            hour: Local time, 0 to below 24, if known.
            steps: Of the sampler.
            guidance: How far what is asked for is exaggerated; 1 is as trained.
            on_step: Told of each step.
            cancelled: Asked before each step.

        Returns:
            float32 in [-1, 1] at :attr:`rate`.

        Raises:
            InvalidSpecError: Something is asked for that this model cannot do.
            CancelledError: ``cancelled`` said so.
        """


def sound_maker(name: str, *, online: bool = False) -> Any:  # noqa: ANN401 - a SoundMaker of the card's family
    """Give a registered model of soundscapes of any family.

    Args:
        name: A registered name.
        online: Whether weights may be fetched from the Hub.

    Raises:
        InvalidSpecError: It makes something else.
        MissingFileError: Its weights are not on this machine.
    """
    from generation.errors import InvalidSpecError
    from generation.registry import find, list_models

    card = find(name)
    if card.kind != "soundscape":
        raise InvalidSpecError(
            f"model={name!r} is of kind {card.kind!r} and makes no sounds (models that do: "
            f"{', '.join(list_models('soundscape'))})"
        )
    if card.family != "nano":
        from generation.pipelines.published_sounds import load_published

        return load_published(card.name, online=online)
    from generation.pipelines.soundscape import load_soundscape

    return load_soundscape(name)
