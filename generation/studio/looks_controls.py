"""The card of the satellite tab that asks for looks, a habitat and a climate."""

from typing import Any

import gradio as gr

from generation.spec import MAX_PROMPT, RunSpec
from generation.studio.map_widget import CLICK_JS, world_html

_HTML = {"apply_default_css": False}
LOOK = (23.5, 5.0)
"""The place whose look is offered first."""


class LooksControls:
    """Components by name; those that are named like a field of ``Form`` are it."""

    def looks(self, default: RunSpec, databases: list[tuple[Any, Any]]) -> None:
        """Make them, inside a card."""
        self.style_on = gr.Checkbox(False, label="Look like another place", elem_id="ts-style-on")
        with gr.Column(visible=False) as self.style_group:
            self._look_of(default, databases)
        self.habitat_on = gr.Checkbox(
            False, label="Be the habitat of a mammal", elem_id="ts-habitat-on"
        )
        with gr.Column(visible=False) as self.habitat_group:
            self._habitat(default)
        self.climate_on = gr.Checkbox(False, label="Change its climate", elem_id="ts-climate-on")
        with gr.Column(visible=False) as self.climate_group:
            self._climate_of(default)

    def _look_of(self, default: RunSpec, databases: list[tuple[Any, Any]]) -> None:
        self.style_world = gr.HTML(
            world_html(*LOOK), js_on_load=CLICK_JS, elem_id="ts-style-world", **_HTML
        )
        with gr.Row():
            self.style_lat = gr.Number(
                LOOK[0], label="Its latitude, °N", min_width=140, elem_id="ts-style-lat"
            )
            self.style_lon = gr.Number(
                LOOK[1], label="Its longitude, °E", min_width=140, elem_id="ts-style-lon"
            )
        with gr.Row():
            self.sharpness = gr.Slider(
                0,
                1,
                value=default.sharpness,
                step=0.05,
                label="Sharpness: what lies near it (0), or resembles it (1)",
                min_width=180,
                elem_id="ts-sharpness",
            )
            self.style_guidance = _guidance("Guidance by the look", default.style_guidance)
        self.style_database = gr.Dropdown(
            databases, value=default.style_database, label="Looks are taken from"
        )
        self.where = gr.HTML("", js_on_load=None, elem_id="ts-where", **_HTML)

    def _habitat(self, default: RunSpec) -> None:
        with gr.Row(elem_classes="ts-row-end"):
            self.taxon = gr.Textbox(
                default.taxon,
                label="Species, genus, family or order",
                placeholder="Such as: Panthera leo",
                max_lines=1,
                max_length=MAX_PROMPT,
                scale=3,
                min_width=160,
                elem_id="ts-taxon",
            )
            self.find = gr.Button(
                "Show range", size="md", scale=1, min_width=110, elem_id="ts-find"
            )
        self.range_world = gr.HTML("", js_on_load=None, elem_id="ts-range", **_HTML)
        self.range_about = gr.HTML("", js_on_load=None, **_HTML)
        self.habitat_guidance = _guidance("Guidance by the habitat", default.habitat_guidance)

    def _climate_of(self, default: RunSpec) -> None:
        with gr.Row():
            self.warmer_c = gr.Slider(
                -20, 20, value=0, step=0.5, label="Warmer by, °C", min_width=160,
                elem_id="ts-warmer",
            )  # fmt: skip
            self.rain_percent = gr.Slider(
                -100, 300, value=0, step=5, label="More rain, %", min_width=160, elem_id="ts-rain"
            )
        self.climate_guidance = _guidance("Guidance by the climate", default.climate_guidance)


def _guidance(name: str, value: float) -> gr.Slider:
    return gr.Slider(0, 20, value=value, step=0.1, label=name, min_width=180)
