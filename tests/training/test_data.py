"""From Parquet to arrays to samples, each a pure function of its number."""

import itertools
import json
import shutil
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny import PLACES, png, smooth_images

from generation.cli import main as terrascape
from generation.errors import ConfigError, MissingFileError
from generation.geo.layers import EmbeddedSource
from generation.geo.layout import LAYERS
from generation.geo.mercator import tile_window
from training.data import MAX_TOKENS, CountedSampler, TileDataset, main, read_rows

ROAD = LAYERS.index("road")


@pytest.fixture(scope="module")
def dataset(tile_folder):
    return TileDataset(tile_folder)


# --- reading and building ------------------------------------------------------------------------
def test_rows_are_tiles_with_their_figures(tile_file):
    rows = list(read_rows([tile_file]))
    assert [row.tile_id for row in rows] == ["/".join(map(str, place)) for place in PLACES]
    assert rows[1].window == tile_window(*PLACES[1])
    np.testing.assert_array_equal(rows[2].image, smooth_images(len(PLACES), 256)[2])
    assert (rows[0].roads > 0).sum() == 256
    assert rows[0].figures["t_mean_c"] == 8


def test_the_folder_holds_what_the_tiles_hold(tile_folder, dataset):
    assert len(dataset) == len(PLACES)
    assert dataset.per_tile == 2
    assert len(set(dataset.captions)) > len(PLACES)
    window = tile_window(*PLACES[0])
    np.testing.assert_array_equal(dataset.classes[0], EmbeddedSource().layout(window).classes)
    np.testing.assert_array_equal(dataset.images[3], smooth_images(len(PLACES), 256)[3])
    assert dataset.rows[1, :3].tolist() == [8, PLACES[1][1] * 256, PLACES[1][2] * 256]


def test_the_token_states_are_those_of_the_captions(dataset, text_encoder):
    states, words = text_encoder(dataset.captions[:3])
    assert dataset.states.shape[1:] == (MAX_TOKENS, 384)
    np.testing.assert_array_equal(dataset.mask[:3], words)
    np.testing.assert_allclose(dataset.states[:3], states, atol=5e-3)


def test_a_pattern_without_files_is_told_and_nothing_is_written(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--data", str(tmp_path / "none-*.parquet"), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "matches no file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_columns_are_named(tile_file, tmp_path):
    table = pq.read_table(tile_file).drop_columns(["elev_m", "roads"])
    pq.write_table(table, tmp_path / "bad.parquet")
    with pytest.raises(ConfigError, match=r"bad\.parquet: columns elev_m, roads are missing"):
        list(read_rows([tmp_path / "bad.parquet"]))


def spoil(tile_file, path, **changes):
    """Write the tiles with other values in the third row."""
    rows = pq.read_table(tile_file).to_pylist()
    rows[2] |= changes
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def stored(data):
    return {"bytes": data, "path": None}


def claimed(width, height):
    """A PNG of a few bytes whose header claims any size."""
    data = bytearray(png(np.zeros((1, 1), np.uint8)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return stored(bytes(data))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tile_id": "8/128"}, "tile_id='8/128' is no tile .*for example 8/132/86"),
        ({"tile_id": "8/x/y"}, "tile_id='8/x/y' is no tile"),
        ({"tile_id": "8/128/999"}, "tile_id='8/128/999' is no tile"),
        ({"tile_id": "-1/0/0"}, "tile_id='-1/0/0' is no tile"),
        ({"tile_id": "9" * 5000}, "tile_id='999.* is no tile"),
        ({"tile_id": None}, "tile_id=None is no tile"),
        ({"image": stored(b"GIF89a")}, "image is no readable image: .*256x256 pixels in image.by"),
        ({"image": stored(b"")}, "image is no readable image"),
        ({"image": stored(None)}, "image is no readable image"),
        ({"image": None}, "image is no readable image"),
        (
            {"image": stored(png(smooth_images(1, 256)[0])[:-999])},
            "image is no readable image: .*tr",
        ),
        ({"image": stored(png(np.zeros((256, 248, 3), np.uint8)))}, r"image has 248x256 pixels \("),
        ({"image": claimed(9500, 9500)}, "image has 9500x9500 pixels"),
        (
            {"image": claimed(99999, 99999)},
            "image is no readable image: .*exceeds limit",
        ),
        ({"roads": stored(b"?")}, "roads is no readable image: .*in roads.bytes"),
        ({"roads": stored(png(np.zeros((1, 1), np.uint8)))}, "roads has 1x1 pixels"),
        ({"elev_m": None}, "elev_m=None is no figure of a tile .*drop the row"),
        ({"t_mean_c": float("nan")}, "t_mean_c=nan is no figure of a tile"),
        ({"lit_frac": float("inf")}, "lit_frac=inf is no figure of a tile"),
        ({"p_year_mm": 1e300}, r"p_year_mm=1e\+300 is no figure of a tile"),
    ],
)
def test_a_row_that_is_no_tile_is_named_with_its_file(tile_file, tmp_path, changes, said):
    path = spoil(tile_file, tmp_path / "bad.parquet", **changes)
    with pytest.raises(ConfigError, match=rf"bad\.parquet, row 3: {said}") as refusal:
        list(read_rows([path]))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_columns_of_another_type_are_told(tile_file, tmp_path):
    table = pq.read_table(tile_file)
    for column, values in (("image", ["x"] * 4), ("tile_id", [1] * 4), ("elev_m", ["high"] * 4)):
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, column, pa.array(values)), tmp_path / "bad.parquet")
        with pytest.raises(ConfigError, match=rf"bad\.parquet, row 1: {column}"):
            list(read_rows([tmp_path / "bad.parquet"]))


