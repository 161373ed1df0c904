"""Work in the background: watched while it goes, stopped at its next step when asked to.

A ``Job`` renders and saves, a ``StreetJob`` asks the map server alone, for a look before the
render, a ``SuggestJob`` looks for what could be heard, a ``PostcardJob`` makes all kinds of one
place. Each visitor has at most one of a kind; all share one seat at the model.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from generation.errors import CancelledError, TerrascapeError
from generation.geo.layout import Layout
from generation.geo.mercator import Window
from generation.geo.sources import LayoutSource, OnlineSource, cache_folder
from generation.media.artifact import Rendered, save_render
from generation.media.folder import output_folder
from generation.registry import GALLERY
from generation.spec import RunSpec

if TYPE_CHECKING:
    from generation.pipelines.overhead import Overhead
    from generation.pipelines.soundscape_plan import Plan

LOOK_S = 0.25
"""How often a watcher is told something, at most and at least."""
CLOSE_S = 15.0
"""How long the end of the process waits for the step that is being drawn."""
KEPT_STREETS = 8
"""How many fetched street maps are kept in memory, to be shown again."""


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """How far a piece of work is."""

    phase: str = "waiting"
    """``waiting``, ``asking`` (the map server), ``loading``, ``drawing`` or ``saving``."""
    step: int = 0
    steps: int = 0
    preview: UInt8[np.ndarray, "height width 3"] | None = None
    left_s: float | None = None
    waited_s: int = 0
    """Whole seconds since the map server was asked."""


@dataclass
class Desk:
    """What all visitors share: the results' folder, the seat at the model, the map server."""

    out: Path
    map_server: LayoutSource = field(default_factory=lambda: OnlineSource(cache_folder()))
    """Who is asked for streets; it keeps its answers on disk."""
    seat: threading.Lock = field(default_factory=threading.Lock)
    work: dict[tuple[str, type["Work"]], "Work"] = field(default_factory=dict)
    """What runs for each visitor, one of a kind."""
    streets: dict[Window, Layout] = field(default_factory=dict)
    """The street maps that came last."""
    gallery: str = str(GALLERY)
    """What the sound tab searches."""
    ear: threading.Lock = field(default_factory=threading.Lock)
    """Held by whoever asks the gallery; a render need not be waited for."""

    def begin(self, visitor: str, work: "Work") -> None:
        """Start some work; what the visitor still has running of its kind is stopped."""
        self.stop(visitor, type(work))
        self.work[visitor, type(work)] = work
        work.start()

    def stop(self, visitor: str, kind: type["Work"]) -> None:
        """Stop what a visitor has running of a kind, if anything."""
        work = self.work.pop((visitor, kind), None)
        if work is not None:
            work.stopped.set()

    def end(self, visitor: str, work: "Work") -> None:
        """Forget work that nobody watches any more, and stop it if it still runs."""
        work.stopped.set()
        if self.work.get((visitor, type(work))) is work:
            del self.work[visitor, type(work)]

    @contextmanager
    def watched(self, visitor: str, work: "Work") -> Iterator[None]:
        """Run work while somebody watches: until the page is closed or loaded anew."""
        self.begin(visitor, work)
        try:
            yield
        finally:
            self.end(visitor, work)

    def close(self) -> None:
        """Stop all work, and take the seat and the ear so that no more is begun.

        A process that ends while a thread computes is aborted by the libraries below it.
        """
        for work in list(self.work.values()):
            work.stopped.set()
        self.seat.acquire(timeout=CLOSE_S)
        self.ear.acquire(timeout=CLOSE_S)

    def keep_streets(self, layout: Layout) -> None:
        """Keep a fetched street map, and let go of the oldest when there are many."""
        self.streets[layout.window] = layout
        for window in list(self.streets)[:-KEPT_STREETS]:
            self.streets.pop(window, None)

    def warm_up(self, model: str) -> threading.Thread:
        """Load a model in the background, so that the first render need not wait for it.

        A model that cannot be loaded is told of when it is used.
        """

        def load() -> None:
            with self.seat:
                from generation.pipelines.satellite import open_pipeline

                try:
                    open_pipeline(model)
                except TerrascapeError:
                    return

        thread = threading.Thread(target=load, name="warm-up", daemon=True)
        thread.start()
        return thread


