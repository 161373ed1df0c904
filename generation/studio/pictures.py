"""Pictures inside the page's HTML, so that nothing has to be fetched for them."""

import base64
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from generation.media.image import open_rgb, png_bytes

THUMB_PX = 112


def data_uri(data: bytes, kind: str = "png") -> str:
    """Wrap the bytes of an image file for ``src``."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def png_uri(rgb: UInt8[np.ndarray, "height width 3"]) -> str:
    """Give an image without loss: maps and results."""
    return data_uri(png_bytes(rgb))


def overlay_uri(rgba: UInt8[np.ndarray, "height width 4"]) -> str:
    """Give an image that is transparent in places, to be laid over another one."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(rgba)).save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue())


def preview_uri(rgb: UInt8[np.ndarray, "height width 3"]) -> str:
    """Give an image small, for what is replaced a moment later."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, format="JPEG", quality=85)
    return data_uri(buffer.getvalue(), "jpeg")


def thumb_uri(path: Path) -> str:
    """Give a thumbnail of a picture on disk; made once as long as the file does not change."""
    return _thumb(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _thumb(path: Path, _stamp: int) -> str:
    image = Image.fromarray(open_rgb(path))
    image.thumbnail((THUMB_PX, THUMB_PX), Image.Resampling.LANCZOS)
    return preview_uri(np.asarray(image))
