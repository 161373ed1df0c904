"""The one typeface of every picture that carries words."""

from functools import lru_cache
from typing import TYPE_CHECKING

from generation.errors import MissingExtraError

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont


@lru_cache
def font(size: int) -> "FreeTypeFont":
    """Give the typeface that comes with Pillow, ``size`` pixels high.

    Raises:
        MissingExtraError: This Pillow writes no text.
    """
    from PIL import ImageFont

    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise MissingExtraError(
            "this Pillow was built without FreeType and writes no text (install the wheel: pip "
            "install --force-reinstall pillow)"
        )
    return found