def test_a_file_that_is_no_parquet_is_told(tile_file, tmp_path):
    whole = tile_file.read_bytes()
    middle = len(whole) // 2
    for data in (
        b"",
        b"# Read me\n",
        whole[:-9],
        whole[:middle] + b"?" * 99 + whole[middle + 99 :],
    ):
        (tmp_path / "bad.parquet").write_bytes(data)
        with pytest.raises(ConfigError, match=r"bad\.parquet.*\(") as refusal:
            list(read_rows([tmp_path / "bad.parquet"]))
        assert "\n" not in str(refusal.value)


def test_files_without_a_row_are_told(tile_file, tmp_path):
    pq.write_table(pq.read_table(tile_file).slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(ConfigError, match=r"no tile in .*none\.parquet"):
        list(read_rows([tmp_path / "none.parquet"]))
    assert len(list(read_rows([tile_file, tmp_path / "none.parquet"]))) == len(PLACES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "BAD"], "bad.parquet: not readable as Parquet"),
        (["--data", "TILES"], "bad-tile.parquet, row 3: tile_id='nowhere' is no tile"),
        (["--data", "TILES", "--captions", "0"], "--captions 0 is not allowed (give 1 to 100)"),
        (["--data", "TILES", "--captions", f"1{'0' * 400}"], "(give 1 to 100)"),
        (["--data", "TILES", "--captions", "few"], "'few' is no whole number"),
        (["--data", "TILES", "--seed", "-1"], "--seed -1 is not allowed (give 0 to"),
        (["--data", "TILES", "--seed", "-1e3"], "'-1e3' is no whole number"),
        ([], "lacks images.npy"),
        (["--date", "x"], "--date"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(tile_file, tmp_path, words, said, capsys):
    (tmp_path / "bad.parquet").write_text("hello")
    files = {
        "BAD": str(tmp_path / "bad.parquet"),
        "TILES": str(spoil(tile_file, tmp_path / "bad-tile.parquet", tile_id="nowhere")),
    }
    given = [files.get(word, word) for word in words]
    with pytest.raises(SystemExit) as stopped:
        main([*given, "--out", str(tmp_path / "deep/out")])
    assert stopped.value.code == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if said in line]
    assert told.startswith("training.data: ")
    assert not (tmp_path / "deep").exists()


