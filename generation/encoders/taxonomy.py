"""Names of taxa: which are known, what a person meant, and what is close to a misspelt one."""

import csv
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from generation.atomic import atomic_path
from generation.errors import InvalidSpecError, MissingFileError, shown

RANKS = ("order", "family", "genus", "species")
_WORD = re.compile(r"[^\W\d_][\w\-]*")
MAX_LETTERS = 200


@dataclass(frozen=True, slots=True)
class Taxon:
    """What is asked for: a string from the order down, and what is known of it."""

    string: str
    """As a model reads it."""
    known: bool
    """Whether all of it is in the table."""
    learnt: bool
    """Whether any species of it was learnt from."""
    notes: tuple[str, ...] = ()


class Taxonomy:
    """A table of species with their ranks."""

    def __init__(
        self,
        taxa: Sequence[tuple[str, ...]],
        learnt: Sequence[bool],
        sea: Sequence[bool] | None = None,
    ) -> None:
        """Keep a table.

        Args:
            taxa: For each species the names of its :data:`RANKS`.
            learnt: Which of them a model learnt from.
            sea: Which of them need the sea; none if absent.
        """
        self.taxa, self.learnt = [tuple(each) for each in taxa], list(learnt)
        self.sea = [False] * len(self.taxa) if sea is None else list(sea)

    @classmethod
    def read(cls, path: Path) -> "Taxonomy":
        """Read a CSV file with a column for each rank, ``learnt`` and, if known, ``sea``.

        Raises:
            MissingFileError: It is not there.
        """
        if not path.is_file():
            raise MissingFileError(f"{path} is not there (it lies beside the weights of the model)")
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        taxa = [tuple(row[rank] for rank in RANKS) for row in rows]
        learnt, sea = ([row.get(name) == "1" for row in rows] for name in ("learnt", "sea"))
        return cls(taxa, learnt, sea)

    def write(self, path: Path) -> None:
        """Write what :meth:`read` reads."""
        with (
            atomic_path(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*RANKS, "learnt", "sea"])
            rows = zip(self.taxa, self.learnt, self.sea, strict=True)
            writer.writerows([*ranks, int(seen), int(sea)] for ranks, seen, sea in rows)

    @cached_property
    def strings(self) -> list[str]:
        """The whole string of each species."""
        return [" ".join(ranks) for ranks in self.taxa]

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """For each name, in lower case, the species that have it."""
        rows: dict[str, list[int]] = {}
        for number, ranks in enumerate(self.taxa):
            for name in ranks:
                rows.setdefault(name.lower(), []).append(number)
        return rows

    def resolve(self, text: str) -> Taxon:
        """Find what a person means, in any order of ranks and with ranks left out.

        ``Panthera leo`` becomes ``Carnivora Felidae Panthera leo``, ``leo Felidae`` too. A name
        below known ones that is itself unknown is kept, as it may be a species that the table
        lacks.

        Raises:
            InvalidSpecError: Nothing is asked for, nothing of it is known, or its names do not
                belong together.
        """
        words = self._words(text)
        known = [word for word in words if word.lower() in self._rows]
        if not known:
            raise InvalidSpecError(
                f"taxon={shown(text)} is not known{self._near(words)} (give an order, a family, a "
                "genus or a species of mammals, such as 'Panthera leo')"
            )
        rows = set(self._rows[known[0].lower()])
        for word in known[1:]:
            together = rows & set(self._rows[word.lower()])
            if not together:
                raise InvalidSpecError(
                    f"taxon={shown(text)}: {word!r} and {known[0]!r} name no species together "
                    "(give names of one line)"
                )
            rows = together
        prefix = self._common(sorted(rows), {word.lower() for word in known})
        new = [word for word in words if word not in known]
        notes = tuple(
            f"{word!r} is not known{self._near([word])}; it is read as the name of something in "
            f"{' '.join(prefix)}"
            for word in new
        )
        string = " ".join([*prefix, *(word.lower() for word in new)])
        return Taxon(string, not new, any(self.learnt[row] for row in rows), notes)

    def novelty(self, string: str) -> int:
        """Count the names at the end of a string that no species learnt from has: 0, 1, or 2.

        A new species of a genus that was learnt from is 1; from a new genus up it is 2.
        """
        words = string.split()
        for new in range(2):
            if len(words) > new and " ".join(words[: len(words) - new]) in self._learnt:
                return new
        return 2

    @cached_property
    def _learnt(self) -> set[str]:
        """The strings of all taxa that were learnt from, down to every rank."""
        return {
            " ".join(ranks[:depth])
            for ranks, learnt in zip(self.taxa, self.learnt, strict=True)
            if learnt
            for depth in range(1, len(RANKS) + 1)
        }

    def _words(self, text: str) -> list[str]:
        if len(text) > MAX_LETTERS:
            raise InvalidSpecError(
                f"taxon has {len(text)} letters (give a name or a line of at most {MAX_LETTERS})"
            )
        words = list(dict.fromkeys(_WORD.findall(text.replace("_", " "))))
        if not words:
            raise InvalidSpecError(
                f"taxon={shown(text)} names nothing (give an order, a family, a genus or a species)"
            )
        return words

    def _common(self, rows: Sequence[int], asked: set[str]) -> tuple[str, ...]:
        """Give the names that all have from the order down, as far as they were asked for."""
        first = self.taxa[rows[0]]
        depth = max(depth for depth, name in enumerate(first, start=1) if name.lower() in asked)
        for row in rows:
            while self.taxa[row][:depth] != first[:depth]:
                depth -= 1
        if depth == 0:
            lines = sorted({" ".join(self.taxa[row][:3]) for row in rows})
            raise InvalidSpecError(
                f"{' '.join(sorted(asked))} is the name of several: {', '.join(lines[:5])} (say "
                "which, such as by the genus)"
            )
        return first[:depth]

    def _near(self, words: Iterable[str]) -> str:
        close = [
            match
            for word in words
            for match in difflib.get_close_matches(word.lower(), self._rows, n=3, cutoff=0.75)
        ]
        names = [self._spelt(each) for each in close[:3]]
        return f"; close to it: {', '.join(names)}" if names else ""

    def _spelt(self, name: str) -> str:
        ranks = self.taxa[self._rows[name][0]]
        return next(each for each in ranks if each.lower() == name)
