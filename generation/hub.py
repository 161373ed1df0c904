"""Full-size weights from the Hub, and only when the person asked for the network.

What was fetched once is found again without the network. A model in TERRASCAPE_HOME comes first.
"""

from collections.abc import Sequence
from pathlib import Path

from generation.errors import MissingFileError, NetworkError
from generation.registry import find, is_here, locate

WANTED = (
    "model_index.json",
    "config.json",
    "diffusion_pytorch_model.safetensors",
    "*/diffusion_pytorch_model.safetensors",
    "*/model.safetensors",
    "*/*.json",
    "*/*.txt",
)
"""Files that a pipeline needs; repositories hold the same weights in other forms beside them."""
UNWANTED = ("safety_checker/*",)
"""A part of old repositories that nothing here reads, of a gigabyte."""
_SECONDS = 20.0


def fetch(name: str, *, online: bool = False) -> Path:
    """Give the folder of a model's weights, from the Hub if need be and allowed.

    Args:
        name: A registered name or alias.
        online: Whether the Hub may be asked.

    Raises:
        InvalidSpecError: No model has this name.
        MissingFileError: The weights are not here, or are published in a form to be converted.
        NetworkError: The Hub was asked and no repository could be had.
    """
    card = find(name)
    if is_here(card.name) or not card.hub:
        return locate(card.name)
    failures = []
    for repository in card.hub:
        try:
            folder = _snapshot(repository, (*WANTED, *card.files), online=online)
        except Exception as error:  # noqa: BLE001 - the client raises errors of many libraries
            failures.append(f"{repository}: {type(error).__name__}")
            continue
        if next(folder.rglob("*.safetensors"), None) is not None:
            return folder
        failures.append(f"{repository}: no safetensors there, only a checkpoint to be converted")
    if online and not any("checkpoint" in failure for failure in failures):
        raise NetworkError(
            f"{card.name} could not be downloaded ({'; '.join(failures)}): try again later, or put "
            f"it into a folder named {card.local} below the one that TERRASCAPE_HOME names"
        )
    try:
        return locate(card.name)
    except MissingFileError as error:
        told = f"; asked: {'; '.join(failures)}" if online else "; or allow the Hub with --online"
        raise MissingFileError(f"{error}{told}") from None


def _snapshot(repository: str, wanted: Sequence[str], *, online: bool) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            repository,
            allow_patterns=list(wanted),
            ignore_patterns=list(UNWANTED),
            local_files_only=not online,
            etag_timeout=_SECONDS,
        )
    )
