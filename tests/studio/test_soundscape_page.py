"""The soundscape tab as a person meets it: suggested, edited, brought back, made and heard."""

import contextlib
import os
import socket
import subprocess
import sys
import time

import pytest
from soundscape_fields import make_home, write_hum
from test_page import (  # noqa: F401 - fixtures, and skipped as a whole without a browser
    PATIENCE_S,
    ROOT,
    browser,
    sync_api,
    wait_until_ready,
)

from generation.media.artifact import read_spec


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """Address and folder of a running studio whose models are tiny."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("soundscape_page")
    (folder / "home").mkdir()
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
    page.get_by_role("tab", name="Soundscape").click()
    page.wait_for_selector("#ts-scape-world .ts-map")
    yield page
    page.close()
    assert not errors
    assert not [url for url in requests if not url.startswith((studio[0], "data:", "blob:"))]


def fill(page, name, value):
    box = page.locator(f"#ts-scape-{name} input, #ts-scape-{name} textarea").first
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:  # what is typed while the tab is still put up may be lost
        box.fill(str(value))
        box.blur()
        page.wait_for_timeout(500)
        if box.input_value() == str(value):
            return
    pytest.fail(f"{name} does not take {value}")


def add(page, words, row):
    """Write sources and add them, again where the tab was still being put up and forgot them."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        fill(page, "caption", words)
        page.locator("#ts-scape-add").click()
        with contextlib.suppress(sync_api.TimeoutError):
            page.wait_for_selector(row, timeout=20_000)
            return
    pytest.fail(f"{words} cannot be added")


def fits(page):
    """Tell whether the page is as wide as the screen, of a phone and of a desk."""
    widths = []
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 844})
        widths.append(page.evaluate("document.documentElement.scrollWidth") <= width)
    return all(widths)


def test_sources_are_suggested_edited_and_brought_back(page, tmp_path):
    add(page, "wind and a bell", "#ts-scape-list [data-row]:nth-child(2)")
    page.get_by_label("Words of source 2").fill("a river")
    page.get_by_label("Level, dB of source 1").fill("-9")  # no key, no blur: still sent
    page.locator("#ts-scape-suggest").click()
    page.wait_for_selector("#ts-scape-list >> text=retrieved, likeness to the place")
    page.wait_for_selector("#ts-scape-ground .ts-badge >> text=synthetic image")
    own = page.locator("#ts-scape-list .ts-own").first
    assert not own.is_visible()
    page.get_by_label("Words of source 1").fill("gulls")
    assert own.is_visible()
    assert not page.locator("#ts-scape-list .ts-kept").first.is_visible()
    assert fits(page)
    page.locator("#ts-scape-undo:enabled").click()
    page.wait_for_function(
        "document.querySelector('#ts-scape-list input[name=text]')?.value === 'wind'"
    )
    assert page.get_by_label("Words of source 2").input_value() == "a river"
    assert page.get_by_label("Level, dB of source 1").input_value() == "-9"
    hum = write_hum(tmp_path / "hum.wav")
    page.locator("#ts-scape-drop input[type=file]").set_input_files(hum)
    page.wait_for_selector("#ts-scape-list >> text=Sounds like hum.wav")
    remove = page.get_by_role("button", name="Remove source 1")
    remove.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#ts-scape-list li').length === 2")


def test_a_sound_is_made_played_and_opened_again(page, studio):
    fill(page, "caption", "surf and gulls")
    fill(page, "seconds", 2)
    page.locator("#ts-scape-loop input").check()
    page.locator("#ts-scape-make").click()
    page.wait_for_selector("#ts-scape-stage audio[loop]")
    audio = "document.querySelector('#ts-scape-stage audio')"
    page.wait_for_function(f"{audio}.readyState > 0")
    assert page.evaluate(f"{audio}.duration") == pytest.approx(2)
    page.wait_for_selector("#ts-scape-stage .ts-badge >> text=synthetic sound")
    page.wait_for_selector("#ts-scape-stage >> text=clips whose places are simulated")
    assert fits(page)
    with page.expect_download() as download:
        page.locator("#ts-scape-get-flac").click()
    spec = read_spec(download.value.path())
    assert (spec.seconds, spec.loop, spec.sound_text) == (2.0, True, "surf and gulls")

    fill(page, "seconds", 3)
    page.get_by_text("Open a file to make it again", exact=True).click()
    (saved,) = studio[1].glob("soundscape_*.wav")
    page.locator("#ts-scape-open input[type=file]").set_input_files(saved)
    page.wait_for_function("document.querySelector('#ts-scape-seconds input').value === '2'")


def test_a_mistake_is_told(page):
    fill(page, "hour", "noon")
    page.locator("#ts-scape-make").click()
    page.wait_for_selector(".toast-body >> text=hour='noon' is no hour of the day")
