"""The only place where our weights are read and written.

Terrascape loads safetensors and nothing else; foreign pickles are opened for conversion alone, by
:mod:`generation.foreign_checkpoint`. Torch is imported inside the functions, so that
the commands that only count or hash files do not pay for it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.atomic import atomic_path
from generation.errors import MissingFileError, WeightsError

if TYPE_CHECKING:
    import torch

# Annotations that name torch are strings: the shape checks of the tests resolve them late.

RESTORE = "fetch the file again from its source, or run `terrascape convert`"
CONFIGURATIONS = ("config.json", "scheduler_config.json")
PART_WEIGHTS = "diffusion_pytorch_model.safetensors"
_MAX_HEADER_BYTES = 100_000_000  # the limit of the format itself


def load_safetensors(
    path: Path, expected: Mapping[str, tuple[int, ...]] | None = None
) -> "dict[str, torch.Tensor]":
    """Read weights that can be trusted to be whole, finite and of the wanted shapes.

    Args:
        path: A ``.safetensors`` file.
        expected: Name -> shape of every tensor that must be there, and no other.

    Raises:
        MissingFileError: There is no such file.
        WeightsError: Truncated, pickled, not finite, or other keys and shapes than expected.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    shapes = read_shapes(path)
    if expected is not None:
        check_shapes(path, shapes, expected)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in shapes}
    except SafetensorError as error:
        raise WeightsError(f"{path}: unreadable weights, {error} ({RESTORE})") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise WeightsError(
                f"{path}: {name} holds NaN or infinity in {bad} of {tensor.numel()} places "
                f"({RESTORE})"
            )
    return tensors


def save_part(part: Any, folder: Path, *, half: bool = False) -> None:  # noqa: ANN401
    """Save a module of diffusers or of ours in diffusers' layout: a configuration and weights."""
    part.save_config(folder)
    weights = part.state_dict()
    if half:
        weights = {
            name: value.half() if value.is_floating_point() else value
            for name, value in weights.items()
        }
    save_safetensors(weights, folder / PART_WEIGHTS)


def load_part(kind: Any, folder: Path) -> Any:  # noqa: ANN401 - a class of diffusers or of ours
    """Load what :func:`save_part` wrote, every tensor checked against the configuration.

    Raises:
        MissingFileError: The folder lacks its configuration or its weights.
        WeightsError: A file is damaged, or they do not fit each other.
    """
    part = load_configured(kind, folder)
    expected = {name: tuple(value.shape) for name, value in part.state_dict().items()}
    weights = load_safetensors(folder / PART_WEIGHTS, expected)
    part.load_state_dict(
        {n: value.float() if value.is_floating_point() else value for n, value in weights.items()}
    )
    return part


