"""``terrascape search`` from a folder of tiles and clips to its answers."""

import json

import numpy as np
import pytest
import soundfile
import torch

from generation.checkpoint import save_part
from generation.cli import main
from generation.encoders.gallery import Gallery
from generation.encoders.gallery_rows import Entry, Maker
from generation.encoders.heads import Embedding, likeness
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_space import SoundSpace
from generation.geo.mercator import tile_window
from generation.media.geotiff import geotiff_bytes
from training.data import FIELDS
from training.sound_gallery import main as build
from training.sound_pairs import SAID

TOWER = {"dim": 8, "depth": 1, "heads": 2}
SPACES = {"geoclap-nano": ("pooled", "none"), "psm-nano": ("gaussian", "late")}
PLACES = [(8, 132, 86), (8, 135, 90), (8, 0, 60), (8, 255, 60)]
CLIPS = [("Rain", "rain.wav", "CC0", None, None), ("Sea waves", "\x1b[2Jsurf", "CC-BY", 5.0, 6.5)]
PHRASES = sum(len(said) for said in SAID.values())


def save_space(folder, kind, joined):
    towers = {"image": {**TOWER, "image_px": 16}, "audio": {**TOWER, "frames": 48}}
    metadata = {"layers": 1, "heads": 2}
    torch.manual_seed(0)
    space = SoundSpace(kind, joined, dim=12, width=16, towers=towers, metadata=metadata)
    save_part(space, folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Untrained spaces under registered names, and what galleries are built from."""
    root = tmp_path_factory.mktemp("home")
    for name, setting in SPACES.items():
        save_space(root / name, *setting)
    draw = np.random.default_rng(0)
    for name in ("tiles", "pairs"):
        (root / name).mkdir()
    rows = [[zoom, 256 * x, 256 * y, *[1.0] * len(FIELDS)] for zoom, x, y in PLACES]
    np.save(root / "tiles/rows.npy", np.array(rows))
    np.save(root / "tiles/images.npy", draw.integers(0, 256, (4, 256, 256, 3), dtype=np.uint8))
    names = ("label", "title", "licence", "month", "hour")
    clips = [{**dict(zip(names, c, strict=True)), "author": "someone", "url": ""} for c in CLIPS]
    (root / "pairs/clips.json").write_text(json.dumps(clips))
    np.save(root / "pairs/mels.npy", draw.normal(-5, 2, (2, 64, 48)).astype(np.float16))
    for name in SPACES:
        build(words_of(root, name, root / "galleries" / name))
    return root


def words_of(root, model, out):
    given = {"tiles": root / "tiles", "pairs": root / "pairs", "model": root / model, "out": out}
    return [f"--{name}={value}" for name, value in given.items()]


@pytest.fixture
def ask(home, monkeypatch, capsys):
    """Run the command; give its exit code, what it printed, and what it noted."""
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))

    def run(*words, space="geoclap-nano"):
        code = main(["search", "--gallery", str(home / "galleries" / space), *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def sound(tmp_path):
    samples = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
    soundfile.write(tmp_path / "sound.wav", samples, 16_000)
    return str(tmp_path / "sound.wav")


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    (tmp_path / "image.tif").write_bytes(geotiff_bytes(pixels, tile_window(8, 132, 86), {}))
    return str(tmp_path / "image.tif")


def test_a_gallery_holds_every_tile_clip_and_phrase_with_its_credit(home):
    gallery = Gallery.open(str(home / "galleries/geoclap-nano"))
    assert gallery.maker.model == "geoclap-nano"
    assert len(gallery) == len(PLACES) + len(CLIPS) + PHRASES
    hits = gallery.search(Embedding(torch.ones(1, 12)), 1000)
    by_row = sorted(hits, key=lambda hit: hit.row)
    tile, rain, surf, said = by_row[0], by_row[4], by_row[5], by_row[6]
    window = tile_window(*PLACES[0])
    assert (tile.kind, tile.title, tile.gsd_m) == ("tile", "tile 8/132/86", window.gsd_m)
    assert (tile.lat, tile.lon) == (window.center.lat, window.center.lon)
    assert (tile.licence, tile.location_source) == ("NASA open data", "real")
    assert (rain.title, rain.licence, rain.lat, rain.month) == ("Rain: rain.wav", "CC0", None, None)
    assert (surf.month, surf.hour, surf.location_source) == (5, 6.5, "none")
    assert (said.kind, said.title, said.author) == ("caption", "surf on a beach", "Terrascape")


@pytest.mark.parametrize("space", SPACES)
def test_a_gallery_holds_what_the_space_says_of_each_thing(home, space):
    gallery = Gallery.open(str(home / "galleries" / space))
    encoder = SoundEncoder.from_pretrained(home / space)
    images = np.load(home / "tiles/images.npy")[:, 64:192, 64:192]
    gsd = np.array([tile_window(*place).gsd_m for place in PLACES])
    with torch.no_grad():
        mels = torch.from_numpy(np.load(home / "pairs/mels.npy").astype(np.float32))
        clips = encoder.space.embed_audio(mels)
    query = encoder.text(["surf on a beach"])
    every = likeness(query, Embedding.cat([encoder.image(images, gsd), clips]))[0]
    hits = gallery.search(query, 6, kinds=["tile", "clip"])
    for hit in hits:
        assert hit.score == pytest.approx(every[hit.row].item(), abs=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_words_find_tiles_and_clips(ask):
    code, out, err = ask("--text", "surf on a beach", "--top", "5")
    assert code == 0
    assert "location_source=simulated" in err
    lines = out.splitlines()
    kinds = [line.split()[1] for line in lines]
    assert kinds == ["tile"] * min(5, len(PLACES)) + ["clip"] * min(5, len(CLIPS))
    assert {line.split()[1] for line in lines} <= {"tile", "clip"}
    assert any("  tile     " in line and "(NASA open data, NASA Earth" in line for line in lines)


def test_hostile_titles_do_not_reach_the_terminal(ask):
    code, out, _ = ask("--text", "surf", "--kind", "clip")
    assert code == 0
    assert "Sea waves: \N{REPLACEMENT CHARACTER}[2Jsurf  (CC-BY, someone)" in out
    assert "\x1b" not in out


def test_a_sound_finds_tiles_and_captions_as_json(ask, sound):
    code, out, _ = ask("--audio", sound, "--json", "--top", "1000")
    hits = json.loads(out)
    assert code == 0
    assert len(hits) == len(PLACES) + PHRASES
    assert {hit["kind"] for hit in hits} == {"tile", "caption"}
    for kind in ("tile", "caption"):  # the best of each kind, kind by kind
        scores = [hit["score"] for hit in hits if hit["kind"] == kind]
        assert scores == sorted(scores, reverse=True)


def test_a_place_is_asked_about_with_its_nearest_tile(ask):
    code, out, err = ask("--lat", "60", "--lon", "179.9", "--kind", "tile", "--top", "1", "--json")
    [hit] = json.loads(out)
    assert code == 0
    assert hit["title"] in {"tile 8/0/60", "tile 8/255/60"}
    assert hit["score"] == pytest.approx(1, abs=1e-5)
    assert f"{hit['title']!r}" in err
    assert "km away" in err
    _, out, _ = ask("--lat", "60", "--lon", "179.9")
    assert {line.split()[1] for line in out.splitlines()} <= {"clip", "caption"}


def test_an_image_tells_its_place_month_and_hour_where_the_space_listens(ask, image):
    asked = ["--image", image, "--json", "--top", "3"]
    found = [ask(*asked, space="psm-nano"), ask(*asked, "--at-hour", "6", space="psm-nano")]
    assert [code for code, _, _ in found] == [0, 0]
    assert "its place was told" in found[0][2]
    now, dawn = ([hit["score"] for hit in json.loads(out)] for _, out, _ in found)
    assert now != dawn
    code, _, err = ask(*asked)
    assert code == 0
    assert "was not told" in err
    code, _, err = ask(*asked, "--at-month", "5")
    assert code == 2
    assert "'geoclap-nano' knows no month (leave it out, or choose" in err


def test_filters_are_options(ask):
    tiles = ["--text", "surf", "--kind", "tile", "--json"]
    _, out, _ = ask(*tiles, "--region", "-180,60,-170,75")
    assert [hit["title"] for hit in json.loads(out)] == ["tile 8/0/60"]
    _, out, _ = ask(*tiles, "--region", "170,60,-170,75")
    assert {hit["title"] for hit in json.loads(out)} == {"tile 8/0/60", "tile 8/255/60"}
    _, out, _ = ask("--text", "surf", "--month", "5", "--licence", "cc-by", "--json")
    assert [hit["month"] for hit in json.loads(out)] == [5]
    code, out, err = ask("--text", "surf", "--month", "7", "--json")
    assert (code, json.loads(out)) == (0, [])
    assert "nothing in the gallery passes" in err


def test_simulated_places_are_told(ask, home, tmp_path):
    maker = Maker.of(SoundEncoder.from_pretrained(home / "geoclap-nano"))
    about = {"kind": "clip", "title": "rain", "licence": "CC0", "author": "someone"}
    entry = Entry(**about, lat=1.0, lon=2.0, location_source="simulated")
    Gallery.create(str(tmp_path / "g"), maker, [entry], Embedding(torch.ones(1, 12)))
    code, _, err = ask("--gallery", str(tmp_path / "g"), "--text", "rain")
    assert code == 0
    assert "location_source=simulated" in err


def test_a_gallery_of_another_model_is_refused_by_both_hashes(ask, home):
    hashes = [SoundEncoder.from_pretrained(home / name).sha256 for name in SPACES]
    for way in (["--text", "surf"], ["--lat", "46", "--lon", "7"]):
        code, out, err = ask(*way, "--model", "psm-nano")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert all(each in err for each in hashes)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ["nothing to search by", "--text"]),
        (["--text", "a", "--audio", "b.wav"], ["text and audio"]),
        (["--text", " "], ["an empty sentence"]),
        (["--lat", "46"], ["half a place"]),
        (["--lat", "95", "--lon", "7"], ["lat=95"]),
        (["--text", "a", "--at-hour", "6"], ["--image"]),
        (["--text", "a", "--top", "0"], ["top=0", "1 to 1000"]),
        (["--text", "a", "--top", "1001"], ["top=1001", "1 to 1000"]),
        (["--text", "a", "--month", "13"], ["month=13"]),
        (["--text", "a", "--kind", "song"], ["kind='song'", "tile, clip, caption"]),
        (["--text", "a", "--licence", "' OR 1=1"], ["licence=", "CC0"]),
        (["--text", "a", "--region", "1,2,3"], ["region='1,2,3'", "is no box"]),
        (["--text", "a", "--region", "-10,50,5,40"], ["no such box"]),
        (["--text", "a", "--model", "satellite-nano"], ["hears nothing"]),
        (["--text", "a", "--gallery", "nowhere"], ["no gallery in nowhere"]),
        (["--audio", "nowhere.wav"], ["nowhere.wav"]),
        (["--image", __file__], ["no TIFF"]),
    ],
)
def test_each_mistake_is_one_sentence(ask, words, told):
    code, out, err = ask(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(each in err for each in told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--at-hour", "25"], "hour=25"),
        (["--at-month", "0"], "month=0"),
        (["--top", "0"], "top=0"),
        (["--kind", "song"], "kind='song'"),
        (["--month", "13"], "month=13"),
    ],
)
def test_nothing_is_noted_of_what_is_refused(ask, image, words, told):
    ways = [["--image", image]]
    if not words[0].startswith("--at"):
        ways.append(["--lat", "46", "--lon", "7"])
    for way in ways:
        code, out, err = ask(*way, *words, space="psm-nano")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert told in err


def test_building_refuses_what_it_cannot_finish_and_leaves_nothing(home, tmp_path, capsys):
    out = tmp_path / "gallery"
    with pytest.raises(SystemExit) as stopped:
        build(words_of(home, "geoclap-nano", home / "galleries/psm-nano"))
    assert stopped.value.code == 2
    assert "not overwritten" in capsys.readouterr().err
    for wrong, told in (
        ("--tiles=nowhere", "nowhere lacks images.npy, rows.npy"),
        ("--pairs=nowhere", "nowhere lacks clips.json, mels.npy"),
        ("--batch=0", "--batch 0"),
    ):
        with pytest.raises(SystemExit) as stopped:
            build([*words_of(home, "geoclap-nano", out), wrong])
        assert stopped.value.code == 2
        assert told in capsys.readouterr().err
    np.save(tmp_path / "mels.npy", np.zeros((2, 64, 99), np.float16))
    (tmp_path / "clips.json").write_bytes((home / "pairs/clips.json").read_bytes())
    with pytest.raises(SystemExit):
        build([*words_of(home, "geoclap-nano", out), f"--pairs={tmp_path}"])
    assert "64x99, geoclap-nano hears 64x48" in capsys.readouterr().err
    assert not out.exists()
