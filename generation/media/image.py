"""Images as files: a reader that trusts nothing, a PNG writer that always gives the same bytes."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from generation.errors import InvalidSpecError, MissingFileError

MAX_PIXELS = 50_000_000
"""The largest image that is decoded, unless the caller says otherwise."""
MAX_FILE_BYTES = 256_000_000
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
"""Pixel kinds that turn into 8-bit RGB without loss of range."""
_DEFLATE_LEVEL = 6


def open_rgb(path: Path, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an image file, upright, as RGB.

    The size is checked before any pixel is decoded, so a small file cannot fill the memory.

    Args:
        path: A PNG, JPEG, WebP or TIFF file.
        max_pixels: Width times height that is still decoded.

    Returns:
        Values 0 to 255.

    Raises:
        MissingFileError: There is no such file.
        InvalidSpecError: It is no such image, damaged, too large, animated or half transparent.
    """
    return decode_rgb(read_bytes(path), str(path), max_pixels)


def decode_rgb(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "height width 3"]:
    """Decode the bytes of an image file; see :func:`open_rgb`."""
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            _check(name, image.size, max_pixels)
            if image.mode not in _MODES or getattr(image, "n_frames", 1) != 1:
                raise InvalidSpecError(
                    f"{name} holds {getattr(image, 'n_frames', 1)} picture(s) of kind {image.mode} "
                    "(save it as one 8-bit RGB picture)"
                )
            upright = ImageOps.exif_transpose(image)
            rgba = np.asarray(upright.convert("RGBA"))
    except InvalidSpecError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidSpecError(
            f"{name} would have far more than {max_pixels} pixels once decoded (give a smaller one)"
        ) from None
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise InvalidSpecError(
            f"{name} is no readable image ({f'{error}'[:100]}; {', '.join(_FORMATS)} are read; is "
            "it complete?)"
        ) from None
    if (rgba[..., 3] != 255).any():
        raise InvalidSpecError(f"{name} is transparent in places (fill them and save it again)")
    return np.ascontiguousarray(rgba[..., :3])


def read_bytes(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read a whole file that must not be larger than ``max_bytes``.

    Raises:
        MissingFileError: There is no such file, or it may not be read.
        InvalidSpecError: It is larger.
    """
    try:
        if not path.is_file():
            raise MissingFileError(f"{path} is no file (check the name)")
        if path.stat().st_size > max_bytes:
            raise InvalidSpecError(
                f"{path} has {path.stat().st_size} bytes, {max_bytes} are allowed (is it the right "
                "file?)"
            )
        return path.read_bytes()
    except MissingFileError:
        raise
    except OSError as error:
        raise MissingFileError(
            f"{path} cannot be read: {error.strerror} (check its permissions)"
        ) from error


def png_bytes(
    rgb: UInt8[np.ndarray, "height width 3"], text: Mapping[str, str] | None = None
) -> bytes:
    """Encode an image as PNG; equal pixels and text give equal bytes, for no time is stored.

    Args:
        rgb: Values 0 to 255.
        text: Stored as UTF-8 (iTXt), in this order.
    """
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for keyword, value in (text or {}).items():
        info.add_itxt(keyword, value)
    buffer = BytesIO()
    image = Image.fromarray(np.ascontiguousarray(rgb))
    image.save(buffer, format="PNG", pnginfo=info, compress_level=_DEFLATE_LEVEL)
    return buffer.getvalue()


def png_text(data: bytes) -> dict[str, str]:
    """Give the iTXt texts of a PNG, after checking that each of its chunks is whole.

    Raises:
        InvalidSpecError: It is no PNG, cut off, or a chunk does not match its checksum.
    """
    texts: dict[str, str] = {}
    for kind, body in _png_chunks(data):
        if kind != b"iTXt":
            continue
        keyword, _, rest = body.partition(b"\0")
        if rest[:1] == b"\0":  # stored as it is; a compressed text is never one of ours
            texts[keyword.decode("latin-1")] = _itxt_value(rest)
    return texts


def _itxt_value(rest: bytes) -> str:
    """Take the text out of: compression flag, method, language NUL, translated keyword NUL, text.

    Source:
        W3C, "Portable Network Graphics (PNG) Specification" (2003), §11.3.4.5.
    """
    try:
        return rest[2:].split(b"\0", 2)[2].decode("utf-8")
    except (IndexError, UnicodeDecodeError):
        raise InvalidSpecError(
            "the text inside the PNG is damaged (take the file as it was written)"
        ) from None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Walk the chunks: length, kind, body, checksum of kind and body."""
    damaged = "the PNG is cut off or damaged (copy it again, or render it anew)"
    if not data.startswith(PNG_MAGIC):
        raise InvalidSpecError("the file is no PNG (give one that terrascape wrote)")
    at, kind = len(PNG_MAGIC), b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise InvalidSpecError(damaged)
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        checksum = data[at + 8 + length : at + 12 + length]
        if len(checksum) < 4 or zlib.crc32(kind + body) != int.from_bytes(checksum, "big"):
            raise InvalidSpecError(damaged)
        yield kind, body
        at += 12 + length


def _check(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise InvalidSpecError(
            f"{name} has {width}x{height} pixels, {max_pixels} are allowed (give a smaller one)"
        )
