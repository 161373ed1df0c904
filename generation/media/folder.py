"""Writing to a folder: refused before the work begins where possible, and never left half done."""

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from generation.errors import OutputError

_CURES = {
    errno.ENOSPC: "free some space, or give another folder",
    errno.EDQUOT: "free some space, or give another folder",
    errno.EFBIG: "raise the limit on file sizes, or give another folder",
    errno.ENAMETOOLONG: "give a shorter name",
}


@contextmanager
def output_folder(out: Path, needed_bytes: int = 0) -> Iterator[Path]:
    """Make a folder, check that it can be written to, and take it away again if nothing came.

    Args:
        out: The folder; its parents are made too.
        needed_bytes: Free space that the results will take.

    Yields:
        The folder.

    Raises:
        OutputError: It is a file, cannot be made or written to, or is too full.
    """
    # os.path says "not there" where a Path would raise: making it then tells what is wrong
    made = [path for path in (out, *out.parents) if not os.path.exists(path)]  # noqa: PTH110
    try:
        _prepare(out, needed_bytes)
        yield out
    except BaseException:
        for path in made:  # innermost first
            with suppress(OSError):  # not empty: something was finished there
                path.rmdir()
        raise


def write_together(files: Mapping[Path, bytes]) -> list[Path]:
    """Write files that belong to each other: all of them, or none.

    Returns:
        Their paths.

    Raises:
        OutputError: One cannot be written; those before it have been taken away again.
    """
    written: list[Path] = []
    try:
        for path, data in files.items():
            atomic_write(path, data)
            written.append(path)
    except BaseException:  # also Ctrl-C: nothing partial may stay
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise
    return written


def atomic_write(path: Path, data: bytes) -> bool:
    """Write a file so that it is there whole or not at all, and never over another one.

    Returns:
        Whether it was written; false: a file with the same content was there already.

    Raises:
        OutputError: It cannot be written, or a file with other content is there.
    """
    if _already(path, data):
        return False
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _put(temporary, path)
        _sync_folder(path.parent)
    except FileExistsError:
        if _already(path, data):  # another process was a moment faster
            return False
        raise
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def _prepare(out: Path, needed_bytes: int) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"\0" * 4096)
        free = shutil.disk_usage(out).free
    except FileExistsError:
        raise OutputError(f"out={str(out)!r} is a file (give a folder)") from None
    except OSError as error:
        raise _output_error(out, error) from error
    if free < needed_bytes:
        raise OutputError(
            f"out={str(out)!r} has {free / 1e6:.1f} MB free, {needed_bytes / 1e6:.1f} MB are "
            "needed (free some space, or give another folder)"
        )


def _already(path: Path, data: bytes) -> bool:
    if not path.exists():
        return False
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return True
    raise OutputError(
        f"{path} is there already, with other content (move it, or give another folder)"
    )


def _put(temporary: Path, path: Path) -> None:
    """Give the finished file its name, which must still be free."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        temporary.rename(path)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _output_error(path: Path, error: OSError) -> OutputError:
    cure = _CURES.get(error.errno or 0, "give a folder that you may write to")
    return OutputError(f"out={str(path)!r} cannot be written: {error.strerror} ({cure})")
