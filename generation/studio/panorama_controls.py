"""The panorama tab's controls, card by card."""

from collections.abc import Callable

import gradio as gr

from generation.registry import is_here, list_models
from generation.spec import MAX_PROMPT, RunSpec
from generation.studio.controls import FIRST, about_guidance, guidance, seed_row, title
from generation.studio.map_widget import CHIPS_JS, CLICK_JS, examples_html, world_html
from generation.studio.panorama_form import SATELLITE_CHOICES
from generation.studio.panorama_stage import empty_stage, history_html
from generation.studio.panorama_viewer import MOUNT_JS
from generation.studio.panorama_views import list_html
from generation.studio.rows import LIST_JS
from generation.studio.theme import scroll_js
from generation.view_spec import FAR_KM, MAX_VIEWS_GIVEN

_HTML = {"apply_default_css": False}
DEFAULT = RunSpec.from_dict({"kind": "panorama", "lat": FIRST.lat, "lon": FIRST.lon})
MOST_GUIDANCE = 3.0
"""Far enough for trying; the command line takes larger scales."""
GUIDED = {"satellite_guidance": "Satellite image", "views_guidance": "Panoramas"}
"""Fields that are a guidance scale, and their labels."""
_FILES = (("JPEG", "jpg"), ("Overlay", "overlay"), ("Manifest", "json"))


class AsksImage:
    """Asks for the satellite image that something is made for: none, a drawn one, or a file."""

    def _image(self, prefix: str, about: Callable[[str], str]) -> None:
        """Show the switch and what its choices need.

        Args:
            prefix: Of the names in the page.
            about: Says what a choice means, as HTML.
        """
        self.image = gr.State(None)
        self.choice = gr.Radio(
            list(SATELLITE_CHOICES),
            value=DEFAULT.satellite,
            label="Satellite image",
            show_label=False,
            elem_id=f"{prefix}-satellite",
            elem_classes="ts-fours",
        )
        self.about = gr.HTML(about("auto"), js_on_load=None, **_HTML)
        with gr.Column(visible=False) as self.file_group:
            self.upload = gr.File(
                label="A GeoTIFF: red, green, blue; it must reach around the place",
                type="filepath",
                height=120,
                elem_id=f"{prefix}-upload",
            )
        with gr.Column() as self.words_group:
            self.prompt = gr.Textbox(
                DEFAULT.prompt,
                label="What it should look like; may be empty",
                max_lines=2,
                max_length=MAX_PROMPT,
                elem_id=f"{prefix}-prompt",
            )


