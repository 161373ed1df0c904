"""``terrascape render panorama``: good and bad input, with tiny pipelines."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_panorama import make_home, panorama_pixels, write_panorama

from generation.cli import main
from generation.media.image import open_rgb

ROOT = Path(__file__).resolve().parents[1]
PLACE = ["--lat", "45.98", "--lon", "7.66"]
QUICK = ["--steps", "1", "--satellite", "none"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _at_home(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return write_panorama(tmp_path_factory.mktemp("views") / "a.png")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def panorama(*words, out, quick=QUICK):
    return main(["render", "panorama", *map(str, words), *quick, "--out", str(out)])


def refused(capsys, out):
    """Give the one sentence of a refusal that left nothing."""
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    assert told.err.startswith("terrascape")
    assert not out.exists()
    return told.err


def test_a_panorama_is_written_whole_and_replayed_equal(view, out, capsys):
    words = [*PLACE, "--heading", "90", "--view", f"{view}@46.0,7.7,120", "--satellite", "auto"]
    assert panorama(*words, "--seed", "3", out=out, quick=["--steps", "1"]) == 0
    told = capsys.readouterr()
    assert "note: learnt from panoramas rendered from terrain" in told.err
    files = [Path(line) for line in told.out.splitlines()]
    endings = [file.name.removeprefix(files[0].stem) for file in files]
    assert endings == [
        *(".jpg", ".front.jpg", ".right.jpg", ".back.jpg", ".left.jpg"),
        *(".overlay.png", ".satellite.png", ".layout.png", ".json"),
    ]
    assert open_rgb(files[0]).shape == (32, 128, 3)
    for file in (files[0], files[-1]):
        assert main(["replay", str(file)]) == 0
        assert capsys.readouterr().out == "equal\n"


def test_json_holds_files_spec_and_seconds(view, out, capsys):
    assert panorama(*PLACE, "--view", f"{view}@46.0,7.7,0", "--json", out=out) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["spec"]["kind"] == "panorama"
    assert told["spec"]["views"][0]["file"] == str(view)
    assert all(Path(file).is_file() for file in told["files"])
    assert told["seconds"] > 0


def test_the_same_panorama_again_gives_the_same_files(view, out, capsys):
    for _ in range(2):
        assert panorama(*PLACE, "--view", f"{view}@46.0,7.7,0", out=out) == 0
    first, second = np.array_split(capsys.readouterr().out.splitlines(), 2)
    assert list(first) == list(second)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*PLACE, "--heading", "400"], ["heading=400", "0 up to 360"]),
        ([*PLACE, "--heading", "nan"], ["heading=nan", "0 up to 360"]),
        ([*PLACE, "--heading", "-10"], ["heading=-10", "0 up to 360"]),
        ([*PLACE, "--view", "{a}@46.0,7.7,400"], ["a.png", "heading=400"]),
        ([*PLACE, "--view", "{a}@46.0,7.7,nan"], ["a.png", "heading=nan"]),
        ([*PLACE, "--view", "{a}@97.0,7.7,0"], ["a.png", "lat=97"]),
        ([*PLACE, "--view", "{a}@46.0"], ["another form", "FILE@LAT,LON,HEADING"]),
        ([*PLACE, "--view", "{a}"], ["a.png", "FILE@LAT,LON,HEADING"]),
        ([*PLACE, "--view", "{a}@41.5,7.7,0"], ["a.png", "498 km", "--far"]),
        ([*PLACE, *["--view", "{a}@46.0,7.7,0"] * 2], ["views 1 and 2 are the same", "once"]),
        ([*PLACE, *["--view", "{a}@46.0,7.7,0"] * 50], ["50 views", "20 are allowed"]),
        ([*PLACE, "--view", "{gone}@46.0,7.7,0"], ["gone.png"]),
        ([*PLACE, "--view", ""], ["file=''"]),
        ([*PLACE, "--satellite", "no.tif"], ["no.tif"]),
        ([*PLACE, "--satellite", "{a}"], ["a.png", "GeoTIFF"]),
        ([*PLACE, "--views-guidance", "-1"], ["views_guidance=-1", "0 to 20"]),
        ([*PLACE, "--satellite-guidance", "inf"], ["satellite_guidance=inf", "0 to 20"]),
        ([*PLACE, "--steps", "0"], ["steps=0", "1 to 200"]),
        ([*PLACE, "--prompt", "snow"], ["prompt='snow'", "panorama-nano takes none", "leave"]),
        (["--lat", "86", "--lon", "7", "--satellite", "generated"], ["lat=86", "satellite=none"]),
        ([*PLACE, "--model", "satellite-nano"], ["satellite-nano", "draws no panoramas"]),
        ([*PLACE, "--model", "nothing"], ["no model is named 'nothing'"]),
        ([*PLACE, "--frames", "3"], ["--frames 3", "--path"]),
        (["--lat", "45.98"], ["no place", "--lat and --lon"]),
        ([], ["no place", "--path"]),
        ([*PLACE, "--path", "a.geojson"], ["--path and --lat", "one of the two"]),
        (["--path", "nowhere.geojson"], ["nowhere.geojson", "LineString"]),
        (["--path", "{line}", "--frames", "0"], ["frames=0", "1 to 500"]),
        (["--path", "{line}", "--frames", "100000"], ["frames=100000", "1 to 500"]),
        (["--path", "{line}", "--heading", "400"], ["frame 1 of 12", "heading=400"]),
        (["--path", "{a}"], ["a.png", "not readable as JSON"]),
    ],
)
def test_each_mistake_is_one_sentence_and_leaves_nothing(words, said, view, out, tmp_path, capsys):
    line = tmp_path / "line.geojson"
    line.write_text('{"type": "LineString", "coordinates": [[7.6, 46.0], [7.7, 46.0]]}')
    names = {"{a}": str(view), "{gone}": str(tmp_path / "gone.png"), "{line}": str(line)}
    for short, name in names.items():
        words = [word.replace(short, name) for word in words]
    quick = [] if {"--satellite", "--steps"} & set(words) else QUICK
    assert panorama(*words, out=out, quick=quick) == 2
    told = refused(capsys, out)
    for part in said:
        assert part in told


def _cut_off(image, path):
    image.save(path)
    path.write_bytes(path.read_bytes()[:200])


def _sixteen_bit(image, path):
    Image.fromarray(np.asarray(image)[..., 0].astype(np.uint16) * 257).save(path)


def _transparent(image, path):
    image.putalpha(100)
    image.save(path)


def _rotated(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees clockwise to see it upright
    image.rotate(90, expand=True).save(path, exif=exif, quality=95)


SAVED = {
    "aspect 1.3": lambda image, path: image.resize((166, 128)).save(path),
    "4 px high": lambda image, path: image.resize((8, 4)).save(path),
    "0 bytes": lambda image, path: path.write_bytes(b""),
    "cut off": _cut_off,
    "CMYK": lambda image, path: image.convert("CMYK").save(path),
    "16 bit": _sixteen_bit,
    "opaque alpha": lambda image, path: image.convert("RGBA").save(path),
    "transparent": _transparent,
    "rotated": _rotated,
    "50,000 px": lambda image, path: Image.new("1", (50_000, 1_000)).save(path),
}


def saved(kind, path):
    """Save a panorama in a way that cameras and tools do."""
    SAVED[kind](Image.fromarray(panorama_pixels(0, 128)), path)
    return path


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("aspect 1.3", "a.png", ["1.30 times as wide as high", "2:1"]),
        ("4 px high", "a.png", ["4 px high", "32 to"]),
        ("0 bytes", "a.jpg", ["a.jpg", "is empty"]),
        ("cut off", "a.png", ["a.png", "complete"]),
        ("transparent", "a.png", ["a.png", "transparent"]),
        ("50,000 px", "a.png", ["50000x1000", "allowed"]),
    ],
)
def test_a_file_that_is_no_panorama_is_refused_by_name(kind, name, said, tmp_path, out, capsys):
    path = saved(kind, tmp_path / name)
    assert panorama(*PLACE, "--view", f"{path}@46.0,7.7,0", out=out) == 2
    told = refused(capsys, out)
    for part in said:
        assert part in told


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("CMYK", "a.jpg", "CMYK"),
        ("16 bit", "a.png", "16"),
        ("opaque alpha", "a.png", ""),
        ("rotated", "a.jpg", "upright"),
    ],
)
def test_a_file_that_can_be_mended_is_and_that_is_told(kind, name, said, tmp_path, out, capsys):
    path = saved(kind, tmp_path / name)
    assert panorama(*PLACE, "--view", f"{path}@46.0,7.7,0", out=out) == 0
    told = capsys.readouterr().err
    assert said in told


def test_a_view_far_away_is_taken_when_that_is_asked_for(view, out, capsys):
    assert panorama(*PLACE, "--view", f"{view}@41.5,7.7,0", "--far", out=out) == 0
    assert "a.png stands 498 km away; the model learnt" in capsys.readouterr().err


def test_a_view_at_the_place_itself_works_and_is_told(view, out, capsys):
    assert panorama(*PLACE, "--view", f"{view}@45.98,7.66,0", out=out) == 0
    assert "a.png stands at the place itself" in capsys.readouterr().err


def test_a_scale_that_exaggerates_far_is_told_of_and_taken(view, out, capsys):
    words = [*PLACE, "--view", f"{view}@46.0,7.7,0", "--views-guidance", "4"]
    assert panorama(*words, out=out) == 0
    assert "note: views_guidance=4 exaggerates far" in capsys.readouterr().err


def test_drawing_the_satellite_image_is_part_of_the_steps(out, capsys):
    assert panorama(*PLACE, "--satellite", "generated", out=out, quick=["--steps", "2"]) == 0
    assert "step 4/4" in capsys.readouterr().err


def test_many_views_are_taken_and_the_nearest_used(view, out, capsys):
    views = [w for n in range(7) for w in ("--view", f"{view}@{46.0 + n / 100},7.66,0")]
    assert panorama(*PLACE, *views, out=out) == 0
    assert "7 views given, the 3 nearest are used" in capsys.readouterr().err


def test_a_walk_lists_its_frames_and_goes_on_where_it_stopped(view, out, tmp_path, capsys):
    line = tmp_path / "line.geojson"
    line.write_text('{"type": "LineString", "coordinates": [[7.6, 46.0], [7.64, 46.0]]}')
    words = ["--path", line, "--frames", "2", "--view", f"{view}@46.0,7.7,0"]
    for _ in range(2):
        assert panorama(*words, out=out) == 0
        told = capsys.readouterr()
        files = [Path(text) for text in told.out.splitlines()]
        assert [file.name for file in files[-2:]] == ["walk.webp", "walk.json"]
        assert "frame 2/2" in told.err
    assert len(list(out.glob("panorama_*.json"))) == 2
    assert main(["replay", str(files[0])]) == 0
    assert capsys.readouterr().out == "equal\n"


def test_drawing_the_ground_of_a_walk_is_told(out, tmp_path, capsys):
    line = tmp_path / "line.geojson"
    line.write_text('{"type": "LineString", "coordinates": [[7.6, 46.0], [7.64, 46.0]]}')
    assert panorama("--path", line, "--frames", "2", out=out, quick=["--steps", "1"]) == 0
    assert "satellite image 1/1" in capsys.readouterr().err


def test_the_help_tells_of_views_and_walks_and_imports_nothing_heavy():
    code = (
        "import sys, contextlib, generation.cli\n"
        "with contextlib.suppress(SystemExit):\n"
        "    generation.cli.main(['render', 'panorama', '--help'])\n"
        "assert not {'torch', 'generation.pipelines.panorama_render'} & set(sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert ran.returncode == 0, ran.stderr
    for word in ("FILE@LAT,LON,HEADING", "--path", "--far", "rendered from", "less like"):
        assert word in ran.stdout


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(home, view, out):
    words = [*PLACE, "--view", f"{view}@46.0,7.7,0", "--steps", "200", "--satellite", "none"]
    running = subprocess.Popen(
        [sys.executable, "-m", "generation.cli", "render", "panorama", *words, "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "TERRASCAPE_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while not out.exists() and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "nothing unfinished was kept" in told
    assert not out.exists()
