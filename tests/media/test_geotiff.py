import numpy as np
import pytest
import rasterio
from rasterio.warp import transform

from generation.errors import InvalidSpecError
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.media.geotiff import geotiff_bytes, geotiff_rgb, geotiff_tags

TAGS = {"RUNSPEC": '{"prompt":"\\ud83c <&> \\u0001"}', "SYNTHETIC": "true"}


@pytest.fixture
def window():
    return Window.around(Location(45.98, 7.66), 8, 256)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)


def test_pixels_and_tags_come_back(rgb, window):
    data = geotiff_bytes(rgb, window, TAGS)
    np.testing.assert_array_equal(geotiff_rgb(data), rgb)
    assert TAGS.items() <= geotiff_tags(data).items()


def test_equal_input_gives_equal_bytes(rgb, window):
    assert geotiff_bytes(rgb, window, TAGS) == geotiff_bytes(rgb, window, dict(TAGS))


def test_a_geographer_finds_the_place(rgb, window, tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(geotiff_bytes(rgb, window, TAGS))
    with rasterio.open(path) as dataset:
        assert dataset.crs.to_epsg() == 3857
        assert dataset.bounds[:] == pytest.approx(window.bounds_3857)
        assert dataset.interleaving.name.lower() == "pixel"
        assert dataset.compression.name.lower() == "deflate"
        x, y = dataset.xy(128, 128, offset="ul")
        (lon,), (lat,) = transform(dataset.crs, "EPSG:4326", [x], [y])
    assert (lat, lon) == pytest.approx((window.center.lat, window.center.lon), abs=1e-6)


@pytest.mark.parametrize("size", [64, 72, 264])
def test_sizes_that_fill_no_block_come_back(size):
    window = Window.around(Location(-1.0, 179.9), 8, size)
    rgb = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(geotiff_rgb(geotiff_bytes(rgb, window, {})), rgb)


def test_a_cut_off_tiff_is_refused(rgb, window):
    data = geotiff_bytes(rgb, window, TAGS)
    for length in (4, 100, len(data) // 2):
        with pytest.raises(InvalidSpecError, match="cut off or damaged"):
            geotiff_rgb(data[:length])


def test_what_is_no_tiff_is_refused():
    with pytest.raises(InvalidSpecError, match="no TIFF"):
        geotiff_tags(b"\x89PNG\r\n\x1a\n")


def test_other_bands_and_too_large_ones_are_refused(rgb, window):
    with pytest.raises(InvalidSpecError, match="256x256 pixels, 100 are allowed"):
        geotiff_rgb(geotiff_bytes(rgb, window, {}), max_pixels=100)
    with rasterio.MemoryFile() as file:
        grey = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint16"}
        with file.open(**grey, crs="EPSG:3857", transform=rasterio.Affine(*window.transform)) as it:
            it.write(np.zeros((1, 8, 8), np.uint16))
        with pytest.raises(InvalidSpecError, match="1 bands of uint16"):
            geotiff_rgb(bytes(file.read()))
