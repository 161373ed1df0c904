"""The one door to osmnx: reading an OSM file, asking an Overpass server.

osmnx by itself waits 55 seconds and tries again without end when a server is busy, reads answers of
any size, asks a public resolver when the local one fails, pins host names for the whole process and
writes its cache in place. Here every one of those is switched off or bounded: a hook on the HTTP
response reads the body within a deadline and a size and raises before osmnx sees a refusal, and
:mod:`generation.geo.overpass` does the waiting and the caching.

osmnx's settings are process-wide, so they are set in this module only and under a lock.
"""

import io
import json
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from xml.sax import SAXException, parseString
from xml.sax.handler import ContentHandler
from xml.sax.xmlreader import AttributesImpl

from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from generation.errors import LayoutError, NetworkError
from generation.geo.tags import KEYS, QUERY

Row = tuple[dict[str, str], BaseGeometry]
"""The tags of a feature and its geometry in EPSG:4326."""
Response = Any
"""A requests.Response; the package is imported late."""
Frame = Any
"""A geopandas.GeoDataFrame."""
ATTRIBUTION = "Map data (c) OpenStreetMap contributors, ODbL 1.0 (openstreetmap.org/copyright)."
MAX_XML_BYTES = 50 << 20
MAX_ANSWER_BYTES = 64 << 20
SOCKET_TIMEOUT_S = 25.0
"""The longest silence of a server that is borne."""
USER_AGENT = "Terrascape (map layouts; at most three requests for a window)"

