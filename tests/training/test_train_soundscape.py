"""The two stages of the model of soundscapes, on a few recordings of a second."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState, GradientState

from generation.diffusion.soundscape import SoundscapeConditioner
from generation.errors import ConfigError
from generation.media.audio import mel_signal, signal_mel
from generation.pipelines.soundscape import SoundscapePipeline
from training.sound_pairs import Clip
from training.soundscape_data import Pieces, Wave, read_waves
from training.train_soundscape import SoundscapeConfig
from training.train_soundscape import main as train

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "tiles=null",
    "network.block_out_channels=[16, 32]",
    "network.attention_head_dim=[1, 2]",
    "network.norm_num_groups=8",
    "network.token_dim=16",
    "network.vector_dim=16",
    "network.vocoder_width=16",
    "network.vocoder_hidden=16",
    "network.vocoder_blocks=1",
    "frames=32",
    "pieces=2",
    "loop.steps=2",
    "loop.batch_size=2",
    "loop.warmup_steps=1",
    "loop.snapshot_every=2",
    "loop.log_every=1",
    "loop.panel_every=0",
]


def sound(hz):
    out = io.BytesIO()
    turns = np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000)
    soundfile.write(out, (0.3 * turns).astype(np.float32), 16_000, format="FLAC")
    return {"bytes": out.getvalue(), "path": None}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    out = tmp_path_factory.mktemp("clips")
    rows = [
        {
            "audio": sound(300 + 100 * fold), "label": "Sea waves", "fold": fold,
            "title": f"waves {fold}", "source_url": "", "author": "someone", "license": "CC0",
        }
        for fold in (1, 2, 4)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), out / "esc.parquet")
    day = [{"audio": sound(900 + h), "date": "20190522", "hour": h, "minute": 30} for h in range(4)]
    pq.write_table(pa.Table.from_pylist(day), out / "day.parquet")
    return out


def run(clips, *words):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    config = str(ROOT / "configs/soundscape_nano.yaml")
    train([config, f"clips={clips / 'esc.parquet'}", f"day={clips / 'day.parquet'}", *TINY, *words])


def test_both_stages_leave_a_pipeline_and_the_second_keeps_the_vocoder(clips, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run(clips, "stage=vocoder", "vocoder_from=null", f"out={first}")
    run(clips, f"vocoder_from={first / 'weights'}", f"out={second}", "loop.panel_every=2")
    one, other = (SoundscapePipeline.from_pretrained(f / "weights") for f in (first, second))
    for part in ("vocoder", "codec"):
        theirs = getattr(one, part).state_dict()
        assert all(torch.equal(v, theirs[n]) for n, v in getattr(other, part).state_dict().items())
    assert not torch.equal(one.unet.conv_in.weight, other.unet.conv_in.weight)
    assert other.conditioner.means[:2].abs().sum(1).gt(0).all()
    assert other.conditioner.config["space"] == "sat2sound-nano"
    assert list((second / "panels").iterdir())
    lines = (second / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert np.isfinite(losses).all()


def test_sides_are_kept_apart(clips):
    patterns = (str(clips / "esc.parquet"), str(clips / "day.parquet"))
    learnt, held = (read_waves(*patterns, rate=16_000, test=test) for test in (False, True))
    assert [len(learnt), len(held)] == [5, 2]
    titles = [{wave.clip.title for wave in waves} for waves in (learnt, held)]
    assert not titles[0] & titles[1]
    with pytest.raises(ConfigError, match="no recording is held out"):
        read_waves(None, write_day(clips), rate=16_000, test=True)


def write_day(clips):
    row = {"audio": sound(500), "date": "20190522", "hour": 1, "minute": 0}
    pq.write_table(pa.Table.from_pylist([row]), clips / "one.parquet")
    return str(clips / "one.parquet")


def test_pieces_pass_silence_over():
    samples = np.zeros(16_000, np.float32)
    samples[:8_000] = np.random.default_rng(0).normal(size=8_000)
    wave = Wave(Clip("Sea waves", "", "", "", "", False, None, None), samples)
    pieces = Pieces([wave], 1600)
    silent = sum(float(pieces[0, draw]["samples"].abs().max()) == 0 for draw in range(40))
    assert silent <= 4  # by chance alone it would be about 16
    assert torch.equal(pieces[0, 3]["samples"], pieces[0, 3]["samples"])


def test_spectrograms_as_signals_come_back():
    mel = torch.linspace(-11.5, 4.0, 50)[None]
    assert mel_signal(mel).abs().max() <= 1
    torch.testing.assert_close(signal_mel(mel_signal(mel)), mel)


def test_other_weights_of_the_space_are_refused(clips, tmp_path):
    run(clips, "stage=vocoder", "vocoder_from=null", f"out={tmp_path / 'first'}")
    config = tmp_path / "first/weights/conditioner/config.json"
    told = json.loads(config.read_text()) | {"space_sha256": "0" * 64}
    config.write_text(json.dumps(told))
    given = f"start_from={tmp_path / 'first/weights'}"
    with pytest.raises(SystemExit) as stopped:
        run(clips, "vocoder_from=null", given, f"out={tmp_path / 'second'}")
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"drop_sound": 2.0}, "drop_sound=2.0"),
        ({"blur": -1.0}, "blur=-1.0"),
        ({"frames": 30}, "frames=30"),
        ({"stage": "denoiser"}, "give vocoder_from"),
    ],
)
def test_each_mistake_of_a_configuration_is_told(given, told):
    with pytest.raises(ConfigError, match=told):
        SoundscapeConfig(**{"stage": "vocoder", **given})


def test_an_embedding_keeps_to_the_mean_of_its_kind():
    from generation.encoders.heads import Embedding

    conditioner = SoundscapeConditioner(8, 16, 16)
    conditioner.means[1] = torch.eye(8)[0]
    vector = torch.eye(8)[1][None] + torch.eye(8)[0]
    there = conditioner.centred(Embedding(vector), "text")
    assert there[0, 1] > 0
    assert float(there.norm()) == pytest.approx(1, abs=1e-5)
    assert not torch.equal(there, conditioner.centred(Embedding(vector), "audio"))
