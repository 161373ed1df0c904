"""What a panorama's file tells of itself: GPano, place, and texts of ours inside a JPEG.

Source:
    Google, "Photo Sphere XMP metadata" (the GPano schema); Adobe, "XMP specification, part 3"
    (2020), §1.1.3; ITU-T T.81 (1992), annex B (the segments of a JPEG).
"""

import json
import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import UInt8

from generation.errors import InvalidLocationError, InvalidSpecError, shown
from generation.geo.location import Location

MAX_XMP_BYTES = 1_000_000
MAX_TEXTS_BYTES = 4_000_000
SYNTHETIC = (
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    "Iptc4xmpExt:DigitalSourceType="
    '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"'
)
"""What photo software reads as "made by AI" (IPTC Photo Metadata Standard 2023.1)."""
JPEG_MAGIC = b"\xff\xd8\xff"
_GPANO = "http://ns.google.com/photos/1.0/panorama/"
_LENGTHS = (
    *("FullPanoWidthPixels", "FullPanoHeightPixels"),
    *("CroppedAreaImageWidthPixels", "CroppedAreaImageHeightPixels"),
    *("CroppedAreaLeftPixels", "CroppedAreaTopPixels"),
)
_OURS = b"Terrascape\0"
"""Begins the segments that hold our texts: then a number and a count of two bytes each."""
_APP10, _START_OF_SCAN, _END = 0xEA, 0xDA, 0xD9
_ALONE = (0x01, *range(0xD0, 0xD9))
"""Markers without a length."""
_SEGMENT_BYTES = 65_533 - len(_OURS) - 4
_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which part of the sphere an equirectangular picture shows; it goes all around."""

    top_deg: float
    bottom_deg: float
    aspect: float
    """Its width by its height."""
    heading_deg: float | None = None
    """Where its middle looks, if that is told."""


def read_gpano(xmp: bytes, name: str) -> Coverage:
    """Read the GPano properties of an XMP packet; one without any stands for the whole sphere.

    They are looked up as plain texts: nothing in the packet is ever expanded or followed.

    Args:
        xmp: The packet, UTF-8.
        name: How errors call the file.

    Raises:
        InvalidSpecError: The picture is no equirectangular one, or does not go all around, or its
            properties contradict each other.
    """
    if len(xmp) > MAX_XMP_BYTES:
        raise InvalidSpecError(
            f"{name} has {len(xmp)} bytes of XMP, {MAX_XMP_BYTES} are allowed (save it without)"
        )
    text = xmp.decode("utf-8", errors="replace")
    projection = _property(text, "ProjectionType")
    if projection not in (None, "equirectangular"):
        raise InvalidSpecError(
            f"{name} is a {shown(projection)} panorama by its GPano tags (convert it to "
            "equirectangular)"
        )
    told = {key: _property(text, key) for key in _LENGTHS}
    pose = _number(text, "PoseHeadingDegrees", name)
    heading = None if pose is None else pose % 360
    if all(value is None for value in told.values()):
        return Coverage(90.0, -90.0, 2.0, heading)
    lengths = {key: _number(text, key, name) for key in _LENGTHS}
    return _coverage(lengths, heading, name)


def read_place(gps: Mapping[int, object]) -> Location | None:
    """Read the place out of EXIF's GPS tags; None where there is none that makes sense."""
    try:
        lat, lon = (_degrees(gps[key]) for key in (2, 4))
        south, west = (str(gps[key]).strip("\0 ").upper() for key in (1, 3))
        return Location(-lat if south == "S" else lat, -lon if west == "W" else lon)
    except (LookupError, TypeError, ValueError, ArithmeticError, InvalidLocationError):
        return None


def jpeg_bytes(
    rgb: UInt8[np.ndarray, "height width 3"],
    *,
    properties: Mapping[str, str] | None = None,
    place: Location | None = None,
    texts: Mapping[str, str] | None = None,
    quality: int = _QUALITY,
) -> bytes:
    """Encode a synthetic image as JPEG at full colour resolution; equal input gives equal bytes.

    Args:
        rgb: Values 0 to 255.
        properties: GPano properties by name, for the XMP packet.
        place: Where it stands, for the EXIF.
        texts: Stored whole, for :func:`jpeg_texts`.
        quality: 1 to 100.
    """
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(
        buffer,
        format="JPEG",
        quality=quality,
        subsampling="4:4:4",
        exif=_exif(place),
        xmp=_packet(properties or {}),
        extra=b"".join(_segments(texts)) if texts else b"",
    )
    return buffer.getvalue()


def jpeg_texts(data: bytes) -> dict[str, str]:
    """Give the texts that :func:`jpeg_bytes` stored; empty where there are none.

    Raises:
        InvalidSpecError: It is no JPEG, cut off, or the texts are damaged.
    """
    damaged = "the texts inside the JPEG are damaged (take the file as it was written)"
    parts = [body[len(_OURS) :] for body in _ours(data)]
    if not parts:
        return {}
    numbers = [struct.unpack_from(">HH", part) if len(part) >= 4 else (0, 0) for part in parts]
    if numbers != [(i, len(parts)) for i in range(1, len(parts) + 1)]:
        raise InvalidSpecError(damaged)
    whole = b"".join(part[4:] for part in parts)
    if len(whole) > MAX_TEXTS_BYTES or zlib.crc32(whole[4:]) != int.from_bytes(whole[:4], "big"):
        raise InvalidSpecError(damaged)
    texts = json.loads(whole[4:])
    if not isinstance(texts, dict):
        raise InvalidSpecError(damaged)
    return {str(key): str(value) for key, value in texts.items()}


