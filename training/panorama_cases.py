"""Which panoramas are measured, and what each is drawn from.

A case is one target of a set. It is drawn from its 0 to 3 nearest panoramas; from as many in a
drawn order, as a person has those that happen to be there; from one panorama whose distance falls
into a bin, and from that one with the next two beyond it; and from inputs
that are wrong or absent. All of it is a fixed rule: nobody picks. Equal requests are drawn once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from generation.errors import ConfigError
from generation.geo.location import great_circle_km
from training.evaluate_tiles import evenly
from training.panorama_baselines import ANOTHER, NONE, OWN
from training.panorama_data import MAX_VIEWS, ViewSet

BINS_KM = ((1.0, 3.0), (3.0, 6.0), (6.0, 12.0), (12.0, 20.0), (20.0, 30.0))
"""Distances of the nearest panorama given: from the first up to the second."""
BEYOND_KM = 3.0
"""From here on a model must beat copies and blends; nearer, a copy is the right answer."""
APART_KM = 100.0
"""How far off, at least, the place lies whose inputs stand for wrong ones, where there is one."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a panorama is drawn from."""

    others: tuple[int, ...] = ()
    """Panoramas of the set."""
    satellite: str = OWN
    strange: bool = False
    """Whether another set's panoramas are shown in place of these."""


@dataclass(frozen=True, slots=True)
class Case:
    """One target."""

    number: int
    """Its set."""
    target: int
    """Which panorama of the set it is."""
    partner: int
    """The set that wrong inputs come from."""
    order: tuple[int, ...]
    """The other panoramas of the set, the nearest first."""
    km: tuple[float, ...]
    """Their distances."""
    bins: tuple[tuple[float, float], ...] = ()
    """The distances of the nearest panorama that it is measured at."""
    full: bool = True
    """Whether it is measured with 0 to 3 panoramas and with wrong inputs, too."""
    satellite: bool = True
    """Whether its set and the partner have a satellite image, so that there can be a wrong one."""

    def drawn(self) -> tuple[int, ...]:
        """Give the other panoramas in an order of chance, the same each time."""
        chance = np.random.default_rng([self.number, self.target])
        return tuple(chance.permutation(self.order).tolist())

    def within(self, low_km: float, high_km: float) -> tuple[tuple[int, ...], float] | None:
        """Give the panoramas from a distance on, if the nearest of them lies below another.

        Returns:
            At most ``MAX_VIEWS`` panoramas and the distance of the nearest; None without one.
        """
        far = [i for i, km in enumerate(self.km) if km >= low_km]
        if not far or self.km[far[0]] >= high_km:
            return None
        return tuple(self.order[i] for i in far[:MAX_VIEWS]), self.km[far[0]]


def bin_name(low_km: float, high_km: float) -> str:
    """Name a bin of distances."""
    return f"{low_km:g}-{high_km:g}"


def choose_cases(sets: Sequence[ViewSet], limit: int, targets: int) -> list[Case]:
    """Choose evenly spread sets, and in each as many targets as asked for.

    The first target of a set moves on from set to set, so that central places and outer ones are
    both among them. Each bin of distances is measured once in a set: at the first target, counted
    from there, that has most panoramas so far away, three being enough.

    Args:
        sets: All there are; those of one panorama have nothing to be drawn from and are left out.
        limit: Sets at most.
        targets: Targets of each set at most.

    Raises:
        ConfigError: There are fewer than two sets to compare.
    """
    able = [i for i, group in enumerate(sets) if len(group.views) > 1]
    if len(able) < 2:
        raise ConfigError(
            f"{len(able)} of {len(sets)} sets hold two panoramas or more (give two such sets at "
            "least: wrong inputs come from another one)"
        )
    chosen = [able[i] for i in evenly(len(able), min(limit, len(able)))]
    cases = []
    for turn, number in enumerate(chosen):
        partner = _partner(sets, able, number)
        count = len(sets[number].views)
        both = all(sets[i].satellite is not None for i in (number, partner))
        every = [
            replace(_case(sets[number], number, (turn + step) % count, partner), satellite=both)
            for step in range(count)
        ]
        measured = [_measured_at(every, *edges) for edges in BINS_KM]
        for step, case in enumerate(every):
            bins = tuple(b for b, at in zip(BINS_KM, measured, strict=True) if at == step)
            if step < targets or bins:
                cases.append(replace(case, bins=bins, full=step < targets))
    return cases


def _measured_at(cases: Sequence[Case], low_km: float, high_km: float) -> int | None:
    """Give the first case with the most panoramas so far away; None where no case has one."""
    given = [case.within(low_km, high_km) for case in cases]
    counts = [0 if found is None else len(found[0]) for found in given]
    best = max(counts)
    return counts.index(best) if best else None


def _case(group: ViewSet, number: int, target: int, partner: int) -> Case:
    here = group.views[target].place
    apart = sorted(
        (great_circle_km(here, view.place), i) for i, view in enumerate(group.views) if i != target
    )
    return Case(
        number, target, partner, tuple(i for _, i in apart), tuple(float(km) for km, _ in apart)
    )


def _partner(sets: Sequence[ViewSet], able: Sequence[int], number: int) -> int:
    """Give the first set far enough off, starting half way round the list; else the farthest."""
    start = able.index(number) + len(able) // 2
    others = [able[(start + i) % len(able)] for i in range(len(able))]
    others = [i for i in others if i != number]
    apart = {i: great_circle_km(sets[number].place, sets[i].place) for i in others}
    far = [i for i in others if apart[i] >= APART_KM]
    return far[0] if far else max(others, key=lambda i: apart[i])


def asks(case: Case) -> dict[str, Ask]:
    """Give what a case is drawn from, by name; what it has too few panoramas for is left out."""
    most = case.order[:MAX_VIEWS]
    wanted: dict[str, Ask] = {}
    if case.full:
        wanted |= {f"views_{n}": Ask(most[:n]) for n in range(len(most) + 1)}
        wanted |= {f"any_{n}": Ask(case.drawn()[:n]) for n in range(len(most) + 1)}
        wanted |= {
            "wrong_views": Ask(most, OWN, strange=True),
            "views_only": Ask(most, NONE),
            "nothing": Ask((), NONE),
        }
        if case.satellite:
            wanted["wrong_satellite"] = Ask(most, ANOTHER)
            wanted["wrong_satellite_only"] = Ask((), ANOTHER)
    for edges in case.bins:
        found = case.within(*edges)
        if found is not None:
            name, (views, _) = bin_name(*edges), found
            wanted[f"one_view/{name}"] = Ask(views[:1])
            if len(views) == MAX_VIEWS:
                wanted[f"three_views/{name}"] = Ask(views)
    return wanted
