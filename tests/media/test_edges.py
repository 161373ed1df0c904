import numpy as np
import pytest

from generation.errors import InvalidSpecError
from generation.media.edges import canny_edges


def test_a_step_gives_one_line_on_its_border():
    rgb = np.zeros((12, 12, 3), np.uint8)
    rgb[:, 6:] = 200
    edges = canny_edges(rgb)
    assert (edges == edges[..., :1]).all()
    assert (edges[..., 0] == np.where(np.arange(12) == 5, 255, 0)).all()


def test_a_plain_picture_has_no_edges():
    assert canny_edges(np.full((9, 7, 3), 130, np.uint8)).max() == 0


def test_a_weak_edge_lives_only_where_it_touches_a_strong_one():
    rgb = np.zeros((30, 12, 3), np.uint8)
    rgb[:, 6:] = 40  # gradient 160: may continue an edge
    assert canny_edges(rgb).max() == 0
    rgb[15:, 6:] = 200  # gradient 800: starts one
    assert (canny_edges(rgb)[:, 4:8, 0] > 0).any(axis=1).sum() > 25


def test_the_strongest_channel_decides():
    rgb = np.full((10, 10, 3), 100, np.uint8)
    rgb[5:, :, 1] = 220
    assert (canny_edges(rgb)[4, :, 0] == 255).all()


def test_turning_a_picture_turns_its_edges():
    rgb = np.zeros((40, 40, 3), np.uint8)
    rows, cols = np.mgrid[:40, :40]
    rgb[(rows - 19.5) ** 2 + (cols - 19.5) ** 2 < 150] = 255
    edges = canny_edges(rgb)[..., 0] > 0
    turned = canny_edges(rgb.transpose(1, 0, 2))[..., 0].T > 0
    assert edges.sum() > 40
    assert np.mean(edges != turned) < 0.02, "ties go to the left and the upper pixel"


def test_thresholds_out_of_order_are_refused():
    with pytest.raises(InvalidSpecError, match="low=200, high=100"):
        canny_edges(np.zeros((4, 4, 3), np.uint8), 200, 100)
