"""The only place where foreign pickles are opened: for conversion, with a restricted unpickler."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from generation.checkpoint import RESTORE, load_safetensors
from generation.errors import MissingFileError, WeightsError

if TYPE_CHECKING:
    import torch

_INERT_PREFIXES = (
    "pytorch_lightning.",
    "lightning.",
    "lightning_fabric.",
    "omegaconf.",
    "argparse.",
)
_SETTINGS = "hyper_parameters"


def read_foreign(
    path: Path, member: str | None = None
) -> "tuple[dict[str, torch.Tensor], list[str]]":
    """Read the tensors of a .ckpt or .pth without running any code that it carries.

    Objects of the Lightning trainer, which old checkpoints hold beside the weights, become inert
    placeholders; any other foreign object is refused.

    Args:
        path: A file written by ``torch.save``, a zip archive (a wheel) that holds one, or what
            others repacked as ``.safetensors``.
        member: The file's name inside the archive.

    Returns:
        Name -> tensor of its ``state_dict``, and notes on everything that was not one.

    Raises:
        MissingFileError: There is no such file or member.
        WeightsError: It is damaged, holds foreign objects, or no tensors.
    """
    if not path.is_file():
        raise MissingFileError(f"no checkpoint at {path} (check the path)")
    if path.suffix == ".safetensors":
        return load_safetensors(path), []
    if member is None:
        return _tensors_of(path, _unpickle(path, path))
    with TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                extracted = Path(archive.extract(member, folder))
        except KeyError as error:
            raise MissingFileError(
                f"{path} has no {member} inside (is it another release?)"
            ) from error
        except zipfile.BadZipFile as error:
            raise WeightsError(f"{path}: a damaged archive ({RESTORE})") from error
        return _tensors_of(path, _unpickle(path, extracted))


def read_hyper_parameters(path: Path) -> dict[str, str | int | float | bool]:
    """Read what a Lightning checkpoint tells of how it was trained, without running any code.

    Args:
        path: A file that :func:`read_foreign` reads.

    Returns:
        Name -> value of every plain setting; nothing where it tells nothing.

    Raises:
        MissingFileError: There is no such file.
        WeightsError: It is damaged or holds foreign objects.
    """
    if not path.is_file():
        raise MissingFileError(f"no checkpoint at {path} (check the path)")
    content = _unpickle(path, path)
    told = content.get(_SETTINGS) if isinstance(content, Mapping) else None
    settings = told if isinstance(told, Mapping) else getattr(told, "__dict__", {})
    return {
        str(name): value
        for name, value in settings.items()
        if isinstance(value, str | int | float | bool)
    }


class _Inert:
    """Takes the place of a trainer's object; it has no behaviour, but what it held can be read."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def _unpickle(path: Path, file: Path) -> object:
    import pickle

    import torch

    _require_torch_file(path, file)
    zipped = zipfile.is_zipfile(file)
    foreign: list[str] = []
    try:
        if zipped:
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(file)
        inert: list[Any] = [(_Inert, name) for name in foreign if name.startswith(_INERT_PREFIXES)]
        with torch.serialization.safe_globals(inert):
            return torch.load(
                file, map_location="cpu", weights_only=True, mmap=zipped and file == path
            )
    except pickle.UnpicklingError as error:
        named = [name for name in foreign if not name.startswith(_INERT_PREFIXES)]
        raise WeightsError(
            f"{path}: holds objects besides tensors ({', '.join(named) or 'of a foreign class'}), "
            "which can run code (save its state_dict alone, where you trust the file)"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise WeightsError(
            f"{path}: begins like a file of torch.save, but is damaged, cut off, or an archive of "
            "something else (fetch it again from its source, and compare its size)"
        ) from error


def _require_torch_file(path: Path, file: Path) -> None:
    """Refuse what cannot be a file of ``torch.save``, by its first bytes."""
    with file.open("rb") as opened:
        start = opened.read(16)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return
    kind = "no file of torch.save"
    if not start:
        kind = "an empty file"
    elif start.startswith(b"version https:"):
        kind = "a Git LFS pointer and not the file itself"
    elif start[8:9] == b"{":
        kind = "a safetensors file, or no checkpoint at all"
    raise WeightsError(f"{path}: {kind} (give the .ckpt, .pt or .pth that its authors publish)")


def _tensors_of(path: Path, content: object) -> "tuple[dict[str, torch.Tensor], list[str]]":
    import torch

    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(content).__name__} (a state_dict, name -> tensor, is needed)"
        )
    notes = []
    state = content
    if isinstance(content.get("state_dict"), Mapping):
        state = content["state_dict"]
        others = sorted(str(key) for key in content if key != "state_dict")
        notes = [f"{key}: beside the state_dict, not read" for key in others]
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    notes += [
        f"{key}: a {type(value).__name__} and not a tensor, not read"
        for key, value in state.items()
        if not isinstance(value, torch.Tensor)
    ]
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors (is it a checkpoint at all?)")
    return tensors, notes
