"""Galleries: written whole, searched exactly, and only by the model that made them."""

import hashlib
import math

import lancedb
import numpy as np
import pyarrow as pa
import pytest
import torch

from generation.encoders.gallery import MAX_TOP, Gallery
from generation.encoders.gallery_rows import Entry, Hit, Maker, table_of
from generation.encoders.heads import Embedding, likeness
from generation.errors import InvalidSpecError, MissingFileError, OutputError, WeightsError
from generation.geo.location import Location, Region

DIM = 6
OURS, THEIRS = "a" * 64, "b" * 64
HOSTILE = """it's "free" %') OR 1=1 --"""
TILES = [(0.0, 180.0), (10.0, -180.0), (20.0, 179.0), (30.0, -179.0), (46.0, 7.0), (-46.0, -7.0)]


def maker(kind="pooled"):
    return Maker("psm-nano", OURS, kind, DIM)


def embedding(kind, count, seed=0):
    """Random rows; codes are not of unit length, and Gaussians differ in their spread."""
    draw = torch.Generator().manual_seed(seed)
    vector = torch.randn(count, DIM, generator=draw)
    if kind == "codebook":
        return Embedding(vector, weights=torch.rand(count, 4, generator=draw))
    vector = vector / vector.norm(dim=1, keepdim=True)
    wide = torch.randn(count, DIM, generator=draw) - 2
    return Embedding(vector, wide if kind == "gaussian" else None)


def tile(lat=46.0, lon=7.0, **more):
    place = {"lat": lat, "lon": lon, "gsd_m": 600.0, "location_source": "real"}
    return Entry(kind="tile", title="a tile", licence="CC0", author="NASA", **(place | more))


def clip(title="a clip", licence="CC-BY", **more):
    return Entry(kind="clip", title=title, licence=licence, author="someone", **more)


def mixed(count):
    return [tile() if row % 3 else clip(month=row % 12 + 1) for row in range(count)]


@pytest.fixture
def small(tmp_path):
    """Six tiles around the world, and three clips of months and licences."""
    entries = [tile(*place) for place in TILES]
    entries += [clip(month=5, hour=6.5), clip(month=6, licence=HOSTILE), clip("a caption")]
    found = embedding("pooled", len(entries))
    return Gallery.create(str(tmp_path / "small"), maker(), entries, found)


def rows(gallery, **filters):
    hits = gallery.search(embedding("pooled", 1, 9), MAX_TOP, **filters)
    return sorted(hit.row for hit in hits)


@pytest.mark.parametrize("kind", ["pooled", "gaussian", "codebook"])
def test_a_search_gives_what_comparing_every_row_gives(kind, tmp_path):
    entries, stored, query = mixed(400), embedding(kind, 400), embedding(kind, 1, 7)
    gallery = Gallery.create(str(tmp_path / "g"), maker(kind), entries, stored)
    every = likeness(query, stored)[0]
    for filters, passing in (
        ({}, range(400)),
        ({"kinds": ["clip"]}, range(0, 400, 3)),
        ({"month": 4}, [row for row in range(0, 400, 3) if row % 12 == 3]),
    ):
        wanted = sorted(passing, key=lambda row: -every[row].item())[:20]
        hits = gallery.search(query, 20, **filters)
        assert [hit.row for hit in hits] == wanted
        scores = torch.tensor([hit.score for hit in hits])
        torch.testing.assert_close(scores, every[wanted], atol=2e-6, rtol=0)


def test_a_wider_gaussian_is_less_alike_by_its_variance(tmp_path):
    vector = torch.eye(DIM)[:1].repeat(3, 1)
    wide = torch.full((3, DIM), -3.0)
    wide[0] += 2
    gallery = Gallery.create(
        str(tmp_path / "g"), maker("gaussian"), mixed(3), Embedding(vector, wide)
    )
    hits = gallery.search(Embedding(vector[:1], torch.full((1, DIM), -3.0)), 3)
    assert [hit.row for hit in hits] == [1, 2, 0]
    assert hits[0].score == pytest.approx(-2 * DIM * math.exp(-3), abs=1e-6)
    assert hits[2].score == pytest.approx(-DIM * (math.exp(-3) + math.exp(-1)), abs=1e-6)


