"""The map server, played by a real one on this machine: bounded, polite, kept whole on disk."""

import json
import socket
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs
from xml.etree import ElementTree

import numpy as np
import pytest

from generation.errors import LayoutError, NetworkError
from generation.geo import overpass
from generation.geo.layout import LAYERS
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.geo.osm import parse_retry_after_s
from generation.geo.overpass import OverpassSource
from generation.geo.sources import FileSource, OnlineSource

DATA = Path(__file__).parents[1] / "data"
WINDOW = Window.around(Location(47.002, 8.003), 16, 256)


def answer_of(path):
    """Give an OSM file as an Overpass server would send it."""
    elements = []
    for node in ElementTree.parse(path).getroot():
        if node.tag not in ("node", "way", "relation"):
            continue
        element = {"type": node.tag, "id": int(node.get("id"))}
        if node.tag == "node":
            element |= {"lat": float(node.get("lat")), "lon": float(node.get("lon"))}
        if node.tag == "way":
            element["nodes"] = [int(n.get("ref")) for n in node.findall("nd")]
        if node.tag == "relation":
            element["members"] = [
                {"type": m.get("type"), "ref": int(m.get("ref")), "role": m.get("role")}
                for m in node.findall("member")
            ]
        tags = {t.get("k"): t.get("v") for t in node.findall("tag")}
        elements.append(element | ({"tags": tags} if tags else {}))
    return json.dumps({"version": 0.6, "elements": elements}).encode()


MAP = answer_of(DATA / "tiny.osm")


class Server(ThreadingHTTPServer):
    """Plays a list of answers, one a request, the last one for ever."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.asked = [], []
        self.endpoint = f"http://127.0.0.1:{self.server_port}/api"

    def handle_error(self, request, client_address):
        """Stay silent about clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((self.path, parse_qs(body)["data"][0], time.monotonic()))
        script = self.server.script
        status, headers, data, pause_s = script[min(len(self.server.asked), len(script)) - 1]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for byte in data if pause_s else [data]:
            self.wfile.write(bytes([byte]) if pause_s else byte)
            self.wfile.flush()
            time.sleep(pause_s)

    def log_message(self, *args):
        pass


def reply(status=200, data=MAP, pause_s=0, **headers):
    return status, {k.replace("_", "-"): v for k, v in headers.items()}, data, pause_s


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def source(server, tmp_path):
    return OverpassSource(tmp_path / "cache", server.endpoint, total_s=8.0)


@pytest.fixture
def pauses(monkeypatch):
    """Record waits instead of sitting through them."""
    waited = []
    monkeypatch.setattr(overpass.time, "sleep", lambda s: waited.append(s) if s > 0.5 else None)
    return waited


def cached(source):
    return sorted(path.name for path in source.cache_dir.glob("*"))


def test_an_answer_is_drawn_like_the_file_and_kept(server, source):
    server.script = [reply()]
    first = source.layout(WINDOW)
    again = source.layout(WINDOW)
    from_file = FileSource(DATA / "tiny.osm").layout(WINDOW)
    assert np.array_equal(first.classes, from_file.classes)
    assert np.array_equal(again.classes, first.classes)
    assert (again.source, again.notes) == (first.source, first.notes)
    assert len(server.asked) == 1
    assert "fetched 20" in first.source
    assert "OpenStreetMap" in first.attribution
    assert [Path(name).suffix for name in cached(source)] == [".geojson"]


def test_the_question_is_one_box_with_the_tags_that_are_drawn(server, source):
    server.script = [reply()]
    source.layout(WINDOW)
    path, question, _ = server.asked[0]
    assert path == "/api/interpreter"
    assert question.startswith("[out:json][timeout:25]")
    assert "['highway'](poly:'" in question
    assert "'natural'" in question
    assert "'boundary'" not in question


def test_windows_a_few_pixels_apart_share_an_answer(server, source):
    server.script = [reply()]
    source.layout(WINDOW)
    source.layout(Window(16, WINDOW.col_px + 2, WINDOW.row_px + 2, 256, 256))
    assert len(server.asked) == 1


def test_a_busy_server_is_waited_for_as_long_as_it_asks(server, source):
    server.script = [reply(429, b"slow down", Retry_After="1"), reply()]
    source.layout(WINDOW)
    (_, _, first), (_, _, second) = server.asked
    assert second - first >= 1.0


def test_a_wait_past_the_limit_is_not_begun(server, source):
    server.script = [reply(429, b"", Retry_After="120")]
    started = time.monotonic()
    with pytest.raises(NetworkError, match=r"busy.*HTTP 429.*in 120 s, past the limit of 8 s"):
        source.layout(WINDOW)
    assert time.monotonic() - started < 2
    assert len(server.asked) == 1


