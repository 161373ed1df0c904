import numpy as np
import rasterio
from rasterio.transform import Affine

from generation.media.geotiff import Band, cog_bytes


def test_a_cog_holds_what_was_measured(tmp_path):
    values = np.random.default_rng(0).random((2, 150, 300)).astype(np.float32)
    values[0, :20] = np.nan
    bands = [Band("score", "cosine", values[0]), Band("uncertainty", "m", values[1])]
    data = cog_bytes(bands, (100.0, 0.0, 5.0, 0.0, -100.0, 7.0), {"A": '{"é": 1}'})
    assert data == cog_bytes(bands, (100.0, 0.0, 5.0, 0.0, -100.0, 7.0), {"A": '{"é": 1}'})
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), values)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.descriptions, file.units) == (("score", "uncertainty"), ("cosine", "m"))
        assert np.isnan(file.nodata)
        assert file.overviews(1)
        assert file.crs.to_epsg() == 3857
        assert file.transform == Affine(100, 0, 5, 0, -100, 7)
        assert file.tags()["A"] == '{"é": 1}'