class Work(threading.Thread):
    """Something done in the background for a visitor, who watches and may stop it."""

    def __init__(self, desk: Desk, steps: int = 0) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self.desk = desk
        self.stopped = threading.Event()
        self.progress = Progress(steps=steps)
        self.streets: Layout | None = None
        self.error: BaseException | None = None
        self._began = 0.0

    def run(self) -> None:
        """Do it, and keep what went wrong for the watcher."""
        try:
            self.do()
        except BaseException as error:  # noqa: BLE001 - the watcher tells it
            self.error = error

    def do(self) -> None:
        """Do the work itself."""
        raise NotImplementedError

    def watch(self) -> Iterator[Progress]:
        """Tell the progress until the work has ended, several times a second."""
        told = None
        while self.is_alive():
            self.join(LOOK_S)
            now = self.progress
            if now is not told:
                told = now
                yield now

    def ask_streets(self, window: Window) -> None:
        """Get the streets of a window, from memory if they are there.

        The question runs in a thread of its own, for a map server cannot be hurried: when the
        visitor stops, nobody waits for the answer any more. It still ends within the bounds of the
        source, and what it brings is kept for the next time.

        Raises:
            NetworkError: The map server did not answer in its bounds.
            LayoutError: The window is too large to ask for.
            CancelledError: The visitor did not want to wait.
        """
        self.streets = self.desk.streets.get(window)
        if self.streets is not None:
            return
        answer: list[Layout | BaseException] = []

        def ask() -> None:
            try:
                answer.append(self.desk.map_server.layout(window))
            except BaseException as error:  # noqa: BLE001 - raised again below
                answer.append(error)

        question = threading.Thread(target=ask, name="streets", daemon=True)
        began = time.monotonic()
        question.start()
        while question.is_alive():
            if self.stopped.is_set():
                raise CancelledError("stopped while the map server was asked")
            self._tell(phase="asking", waited_s=int(time.monotonic() - began))
            question.join(LOOK_S)
        (got,) = answer
        if isinstance(got, BaseException):
            raise got
        self.streets = got
        self.desk.keep_streets(got)

    @contextmanager
    def _seated(self) -> Iterator[None]:
        while not self.desk.seat.acquire(timeout=LOOK_S):
            if self.stopped.is_set():
                raise CancelledError("stopped while waiting for another render, as asked")
        try:
            yield
        finally:
            self.desk.seat.release()

    def _step(self, step: int, steps: int, preview: np.ndarray | None) -> None:
        now = time.monotonic()
        if step <= self.progress.step or not self._began:  # the first step also pays for warming up
            self._began = now
        left = (now - self._began) / (step - 1) * (steps - step) if step > 1 else None
        self._tell(phase="drawing", step=step, steps=steps, preview=preview, left_s=left)

    def _tell(self, **changes: object) -> None:
        self.progress = replace(self.progress, **changes)  # type: ignore[arg-type]  # its fields


class StreetJob(Work):
    """The streets of a window, for a look at them."""

    def __init__(self, desk: Desk, window: Window) -> None:
        super().__init__(desk)
        self.window = window

    def do(self) -> None:
        """Ask the map server."""
        self.ask_streets(self.window)


class Job(Work):
    """A render on its way to disk.

    Args:
        spec: What to render.
        desk: Where it goes.
        online: Whether its layout comes from the map server. Weights are never fetched here.
    """

    def __init__(self, spec: RunSpec, desk: Desk, *, online: bool = False) -> None:
        super().__init__(desk, spec.steps)
        self.spec, self.online = spec, online
        self.result: Rendered | None = None
        self.paths: list[Path] = []

    @property
    def needed_bytes(self) -> int:
        """Room that its files take at most, about."""
        return 9 * self.spec.size**2 + 1_000_000

    def do(self) -> None:
        """Ask for streets if allowed, wait for the seat, render, save."""
        with output_folder(self.desk.out, self.needed_bytes):
            if self.online:
                self.ask_streets(self.spec.window())
            self._tell(phase="waiting")
            with self._seated():
                self._tell(phase="loading")
                from generation.pipelines.kinds import renderer_for
                from generation.pipelines.satellite import open_pipeline

                render = renderer_for(self.spec.kind)
                if self.online:
                    open_pipeline(self.spec.model)  # streets are allowed, fetching weights is not
                result = render(
                    self.spec,
                    on_step=self._step,
                    cancelled=self.stopped.is_set,
                    online=self.online,
                )
                self._tell(phase="saving")
                self.paths = save_render(result, self.desk.out)
                self.result = result


class PanoramaJob(Job):
    """A panorama on its way to disk; a kind of its own, so that a visitor may draw both at once."""


class SoundscapeJob(Job):
    """A soundscape on its way to disk."""

    @property
    def needed_bytes(self) -> int:
        """Room for a FLAC and a WAV, and the pictures beside them."""
        return round(400_000 * self.spec.seconds) + 4_000_000


class SuggestJob(Work):
    """What could be heard at a place: nothing is made and nothing is saved."""

    def __init__(self, spec: RunSpec, desk: Desk) -> None:
        super().__init__(desk, spec.steps)
        self.spec = spec
        self.found: tuple[Plan, Overhead] | None = None

    def do(self) -> None:
        """Wait for the seat, draw the satellite image if need be, look up what is like it."""
        with self._seated():
            self._tell(phase="loading")
            from generation.pipelines.soundscape_render import suggest

            self.found = suggest(self.spec, on_step=self._step, cancelled=self.stopped.is_set)


class PostcardJob(Work):
    """A page with a place seen from above, seen all around, and heard."""

    def __init__(self, spec: RunSpec, desk: Desk) -> None:
        super().__init__(desk, spec.steps)
        self.spec = spec
        self.page: Path | None = None
        self.notes: tuple[str, ...] = ()

    def do(self) -> None:
        """Wait for the seat, draw and make its parts, write the page."""
        with self._seated():
            self._tell(phase="loading")
            from generation.pipelines.postcard import make_postcard

            made = make_postcard(
                self.spec.to_dict(),
                self.desk.out,
                on_step=self._step,
                cancelled=self.stopped.is_set,
            )
            self.page, self.notes = made.page, made.notes
