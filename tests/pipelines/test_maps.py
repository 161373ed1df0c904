"""Maps of tiny spaces over tiny imagery: what they score, what is kept, what is refused."""

import io
import json

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from generation.checkpoint import save_part
from generation.cli import main
from generation.encoders.heads import Embedding, likeness
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_space import SoundSpace
from generation.errors import CancelledError, InvalidSpecError, OutputError
from generation.geo.grid import MapGrid
from generation.geo.imagery import FileImagery, Patch
from generation.geo.location import Region
from generation.geo.mercator import Window, from_px
from generation.media.geotiff import geotiff_bytes
from generation.media.image import png_text
from generation.pipelines.drawn_imagery import DrawnImagery, windows_to_draw
from generation.pipelines.maps import sound_map
from generation.pipelines.maps_cache import MapCache
from generation.pipelines.maps_files import TAG, MapRequest, make_sound_map, open_imagery
from generation.pipelines.maps_image import overlay_png

SETTINGS = {
    "geoclap": {"kind": "pooled", "joined": "none"},
    "psm": {"kind": "gaussian", "joined": "late"},
    "sat2sound": {"kind": "codebook", "joined": "early"},
}
SIZES = {
    "dim": 12,
    "width": 16,
    "towers": {
        "image": {"image_px": 16, "patch": 8, "dim": 8, "depth": 1, "heads": 2},
        "audio": {"dim": 8, "depth": 1, "heads": 2, "bands": 64, "frames": 48},
        "text": {"dim": 384},
    },
    "metadata": {"vocabularies": {"source": ["field"]}, "layers": 1, "heads": 2},
    "codebook": {"codes": 10},
}
CELL, VIEW = 16, 32
WEST, NORTH = 33600, 22000
WINDOW = Window(8, WEST, NORTH, 256, 128)
GRID = MapGrid(Window(8, WEST + 32, NORTH + 32, 192, 64), CELL, VIEW)
REGION = "4.8,50.5,5.6,50.6"


def encoder_of(name, folder):
    torch.manual_seed(0)
    save_part(SoundSpace(**SIZES, **SETTINGS[name]), folder / f"{name}-nano")
    return SoundEncoder.from_pretrained(folder / f"{name}-nano")


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def encoders(home):
    return {name: encoder_of(name, home) for name in SETTINGS}


@pytest.fixture(scope="session")
def ground():
    return np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def tiff(ground, tmp_path_factory):
    path = tmp_path_factory.mktemp("ground") / "ground.tif"
    path.write_bytes(geotiff_bytes(ground, WINDOW, {"ATTRIBUTION": "Nobody"}))
    return path


@pytest.fixture
def imagery(tiff):
    return FileImagery([tiff])


@pytest.fixture
def cache(tmp_path):
    return MapCache(tmp_path / "cache")


class Counting(FileImagery):
    """Imagery that counts how often it is looked at."""

    def __init__(self, paths):
        super().__init__(paths)
        self.looks = 0

    def read(self, window) -> Patch:
        self.looks += 1
        return super().read(window)


def query(encoder, seed=1):
    torch.manual_seed(seed)
    with torch.no_grad():
        return encoder.space.embed_audio(torch.randn(1, 64, 48))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_cell_scores_as_its_own_picture_does(name, encoders, imagery, ground):
    encoder = encoders[name]
    time = {} if name == "geoclap" else {"month": 5, "hour": 6.0}
    found = sound_map(encoder, imagery, GRID, query(encoder), **time)
    assert found.scores.shape == (4, 12)
    row, col = 1, 7
    top, left = 32 + row * CELL - 8, 32 + col * CELL - 8
    picture = ground[top : top + VIEW, left : left + VIEW][None]
    place = from_px(WEST + 32 + (col + 0.5) * CELL, NORTH + 32 + (row + 0.5) * CELL, 8)
    known = None if name == "geoclap" else encoder.known([place], **time)
    alone = encoder.image(picture, np.array([GRID.gsd_m(place.lat)]), known)
    assert found.scores[row, col] == pytest.approx(
        likeness(query(encoder), alone).item(), abs=2e-3 if name == "sat2sound" else 1e-5
    )
    assert (found.uncertainty is not None) == (name == "psm")
    if found.uncertainty is not None:
        assert found.uncertainty[row, col] == pytest.approx(alone.uncertainty.item(), rel=1e-4)
    assert np.unique(found.scores).size > 40


