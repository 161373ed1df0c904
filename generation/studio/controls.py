"""The satellite tab's controls, card by card."""

from typing import Any

import gradio as gr

from generation.geo.sources import ENDINGS
from generation.registry import is_here, list_models
from generation.spec import MAX_GUIDANCE, RunSpec
from generation.studio.drawing import CANVAS_PX, palette_colours
from generation.studio.form import LAYOUT_CHOICES, random_seed
from generation.studio.map_widget import (
    CHIPS_JS,
    CLICK_JS,
    EXAMPLES,
    examples_html,
    world_html,
)
from generation.studio.stage import empty_stage, history_html, palette_html

_HTML = {"apply_default_css": False}
FIRST = EXAMPLES[0]
DEFAULT = RunSpec(lat=FIRST.lat, lon=FIRST.lon, prompt=FIRST.prompt)


class Controls:
    """Every component of the tab by name; those that are named like a field of ``Form`` are it."""

    def __init__(self) -> None:
        self.file = gr.State(None)
        self.drawing = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=330):
                self._place()
                self._layout()
            with gr.Column(scale=6, min_width=330):
                self._prompt()
                self._result()

    def _place(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            _title("Place")
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
            _title("Surroundings and layout")
            with gr.Row():
                with gr.Column(min_width=210):
                    self.region = gr.HTML("", js_on_load=CLICK_JS, elem_id="ts-region", **_HTML)
                with gr.Column(min_width=210):
                    self.layout = gr.HTML("", elem_id="ts-layout", js_on_load=None, **_HTML)
            self.choice = gr.Radio(
                list(LAYOUT_CHOICES), value=DEFAULT.layout, label="Layout", elem_id="ts-choice"
            )
            with gr.Column(visible=False) as self.file_group:
                self.upload = gr.File(
                    label=f"Layout file ({', '.join(ENDINGS.split())})",
                    type="filepath",
                    height=120,
                    elem_id="ts-upload",
                )
            with gr.Column(visible=False) as self.draw_group:
                self._canvas()
            self.layout_extras = [self.file_group, self.draw_group, self.editor, self.drawing]

    def _canvas(self) -> None:
        colours = palette_colours()
        self.editor = gr.ImageEditor(
            label="Paint with the colours of the layout",
            type="numpy",
            image_mode="RGBA",
            format="png",
            sources=[],
            transforms=[],
            layers=False,
            canvas_size=(CANVAS_PX, CANVAS_PX),
            fixed_canvas=True,
            brush=gr.Brush(
                default_size=28, colors=colours, default_color=colours[0], color_mode="fixed"
            ),
            eraser=gr.Eraser(default_size=28),
            buttons=[],
            elem_id="ts-editor",
        )
        gr.HTML(palette_html(), js_on_load=None, **_HTML)
        self.start_over = gr.Button("Start over from the place's own layout", size="sm")

    def _prompt(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            self.prompt = gr.Textbox(
                DEFAULT.prompt,
                label="Prompt",
                placeholder="What it should look like; may be empty",
                lines=2,
                max_lines=4,
                elem_id="ts-prompt",
            )
            with gr.Row():
                self.render = gr.Button(
                    "Render", variant="primary", scale=3, min_width=140, elem_id="ts-render"
                )
                self.cancel = gr.Button(
                    "Cancel", interactive=False, scale=1, min_width=90, elem_id="ts-cancel"
                )
            with gr.Row(elem_classes="ts-row-end"):
                self.seed = gr.Textbox(
                    random_seed,
                    label="Seed",
                    scale=2,
                    min_width=120,
                    max_lines=1,
                    elem_id="ts-seed",
                )
                self.new_seed = gr.Button("New seed", size="md", scale=1, min_width=90)
                self.keep = gr.Checkbox(True, label="Keep it", scale=1, min_width=90)
            self._settings()

    def _settings(self) -> None:
        with gr.Accordion("Settings", open=False, elem_id="ts-settings"):
            with gr.Row():
                self.steps = _slider("Steps", 1, 200, 1, DEFAULT.steps, "ts-steps")
                self.size = _slider("Size, pixels", 64, 1024, 8, DEFAULT.size)
                self.zoom = _slider("Zoom", 0, 22, 1, DEFAULT.zoom)
            with gr.Row():
                self.text_guidance = _guidance("Prompt", DEFAULT.text_guidance)
                self.location_guidance = _guidance("Location", DEFAULT.location_guidance)
                self.layout_guidance = _guidance("Layout", DEFAULT.layout_guidance)
            gr.HTML(
                '<p class="ts-caption">Guidance: 1 follows an input as trained, more exaggerates '
                "it, 0 ignores it.</p>",
                js_on_load=None,
                **_HTML,
            )
            with gr.Row():
                self.use_location = gr.Checkbox(True, label="Tell the model where on Earth it is")
                self.model = gr.Dropdown(_models(), value=DEFAULT.model, label="Model")

    def _result(self) -> None:
        with gr.Column(elem_classes="ts-card", elem_id="ts-result"):
            _title("Result")
            self.stage = gr.HTML(empty_stage(), js_on_load=None, elem_id="ts-stage", **_HTML)
            with gr.Row(visible=False) as self.downloads:
                self.files = [
                    gr.DownloadButton(label, size="sm", min_width=96, elem_id=f"ts-get-{kind}")
                    for label, kind in (
                        ("Download PNG", "png"),
                        ("GeoTIFF", "tif"),
                        ("Manifest", "json"),
                    )
                ]
        with gr.Column(elem_classes="ts-card"):
            _title("Latest results")
            self.history = gr.HTML(
                history_html([]), js_on_load=CHIPS_JS, elem_id="ts-history", **_HTML
            )
            with gr.Accordion("Open a PNG, GeoTIFF or manifest from elsewhere", open=False):
                self.open = gr.File(
                    type="filepath", show_label=False, height=120, elem_id="ts-open"
                )


def _title(text: str) -> gr.HTML:
    return gr.HTML(f'<h2 class="ts-title">{text}</h2>', js_on_load=None, **_HTML)


def _number(label: str, value: float, elem_id: str) -> gr.Number:
    return gr.Number(value, label=label, min_width=140, elem_id=elem_id)


def _slider(
    label: str, low: int, high: int, step: int, value: float, elem_id: str | None = None
) -> gr.Slider:
    return gr.Slider(low, high, value=value, step=step, label=label, min_width=150, elem_id=elem_id)


def _guidance(name: str, value: float) -> gr.Slider:
    label = f"{name} guidance"
    return gr.Slider(0, MAX_GUIDANCE, value=value, step=0.1, label=label, min_width=150)


def _models() -> list[tuple[Any, Any]]:
    return [(name if is_here(name) else f"{name} (not here)", name) for name in list_models()]
