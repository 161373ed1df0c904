"""The studio as a person meets it: the real server, a real browser, nothing from elsewhere."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from stand_in import draw
from test_cli_pipeline import tiny_home  # noqa: F401 - a fixture, for checkouts without weights

from generation.media.artifact import manifest_mistakes, read_spec, save_render
from generation.registry import is_here
from generation.spec import RunSpec

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 180
"""Long enough for a busy machine; an idle one needs a tenth."""

if CHROMIUM is None:
    pytest.skip("no chromium here (apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def studio(request, tmp_path_factory):
    """Address and folder of a running studio."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out, log = tmp_path_factory.mktemp("studio") / "out", tmp_path_factory.mktemp("log") / "log"
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path_factory.mktemp("cache"))}
    environment.pop("TERRASCAPE_HOME", None)
    offline = {"https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}
    environment |= offline | {name.upper(): value for name, value in offline.items()}
    if not is_here("satellite-nano"):
        environment["TERRASCAPE_HOME"] = str(request.getfixturevalue("tiny_home"))
    words = [sys.executable, "app.py", "--port", str(port), "--out", str(out), "--no-browser"]
    with log.open("wb") as file, subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=file, stderr=file
    ) as server:  # fmt: skip
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", server, log)
            yield f"http://127.0.0.1:{port}", out
        finally:
            server.terminate()
            server.wait(30)


def wait_until_ready(address, server, log):
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/healthz", timeout=5) as reply:
                assert json.load(reply) == {"status": "ready"}
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the studio did not start: {log.read_text()}")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, studio):
    """The page, open; a script error or a request to anywhere else fails the test."""
    address, _ = studio
    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(PATIENCE_S * 1000)
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_selector("#ts-layout .ts-legend")
    yield page
    page.close()
    assert not errors
    assert not [url for url in requests if not url.startswith((address, "data:", "blob:"))]


def field(page, name):
    return page.locator(f"#ts-{name} input, #ts-{name} textarea").first


def set_number(page, name, value):
    """Open the settings and set one of their numbers."""
    page.get_by_text("Settings", exact=True).click()
    box = page.locator(f"#ts-{name} input[type=number]")
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:  # what is typed while the settings still unfold may be lost
        box.fill(str(value))
        box.blur()
        page.wait_for_timeout(500)
        if box.input_value() == str(value):
            return
    pytest.fail(f"{name} does not take {value}")


def test_a_place_is_clicked_and_rendered(page, studio):
    _, out = studio
    before = set(out.glob("*.json"))
    world = page.locator("#ts-world .ts-map")
    box = world.bounding_box()
    world.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.25})
    page.wait_for_function("Math.abs(document.querySelector('#ts-lon input').value - 90) < 1")
    assert float(field(page, "lat").input_value()) == pytest.approx(45, abs=1)

    set_number(page, "steps", 2)
    field(page, "seed").fill(str(2**63 - 1))  # larger than a browser's numbers are exact
    page.locator("#ts-render").click()
    page.wait_for_selector("#ts-stage .ts-frame .ts-badge >> text=synthetic image")
    page.wait_for_selector("#ts-get-png:visible")
    assert page.locator("#ts-stage img").count() == 2
    assert "km across" in page.locator("#ts-stage figcaption").first.inner_text()
    assert page.locator("#ts-history .ts-thumb").count() == len(before) + 1

    (manifest,) = set(out.glob("*.json")) - before
    spec = read_spec(manifest)
    assert (spec.seed, spec.steps, spec.layout) == (2**63 - 1, 2, "auto")
    assert spec.lon == pytest.approx(90, abs=1)
    assert manifest_mistakes(manifest) == []
    with page.expect_download() as download:
        page.locator("#ts-get-png").click()
    assert read_spec(Path(download.value.path())) == spec

    page.locator("#ts-examples .ts-chip").first.click()  # another place, then all of it back
    page.wait_for_function("document.querySelector('#ts-lat input').value < 45.99")
    page.locator("#ts-history .ts-thumb").first.click()
    page.wait_for_function(f"document.querySelector('#ts-lat input').value == {spec.lat}")
    assert field(page, "seed").input_value() == str(spec.seed)


def test_a_render_is_stopped(page, studio):
    _, out = studio
    before = sorted(out.glob("*.json"))
    set_number(page, "steps", 200)
    page.locator("#ts-render").click()
    page.wait_for_selector("#ts-stage >> text=Step")
    preview = "document.querySelector('#ts-stage figure:first-child img')"
    page.wait_for_function(f"{preview}?.complete && {preview}.naturalWidth === 256")
    seen = page.evaluate(f"{preview}.src")
    assert seen.startswith("data:image/jpeg")
    page.wait_for_function(
        f"seen => {preview}?.naturalWidth === 256 && {preview}.src !== seen", arg=seen
    )
    page.locator("#ts-cancel").click()
    page.wait_for_selector("#ts-stage >> text=Stopped. Nothing was saved.")
    page.wait_for_selector("#ts-render:enabled >> text=Render")
    assert page.locator(".toast-body").count() == 0  # a person's own stop is no error
    assert sorted(out.glob("*.json")) == before


