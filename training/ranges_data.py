"""Ranges of mammals as samples: a taxonomic string, cut at some rank, and where it lives.

Species are split by name alone: a tenth of those with a relative in their genus is held out
(``unseen species``), and so are all species of some genera (``unseen genera``). In the same way
others are held out for validation, on which everything is chosen.
"""

import csv
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from generation.encoders.language_model import ReadsText
from generation.encoders.taxonomy import RANKS
from generation.errors import ConfigError, MissingFileError

_SEALS = ("Otariidae", "Phocidae", "Odobenidae")
_COLUMNS = ("Order.1.2", "Family.1.2", "Genus.1.2", "Species.1.2")
GENERA_HELD, SPECIES_HELD = 20, 10
"""One of so many genera, and of the species of the others, is held out; twice."""
CUT = (0.1, 0.1, 0.15)
"""Probabilities that a string ends at the order, the family, the genus."""
NEW = (0.3, 0.15)
"""Probabilities that a whole string has a species, or a genus too, that nobody has heard of: it
stands for any of its kin, which is what a new name says."""
LEAST_SHARE = 1e-4
"""Of the globe; smaller ranges count as if they were so large, as few drawn cells tell of them."""
LEARNT, UNSEEN_SPECIES, UNSEEN_GENUS, VALIDATION_SPECIES, VALIDATION_GENUS = range(5)
_SALT = {(UNSEEN_SPECIES, UNSEEN_GENUS): "", (VALIDATION_SPECIES, VALIDATION_GENUS): "validation "}
"""Before a name, so that the second draw is another than the first."""


@dataclass(frozen=True, slots=True)
class Cells:
    """An equal-area grid."""

    rows: int
    cols: int
    latlon: Float[np.ndarray, "cells 2"]
    """Of their middles."""


@dataclass(frozen=True)
class Ranges:
    """Species, their ranks and where they live."""

    taxa: list[tuple[str, ...]]
    """The names of the four ranks of each."""
    present: Bool[np.ndarray, "species cells"]
    cells: Cells
    side: Int[np.ndarray, " species"]
    """``LEARNT``, or for which purpose it is held out."""
    sea: Bool[np.ndarray, " species"]
    """Whether it needs the sea: it lives nowhere else, or is a seal of no fresh water."""

    @cached_property
    def names(self) -> list[str]:
        """The whole string of each."""
        return [" ".join(ranks) for ranks in self.taxa]

    def of(self, side: int) -> Int[np.ndarray, " n"]:
        """Rows of a side."""
        return np.flatnonzero(self.side == side)


def _held(name: str, one_of: int) -> bool:
    return zlib.crc32(name.encode()) % one_of == 0


def read_ranges(ranges: Path, traits: Path) -> Ranges:
    """Read PHYLACINE as it is packed: bits of an equal-area grid, and a table of names.

    Raises:
        MissingFileError: A file is not there.
        ConfigError: They do not belong together.
    """
    for path in (ranges, traits):
        if not path.is_file():
            raise MissingFileError(f"{path} is not there (give the ranges and the traits)")
    with np.load(ranges, allow_pickle=False) as data:
        names, (rows, cols) = data["names"].tolist(), data["shape"].tolist()
        bits = np.unpackbits(data["bits"], axis=1)[:, : rows * cols].astype(bool)
        transform = data["transform"].tolist()
    with traits.open(encoding="utf-8", newline="") as file:
        table = {row["Binomial.1.2"]: row for row in csv.DictReader(file)}
    absent = [name for name in names if name not in table]
    if absent:
        raise ConfigError(f"{traits} has no ranks of {', '.join(absent[:3])}")
    taxa = [tuple(table[name][column] for column in _COLUMNS) for name in names]
    sea = np.array([_needs_sea(table[name]) for name in names])
    kept = [row for row in range(len(taxa)) if bits[row].any()]
    taxa, bits = [taxa[row] for row in kept], bits[kept]
    return Ranges(taxa, bits, _cells(rows, cols, transform), _sides(taxa), sea[kept])


def _needs_sea(traits: dict[str, str]) -> bool:
    marine, fresh, land = (traits.get(n) == "1" for n in ("Marine", "Freshwater", "Terrestrial"))
    return marine and not fresh and (not land or traits["Family.1.2"] in _SEALS)