class PanoramaControls(AsksImage):
    """Every component of the tab; those that are named like a field of ``PanoramaForm`` are it."""

    def __init__(self) -> None:
        self.given = gr.State([])
        self.rows = gr.Textbox("[]", visible=False)
        self.absent = why_absent()
        with gr.Row(equal_height=False, elem_id="ts-pano-columns"):
            with gr.Column(scale=5, min_width=330):
                self._place()
                self._views()
                self._satellite()
            with gr.Column(scale=6, min_width=330):
                self._draw()
                self._result()

    def _place(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            title("Place")
            self.world = gr.HTML(
                world_html(FIRST.lat, FIRST.lon),
                js_on_load=CLICK_JS,
                elem_id="ts-pano-world",
                **_HTML,
            )
            with gr.Row():
                self.lat = gr.Number(
                    FIRST.lat, label="Latitude, °N", min_width=96, elem_id="ts-pano-lat"
                )
                self.lon = gr.Number(
                    FIRST.lon, label="Longitude, °E", min_width=96, elem_id="ts-pano-lon"
                )
                self.heading = gr.Number(
                    0, label="Heading, °", min_width=96, elem_id="ts-pano-heading"
                )
            gr.HTML(
                '<p class="ts-caption">Heading: where the middle of the panorama looks, degrees '
                "clockwise from north; 90 is east.</p>",
                js_on_load=None,
                **_HTML,
            )
            self.examples = gr.HTML(
                examples_html(), js_on_load=CHIPS_JS, elem_id="ts-pano-examples", **_HTML
            )

    def _views(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            title("Panoramas from nearby")
            self.drop = gr.File(
                label=f"Drop up to {MAX_VIEWS_GIVEN} panoramas (2:1 or with GPano; the nearest 3 "
                "are used)",
                file_count="multiple",
                type="filepath",
                height=160,
                elem_id="ts-pano-drop",
            )
            self.list = gr.HTML(list_html([]), js_on_load=LIST_JS, elem_id="ts-views", **_HTML)
            self.far = gr.Checkbox(
                DEFAULT.far,
                label="Take far panoramas",
                info=f"Also those that stand more than {FAR_KM:g} km away.",
                elem_id="ts-pano-far",
            )
            self.around = gr.HTML("", js_on_load=CLICK_JS, elem_id="ts-around", **_HTML)

    def _satellite(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            title("Satellite image")
            self._image("ts-pano", about_image)

    def _draw(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            with gr.Row(elem_id="ts-pano-actions", elem_classes="ts-actions"):
                self.draw = gr.Button(
                    "Draw",
                    variant="primary",
                    scale=3,
                    min_width=140,
                    interactive=not self.absent,
                    elem_id="ts-pano-draw",
                )
                self.stop = gr.Button(
                    "Stop", interactive=False, scale=1, min_width=90, elem_id="ts-pano-stop"
                )
            self.seed, self.new_seed, self.keep = seed_row("ts-pano-seed")
            with gr.Accordion("More", open=False, elem_id="ts-pano-more"):
                self.steps = gr.Slider(
                    1, 200, value=DEFAULT.steps, step=1, label="Steps", elem_id="ts-pano-steps"
                )
                about_guidance(
                    "more exaggerates it, which makes the embedded model's panoramas less like "
                    "the real ones"
                )
                with gr.Row():
                    self.satellite_guidance, self.views_guidance = (
                        guidance(label, getattr(DEFAULT, name), MOST_GUIDANCE)
                        for name, label in GUIDED.items()
                    )
                self.model = gr.Dropdown(
                    list_models("panorama"), value=DEFAULT.model, label="Model"
                )

    def _result(self) -> None:
        with gr.Column(elem_classes="ts-card", elem_id="ts-pano-result"):
            title("Panorama")
            self.stage = gr.HTML(
                empty_stage(self.absent),
                js_on_load=MOUNT_JS + scroll_js("ts-pano-draw", "ts-pano-result"),
                elem_id="ts-pano-stage",
                **_HTML,
            )
            with gr.Row(
                visible=False, elem_id="ts-pano-downloads", elem_classes="ts-downloads"
            ) as self.downloads:
                gr.HTML("Download", js_on_load=None, min_width=70, scale=0, **_HTML)
                self.files = [
                    gr.DownloadButton(label, size="sm", min_width=64, elem_id=f"ts-pano-get-{kind}")
                    for label, kind in _FILES
                ]
        with gr.Column(elem_classes="ts-card"):
            title("Latest panoramas")
            self.history = gr.HTML(
                history_html([]), js_on_load=CHIPS_JS, elem_id="ts-pano-history", **_HTML
            )
            with gr.Accordion("Open a file to make it again", open=False):
                self.open = gr.File(
                    label="A panorama (JPEG) or manifest that Terrascape wrote",
                    type="filepath",
                    height=120,
                    elem_id="ts-pano-open",
                )


def about_image(choice: str) -> str:
    """Say what a choice of satellite image means."""
    told = {
        "auto": "Drawn by the satellite model around the place; none where the map of the world "
        "ends.",
        "none": "The panoramas alone are followed; without any, the model is free.",
        "generated": "Drawn by the satellite model around the place; refused where the map of the "
        "world ends.",
        "file": "Cut out of your own image around the place, about 100 km across.",
    }
    return f'<p class="ts-caption">{told[choice]}</p>'


def why_absent() -> str:
    """Say why no panorama can be drawn here; empty if one can."""
    if any(is_here(name) for name in list_models("panorama")):
        return ""
    return (
        f"No panorama can be drawn here: the weights of {DEFAULT.model} are missing (put their "
        "folder into assets/ or below TERRASCAPE_HOME, and start the studio again)."
    )
