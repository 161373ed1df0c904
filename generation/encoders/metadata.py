"""Where, when and by whom: what is known of a recording besides its sound, as tokens.

Whatever is not known is no token at all. While learning, each part is dropped sample by sample, so
that an embedding can be asked for without it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from generation.encoders.heads import Compat
from generation.errors import ConfigError, InvalidSpecError

PLACE, MONTH, HOUR = "place", "month", "hour"
KNOWN_PARTS = (PLACE, MONTH, HOUR)
_HIDDEN = 64


def checked_month(month: int) -> int:
    """Refuse what is no month.

    Raises:
        InvalidSpecError: It does not lie in 1 to 12.
    """
    if not 1 <= month <= 12:
        raise InvalidSpecError(f"month={month} is no month (give 1 for January to 12 for December)")
    return month


def checked_hour(hour: float) -> float:
    """Refuse what is no hour of a day.

    Raises:
        InvalidSpecError: It does not lie in 0 to below 24.
    """
    if not 0 <= hour < 24:
        raise InvalidSpecError(f"hour={hour} is no hour of the day (give 0 to 23.99, local time)")
    return hour


def parsed_date(text: str) -> date:
    """Read a date like 2024-05-31.

    Raises:
        InvalidSpecError: It is no day of the calendar.
    """
    try:
        return date.fromisoformat(text.strip())
    except ValueError as error:
        raise InvalidSpecError(
            f"date={text[:40]!r} is no day of the calendar: {error} (give one like 2024-05-31)"
        ) from None


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of a batch; NaN, or -1 in a vocabulary, is not known."""

    latlon: Float[Tensor, "batch 2"]
    """Degrees, latitude first."""
    month: Float[Tensor, " batch"]
    """1 to 12."""
    hour: Float[Tensor, " batch"]
    """Local time, 0 to below 24."""
    labels: Mapping[str, Int[Tensor, " batch"]]
    """Rows of the vocabularies."""

    @classmethod
    def unknown(cls, count: int, vocabularies: Sequence[str] = ()) -> "Metadata":
        """Give a batch of which nothing is known."""
        return cls(
            latlon=torch.full((count, 2), math.nan),
            month=torch.full((count,), math.nan),
            hour=torch.full((count,), math.nan),
            labels={name: torch.full((count,), -1, dtype=torch.long) for name in vocabularies},
        )

    def to(self, device: torch.device) -> "Metadata":
        """Move everything to a device."""
        labels = {name: rows.to(device) for name, rows in self.labels.items()}
        return Metadata(self.latlon.to(device), self.month.to(device), self.hour.to(device), labels)


def encode_place(
    latlon: Float[Tensor, "batch 2"], compat: Compat = "right"
) -> Float[Tensor, "batch features"]:
    """Give three coordinates on the unit sphere, which knows no seam and no pole.

    As published (``mvrl``), four numbers: sine and cosine of 180 degrees times latitude over 90 and
    of 180 degrees times longitude over 180, for which both poles are one place.
    """
    lat, lon = torch.deg2rad(latlon).unbind(-1)
    if compat == "mvrl":
        return torch.stack([(2 * lat).sin(), (2 * lat).cos(), lon.sin(), lon.cos()], -1)
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], -1)


def _circle(share: Float[Tensor, " batch"]) -> Float[Tensor, "batch 2"]:
    angle = 2 * math.pi * share
    return torch.stack([angle.sin(), angle.cos()], -1)


def encode_month(month: Float[Tensor, " batch"]) -> Float[Tensor, "batch 2"]:
    """Give the month as a point on the circle of the year."""
    return _circle(month / 12)


def encode_hour(
    hour: Float[Tensor, " batch"], compat: Compat = "right"
) -> Float[Tensor, "batch 2"]:
    """Give the hour as a point on the circle of the day.

    As published (``mvrl``), the circle has 23 hours, and midnight is eleven at night.
    """
    return _circle(hour / (23 if compat == "mvrl" else 24))


