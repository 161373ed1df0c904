import numpy as np
import pytest

from generation.geo.layout import LAYERS
from training.faithfulness import (
    accuracy,
    agreement_counts,
    iou,
    layout_roads,
    layout_water,
    road_contrast,
    water_mask,
)

SEA, SHALLOW, BLACK_LAKE = (10, 38, 90), (24, 90, 100), (4, 10, 14)
FOREST, DESERT, SNOW, SNOW_SHADE, DARK_FOREST = (
    (28, 40, 14),
    (190, 150, 110),
    (240, 245, 250),
    (170, 185, 205),
    (12, 20, 8),
)


def plain(colour, count=1):
    return np.full((count, 32, 32, 3), colour, np.uint8)


@pytest.mark.parametrize("colour", [SEA, SHALLOW, BLACK_LAKE])
def test_water_is_found(colour):
    assert water_mask(plain(colour)).all()


@pytest.mark.parametrize("colour", [FOREST, DESERT, SNOW, SNOW_SHADE, DARK_FOREST])
def test_land_and_snow_are_no_water(colour):
    assert not water_mask(plain(colour)).any()


def test_the_layout_gives_water_and_roads():
    classes = np.array(
        [[[LAYERS.index(name) for name in ("ocean", "lake", "river", "road")]]], np.uint8
    )
    assert layout_water(classes).ravel().tolist() == [True, True, False, False]
    assert layout_roads(classes).ravel().tolist() == [False, False, False, True]


def test_agreement_is_counted_by_hand():
    found = np.array([[[True, True], [False, False]]])
    wanted = np.array([[[True, False], [True, False]]])
    counts = agreement_counts(found, wanted)
    assert counts.tolist() == [[1, 1, 1, 1]]
    assert iou(counts)[0] == pytest.approx(1 / 3)
    assert accuracy(counts)[0] == pytest.approx(1 / 2)


def test_a_drawn_road_has_contrast_and_a_missing_one_has_none():
    roads = np.zeros((2, 32, 32), bool)
    roads[:, 16] = True
    image = plain(FOREST, 2)
    image[0, 16] = 120
    rows = road_contrast(image, roads, np.zeros_like(roads))
    assert rows[:, 1].tolist() == [32, 32]
    assert rows[0, 0] / 32 == pytest.approx(120 - np.dot(FOREST, (0.299, 0.587, 0.114)), abs=0.1)
    assert rows[1, 0] == pytest.approx(0, abs=1e-3)


def test_roads_on_water_and_tiles_without_roads_do_not_count():
    roads = np.zeros((2, 32, 32), bool)
    roads[0, 16] = True
    wet = np.ones_like(roads)
    assert road_contrast(plain(SEA, 2), roads, wet).tolist() == [[0, 0], [0, 0]]
