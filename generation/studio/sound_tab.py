"""The sound tab: a question in words or as a clip, what is most alike, and where on Earth."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from generation.errors import InvalidSpecError, TerrascapeError, shown
from generation.geo.location import Location
from generation.spec import MAX_PROMPT
from generation.studio.controls import FIRST
from generation.studio.events import OURS, QUIET, Changes, told, world_click
from generation.studio.map_widget import (
    CHIPS_JS,
    CLICK_JS,
    picked,
    place_at,
    world_html,
)
from generation.studio.satellite_tab import SatelliteTab
from generation.studio.sound_hits import (
    QUERIES,
    asking_hits,
    empty_hits,
    hits_html,
    place_html,
    queries_html,
    refused_hits,
    scale_html,
)
from generation.studio.sound_search import MAX_HITS, NEAR_KM, Question, ask
from generation.studio.sounds import SOUND_ENDINGS
from generation.studio.worker import Desk

KINDS = (("Places", "tile"), ("Clips", "clip"), ("Sentences", "caption"))
"""Labels and values of the kinds of results."""
_HTML = {"apply_default_css": False}


class SoundTab:
    """The controls and what happens when they are used; to be made inside a tab of a page.

    Args:
        desk: Whose gallery is searched.
        satellite: Where the place is kept.
        tabs: What both tabs lie in.
        tab: This one.
    """

    def __init__(self, desk: Desk, satellite: SatelliteTab, tabs: gr.Tabs, tab: gr.Tab) -> None:
        self.desk, self.tabs, self.tab = desk, tabs, tab
        self.place = [satellite.ui.lat, satellite.ui.lon]
        self.overlay = gr.State("")
        absent = why_unanswered(desk.gallery)
        with gr.Row(equal_height=False, elem_id="ts-sound-columns"):
            with gr.Column(scale=5, min_width=330):
                self._question(not absent)
                self._map()
            with gr.Column(scale=6, min_width=330, elem_classes="ts-card"):
                gr.HTML('<h2 class="ts-title">Most alike</h2>', js_on_load=None, **_HTML)
                self.hits = gr.HTML(
                    empty_hits(absent), js_on_load=CHIPS_JS, elem_id="ts-hits", **_HTML
                )

    def _question(self, possible: bool) -> None:
        with gr.Column(elem_classes="ts-card"):
            gr.HTML('<h2 class="ts-title">Search by sound</h2>', js_on_load=None, **_HTML)
            with gr.Row(elem_classes="ts-row-end"):
                self.text = gr.Textbox(
                    label="What is heard",
                    placeholder="Such as: waves on a beach",
                    max_lines=1,
                    max_length=MAX_PROMPT,
                    scale=3,
                    min_width=180,
                    interactive=possible,
                    elem_id="ts-query",
                )
                self.search_button = gr.Button(
                    "Search",
                    variant="primary",
                    scale=1,
                    min_width=96,
                    interactive=possible,
                    elem_id="ts-search",
                )
            self.queries = gr.HTML(
                queries_html() if possible else "",
                js_on_load=CHIPS_JS,
                elem_id="ts-queries",
                **_HTML,
            )
            self.clip = gr.File(
                label=f"Or drop a {SOUND_ENDINGS} file",
                type="filepath",
                height=140,
                interactive=possible,
                elem_id="ts-clip",
            )
            self.kinds = gr.CheckboxGroup(
                list(KINDS), value=["tile"], label="Look for", elem_id="ts-kinds"
            )
            self.top = gr.Slider(1, MAX_HITS, value=10, step=1, label="Results", elem_id="ts-top")
            self.near = gr.Checkbox(
                False, label=f"Only within {NEAR_KM:,.0f} km of the place", elem_id="ts-near"
            )

    def _map(self) -> None:
        with gr.Column(elem_classes="ts-card"):
            gr.HTML('<h2 class="ts-title">Where it may sound so</h2>', js_on_load=None, **_HTML)
            self.world = gr.HTML(
                world_html(FIRST.lat, FIRST.lon),
                js_on_load=CLICK_JS,
                elem_id="ts-sound-world",
                **_HTML,
            )
            self.scale = gr.HTML(scale_html(None), js_on_load=None, elem_id="ts-scale", **_HTML)
            with gr.Row(elem_classes="ts-row-end"):
                self.chosen = gr.HTML(
                    place_html(Location(FIRST.lat, FIRST.lon)),
                    js_on_load=None,
                    elem_id="ts-chosen",
                    **_HTML,
                )
                self.draw = gr.Button(
                    "Draw this place", size="md", scale=0, min_width=150, elem_id="ts-draw-place"
                )

    def wire(self) -> None:
        """Connect the controls with what they do."""
        told_of = [self.text, self.clip, self.hits, self.world, self.scale, self.overlay]
        asked = [self.clip, self.kinds, self.top, self.near, *self.place]
        gr.on(
            [self.search_button.click, self.text.submit],
            self.search,
            [self.text, *asked],
            told_of,
            trigger_mode="once",
            **QUIET,
        )
        self.clip.upload(self.search_clip, asked, told_of, trigger_mode="once", **QUIET)
        self.queries.click(self.search_example, asked, told_of, trigger_mode="once", **QUIET)
        moved = [*self.place, self.world, self.chosen]
        self.hits.click(self.pick_hit, self.overlay, moved, **QUIET)
        self.world.click(self.pick_world, None, [*self.place, self.chosen], **QUIET)
        self.tab.select(
            self.show_place, [*self.place, self.overlay], [self.world, self.chosen], **QUIET
        )
        self.draw.click(lambda: gr.Tabs(selected="satellite"), None, self.tabs, **QUIET)

    def search(self, text: str | None, *values: object) -> Iterator[Changes]:
        """Ask in words, or with the clip where there are none."""
        yield from self._ask(text, values)

    def search_clip(self, *values: object) -> Iterator[Changes]:
        """Ask with the clip that was dropped; words of before are cleared."""
        yield from self._ask("", values)

    def search_example(self, event: gr.EventData, *values: object) -> Iterator[Changes]:
        """Ask one of the example questions."""
        with told():
            text = picked(event)
            if text not in QUERIES:
                raise InvalidSpecError(
                    f"{shown(text)} is no example question (choose one of the list)"
                )
        yield from self._ask(text, values)

    def _ask(self, text: str | None, values: Sequence[Any]) -> Iterator[Changes]:
        """Ask, telling when it begins and what comes of it; what was not asked with is cleared."""
        clip, kinds, top, near, lat, lon = values
        try:
            around = _chosen(lat, lon) if near else None
            question = Question.of(text, clip, kinds, top, around)
            dropped = {self.clip: None} if question.clip is None else {}
            yield {self.text: question.text, self.hits: asking_hits(), **dropped}
            answer = ask(question, self.desk)
        except TerrascapeError as error:
            yield {self.hits: refused_hits(str(error))}
            return
        except Exception as error:
            yield {self.hits: refused_hits(OURS)}
            raise gr.Error(OURS, title="Not done") from error
        overlay = "" if answer.scores is None else answer.scores.overlay
        yield {
            self.hits: hits_html(answer),
            self.world: world_html(lat, lon, overlay),
            self.scale: scale_html(answer.scores, question.label),
            self.overlay: overlay,
        }

    def pick_world(self, event: gr.EventData) -> tuple[float, float, str]:
        """Take a click on the map of the world, whose own script moves the pin."""
        lat, lon = world_click(event)
        return lat, lon, place_html(Location(lat, lon))

    def pick_hit(self, event: gr.EventData, overlay: str) -> tuple[float, float, str, str]:
        """Take the place of a result."""
        with told():
            place = _place_of(picked(event))
        return place.lat, place.lon, *self.show_place(place.lat, place.lon, overlay)

    def show_place(
        self, lat: float | int | None, lon: float | int | None, overlay: str
    ) -> tuple[str, str]:
        """Show which place is chosen, on the map and in words."""
        return world_html(lat, lon, overlay), place_html(place_at(lat, lon))


def why_unanswered(gallery: str) -> str:
    """Say why nothing can be searched; empty if there is a gallery, or one that lies elsewhere."""
    if "://" in gallery or next(Path(gallery).glob("*.lance"), None) is not None:
        return ""
    return (
        f"There is no gallery in {gallery} to be searched (build one: python -m "
        "training.sound_gallery --help; then start the studio again)."
    )


def _chosen(lat: object, lon: object) -> Location:
    place = place_at(lat, lon)
    if place is None:
        raise InvalidSpecError(
            f"lat={shown(lat)}, lon={shown(lon)} is no place to search around (choose one on the "
            "map)"
        )
    return place


def _place_of(pick: str) -> Location:
    """Read the place that a result's button carries.

    Raises:
        InvalidSpecError: It is not one that the page sends.
        InvalidLocationError: It lies nowhere.
    """
    try:
        lat, lon = (float(part) for part in pick.split(","))
    except ValueError:
        raise InvalidSpecError(
            f"{shown(pick)} is no place of a result (press one of the buttons)"
        ) from None
    return Location(round(lat, 2), round(lon, 2))
