"""Sound files of every kind, and spectrograms that show what was played."""

import math

import numpy as np
import pytest
import soundfile
import torch

from generation.errors import AudioError, MissingFileError
from generation.media.audio import (
    Mel,
    Recording,
    decode_audio,
    fitted,
    log_mel,
    open_audio,
    resampled,
)


def tone(hz, rate=16_000, seconds=1.0):
    return np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def loudness(recording, hz):
    """The amplitude of one frequency."""
    turns = np.exp(-2j * np.pi * hz * np.arange(len(recording.samples)) / recording.rate)
    return 2 * abs((recording.samples * turns).mean())


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "channels"),
    [
        ("a.wav", "PCM_U8", 8_000, 1),
        ("a.wav", "PCM_16", 44_100, 2),
        ("a.wav", "FLOAT", 96_000, 6),
        ("a.flac", "PCM_24", 48_000, 1),
        ("a.ogg", "VORBIS", 16_000, 1),
        ("a.mp3", "MPEG_LAYER_III", 44_100, 1),
    ],
)
def test_what_libsndfile_reads_comes_out_at_the_rate_asked_for(
    tmp_path, name, subtype, rate, channels
):
    samples = np.repeat(0.5 * tone(440, rate)[:, None], channels, 1)
    soundfile.write(tmp_path / name, samples, rate, subtype=subtype)
    heard = open_audio(tmp_path / name, rate=16_000)
    assert heard.rate == 16_000
    assert heard.samples.dtype == np.float32
    assert heard.seconds == pytest.approx(1, abs=0.1)  # MP3 adds a little
    assert loudness(heard, 440) == pytest.approx(0.5, abs=0.05)
    assert open_audio(tmp_path / name).rate == rate


def test_channels_are_averaged(tmp_path):
    both = np.stack([tone(440), tone(880)], 1)
    soundfile.write(tmp_path / "a.wav", both, 16_000, subtype="FLOAT")
    heard = open_audio(tmp_path / "a.wav")
    assert loudness(heard, 440) == pytest.approx(0.5, abs=1e-3)
    assert loudness(heard, 880) == pytest.approx(0.5, abs=1e-3)


def test_resampling_takes_out_what_the_rate_cannot_hold():
    recording = Recording(tone(440) + tone(7_000), 16_000)
    low = resampled(recording, 8_000)
    assert len(low.samples) == 8_000
    assert loudness(low, 440) == pytest.approx(1, abs=0.02)
    assert loudness(low, 1_000) < 0.02  # where 7 kHz would fold to
    assert resampled(recording, 16_000) is recording


def test_a_short_recording_is_repeated_and_a_long_one_cut():
    samples = np.arange(3, dtype=np.float32)
    assert fitted(samples, 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert fitted(samples, 2, start=1).tolist() == [1, 2]
    with pytest.raises(AudioError, match="without samples"):
        fitted(samples[:0], 3)


def write(path, samples, rate=16_000, subtype="FLOAT"):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: write(p, np.zeros(0, np.float32)), "holds no sound at all"),
        (lambda p: write(p, np.array([0.1, np.nan], np.float32)), "no numbers"),
        (lambda p: write(p, np.array([0.1, np.inf], np.float32)), "no numbers"),
        (lambda p: write(p, tone(440, 2_000), 2_000), "2000 samples a second .*resample"),
        (lambda p: write(p, np.zeros((9, 40), np.float32)), "40 channels .*mix it down"),
        (lambda p: p.write_bytes(b"a diary, not a sound"), "no readable sound"),
        (lambda p: p.write_bytes(b""), "no readable sound"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_sentence(tmp_path, make, told):
    path = tmp_path / "a.wav"
    make(path)
    with pytest.raises(AudioError, match=told) as caught:
        open_audio(path)
    assert "\n" not in str(caught.value)


def test_hours_are_refused_before_they_are_decoded(tmp_path):
    path = write(tmp_path / "long.wav", np.zeros(3 * 3600 * 4_000, np.uint8) + 0.0, 4_000, "PCM_U8")
    with pytest.raises(AudioError, match=r"lasts 10800 s, 900 s are allowed .*cut out"):
        open_audio(path)


def test_a_file_that_is_cut_off_is_read_or_refused_but_never_crashes(tmp_path):
    for name, subtype in (("a.flac", "PCM_16"), ("a.ogg", "VORBIS"), ("a.mp3", "MPEG_LAYER_III")):
        data = write(tmp_path / name, tone(440), subtype=subtype).read_bytes()
        for part in range(0, len(data), max(1, len(data) // 25)):
            try:
                heard = decode_audio(data[:part], name)
            except AudioError:
                continue
            assert np.isfinite(heard.samples).all()


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.wav"):
        open_audio(tmp_path / "none.wav")


def test_a_tone_lights_the_band_that_holds_it():
    mel = Mel()
    filters = mel.filters()
    assert filters.shape == (513, 64)
    for hz in (300, 1_000, 4_000):
        spectrum = log_mel(torch.from_numpy(tone(hz))[None], mel, filters)
        assert spectrum.shape == (1, 64, mel.frames(16_000)) == (1, 64, 101)
        band = int(spectrum[0].mean(1).argmax())
        at = filters[:, band].nonzero()[:, 0] * mel.rate / mel.n_fft
        assert at[0] - 20 <= hz <= at[-1] + 20


def test_silence_is_the_floor_and_louder_is_higher():
    mel = Mel()
    filters = mel.filters()
    silence = log_mel(torch.zeros(1, 16_000), mel, filters)
    torch.testing.assert_close(silence, torch.full_like(silence, math.log(1e-5)))
    quiet, loud = (log_mel(g * torch.from_numpy(tone(440))[None], mel, filters) for g in (0.1, 1.0))
    band = loud.mean(2).argmax()
    rise = (loud - quiet)[0, band].mean().item()
    assert rise == pytest.approx(math.log(10), abs=1e-3)
