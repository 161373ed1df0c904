"""What all tests share: the marker for real data, and a quiet, fixed environment."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items):
    if SHARED_DATA.is_dir():
        return
    absent = pytest.mark.skip(reason="the real data sets (../shared/data) are not here")
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(absent)


@pytest.fixture(autouse=True)
def _no_home(monkeypatch):
    """A developer's own models must not change what the tests see."""
    monkeypatch.delenv("TERRASCAPE_HOME", raising=False)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the real data sets; use it in tests with the marker ``shared`` only."""
    return SHARED_DATA
