"""A sheet of panoramas: nearest given, drawn from ever more, and real, a row for each place."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from generation.atomic import atomic_path
from training.evaluate_panorama import SHEET_NAMES, Findings

LABELS = {
    "copy": "nearest panorama",
    "views_0": "satellite only",
    "views_1": "satellite and 1 panorama",
    "views_3": "satellite and 3 panoramas",
    "real": "real",
}
GAP_PX, HEAD_PX = 4, 18


def compose_sheet(
    found: Findings, labels: dict[str, str] | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Put the shown panoramas side by side; where a place lacks one its field stays white.

    Args:
        found: What was measured.
        labels: Headings of the columns, by their names; ``LABELS`` when absent.
    """
    from PIL import Image, ImageDraw

    labels = labels or LABELS
    rows = found.on_sheet
    height, width = found.shown["real"][rows[0]].shape[:2]
    size = (
        len(SHEET_NAMES) * (width + GAP_PX) - GAP_PX,
        HEAD_PX + len(rows) * (height + GAP_PX) - GAP_PX,
    )
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for col, name in enumerate(SHEET_NAMES):
        left = col * (width + GAP_PX)
        pen.text((left + 4, 3), labels[name], fill="black")
        for row, case in enumerate(rows):
            picture = found.shown.get(name, {}).get(case)
            if picture is not None:
                top = HEAD_PX + row * (height + GAP_PX)
                sheet.paste(Image.fromarray(picture), (left, top))
    return np.array(sheet)


def save_sheet(found: Findings, out: Path, label: str) -> None:
    """Write the sheet as PNG; the label tells what the real panoramas are."""
    from PIL import Image

    sheet = compose_sheet(found, {**LABELS, "real": f"real ({label})"})
    with atomic_path(out) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG", optimize=True)
