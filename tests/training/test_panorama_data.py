"""Panoramas as samples: from Parquet, from a table of real ones, each a pure function of a draw."""

import csv
import io
import itertools
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tiny_sets import HEIGHT, WIDTH, write_sets

from generation.errors import ConfigError, MissingFileError
from generation.geo.location import Location
from generation.geo.mercator import Window, from_px, gsd_m, to_px
from generation.geo.sphere import Band, bearing_deg, offset_m
from generation.media.geotiff import geotiff_bytes
from training.data import counted_batches
from training.panorama_data import (
    PanoramaDataset,
    crop_at,
    read_csv,
    read_sets,
    signal,
    surroundings,
)
from training.trainer import LoopConfig

BAND = Band(16, 64)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return PanoramaDataset(read_sets([write_sets(tmp_path_factory.mktemp("sets") / "a.parquet")]))


# --- Parquet -------------------------------------------------------------------------------------
def test_sets_are_read_with_their_places_and_pictures(dataset):
    assert [group.name for group in dataset.sets] == ["train-0", "train-1"]
    assert len(dataset) == 8
    assert dataset.target(4).shape == (HEIGHT, WIDTH, 3)
    assert dataset.sets[1].views[2].place == Location(46.054, 7.0)


def test_files_that_hold_no_sets_are_refused_in_one_sentence(tmp_path):
    good = write_sets(tmp_path / "good.parquet", 1)
    bad = {
        "cut.parquet": good.read_bytes()[:-100],
        "empty.parquet": b"",
        "text.parquet": b"lat,lon\n1,2\n",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    pq.write_table(pq.read_table(good).drop_columns(["views"]), tmp_path / "columns.parquet")
    pq.write_table(pa.table({"set_id": ["a"], "satellite": [None]}), tmp_path / "null.parquet")
    for name in (*bad, "columns.parquet", "null.parquet", "absent.parquet"):
        with pytest.raises(
            ConfigError, match=rf"{name} holds no sets of panoramas .*build"
        ) as told:
            read_sets([tmp_path / name])
        assert "\n" not in str(told.value)
    pq.write_table(pq.read_table(good)[:0], tmp_path / "none.parquet")
    with pytest.raises(ConfigError, match="holds no rows"):
        read_sets([tmp_path / "none.parquet"])
    with pytest.raises(MissingFileError, match="quote the pattern"):
        read_sets([])


# --- samples -------------------------------------------------------------------------------------
def test_a_sample_is_what_the_model_takes(dataset):
    sample = dataset[5, 0]
    here, others = dataset.sets[1].views[1].place, (0, 2, 3)
    assert sample["panoramas"].shape == (3, HEIGHT, WIDTH, 3)
    assert sample["valid"].tolist() == [True] * 3
    norths = sorted(round(north) for north in sample["offset_m"][:, 1].tolist())
    expected = [offset_m(here, dataset.sets[1].views[v].place)[1] for v in others]
    assert norths == sorted(round(north) for north in expected)
    assert sample["satellite"].shape == (256, 256, 3)
    assert float(sample["gsd_m"]) == pytest.approx(gsd_m(here.lat, 8))
    assert float(sample["lat_deg"]) == pytest.approx(here.lat)
    assert bool(sample["has_depth"])
    around = surroundings(torch.utils.data.default_collate([sample, dataset[0, 0]]))
    assert float(around.panoramas.min()) >= -1
    assert around.depth.shape == (2, 1, HEIGHT, WIDTH)
    assert 0 < float(around.depth.max()) <= 1
    assert float(around.depth[0, 0, 0].max()) == 0  # the sky
    assert signal(torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)).flatten().tolist() == (
        pytest.approx([-1, 128 / 127.5 - 1, 1], abs=1e-6)
    )


def test_a_sample_is_a_pure_function_of_its_index_and_draw(dataset):
    first, again = dataset[2, 7], dataset[2, 7]
    assert all(torch.equal(first[name], again[name]) for name in first)
    orders = {tuple(dataset[2, draw]["offset_m"][:, 1].tolist()) for draw in range(20)}
    assert len(orders) == 6  # every order of three others comes up


def test_batches_go_on_where_they_were(dataset):
    loop = LoopConfig(batch_size=2, seed=3)
    whole = list(itertools.islice(counted_batches(dataset, loop, 0, 0, 1), 5))
    later = next(counted_batches(dataset, loop, 8, 0, 1))
    assert all(torch.equal(whole[4][name], later[name]) for name in later)


def test_a_target_is_never_its_own_view(dataset):
    for draw in range(10):
        assert float(dataset[1, draw]["offset_m"].norm(dim=1).min()) > 1000