def load_configured(kind: Any, folder: Path) -> Any:  # noqa: ANN401 - a class of diffusers or of ours
    """Make a module, or a scheduler, from the configuration in a folder.

    Raises:
        MissingFileError: There is none.
        WeightsError: It describes something else.
    """
    path = folder / kind.config_name
    if not path.is_file():
        raise MissingFileError(f"{path} is not there (restore the model's folder)")
    try:
        return kind.from_config(kind.load_config(folder))
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} describes no {kind.__name__}: {error} (restore the model's folder)"
        ) from error


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in a file, from its header alone and without torch.

    Raises:
        MissingFileError: There is no such file.
        WeightsError: Not safetensors, or shorter or longer than its header says.
    """
    if not path.is_file():
        raise MissingFileError(f"no weights at {path} ({RESTORE})")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(16)
        _refuse_foreign(path, start)
        header_size = int.from_bytes(start[:8], "little")
        if not 2 <= header_size <= min(_MAX_HEADER_BYTES, size - 8):
            raise WeightsError(f"{path}: no whole safetensors header in {size} bytes ({RESTORE})")
        file.seek(8)
        raw = file.read(header_size)
    try:
        header: dict[str, Any] = json.loads(raw)
        header.pop("__metadata__", None)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(f"{path}: damaged safetensors header ({RESTORE})") from error
    if 8 + header_size + end != size:
        last = max(header, key=lambda name: header[name]["data_offsets"][1], default="none")
        raise WeightsError(
            f"{path}: {size} bytes where its header names {8 + header_size + end}, so {last} is "
            f"not whole ({RESTORE})"
        )
    return shapes


def check_shapes(
    path: Path,
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    """Refuse weights that do not fit a model exactly, naming every kind of difference.

    Raises:
        WeightsError: A key is missing, unknown, or has another shape.
    """
    mistakes = [
        f"{name} has shape {found[name]} and not {tuple(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if found[name] != tuple(expected[name])
    ]
    mistakes += [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    mistakes += [f"{name} is unknown" for name in sorted(found.keys() - expected.keys())]
    if mistakes:
        rest = f" and {len(mistakes) - 3} more" if len(mistakes) > 3 else ""
        raise WeightsError(
            f"{path}: does not fit the model: {', '.join(mistakes[:3])}{rest} "
            "(use the config.json that was saved with these weights, or the weights of this one)"
        )


def save_safetensors(
    tensors: "Mapping[str, torch.Tensor]", path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write weights so that ``path`` holds either all of them or what it held before.

    Raises:
        WeightsError: A tensor holds NaN or infinity, or there is none.
        OutputError: The folder cannot be written to.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if not tensors:
        raise WeightsError(f"{path}: no tensors to save (is the model empty?)")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{path}: {name} holds NaN or infinity and is not saved (go back to a "
                "checkpoint that is finite)"
            )
    with atomic_path(path) as temporary:
        try:
            save_file(
                _independent(tensors), temporary, metadata={"format": "pt"} | (metadata or {})
            )
        except SafetensorError as error:  # how it tells of a full disk
            raise OSError(str(error)) from error


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    if not path.is_file():
        raise MissingFileError(f"no file at {path} to take a checksum of (check the path)")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_sha256(folder: Path) -> str:
    """One hexadecimal SHA-256 for all weights and configurations below a folder, in order.

    Cards do not count: the hash names what decides a result.

    Raises:
        MissingFileError: There are no weights below the folder.
    """
    weights = list(folder.rglob("*.safetensors"))
    settings = [file for name in CONFIGURATIONS for file in folder.rglob(name)]
    files = sorted(weights + settings, key=lambda file: file.relative_to(folder).parts)
    if not weights:
        raise MissingFileError(f"no .safetensors below {folder} ({RESTORE})")
    digest = hashlib.sha256()
    for file in files:
        own = _settings_sha256(file) if file.name in CONFIGURATIONS else sha256_file(file)
        digest.update(f"{file.relative_to(folder).as_posix()}\0{own}\n".encode())
    return digest.hexdigest()


def _settings_sha256(file: Path) -> str:
    """Hash what a configuration says, without notes such as ``_name_or_path``."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        said = {name: value for name, value in settings.items() if not name.startswith("_")}
    except (ValueError, AttributeError):  # no JSON object: its loader will refuse it
        return sha256_file(file)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _refuse_foreign(path: Path, start: bytes) -> None:
    if start[8:9] == b"{":  # a safetensors header; its length before it may be any eight bytes
        return
    kinds = {
        b"PK\x03\x04": "a pickled torch file",
        b"\x80": "a pickle",
        b"version https:": "a Git LFS pointer and not the file itself",
    }
    for magic, kind in kinds.items():
        if start.startswith(magic):
            raise WeightsError(
                f"{path}: {kind}; only safetensors are loaded, since a pickle can run code "
                "(run `terrascape convert` on it)"
            )


def _independent(tensors: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Bring tensors to the CPU, each with its own storage, as the format wants them."""
    result: dict[str, Any] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != plain.nbytes:
            plain = plain.clone()
        storages.add(plain.untyped_storage().data_ptr())
        result[name] = plain
    return result
