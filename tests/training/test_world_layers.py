"""Shores on a grid: what is packed is what is drawn."""

import numpy as np
import pytest
import shapely

from generation.geo import layers
from generation.geo.layers import HOLE, QUANTUM_DEG, Shapes, to_unit_square
from training.world_layers import _thin_area, pack


def rings_of(points):
    return [(ring, hole) for ring, hole in _thin_area(np.array(points, float))]


def test_a_simple_shore_stays_one_ring():
    ((ring, hole),) = rings_of([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
    assert not hole
    assert shapely.Polygon(ring * QUANTUM_DEG).area == pytest.approx(1)


def test_a_shore_that_crosses_itself_is_taken_apart_once_and_for_all():
    rings = rings_of([(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)])
    assert len(rings) == 2
    assert all(shapely.Polygon(ring).is_valid for ring, _ in rings)
    total = sum(shapely.Polygon(ring * QUANTUM_DEG).area for ring, _ in rings)
    assert total == pytest.approx(0.5)


def test_a_bay_that_rounding_closed_becomes_a_hole():
    bay = [(0, 0), (2, 0), (2, 2), (0, 2), (0, 0.99995), (1, 1.5), (1, 0.5), (0, 0.99995), (0, 0)]
    rings = rings_of(bay)
    assert [hole for _, hole in rings] == [False, True]
    outline, hole = (shapely.Polygon(ring * QUANTUM_DEG) for ring, _ in rings)
    assert outline.area - hole.area == pytest.approx(3.5, abs=1e-3)


def test_packed_shapes_come_back_with_their_holes_and_kinds(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "ASSETS", tmp_path)
    bay = [(0, 0), (2, 0), (2, 2), (0, 2), (0, 0.99995), (1, 1.5), (1, 0.5), (0, 0.99995), (0, 0)]
    far = [(100, 10), (160, 10), (160, 60), (100, 10)]  # steps that do not fit 16 bits
    shapes = [np.array(ring, float) for ring in (bay, far)]
    pack(shapes, [1, 2], tmp_path / "water_areas.npz", closed=True)
    pack(
        [np.array([(-180.0, 0.0), (-90.0, 45.0)])], [0], tmp_path / "water_lines.npz", closed=False
    )
    first, second = Shapes("areas").within(0.0, 0.0, 1.0, 1.0)
    assert (first[0], second[0]) == (1, 2)
    assert len(first[1].interiors) == 1
    assert shapely.is_valid([first[1], second[1]]).all()
    corners = to_unit_square(np.array([(100.0, 10.0), (160.0, 60.0)]))
    assert shapely.bounds(second[1])[[0, 2]] == pytest.approx(corners[:, 0], abs=1e-6)
    ((kind, stream),) = Shapes("lines").within(0.0, 0.0, 1.0, 1.0)
    assert kind == HOLE
    assert stream.geom_type == "LineString"
    assert Shapes("areas").within(0.9, 0.9, 1.0, 1.0) == []
