"""Sets of panoramas: distances, splits, labels, and shards that are there whole or not at all."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny import write_tiles

from generation.errors import ConfigError
from generation.geo.location import Location, Region, great_circle_km
from generation.geo.mercator import gsd_m
from generation.geo.sphere import Band
from training import panorama_sets
from training.panorama_sets import (
    APART_DEG,
    DEPTH_FAR_M,
    DEPTH_NEAR_M,
    HELD_OUT,
    NEIGHBOURS,
    SATELLITE_PX,
    World,
    depth_levels,
    draw_set,
    main,
    write_shard,
)
from training.terrain import LABEL, Elevation, Mosaic

BOX = Region(10.0, 22.0, 40.0, 48.0)


@pytest.fixture(scope="module")
def world():
    """Hills all over, and imagery at zoom 6 that reaches far beyond them."""
    rng = np.random.default_rng(0)
    heights = 900 + 700 * np.sin(np.arange(260) / 3)[:, None] * np.cos(np.arange(300) / 4)[None]
    rgb = rng.integers(60, 160, (10 * 256, 10 * 256, 3), dtype=np.uint8)
    mosaic = Mosaic(rgb, np.ones((10, 10), bool), 6, 31 * 256, 18 * 256)
    return World(Elevation.of(heights, BOX), mosaic, Band(8, 32))


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(panorama_sets, "SETS_A_SHARD", 2)


def places(row):
    return [Location(view["lat"], view["lon"]) for view in row["views"]]


# --- what a set is -------------------------------------------------------------------------------
def test_neighbours_stand_one_to_thirty_kilometres_away(world):
    distances = []
    for seed in range(6):
        row = draw_set(world, "train", seed)
        here, *around = places(row)
        assert (row["lat"], row["lon"]) == (here.lat, here.lon)
        assert len(around) == NEIGHBOURS
        distances += [great_circle_km(here, there) for there in around]
    assert 0.999 < min(distances) < 4
    assert 15 < max(distances) < 30.001


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_keep_their_distance(world, split):
    """Every panorama, not the first of its set alone."""
    for seed in range(6):
        for place in places(draw_set(world, split, seed)):
            east = max(HELD_OUT.west - place.lon, place.lon - HELD_OUT.east)
            north = max(HELD_OUT.south - place.lat, place.lat - HELD_OUT.north)
            if split == "test":
                assert max(east, north) <= 0
            else:
                assert max(east, north) > APART_DEG


def test_a_set_is_a_function_of_its_seed_and_split(world):
    first = draw_set(world, "train", 3)
    assert draw_set(world, "train", 3) == first
    assert draw_set(world, "train", 4)["lat"] != first["lat"]
    assert draw_set(world, "test", 3)["lat"] != first["lat"]


def test_every_row_says_what_it_is_and_holds_its_pictures(world):
    row = draw_set(world, "test", 1)
    assert row["source"] == LABEL == "rendered from terrain"
    assert (row["set_id"], row["split"], row["eye_m"]) == ("test-1", "test", 1500.0)
    assert row["satellite_gsd_m"] == pytest.approx(gsd_m(row["lat"], 6))
    with Image.open(io.BytesIO(row["satellite"]["bytes"])) as image:
        assert image.size == (SATELLITE_PX, SATELLITE_PX)
    for view in row["views"]:
        for name, mode in (("image", "RGB"), ("depth", "L")):
            with Image.open(io.BytesIO(view[name]["bytes"])) as image:
                assert (image.size, image.format, image.mode) == ((32, 8), "PNG", mode)
        assert view["altitude_m"] > 1500
        assert view["heading_deg"] == 0


def test_depths_are_levels_of_their_logarithm():
    depths = np.array([DEPTH_NEAR_M, 4e3, DEPTH_FAR_M, np.inf, 10.0, 1e6])
    assert depth_levels(depths).tolist() == [1, 128, 255, 0, 1, 255]


def test_where_there_is_no_land_nothing_is_looked_for_without_end(world, monkeypatch):
    monkeypatch.setattr(panorama_sets, "_TRIES", 50)
    sea = World(Elevation.of(np.zeros((260, 300)), BOX), world.mosaic, world.band)
    with pytest.raises(ConfigError, match=r"no place for a set of split test .* 50 tries.*give a"):
        draw_set(sea, "test", 0)


# --- shards --------------------------------------------------------------------------------------
def test_a_shard_holds_its_sets_and_says_what_they_are(world, tmp_path, few):
    path = write_shard(world, "train", tmp_path, 3)
    assert path == tmp_path / "train-00003.parquet"
    table = pq.read_table(path)
    assert table["set_id"].to_pylist() == ["train-6", "train-7"]
    assert set(table["source"].to_pylist()) == {LABEL}
    told = json.loads(table.schema.metadata[b"terrascape"])
    assert told["source"] == LABEL
    assert told["band"] == {"height": 8, "width": 32, "top_deg": 45.0, "bottom_deg": -45.0}
    assert list(tmp_path.iterdir()) == [path]


def test_a_shard_that_is_there_is_left_alone(world, tmp_path, few):
    path = write_shard(world, "train", tmp_path, 0)
    path.write_bytes(b"mine")
    assert write_shard(world, "train", tmp_path, 0).read_bytes() == b"mine"


def test_a_shard_that_fails_leaves_nothing_and_is_made_again(world, tmp_path, few, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(pq, "write_table", full)
        with pytest.raises(OSError, match="No space"):
            write_shard(world, "train", tmp_path, 0)
    assert list(tmp_path.iterdir()) == []
    assert write_shard(world, "train", tmp_path, 0).is_file()


# --- the command line ----------------------------------------------------------------------------
@pytest.fixture
def words(tmp_path):
    Image.fromarray(np.full((40, 40), 1500, np.uint16)).save(tmp_path / "dem.png")
    tiles = write_tiles(tmp_path / "tiles.parquet")
    return {
        "--dem": str(tmp_path / "dem.png"), "--dem-bounds": "0,30,50,52",
        "--tiles": str(tiles), "--out": str(tmp_path / "out"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"--dem-bounds": "1,2,3"}, "--dem-bounds '1,2,3' is no box (give W,S,E,N)"),
        ({"--dem-bounds": "0,50,50,30"}, "is no box"),
        ({"--dem-bounds": "a,b,c,d"}, "is no box"),
        ({"--dem": "nowhere.png"}, "nowhere.png is no readable raster"),
        ({"--tiles": "nowhere-*.parquet"}, "'nowhere-*.parquet' matches no file"),
        ({"--shards": "0"}, "--shards 0 is too few (give 1 or more)"),
        ({"--workers": "0"}, "--workers 0 is too few"),
        ({"--height": "2"}, "--height 2 is too few (give 8 or more)"),
        ({"--split": "val"}, "invalid choice: 'val'"),
        ({"--shards": "many"}, "'many' is no whole number"),
    ],
)
def test_mistakes_of_the_command_line_are_one_sentence(words, tmp_path, capsys, changes, told):
    assert main([part for pair in (words | changes).items() for part in pair]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