@pytest.mark.parametrize("name", SETTINGS)
def test_a_kept_map_is_the_same_and_costs_no_look(name, encoders, tiff, cache):
    encoder, first, second = encoders[name], Counting([tiff]), Counting([tiff])
    fresh = sound_map(encoder, first, GRID, query(encoder), cache=cache)
    again = sound_map(encoder, second, GRID, query(encoder), cache=cache)
    np.testing.assert_array_equal(again.scores, fresh.scores)
    other = sound_map(encoder, second, GRID, query(encoder, 2), cache=cache)
    assert np.abs(other.scores - fresh.scores).max() > 1e-4
    assert (first.looks > 0, second.looks) == (True, 0)


@pytest.mark.parametrize("name", ["psm", "sat2sound"])
def test_another_hour_costs_no_look_and_is_another_map(name, encoders, tiff, cache):
    encoder, imagery = encoders[name], Counting([tiff])
    dawn = sound_map(encoder, imagery, GRID, query(encoder), hour=6.0, cache=cache)
    looks = imagery.looks
    dusk = sound_map(encoder, imagery, GRID, query(encoder), hour=18.0, cache=cache)
    assert imagery.looks == looks
    assert np.abs(dusk.scores - dawn.scores).max() > 1e-5
    uncached = sound_map(encoder, imagery, GRID, query(encoder), hour=18.0)
    np.testing.assert_allclose(dusk.scores, uncached.scores, atol=1e-6)


def test_a_larger_map_looks_only_at_what_is_new(encoders, tiff, cache):
    encoder = encoders["geoclap"]
    sound_map(encoder, FileImagery([tiff]), GRID, query(encoder), cache=cache)
    seen = []

    class Noting(FileImagery):
        def read(self, window) -> Patch:
            seen.append(window)
            return super().read(window)

    wider = MapGrid(Window(8, WEST + 32, NORTH + 32, 208, 64), CELL, VIEW)
    whole = sound_map(encoder, Noting([tiff]), wider, query(encoder), cache=cache)
    assert sum(window.width_px for window in seen) == VIEW  # one column of cells
    assert whole.missing == 0
    np.testing.assert_allclose(
        whole.scores,
        sound_map(encoder, FileImagery([tiff]), wider, query(encoder)).scores,
        atol=1e-6,
    )


def test_other_imagery_and_another_model_share_nothing(encoders, tiff, cache, tmp_path):
    encoder = encoders["geoclap"]
    first = sound_map(encoder, FileImagery([tiff]), GRID, query(encoder), cache=cache)
    other = tmp_path / "other.tif"
    other.write_bytes(geotiff_bytes(np.full((128, 256, 3), 90, np.uint8), WINDOW, {}))
    second = sound_map(encoder, FileImagery([other]), GRID, query(encoder), cache=cache)
    assert np.abs(first.scores - second.scores).max() > 1e-3
    stranger = SoundEncoder(encoder.space)  # not of a file, so it has no hash to be told by
    imagery = Counting([tiff])
    sound_map(stranger, imagery, GRID, query(encoder), cache=cache)
    assert imagery.looks > 0


def test_a_damaged_cache_is_looked_at_again(encoders, tiff, cache):
    encoder = encoders["sat2sound"]
    fresh = sound_map(encoder, FileImagery([tiff]), GRID, query(encoder), cache=cache)
    files = sorted(cache.root.glob("*/*.npz"))
    assert len(files) >= 2
    for number, path in enumerate(files):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if number % 2 else b"\0" * len(data))
    again = sound_map(encoder, FileImagery([tiff]), GRID, query(encoder), cache=cache)
    np.testing.assert_array_equal(again.scores, fresh.scores)


def test_work_that_is_stopped_goes_on_where_it_was(encoders, tiff, cache):
    encoder = encoders["geoclap"]

    def stop(done, total):
        raise CancelledError("enough")

    with pytest.raises(CancelledError):
        sound_map(encoder, FileImagery([tiff]), GRID, query(encoder), cache=cache, on_cells=stop)
    kept = len(list(cache.root.glob("*/*.npz")))
    assert kept == 1
    counted = []
    imagery = Counting([tiff])
    sound_map(
        encoder, imagery, GRID, query(encoder), cache=cache, on_cells=lambda *at: counted.append(at)
    )
    assert imagery.looks == len(counted) - kept
    assert counted[-1] == (48, 48)


