import io

import numpy as np
import pytest
from PIL import Image

from generation.geo.grid import MapGrid
from generation.geo.mercator import Window
from generation.pipelines.maps import SoundMap
from generation.pipelines.maps_cache import MapCache
from generation.pipelines.maps_image import LIKELY, base_classes, coloured, map_png


def make_map(window, cell_px, values=None):
    grid = MapGrid(window, cell_px, 128)
    scores = np.random.default_rng(0).random((grid.rows, grid.cols)).astype(np.float32)
    if values is not None:
        scores[:] = values
    return SoundMap(grid, scores, None, {})


def test_colours_run_from_dark_to_bright():
    ramp = np.linspace(0, 1, 50, dtype=np.float32)[None]
    rgb = coloured(ramp, (0.0, 1.0), LIKELY)[0].astype(float)
    assert (np.diff(rgb @ (0.2126, 0.7152, 0.0722)) > 0).all()
    assert rgb[0].tolist() == [68, 1, 84]


@pytest.mark.parametrize(
    ("window", "cell_px", "values"),
    [
        (Window(8, 33600, 22080, 16, 16), 16, None),  # one cell
        (Window(8, 33600, 22080, 80, 80), 16, 0.5),  # all alike
        (Window(8, 65504, 35200, 192, 128), 16, None),  # over the antimeridian
        (Window(8, 0, 16000, 65536, 48), 16, None),  # more cells than pixels
        (Window(22, 2**29, 2**28, 3, 2), 1, None),  # finer than any zoom level
        (Window(0, 0, 0, 256, 256), 16, None),  # the world
    ],
)
def test_any_grid_makes_a_picture(window, cell_px, values):
    found = make_map(window, cell_px, values)
    picture = Image.open(io.BytesIO(map_png(found, "surf, 波", "nobody", {"Title": "surf"})))
    assert picture.text["Title"] == "surf"
    assert min(picture.size) > 200
    assert np.asarray(picture).std() > 10


def test_a_map_of_one_score_is_pale_elsewhere():
    found = make_map(Window(8, 33600, 22080, 192, 128), 16)
    found.scores[:] = np.nan
    found.scores[2, 3] = -6.5
    pixels = np.asarray(Image.open(io.BytesIO(map_png(found, "surf", "nobody", {}))))
    panel = pixels[24 + 24 + 24 :][:512, 56 : 56 + 768]
    assert panel[10:60, 10:60].min() > 150
    assert panel[130:190, 195:255].min(axis=(0, 1)).max() < 160


def test_a_base_map_is_drawn_once(tmp_path):
    cache, grid = MapCache(tmp_path), MapGrid(Window(8, 33600, 22080, 64, 64), 16, 128)
    first = base_classes(grid, cache)
    (path,) = tmp_path.glob("*/*.npz")
    stamp = path.stat().st_ino
    np.testing.assert_array_equal(base_classes(grid, cache), first)
    assert path.stat().st_ino == stamp
