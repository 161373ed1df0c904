"""The panorama tab as a person meets it: views dropped, drawn, looked around in, made again."""

import os
import re
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from test_page import (  # noqa: F401 - fixtures, and skipped as a whole without a browser
    PATIENCE_S,
    ROOT,
    browser,
    wait_until_ready,
)
from tiny_panorama import make_home, panorama_pixels

from generation.geo.location import Location
from generation.geo.sphere import Band
from generation.media.artifact import read_spec
from generation.media.panorama import panorama_jpeg


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """Address and folder of a running studio whose models are tiny."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("panorama_page")
    out, log = folder / "out", folder / "log"
    environment = {**os.environ, "TERRASCAPE_HOME": str(make_home(folder / "home"))}
    environment |= {"GRADIO_TEMP_DIR": str(folder / "cache"), "NO_PROXY": "127.0.0.1,localhost"}
    environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}
    words = [sys.executable, "app.py", "--port", str(port), "--out", str(out), "--no-browser"]
    with log.open("wb") as file, subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=file, stderr=file
    ) as server:  # fmt: skip
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", server, log)
            yield f"http://127.0.0.1:{port}", out
        finally:
            server.terminate()
            server.wait(90)


@pytest.fixture(scope="module")
def ridge(tmp_path_factory):
    """A panorama whose file tells its place and heading."""
    path = tmp_path_factory.mktemp("views") / "ridge.jpg"
    band, place = Band(128, 256, 90.0, -90.0), Location(46.0, 7.7)
    path.write_bytes(panorama_jpeg(panorama_pixels(1), band, heading_deg=120.0, place=place))
    return path


@pytest.fixture
def page(browser, studio):  # noqa: F811 - the fixture
    """The tab, open on a phone; a script error or a request to elsewhere fails the test."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(PATIENCE_S * 1000)
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(studio[0])
    page.wait_for_selector("#ts-layout .ts-legend")
    page.get_by_role("tab", name="Panorama").click()
    page.wait_for_selector("#ts-around .ts-map")
    yield page
    page.close()
    assert not errors
    assert not [url for url in requests if not url.startswith((studio[0], "data:", "blob:"))]


def fits(page):
    """Tell whether the page is as wide as the screen, of a phone and of a desk."""
    widths = []
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 844})
        widths.append(page.evaluate("document.documentElement.scrollWidth") <= width)
    return all(widths)


def looking(page):
    """Give where the viewer looks, as the page tells it: azimuth and elevation, degrees."""
    page.wait_for_timeout(900)  # it glides to rest
    text = page.locator(".ts-pano-look").inner_text()
    azimuth = int(re.search(r"(\d+)°", text).group(1))
    rise = re.search(r"(\d+)° (up|down)", text)
    return azimuth, int(rise.group(1)) * (1 if rise.group(2) == "up" else -1) if rise else 0


def draw(page, steps):
    page.locator("#ts-pano-more").get_by_text("More", exact=True).click()
    box = page.locator("#ts-pano-steps input[type=number]")
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:  # what is typed while the settings still unfold may be lost
        box.fill(str(steps))
        box.blur()
        page.wait_for_timeout(500)
        if box.input_value() == str(steps):
            break
    page.locator("#ts-pano-satellite label", has_text="None").click()
    page.locator("#ts-pano-draw").click()


def look_around(page):
    """Drag what lies to the right into the middle, then turn left by the keys."""
    assert looking(page) == (90, 0)
    page.locator(".ts-pano-view").evaluate("each => each.scrollIntoView({block: 'center'})")
    page.wait_for_timeout(500)
    box = page.locator(".ts-pano-view").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 100, y, steps=6)
    page.mouse.up()
    azimuth, _ = looking(page)
    assert 100 < azimuth < 160  # what lay to the right was dragged into the middle
    page.locator(".ts-pano-view").focus()
    page.keyboard.down("ArrowLeft")
    page.wait_for_timeout(400)
    page.keyboard.up("ArrowLeft")
    assert (looking(page)[0] - azimuth + 180) % 360 - 180 < -3


