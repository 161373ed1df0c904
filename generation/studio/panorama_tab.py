"""The panorama tab: a place, panoramas from nearby, a satellite image; and what is drawn."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gradio as gr

from generation.errors import InvalidSpecError, TerrascapeError
from generation.media.artifact import Artifact
from generation.studio import panorama_stage as stage
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
    world_click,
)
from generation.studio.form import random_seed
from generation.studio.map_widget import clicked, world_html
from generation.studio.panorama_controls import (
    GUIDED,
    MOST_GUIDANCE,
    PanoramaControls,
    about_image,
)
from generation.studio.panorama_form import PanoramaForm, reads_words
from generation.studio.panorama_recall import files_of as files_beside
from generation.studio.panorama_recall import find_files, restore
from generation.studio.panorama_views import (
    around_html,
    list_html,
    region_of,
    take_views,
)
from generation.studio.rows import list_event, number_of, rows_js
from generation.studio.stage import page_words
from generation.studio.worker import Desk, PanoramaJob

_WITH_ROWS = {"js": rows_js("ts-views"), **QUIET}


class PanoramaTab:
    """The controls and what happens when they are used; to be made inside a tab of a page."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.ui = PanoramaControls()
        self.fields = [getattr(self.ui, field.name) for field in fields(PanoramaForm)]
        self.maps = [self.ui.world, self.ui.around]

    def wire(self, page: gr.Blocks, tab: gr.Tab) -> None:
        """Connect the controls with what they do."""
        ui = self.ui
        gr.on(
            [ui.lat.change, ui.lon.change, ui.heading.change, tab.select],
            self.refresh,
            self.fields,
            self.maps,
            trigger_mode="always_last",
            **_WITH_ROWS,
        )
        page.load(self.remember, None, ui.history, **QUIET)
        ui.world.click(world_click, None, [ui.lat, ui.lon], **QUIET)
        ui.around.click(self.pick_around, self.fields, [ui.lat, ui.lon], **_WITH_ROWS)
        ui.examples.click(self.pick_example, None, [ui.lat, ui.lon], **QUIET)
        self._wire_inputs()
        self._wire_draw()

    def _wire_inputs(self) -> None:
        ui = self.ui
        listed = [ui.given, ui.list, ui.around]
        ui.drop.upload(self.take, [ui.drop, *self.fields], [ui.drop, *listed], **_WITH_ROWS)
        ui.list.click(self.remove, self.fields, listed, **QUIET)
        ui.list.input(self.edit, self.fields, ui.around, trigger_mode="always_last", **QUIET)
        gr.on(
            [ui.choice.change, ui.model.change],
            choose_image,
            [ui.choice, ui.model],
            [ui.about, ui.file_group, ui.words_group],
            **QUIET,
        )
        ui.upload.upload(lambda path: path, ui.upload, ui.image, **QUIET)
        ui.upload.clear(lambda: None, None, ui.image, **QUIET)

    def _wire_draw(self) -> None:
        ui = self.ui
        results = [ui.stage, ui.downloads, *ui.files, ui.history]
        ui.new_seed.click(random_seed, None, ui.seed, **QUIET)
        ui.draw.click(
            self.draw,
            [ui.keep, *self.fields],
            [ui.draw, ui.stop, ui.seed, *results],
            trigger_mode="once",
            concurrency_limit=None,
            **_WITH_ROWS,
        )
        ui.stop.click(self.stop, None, ui.stop, **QUIET)
        filled = [each for each in self.fields if each is not ui.rows]
        restored = [*filled, ui.keep, ui.upload, ui.list, ui.around, *results]
        ui.history.click(self.bring_back, None, restored, **QUIET)
        ui.open.upload(self.open_file, ui.open, restored, **QUIET)

    # The place and the panoramas around it

    def refresh(self, *values: object) -> tuple[str, str]:
        """Draw the maps for what the fields say."""
        form = PanoramaForm.of(values)
        return world_html(form.lat, form.lon), self._around(form)

    def _around(self, form: PanoramaForm) -> str:
        if form.place is None:
            return _refused(f"lat={form.lat}, lon={form.lon} is no place (latitude first)")
        try:
            return around_html(form.place, form.views, number_of(form.heading))
        except TerrascapeError as error:
            return _refused(str(error))

    def pick_around(self, event: gr.EventData, *values: object) -> tuple[float, float]:
        """Take a click on the map around the place."""
        with told():
            form = PanoramaForm.of(values)
            if form.place is None:
                raise InvalidSpecError("there is no place yet (choose one on the map of the world)")
            place = region_of(form.place, form.views).location(*clicked(event))
        return round(place.lat, 4), round(place.lon, 4)

    def pick_example(self, event: gr.EventData) -> tuple[float, float]:
        """Take one of the example places."""
        place = example_click(event)
        return place.lat, place.lon

    def take(self, paths: list[str] | None, *values: object) -> Changes:
        """Add dropped panoramas to the list; what is no panorama is told and left out."""
        with told():
            form = PanoramaForm.of(values)
            views, refused = take_views(paths or [], form.views)
        if refused:
            gr.Warning(page_words(refused), title="Left out")
        return {self.ui.drop: None, **self._listed(form, views)}

    def remove(self, event: gr.EventData, *values: object) -> Changes:
        """Take a panorama from the list."""
        rows, key = list_event(event)
        with told():
            form = replace(PanoramaForm.of(values), rows=rows)
            views = [view for view in form.views if view.key != key]
        return self._listed(form, views)

    def edit(self, event: gr.EventData, *values: object) -> str:
        """Show on the map what was typed in the list."""
        return self._around(replace(PanoramaForm.of(values), rows=list_event(event)[0]))

    def _listed(self, form: PanoramaForm, views: list[Any]) -> Changes:
        ui = self.ui
        shown = self._around(replace(form, given=views, rows="[]"))
        return {ui.given: views, ui.list: list_html(views), ui.around: shown}

    # Drawing

    def remember(self) -> str:
        """List what the folder holds already."""
        return stage.history_html(stage.recent(self.desk.out))

    def draw(self, request: gr.Request, keep: bool, *values: object) -> Iterator[Changes]:
        """Draw, telling each step."""
        ui, visitor = self.ui, request.session_hash or ""
        with told():
            form = PanoramaForm.of(values)
            if not keep:
                form = replace(form, seed=random_seed())
            spec = form.spec(self.desk.out)
            job = PanoramaJob(spec, self.desk)
        with self.desk.watched(visitor, job):
            yield {
                ui.seed: str(spec.seed),
                ui.draw: gr.update(interactive=False, value="Drawing…"),
                ui.stop: pressable(True),
                ui.stage: stage.running_stage(job.progress),
                ui.downloads: gr.update(visible=False),
            }
            for progress in job.watch():
                yield {ui.stage: stage.running_stage(progress)}
        yield {
            ui.draw: gr.update(interactive=True, value="Draw"),
            ui.stop: pressable(False),
            **self._ended(job),
        }
        raise_error(job)

    def stop(self, request: gr.Request) -> Any:  # noqa: ANN401 - an update
        """Stop the visitor's panorama at its next step."""
        self.desk.stop(request.session_hash or "", PanoramaJob)
        return pressable(False)

    def _ended(self, job: PanoramaJob) -> Changes:
        if job.result is None:
            return {self.ui.stage: stage.stopped_stage(job.progress, end_text(job))}
        manifest = job.paths[-1]
        files = files_beside(manifest)
        html = stage.finished_stage(files, job.spec, job.result.provenance)
        return {self.ui.stage: html, **self._saved(manifest)}

    # Results

    def bring_back(self, event: gr.EventData) -> Changes:
        """Fill the tab with an earlier panorama."""
        with told():
            return self._restored(picked_result(event, self.desk.out))

    def open_file(self, path: str | None) -> Changes:
        """Fill the tab from a saved panorama of any folder."""
        with told():
            return self._restored(dropped_result(path, ".jpg or .json"))

    def _restored(self, artifact: Artifact) -> Changes:
        ui, back = self.ui, restore(artifact, self.desk.out)
        if back.note:
            gr.Info(page_words(back.note), title="Brought back")
        files = find_files(artifact, self.desk.out)
        html = stage.finished_stage(files, artifact.spec, artifact.record.get("provenance"))
        filled = {
            getattr(ui, each.name): getattr(back.form, each.name)
            for each in fields(PanoramaForm)
            if each.name != "rows"
        }
        # The sliders end where larger scales are no use, but a file may have such a scale.
        for name in GUIDED:
            scale = getattr(back.form, name)
            filled[getattr(ui, name)] = gr.update(value=scale, maximum=max(MOST_GUIDANCE, scale))
        saved: Changes = {ui.downloads: gr.update(visible=False)}
        if ".json" in files:
            saved = self._saved(files[".json"])
        listed = self._listed(back.form, back.form.views)
        return {
            **filled,
            **listed,
            ui.upload: back.form.image,
            ui.keep: True,
            ui.stage: html,
            **saved,
        }

    def _saved(self, manifest: Path) -> Changes:
        """Offer a result's files, and show it first in the strip."""
        ui, files = self.ui, files_beside(manifest)
        offered = {
            button: gr.update(
                value=str(files[ending]) if ending in files else None, interactive=ending in files
            )
            for button, ending in zip(ui.files, (".jpg", ".overlay.png", ".json"), strict=True)
        }
        strip = stage.history_html(stage.recent(self.desk.out), manifest.stem)
        return {ui.downloads: gr.update(visible=True), **offered, ui.history: strip}


def choose_image(choice: str, model: str | None) -> tuple[Any, Any, Any]:
    """Show what the chosen kind of satellite image needs, and ask for words if they are read."""
    words = gr.update(visible=reads_words(choice, model))
    return about_image(choice), gr.update(visible=choice == "file"), words


def _refused(text: str) -> str:
    return f'<p class="ts-note ts-wrong" role="alert">{page_words(text)}</p>'
