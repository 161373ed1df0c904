"""The soundscape tab: a place and a time, its sources, and the sound that is made of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gradio as gr

from generation.errors import AudioError, InvalidSpecError, TerrascapeError
from generation.media.artifact import Artifact, read_artifact
from generation.media.sound_files import FLAC, WAV
from generation.studio import soundscape_stage as stage
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
from generation.studio.form import random_seed
from generation.studio.map_widget import world_html
from generation.studio.rows import list_event, rows_js
from generation.studio.soundscape_controls import LIST_ID, SoundscapeControls, about_ground
from generation.studio.soundscape_form import SoundscapeForm
from generation.studio.soundscape_layers import (
    GivenLayer,
    add_recording,
    add_words,
    bring_back,
    list_html,
    planned_layers,
    remember,
)
from generation.studio.soundscape_recall import files_of, find_files, restore
from generation.studio.stage import notes_html, page_words
from generation.studio.worker import (
    Desk,
    PostcardJob,
    Progress,
    SoundscapeJob,
    SuggestJob,
    Work,
)

_WITH_ROWS = {"js": rows_js(LIST_ID), **QUIET}
_LONG = {"trigger_mode": "once", "concurrency_limit": None, **_WITH_ROWS}


class SoundscapeTab:
    """The controls and what happens when they are used; to be made inside a tab of a page."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.ui = SoundscapeControls()
        self.fields = [getattr(self.ui, field.name) for field in fields(SoundscapeForm)]

    def wire(self, page: gr.Blocks, tab: gr.Tab) -> None:
        """Connect the controls with what they do."""
        ui = self.ui
        gr.on(
            [ui.lat.change, ui.lon.change, tab.select],
            world_html,
            [ui.lat, ui.lon],
            ui.world,
            trigger_mode="always_last",
            **QUIET,
        )
        page.load(self.remember, None, ui.history, **QUIET)
        ui.world.click(world_click, None, [ui.lat, ui.lon], **QUIET)
        ui.examples.click(self.pick_example, None, [ui.lat, ui.lon], **QUIET)
        ui.choice.change(
            choose_ground, ui.choice, [ui.about, ui.file_group, ui.words_group], **QUIET
        )
        ui.upload.upload(lambda path: path, ui.upload, ui.image, **QUIET)
        ui.upload.clear(lambda: None, None, ui.image, **QUIET)
        self._wire_sources()
        self._wire_make()

    def _wire_sources(self) -> None:
        ui = self.ui
        listed = [ui.given, ui.list, ui.earlier, ui.undo]
        before = [ui.earlier, *self.fields]
        asked = [ui.suggest, ui.stop_suggest, ui.ground, *listed]
        ui.suggest.click(self.suggest, before, asked, **_LONG)
        ui.stop_suggest.click(self.stop_suggest, None, ui.stop_suggest, **QUIET)
        ui.undo.click(self.undo, before, listed, **_WITH_ROWS)
        gr.on(
            [ui.add.click, ui.caption.submit],
            self.add,
            before,
            [ui.caption, *listed],
            **_WITH_ROWS,
        )
        ui.drop.upload(self.take, [ui.drop, *before], [ui.drop, *listed], **_WITH_ROWS)
        ui.list.click(self.remove, before, listed, **QUIET)

    def _wire_make(self) -> None:
        ui = self.ui
        results = [ui.stage, ui.downloads, *ui.files, ui.history]
        ui.new_seed.click(random_seed, None, ui.seed, **QUIET)
        ui.make.click(
            self.make, [ui.keep, *self.fields], [ui.make, ui.stop, ui.seed, *results], **_LONG
        )
        ui.stop.click(self.stop, None, ui.stop, **QUIET)
        carded = [ui.postcard, ui.stop_postcard, ui.get_postcard, ui.carded, ui.seed]
        ui.postcard.click(self.make_postcard, [ui.keep, *self.fields], carded, **_LONG)
        ui.stop_postcard.click(self.stop_postcard, None, ui.stop_postcard, **QUIET)
        filled = [each for each in self.fields if each is not ui.rows]
        restored = [*filled, ui.keep, ui.upload, ui.list, ui.earlier, ui.undo, *results]
        # The list as it stands goes along, so that it can be brought back.
        ui.history.click(self.bring_result, [ui.earlier, *self.fields], restored, **_WITH_ROWS)
        ui.open.upload(self.open_file, [ui.open, ui.earlier, *self.fields], restored, **_WITH_ROWS)

    # The place and its sources

    def pick_example(self, event: gr.EventData) -> tuple[float, float]:
        """Take one of the example places."""
        place = example_click(event)
        return place.lat, place.lon

    def suggest(
        self, request: gr.Request, earlier: list[list[GivenLayer]], *values: object
    ) -> Iterator[Changes]:
        """Find what fits the place, the month and the hour, and fill the list with it."""
        ui = self.ui
        try:
            form = SoundscapeForm.of(values)
            now, job = form.layers, SuggestJob(form.asking(), self.desk)
        except TerrascapeError as error:
            yield {ui.ground: stage.refused_html(str(error))}
            with told():
                raise
        yield {
            ui.suggest: gr.update(interactive=False, value="Looking…"),
            ui.stop_suggest: gr.update(visible=True, interactive=True),
        }
        yield from self._watched(request, job, ui.ground, stage.asking_html)
        ended: Changes = {
            ui.suggest: gr.update(interactive=True, value="Suggest"),
            ui.stop_suggest: gr.update(visible=False),
        }
        if job.found is None:
            well = went_well(job)
            told_of = notes_html(["Stopped."]) if well else stage.refused_html(why(job))
            yield {**ended, ui.ground: told_of}
        else:
            plan, ground = job.found
            layers = planned_layers(plan, now)
            found = stage.found_html(ground, job.spec, len(layers))
            yield {**ended, ui.ground: found, **self._listed(layers, remember(earlier, now))}
        raise_error(job)

    def stop_suggest(self, request: gr.Request) -> Any:  # noqa: ANN401 - an update
        """Look no longer."""
        self.desk.stop(request.session_hash or "", SuggestJob)
        return pressable(False)

    def add(self, earlier: list[list[GivenLayer]], *values: object) -> Changes:
        """Add what is written to the list, a row for each source in it."""
        with told():
            form = SoundscapeForm.of(values)
            layers = add_words(form.layers, form.caption)
        return {self.ui.caption: "", **self._listed(layers, earlier)}

    def take(self, path: str | None, earlier: list[list[GivenLayer]], *values: object) -> Changes:
        """Add a dropped recording to the list, or say why it is not taken."""
        with told():
            form = SoundscapeForm.of(values)
            if not path:
                raise AudioError("no recording came (drop a WAV, FLAC, OGG or MP3 file)")
            layers = add_recording(form.layers, Path(path))
        return {self.ui.drop: None, **self._listed(layers, earlier)}

    def remove(
        self, event: gr.EventData, earlier: list[list[GivenLayer]], *values: object
    ) -> Changes:
        """Take a row from the list."""
        rows, key = list_event(event)
        with told():
            now = replace(SoundscapeForm.of(values), rows=rows).layers
        left = [layer for layer in now if layer.key != key]
        return self._listed(left, remember(earlier, now))

    def undo(self, earlier: list[list[GivenLayer]], *values: object) -> Changes:
        """Show the list of before; the present one can be brought back in turn."""
        with told():
            now = SoundscapeForm.of(values).layers
            if not earlier:
                raise InvalidSpecError("there is no list of before (Suggest or Remove keep one)")
            layers, kept = bring_back(earlier, now)
        return self._listed(layers, kept)

    def _listed(self, layers: list[GivenLayer], earlier: list[list[GivenLayer]]) -> Changes:
        ui = self.ui
        return {
            ui.given: layers,
            ui.list: list_html(layers),
            ui.earlier: earlier,
            ui.undo: pressable(bool(earlier)),
        }

    # Making

    def remember(self) -> str:
        """List what the folder holds already."""
        return stage.history_html(stage.recent(self.desk.out))

    def make(self, request: gr.Request, keep: bool, *values: object) -> Iterator[Changes]:
        """Make the sound, telling each step."""
        ui = self.ui
        with told():
            job = SoundscapeJob(self._form(keep, values).spec(self.desk.out), self.desk)
        yield {
            ui.seed: str(job.spec.seed),
            ui.make: gr.update(interactive=False, value="Making…"),
            ui.stop: pressable(True),
            ui.downloads: gr.update(visible=False),
        }
        yield from self._watched(request, job, ui.stage, stage.running_stage)
        yield {
            ui.make: gr.update(interactive=True, value="Make sound"),
            ui.stop: pressable(False),
            **self._ended(job),
        }
        raise_error(job)

    def _form(self, keep: bool, values: Sequence[object]) -> SoundscapeForm:
        form = SoundscapeForm.of(values)
        return form if keep else replace(form, seed=random_seed())

    def _watched(
        self, request: gr.Request, work: Work, place: gr.HTML, html: Callable[[Progress], str]
    ) -> Iterator[Changes]:
        """Run some work while its visitor watches it in a place of the page."""
        with self.desk.watched(request.session_hash or "", work):
            yield {place: html(work.progress)}
            for progress in work.watch():
                yield {place: html(progress)}

    def stop(self, request: gr.Request) -> Any:  # noqa: ANN401 - an update
        """Stop the visitor's sound at its next step."""
        self.desk.stop(request.session_hash or "", SoundscapeJob)
        return pressable(False)

    def _ended(self, job: SoundscapeJob) -> Changes:
        if job.result is None:
            return {self.ui.stage: stage.stopped_stage(end_text(job, "Not made"))}
        manifest = job.paths[-1]
        record, made = read_artifact(manifest).record, job.result.provenance
        html = stage.finished_stage(files_of(manifest), job.spec, record, made)
        return {self.ui.stage: html, **self._saved(manifest)}

    def make_postcard(self, request: gr.Request, keep: bool, *values: object) -> Iterator[Changes]:
        """Make a page of the place: seen from above, seen all around, and heard."""
        ui = self.ui
        with told():
            job = PostcardJob(self._form(keep, values).spec(self.desk.out), self.desk)
        yield {
            ui.seed: str(job.spec.seed),
            ui.postcard: gr.update(interactive=False, value="Making…"),
            ui.stop_postcard: gr.update(visible=True, interactive=True),
            ui.get_postcard: gr.update(visible=False),
        }
        yield from self._watched(request, job, ui.carded, stage.carding_html)
        ended: Changes = {
            ui.postcard: gr.update(interactive=True, value="Make a postcard"),
            ui.stop_postcard: gr.update(visible=False),
        }
        if went_well(job) and job.page is None:
            ended[ui.carded] = notes_html(["Stopped. The parts that were finished are saved."])
        elif job.page is None:
            ended[ui.carded] = stage.refused_html(f"Not made: {why(job)}")
        else:
            ended[ui.carded] = stage.postcard_html(job.page, job.notes)
            ended[ui.get_postcard] = gr.update(value=str(job.page), visible=True)
        yield ended
        raise_error(job)

    def stop_postcard(self, request: gr.Request) -> Any:  # noqa: ANN401 - an update
        """Stop the visitor's postcard at its next step."""
        self.desk.stop(request.session_hash or "", PostcardJob)
        return pressable(False)

    # Results

    def bring_result(
        self, event: gr.EventData, earlier: list[list[GivenLayer]], *values: object
    ) -> Changes:
        """Fill the tab with an earlier soundscape."""
        with told():
            return self._restored(picked_result(event, self.desk.out), earlier, values)

    def open_file(
        self, path: str | None, earlier: list[list[GivenLayer]], *values: object
    ) -> Changes:
        """Fill the tab from a saved soundscape of any folder."""
        with told():
            artifact = dropped_result(path, ".flac, .wav or .json")
            return self._restored(artifact, earlier, values)

    def _restored(
        self, artifact: Artifact, earlier: list[list[GivenLayer]], values: Sequence[object]
    ) -> Changes:
        ui, back = self.ui, restore(artifact, self.desk.out)
        if back.note:
            gr.Info(page_words(back.note), title="Brought back")
        files = find_files(artifact, self.desk.out)
        made = artifact.record.get("provenance")
        html = stage.finished_stage(files, artifact.spec, artifact.record, made)
        kept = remember(earlier, SoundscapeForm.of(values).layers)
        filled = {
            getattr(ui, each.name): getattr(back.form, each.name)
            for each in fields(SoundscapeForm)
            if each.name not in ("rows", "given")
        }
        saved: Changes = {ui.downloads: gr.update(visible=False)}
        if ".json" in files:
            saved = self._saved(files[".json"])
        return {
            **filled,
            **self._listed(back.form.given or [], kept),
            ui.upload: back.form.image,
            ui.keep: True,
            ui.stage: html,
            **saved,
        }

    def _saved(self, manifest: Path) -> Changes:
        """Offer a result's files, and show it first in the strip."""
        ui, files = self.ui, files_of(manifest)
        offered = {
            button: gr.update(
                value=str(files[ending]) if ending in files else None, interactive=ending in files
            )
            for button, ending in zip(ui.files, (FLAC, WAV, ".json"), strict=True)
        }
        strip = stage.history_html(stage.recent(self.desk.out), manifest.stem)
        return {ui.downloads: gr.update(visible=True), **offered, ui.history: strip}


def choose_ground(choice: str) -> tuple[Any, Any, Any]:
    """Show what the chosen kind of satellite image needs."""
    drawn = choice in ("auto", "generated")
    return about_ground(choice), gr.update(visible=choice == "file"), gr.update(visible=drawn)
