"""The satellite tab's controls, card by card."""

from typing import Any

import gradio as gr

from generation.geo.overpass import ENDPOINT, MAX_SIDE_KM, MIN_ZOOM, TOTAL_S
from generation.geo.sources import ENDINGS
from generation.registry import is_here, list_models
from generation.spec import MAX_GUIDANCE, MAX_PROMPT, RunSpec
from generation.studio.drawing import BRUSH_PX, CANVAS_PX, FIRST_PAINT, brush, paints
from generation.studio.form import LAYOUT_CHOICES, SOUND_CHOICES, random_seed
from generation.studio.looks_controls import LooksControls
from generation.studio.map_widget import (
    CHIPS_JS,
    CLICK_JS,
    EXAMPLES,
    examples_html,
    world_html,
)
from generation.studio.sounds import SOUND_ENDINGS, why_silent
from generation.studio.stage import ALLOW, empty_stage, history_html
from generation.studio.theme import scroll_js

_HTML = {"apply_default_css": False}
FIRST = EXAMPLES[0]
DEFAULT = RunSpec(lat=FIRST.lat, lon=FIRST.lon, prompt=FIRST.prompt)
ALLOW_HINT = (
    f"Streets from zoom {MIN_ZOOM} on, up to {MAX_SIDE_KM:.0f} km, within {TOTAL_S:.0f} s. "
    f"{ENDPOINT.split('/')[2]} is told the frame's corners and sees your address."
)


