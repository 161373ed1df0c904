"""Sounds as files that say how they were made."""

import numpy as np
import pytest
import soundfile

from generation.errors import AudioError
from generation.media.sound_files import (
    as_int16,
    flac_bytes,
    sound_samples,
    sound_texts,
    wav_bytes,
)

TEXTS = {"RunSpec": '{"é": "\\"}' + "x" * 40_001, "Terrascape": "{}"}
SOUND = (np.random.default_rng(0).normal(size=(3_000, 2)) * 3_000).astype(np.int16)


@pytest.mark.parametrize("encode", [flac_bytes, wav_bytes])
def test_samples_and_texts_come_back_and_the_bytes_are_the_same_each_time(encode, tmp_path):
    data = encode(SOUND, 16_000, TEXTS)
    assert data == encode(SOUND, 16_000, TEXTS)
    assert sound_texts(data) == TEXTS
    assert np.array_equal(sound_samples(data, "a"), SOUND)
    file = tmp_path / "a"
    file.write_bytes(data)
    samples, rate = soundfile.read(file, dtype="int16")  # as other programs see it
    assert rate == 16_000
    assert np.array_equal(samples, SOUND)


def test_a_wav_of_an_odd_length_is_whole():
    data = wav_bytes(SOUND[:, :1], 16_000, {"a": "b"})
    assert len(data) % 2 == 0
    assert int.from_bytes(data[4:8], "little") == len(data) - 8


@pytest.mark.parametrize("encode", [flac_bytes, wav_bytes])
def test_a_file_without_texts_has_none(encode):
    with pytest.raises(KeyError):
        sound_texts(encode(SOUND, 16_000, {})[:0] or encode_plain(encode))


def encode_plain(encode):
    from io import BytesIO

    stream = BytesIO()
    soundfile.write(stream, SOUND, 16_000, format="FLAC" if encode is flac_bytes else "WAV")
    return stream.getvalue()


@pytest.mark.parametrize("encode", [flac_bytes, wav_bytes])
@pytest.mark.parametrize("kept", [3, 20, 100, 5_000])
def test_what_is_cut_off_is_refused(encode, kept):
    data = encode(SOUND, 16_000, TEXTS)[:kept]
    with pytest.raises((AudioError, KeyError)):
        sound_texts(data)


def test_full_scale_is_full_scale():
    assert as_int16(np.array([[1.0, -1.0, 0.0, 0.5]])).tolist() == [[32767, -32767, 0, 16384]]


@pytest.mark.parametrize("value", [1.001, float("nan"), float("inf")])
def test_what_fits_no_file_is_refused(value):
    with pytest.raises(AudioError, match="do not fit"):
        as_int16(np.array([[value, 0.0]]))
