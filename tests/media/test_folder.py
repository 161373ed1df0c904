import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from stand_in import names

from generation.errors import OutputError
from generation.media.folder import atomic_write, output_folder

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def largest_file(size):
    """Let no file grow beyond ``size`` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_written_whole_and_with_the_usual_rights(tmp_path):
    path = tmp_path / "a.bin"
    assert atomic_write(path, b"abc")
    assert path.read_bytes() == b"abc"
    assert names(tmp_path) == ["a.bin"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_same_content_again_is_done_and_other_content_refused(tmp_path):
    path = tmp_path / "a.bin"
    atomic_write(path, b"abc")
    before = path.stat().st_mtime_ns
    assert not atomic_write(path, b"abc")
    assert path.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match=r"a.bin is there already.*another folder"):
        atomic_write(path, b"xyz")
    assert path.read_bytes() == b"abc"


def test_many_writers_of_one_name_agree(tmp_path):
    path, wins = tmp_path / "a.bin", []
    start = threading.Barrier(8)

    def write():
        start.wait()
        wins.append(atomic_write(path, b"abc" * 10_000))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wins) == 1
    assert len(wins) == 8
    assert names(tmp_path) == ["a.bin"]


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    with largest_file(20_000), pytest.raises(OutputError, match=r"a.bin.*File too large.*raise"):
        atomic_write(tmp_path / "a.bin", bytes(100_000))
    assert names(tmp_path) == []


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert atomic_write(tmp_path / "a.bin", b"abc")
    assert names(tmp_path) == ["a.bin"]


def test_a_folder_is_made_with_its_parents(tmp_path):
    with output_folder(tmp_path / "a" / "b") as out:
        (out / "x").touch()
    assert (tmp_path / "a" / "b" / "x").exists()


def test_a_folder_into_which_nothing_came_is_taken_away_again(tmp_path):
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "a" / "b"):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_folder_with_something_in_it_stays(tmp_path):
    def half():
        with output_folder(tmp_path / "a" / "b") as out:
            (out / "x").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert (tmp_path / "a" / "b" / "x").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"), output_folder(tmp_path / "file"):
        pass
    with (
        pytest.raises(OutputError, match="Not a directory"),
        output_folder(tmp_path / "file" / "x"),
    ):
        pass


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(OutputError, match="shorter name"), output_folder(tmp_path / ("x" * 300)):
        pass


def test_too_little_space_is_told_before_the_work(tmp_path):
    with (
        pytest.raises(OutputError, match=r"MB free.*needed.*free some space"),
        output_folder(tmp_path / "out", needed_bytes=10**18),
    ):
        pytest.fail("the work began")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="you may write to"), output_folder(tmp_path / "out"):
        pass


MOUNTED = """
import os, sys
from pathlib import Path
from generation.errors import OutputError
from generation.media.folder import atomic_write, output_folder
for work in (lambda: atomic_write(Path(sys.argv[1], "big"), bytes(100_000)),
             lambda: output_folder(Path(sys.argv[2], "out")).__enter__()):
    try:
        work()
    except OutputError as error:
        print(error)
print(os.listdir(sys.argv[1]))
"""


def test_a_really_full_and_a_really_read_only_disk(tmp_path):
    full, fixed = tmp_path / "full", tmp_path / "fixed"
    full.mkdir()
    fixed.mkdir()
    mounts = 'mount -t tmpfs -o size=64k t "$1" && mount -t tmpfs -o ro t "$2" || exit 77'
    command = ["unshare", "-m", "sh", "-c", f'{mounts}; exec "$0" -c "$3" "$1" "$2"']
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    ran = subprocess.run(
        [*command, sys.executable, full, fixed, MOUNTED],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if ran.returncode == 77 or "unshare:" in ran.stderr:
        pytest.skip("mounting needs root")
    said = ran.stdout.splitlines()
    assert "No space left" in said[0], ran.stderr
    assert "free some space" in said[0]
    assert "Read-only file system" in said[1]
    assert said[2] == "[]"
