import numpy as np
import pytest
import rasterio
from tiny import PLACES, smooth_images

from generation.errors import ConfigError
from generation.geo.imagery import FileImagery
from generation.geo.location import Region
from generation.geo.mercator import tile_window
from training.mosaic import main, read_tiles

IMAGES = dict(zip(PLACES, smooth_images(len(PLACES), 256), strict=True))


def test_a_mosaic_shows_its_tiles_and_nothing_else(tile_file, tmp_path, capsys):
    out = tmp_path / "mosaic.tif"
    words = ["--data", str(tile_file), "--out", str(out), "--region", "4,40,12,52"]
    assert main([*words, "--credit", "Nobody"]) == 0
    assert capsys.readouterr().out.split() == [str(out)]
    imagery = FileImagery([out])
    patch = imagery.read(tile_window(8, 132, 86))
    np.testing.assert_array_equal(patch.rgb, IMAGES[8, 132, 86])
    assert patch.seen.all()
    assert not imagery.read(tile_window(8, 133, 86)).seen.any()
    assert imagery.attribution == "Nobody"
    with rasterio.open(out) as file:
        assert file.crs.to_epsg() == 3857
        assert file.bounds.left <= tile_window(8, 132, 86).bounds_3857[0]


def test_without_a_region_all_tiles_are_covered(tile_file):
    with pytest.raises(ConfigError, match=r"smaller --region"):  # half a world apart
        read_tiles([tile_file], None)


def test_a_region_over_the_antimeridian_runs_on(tile_file, tmp_path):
    out = tmp_path / "mosaic.tif"
    region = "--region=178.6,67.5,-179,69.5"
    assert main(["--data", str(tile_file), "--out", str(out), region]) == 0
    patch = FileImagery([out]).read(tile_window(8, 255, 60))
    np.testing.assert_array_equal(patch.rgb[:, -100:], IMAGES[8, 255, 60][:, -100:])
    with rasterio.open(out) as file:
        assert file.bounds.right > 20037508.4


def test_a_region_without_tiles_is_refused(tile_file):
    with pytest.raises(ConfigError, match="none of the tiles"):
        read_tiles([tile_file], Region(-70.0, 0.0, -69.0, 1.0))


def test_mistakes_are_one_sentence(tile_file, tmp_path, capsys):
    out = tmp_path / "mosaic.tif"
    assert main(["--data", str(tile_file), "--out", str(out), "--region", "1,2"]) == 2
    out.touch()
    assert main(["--data", str(tile_file), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "is no box" in said
    assert "not overwritten" in said
