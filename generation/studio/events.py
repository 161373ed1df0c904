"""What all tabs do alike: places that are chosen, earlier results, and mistakes that are told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from generation.errors import CancelledError, InvalidSpecError, TerrascapeError
from generation.media.artifact import Artifact, read_artifact
from generation.studio.map_widget import Example, clicked, find_example, picked, world_location
from generation.studio.stage import page_words
from generation.studio.worker import Work

Changes = dict[Any, Any]
"""Components of the page and what they change to."""
QUIET = {"show_progress": "hidden", "api_visibility": "private"}
"""How handlers are connected: the page tells the progress itself, and nobody else may call them."""
OURS = "This is a mistake of ours; what happened is told where the studio was started."


def world_click(event: gr.EventData) -> tuple[float, float]:
    """Take a click on the map of the world: latitude and longitude."""
    with told():
        place = world_location(*clicked(event))
    return round(place.lat, 2), round(place.lon, 2)


def example_click(event: gr.EventData) -> Example:
    """Take one of the example places."""
    with told():
        return find_example(picked(event))


def picked_result(event: gr.EventData, out: Path) -> Artifact:
    """Open the earlier result whose thumbnail was pressed.

    Raises:
        InvalidSpecError: It is not in the folder.
    """
    name = picked(event)
    path = out / f"{name}.json"
    if not name or Path(name).name != name or not path.is_file():
        raise InvalidSpecError("that result is not in the folder any more (reload the page)")
    return read_artifact(path)


def dropped_result(path: str | None, kinds: str) -> Artifact:
    """Open a file of an earlier render that was dropped.

    Args:
        path: Of the upload.
        kinds: Which endings are meant, for people.

    Raises:
        TerrascapeError: None came, or it is no such file.
    """
    if not path:
        raise InvalidSpecError(f"no file came (drop a {kinds} of Terrascape)")
    return read_artifact(Path(path))


@contextmanager
def told() -> Iterator[None]:
    """Turn a person's mistake into a message on the page."""
    try:
        yield
    except TerrascapeError as error:
        raise refusal(error) from error


def refusal(error: TerrascapeError) -> gr.Error:
    """Give the message for a mistake that a person can mend."""
    return gr.Error(page_words(str(error)), title="Not possible", print_exception=False)


def end_text(work: Work, undone: str = "Not drawn") -> str:
    """Say how work ended that has no result."""
    return "Stopped. Nothing was saved." if went_well(work) else f"{undone}: {why(work)}"


def raise_error(work: Work) -> None:
    """Tell what went wrong with some work; a person's own stop is nothing wrong."""
    if isinstance(work.error, TerrascapeError):
        if not went_well(work):
            raise refusal(work.error)
    elif work.error is not None:
        raise gr.Error(OURS, title="Not done") from work.error


def went_well(work: Work) -> bool:
    """Tell whether some work ended without a mistake; a person's own stop is none."""
    return work.error is None or isinstance(work.error, CancelledError)


def why(work: Work) -> str:
    """Say what went wrong with some work, in words for people."""
    return str(work.error) if isinstance(work.error, TerrascapeError) else OURS


def pressable(yes: bool) -> Any:  # noqa: ANN401 - an update
    """Let a button be pressed, or not."""
    return gr.update(interactive=yes)
