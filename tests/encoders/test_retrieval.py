"""RANGE: looks retrieved for places, and databases of one's own."""

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from generation.encoders.location import LocationEncoder
from generation.encoders.retrieval import (
    RetrievalDatabase,
    RetrievalEncoder,
    between,
    distances_km,
)
from generation.encoders.retrieval_build import build_database
from generation.encoders.retrieval_model import (
    TileTower,
    load_retrieval,
    open_retrieval,
    save_retrieval,
    towers_sha256,
)
from generation.encoders.tile_statistics import STATISTICS, tile_statistics
from generation.errors import (
    InvalidLocationError,
    InvalidSpecError,
    MissingFileError,
    OutputError,
    WeightsError,
)

SETTINGS = {"temperature": 12.0, "geo_temperature": 40.0, "beta": 0.5}


def places(count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.stack(
        [160 * torch.rand(count, generator=rng) - 80, 358 * torch.rand(count, generator=rng) - 179],
        1,
    )


def database(rows=50, key=6, value=5):
    rng = torch.Generator().manual_seed(1)
    keys = F.normalize(torch.randn(rows, key, generator=rng), dim=1)
    return RetrievalDatabase(places(rows), keys, torch.randn(rows, value, generator=rng), {})


def location(dim=6):
    torch.manual_seed(0)
    return LocationEncoder(degree=4, hidden_dim=16, embed_dim=dim).eval().requires_grad_(False)


@pytest.fixture
def encoder():
    return RetrievalEncoder(location(), database())


def by_hand(encoder, latlon, beta):
    """The published sums, written out row by row in double precision."""
    db, rows = encoder.database, []
    for lat, lon in np.radians(latlon.double().numpy()):
        here = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
        query = encoder.location(
            torch.tensor([[np.degrees(lat), np.degrees(lon)]], dtype=torch.float32)
        )[0].double()
        query = (query / query.norm()).numpy()
        semantic, geodesic = [], []
        for place, key in zip(
            np.radians(db.latlon.double().numpy()), db.keys.double().numpy(), strict=True
        ):
            there = np.array(
                [np.cos(place[0]) * np.cos(place[1]), np.cos(place[0]) * np.sin(place[1]),
                 np.sin(place[0])]
            )  # fmt: skip
            semantic.append(np.exp(encoder.temperature * key @ query))
            geodesic.append(np.exp(encoder.geo_temperature * here @ there))
        w, g = np.array(semantic) / sum(semantic), np.array(geodesic) / sum(geodesic)
        rows.append(((1 - beta) * g + beta * w) @ db.values.double().numpy())
    return torch.tensor(np.array(rows)).float()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_it_computes_the_published_sums(encoder, beta):
    latlon = places(7, seed=3)
    torch.testing.assert_close(
        encoder.visual(latlon, beta), by_hand(encoder, latlon, beta), atol=1e-5, rtol=1e-4
    )


def test_the_place_part_stands_behind_the_visual_part(encoder):
    latlon = places(3, seed=4)
    found = encoder(latlon)
    assert found.shape == (3, encoder.value_dim + encoder.key_dim)
    assert torch.equal(found[:, 5:], encoder.key(latlon))
    torch.testing.assert_close(encoder.key(latlon).norm(dim=1), torch.ones(3))


def test_queries_in_parts_give_what_they_give_at_once(encoder, monkeypatch):
    latlon = places(23, seed=5)
    whole = encoder(latlon)
    monkeypatch.setattr("generation.encoders.retrieval._ENTRIES", 4 * 50)
    torch.testing.assert_close(encoder(latlon), whole)


def test_gradients_reach_places_also_in_parts(encoder, monkeypatch):
    latlon = places(9, seed=6).double().requires_grad_()
    encoder.visual(latlon).square().sum().backward()
    whole = latlon.grad.clone()
    latlon.grad = None
    monkeypatch.setattr("generation.encoders.retrieval._ENTRIES", 100)
    encoder.visual(latlon).square().sum().backward()
    torch.testing.assert_close(latlon.grad, whole)
    step = torch.zeros_like(latlon)
    step[2, 0] = 1e-2
    with torch.no_grad():
        up, down = (encoder.visual(latlon + s * step).square().sum() for s in (1, -1))
    assert float(whole[2, 0]) == pytest.approx(float(up - down) / 2e-2, rel=0.05, abs=1e-3)


@pytest.mark.slow
def test_ten_thousand_queries_of_a_hundred_thousand_rows_stay_below_a_gigabyte():
    import subprocess
    import sys

    code = """
import resource, torch
from generation.encoders.location import LocationEncoder
from generation.encoders.retrieval import RetrievalDatabase, RetrievalEncoder
torch.manual_seed(0)
rows = torch.stack([180 * torch.rand(100_000) - 90, 360 * torch.rand(100_000) - 180], 1)
db = RetrievalDatabase(rows, torch.nn.functional.normalize(torch.randn(100_000, 64), dim=1),
                       torch.randn(100_000, 128), {})
encoder = RetrievalEncoder(LocationEncoder(degree=4, embed_dim=64), db).requires_grad_(False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = encoder(rows[:10_000])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6, tuple(found.shape))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    gigabytes, shape = out.stdout.split(" ", 1)
    assert float(gigabytes) < 1
    assert shape.strip() == "(10000, 192)"


def test_sources_name_places_weights_and_kilometres(encoder):
    found = encoder.sources(47.0, 8.0, top=50, beta=0.0)
    assert sum(each.weight for each in found) == pytest.approx(1, abs=1e-5)
    assert [e.weight for e in found] == sorted((e.weight for e in found), reverse=True)
    assert [e.km for e in found] == sorted(e.km for e in found), "nearness decides at beta 0"
    first = found[0]
    assert encoder.nearest_km(47.0, 8.0) == pytest.approx(first.km, rel=1e-4)
    row = encoder.database.latlon[first.row]
    assert (first.lat, first.lon) == pytest.approx(tuple(row.tolist()))
    sharp = encoder.sources(47.0, 8.0, top=50, beta=1.0)
    assert [e.km for e in sharp] != sorted(e.km for e in sharp)


def test_the_radius_is_where_nearness_weighs_a_third_of_most(encoder):
    assert encoder.radius_km == pytest.approx(1424.6, abs=0.2)
    away = distances_km(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 12.81]]))[0, 0]
    weight = np.exp(40 * (np.cos(float(away) / 6371.0088) - 1))
    assert float(away) == pytest.approx(1424.4, abs=1)
    assert weight == pytest.approx(0.37, abs=0.01)


def test_half_of_all_weight_lies_within_the_spread(encoder):
    spread = encoder.spread_km(10.0, 20.0, beta=0.3)
    weights = encoder.weights(torch.tensor([[10.0, 20.0]]), 0.3)[0]
    km = distances_km(torch.tensor([[10.0, 20.0]]), encoder.database.latlon)[0]
    assert float(weights[km <= spread].sum()) >= 0.5 > float(weights[km < spread - 1].sum())


@pytest.mark.parametrize(
    ("latlon", "hint"),
    [([[98.0, 45.0]], "swapped"), ([[float("nan"), 0.0]], "no such place"), ([[0, 181.0]], "lon")],
)
def test_places_off_the_earth_are_refused(encoder, latlon, hint):
    with pytest.raises(InvalidLocationError, match=hint):
        encoder(torch.tensor(latlon, dtype=torch.float32))


@pytest.mark.parametrize("beta", [-0.1, 1.5, float("nan")])
def test_a_beta_that_is_no_share_is_refused(encoder, beta):
    with pytest.raises(InvalidSpecError, match="what lies near"):
        encoder(places(1), beta)


def test_keys_and_values_must_belong_together():
    db = database()
    with pytest.raises(WeightsError, match="50 places, 49 keys and 50 values"):
        replace(db, keys=db.keys[1:])
    with pytest.raises(WeightsError, match="values of this database have 5 dimensions and not 9"):
        replace(db, about={"value_dim": 9})
    with pytest.raises(WeightsError, match="gives 8 dimensions and the keys"):
        RetrievalEncoder(location(8), db)


def test_rows_can_be_left_out(encoder):
    gone = encoder.database.latlon[:, 0] > 0
    less = encoder.database.without(gone)
    assert len(less) == int((~gone).sum())
    assert bool((less.latlon[:, 0] <= 0).all())


def test_ways_between_places_follow_the_great_circle():
    assert between((0.0, 0.0), (0.0, 90.0), 0.5) == pytest.approx((0.0, 45.0))
    lat, lon = between((60.0, -90.0), (60.0, 90.0), 0.5)
    assert lat == pytest.approx(90.0)
    lat, lon = between((10.0, 170.0), (10.0, -170.0), 0.5)
    assert abs(lon) == pytest.approx(180.0)
    assert lat > 10
    assert between((3.0, 4.0), (3.0, 4.0), 0.3) == (3.0, 4.0)
    with pytest.raises(InvalidSpecError, match="opposite"):
        between((0.0, 0.0), (0.0, 180.0), 0.5)


# --- looks ---------------------------------------------------------------------------------------


def picture(seed, px=64):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (px, px, 3), dtype=np.uint8)


def test_looks_say_nothing_of_where_things_lie():
    image = picture(0)
    moved = np.roll(image, (16, 24), (0, 1))
    first, second, other = tile_statistics(np.stack([image, moved, picture(1) // 2]))
    assert first.shape == (STATISTICS,)
    assert (first - second).abs().max() < 0.1 * (first - other).abs().max()


def test_a_plain_image_has_finite_looks():
    assert tile_statistics(np.zeros((1, 64, 64, 3), np.uint8)).isfinite().all()


def test_small_images_are_refused():
    with pytest.raises(InvalidSpecError, match="64 px"):
        tile_statistics(np.zeros((1, 32, 32, 3), np.uint8))


# --- folders -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    tower = TileTower(width=16, dim=6)
    tower.fit(tile_statistics(np.stack([picture(n) for n in range(4)])))
    tower.eval()
    looks = tower.look(tile_statistics(np.stack([picture(n) for n in range(4)])))
    where = location()
    about = {"key_dim": 6, "value_dim": STATISTICS, "towers_sha256": towers_sha256(where, tower)}
    with torch.no_grad():
        keys = F.normalize(tower(looks), dim=1)
    db = RetrievalDatabase(places(4), keys, looks, about)
    save_retrieval(tmp_path / "base", SETTINGS, where, tower, db)
    return tmp_path / "base"


def parquet(path, rows, px=64):
    cells = []
    for seed, lat, lon in rows:
        out = BytesIO()
        Image.fromarray(picture(seed, px)).save(out, "PNG")
        cells.append({"image": {"bytes": out.getvalue(), "path": None}, "lat": lat, "lon": lon})
    pq.write_table(pa.Table.from_pylist(cells), path)
    return path


def test_a_folder_is_read_as_it_was_written(folder):
    found = load_retrieval(str(folder))
    assert len(found.encoder.database) == 4
    assert found.encoder.beta == 0.5
    looks, keys = found.read(picture(2)[None])
    torch.testing.assert_close(looks[0], found.encoder.database.values[2], atol=5e-3, rtol=1e-2)
    best, row = found.encoder.most_alike(keys)
    assert int(row) == 2
    assert float(best) == pytest.approx(1, abs=1e-2)


def test_each_row_of_a_built_database_is_of_one_image(folder, tmp_path):
    rows = [(n, 10.0 * n - 50, 30.0 * n - 170) for n in range(9)]
    files = [parquet(tmp_path / "a.parquet", rows[:5]), parquet(tmp_path / "b.parquet", rows[5:])]
    built = build_database(files, open_retrieval(folder), tmp_path / "own")
    assert (built.rows, built.resumed, built.repeated) == (9, 0, 0)
    own = open_retrieval(tmp_path / "own")
    for row, (seed, lat, lon) in enumerate(rows):
        looks, keys = own.read(picture(seed)[None])
        assert own.encoder.database.latlon[row].tolist() == pytest.approx([lat, lon])
        torch.testing.assert_close(looks[0], own.encoder.database.values[row], atol=5e-3, rtol=1e-2)
        assert int(own.encoder.most_alike(keys)[1]) == row
    about = json.loads((tmp_path / "own" / "database.json").read_text())
    assert [each["name"] for each in about["files"]] == ["a.parquet", "b.parquet"]
    assert not (tmp_path / "own.parts").exists()


def test_a_build_that_was_stopped_goes_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("generation.encoders.retrieval_build._PART", 3)
    file = parquet(tmp_path / "a.parquet", [(n, float(n), float(n)) for n in range(8)])
    base = open_retrieval(folder)

    def stop(done, total):
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_database([file], base, tmp_path / "own", on_rows=stop)
    assert not (tmp_path / "own").exists()
    built = build_database([file], base, tmp_path / "own")
    assert (built.rows, built.resumed) == (8, 6)
    build_database([file], base, tmp_path / "again")
    one, other = (open_retrieval(tmp_path / name).encoder.database for name in ("own", "again"))
    assert torch.equal(one.values, other.values)
    assert torch.equal(one.latlon, other.latlon)


def test_parts_of_another_build_are_not_taken(folder, tmp_path):
    file = parquet(tmp_path / "a.parquet", [(0, 1.0, 1.0)])
    (tmp_path / "own.parts").mkdir()
    (tmp_path / "own.parts" / "plan.json").write_text("{}")
    with pytest.raises(OutputError, match="parts of a build of other files"):
        build_database([file], open_retrieval(folder), tmp_path / "own")


@pytest.mark.parametrize(
    ("row", "hint"),
    [((0, 98.0, 45.0), "swapped"), ((0, None, 45.0), "no place"), ((0, 1.0, 200.0), "row 2")],
)
def test_a_row_without_a_place_is_named(folder, tmp_path, row, hint):
    file = parquet(tmp_path / "a.parquet", [(1, 1.0, 1.0), row])
    with pytest.raises(InvalidSpecError, match=hint):
        build_database([file], open_retrieval(folder), tmp_path / "own")


def test_images_of_several_sizes_are_refused(folder, tmp_path):
    files = [
        parquet(tmp_path / "a.parquet", [(1, 1.0, 1.0)]),
        parquet(tmp_path / "b.parquet", [(1, 1.0, 1.0)], px=80),
    ]
    with pytest.raises(InvalidSpecError, match="80x80 px among those of 64x64 px"):
        build_database(files, open_retrieval(folder), tmp_path / "own")


def test_what_is_no_parquet_of_images_is_refused(folder, tmp_path):
    base = open_retrieval(folder)
    (tmp_path / "no.parquet").write_bytes(b"no")
    with pytest.raises(InvalidSpecError, match="not readable as Parquet"):
        build_database([tmp_path / "no.parquet"], base, tmp_path / "own")
    pq.write_table(pa.table({"lat": [1.0]}), tmp_path / "few.parquet")
    with pytest.raises(InvalidSpecError, match="no column image or lon"):
        build_database([tmp_path / "few.parquet"], base, tmp_path / "own")
    with pytest.raises(MissingFileError):
        build_database([tmp_path / "none.parquet"], base, tmp_path / "own")


def test_a_database_of_other_encoders_is_refused(folder):
    about = json.loads((folder / "database.json").read_text())
    (folder / "database.json").write_text(json.dumps({**about, "towers_sha256": "0" * 64}))
    with pytest.raises(WeightsError, match="made by encoders of sha256 000000000000"):
        open_retrieval(folder)


def test_a_model_that_retrieves_nothing_is_refused():
    with pytest.raises(InvalidSpecError, match="retrieves no looks"):
        load_retrieval("geoclip-location")