_DAMAGED = (
    ArithmeticError,
    AttributeError,
    ShapelyError,
    LookupError,
    RuntimeError,
    SAXException,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What the parsers raise for damaged maps; osmnx checks little by itself."""
_lock = threading.Lock()
_here = threading.local()


@dataclass
class Call:
    """One request: its bounds, and what became of it."""

    deadline_s: float
    """Moment of ``time.monotonic`` at which it is given up."""
    may_retry: bool = True
    retry_after_s: float | None = None
    """What a busy server asked for."""

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline_s - time.monotonic()


def read_xml(path: Path) -> list[Row]:
    """Read an OSM XML file without a network.

    Args:
        path: A ``.osm`` file.

    Returns:
        Its tagged ways and multipolygons; relations whose ways are not in the file are left out.

    Raises:
        LayoutError: The file is too large, no OSM XML, has a document type, a node that is not on
            Earth, or no feature.
    """
    from osmnx import features
    from osmnx._errors import InsufficientResponseError

    text = _check_xml(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that osmnx itself has written
            parseString(text.decode("utf-8"), _NodeCheck(path.name))
            return _rows(features.features_from_xml(path))
    except LayoutError:
        raise
    except InsufficientResponseError:
        raise LayoutError(
            f"{path.name}: no tagged feature in this OSM file (it needs ways with tags such as "
            "highway or natural and the nodes they refer to; export it again)"
        ) from None
    except _DAMAGED as error:
        raise LayoutError(
            f"{path.name}: not readable as OSM XML: {_short(error)} (the file is damaged or of "
            "another kind; export it again as .osm or .osm.pbf)"
        ) from error


class _NodeCheck(ContentHandler):
    """Refuses nodes that lie nowhere on Earth; osmnx takes any number, also NaN."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def startElement(self, name: str, attrs: AttributesImpl) -> None:
        """Look at the next element."""
        if name != "node":
            return
        lat, lon = attrs.get("lat"), attrs.get("lon")
        try:
            on_earth = abs(float(lat or "")) <= 90 and abs(float(lon or "")) <= 180  # NaN is not
        except ValueError:
            on_earth = False
        if not on_earth:
            raise LayoutError(
                f"{self.name}: node {attrs.get('id')!r:.40} has lat={lat!r:.40}, lon={lon!r:.40} "
                "(lat must lie in [-90, 90] and lon in [-180, 180] degrees; correct the node or "
                "take it out)"
            )


def _check_xml(path: Path) -> bytes:
    """Read the file, and refuse what must not reach an XML parser."""
    size = path.stat().st_size
    if size > MAX_XML_BYTES:
        raise LayoutError(
            f"{path.name}: {size / 2**20:.0f} MiB of OSM XML (at most {MAX_XML_BYTES >> 20} MiB; "
            "cut it to the place, or convert it to .osm.pbf)"
        )
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise LayoutError(
            f"{path.name}: the XML declares a document type or entities (an OSM file has none, and "
            "they can hide attacks; export it again)"
        )
    if b"\0" in text or b"<osm" not in text[:4096]:
        raise LayoutError(
            f"{path.name}: no OSM XML in UTF-8 (the root element must be <osm>; export it again)"
        )
    return text


def query(box: tuple[float, float, float, float], endpoint: str, call: Call) -> list[Row]:
    """Ask an Overpass server once, in the calling thread.

    Args:
        box: West, south, east, north in degrees, west below east.
        endpoint: Base address of the server, without ``/interpreter``.
        call: The bounds; tells afterwards whether and when to try again.

    Returns:
        The features that touch the box, whole; none for an empty place.

    Raises:
        NetworkError: The server cannot be reached, refuses, or answers with something else.
    """
    import requests
    import urllib3
    from osmnx import features
    from osmnx._errors import InsufficientResponseError

    host = endpoint.split("//")[-1]
    with _configured(endpoint, call):
        try:
            return _rows(features.features_from_bbox(box, QUERY))
        except InsufficientResponseError:
            return []
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            cause = "did not answer in time" if _is_timeout(error) else "cannot be reached"
            raise NetworkError(
                f"the map server {host} {cause} (this needs the internet; try again later, or "
                "leave out --online or give a map file)"
            ) from error
        except _DAMAGED as error:
            raise NetworkError(
                f"the map server {host} sent a damaged answer: {_short(error)} (try again later, "
                "or leave out --online)"
            ) from error


@contextmanager
def _configured(endpoint: str, call: Call) -> Iterator[None]:
    """Set osmnx up for one request; its settings belong to the whole process."""
    from osmnx import settings

    if not _lock.acquire(timeout=max(0.0, call.left_s)):
        raise NetworkError(
            "another map request is still running (one at a time; try again when it is done)"
        )
    resolve = socket.getaddrinfo
    try:
        settings.use_cache = False
        settings.log_console = settings.log_file = False
        settings.doh_url_template = None
        settings.overpass_rate_limit = False
        settings.overpass_url = endpoint
        settings.http_user_agent = settings.http_referer = USER_AGENT
        settings.requests_timeout = max(0.05, min(SOCKET_TIMEOUT_S, call.left_s))
        settings.overpass_settings = f"[out:json][timeout:{SOCKET_TIMEOUT_S:.0f}]"
        settings.requests_kwargs = {
            "stream": True,
            "allow_redirects": False,
            "hooks": {"response": _read_bounded},
        }
        _here.call = call
        yield
    finally:
        _here.call = None
        socket.getaddrinfo = resolve  # osmnx pins the host's address there
        _lock.release()


def _read_bounded(response: Response, **_: object) -> Response:
    """Read the body of an answer in its bounds; raise before osmnx starts to wait.

    Returns:
        A response that holds its whole body, so that nothing is read later.
    """
    import requests

    call: Call | None = getattr(_here, "call", None)
    if call is None:
        return response
    host = response.url.split("/")[2]
    with response:
        _check_status(response.status_code, response.headers, host, call)
        body = _read_body(response, host, call)
    _check_answer(body, host)
    whole = requests.Response()
    whole.status_code, whole.url, whole.reason = response.status_code, response.url, "OK"
    whole.encoding, whole.raw = "utf-8", io.BytesIO(body)
    return whole


def _check_status(status: int, headers: Mapping[str, str], host: str, call: Call) -> None:
    if status == 200:
        return
    call.may_retry = status == 429 or status >= 500
    call.retry_after_s = parse_retry_after_s(headers.get("Retry-After"))
    state = "is busy" if call.may_retry else "refuses the request"
    raise NetworkError(
        f"the map server {host} {state} (HTTP {status}; try again in a few minutes, or leave out "
        "--online)"
    )


def _read_body(response: Response, host: str, call: Call) -> bytes:
    """Read as the bytes come in: a full buffer may never come from a server that trickles."""
    body = bytearray()
    while chunk := response.raw.read1(1 << 16, decode_content=True):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            call.may_retry = False
            raise NetworkError(
                f"the map server {host} sent more than {MAX_ANSWER_BYTES >> 20} MiB (choose a "
                "higher zoom or a smaller size)"
            )
        if call.left_s < 0:
            raise NetworkError(
                f"the map server {host} did not answer in time (try again later, or leave out "
                "--online)"
            )
    return bytes(body)


def _check_answer(body: bytes, host: str) -> None:
    """Refuse what is no complete answer; a "remark" means that the server broke off."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("elements"), list):
        raise NetworkError(
            f"the map server {host} answered with something that is no map data (try again later, "
            "or leave out --online)"
        )
    if "remark" in answer:
        raise NetworkError(
            f"the map server {host} broke off: {str(answer['remark'])[:120]!r} (choose a higher "
            "zoom or a smaller size, or try again later)"
        )


def parse_retry_after_s(text: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date.

    Returns:
        Seconds from now, not below zero; ``None`` if there is none that can be read.
    """
    if text is None:
        return None
    try:
        wait_s = float(text)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, wait_s) if wait_s == wait_s else None


def _rows(frame: Frame) -> list[Row]:
    """Turn osmnx's table into tags and geometries; points are not drawn."""
    frame = frame[frame.geometry.geom_type != "Point"]
    keys = [c for c in frame.columns if c in KEYS]
    columns = [frame[key].tolist() for key in keys]
    rows = []
    for i, geometry in enumerate(frame.geometry):
        tags = {k: c[i] for k, c in zip(keys, columns, strict=True) if isinstance(c[i], str)}
        if tags:
            rows.append((tags, geometry))
    return rows


def _is_timeout(error: BaseException) -> bool:
    import requests
    import urllib3

    return isinstance(error, requests.exceptions.Timeout | urllib3.exceptions.TimeoutError)


def _short(error: BaseException) -> str:
    return f"{error}"[:120] or type(error).__name__
