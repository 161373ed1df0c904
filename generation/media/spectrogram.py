"""A spectrogram as a picture with seconds and pitch along its edges."""

import numpy as np
from jaxtyping import Float, UInt8

from generation.media.lettering import font

_LEFT, _BELOW, _ABOVE, _RIGHT = 52, 26, 8, 14
_BAND_PX, _MAX_WIDTH, _MIN_WIDTH = 4, 1000, 320
_RANGE = 7.0
"""From the loudest down to so much less, in natural logarithms (61 dB), the colours reach."""
_COLOURS = np.array(
    [(9, 12, 30), (52, 37, 105), (131, 47, 116), (205, 76, 85), (246, 147, 62), (252, 230, 150)],
    np.float64,
)
_PAPER, _INK = (250, 249, 246), (60, 62, 66)


def spectrogram_picture(
    log_mel: Float[np.ndarray, "bands frames"],
    pitches_hz: Float[np.ndarray, " bands"],
    seconds: float,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw a spectrogram, low sounds at the bottom.

    Args:
        log_mel: Natural logarithms of magnitudes.
        pitches_hz: The middle of each band, rising.
        seconds: How long it lasts.
    """
    from PIL import Image, ImageDraw

    bands, frames = log_mel.shape
    width = int(np.clip(2 * frames, _MIN_WIDTH, _MAX_WIDTH))
    height = _BAND_PX * bands
    top = float(log_mel.max())
    share = np.clip((log_mel[::-1] - top) / _RANGE + 1, 0, 1) * (len(_COLOURS) - 1)
    low = np.minimum(share.astype(int), len(_COLOURS) - 2)
    rgb = _COLOURS[low] + (share - low)[..., None] * (_COLOURS[low + 1] - _COLOURS[low])
    drawn = Image.fromarray(np.round(rgb).astype(np.uint8))
    drawn = drawn.resize((width, height), Image.Resampling.BOX if frames > width else 0)
    size = (_LEFT + width + _RIGHT, _ABOVE + height + _BELOW)
    page = Image.new("RGB", size, _PAPER)
    page.paste(drawn, (_LEFT, _ABOVE))
    pen, small = ImageDraw.Draw(page), font(12)
    step = next(each for each in (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120) if seconds / each <= 10)
    for number in range(int(seconds / step + 1e-6) + 1):
        x = _LEFT + number * step / seconds * (width - 1)
        pen.line([(x, _ABOVE + height), (x, _ABOVE + height + 4)], _INK)
        text = f"{number * step:g}" + (" s" if number == 0 else "")
        pen.text((x, _ABOVE + height + 6), text, _INK, small, anchor="ma")
    for pitch in (250, 500, 1000, 2000, 4000, 8000, 16000):
        if not pitches_hz[0] < pitch < pitches_hz[-1] * 1.05:
            continue
        band = float(np.interp(pitch, pitches_hz, np.arange(bands)))
        y = _ABOVE + height - _BAND_PX * (band + 0.5)
        pen.line([(_LEFT - 4, y), (_LEFT, y)], _INK)
        text = f"{pitch // 1000} kHz" if pitch >= 1000 else f"{pitch} Hz"
        pen.text((_LEFT - 6, y), text, _INK, small, anchor="rm")
    return np.asarray(page)