def test_three_tries_are_made_and_no_more(server, source, pauses):
    server.script = [reply(504, b"gateway timeout")]
    with pytest.raises(NetworkError, match=r"busy.*HTTP 504.*leave out --online"):
        source.layout(WINDOW)
    assert len(server.asked) == 3
    assert pauses == [2.0, 4.0]
    assert cached(source) == []


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"<html>maintenance</html>", "no map data"),
        (b"[]", "no map data"),
        (b'{"elements": 3}', "no map data"),
        (MAP[: len(MAP) // 2], "no map data"),
        (b'{"elements": [{"type": "way"}]}', "damaged answer"),
        (b'{"elements": [], "remark": "runtime error: out of memory"}', "broke off.*out of memory"),
    ],
)
def test_garbage_is_refused_and_not_kept(server, source, pauses, data, hint):
    server.script = [reply(data=data)]
    with pytest.raises(NetworkError, match=hint):
        source.layout(WINDOW)
    assert len(server.asked) == 3
    assert cached(source) == []


@pytest.mark.parametrize("status", [400, 403, 404, 302])
def test_a_refusal_is_not_tried_again(server, source, status):
    server.script = [reply(status, b"", Location="http://127.0.0.1:1/")]
    with pytest.raises(NetworkError, match=f"refuses.*HTTP {status}"):
        source.layout(WINDOW)
    assert len(server.asked) == 1


def test_a_server_that_trickles_is_given_up_in_time(server, tmp_path):
    server.script = [reply(pause_s=0.05)]
    source = OverpassSource(tmp_path, server.endpoint, total_s=1.0)
    started = time.monotonic()
    with pytest.raises(NetworkError, match="did not answer in time"):
        source.layout(WINDOW)
    assert time.monotonic() - started < 2.0
    server.script = [reply()]
    assert LAYERS.index("road") in source.layout(WINDOW).classes  # the next query is not held up


def test_a_silent_server_is_given_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        source = OverpassSource(tmp_path, f"http://127.0.0.1:{port}/api", total_s=1.0)
        started = time.monotonic()
        with pytest.raises(NetworkError, match="did not answer in time"):
            source.layout(WINDOW)
        assert time.monotonic() - started < 2.0


def test_without_a_network_the_error_says_what_to_do(tmp_path, pauses, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    source = OverpassSource(tmp_path, f"http://127.0.0.1:{port}/api")
    with pytest.raises(NetworkError, match=r"cannot be reached.*needs the internet.*--online"):
        source.layout(WINDOW)


def test_an_endless_answer_is_cut(server, source, monkeypatch):
    monkeypatch.setattr("generation.geo.osm.MAX_ANSWER_BYTES", 1000)
    server.script = [reply()]
    with pytest.raises(NetworkError, match="sent more than"):
        source.layout(WINDOW)
    assert len(server.asked) == 1


def test_an_empty_place_shows_the_embedded_layers(server, source):
    server.script = [reply(data=b'{"elements": []}')]
    layout = source.layout(WINDOW)
    assert any("nothing drawable" in note for note in layout.notes)
    assert LAYERS.index("road") not in layout.classes


def test_a_damaged_kept_answer_is_fetched_again(server, source):
    server.script = [reply()]
    good = source.layout(WINDOW)
    (name,) = cached(source)
    (source.cache_dir / name).write_bytes(b'{"features": [{"geo')
    assert np.array_equal(source.layout(WINDOW).classes, good.classes)
    assert len(server.asked) == 2


def test_a_cache_that_cannot_be_written_is_only_a_note(server, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    server.script = [reply()]
    layout = OverpassSource(tmp_path / "cache", server.endpoint).layout(WINDOW)
    assert any("not kept" in note for note in layout.notes)


def test_the_process_is_left_as_it_was(server, source):
    server.script = [reply()]
    before = socket.getaddrinfo
    source.layout(WINDOW)
    assert socket.getaddrinfo is before


def test_two_threads_may_ask_at_the_same_time(server, source):
    server.script = [reply()]
    drawn = {}
    windows = [Window(16, WINDOW.col_px + d, WINDOW.row_px, 256, 256) for d in (0, 2000)]
    threads = [
        threading.Thread(target=lambda w=w: drawn.update({w.col_px: source.layout(w)}))
        for w in windows
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 2
    assert len(server.asked) == 2


def test_a_large_window_is_never_asked_for(server, source):
    with pytest.raises(LayoutError, match=r"zoom 8 is too large.*zoom in"):
        source.layout(Window.around(Location(47.0, 8.0), 8, 256))
    assert server.asked == []


def test_online_below_zoom_13_needs_no_server(tmp_path):
    layout = OnlineSource(tmp_path).layout(Window.around(Location(47.0, 8.0), 8, 64))
    assert "embedded" in layout.source
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [("7", 7.0), ("0", 0.0), ("-5", 0.0), ("soon", None), ("nan", None), (None, None)],
)
def test_retry_after_is_seconds_or_a_date(text, wait_s):
    assert parse_retry_after_s(text) == wait_s


def test_retry_after_as_a_date_counts_from_now():
    assert parse_retry_after_s(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(
        30, abs=2
    )