def test_equal_scores_come_in_the_order_of_the_rows_however_many_there_are(tmp_path):
    same = Embedding(embedding("pooled", 1).vector.repeat(150, 1))
    gallery = Gallery.create(str(tmp_path / "g"), maker(), mixed(150), same)
    hits = gallery.search(embedding("pooled", 1, 3), 5)
    assert [hit.row for hit in hits] == [0, 1, 2, 3, 4]


def test_a_hit_tells_all_that_was_entered(small):
    [hit] = small.search(embedding("pooled", 1), 1, month=5)
    assert (hit.row, hit.kind, hit.month, hit.hour, hit.lat) == (6, "clip", 5, 6.5, None)
    [hit] = small.search(embedding("pooled", 9)[:1], 1)
    assert isinstance(hit, Hit)
    assert (hit.row, hit.lat, hit.lon, hit.gsd_m) == (0, 0.0, 180.0, 600.0)
    assert (hit.licence, hit.author, hit.location_source) == ("CC0", "NASA", "real")
    assert hit.score == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        ((178.0, -5.0, -178.0, 35.0), [0, 1, 2, 3]),  # across the antimeridian
        ((178.0, -5.0, 180.0, 35.0), [0, 1, 2]),  # up to it: -180 is 180
        ((-180.0, -5.0, -178.0, 35.0), [0, 1, 3]),
        ((178.0, -5.0, 179.5, 35.0), [2]),
        ((7.0, 46.0, 8.0, 47.0), [4]),  # its edges belong to it
        ((8.0, 46.0, 7.0, 47.0), [4]),  # the long way round
        ((-180.0, -90.0, 180.0, 90.0), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_region_keeps_what_lies_in_it(small, box, inside):
    assert rows(small, region=Region(*box)) == inside


def test_filters_join(small):
    assert rows(small, kinds=["clip"]) == [6, 7, 8]
    assert rows(small, kinds=["clip", "tile"], licences=["cc0", "cc-by"]) == [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        8,
    ]
    assert rows(small, kinds=["caption"]) == []
    assert rows(small, month=6, kinds=["clip"], licences=["CC-BY"]) == []


def test_words_of_a_filter_are_never_a_command(small):
    assert rows(small, licences=[HOSTILE]) == [7]
    assert rows(small, licences=[HOSTILE.upper()]) == [7]
    for word in ("x' OR '1'='1", "CC0' --", 'CC0"', "CC", "%", "", "CC0\0"):
        with pytest.raises(InvalidSpecError, match="give one of"):
            rows(small, licences=[word])
        with pytest.raises(InvalidSpecError, match="tile, clip, caption"):
            rows(small, kinds=[word])


def test_the_nearest_tile_is_found_across_the_antimeridian(small):
    entry, found, apart_km = small.nearest_tile(Location(20.0, -179.5))
    assert (entry.lat, entry.lon) == (20.0, 179.0)
    assert apart_km == pytest.approx(156.7, abs=0.5)
    torch.testing.assert_close(found.vector, embedding("pooled", 9).vector[2:3])


def test_another_model_is_refused_and_both_hashes_are_named(small):
    with pytest.raises(WeightsError, match=f"(?s){OURS}.*{THEIRS}"):
        Gallery.open(small.uri, THEIRS)
    assert Gallery.open(small.uri, OURS).maker == maker()


@pytest.mark.parametrize(
    ("query", "top", "told"),
    [
        (embedding("pooled", 1), 0, "top=0"),
        (embedding("pooled", 1), MAX_TOP + 1, "1 to 1000"),
        (embedding("pooled", 2), 5, "2 queries"),
        (embedding("gaussian", 1), 5, "Gaussians of 6 axes"),
        (Embedding(torch.ones(1, DIM + 1)), 5, "points of 7 axes"),
        (Embedding(torch.zeros(1, DIM)), 5, "zero or not finite"),
        (Embedding(torch.full((1, DIM), math.nan)), 5, "zero or not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(small, query, top, told):
    with pytest.raises(InvalidSpecError, match=told):
        small.search(query, top)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"kind": "song"}, "kind='song'"),
        ({"location_source": "guessed"}, "location_source='guessed'"),
        ({"lat": None}, "half a place"),
        ({"location_source": "none"}, "none has no place"),
        ({"lat": math.nan}, "lat=nan"),
        ({"month": 13}, "month=13"),
        ({"hour": 24.0}, "hour=24"),
        ({"gsd_m": math.inf}, "gsd_m=inf"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(wrong, told):
    known = {"kind": "tile", "title": "", "licence": "", "author": ""}
    place = {"lat": 1.0, "lon": 2.0, "location_source": "real"}
    with pytest.raises(ValueError, match=told):
        Entry(**(known | place | wrong))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Embedding(torch.tensor([[math.inf] * DIM])), "1 of 1 embeddings"),
        (Embedding(torch.zeros(1, DIM)), "1 of 1 embeddings"),
        (embedding("pooled", 2), "1 entries and 2 embeddings"),
    ],
)
def test_a_gallery_that_cannot_be_leaves_nothing(tmp_path, found, told):
    with pytest.raises(InvalidSpecError, match=told):
        Gallery.create(str(tmp_path / "g"), maker(), [tile()], found)
    assert list(tmp_path.iterdir()) == []


