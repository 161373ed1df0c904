"""The page as a whole, and the server that hands it out."""

import os

import gradio as gr

from generation.errors import OutputError
from generation.studio.gate import LOOPBACK, Gate
from generation.studio.panorama_tab import PanoramaTab
from generation.studio.satellite_tab import SatelliteTab
from generation.studio.sound_tab import SoundTab
from generation.studio.soundscape_tab import SoundscapeTab
from generation.studio.theme import CSS, HEAD, header_html, studio_theme
from generation.studio.worker import Desk

MAX_UPLOAD = "256mb"


def build(desk: Desk) -> gr.Blocks:
    """Put the page together.

    Args:
        desk: Where results go, the seat at the model, and what is searched.
    """
    with gr.Blocks(title="Terrascape", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(header_html(), apply_default_css=False)
        with gr.Tabs(elem_id="ts-tabs") as tabs:
            with gr.Tab("Satellite", id="satellite"):
                satellite = SatelliteTab(desk)
            with gr.Tab("Panorama", id="panorama") as round_about:
                panorama = PanoramaTab(desk)
            with gr.Tab("Soundscape", id="soundscape") as heard:
                soundscape = SoundscapeTab(desk)
            with gr.Tab("Sound", id="sound") as tab:
                sound = SoundTab(desk, satellite, tabs, tab)
        satellite.wire(page)
        panorama.wire(page, round_about)
        soundscape.wire(page, heard)
        sound.wire()
    return page


def serve(page: gr.Blocks, desk: Desk, *, host: str, port: int, browser: bool) -> str:
    """Start the server in the background and give its address.

    Args:
        page: What ``build`` gave.
        desk: The same as there; only its folder can be reached through the server.
        host: Address to listen on.
        port: Port to listen on.
        browser: Whether to open the page in the person's browser.

    Raises:
        OutputError: The port is taken, or the address is none of this machine.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    hosts = LOOPBACK if host in LOOPBACK else None
    page.queue(default_concurrency_limit=8, max_size=64)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            allowed_paths=[str(desk.out.resolve())],
            max_file_size=MAX_UPLOAD,
            app_kwargs={"middleware": [(Gate, (), {"hosts": hosts})]},
            _frontend=False,  # else it gives up when its own page takes over 3 s, on a busy machine
            theme=studio_theme(),
            css=CSS,
            head=HEAD,
        )
    except OSError as error:
        raise OutputError(
            f"host={host} port={port}: the studio cannot listen there ({error}; is another one "
            "running? give another --port)"
        ) from error
    return str(address)