class Controls(LooksControls):
    """Every component of the tab by name; those that are named like a field of ``Form`` are it."""

    def __init__(self) -> None:
        self.file = gr.State(None)
        self.drawing = gr.State(None)
        self.sound_file = gr.State(None)
        with gr.Row(equal_height=False, elem_id="ts-columns"):
            with gr.Column(scale=5, min_width=330):
                self._place()
                self._layout()
                self._sound()
                self._looks()
            with gr.Column(scale=6, min_width=330):
                self._prompt()
                self._result()

    def _place(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            title("Place")
            self.world = gr.HTML(
                world_html(FIRST.lat, FIRST.lon), js_on_load=CLICK_JS, elem_id="ts-world", **_HTML
            )
            with gr.Row():
                self.lat = _number("Latitude, °N", DEFAULT.lat, "ts-lat")
                self.lon = _number("Longitude, °E", DEFAULT.lon, "ts-lon")
            self.examples = gr.HTML(
                examples_html(), js_on_load=CHIPS_JS, elem_id="ts-examples", **_HTML
            )

    def _layout(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            title("Layout")
            self.choice = gr.Radio(
                list(LAYOUT_CHOICES),
                value=DEFAULT.layout,
                label="Layout",
                show_label=False,
                elem_id="ts-choice",
            )
            with gr.Column(elem_classes="ts-more") as self.online_group:
                self._streets()
            with gr.Column(visible=False) as self.file_group:
                self.upload = gr.File(
                    label=f"Layout file ({', '.join(ENDINGS.split())})",
                    type="filepath",
                    height=120,
                    elem_id="ts-upload",
                )
            with gr.Column(visible=False) as self.draw_group:
                self._canvas()
            groups = [self.online_group, self.file_group, self.draw_group]
            self.layout_extras = [*groups, self.editor, self.drawing]
            with gr.Row(elem_classes="ts-two"):
                with gr.Column(min_width=130):
                    self.region = gr.HTML("", js_on_load=CLICK_JS, elem_id="ts-region", **_HTML)
                with gr.Column(min_width=130):
                    self.layout = gr.HTML("", elem_id="ts-layout", js_on_load=None, **_HTML)

    def _streets(self) -> None:
        self.online = gr.Checkbox(False, label=ALLOW, info=ALLOW_HINT, elem_id="ts-online")
        with gr.Row(visible=False) as self.street_row:
            self.fetch = gr.Button("Fetch streets", size="sm", min_width=120, elem_id="ts-fetch")
            self.stop_fetch = gr.Button(
                "Stop", size="sm", interactive=False, min_width=80, elem_id="ts-stop-fetch"
            )

    def _canvas(self) -> None:
        self.paint = gr.Radio(
            list(paints()),
            value=FIRST_PAINT,
            label="Paint with",
            show_label=False,
            elem_id="ts-palette",
        )
        self.editor = gr.ImageEditor(
            label="Canvas of the layout",
            show_label=False,
            type="numpy",
            image_mode="RGBA",
            format="png",
            sources=[],
            transforms=[],
            layers=False,
            canvas_size=(CANVAS_PX, CANVAS_PX),
            fixed_canvas=True,
            height=400,
            brush=brush(),
            eraser=gr.Eraser(default_size=BRUSH_PX),
            buttons=[],
            elem_id="ts-editor",
        )
        with gr.Row(elem_classes="ts-row-end"):
            self.brush = gr.Slider(
                2, 96, value=BRUSH_PX, step=2, label="Brush width", min_width=150
            )
            self.start_over = gr.Button("Start over", size="md", min_width=110, scale=0)

    def _sound(self) -> None:
        silent = why_silent()
        with gr.Column(elem_classes="ts-card", elem_id="ts-sound"):
            title("Sound")
            self.heard = gr.Radio(
                list(SOUND_CHOICES),
                value="none",
                label="Sound that it should have",
                show_label=False,
                interactive=not silent,
                elem_id="ts-heard",
            )
            if silent:
                gr.HTML(f'<p class="ts-caption">{silent}</p>', js_on_load=None, **_HTML)
            with gr.Column(visible=False) as self.words_group:
                self.sound_text = gr.Textbox(
                    DEFAULT.sound_text,
                    label="What is heard there",
                    placeholder="Such as: waves on a beach",
                    max_lines=2,
                    max_length=MAX_PROMPT,
                    elem_id="ts-sound-text",
                )
            with gr.Column(visible=False) as self.sound_group:
                self.sound_upload = gr.File(
                    label=f"A {SOUND_ENDINGS} file",
                    type="filepath",
                    height=140,
                    elem_id="ts-sound-upload",
                )
                self.sound_about = gr.HTML("", js_on_load=None, **_HTML)
            with gr.Row(visible=False) as self.sound_row:
                self.sound_guidance = guidance("Guidance by the sound", DEFAULT.sound_guidance)
                self.sound_model = gr.Dropdown(
                    models_of("sound-space"),
                    value=DEFAULT.sound_model,
                    label="Understood by",
                    min_width=180,
                )
            self.sound_extras = [self.words_group, self.sound_group, self.sound_row]

    def _looks(self) -> None:
        with gr.Column(elem_classes="ts-card", elem_id="ts-looks"):
            title("Looks")
            self.looks(DEFAULT, models_of("retrieval"))

    def _prompt(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            title("Prompt")
            self.prompt = gr.Textbox(
                DEFAULT.prompt,
                label="Prompt",
                show_label=False,
                placeholder="What it should look like; may be empty",
                lines=2,
                max_lines=4,
                elem_id="ts-prompt",
            )
            with gr.Row(elem_id="ts-actions", elem_classes="ts-actions"):
                self.render = gr.Button(
                    "Render", variant="primary", scale=3, min_width=140, elem_id="ts-render"
                )
                self.cancel = gr.Button(
                    "Cancel", interactive=False, scale=1, min_width=90, elem_id="ts-cancel"
                )
            self.seed, self.new_seed, self.keep = seed_row("ts-seed")
            self._settings()

    def _settings(self) -> None:
        with gr.Accordion("Settings", open=False, elem_id="ts-settings"):
            with gr.Row():
                self.steps = slider("Steps", 1, 200, 1, DEFAULT.steps, "ts-steps")
                self.size = slider("Size, pixels", 64, 1024, 8, DEFAULT.size, "ts-size")
                self.zoom = slider("Zoom", 0, 22, 1, DEFAULT.zoom, "ts-zoom")
            self.ground = gr.HTML("", js_on_load=None, elem_id="ts-ground", **_HTML)
            about_guidance()
            with gr.Row():
                self.text_guidance = guidance("Prompt", DEFAULT.text_guidance)
                self.location_guidance = guidance("Location", DEFAULT.location_guidance)
                self.layout_guidance = guidance("Layout", DEFAULT.layout_guidance)
            self.use_location = gr.Checkbox(True, label="Tell the model where on Earth it is")
            self.model = gr.Dropdown(models_of("satellite"), value=DEFAULT.model, label="Model")

    def _result(self) -> None:
        with gr.Column(elem_classes="ts-card", elem_id="ts-result"):
            title("Result")
            self.stage = gr.HTML(
                empty_stage(),
                js_on_load=scroll_js("ts-render", "ts-result"),
                elem_id="ts-stage",
                **_HTML,
            )
            with gr.Row(
                visible=False, elem_id="ts-downloads", elem_classes="ts-downloads"
            ) as self.downloads:
                gr.HTML("Download", js_on_load=None, min_width=70, scale=0, **_HTML)
                self.files = [
                    gr.DownloadButton(label, size="sm", min_width=64, elem_id=f"ts-get-{kind}")
                    for label, kind in (("PNG", "png"), ("GeoTIFF", "tif"), ("Manifest", "json"))
                ]
        with gr.Column(elem_classes="ts-card"):
            title("Latest results")
            self.history = gr.HTML(
                history_html([]), js_on_load=CHIPS_JS, elem_id="ts-history", **_HTML
            )
            with gr.Accordion("Open a file", open=False):
                self.open = gr.File(
                    label="A PNG, GeoTIFF or manifest that Terrascape wrote",
                    type="filepath",
                    height=120,
                    elem_id="ts-open",
                )


def title(text: str) -> gr.HTML:
    """Head a card."""
    return gr.HTML(f'<h2 class="ts-title">{text}</h2>', js_on_load=None, **_HTML)


def _number(label: str, value: float, elem_id: str) -> gr.Number:
    return gr.Number(value, label=label, min_width=140, elem_id=elem_id)


def slider(
    label: str, low: int, high: int, step: int, value: int, elem_id: str | None = None
) -> gr.Slider:
    """Ask for a whole number."""
    return gr.Slider(low, high, value=value, step=step, label=label, min_width=180, elem_id=elem_id)


def about_guidance(more: str = "more exaggerates it") -> gr.HTML:
    """Say what the sliders below mean, and what scales above 1 do."""
    return gr.HTML(
        '<h3 class="ts-sub">Guidance</h3><p class="ts-caption">How far an input is '
        f"followed: 0 ignores it, 1 is as trained, {more}.</p>",
        js_on_load=None,
        **_HTML,
    )


def seed_row(elem_id: str) -> tuple[gr.Textbox, gr.Button, gr.Checkbox]:
    """Ask for the seed: its value, a button for another one, and whether it stays."""
    with gr.Row(elem_classes="ts-row-end"):
        return (
            gr.Textbox(
                random_seed,
                label="Seed",
                scale=2,
                min_width=120,
                max_lines=1,
                elem_id=elem_id,
            ),
            gr.Button("New seed", size="md", scale=1, min_width=90),
            gr.Checkbox(True, label="Keep this seed", scale=1, min_width=130),
        )


def guidance(name: str, value: float, most: float = MAX_GUIDANCE) -> gr.Slider:
    """Ask how far an input is followed."""
    return gr.Slider(0, most, value=value, step=0.1, label=name, min_width=180)


def models_of(kind: str | None = None) -> list[tuple[Any, Any]]:
    """List the models of a kind, and say of each that is missing that it is."""
    return [(name if is_here(name) else f"{name} (not here)", name) for name in list_models(kind)]
