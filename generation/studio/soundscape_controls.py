"""The soundscape tab's controls, card by card."""

import gradio as gr

from generation.errors import MissingFileError
from generation.registry import is_here, list_models, locate
from generation.spec import MAX_PROMPT, RunSpec
from generation.studio.controls import FIRST, guidance, models_of, seed_row, slider, title
from generation.studio.map_widget import CHIPS_JS, CLICK_JS, examples_html, world_html
from generation.studio.panorama_controls import AsksImage
from generation.studio.rows import LIST_JS
from generation.studio.soundscape_form import ANY, HOURS, MONTHS
from generation.studio.soundscape_layers import list_html
from generation.studio.soundscape_stage import empty_stage, history_html
from generation.studio.theme import scroll_js

_HTML = {"apply_default_css": False}
DEFAULT = RunSpec.from_dict({"kind": "soundscape", "lat": FIRST.lat, "lon": FIRST.lon})
LIST_ID = "ts-scape-list"
"""The list of sources in the page."""
_FILES = (("FLAC", "flac"), ("WAV", "wav"), ("Manifest", "json"))


class SoundscapeControls(AsksImage):
    """Every component of the tab; those named like a field of ``SoundscapeForm`` are it."""

    def __init__(self) -> None:
        self.given = gr.State([])
        self.earlier = gr.State([])
        self.rows = gr.Textbox("[]", visible=False)
        self.absent = why_absent()
        with gr.Row(equal_height=False, elem_id="ts-scape-columns"):
            with gr.Column(scale=5, min_width=330):
                self._place()
                self._sources()
            with gr.Column(scale=6, min_width=330):
                self._make()
                self._result()

    def _place(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            title("Place and time")
            self.world = gr.HTML(
                world_html(FIRST.lat, FIRST.lon),
                js_on_load=CLICK_JS,
                elem_id="ts-scape-world",
                **_HTML,
            )
            with gr.Row():
                self.lat = gr.Number(
                    FIRST.lat, label="Latitude, °N", min_width=120, elem_id="ts-scape-lat"
                )
                self.lon = gr.Number(
                    FIRST.lon, label="Longitude, °E", min_width=120, elem_id="ts-scape-lon"
                )
            self.examples = gr.HTML(
                examples_html(), js_on_load=CHIPS_JS, elem_id="ts-scape-examples", **_HTML
            )
            with gr.Row():
                self.month = gr.Dropdown(
                    list(MONTHS), value=ANY, label="Month", min_width=120, elem_id="ts-scape-month"
                )
                self.hour = gr.Dropdown(
                    list(HOURS),
                    value=ANY,
                    label="Hour, local time",
                    allow_custom_value=True,
                    min_width=120,
                    elem_id="ts-scape-hour",
                )

    def _sources(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            title("Sources")
            with gr.Row(elem_classes="ts-row-end"):
                self.suggest = gr.Button(
                    "Suggest", size="md", min_width=110, elem_id="ts-scape-suggest"
                )
                self.stop_suggest = gr.Button(
                    "Stop", size="md", min_width=80, visible=False, elem_id="ts-scape-stop-suggest"
                )
                self.undo = gr.Button(
                    "Bring back",
                    size="md",
                    min_width=110,
                    interactive=False,
                    elem_id="ts-scape-undo",
                )
            self.ground = gr.HTML(
                '<p class="ts-caption">Suggest finds what fits the place and the time; the '
                "embedded model has learnt hours and no months. Bring back gives the list of "
                "before.</p>",
                js_on_load=None,
                elem_id="ts-scape-ground",
                **_HTML,
            )
            self.list = gr.HTML(list_html([]), js_on_load=LIST_JS, elem_id=LIST_ID, **_HTML)
            with gr.Row(elem_classes="ts-row-end"):
                self.caption = gr.Textbox(
                    label="In words; joined sources are split",
                    placeholder="Such as: surf on a beach and gulls",
                    max_lines=1,
                    max_length=MAX_PROMPT,
                    scale=3,
                    min_width=180,
                    elem_id="ts-scape-caption",
                )
                self.add = gr.Button(
                    "Add", size="md", scale=0, min_width=80, elem_id="ts-scape-add"
                )
            self.drop = gr.File(
                label="Sounds like this: drop a WAV, FLAC, OGG or MP3 file",
                type="filepath",
                height=150,
                elem_id="ts-scape-drop",
            )

    def _make(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            with gr.Row(elem_id="ts-scape-actions", elem_classes="ts-actions"):
                self.make = gr.Button(
                    "Make sound",
                    variant="primary",
                    scale=3,
                    min_width=140,
                    interactive=not self.absent,
                    elem_id="ts-scape-make",
                )
                self.stop = gr.Button(
                    "Stop", interactive=False, scale=1, min_width=90, elem_id="ts-scape-stop"
                )
            with gr.Row(elem_classes="ts-row-end"):
                self.seconds = gr.Number(
                    DEFAULT.seconds,
                    label="Length, seconds",
                    min_width=120,
                    elem_id="ts-scape-seconds",
                )
                self.loop = gr.Checkbox(
                    DEFAULT.loop, label="As a loop", min_width=120, elem_id="ts-scape-loop"
                )
            self.seed, self.new_seed, self.keep = seed_row("ts-scape-seed")
            with gr.Accordion("Advanced", open=False, elem_id="ts-scape-more"):
                self._more()

    def _more(self) -> None:
        with gr.Row():
            self.candidates = slider(
                "Candidates for each source", 1, 16, 1, DEFAULT.candidates, "ts-scape-candidates"
            )
            self.steps = slider("Steps", 1, 200, 1, DEFAULT.steps, "ts-scape-steps")
        gr.HTML(
            '<p class="ts-caption">Of several candidates the one is kept that is most like what '
            "was asked for and the place.</p>",
            js_on_load=None,
            **_HTML,
        )
        self.sound_guidance = guidance("Guidance", DEFAULT.sound_guidance)
        with gr.Row():
            self.model = gr.Dropdown(
                models_of("soundscape"), value=DEFAULT.model, label="Model", min_width=180
            )
            self.sound_model = gr.Dropdown(
                models_of("sound-space"),
                value=DEFAULT.sound_model,
                label="Understood by",
                min_width=180,
            )
        self.use_location = gr.Checkbox(
            DEFAULT.use_location, label="Tell the model where on Earth it is"
        )
        gr.HTML('<h3 class="ts-sub">Satellite image</h3>', js_on_load=None, **_HTML)
        self._image("ts-scape", about_ground)

    def _result(self) -> None:
        with gr.Column(elem_classes="ts-card", elem_id="ts-scape-result"):
            title("Sound")
            self.stage = gr.HTML(
                empty_stage(self.absent),
                js_on_load=scroll_js("ts-scape-make", "ts-scape-result"),
                elem_id="ts-scape-stage",
                **_HTML,
            )
            with gr.Row(visible=False, elem_classes="ts-downloads") as self.downloads:
                gr.HTML("Download", js_on_load=None, min_width=70, scale=0, **_HTML)
                self.files = [
                    gr.DownloadButton(
                        label, size="sm", min_width=64, elem_id=f"ts-scape-get-{kind}"
                    )
                    for label, kind in _FILES
                ]
        self._postcard()
        with gr.Column(elem_classes="ts-card"):
            title("Latest sounds")
            self.history = gr.HTML(
                history_html([]), js_on_load=CHIPS_JS, elem_id="ts-scape-history", **_HTML
            )
            with gr.Accordion("Open a file to make it again", open=False):
                self.open = gr.File(
                    label="A FLAC, WAV or manifest that Terrascape wrote",
                    type="filepath",
                    height=120,
                    elem_id="ts-scape-open",
                )

    def _postcard(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            title("Postcard")
            gr.HTML(
                '<p class="ts-caption">One page with the place from above, all around and to be '
                "heard, made from what is chosen here.</p>",
                js_on_load=None,
                **_HTML,
            )
            with gr.Row():
                self.postcard = gr.Button(
                    "Make a postcard",
                    size="md",
                    min_width=150,
                    interactive=not self.absent,
                    elem_id="ts-scape-postcard",
                )
                self.stop_postcard = gr.Button(
                    "Stop", size="md", min_width=80, visible=False, elem_id="ts-scape-stop-postcard"
                )
                self.get_postcard = gr.DownloadButton(
                    "Download the page",
                    size="md",
                    min_width=150,
                    visible=False,
                    elem_id="ts-scape-get-postcard",
                )
            self.carded = gr.HTML("", js_on_load=None, elem_id="ts-scape-carded", **_HTML)


def about_ground(choice: str) -> str:
    """Say what a choice of satellite image means for a sound."""
    told = {
        "auto": "Drawn by the satellite model where it decides something: for Suggest, without "
        "sources, and with several candidates.",
        "none": "The place is not looked at; say what is heard.",
        "generated": "Always drawn by the satellite model; captions are compared with it.",
        "file": "Cut out of your own image around the place, about 100 km across.",
    }
    return f'<p class="ts-caption">{told[choice]}</p>'


def why_absent() -> str:
    """Say why no sound can be made here; empty if one can."""
    if any(is_here(name) for name in list_models("soundscape")):
        return ""
    try:
        locate(DEFAULT.model)
    except MissingFileError as error:
        return str(error)
    return ""
