"""The sound tab as a person meets it: asked, a result pressed, the place drawn next door."""

import os
import socket
import subprocess
import sys

import pytest
from test_page import (  # noqa: F401 - fixtures, and skipped as a whole without a browser
    PATIENCE_S,
    ROOT,
    browser,
    wait_until_ready,
)
from test_sound_tab import PLACES, sound_home  # noqa: F401 - a fixture

SERVE = """
import sys, threading
from pathlib import Path
from generation.studio.page import build, serve
from generation.studio.worker import Desk
desk = Desk(Path(sys.argv[1]), gallery=sys.argv[2])
serve(build(desk), desk, host="127.0.0.1", port=int(sys.argv[3]), browser=False)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def address(sound_home, tmp_path_factory):  # noqa: F811 - the fixture
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("sound_page")
    (folder / "out").mkdir()
    words = [folder / "out", sound_home / "gallery", port]
    environment = {**os.environ, "TERRASCAPE_HOME": str(sound_home)}
    environment |= {"GRADIO_TEMP_DIR": str(folder), "NO_PROXY": "127.0.0.1,localhost"}
    environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}
    command = [sys.executable, "-c", SERVE, *map(str, words)]
    log = folder / "log"
    with log.open("wb") as file, subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=file, stderr=file
    ) as server:  # fmt: skip
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(30)


def fits(page):
    """Tell whether the page is as wide as the screen, of a phone and of a desk."""
    widths = []
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        widths.append(page.evaluate("document.documentElement.scrollWidth") <= width)
    return all(widths)


def test_a_result_is_searched_for_and_its_place_goes_next_door(address, browser):  # noqa: F811
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(PATIENCE_S * 1000)
    errors, requests = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_selector("#ts-layout .ts-legend")

    page.get_by_role("tab", name="Sound", exact=True).click()
    page.get_by_label("What is heard").fill("waves on a beach")
    page.keyboard.press("Enter")
    page.wait_for_selector("#ts-hits .ts-hit")
    assert page.locator("#ts-hits .ts-hit").count() == len(PLACES)
    page.wait_for_selector("#ts-sound-world .ts-overlay")
    overlay = "document.querySelector('#ts-sound-world .ts-overlay')"
    page.wait_for_function(f"{overlay}.complete && {overlay}.naturalWidth === 256")
    assert fits(page)

    press = page.locator("#ts-hits [data-pick^='64.0000,-19.0000']")
    press.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#ts-chosen >> text=64° N, 19° W")
    page.get_by_role("button", name="Draw this place").click()
    page.wait_for_function("document.querySelector('#ts-lat input').value === '64'")
    assert page.locator("#ts-lon input").input_value() == "-19"
    page.wait_for_function(  # the satellite tab follows
        "document.querySelector('#ts-world .ts-pin').style.left === '44.722%'"
    )

    page.locator("#ts-heard label", has_text="In words").click()
    page.get_by_label("What is heard there").fill("surf")
    assert fits(page)
    page.close()
    assert not errors
    assert not [url for url in requests if not url.startswith((address, "data:", "blob:"))]
