"""Scores of predicted ranges: average precision, and one that knows how far off a mistake is.

Average precision counts a range that is moved by one cell as wrong as one on another continent.
The proximity-aware cost (PAC) is in kilometres: how far predicted presences lie from the range
(commission), and how far the range lies from predicted presences (omission).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from generation.geo.location import EARTH_RADIUS_KM

CAP_KM = 2000.0
"""Farther than this a mistake gets no worse."""
MOST = 64
"""Cells of a range that omission is measured at, evenly spread over it."""


@dataclass(frozen=True, slots=True)
class Proximity:
    """The two parts of the cost, in kilometres."""

    commission_km: float
    omission_km: float

    @property
    def cost_km(self) -> float:
        """Both together; 0 if and only if the range is met."""
        return self.commission_km + self.omission_km


def average_precision(
    scores: Float[np.ndarray, " cells"], present: Bool[np.ndarray, " cells"]
) -> float:
    """Return the mean precision over the presences, the best scores first.

    Cells that score the same share the precision at the last of them, so that no order of cells
    flatters.

    Raises:
        ValueError: There is no presence.
    """
    if not present.any():
        raise ValueError("a range without cells has no average precision")
    order = np.argsort(-scores, kind="stable")
    hits = present[order].cumsum()
    ranked = scores[order]
    last = np.searchsorted(-ranked, -ranked, side="right")  # how many score as much or more
    precision = hits[last - 1] / last
    return float(precision[present[order]].mean())


def unit_vectors(latlon: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
    """Give places as points on the unit sphere."""
    lat, lon = np.deg2rad(latlon.astype(np.float64)).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)


def _km(chord: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin((chord / 2).clip(0, 1)))


class ProximityMetric:
    """The cost on one grid of cells, of which the geometry is kept."""

    def __init__(
        self,
        latlon: Float[np.ndarray, "cells 2"],
        area: Float[np.ndarray, " cells"] | None = None,
        cap_km: float = CAP_KM,
    ) -> None:
        """Keep the grid.

        Args:
            latlon: Of the middles of the cells, degrees, latitude first.
            area: Of the cells, in any unit; all alike if absent.
            cap_km: Farther than this a mistake gets no worse.
        """
        from scipy.spatial import cKDTree

        self.points = unit_vectors(latlon)
        self.area = np.ones(len(latlon)) if area is None else area.astype(np.float64)
        self.cap_km = cap_km
        self._tree = cKDTree
        self._every = cKDTree(self.points)

    def __call__(
        self, p: Float[np.ndarray, " cells"], present: Bool[np.ndarray, " cells"]
    ) -> Proximity:
        """Score a predicted range.

        With ``d`` in kilometres along the sphere, ``D`` the cap, ``a`` the areas and ``G`` the
        range, commission is ``sum(a p min(d(i, G), D)) / sum(a p)``. Omission is the mean over
        cells of ``G``, by area, of the expected distance to the nearest presence, were presences
        drawn by ``p``: with cells in the order of their distance from ``g``,
        ``sum_k d_k p_k prod_{j<k}(1 - p_j) + D prod_{d_j<D}(1 - p_j)``.

        Args:
            p: How likely the taxon is in each cell, 0 to 1. Nowhere at all costs ``D``.
            present: Its range.

        Raises:
            ValueError: The range has no cell.
        """
        if not present.any():
            raise ValueError("a range without cells has no distances")
        weight = self.area * p
        chord, _ = self._tree(self.points[present]).query(self.points)
        far = np.minimum(_km(chord), self.cap_km)
        commission = float((weight * far).sum() / weight.sum()) if weight.sum() > 0 else 0.0
        return Proximity(commission, self._omission(p, present))

    def _omission(
        self, p: Float[np.ndarray, " cells"], present: Bool[np.ndarray, " cells"]
    ) -> float:
        rows = np.flatnonzero(present)
        rows = rows[np.linspace(0, len(rows) - 1, min(MOST, len(rows))).round().astype(int)]
        reach = 2 * np.sin(self.cap_km / EARTH_RADIUS_KM / 2)
        costs = []
        for row, near in zip(
            rows, self._every.query_ball_point(self.points[rows], reach), strict=True
        ):
            cells = np.array(near)
            far = _km(np.linalg.norm(self.points[cells] - self.points[row], axis=1))
            order = np.argsort(far, kind="stable")
            likely, far = p[cells][order].astype(np.float64), far[order]
            none_yet = np.concatenate([[1.0], (1 - likely).cumprod()])
            costs.append((far * likely * none_yet[:-1]).sum() + self.cap_km * none_yet[-1])
        return float(np.average(costs, weights=self.area[rows]))
