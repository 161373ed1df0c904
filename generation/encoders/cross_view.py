"""A folder of BirdSAT: views from the ground and satellite images, compared and matched.

``embed/`` holds CVE-MAE, which finds; ``match/`` holds CVM-MAE, which decides. Either may be
missing: what needs it then says so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from generation.checkpoint import load_part, model_sha256
from generation.encoders.birdsat import CveMae, CvmMae, KnownBesides, as_view
from generation.encoders.masked_vit import MaskedVit
from generation.errors import InvalidSpecError, MissingFileError, WeightsError
from generation.registry import find, list_models, locate

EMBED, MATCH = "embed", "match"
FIRST = 50
"""How many are found by their vectors before those are put in order by matching, as published."""
_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Above:
    """Satellite images, with what is known of each."""

    images: UInt8[np.ndarray, "n height width 3"]
    latlon: Float[np.ndarray, "n 2"] | None = None
    """Degrees, latitude first; NaN is unknown."""
    date: Float[np.ndarray, "n 2"] | None = None
    """Month, 1 to 12, and day of the month, 1 to 31; NaN is unknown."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Int[np.ndarray, " k"]) -> "Above":
        """Take some of them."""
        latlon, date = (None if e is None else e[rows] for e in (self.latlon, self.date))
        return Above(self.images[rows], latlon, date)

    @property
    def known(self) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
        """Places and dates.

        Raises:
            InvalidSpecError: One lies outside of the globe or of the year.
        """
        return (
            _within("latlon", self.latlon, len(self), ((-90, 90), (-180, 180)), "latitude first"),
            _within("date", self.date, len(self), ((1, 12), (1, 31)), "month, then day"),
        )


def _within(
    name: str,
    values: np.ndarray | None,
    count: int,
    limits: Sequence[tuple[int, int]],
    order: str,
) -> Float[Tensor, "n 2"]:
    if values is None:
        return torch.full((count, 2), torch.nan)
    low, high = np.array(limits, np.float32).T
    outside = np.flatnonzero(((values < low) | (values > high)).any(1))
    if len(outside):
        told = ", ".join(f"{a} to {b}" for a, b in limits)
        raise InvalidSpecError(
            f"{name} {tuple(values[outside[0]].tolist())} of image {outside[0]} is outside of "
            f"{told} ({order}; NaN where it is unknown)"
        )
    return torch.from_numpy(np.asarray(values, np.float32))


