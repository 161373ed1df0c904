"""Sounds as FLAC and WAV with texts inside, byte for byte the same each time."""

import json
import struct
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from jaxtyping import Float, Int16

from generation.errors import AudioError

FLAC, WAV = ".flac", ".wav"
FLAC_MAGIC, WAV_MAGIC = b"fLaC", b"RIFF"
_CHUNK = b"tscp"
"""The chunk of a WAV file that holds the texts; for INFO, libsndfile has too little room."""
_FULL = 32_767


def as_int16(
    samples: Float[np.ndarray, "n channels"],
) -> Int16[np.ndarray, "n channels"]:
    """Round samples of -1 to 1 to 16 bits.

    Raises:
        AudioError: Some are louder, or no numbers.
    """
    loudest = float(np.abs(samples).max(initial=0.0))
    if not loudest <= 1:  # which NaN is not either
        raise AudioError(f"samples of up to {loudest:g} do not fit a file (bring them to -1 to 1)")
    return np.round(samples * _FULL).astype(np.int16)


def flac_bytes(
    samples: Int16[np.ndarray, "n channels"], rate: int, texts: Mapping[str, str]
) -> bytes:
    """Encode FLAC; the texts are its comment, as JSON."""
    return _encoded(samples, rate, "FLAC", json.dumps(dict(texts)))


def wav_bytes(
    samples: Int16[np.ndarray, "n channels"], rate: int, texts: Mapping[str, str]
) -> bytes:
    """Encode WAV; the texts are a chunk of its own, as JSON, which players pass over."""
    plain = _encoded(samples, rate, "WAV", None)
    told = json.dumps(dict(texts)).encode()
    chunk = _CHUNK + struct.pack("<I", len(told)) + told + b"\0" * (len(told) % 2)
    body = plain[8:] + chunk
    return WAV_MAGIC + struct.pack("<I", len(body)) + body


def sound_texts(data: bytes) -> dict[str, str]:
    """Read the texts of such a file.

    Raises:
        AudioError: It is no such file, or damaged.
        KeyError: It carries none.
    """
    told = _wav_chunk(data) if data.startswith(WAV_MAGIC) else _flac_comment(data)
    try:
        texts = json.loads(told)
    except (ValueError, RecursionError):
        texts = None
    if not isinstance(texts, dict):
        raise KeyError("comment")
    return {str(key): str(value) for key, value in texts.items()}


def sound_samples(data: bytes, name: str) -> Int16[np.ndarray, "n channels"]:
    """Decode the samples of such a file as they are stored.

    Raises:
        AudioError: It is damaged.
    """
    import soundfile

    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            samples: np.ndarray = file.read(dtype="int16", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError):
        raise AudioError(f"{name} is no readable sound (is it complete?)") from None
    return samples


def _encoded(
    samples: Int16[np.ndarray, "n channels"], rate: int, form: str, comment: str | None
) -> bytes:
    import soundfile

    stream = BytesIO()
    with soundfile.SoundFile(
        stream, "w", rate, samples.shape[1], subtype="PCM_16", format=form
    ) as file:
        file.software = "Terrascape (synthetic sound)"
        if comment is not None:
            file.comment = comment
        file.write(samples)
    return stream.getvalue()


def _flac_comment(data: bytes) -> str:
    import soundfile

    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            return str(file.comment)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError):
        raise AudioError("the file is no readable sound (is it complete?)") from None


def _wav_chunk(data: bytes) -> str:
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if name == _CHUNK:
            return data[at + 8 : at + 8 + size].decode("utf-8", "replace")
        at += 8 + size + size % 2
    raise KeyError("comment")