def test_cells_without_imagery_have_no_score(encoders, ground, tmp_path):
    seen = np.full((128, 256), 255, np.uint8)
    seen[:, 128:] = 0
    seen[60, 60] = 0  # one pixel of a view does not matter
    path = tmp_path / "half.tif"
    path.write_bytes(geotiff_bytes(ground, WINDOW, {}, seen))
    encoder = encoders["geoclap"]
    found = sound_map(encoder, FileImagery([path]), GRID, query(encoder))
    assert np.isfinite(found.scores[:, :5]).all()  # views end at 32 + 5 * 16 + 8 px
    assert np.isnan(found.scores[:, 6:]).all()
    assert found.missing == 4 * 7 - np.isfinite(found.scores[:, 5]).sum()


def test_imagery_elsewhere_is_refused(encoders, imagery):
    encoder = encoders["geoclap"]
    elsewhere = MapGrid(Window(8, 0, NORTH, 64, 64), CELL, VIEW)
    with pytest.raises(InvalidSpecError, match=r"shows no view of 32 px .* lies at lat 50"):
        sound_map(encoder, imagery, elsewhere, query(encoder))


def test_the_antimeridian_is_no_edge(encoders, ground, tmp_path, cache):
    over = Window(8, 65536 - 128, NORTH, 256, 128)
    path = tmp_path / "over.tif"
    path.write_bytes(geotiff_bytes(ground, over, {}))
    encoder, imagery = encoders["geoclap"], FileImagery([path])
    whole = MapGrid(Window(8, 65536 - 64, NORTH + 32, 128, 64), CELL, VIEW)
    assert whole.bounds.crosses_antimeridian
    found = sound_map(encoder, imagery, whole, query(encoder), cache=cache)
    assert found.missing == 0
    east = MapGrid(Window(8, 0, NORTH + 32, 64, 64), CELL, VIEW)
    half = sound_map(encoder, imagery, east, query(encoder), cache=cache)
    np.testing.assert_array_equal(found.scores[:, 4:], half.scores)


def test_time_is_refused_where_it_means_nothing(encoders, imagery):
    for name, time, said in (
        ("geoclap", {"hour": 6.0}, "no hour .*psm-nano, sat2sound-nano"),
        ("psm", {"hour": 25.0}, "hour=25"),
        ("psm", {"month": 13}, "month=13"),
    ):
        with pytest.raises(InvalidSpecError, match=said):
            sound_map(encoders[name], imagery, GRID, query(encoders[name]), **time)
    two = Embedding(torch.zeros(2, 12))
    with pytest.raises(InvalidSpecError, match="2 queries"):
        sound_map(encoders["geoclap"], imagery, GRID, two)


def test_an_overlay_is_clear_where_there_is_no_score(encoders, imagery):
    beyond = MapGrid(Window(8, WEST + 160, NORTH + 32, 160, 64), CELL, VIEW)
    found = sound_map(encoders["geoclap"], imagery, beyond, query(encoders["geoclap"]))
    rgba = np.asarray(Image.open(io.BytesIO(overlay_png(found, 0.5))))
    np.testing.assert_array_equal(rgba[..., 3] == 0, np.isnan(found.scores))
    assert 0 < found.missing < found.scores.size
    assert rgba[..., 3].max() == 128


@pytest.fixture
def sound(tmp_path):
    import soundfile

    path = tmp_path / "surf.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    return path


def run(*words):
    return main(["map", "sound", *map(str, words)])