class CrossViewEncoder:
    """BirdSAT on pixels: vectors of either view, how well pairs match, and what is found."""

    def __init__(self, embed: CveMae | None, match: CvmMae | None, folder: Path) -> None:
        """Keep the parts.

        Args:
            embed: What embeds, if it is there.
            match: What matches, if it is there.
            folder: Where they are from.

        Raises:
            MissingFileError: Neither is there.
        """
        if embed is None and match is None:
            raise MissingFileError(
                f"{folder} holds neither {EMBED}/ nor {MATCH}/ (train or convert a model)"
            )
        self.folder, self.sha256 = folder, model_sha256(folder)
        self._embed = None if embed is None else embed.eval()
        self._match = None if match is None else match.eval()

    @property
    def matches(self) -> bool:
        """Whether there is a model that matches."""
        return self._match is not None

    @property
    def reads(self) -> tuple[str, ...]:
        """Which of place and date are read of a satellite image."""
        part = self._match if self._embed is None else self._embed
        metadata: KnownBesides | None = None if part is None else part.metadata
        return () if metadata is None else tuple(metadata.layers)

    def _embedding(self) -> CveMae:
        if self._embed is None:
            raise MissingFileError(f"{self.folder} has no {EMBED}/ (convert CVE-MAE too)")
        return self._embed

    @torch.no_grad()
    def ground(self, images: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n dim"]:
        """Give unit vectors of views from the ground.

        Args:
            images: RGB of any size; all of an image is brought to what the model reads. For the
                embedded model: panoramas, north in the middle.

        Raises:
            MissingFileError: There is no model that embeds.
        """
        net = self._embedding()
        none = torch.empty(0, int(net.ground_tower.config["dim"]))
        parts = (net.embed_ground(part).cpu() for part in _views(net.ground_tower, 0, images))
        return torch.cat([none, *parts])

    @torch.no_grad()
    def satellite(self, above: Above) -> Float[Tensor, "n dim"]:
        """Give unit vectors of satellite images with what is known of them.

        Raises:
            MissingFileError: There is no model that embeds.
            InvalidSpecError: A place or a date is none.
        """
        net = self._embedding()
        tower = net.satellite_tower
        none = torch.empty(0, int(tower.config["dim"]))
        parts = zip(_views(tower, 0, above.images), *_known(tower, above), strict=True)
        return torch.cat([none, *(net.embed_satellite(*part).cpu() for part in parts)])

    @torch.no_grad()
    def match(
        self, ground: UInt8[np.ndarray, "n height width 3"], above: Above
    ) -> Float[Tensor, " n"]:
        """Give the probability that each view belongs to the satellite image of its row.

        It is one among equals: the model learnt from as many true pairs as false ones.

        Raises:
            MissingFileError: There is no model that matches.
            InvalidSpecError: There are not as many of the one as of the other; a place or a date is
                none.
        """
        if self._match is None:
            raise MissingFileError(f"{self.folder} has no {MATCH}/ (convert CVM-MAE too)")
        if len(ground) != len(above):
            raise InvalidSpecError(
                f"{len(ground)} views and {len(above)} satellite images are no pairs (give one of "
                "each for every row)"
            )
        tower, net = self._match.joint_tower, self._match
        views = _views(tower, 0, ground), _views(tower, 1, above.images)
        parts = zip(*views, *_known(tower, above), strict=True)
        return torch.cat([torch.empty(0), *(net(*part).cpu() for part in parts)]).sigmoid()

    def found(
        self,
        above: Above,
        ground: UInt8[np.ndarray, "gallery height width 3"],
        *,
        first: int = 0,
        on_query: Callable[[int, int], None] = lambda done, of: None,
    ) -> Int[Tensor, "n gallery"]:
        """Rank views for each satellite image, and on demand match the first of them again.

        Args:
            above: What is asked for.
            ground: What is looked through.
            first: How many are matched and put in order by that; :data:`FIRST` as published. The
                embedded model's vectors give the better order (its card has both).
            on_query: Told after each image how many are done, and of how many.

        Raises:
            MissingFileError: There is no model that embeds.
            InvalidSpecError: A place or a date is none; ``first`` is negative.

        Source:
            BirdSAT, §4.3: hierarchical retrieval.
        """
        cosines = self.satellite(above) @ self.ground(ground).T
        if first < 0:
            raise InvalidSpecError(f"first={first} (give 0 or more)")
        if not (self.matches and first):
            return cosines.argsort(dim=1, descending=True, stable=True)

        def fits(query: int, rows: Int[Tensor, " k"]) -> Float[Tensor, " k"]:
            same = np.full(len(rows), query)
            on_query(query + 1, len(above))
            return self.match(ground[rows.numpy()], above[same])

        return ranked_again(cosines, fits, first)


def ranked_again(
    scores: Float[Tensor, "queries gallery"],
    fits: Callable[[int, Int[Tensor, " k"]], Float[Tensor, " k"]],
    first: int = FIRST,
) -> Int[Tensor, "queries gallery"]:
    """Rank a gallery by scores, and the first of it again by something better and slower.

    Args:
        scores: Higher is better.
        fits: Given a query and rows of the gallery, how well each fits.
        first: How many of a query's rows are ranked again.

    Raises:
        InvalidSpecError: ``first`` is negative.
    """
    if first < 0:
        raise InvalidSpecError(f"first={first} (give 0 or more)")
    order = scores.argsort(dim=1, descending=True, stable=True)
    for query, rows in enumerate(order if first > 1 else ()):
        head = rows[:first]
        rows[:first] = head[fits(query, head).argsort(descending=True, stable=True)]
    return order


def _views(
    tower: MaskedVit, view: int, images: UInt8[np.ndarray, "n height width 3"]
) -> Iterator[Tensor]:
    """Give some images at a time as a tower reads them, where it is."""
    height, width, _ = tower.sizes[view]
    device = tower.cls_token.device
    for start in range(0, len(images), _AT_ONCE):
        part = torch.from_numpy(images[start : start + _AT_ONCE])
        yield as_view(part.to(device), (height, width))


def _known(tower: MaskedVit, above: Above) -> list[tuple[Tensor, ...]]:
    """Give places and dates, as many at a time."""
    if not len(above):
        return [(), ()]
    return [each.to(tower.cls_token.device).split(_AT_ONCE) for each in above.known]


def open_cross_view(folder: Path) -> CrossViewEncoder:
    """Open a folder of BirdSAT.

    Raises:
        MissingFileError: It holds no model.
        WeightsError: A model is damaged.
    """
    found = {
        kind: load_part(kind, folder / name) if (folder / name).is_dir() else None
        for name, kind in ((EMBED, CveMae), (MATCH, CvmMae))
    }
    if torch.cuda.is_available():
        found = {kind: None if part is None else part.to("cuda") for kind, part in found.items()}
    encoder = CrossViewEncoder(found[CveMae], found[CvmMae], folder)
    both = [part.metadata for part in found.values() if part is not None]
    if len({tuple(part.layers) for part in both}) > 1:
        raise WeightsError(
            f"{folder}: {EMBED}/ and {MATCH}/ do not read the same metadata (take both of one kind)"
        )
    return encoder


def load_cross_view(name: str = "birdsat-nano") -> CrossViewEncoder:
    """Give a registered model of BirdSAT, or a folder of one, loaded once.

    Raises:
        InvalidSpecError: It is neither a folder nor the name of such a model.
        MissingFileError: Its weights are not on this machine.
        WeightsError: They are damaged.
    """
    folder = Path(name)
    if not folder.is_dir():
        card = find(name)
        if card.kind != "cross-view":
            raise InvalidSpecError(
                f"model={name!r} is of kind {card.kind!r} and compares no views (give one of "
                f"{', '.join(list_models('cross-view'))})"
            )
        folder = locate(card.name)
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    stamp = tuple((str(file), file.stat().st_mtime) for file in files)
    return _loaded(folder, stamp)


@lru_cache(maxsize=2)
def _loaded(folder: Path, stamp: tuple[tuple[str, float], ...]) -> CrossViewEncoder:
    """Open a folder; ``stamp`` tells whether its files are still the same."""
    return open_cross_view(folder)