def test_slots_that_are_left_are_not_valid(dataset):
    sample = dataset.sample(0, 0, (2,))
    assert sample["valid"].tolist() == [True, False, False]
    assert not sample["panoramas"][1:].any()
    np.testing.assert_array_equal(sample["panoramas"][0], dataset.target(2))


# --- satellite images ----------------------------------------------------------------------------
def coded(side):
    """An image whose pixels tell their column and row."""
    rows, cols = np.mgrid[:side, :side]
    return np.stack([cols % 256, rows % 256, (cols // 256) * 16 + rows // 256], -1).astype(np.uint8)


@pytest.mark.parametrize(("right", "down"), [(0, 0), (40, -30), (-96, 96)])
def test_crops_by_whole_pixels_are_exact(right, down):
    x, y = 33000 + 0.5, 23000 + 0.5
    crop = crop_at(coded(448), from_px(x, y, 8), from_px(x + right, y + down, 8))
    expected = coded(448)[96 + down : 352 + down, 96 + right : 352 + right]
    assert np.abs(crop.astype(int) - expected).max() <= 1e-6


def test_a_crop_between_pixels_is_between_their_values():
    image = np.zeros((448, 448, 3), np.uint8)
    image[:, 1::2] = 200
    x, y = 33000.0, 23000.0
    crop = crop_at(image, from_px(x, y, 8), from_px(x + 0.25, y, 8))
    assert set(np.unique(crop)) == {50, 150}


def test_a_crop_over_the_antimeridian_goes_the_short_way():
    image, y = coded(448), 23000.0
    crop = crop_at(image, from_px(65530.0, y, 8), from_px(14.0, y, 8))
    np.testing.assert_array_equal(crop, image[96:352, 116:372])


@pytest.mark.parametrize(("right", "down"), [(97, 0), (-97, 0), (0, 97), (0, -500)])
def test_a_crop_that_does_not_reach_is_refused(right, down):
    x, y = 33000.0, 23000.0
    with pytest.raises(ConfigError, match=r"of 448 px around .* does not reach 256 px .*larger"):
        crop_at(coded(448), from_px(x, y, 8), from_px(x + right, y + down, 8))


# --- real panoramas ------------------------------------------------------------------------------
def save_panorama(path, heading=0.0, height=64):
    """A whole sphere whose red tells the azimuth, its middle looking at ``heading``."""
    azimuth = (heading + (np.arange(2 * height) + 0.5 - height) * 180 / height) % 360
    red = np.round(127 + 100 * np.cos(np.radians(azimuth)))
    pixels = np.zeros((height, 2 * height, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = red, 90
    Image.fromarray(pixels).save(path)
    return path


def write_table(folder, rows, name="real.csv"):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def listed(file="a.png", lat=46.0, lon=7.0, heading_deg=0.0, **more):
    return {"file": file, "lat": lat, "lon": lon, "heading_deg": heading_deg, **more}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for name, heading in (("a", 0), ("b", 90), ("c", 200)):
        save_panorama(tmp_path / f"photos/{name}.png", heading)
    return tmp_path


def three(**more):
    """Rows whose headings are those of their files."""
    places = [("a", 46.0, 7.0, 0), ("b", 46.1, 7.0, 90), ("c", 46.0, 7.1, 200)]
    return [listed(f"photos/{n}.png", lat, lon, h, **more) for n, lat, lon, h in places]


def decode(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image), image.format


def test_real_panoramas_look_north_and_are_brought_to_the_grid(folder):
    (found,) = read_csv(write_table(folder, three()), BAND)
    assert found.satellite is None
    assert [view.depth for view in found.views] == [None] * 3
    assert found.views[1].place == Location(46.1, 7.0)
    expected = 127 + 100 * np.cos(np.radians(BAND.azimuths_deg().numpy()))
    for view in found.views:
        pixels, kind = decode(view.image)
        assert (pixels.shape, kind) == ((16, 64, 3), "PNG")
        assert np.abs(pixels[8, :, 0] - expected).max() < 8


def test_samples_of_real_panoramas_are_of_the_same_kind(folder, dataset):
    real = PanoramaDataset(read_csv(write_table(folder, three()), Band(HEIGHT, WIDTH)))
    sample, rendered = real[0, 0], dataset[0, 0]
    assert sample.keys() == rendered.keys()
    for name, value in sample.items():
        assert (value.dtype, value.shape) == (rendered[name].dtype, rendered[name].shape), name
    assert sample["valid"].tolist() == [True, True, False]
    assert not bool(sample["has_satellite"])
    assert not bool(sample["has_depth"])


def test_the_satellite_image_of_a_set_comes_from_its_files(folder):
    """The middle of every crop is the colour at the panorama's own place."""
    window = Window.around(Location(46.0, 7.0), 8, 512)
    cols = np.arange(512) // 4
    rgb = np.stack(np.broadcast_arrays(cols[None], cols[:, None], 7), -1).astype(np.uint8)
    (folder / "sat.tif").write_bytes(geotiff_bytes(rgb, window, {}))
    (found,) = read_csv(write_table(folder, three(satellite="sat.tif")), BAND)
    data = PanoramaDataset([found])
    for number, view in enumerate(found.views):
        sample = data.sample(0, number, ())
        x, y = to_px(view.place, 8)
        right, down = (x - window.col_px) / 4, (y - window.row_px) / 4
        middle = sample["satellite"][127:129, 127:129].float().mean((0, 1)).tolist()
        assert middle == pytest.approx([right - 0.5, down - 0.5, 7], abs=0.8)
        assert bool(sample["has_satellite"])


def test_rows_within_thirty_kilometres_form_sets_where_no_column_says_so(folder):
    rows = three()
    rows[1]["lat"], rows[2]["lat"] = 46.5, 46.26  # 56 km from the first, 29 km from both
    for row in rows:
        row["lon"] = 7.0
    names = [
        [view.place.lat for view in group.views]
        for group in read_csv(write_table(folder, rows), BAND)
    ]
    assert names == [[46.0, 46.26], [46.5]]
    for row, name in zip(rows, ("x", "y", "x"), strict=True):
        row["set"] = name
    rows[2]["lat"] = 50.0
    groups = read_csv(write_table(folder, rows), BAND)
    assert [(group.name, len(group.views)) for group in groups] == [("x", 2), ("y", 1)]


def test_all_mistakes_of_a_table_are_told_with_their_lines(folder):
    (folder / "photos/odd.png").write_bytes(save_odd())
    rows = [
        *three(),
        listed("photos/a.png", 91.0),
        listed("photos/a.png", 46.0, 7.0, 400.0),
        listed("photos/a.png", "north"),
        listed("photos/none.png"),
        listed("photos/a.png", math.nan),
        listed("photos/a.png", satellite="none.tif"),
        listed("photos/b.png", 46.1, 7.0, 90.0),
    ]
    with pytest.raises(ConfigError) as error:
        read_csv(write_table(folder, rows), BAND)
    told = str(error.value)
    for line in (
        "line 5: no such place: lat=91", "line 6: heading_deg=400 is no heading",
        "line 7: lat='north' is no number", "line 8: ", "none.png is not there",
        "line 9: no such place: lat=nan", "line 10: ", "none.tif is not there",
        "line 11: b.png is listed in line 3 already",
    ):  # fmt: skip
        assert line in told
    with pytest.raises(ConfigError, match=r"real\.csv: line 3: .*odd\.png"):
        read_csv(write_table(folder, [three()[0], listed("photos/odd.png")]), BAND)


def save_odd():
    buffer = io.BytesIO()
    Image.new("RGB", (130, 100)).save(buffer, "PNG")
    return buffer.getvalue()


def test_many_mistakes_are_cut_short(folder):
    rows = [listed(f"photos/none-{n}.png") for n in range(25)]
    with pytest.raises(ConfigError, match=r"; and 15 more$"):
        read_csv(write_table(folder, rows), BAND)


def test_imagery_that_does_not_reach_is_refused(folder):
    window = Window.around(Location(46.0, 7.0), 8, 200)
    rgb = np.full((200, 200, 3), 90, np.uint8)
    (folder / "sat.tif").write_bytes(geotiff_bytes(rgb, window, {}))
    with pytest.raises(ConfigError, match=r"set line 2: the imagery covers \d+% .*larger one"):
        read_csv(write_table(folder, three(satellite="sat.tif")), BAND)


def test_what_is_no_table_is_refused(folder):
    with pytest.raises(MissingFileError, match="give a CSV file"):
        read_csv(folder / "absent.csv")
    for data, told in (
        (b"", "lacks the column file, lat, lon, heading_deg"),
        (b"file,lat,lon\na.png,1,2\n", "lacks the column heading_deg"),
        (b"file,lat,lon,heading_deg\n", "has no rows"),
        (b"\xff\xfe\x00f", "no readable CSV file"),
    ):
        (folder / "bad.csv").write_bytes(data)
        with pytest.raises(ConfigError, match=told):
            read_csv(folder / "bad.csv")


def test_panoramas_across_the_antimeridian_form_one_set(folder):
    rows = three()
    for row, lon in zip(rows, (179.95, -179.95, 179.9), strict=True):
        row["lat"], row["lon"] = 0.0, lon
    (group,) = read_csv(write_table(folder, rows), BAND)
    east, north = offset_m(group.views[0].place, group.views[1].place)
    assert (round(east, -2), round(north)) == (11100, 0)
    assert bearing_deg(group.views[1].place, group.views[2].place) == pytest.approx(270)