def _cells(rows: int, cols: int, transform: list[float]) -> Cells:
    from pyproj import Transformer

    step_x, _, left, _, step_y, top = transform
    x = left + step_x * (np.arange(cols) + 0.5)
    y = top + step_y * (np.arange(rows) + 0.5)
    to_degrees = Transformer.from_crs("EPSG:6933", "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(*(each.ravel() for each in np.meshgrid(x, y)))
    return Cells(rows, cols, np.stack([lat, np.clip(lon, -180, 180)], 1).astype(np.float32))


def _sides(taxa: list[tuple[str, ...]]) -> Int[np.ndarray, " species"]:
    genera = [ranks[2] for ranks in taxa]
    side = np.full(len(taxa), LEARNT)
    for (species_side, genus_side), salt in _SALT.items():
        for row, (ranks, genus) in enumerate(zip(taxa, genera, strict=True)):
            if side[row] != LEARNT:
                continue
            if _held(salt + genus, GENERA_HELD):
                side[row] = genus_side
            elif _held(salt + " ".join(ranks), SPECIES_HELD):
                side[row] = species_side
    learnt = {genus for genus, part in zip(genera, side.tolist(), strict=True) if part == LEARNT}
    for row, genus in enumerate(genera):
        if side[row] in (UNSEEN_SPECIES, VALIDATION_SPECIES) and genus not in learnt:
            side[row] = LEARNT  # without a relative it would be an unseen genus
            learnt.add(genus)
    return side


class RangeSamples(Dataset[dict[str, Tensor]]):
    """Taxa to learn from, asked for by ``(index, draw)``: which species, and where it is cut."""

    def __init__(self, ranges: Ranges, own: int, encoder: ReadsText) -> None:
        """Keep what is learnt from.

        Args:
            ranges: All species.
            own: Cells that are drawn of each range.
            encoder: Reads the strings, each once; it stays as it is.
        """
        self.own = own
        self.rows = ranges.of(LEARNT)
        self.present, self.taxa = ranges.present, [ranges.taxa[row] for row in self.rows]
        self.members: dict[tuple[str, ...], list[int]] = {}
        for row, ranks in zip(self.rows.tolist(), self.taxa, strict=True):
            for depth in range(1, len(RANKS) + 1):
                self.members.setdefault(ranks[:depth], []).append(row)
        self._unions: dict[tuple[str, ...], Bool[np.ndarray, " cells"]] = {}
        self.new_species, self.new_genera = self._new_names()
        strings = [" ".join(ranks) for ranks in self.members]
        strings += [*self.new_species, *self.new_genera]
        parts = []
        for start in range(0, len(strings), 256):
            states, words = encoder(strings[start : start + 256])
            parts.append((states.half(), words))
        self.states = torch.cat([states for states, _ in parts])
        self.words = torch.cat([words for _, words in parts])
        self.number = {ranks: number for number, ranks in enumerate(self.members)}

    def _new_names(self) -> tuple[list[str], list[str]]:
        """Give each species' string with the epithet of another, and with a made-up genus too."""
        rng = np.random.default_rng(0)
        other = rng.permutation(len(self.taxa))
        species, genera = [], []
        for ranks, which in zip(self.taxa, other.tolist(), strict=True):
            order, family, genus, _ = ranks
            epithet, stem = self.taxa[which][3], self.taxa[which][2]
            species.append(f"{order} {family} {genus} {epithet}")
            made_up = stem[: len(stem) // 2] + genus[len(genus) // 2 :]
            genera.append(f"{order} {family} {made_up} {epithet}")
        return species, genera

    def __len__(self) -> int:
        return len(self.rows)

    def union(self, ranks: tuple[str, ...]) -> Bool[np.ndarray, " cells"]:
        """Give where any species of a taxon lives that is learnt from."""
        members = self.members[ranks]
        if len(members) == 1:
            return np.asarray(self.present[members[0]])
        if ranks not in self._unions:
            self._unions[ranks] = np.asarray(self.present[members].any(axis=0))
        return self._unions[ranks]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        rng = np.random.default_rng([draw, index])
        depth = 1 + int(np.searchsorted(np.cumsum(CUT), rng.random()))
        ranks = self.taxa[index][:depth]
        range_ = self.union(ranks)
        own = rng.choice(np.flatnonzero(range_), self.own)
        number = self.number[ranks]
        if depth == len(RANKS):
            new = int(np.searchsorted(np.cumsum(NEW), rng.random()))
            offset = len(self.members)
            number = (offset + index, offset + len(self.rows) + index, number)[new]
        return {
            "states": self.states[number].float(),
            "words": self.words[number],
            "present": torch.from_numpy(range_),
            "own": torch.from_numpy(own),
            "share": torch.tensor(max(float(range_.mean()), LEAST_SHARE), dtype=torch.float32),
        }
