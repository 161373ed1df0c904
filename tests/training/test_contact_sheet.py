import numpy as np
import pytest
from PIL import Image

from generation.geo.layout import PALETTE
from generation.geo.mercator import tile_window
from training import contact_sheet
from training.contact_sheet import compose_sheet, save_sheet
from training.evaluate_tiles import Tiles


@pytest.fixture
def tiles():
    count = 5
    return Tiles(
        names=[f"8/{x}/90" for x in range(count)],
        images=np.full((count, 32, 32, 3), 7, np.uint8),
        classes=np.ones((count, 32, 32), np.uint8),
        windows=[tile_window(8, x, 90) for x in range(count)],
        captions=["land"] * count,
        climates=np.zeros(count, np.int64),
    )


def test_a_sheet_shows_layout_generated_and_real(tiles):
    drawn = np.full_like(tiles.images, 200)
    sheet = compose_sheet(tiles, drawn, across=2)
    assert sheet.shape == (3 * 36 - 4, 2 * (3 * 32 + 8 + 16) - 16, 3)
    np.testing.assert_array_equal(sheet[0, 0], PALETTE[1])
    assert (sheet[0, 36] == 200).all()
    assert (sheet[0, 72] == 7).all()
    assert (sheet[-1, -1] == 255).all()  # an odd number of places leaves a white field


def test_a_saved_sheet_keeps_the_fixed_rule(tiles, tmp_path):
    drawn = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones_like(tiles.images)
    save_sheet(tiles, drawn, tmp_path / "sheet.png", places=2)
    with Image.open(tmp_path / "sheet.png") as file:
        pixels = np.asarray(file)
    assert pixels[0, 36, 0] == 0
    assert pixels[0, 36 + 3 * 32 + 8 + 16, 0] == 2


def test_a_sheet_is_never_overwritten(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    out.touch()
    assert contact_sheet.main(["--data", "x", "--out", str(out)]) == 2
    assert "not overwritten" in capsys.readouterr().err