def test_views_are_dropped_drawn_and_looked_around_in(page, studio, ridge):
    _, out = studio
    page.locator("#ts-pano-drop input[type=file]").set_input_files([ridge, ridge])
    page.wait_for_selector("#ts-views li:nth-child(2)")
    assert page.get_by_label("Latitude, °N of panorama 1").input_value() == "46"
    assert page.get_by_label("Heading, ° of panorama 1").input_value() == "120"
    page.wait_for_selector("#ts-around .ts-spot")
    page.get_by_role("button", name="Remove panorama 2").click()
    page.wait_for_function("document.querySelectorAll('#ts-views li').length === 1")
    page.get_by_label("Latitude, °N of panorama 1").fill("46.1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ts-around >> text=1: 13.7 km")
    page.get_by_label("Longitude, °E of panorama 1").fill("7.65")  # no key, no blur: still sent
    field = page.locator("#ts-pano-heading input")
    field.fill("90")
    field.blur()

    draw(page, 2)
    page.wait_for_selector("#ts-pano-stage .ts-pano-open")
    assert fits(page)
    (manifest,) = out.glob("panorama_*.json")
    spec = read_spec(manifest)
    assert (spec.heading, spec.steps, len(spec.views)) == (90, 2, 1)
    assert (spec.views[0].lat, spec.views[0].lon, spec.views[0].heading) == (46.1, 7.65, 120)

    look_around(page)
    with page.expect_download() as download:
        page.locator("#ts-pano-get-jpg").click()
    assert read_spec(download.value.path()) == spec


def test_nothing_beyond_the_band_is_shown(page, studio, tmp_path):
    if not list(studio[1].glob("panorama_*.json")):
        draw(page, 1)
    else:
        page.locator("#ts-pano-history .ts-thumb").first.click()
    page.wait_for_selector("#ts-pano-stage .ts-pano-open")
    view = page.locator(".ts-pano-view")
    view.focus()
    for key in ("ArrowUp", "ArrowDown"):
        page.keyboard.down(key)
        page.wait_for_timeout(2500)
        page.keyboard.up(key)
        _, pitch = looking(page)
        assert 2 < abs(pitch) < 30
        page.locator(".ts-pano-view canvas").screenshot(path=tmp_path / "view.png")
        shown = np.asarray(Image.open(tmp_path / "view.png").convert("RGB")).astype(int)
        edge = shown[3] if key == "ArrowUp" else shown[-4]
        middle = edge[80:-20]  # beside the buttons
        assert (middle.max(-1) > 8).mean() > 0.98  # the viewer's own ground is black


def test_a_panorama_is_stopped(page, studio):
    before = sorted(studio[1].glob("panorama_*.json"))
    draw(page, 200)
    page.wait_for_selector("#ts-pano-stage .ts-live img[src^='data:image/jpeg']")
    page.locator("#ts-pano-stop").click()
    page.wait_for_selector("#ts-pano-stage >> text=Stopped. Nothing was saved.")
    page.wait_for_selector("#ts-pano-draw:enabled >> text=Draw")
    assert page.locator(".toast-body").count() == 0
    assert sorted(studio[1].glob("panorama_*.json")) == before


def test_mistakes_are_told(page, tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    page.locator("#ts-pano-drop input[type=file]").set_input_files(empty)
    page.wait_for_selector(".toast-body >> text=empty.jpg")
    field = page.locator("#ts-pano-heading input")
    field.fill("400")
    field.blur()
    page.locator("#ts-pano-draw").click()
    page.wait_for_selector(".toast-body >> text=heading=400")


def test_a_saved_file_is_made_again(page, studio):
    saved = sorted(studio[1].glob("panorama_*.json"))
    if not saved:
        draw(page, 1)
        page.wait_for_selector("#ts-pano-stage .ts-pano-open")
        saved = sorted(studio[1].glob("panorama_*.json"))
    spec = read_spec(saved[0])
    page.get_by_text("Open a file to make it again", exact=True).click()
    page.locator("#ts-pano-open input[type=file]").set_input_files(saved[0].with_suffix(".jpg"))
    page.wait_for_selector("#ts-pano-stage .ts-pano-open")
    assert page.locator("#ts-pano-seed textarea, #ts-pano-seed input").first.input_value() == str(
        spec.seed
    )
    page.locator("#ts-pano-draw").click()
    page.wait_for_selector("#ts-pano-draw:disabled")
    page.wait_for_selector("#ts-pano-stage .ts-pano-open")
    assert sorted(studio[1].glob("panorama_*.json")) == saved  # the very same file