def test_the_command_writes_a_map_and_a_picture(
    home, encoders, tiff, sound, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    out = tmp_path / "maps" / "surf.tif"
    words = ["--audio", sound, "--region", REGION, "--view", VIEW, "--imagery", tiff]
    words += ["--model", "psm-nano", "--hour", 6, "--month", 5, "--out", out]
    assert run(*words) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(out), str(out.with_suffix(".png"))]
    assert "simulated" in said.err
    with rasterio.open(out) as file:
        assert file.descriptions == ("score", "uncertainty")
        tags, bounds = file.tags(), file.bounds
        assert np.isfinite(file.read(1)).any()
    assert {"HOUR": "6", "MONTH": "5", "LOCATION_SOURCE": "simulated"}.items() <= tags.items()
    assert tags["MODEL_SHA256"] == encoders["psm"].sha256
    assert "Nobody" in tags["ATTRIBUTION"]
    assert json.loads(tags[TAG])["region"] == [4.8, 50.5, 5.6, 50.6]
    grid = MapGrid.covering(Region(4.8, 50.5, 5.6, 50.6))
    assert bounds[:] == pytest.approx(grid.window.bounds_3857)
    picture = out.with_suffix(".png").read_bytes()
    assert json.loads(png_text(picture)[TAG])["query"] == "sound of surf.wav"
    assert np.asarray(Image.open(io.BytesIO(picture))).std() > 20
    assert run(*words) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_a_sentence_is_a_question_too(home, encoders, tiff, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    out = tmp_path / "surf.tif"
    words = ["--text", "surf", f"--region={REGION}", "--view", VIEW, "--imagery", tiff, "--json"]
    assert run(*words, "--out", out, "--model", "geoclap-nano") == 0
    about = json.loads(capsys.readouterr().out)
    assert about["files"] == [str(out), str(tmp_path / "surf.png")]
    assert about["map"]["model"] == "geoclap-nano"
    assert not about["map"]["imagery_synthetic"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--text", "surf", "--region", "5,48,6,45"], "does not lie below"),
        (["--text", "surf", "--region", "5,45,5,48"], "is empty"),
        (["--text", "surf", "--region", "5,45,6,89"], "beyond the edge"),
        (["--text", "surf", "--region", "5,45,6"], "is no box"),
        (["--text", "surf", "--region", "-10,35,200,44"], "no such place"),
        (["--text", "surf", "--region", REGION, "--hour", "25"], "hour=25"),
        (["--text", "surf", "--region", REGION, "--month", "13"], "month=13"),
        (["--text", "surf", "--region", REGION, "--cell", "12"], "cell=12"),
        (["--text", "surf", "--audio", "a.wav", "--region", REGION], "text and audio"),
        (["--region", REGION], "neither text nor audio"),
        (["--text", "surf", "--region", REGION, "--imagery", "absent.tif"], "is not there"),
        (["--text", "surf", "--region", REGION, "--imagery", "generated", "a.tif"], "alone"),
        (["--text", "surf", "--region", REGION, "--model", "satellite-nano"], "hears nothing"),
        (["--audio", "absent.wav", "--region", REGION, "--imagery", "generated"], "absent.wav"),
        (["--text", "surf", "--region", "40,50.5,40.6,50.6"], "shows no view of 128 px"),
    ],
)
def test_each_mistake_is_one_sentence_and_leaves_nothing(
    words, said, home, encoders, tiff, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    given = words if "--imagery" in words else [*words, "--imagery", tiff]
    assert run(*given, "--out", "maps/a.tif") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "maps").exists()


def test_what_fails_half_way_leaves_neither_file(
    home, encoders, tiff, sound, tmp_path, monkeypatch, cache
):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    request = MapRequest(
        region=Region(4.8, 50.5, 5.6, 50.6),
        audio=sound,
        model="geoclap-nano",
        view_px=VIEW,
        imagery=(str(tiff),),
    )
    out = tmp_path / "maps" / "a.tif"

    def block(done, total):
        out.with_suffix(".png").write_text("in the way")

    with pytest.raises(OutputError, match="not overwritten"):
        make_sound_map(request, out, cache=cache, on_cells=block)
    assert [path.name for path in out.parent.iterdir()] == ["a.png"]
    with pytest.raises(OutputError, match="no GeoTIFF"):
        make_sound_map(request, tmp_path / "a.jpg", cache=cache)


def test_generated_imagery_is_drawn_once_and_says_so(tiny_pipeline, cache, encoders):
    encoder = encoders["geoclap"]
    drawn = []
    imagery = DrawnImagery(lambda: tiny_pipeline, "a hash", cache, on_window=drawn.append)
    assert imagery.synthetic
    edge = MapGrid(Window(8, 33536 - 64, NORTH + 32, 128, 64), CELL, VIEW)
    assert windows_to_draw(edge) == 2
    grid = MapGrid(Window(8, 33536 + 32, NORTH + 32, 128, 64), CELL, VIEW)
    assert windows_to_draw(grid) == 1
    found = sound_map(encoder, imagery, grid, query(encoder))
    assert found.missing == 0
    assert found.about["imagery_synthetic"]
    again = DrawnImagery(lambda: pytest.fail("a model"), "a hash", cache, on_window=drawn.append)
    window = Window(8, 33536 + 60, NORTH + 40, 128, 32)
    np.testing.assert_array_equal(again.read(window).rgb, imagery.read(window).rgb)
    assert drawn == [1]


def test_a_large_region_is_not_generated_unasked(cache):
    request = MapRequest(region=Region(0.0, 40.0, 20.0, 50.0), text="surf")
    with pytest.raises(InvalidSpecError, match="give imagery as a GeoTIFF, or generated"):
        open_imagery(request, request.grid(), cache)