def test_a_place_that_does_not_exist_is_told(page):
    field(page, "lat").fill("95")
    page.wait_for_selector("#ts-layout .ts-wrong >> text=no such place: lat=95")
    page.locator("#ts-render").click()
    page.wait_for_selector(".toast-body >> text=lat must lie in [-90, 90]")


def test_streets_are_asked_for_when_allowed_and_a_dead_line_is_told(page):
    assert not page.locator("#ts-online input").is_checked()
    page.locator("#ts-online input").check()
    page.wait_for_selector("#ts-layout >> text=OpenStreetMap is asked from zoom 13 on")
    assert page.locator("#ts-fetch").is_disabled()
    set_number(page, "zoom", 15)
    page.wait_for_selector("#ts-fetch:enabled")
    page.locator("#ts-fetch").click()
    page.wait_for_selector("#ts-layout >> text=Asking OpenStreetMap")
    page.locator("#ts-stop-fetch").click()
    page.wait_for_selector("#ts-layout .ts-legend")
    assert page.locator(".toast-body").count() == 0
    page.wait_for_selector("#ts-fetch:enabled")
    page.locator("#ts-fetch").click()
    page.wait_for_selector("#ts-layout .ts-wrong >> text=untick 'Allow OpenStreetMap'")
    page.wait_for_selector(".toast-body >> text=the map server")


def test_an_opened_file_shows_its_layout_and_fills_the_page(page, studio, tmp_path):
    spec = RunSpec(lat=-3.1, lon=-60.0, size=64)
    saved = save_render(draw(spec), studio[1])
    shutil.copy(saved[1], tmp_path / "elsewhere.tif")
    page.get_by_text("Open a file", exact=True).click()
    page.locator("#ts-open input[type=file]").set_input_files(tmp_path / "elsewhere.tif")
    page.wait_for_selector("#ts-stage figure:nth-child(2) img")
    page.wait_for_function(f"document.querySelector('#ts-lat input').value == {spec.lat}")


def test_a_layout_is_drawn(page):
    page.locator("#ts-choice label", has_text="Draw").click()
    canvas = page.locator("#ts-editor canvas").first
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)  # the canvas fades in
    was = page.locator("#ts-layout img").get_attribute("src")
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 80, y)
    page.mouse.down()
    page.mouse.move(x + 80, y, steps=8)
    page.mouse.up()
    page.wait_for_function(
        "was => document.querySelector('#ts-layout img')?.getAttribute('src') !== was", arg=was
    )
    assert "ocean" in page.locator("#ts-layout .ts-legend").inner_text()

    page.locator("#ts-palette label", has_text="building").click()
    page.wait_for_function(  # the brush has taken the colour
        "getComputedStyle(document.querySelector('#ts-editor button[aria-label=Color]')).color"
        " === 'rgb(170, 80, 70)'"
    )
    page.mouse.move(x - 80, y + 60)
    page.mouse.down()
    page.mouse.move(x + 80, y + 60, steps=8)
    page.mouse.up()
    page.wait_for_selector("#ts-layout .ts-legend >> text=building")
    assert "ocean" in page.locator("#ts-layout .ts-legend").inner_text()  # the first stroke stayed


def test_only_the_results_can_be_fetched(studio, browser):
    address, out = studio
    context = browser.new_context()
    for path in ("pyproject.toml", "app.py", "assets/SOURCES.md"):
        reply = context.request.get(f"{address}/gradio_api/file={ROOT / path}")
        assert reply.status == 403
    for seen in out.glob("*.png"):
        assert context.request.get(f"{address}/gradio_api/file={seen}").ok
    assert context.request.get(address, headers={"Origin": "http://evil.example"}).status == 403
    context.close()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1440, 900)])
def test_the_page_fits_the_screen_and_render_is_in_sight(browser, studio, width, height):
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(studio[0])
    page.wait_for_selector("#ts-layout .ts-legend")
    box = page.locator("#ts-render").bounding_box()
    assert 0 <= box["y"] <= height - box["height"]
    page.get_by_text("Settings", exact=True).click()
    page.locator("#ts-choice label", has_text="Draw").click()
    page.wait_for_selector("#ts-editor canvas")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_command_tells_a_wrong_port():
    words = [sys.executable, "app.py", "--port", "99999"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert re.search(r"--port 99999 is no port \(give 1 to 65535\)", ran.stderr)
