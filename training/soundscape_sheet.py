"""A sheet of spectrograms: real, through codec and vocoder, made, and asked for another kind."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from generation.atomic import atomic_path
from generation.media.lettering import font
from training.soundscape_cases import SoundscapeCases
from training.soundscape_findings import Findings
from training.soundscape_metrics import spectra

GAP_PX, HEAD_PX, LEFT_PX, FRAME_PX = 4, 22, 132, 3
ROWS = (
    ("real, held out", "real"),
    ("codec, vocoder", "vocoded"),
    ("from its embedding", "from_recording"),
    ("from a caption", "from_caption"),
    ("another's caption", "shuffled"),
)
RANGE_DB = 60.0
"""From the loudest of a spectrogram down to so much less its greys reach."""


def compose_sheet(cases: SoundscapeCases, found: Findings) -> UInt8[np.ndarray, "height width 3"]:
    """Put a column for each kind side by side, the first held-out recording of each.

    The last row is what was made from the caption of the kind to the right, for comparison.
    """
    from PIL import Image, ImageDraw

    first = [int(np.flatnonzero(cases.labels == kind)[0]) for kind in range(len(cases.kinds))]
    mel = cases.pipeline.vocoder.mel
    width = max(120, min(250, mel.frames(cases.count) // FRAME_PX))
    size = (
        LEFT_PX + len(first) * (width + GAP_PX),
        HEAD_PX + len(ROWS) * (mel.bands + GAP_PX),
    )
    sheet = Image.new("RGB", size, "white")
    pen, letters = ImageDraw.Draw(sheet), font(12)
    for col, name in enumerate(cases.kinds):
        pen.text((LEFT_PX + col * (width + GAP_PX), 4), name, fill="black", font=letters)
    for row, (label, key) in enumerate(ROWS):
        top = HEAD_PX + row * (mel.bands + GAP_PX)
        pen.text((4, top + mel.bands // 2 - 8), label, fill="black", font=letters)
        shown = found.sounds["from_caption" if key == "shuffled" else key]
        chosen = [*first[1:], first[0]] if key == "shuffled" else first
        for col, seen in enumerate(spectra(shown[chosen], mel)):
            picture = Image.fromarray(_grey(seen)).resize((width, mel.bands))
            sheet.paste(picture, (LEFT_PX + col * (width + GAP_PX), top))
    return np.array(sheet)


def _grey(seen_db: Float[np.ndarray, "bands frames"]) -> UInt8[np.ndarray, "bands frames"]:
    """Show the loudest white and low sounds at the bottom; silence is black."""
    if np.ptp(seen_db) == 0:
        return np.zeros(seen_db.shape, np.uint8)
    share = (seen_db[::-1] - seen_db.max()) / RANGE_DB + 1
    return np.asarray((share.clip(0, 1) * 255).round(), np.uint8)


def save_sheet(cases: SoundscapeCases, found: Findings, out: Path) -> None:
    """Write the sheet as PNG."""
    from PIL import Image

    with atomic_path(out) as temporary:
        Image.fromarray(compose_sheet(cases, found)).save(temporary, format="PNG", optimize=True)
