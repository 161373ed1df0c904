"""The satellite tab: a place, a layout, a prompt; the picture beside its layout."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from generation.errors import InvalidSpecError, TerrascapeError
from generation.geo.layers import EmbeddedSource
from generation.geo.overpass import MIN_ZOOM
from generation.media.artifact import Artifact
from generation.studio import stage
from generation.studio.controls import Controls
from generation.studio.drawing import BRUSH_JS, Drawing, canvas, read_drawing
from generation.studio.events import (
    QUIET,
    Changes,
    dropped_result,
    end_text,
    example_click,
    picked_result,
    pressable,
    raise_error,
    told,
    went_well,
    why,
    world_click,
)
from generation.studio.form import Form, random_seed
from generation.studio.looks import range_of, where_from
from generation.studio.map_widget import RegionMap, clicked, region_html, world_html
from generation.studio.recall import restore
from generation.studio.sounds import describe_sound, file_or_refuse
from generation.studio.worker import Desk, Job, StreetJob


class SatelliteTab:
    """The controls and what happens when they are used; to be made inside a page."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.ui = Controls()
        self.fields = [getattr(self.ui, field.name) for field in fields(Form)]
        ui = self.ui
        self.shown = [ui.world, ui.region, ui.layout, ui.ground, ui.street_row, ui.fetch]

    def wire(self, page: gr.Blocks) -> None:
        """Connect the controls with what they do."""
        ui = self.ui
        watched = ui.lat, ui.lon, ui.zoom, ui.size, ui.choice, ui.file, ui.drawing, ui.online
        gr.on(
            [*(each.change for each in watched), page.load],
            self.refresh,
            self.fields,
            self.shown,
            trigger_mode="always_last",
            **QUIET,
        )
        ui.choice.change(self.choose_layout, self.fields, ui.layout_extras, **QUIET)
        page.load(self.remember, None, ui.history, **QUIET)
        self._wire_place()
        self._wire_layout()
        self._wire_sound()
        self._wire_looks()
        self._wire_render()

    def _wire_place(self) -> None:
        ui = self.ui
        ui.world.click(world_click, None, [ui.lat, ui.lon], **QUIET)
        ui.region.click(self.pick_region, self.fields, [ui.lat, ui.lon], **QUIET)
        ui.examples.click(self.pick_example, None, [ui.lat, ui.lon, ui.prompt], **QUIET)

    def _wire_layout(self) -> None:
        ui = self.ui
        ui.upload.upload(lambda path: path, ui.upload, ui.file, **QUIET)
        ui.upload.clear(lambda: None, None, ui.file, **QUIET)
        fetched = ui.fetch.click(
            self.fetch_streets,
            self.fields,
            [ui.layout, ui.fetch, ui.stop_fetch],
            trigger_mode="once",
            concurrency_limit=None,
            **QUIET,
        )
        fetched.success(self.refresh, self.fields, self.shown, **QUIET)  # the place may have moved
        ui.stop_fetch.click(self.stop_fetch, None, ui.stop_fetch, **QUIET)
        gr.on(
            [ui.paint.change, ui.brush.change], None, [ui.paint, ui.brush], ui.editor, js=BRUSH_JS
        )
        ui.start_over.click(self.start_drawing, self.fields, [ui.editor, ui.drawing], **QUIET)
        ui.editor.input(
            self.read_canvas, ui.editor, ui.drawing, trigger_mode="always_last", **QUIET
        )

    def _wire_sound(self) -> None:
        ui, told = self.ui, [self.ui.sound_file, self.ui.sound_about]
        ui.heard.change(choose_sound, ui.heard, ui.sound_extras, **QUIET)
        ui.sound_upload.upload(take_sound, ui.sound_upload, told, **QUIET)
        ui.sound_upload.clear(lambda: (None, ""), None, told, **QUIET)

    def _wire_looks(self) -> None:
        ui = self.ui
        for switch, group in (
            (ui.style_on, ui.style_group),
            (ui.habitat_on, ui.habitat_group),
            (ui.climate_on, ui.climate_group),
        ):
            switch.change(lambda on: gr.update(visible=on), switch, group, **QUIET)
        place = [ui.style_lat, ui.style_lon]
        asked = [*place, ui.sharpness, ui.style_database]
        ui.style_world.click(world_click, None, place, **QUIET)
        gr.on(
            [ui.style_on.change, *(each.change for each in asked)],
            where_from,
            asked,
            [ui.style_world, ui.where],
            trigger_mode="always_last",
            **QUIET,
        )
        gr.on(
            [ui.find.click, ui.taxon.submit],
            range_of,
            [ui.taxon, ui.lat, ui.lon],
            [ui.range_world, ui.range_about],
            trigger_mode="once",
            **QUIET,
        )

    def _wire_render(self) -> None:
        ui = self.ui
        results = [ui.stage, ui.downloads, *ui.files, ui.history]
        ui.new_seed.click(random_seed, None, ui.seed, **QUIET)
        rendered = gr.on(
            [ui.render.click, ui.prompt.submit],
            self.render,
            [*self.fields, ui.keep],
            [ui.render, ui.cancel, ui.seed, *results],
            trigger_mode="once",
            concurrency_limit=None,
            **QUIET,
        )
        rendered.success(self.refresh, self.fields, self.shown, **QUIET)  # streets may have come
        ui.cancel.click(self.cancel, None, ui.cancel, **QUIET)
        restored = [*self.fields, ui.keep, ui.upload, ui.sound_upload, ui.sound_about, *results]
        ui.history.click(self.bring_back, None, restored, **QUIET)
        ui.open.upload(self.open_file, ui.open, restored, **QUIET)

    # What is shown while the fields change

    def refresh(self, *values: object) -> Changes:
        """Draw the maps and the layout for what the fields say."""
        ui, form = self.ui, Form.of(values)
        changes: Changes = {
            ui.world: world_html(form.lat, form.lon),
            ui.street_row: gr.update(visible=form.online),
            ui.fetch: gr.update(interactive=form.asks),
        }
        try:
            window = form.place().window()
        except TerrascapeError as error:
            return {**changes, ui.layout: stage.refused_html(str(error)), ui.ground: ""}
        return {
            **changes,
            ui.region: region_html(window),
            ui.ground: stage.size_html(window),
            ui.layout: self._preview(form),
        }

    def _preview(self, form: Form) -> str:
        """Show the layout as far as it is known without asking anybody."""
        try:
            if form.asks:
                return self._streets(form)
            return stage.layout_html(form.layout(), _out_of_sight(form))
        except TerrascapeError as error:
            return stage.refused_html(str(error))

    def _streets(self, form: Form) -> str:
        known = self.desk.streets.get(form.place().window())
        layout = known or form.layout()
        if layout is None or known:
            return stage.layout_html(layout)
        note = "These are the world layers; 'Fetch streets' or 'Render' gets the streets."
        return stage.layout_html(replace(layout, notes=()), note)

    def remember(self) -> str:
        """List what the folder holds already."""
        return stage.history_html(stage.recent(self.desk.out))

    # The place

    def pick_region(self, event: gr.EventData, *values: object) -> tuple[float, float]:
        """Take a click on the map of the surroundings."""
        with told():
            place = RegionMap.around(Form.of(values).place().window()).location(*clicked(event))
        return round(place.lat, 4), round(place.lon, 4)

    def pick_example(self, event: gr.EventData) -> tuple[float, float, str]:
        """Take one of the example places."""
        place = example_click(event)
        return place.lat, place.lon, place.prompt

    # The layout

    def choose_layout(self, *values: object) -> list[Any]:
        """Show what the chosen kind of layout needs: a file, a canvas or nothing."""
        form = Form.of(values)
        editor, drawing = gr.skip(), gr.skip()
        if form.choice == "draw" and form.drawing is None:
            editor, drawing = self.start_drawing(*values)
        groups = [gr.update(visible=form.choice == kind) for kind in ("auto", "file", "draw")]
        return [*groups, editor, drawing]

    def start_drawing(self, *values: object) -> tuple[Any, Any]:
        """Put the layout of the place on the canvas."""
        with told():
            layout = EmbeddedSource().layout(Form.of(values).place().window())
        ground = canvas(layout)
        value = {"background": ground, "layers": [], "composite": ground}
        return value, read_drawing(ground)

    def read_canvas(self, value: dict[str, Any] | None) -> Drawing | Any:  # noqa: ANN401 - or a skip
        """Take what is on the canvas."""
        pixels = (value or {}).get("composite")
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 3:
            return gr.skip()
        with told():
            return read_drawing(pixels)

    def fetch_streets(self, request: gr.Request, *values: object) -> Iterator[Changes]:
        """Ask the map server for the streets, to see them before the render."""
        ui, visitor, form = self.ui, request.session_hash or "", Form.of(values)
        with told():
            if not form.asks:
                raise InvalidSpecError(_out_of_sight(form) or f"tick {stage.ALLOW!r} first")
            job = StreetJob(self.desk, form.place().window())
        with self.desk.watched(visitor, job):
            yield {ui.fetch: gr.update(interactive=False), ui.stop_fetch: pressable(True)}
            for progress in job.watch():
                yield {ui.layout: stage.asking_html(progress)}
        yield {
            ui.layout: self._preview(form) if went_well(job) else stage.refused_html(why(job)),
            ui.fetch: pressable(True),
            ui.stop_fetch: pressable(False),
        }
        raise_error(job)

    def stop_fetch(self, request: gr.Request) -> Any:  # noqa: ANN401 - an update
        """Wait for the map server no longer."""
        self.desk.stop(request.session_hash or "", StreetJob)
        return pressable(False)

    # The render

    def render(self, request: gr.Request, *values: object) -> Iterator[Changes]:
        """Render, telling each step."""
        ui, visitor = self.ui, request.session_hash or ""
        *given, keep = values
        with told():
            form = Form.of(tuple(given))
            if not keep:
                form = replace(form, seed=random_seed())
            spec = form.spec(self.desk.out)
            layout = None if form.asks else stage.image_uri(form.layout())
        job = Job(spec, self.desk, online=form.asks)
        with self.desk.watched(visitor, job):
            yield {
                ui.seed: str(spec.seed),
                ui.render: gr.update(interactive=False, value="Rendering…"),
                ui.cancel: pressable(True),
                ui.stage: stage.running_stage(job.progress, layout),
                ui.downloads: gr.update(visible=False),
            }
            for progress in job.watch():
                layout = layout or stage.image_uri(job.streets)
                yield {ui.stage: stage.running_stage(progress, layout)}
        yield {**self._idle(), **self._ended(job, layout)}
        raise_error(job)

    def cancel(self, request: gr.Request) -> Any:  # noqa: ANN401 - an update
        """Stop the visitor's render at its next step."""
        self.desk.stop(request.session_hash or "", Job)
        return pressable(False)

    def _idle(self) -> Changes:
        return {
            self.ui.render: gr.update(interactive=True, value="Render"),
            self.ui.cancel: pressable(False),
        }

    def _ended(self, job: Job, layout: str | None) -> Changes:
        if job.result is None:
            return {self.ui.stage: stage.stopped_stage(job.progress, layout, end_text(job))}
        files = {_ending(path): path for path in job.paths}
        html = stage.finished_stage(
            files[".png"], files.get(".layout.png"), job.spec, job.result.provenance
        )
        return {self.ui.stage: html, **self._saved(files[".json"])}

    # Results

    def bring_back(self, event: gr.EventData) -> Changes:
        """Fill the page with an earlier result."""
        with told():
            return self._restored(picked_result(event, self.desk.out))

    def open_file(self, path: str | None) -> Changes:
        """Fill the page from a rendered file of any folder."""
        with told():
            return self._restored(dropped_result(path, ".png, .tif or .json"))

    def _restored(self, artifact: Artifact) -> Changes:
        ui, back = self.ui, restore(artifact, self.desk.out)
        if back.note:
            gr.Info(stage.page_words(back.note), title="Brought back")
        html = stage.artifact_stage(artifact, self.desk.out)
        filled = {getattr(ui, each.name): getattr(back.form, each.name) for each in fields(Form)}
        saved: Changes = {ui.downloads: gr.update(visible=False)}
        if artifact.path.parent.resolve() == self.desk.out.resolve():
            saved = self._saved(artifact.sibling(".json"))
        dropped = {ui.upload: back.form.file, ui.sound_upload: back.form.sound_file}
        return {**filled, **dropped, ui.keep: True, ui.sound_about: "", ui.stage: html, **saved}

    def _saved(self, manifest: Path) -> Changes:
        """Offer a result's files, and show it first in the strip."""
        ui = self.ui
        endings = (".png", ".tif", ".json")
        paths = [manifest.with_name(f"{manifest.stem}{ending}") for ending in endings]
        offered = {
            button: gr.update(value=str(path), interactive=path.is_file())
            for button, path in zip(ui.files, paths, strict=True)
        }
        strip = stage.history_html(stage.recent(self.desk.out), manifest.stem)
        return {ui.downloads: gr.update(visible=True), **offered, ui.history: strip}


def choose_sound(heard: str) -> list[Any]:
    """Show what the chosen kind of sound needs: words or a file, and how far it is followed."""
    seen = (heard == "words", heard == "file", heard != "none")
    return [gr.update(visible=each) for each in seen]


def take_sound(path: str | None) -> tuple[str | None, str]:
    """Take a dropped sound if it can be read, and tell what it is or why it is not taken."""
    try:
        text = describe_sound(file_or_refuse(path))
    except TerrascapeError as error:
        return None, f'<p class="ts-note ts-wrong" role="alert">{stage.page_words(str(error))}</p>'
    return path, f'<p class="ts-caption" role="status">Taken: {text}.</p>'


def _out_of_sight(form: Form) -> str:
    """Say why streets are allowed and still not asked for; empty if that is not so."""
    if form.asks or not form.online or form.choice != "auto":
        return ""
    return (
        f"zoom {form.zoom} shows no streets: OpenStreetMap is asked from zoom {MIN_ZOOM} on "
        "(raise the zoom in the settings)"
    )


def _ending(path: Path) -> str:
    return ".layout.png" if path.name.endswith(".layout.png") else path.suffix
