import os

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from generation.errors import InvalidSpecError, MissingFileError
from generation.geo.imagery import FileImagery, Imagery
from generation.geo.mercator import Window, tile_window, world_px

TILE = tile_window(8, 132, 86)


def pixels(seed=0, side=256):
    coarse = np.random.default_rng(seed).integers(1, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def write(path, rgb, window=TILE, mask=None, alpha=None, **options):
    """Write an image in one of the ways in which rasters say what is not there."""
    profile = {
        **{"driver": "GTiff", "dtype": "uint8", "count": 3, "photometric": "RGB"},
        **{"width": rgb.shape[1], "height": rgb.shape[0]},
        **{"crs": "EPSG:3857", "transform": Affine(*window.transform)},
        **options,
    }
    bands = np.moveaxis(rgb, -1, 0)
    if alpha is not None:
        profile |= {"count": 4, "alpha": "YES"}
        bands = np.concatenate([bands, alpha[None]])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        if mask is not None:
            file.write_mask(mask)
        if alpha is not None:
            assert file.colorinterp[3] == ColorInterp.alpha
    return path


def test_pixels_of_the_same_grid_come_back_as_they_are(tmp_path):
    rgb = pixels()
    imagery = FileImagery([write(tmp_path / "a.tif", rgb)])
    patch = imagery.read(TILE)
    np.testing.assert_array_equal(patch.rgb, rgb)
    assert patch.seen.all()
    part = Window(8, TILE.col_px + 100, TILE.row_px - 20, 256, 40)
    patch = imagery.read(part)
    np.testing.assert_array_equal(patch.rgb[20:, :156], rgb[:20, 100:])
    assert patch.seen.sum() == 20 * 156
    assert not patch.rgb[~patch.seen].any()
    assert isinstance(imagery, Imagery)
    assert not imagery.synthetic


@pytest.mark.parametrize("way", ["mask", "alpha", "nodata"])
def test_what_is_not_there_is_not_seen(way, tmp_path):
    rgb, there = pixels(), np.full((256, 256), 255, np.uint8)
    there[:100] = 0
    rgb[:100] = 0
    options = {"nodata": 0} if way == "nodata" else {way: there}
    patch = FileImagery([write(tmp_path / "a.tif", rgb, **options)]).read(TILE)
    np.testing.assert_array_equal(patch.seen, there > 0)


def test_the_second_file_fills_what_the_first_leaves_open(tmp_path):
    there = np.full((256, 256), 255, np.uint8)
    there[:, :128] = 0
    files = [
        write(tmp_path / "a.tif", pixels(0), mask=there),
        write(tmp_path / "b.tif", pixels(1)),
    ]
    patch = FileImagery(files).read(TILE)
    assert patch.seen.all()
    np.testing.assert_array_equal(patch.rgb[:, 128:], pixels(0)[:, 128:])
    np.testing.assert_array_equal(patch.rgb[:, :128], pixels(1)[:, :128])


def test_a_finer_file_is_averaged(tmp_path):
    fine = Window(10, TILE.col_px * 4, TILE.row_px * 4, 256, 256)
    rgb = np.zeros((256, 256, 3), np.uint8)
    rgb[::2] = 200  # stripes of one pixel, which nearest pixels would miss or take for all
    patch = FileImagery([write(tmp_path / "a.tif", rgb, fine)]).read(
        Window(8, TILE.col_px, TILE.row_px, 64, 64)
    )
    assert patch.seen.all()
    assert np.abs(patch.rgb.astype(int) - 100).max() <= 1


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32632"])
def test_another_projection_is_warped(crs, tmp_path):
    from rasterio.warp import transform_bounds

    region = TILE.bounds
    box = transform_bounds("EPSG:4326", crs, region.west, region.south, region.east, region.north)
    rgb = np.zeros((400, 400, 3), np.uint8)
    rgb[:, :200] = 250  # bright in the west
    west, south, east, north = box
    step = Affine((east - west) / 400, 0, west, 0, (south - north) / 400, north)
    path = write(tmp_path / "a.tif", rgb, crs=crs, transform=step)
    patch = FileImagery([path]).read(TILE)
    assert patch.seen.mean() > 0.9
    assert patch.rgb[128, 60, 0] == 250
    assert patch.rgb[128, 196, 0] == 0
    far = FileImagery([path]).read(tile_window(8, 10, 200))
    assert not far.seen.any()


@pytest.mark.parametrize("turn", [0, 1])
def test_the_antimeridian_is_no_edge(turn, tmp_path):
    edge = world_px(8)
    over = Window(8, edge - 128, TILE.row_px, 256, 256)
    rgb = pixels()
    if turn:  # a file that runs on beyond the map
        files = [write(tmp_path / "a.tif", rgb, over)]
    else:  # one on each side
        halves = rgb[:, :128], rgb[:, 128:]
        files = [
            write(tmp_path / "a.tif", halves[0], over),
            write(tmp_path / "b.tif", halves[1], Window(8, 0, TILE.row_px, 128, 256)),
        ]
    imagery = FileImagery(files)
    for window in (over, Window(8, -128, TILE.row_px, 256, 256)):
        patch = imagery.read(window)
        assert patch.seen.all()
        np.testing.assert_array_equal(patch.rgb, rgb)
    east = imagery.read(Window(8, 0, TILE.row_px, 128, 256))
    np.testing.assert_array_equal(east.rgb, rgb[:, 128:])


def test_a_file_that_changes_is_other_imagery(tmp_path):
    path = write(tmp_path / "a.tif", pixels())
    first = FileImagery([path]).identity
    assert FileImagery([path]).identity == first
    os.utime(path, ns=(1, 1))
    assert FileImagery([path]).identity != first


def test_credits_and_whether_it_was_generated_are_read_from_tags(tmp_path):
    path = write(tmp_path / "a.tif", pixels())
    with rasterio.open(path, "r+") as file:
        file.update_tags(ATTRIBUTION="NASA  Blue\nMarble", SYNTHETIC="true")
    imagery = FileImagery([path, path])
    assert imagery.attribution == "NASA Blue Marble"
    assert imagery.synthetic
    assert "lat 47." in imagery.extent or "lat 48." in imagery.extent or "lat 49." in imagery.extent


VRT = """<VRTDataset rasterXSize="256" rasterYSize="256"><SRS>EPSG:3857</SRS>
<GeoTransform>{transform}</GeoTransform>{bands}</VRTDataset>"""
BAND = """<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>{source}
<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"""


def write_vrt(path, source):
    a, b, c, d, e, f = TILE.transform
    bands = "".join(BAND.format(band=band, source=source) for band in (1, 2, 3))
    path.write_text(VRT.format(transform=f"{c},{a},{b},{f},{d},{e}", bands=bands))
    return path


def test_a_virtual_raster_of_local_files_is_read(tmp_path):
    tiff = write(tmp_path / "a & b.tif", pixels())
    source = '<SourceFilename relativeToVRT="1">a &amp; b.tif</SourceFilename>'
    imagery = FileImagery([write_vrt(tmp_path / "all.vrt", source)])
    np.testing.assert_array_equal(imagery.read(TILE).rgb, pixels())
    os.utime(tiff, ns=(1, 1))  # what it is made of belongs to what it is
    assert FileImagery([tmp_path / "all.vrt"]).identity != imagery.identity


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("<SourceFilename>/vsicurl/http://127.0.0.1:9/a.tif</SourceFilename>", "no file here"),
        ("<SourceFilename>absent.tif</SourceFilename>", "no file here"),
        ('<SourceFilename relativeToVRT="1">wms.xml</SourceFilename>', "is no TIFF"),
        ("<SourceFilename><![CDATA[/vsicurl/http://x/a.tif]]></SourceFilename>", "another way"),
        ('<ComplexSource SourceFilename="/vsicurl/http://x/a.tif"/>', "another way"),
    ],
)
def test_a_virtual_raster_fetches_nothing(source, said, tmp_path):
    (tmp_path / "wms.xml").write_text("<GDAL_WMS/>")
    with pytest.raises((MissingFileError, InvalidSpecError), match=said):
        FileImagery([write_vrt(tmp_path / "all.vrt", source)])


def test_what_is_no_imagery_is_refused(tmp_path):
    (tmp_path / "text.tif").write_text("no raster at all")
    one = write(tmp_path / "one.tif", pixels())
    with rasterio.open(one) as file:
        profile = file.profile
    nowhere = {**profile, "crs": None, "transform": Affine.identity()}
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "nowhere.tif", "w", **nowhere) as file,
    ):
        file.write(np.moveaxis(pixels(), -1, 0))
    grey = {**profile, "count": 1, "photometric": "minisblack", "interleave": "band"}
    with rasterio.open(tmp_path / "grey.tif", "w", **grey) as file:
        file.write(pixels()[..., 0], 1)
    whole = one.read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    for name, said in (
        ("absent.tif", "is not there"),
        ("text.tif", "no readable raster"),
        ("nowhere.tif", "does not say where on Earth"),
        ("grey.tif", "1 bands of uint8"),
    ):
        with pytest.raises((MissingFileError, InvalidSpecError), match=said):
            FileImagery([tmp_path / name])
    with pytest.raises(InvalidSpecError, match=r"no readable raster|cut off or damaged"):
        FileImagery([tmp_path / "cut.tif"]).read(TILE)
    with pytest.raises(InvalidSpecError, match="0 files"):
        FileImagery([])