class MetadataEncoder(nn.Module):
    """One token for each part that is known.

    Source:
        Khanal et al. (PSM, ACM MM 2024): the parts, and two layers for each. ``compat="mvrl"`` is
        its code to the letter: its circles, and as many rows of a batch masked as the rate says,
        rows that were unknown among them, also while evaluating.
    """

    def __init__(
        self,
        dim: int,
        vocabularies: Mapping[str, Sequence[str]] | None = None,
        *,
        reads: Sequence[str] = KNOWN_PARTS,
        drop: float = 0.5,
        compat: Compat = "right",
    ) -> None:
        """Build untrained layers.

        Args:
            dim: Of the tokens.
            vocabularies: What else may be known, and its words.
            reads: Which of place, month and hour are read; the others are passed over.
            drop: Probability that a part of a sample is not told while learning.
            compat: ``mvrl`` for what the published code computes.

        Raises:
            ConfigError: ``reads`` names something else.
        """
        super().__init__()
        odd = [name for name in reads if name not in KNOWN_PARTS]
        if odd:
            raise ConfigError(f"reads={odd[0]!r} is not known of a recording (of {KNOWN_PARTS})")
        self.drop, self.compat = drop, compat
        self.vocabularies = {name: tuple(words) for name, words in (vocabularies or {}).items()}
        sizes = {PLACE: 4 if compat == "mvrl" else 3, MONTH: 2, HOUR: 2}
        self.circles = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(size, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, dim))
                for name, size in sizes.items()
                if name in reads
            }
        )
        self.words = nn.ModuleDict(
            {name: nn.Embedding(len(words), dim) for name, words in self.vocabularies.items()}
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the tokens, in their order."""
        return (*self.vocabularies, *self.circles)

    def row(self, vocabulary: str, word: str) -> int:
        """Find a word of a vocabulary.

        Raises:
            InvalidSpecError: It is not in it.
        """
        words = self.vocabularies[vocabulary]
        if word not in words:
            raise InvalidSpecError(
                f"{vocabulary}={word!r} was never learnt (one of {', '.join(words)}, or leave it "
                "out)"
            )
        return words.index(word)

    def forward(
        self, known: Metadata
    ) -> tuple[Float[Tensor, "batch parts dim"], Bool[Tensor, "batch parts"]]:
        """Return the tokens and which of them are there."""
        tokens, masks = [], []
        for name in self.vocabularies:
            labels = known.labels[name]
            tokens.append(self.words[name](labels.clamp_min(0)))
            masks.append(labels >= 0)
        circles = {
            PLACE: encode_place(known.latlon, self.compat),
            MONTH: encode_month(known.month),
            HOUR: encode_hour(known.hour, self.compat),
        }
        for name, layers in self.circles.items():
            features = circles[name]
            there = features.isfinite().all(1)
            tokens.append(layers(torch.nan_to_num(features)))
            masks.append(there)
        mask = torch.stack(masks, 1)
        return torch.stack(tokens, 1), self._dropped(mask)

    def _dropped(self, mask: Bool[Tensor, "batch parts"]) -> Bool[Tensor, "batch parts"]:
        if self.compat == "mvrl":
            return self._dropped_as_published(mask)
        if not self.training or not self.drop:
            return mask
        return mask & (torch.rand(mask.shape, device=mask.device) >= self.drop)

    def _dropped_as_published(
        self, mask: Bool[Tensor, "batch parts"]
    ) -> Bool[Tensor, "batch parts"]:
        columns = []
        for column in mask.unbind(1):
            there = column.nonzero()[:, 0]
            short = int(self.drop * len(column)) - (len(column) - len(there))
            chosen = there[torch.randperm(len(there), device=there.device)[: max(0, short)]]
            columns.append(column.index_fill(0, chosen, False))
        return torch.stack(columns, 1)
