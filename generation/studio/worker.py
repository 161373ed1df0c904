"""One render in the background: watched while it goes, stopped at the next step when asked to."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from generation.errors import CancelledError, TerrascapeError
from generation.media.artifact import Rendered, save_satellite
from generation.media.folder import output_folder
from generation.spec import RunSpec

LOOK_S = 0.25
"""How often a watcher is told something, at most and at least."""


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """How far a render is."""

    phase: str = "waiting"
    """``waiting``, ``loading``, ``drawing`` or ``saving``."""
    step: int = 0
    steps: int = 0
    preview: UInt8[np.ndarray, "height width 3"] | None = None
    left_s: float | None = None


@dataclass
class Desk:
    """What all visitors share: the folder of the results, and the one seat at the model."""

    out: Path
    seat: threading.Lock = field(default_factory=threading.Lock)
    jobs: dict[str, "Job"] = field(default_factory=dict)
    """The running render of each visitor."""

    def begin(self, visitor: str, spec: RunSpec) -> "Job":
        """Start a render; one that the visitor still has running is stopped."""
        self.stop(visitor)
        job = self.jobs[visitor] = Job(spec, self)
        job.start()
        return job

    def stop(self, visitor: str) -> None:
        """Stop what a visitor has running, if anything."""
        job = self.jobs.pop(visitor, None)
        if job is not None:
            job.stopped.set()

    def end(self, visitor: str, job: "Job") -> None:
        """Forget a render that nobody watches any more, and stop it if it still runs."""
        job.stopped.set()
        if self.jobs.get(visitor) is job:
            del self.jobs[visitor]

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


class Job(threading.Thread):
    """A render on its way to disk."""

    def __init__(self, spec: RunSpec, desk: Desk) -> None:
        super().__init__(name="render", daemon=True)
        self.spec, self.desk = spec, desk
        self.stopped = threading.Event()
        self.progress = Progress(steps=spec.steps)
        self.result: Rendered | None = None
        self.paths: list[Path] = []
        self.error: BaseException | None = None
        self._began = 0.0

    def run(self) -> None:
        """Wait for the seat, render, save."""
        try:
            with self._seated(), output_folder(self.desk.out, 9 * self.spec.size**2 + 1_000_000):
                self._tell(phase="loading")
                from generation.pipelines.satellite import render

                result = render(self.spec, on_step=self._step, cancelled=self.stopped.is_set)
                self._tell(phase="saving")
                self.paths = save_satellite(result, self.desk.out)
                self.result = result
        except BaseException as error:  # noqa: BLE001 - the watcher tells it
            self.error = error

    def watch(self) -> Iterator[Progress]:
        """Tell the progress until the render has ended, several times a second."""
        told = None
        while self.is_alive():
            self.join(LOOK_S)
            now = self.progress
            if now is not told:
                told = now
                yield now

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
        self._began = self._began or now  # the first step also pays for warming up
        left = (now - self._began) / (step - 1) * (steps - step) if step > 1 else None
        self._tell(phase="drawing", step=step, steps=steps, preview=preview, left_s=left)

    def _tell(self, **changes: object) -> None:
        self.progress = replace(self.progress, **changes)  # type: ignore[arg-type]  # its fields
