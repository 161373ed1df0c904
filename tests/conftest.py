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


@pytest.fixture(scope="session")
def text_encoder():
    """The real text encoder, loaded once."""
    from generation.encoders.text import TextEncoder

    return TextEncoder()


@pytest.fixture(scope="session")
def tiny_pipeline(text_encoder):
    """A whole satellite pipeline at tiny sizes; tests leave it as it is."""
    from tiny import make_pipeline

    return make_pipeline(text_encoder)


@pytest.fixture(scope="session")
def tile_file(tmp_path_factory):
    """A Parquet file of four painted tiles."""
    from tiny import write_tiles

    return write_tiles(tmp_path_factory.mktemp("parquet") / "train-00000.parquet")


@pytest.fixture(scope="session")
def tile_folder(tile_file, tmp_path_factory):
    """What the data builder makes of those tiles, and beside it an untrained autoencoder."""
    from tiny import make_pipeline

    from generation.checkpoint import save_part
    from training.data import main

    out = tmp_path_factory.mktemp("tiles")
    main(["--data", str(tile_file), "--out", str(out)])
    pipeline = make_pipeline()
    save_part(pipeline.codec, out / "autoencoder/codec")
    save_part(pipeline.decoder, out / "autoencoder/decoder")
    return out
