"""Files and folders that are there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp

from generation.errors import OutputError, TerrascapeError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Lend a temporary file beside ``path`` that takes its place when the block ends well.

    The bytes reach the disk before the name does; after an error nothing is left behind.

    Raises:
        OutputError: The folder cannot be written to, or the disk is full.
    """
    temporary: Path | None = None
    try:
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
                temporary = Path(file.name)
            yield temporary
            temporary.chmod(0o644)
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Lend a temporary folder beside ``path`` that takes its place when the block ends well.

    A folder that was there before is replaced as a whole: never does ``path`` hold files of both.

    Raises:
        OutputError: The folder cannot be written to, or the disk is full.
    """
    temporary: Path | None = None
    try:
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(mkdtemp(dir=path.parent, prefix=f".{path.name}."))
            temporary.chmod(0o755)
            yield temporary
            for file in temporary.rglob("*"):
                _sync(file)
            former = temporary.with_name(temporary.name + ".former")
            if path.exists():
                path.rename(former)
            temporary.rename(path)
            _sync(path.parent)
            shutil.rmtree(former, ignore_errors=True)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the system refuses into a sentence that names the path."""
    try:
        yield
    except TerrascapeError:
        raise
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error} (choose a folder that is "
            "writable and has room)"
        ) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