def _property(text: str, name: str) -> str | None:
    """Find a property, an attribute or an element of its own, by its usual prefix."""
    found = re.search(rf"GPano:{name}\s{{0,9}}(?:=\s{{0,9}}[\"']|>)([^\"'<]{{0,60}})", text)
    return found[1].strip() if found else None


def _number(text: str, key: str, name: str) -> float | None:
    told = _property(text, key)
    if told is None:
        return None
    try:
        value = float(told)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidSpecError(
            f"{name} says GPano:{key}={shown(told)}, which is no number (mend its tags)"
        )
    return value


def _coverage(
    lengths: Mapping[str, float | None], heading_deg: float | None, name: str
) -> Coverage:
    absent = [key for key, value in lengths.items() if value is None]
    if absent:
        raise InvalidSpecError(
            f"{name} has GPano tags without {', '.join(absent)} (mend its tags, or take them out)"
        )
    full_w, full_h, width, height, left, top = (float(value or 0) for value in lengths.values())
    fits = full_w > 0 and width > 0 and height > 0 and 1.9 <= full_w / max(full_h, 1) <= 2.1
    if not fits or left < 0 or top < 0 or left + width > full_w + 1 or top + height > full_h + 1:
        raise InvalidSpecError(
            f"{name} has GPano tags that do not fit together: an area of {width:g}x{height:g} at "
            f"{left:g}, {top:g} in {full_w:g}x{full_h:g} (mend its tags)"
        )
    if width < 0.995 * full_w:
        raise InvalidSpecError(
            f"{name} covers {360 * width / full_w:.0f} of 360 degrees of azimuth (give a panorama "
            "that goes all around)"
        )
    top_deg, bottom_deg = 90 - 180 * top / full_h, 90 - 180 * (top + height) / full_h
    return Coverage(top_deg, max(bottom_deg, -90.0), width / height, heading_deg)


def _degrees(value: object) -> float:
    degrees, minutes, seconds = (float(part) for part in value)  # type: ignore[attr-defined]
    total = (degrees * 3600 + minutes * 60 + seconds) / 3600
    if not math.isfinite(total):
        raise ValueError(value)
    return total


def _exif(place: Location | None) -> bytes:
    from PIL import Image
    from PIL.TiffImagePlugin import IFDRational

    exif = Image.Exif()
    exif[0x0131] = "Terrascape"  # Software
    if place is not None:
        parts = [_sexagesimal(abs(value)) for value in (place.lat, place.lon)]
        lat, lon = (tuple(IFDRational(*part) for part in each) for each in parts)
        exif[0x8825] = {
            0: b"\x02\x03\x00\x00",
            1: "S" if place.lat < 0 else "N",
            2: lat,
            3: "W" if place.lon < 0 else "E",
            4: lon,
        }
    return exif.tobytes()


def _sexagesimal(degrees: float) -> tuple[tuple[int, int], ...]:
    """Divide degrees into whole degrees, minutes and ten-thousandths of a second: 3 mm."""
    ticks = round(degrees * 3600 * 10_000)
    minutes, rest = divmod(ticks, 600_000)
    return (minutes // 60, 1), (minutes % 60, 1), (rest, 10_000)


def _packet(properties: Mapping[str, str]) -> bytes:
    told = "".join(f" GPano:{key}={quoteattr(value)}" for key, value in properties.items())
    spaces = f'xmlns:GPano="{_GPANO}" ' if properties else ""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {spaces}{SYNTHETIC}{told}/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def _segments(texts: Mapping[str, str]) -> Iterator[bytes]:
    """Share a checksum and the texts among as many segments as it takes."""
    body = json.dumps(dict(texts), sort_keys=True).encode()
    whole = struct.pack(">I", zlib.crc32(body)) + body
    count = -(-len(whole) // _SEGMENT_BYTES)
    for i in range(count):
        part = whole[i * _SEGMENT_BYTES : (i + 1) * _SEGMENT_BYTES]
        content = _OURS + struct.pack(">HH", i + 1, count) + part
        yield struct.pack(">BBH", 0xFF, _APP10, len(content) + 2) + content


def _ours(data: bytes) -> Iterator[bytes]:
    """Walk the segments before the picture; the file must end as a JPEG does."""
    cut = "the JPEG is cut off or damaged (copy it again, or render it anew)"
    if not data.startswith(JPEG_MAGIC):
        raise InvalidSpecError("the file is no JPEG (give one that terrascape wrote)")
    if not data.endswith(bytes((0xFF, _END))):
        raise InvalidSpecError(cut)
    at, kind = 2, 0
    while kind != _START_OF_SCAN:
        if at + 4 > len(data) or data[at] != 0xFF:
            raise InvalidSpecError(cut)
        kind = data[at + 1]
        if kind in _ALONE or kind == 0xFF:
            at += 1 if kind == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if kind == _APP10 and body.startswith(_OURS):
            yield body
        at += 2 + length
