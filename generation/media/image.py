"""Images as files: a reader that trusts nothing, a PNG writer that always gives the same bytes."""

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from generation.errors import InvalidSpecError, MissingFileError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 50_000_000
"""The largest image that is decoded, unless the caller says otherwise."""
MAX_FILE_BYTES = 256_000_000
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
"""Pixel kinds that turn into 8-bit RGB without loss of range."""
_DEFLATE_LEVEL = 6
_EXIF_TURN, _EXIF_GPS, _TIFF_BITS = 0x0112, 0x8825, 0x0102
_TURNS: Mapping[int, Callable[..., np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}
"""EXIF orientation -> what turns the pixels upright (CIPA DC-008 "Exif 2.32" (2019), §4.6.4)."""


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
    from PIL import ImageOps

    with _opened(data, name, max_pixels) as image:
        if image.mode not in _MODES or getattr(image, "n_frames", 1) != 1:
            raise InvalidSpecError(
                f"{name} holds {getattr(image, 'n_frames', 1)} picture(s) of kind {image.mode} "
                "(save it as one 8-bit RGB picture)"
            )
        upright = ImageOps.exif_transpose(image)
        rgba = np.asarray(upright.convert("RGBA"))
    return _opaque(rgba, name)


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """A photograph, with what its file tells of it."""

    rgb: UInt8[np.ndarray, "height width 3"]
    """Upright."""
    notes: tuple[str, ...]
    """What was changed so that it is 8-bit RGB, upright."""
    xmp: bytes
    """Its XMP packet, unread; empty where it has none."""
    gps: Mapping[int, object]
    """The GPS part of its EXIF, by tag."""


def decode_photo(data: bytes, name: str, max_pixels: int, max_side: int) -> Photo:
    """Decode an image file of more kinds than :func:`decode_rgb` takes, and say what was changed.

    Args:
        data: The bytes of a PNG, JPEG, WebP or TIFF file.
        name: How errors call it.
        max_pixels: Width times height that is still decoded.
        max_side: The same for width and height alone.

    Raises:
        InvalidSpecError: It is no such image, damaged, too large, animated or half transparent.
    """
    if not data:
        raise InvalidSpecError(f"{name} is empty: 0 bytes (copy it again)")
    with _opened(data, name, max_pixels, max_side) as image:
        frames = getattr(image, "n_frames", 1)
        if frames != 1 and image.format != "MPO":
            raise InvalidSpecError(f"{name} holds {frames} pictures (save it as a single one)")
        turn, gps = _turn_and_gps(image)
        xmp = image.info.get("xmp") or b""
        rgb, notes = _eight_bits(image, name, _bits(data, image))
    if frames != 1:
        notes.append(f"the first of its {frames} pictures was taken")
    if isinstance(turn, int) and turn in _TURNS:
        rgb = _TURNS[turn](rgb)
        notes.append("it was turned upright, as its EXIF says")
    packet = xmp if isinstance(xmp, bytes) else str(xmp).encode()
    return Photo(np.ascontiguousarray(rgb), tuple(notes), packet, gps)


@contextmanager
def _opened(
    data: bytes, name: str, max_pixels: int, max_side: int | None = None
) -> "Iterator[Image.Image]":
    """Open an image file whose size is allowed, and tell errors in our words."""
    from PIL import Image

    try:
        quiet = warnings.catch_warnings() if max_side is not None else nullcontext()
        with quiet:
            if max_side is not None:  # larger than Pillow thinks fit, and checked here instead
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data), formats=_FORMATS)
        with image:
            _check(name, image.size, max_pixels, max_side)
            yield image
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


def _turn_and_gps(image: "Image.Image") -> tuple[object, Mapping[int, object]]:
    """Read the EXIF tags that matter here; one that cannot be read counts as absent."""
    try:
        exif = image.getexif()
        return exif.get(_EXIF_TURN), dict(exif.get_ifd(_EXIF_GPS))
    except (LookupError, TypeError, ArithmeticError, SyntaxError, ValueError, struct.error):
        return None, {}


def _opaque(
    rgba: UInt8[np.ndarray, "height width 4"], name: str
) -> UInt8[np.ndarray, "height width 3"]:
    if (rgba[..., 3] != 255).any():
        raise InvalidSpecError(f"{name} is transparent in places (fill them and save it again)")
    return np.ascontiguousarray(rgba[..., :3])


def _eight_bits(
    image: "Image.Image", name: str, bits: int
) -> tuple[UInt8[np.ndarray, "height width 3"], list[str]]:
    """Give the pixels as 8-bit RGB, and what was changed for that."""
    notes = [f"its {bits} bits a colour were cut to 8"] if bits > 8 else []
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2), notes
    if image.mode in ("CMYK", "YCbCr"):
        notes.append(f"its colours were converted from {image.mode}, without a colour profile")
        return np.asarray(image.convert("RGB")), notes
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image), notes
    if image.mode not in _MODES:
        raise InvalidSpecError(
            f"{name} holds a picture of kind {image.mode} (save it as 8-bit RGB)"
        )
    return _opaque(np.asarray(image.convert("RGBA")), name), notes


def _bits(data: bytes, image: "Image.Image") -> int:
    """Give the bits of each colour in the file, which Pillow cuts to 8 without a word."""
    if image.format == "PNG":
        return data[24]  # W3C, "Portable Network Graphics" (2003), §11.2.2
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_TIFF_BITS, 8)
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


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
    pixels: UInt8[np.ndarray, "height width *channels"], text: Mapping[str, str] | None = None
) -> bytes:
    """Encode an image as PNG; equal pixels and text give equal bytes, for no time is stored.

    Args:
        pixels: Values 0 to 255: grey without channels, or with three of them.
        text: Stored as UTF-8 (iTXt), in this order.
    """
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for keyword, value in (text or {}).items():
        info.add_itxt(keyword, value)
    buffer = BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
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


def _check(name: str, size: tuple[int, int], max_pixels: int, max_side: int | None) -> None:
    width, height = size
    if max_side is not None and max(size) > max_side:
        raise InvalidSpecError(
            f"{name} has {width}x{height} pixels, a side of {max_side} is allowed (give a smaller "
            "one)"
        )
    if width * height > max_pixels:
        raise InvalidSpecError(
            f"{name} has {width}x{height} pixels, {max_pixels} are allowed (give a smaller one)"
        )
