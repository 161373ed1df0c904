"""What stands before the page: who may come in, and what is answered without the page.

A browser can be led by any web page to talk to a server on its own machine. Requests are refused
when they name another host (DNS rebinding) or come from another page's script (Origin).
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from generation.geo.layers import ASSETS
from generation.studio.map_widget import BASEMAP_URL
from generation.studio.panorama_viewer import VIEWER, VIEWER_CSS, VIEWER_JS

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
FILES = {
    BASEMAP_URL: ("image/png", ASSETS / "basemap.png"),
    VIEWER_JS: ("text/javascript; charset=utf-8", VIEWER / "pannellum.js"),
    VIEWER_CSS: ("text/css; charset=utf-8", VIEWER / "pannellum.css"),
}
"""What the page asks for beside itself: type and file by path."""


class Gate:
    """An ASGI application before another one.

    Args:
        app: What is behind.
        hosts: Names that the server answers to; any when None.
    """

    def __init__(self, app: App, hosts: frozenset[str] | None = LOOPBACK) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer, refuse, or hand on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        refusal = self.refusal(headers.get("host", ""), headers.get("origin"))
        path = str(scope["path"]).rstrip("/")
        if refusal is not None:
            await _answer(send, 403, "text/plain", refusal.encode())
        elif path == "/healthz":
            await _answer(send, 200, "application/json", json.dumps({"status": "ready"}).encode())
        elif path[1:] in FILES:
            kind, file = FILES[path[1:]]
            await _answer(send, 200, kind, file.read_bytes(), b"max-age=3600")
        else:
            await self.app(scope, receive, send)

    def refusal(self, host: str, origin: str | None) -> str | None:
        """Say why a request is refused; None if it is not."""
        if self.hosts is not None and (urlsplit(f"//{host}").hostname or "") not in self.hosts:
            return f"this server does not answer to the name {host!r}\n"
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return f"requests from {origin!r} are refused: open the page itself\n"
        return None


async def _answer(
    send: Callable[[Message], Awaitable[None]],
    status: int,
    kind: str,
    body: bytes,
    cache: bytes = b"no-store",
) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", cache),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
