"""Sounds that steer a picture: which files are taken, and whether anything here can be steered."""

from pathlib import Path

from generation.errors import InvalidSpecError
from generation.media.image import read_bytes
from generation.registry import is_here, list_models
from generation.studio.drawing import keep_bytes

SOUND_FOLDER = "sounds"
"""Folder of chosen sounds below the results."""
SOUND_ENDINGS = "WAV, FLAC, OGG, MP3 or GeoTIFF"
MAX_HEARD_S = 300.0
"""The longest recording that the page takes."""


def describe_sound(path: Path) -> str:
    """Decode a chosen file, whole, and tell in a few words what it is.

    Args:
        path: A recording, or a GeoTIFF of a place.

    Raises:
        AudioError: It is no sound, or longer than ``MAX_HEARD_S``.
        InvalidSpecError: It is too large, or a TIFF without a place or of other bands than RGB.
        MissingFileError: It is not there any more.
    """
    from generation.media.geotiff import TIFF_MAGICS, geotiff_image

    data = read_bytes(path)
    if data[:4] in TIFF_MAGICS:
        picture = geotiff_image(data)
        return f"the image of a place, {picture.center.lat:.2f}, {picture.center.lon:.2f}"
    return _recording_text(data, path.name)


def describe_recording(path: Path) -> str:
    """Decode a recording, whole, and tell in a few words what it is.

    Raises:
        AudioError: It is no sound, or longer than ``MAX_HEARD_S``.
        InvalidSpecError: It is too large.
        MissingFileError: It is not there any more.
    """
    return _recording_text(read_bytes(path), path.name)


def _recording_text(data: bytes, name: str) -> str:
    from generation.media.audio import decode_audio

    return f"a recording of {decode_audio(data, name, max_seconds=MAX_HEARD_S).seconds:.1f} s"


def keep_sound(path: Path, out: Path) -> Path:
    """Copy a chosen sound beside the results, so that a replay finds it.

    Raises:
        OutputError: The folder of the results cannot be written to.
    """
    folder = out / SOUND_FOLDER
    if path.parent.resolve() == folder.resolve():
        return path
    return keep_bytes(read_bytes(path), path.name, folder)


def why_silent() -> str:
    """Say why no sound can steer a picture here; empty if one can."""
    names = list_models("steering")
    if any(is_here(name) for name in names):
        return ""
    return (
        f"No sound can steer a picture here: the weights of {' and '.join(names)} are missing "
        "(put their folder into assets/ or below TERRASCAPE_HOME, and start the studio again)."
    )


def words_or_refuse(text: str | None) -> str:
    """Give the sentence of what is heard.

    Raises:
        InvalidSpecError: There is none.
    """
    if not (text or "").strip():
        raise InvalidSpecError(
            "nothing is said of what is heard there (write it, or choose None under Sound)"
        )
    return str(text)


def file_or_refuse(path: str | None) -> Path:
    """Give the chosen sound.

    Raises:
        InvalidSpecError: There is none.
    """
    if not path:
        raise InvalidSpecError(
            f"no sound is chosen (drop a {SOUND_ENDINGS} file, or choose None under Sound)"
        )
    return Path(path)