def test_a_gallery_is_never_overwritten_and_searching_changes_no_byte(small, tmp_path):
    def digests():
        files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = digests()
    with pytest.raises(OutputError, match="not overwritten"):
        Gallery.create(small.uri, maker(), [tile()], embedding("pooled", 1))
    assert rows(Gallery.open(small.uri), kinds=["tile"]) == [0, 1, 2, 3, 4, 5]
    assert digests() == before
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in before)


def test_an_address_of_an_object_store_takes_the_same_way(tmp_path):
    uri = f"file://{tmp_path}/store"
    gallery = Gallery.create(uri, maker(), mixed(30), embedding("pooled", 30))
    assert len(Gallery.open(uri, OURS)) == 30
    assert gallery.search(embedding("pooled", 30)[7:8], 1)[0].row == 7
    with pytest.raises(OutputError, match="new place"):
        Gallery.create(uri, maker(), mixed(30), embedding("pooled", 30))


def test_where_no_gallery_is_none_is_made(tmp_path):
    with pytest.raises(MissingFileError, match=r"training\.sound_gallery"):
        Gallery.open(str(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "gone", "foreign", "unnamed"])
def test_a_damaged_gallery_is_told_in_a_sentence(small, tmp_path, damage):
    table = tmp_path / "small/gallery.lance"
    uri = small.uri
    if damage == "cut":
        [data] = table.glob("data/*")
        data.write_bytes(data.read_bytes()[:500])
    elif damage == "gone":
        [manifest] = table.glob("_versions/*.manifest")
        manifest.unlink()
    else:
        uri = str(tmp_path / "other")
        data = pa.table({"vector": pa.array([[0.0] * DIM], pa.list_(pa.float32(), DIM))})
        about = {"terrascape_gallery": "1"} if damage == "unnamed" else None
        lancedb.connect(uri).create_table("gallery", data.replace_schema_metadata(about))
    with pytest.raises(WeightsError, match="no whole gallery"):
        rows(Gallery.open(uri))


def test_numbers_that_are_none_never_come_out(tmp_path):
    spread = np.full(3, math.nan, np.float32)
    damaged = table_of(maker("gaussian"), mixed(3), np.ones((3, DIM + 1), np.float32), spread)
    lancedb.connect(tmp_path).create_table("gallery", damaged)
    with pytest.raises(WeightsError, match="numbers that are none"):
        Gallery.open(str(tmp_path)).search(embedding("gaussian", 1), 3)
