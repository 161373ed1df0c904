"""Start the studio: a page on which places are drawn, on this machine, without the network.

    python app.py --port 7860 --out outputs

Stop it with Ctrl-C. GET /healthz answers 200 as soon as the page can be opened.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from generation.console import Parser, guarded, whole


def main(argv: list[str] | None = None) -> int:
    """Serve the studio until it is stopped."""
    parser = Parser(prog="app.py", description="Start the studio.")
    parser.add_argument("--port", type=whole, default=7860, help="port to listen on, 1 to 65535")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; others than the default let"
        " anyone who reaches it render and see the results",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder of the results")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    words = sys.argv[1:] if argv is None else argv

    def work() -> None:
        args = parser.parse_args(words)
        if not 1 <= args.port <= 65535:
            parser.error(f"--port {args.port} is no port (give 1 to 65535)")
        _serve(args.host, args.port, args.out, browser=not args.no_browser and _has_desktop())

    return guarded("app.py", work)


def _serve(host: str, port: int, out: Path, *, browser: bool) -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported
    from generation.media.folder import output_folder
    from generation.spec import RunSpec
    from generation.studio.page import build, serve
    from generation.studio.worker import Desk

    with output_folder(out):  # an unwritable folder is told now and not after the first render
        desk = Desk(out)
        address = serve(build(desk), desk, host=host, port=port, browser=browser)
        print(f"studio: {address}  (results in {out}/, Ctrl-C stops)", flush=True)
        desk.warm_up(RunSpec(lat=0, lon=0).model)
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()
        desk.close()


def _has_desktop() -> bool:
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


if __name__ == "__main__":
    sys.exit(main())