def test_a_folder_that_is_a_file_is_told_before_the_work(tile_file, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        main(["--data", str(tile_file), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "is a file (give a folder)" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_an_evaluation_of_what_is_no_parquet_is_told_in_one_sentence(tmp_path, capsys):
    readme, out = tmp_path / "README.md", tmp_path / "x.json"
    readme.write_text("# Read me")
    words = ["evaluate", "geosynth", "--controls-only", "--data", str(readme), "--out", str(out)]
    assert terrascape(words) == 2
    told = capsys.readouterr().err
    assert "README.md: not readable as Parquet" in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_new_captions_replace_the_old_ones_and_leave_the_tiles(tile_folder, tmp_path):
    shutil.copytree(tile_folder, tmp_path / "copy")
    main(["--out", str(tmp_path / "copy"), "--captions", "3", "--seed", "5"])
    old, new = TileDataset(tile_folder), TileDataset(tmp_path / "copy")
    assert (old.per_tile, new.per_tile) == (2, 3)
    assert old.captions[:2] != new.captions[:2]
    assert len(new.states) == len(new.mask) == 3 * len(PLACES)
    np.testing.assert_array_equal(old.images, new.images)


def test_tiles_are_never_built_over_others(tile_file, tile_folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--data", str(tile_file), "--out", str(tile_folder)])
    assert stopped.value.code == 2
    assert "holds tiles already" in capsys.readouterr().err


# --- samples -------------------------------------------------------------------------------------
def test_a_sample_is_decided_by_its_tile_and_its_number(tile_folder):
    dataset = TileDataset(tile_folder, crop_px=64)
    first, again, other = (dataset[2, draw] for draw in (5, 5, 6))
    for name, value in first.items():
        assert torch.equal(value, again[name])
    assert not torch.equal(first["image"], other["image"])


def test_image_layout_and_place_of_a_crop_belong_together(tile_folder):
    dataset = TileDataset(tile_folder, crop_px=64, road_share=0.0)
    for draw in range(8):
        sample = dataset[0, draw]
        image = sample["image"].numpy()
        top, left = crop_corner(dataset.images[0], image)
        assert top % 8 == left % 8 == 0
        expected = dataset.classes[0][top : top + 64, left : left + 64]
        np.testing.assert_array_equal(sample["classes"], expected)
        whole = tile_window(*PLACES[0])
        window = type(whole)(8, whole.col_px + left, whole.row_px + top, 64, 64)
        place = (window.center.lat, window.center.lon)
        assert sample["latlon"].tolist() == pytest.approx(place, abs=1e-4)
        assert float(sample["gsd_m"]) == pytest.approx(window.gsd_m, rel=1e-6)


def crop_corner(whole, part):
    rows, cols = (range(0, whole.shape[i] - part.shape[i] + 1, 8) for i in (0, 1))
    return next(
        (top, left)
        for top, left in itertools.product(rows, cols)
        if np.array_equal(whole[top : top + 64, left : left + 64], part)
    )


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 256)])
def test_roads_are_drawn_in_the_share_that_was_asked_for(tile_folder, share, expected):
    dataset = TileDataset(tile_folder, road_share=share)
    for draw in range(4):
        assert (dataset[0, draw]["classes"] == ROAD).sum() == expected


def test_a_sample_has_the_states_of_one_of_its_own_captions(dataset):
    for draw in range(6):
        sample = dataset[1, draw]
        own = torch.from_numpy(dataset.states[2:4].astype(np.float32))
        assert (own == sample["states"]).flatten(1).all(1).any()
        assert sample["mask"].dtype == torch.bool


def test_samples_can_be_batched(dataset):
    batch = torch.utils.data.default_collate([dataset[i, 0] for i in range(3)])
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "image": (3, 256, 256, 3),
        "classes": (3, 256, 256),
        "latlon": (3, 2),
        "gsd_m": (3,),
        "states": (3, MAX_TOKENS, 384),
        "mask": (3, MAX_TOKENS),
    }


def test_absent_files_of_a_folder_are_named(tile_folder, tmp_path):
    part = shutil.copytree(tile_folder, tmp_path / "part")
    (part / "mask.npy").unlink()
    (part / "captions.json").unlink()
    with pytest.raises(MissingFileError, match=r"lacks mask\.npy, captions\.json"):
        TileDataset(part)
    assert json.loads((tile_folder / "captions.json").read_text())


@pytest.mark.parametrize("crop", [0, 60, 264])
def test_crops_that_cannot_be_cut_are_refused(tile_folder, crop):
    with pytest.raises(ConfigError, match=f"crop_px={crop}"):
        TileDataset(tile_folder, crop_px=crop)


# --- the order of samples ------------------------------------------------------------------------
def take(count, **options):
    return list(itertools.islice(CountedSampler(7, seed=3, **options), count))


def test_every_pass_sees_each_tile_once_in_another_order():
    passes = np.array([index for index, _ in take(21)]).reshape(3, 7)
    assert (np.sort(passes, axis=1) == np.arange(7)).all()
    assert len({tuple(order) for order in passes.tolist()}) == 3


def test_no_draw_is_used_twice():
    draws = [draw for _, draw in take(40)]
    assert len(set(draws)) == 40


def test_a_later_start_goes_on_where_the_first_would_be():
    assert take(10, start=9) == take(19)[9:]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_order_of_one(world):
    parts = [take(8, start=12, rank=rank, world_size=world) for rank in range(world)]
    merged = [sample for group in zip(*parts, strict=True) for sample in group]
    assert merged == take(12 + 8 * world)[12:]


def test_another_seed_gives_another_order():
    other = itertools.islice(CountedSampler(7, seed=4), 14)
    assert list(other) != take(14)
