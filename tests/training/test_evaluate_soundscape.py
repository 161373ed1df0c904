"""The whole measurement of an untrained model on recordings of a second."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image
from tiny_soundscape import save_soundscape_model

from generation.errors import ConfigError
from generation.geo.layout import LAYERS
from generation.media.audio import Mel
from generation.pipelines.soundscape import SoundscapePipeline
from training import evaluate
from training.data import FIELDS
from training.evaluate_soundscape import measure, measure_tiles
from training.sound_tagger import train_tagger
from training.soundscape_cases import MADE, Settings, SoundscapeCases
from training.soundscape_data import read_waves
from training.soundscape_findings import Findings
from training.soundscape_hours import HourTest, dealt_hours, near
from training.soundscape_loops import OWN, WITHIN, seam_shares
from training.soundscape_places import GROUNDS, measure_places, save_places
from training.soundscape_places import told as ground_told
from training.soundscape_report import answers, lines, side

HOURS = (0, 5, 4, 23, 1, 6, 5, 0)
KINDS = ("Sea waves", "Rooster")


def flac(samples):
    out = io.BytesIO()
    soundfile.write(out, samples.clip(-1, 1).astype(np.float32), 16_000, format="FLAC")
    return {"bytes": out.getvalue(), "path": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise as waves, tones as roosters, and a day whose dawn is higher than its night."""
    out, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    turns = 2 * np.pi * np.arange(16_000) / 16_000

    def clip(kind, fold, number):
        tone = 0.4 * np.sin((500 + 50 * number) * turns)
        noise = 0.2 * rng.normal(size=16_000) * (1 + np.sin(3 * turns)) / 2
        return {
            "audio": flac(noise if kind == "Sea waves" else tone), "label": kind, "fold": fold,
            "title": f"{kind} {fold}", "source_url": f"{kind}/{fold}/{number // 2}",
            "author": "someone", "license": "CC0",
        }  # fmt: skip

    folds = (1, 2, 3, 4, 4, 4, 4)
    rows = [clip(kind, fold, n) for kind in KINDS for n, fold in enumerate(folds)]
    pq.write_table(pa.Table.from_pylist(rows), out / "esc.parquet")
    day = []
    for hour in HOURS:
        hz = 3000 if near(float(hour), 5.0) else 300
        sound = 0.1 * np.sin(hz * turns) + 0.01 * rng.normal(size=16_000)
        day.append({"audio": flac(sound), "date": "20190522", "hour": hour, "minute": 0})
    pq.write_table(pa.Table.from_pylist(day), out / "day.parquet")
    save_soundscape_model(out)
    return out


@pytest.fixture(scope="module")
def settings(folder):
    return Settings(
        clips=str(folder / "esc.parquet"),
        day=str(folder / "day.parquet"),
        model=str(folder / "soundscape-nano"),
        seconds=0.5,
        steps=1,
        tagger_steps=30,
        hour_seeds=3,
        loop_seeds=2,
    )


@pytest.fixture(scope="module")
def waves(settings):
    read = [read_waves(settings.clips, settings.day, rate=16_000, test=t) for t in (False, True)]
    return read[0], read[1]


@pytest.fixture(scope="module")
def cases(settings, waves, folder):
    pipeline = SoundscapePipeline.from_pretrained(folder / "soundscape-nano")
    return SoundscapeCases(pipeline, pipeline.encoder(), *waves, settings)


@pytest.fixture(scope="module")
def day(waves):
    return [wave for side in waves for wave in side if wave.clip.hour is not None]


@pytest.fixture(scope="module")
def found(cases, day):
    return measure(cases, day)


def test_every_set_has_a_sound_for_each_held_out_recording(cases, found):
    assert len(cases.held) == 4 + 4 + 2
    assert set(found.sounds) == {
        "real", "vocoded", "learnt", "noise", *MADE, *(f"{made}_copy" for made in MADE)
    }  # fmt: skip
    for name, sounds in found.sounds.items():
        assert sounds.shape == (10, 8_000), name
        assert sounds.dtype == np.float32
        assert abs(sounds).max() <= 1
        assert name == "real" or not np.allclose(sounds, found.sounds["real"])
    level = np.square(found.sounds["noise"]).mean(1) / np.square(found.sounds["real"]).mean(1)
    np.testing.assert_allclose(level, 1, rtol=0.2)


def test_captions_and_copies_keep_to_the_kind_and_the_learning_side(cases, found):
    from training.sound_pairs import SAID

    for said, wave in zip(cases.said, cases.held, strict=True):
        assert said in SAID[wave.clip.label]
    learnt = cases.cut(cases.learnt)
    for made in MADE:
        for sound in found.sounds[f"{made}_copy"]:
            assert (sound == learnt).all(1).any()
    assert np.array_equal(cases.learnt_labels[cases.matched()], cases.labels)
    assert len(set(cases.groups.tolist())) < len(cases.held)  # clips of one upload


def test_every_score_has_its_controls(found):
    metrics, controls = found.metrics.values, found.controls.values
    for made in MADE:
        for name in ("accuracy", "kind_recall_at_1"):
            assert 0 <= metrics[f"{made}/{name}"] <= 1
            assert {f"{made}/{name}_shuffled", f"{made}/{name}_copy"} <= set(controls)
            assert f"{made}/{name}" in found.metrics.intervals
        for space in ("tagger", "shared"):
            for score in ("kad", "fad", "kad_by_kind"):
                name = f"{score}_{space}"
                assert math.isfinite(metrics[f"{made}/{name}"])
                beside = {f"{name}_{s}" for s in ("vocoded", "learnt", "noise")}
                assert beside | {f"{made}/{name}_copy"} <= set(controls)
            assert f"{made}/kad_{space}" in found.metrics.intervals
        for space in ("embedding", "spectrogram"):
            assert f"{made}/nearest_ratio_{space}" in metrics
            assert controls[f"nearest_ratio_{space}_real"] == 1
    assert controls["accuracy_chance"] == pytest.approx(1 / 3)
    assert "from_caption/caption_recall_at_10_percent" in metrics
    assert "from_recording/recording_recall_at_10_percent" in metrics
    assert json.dumps([metrics, controls, found.tables], allow_nan=False)


def test_the_tagger_hears_real_kinds_and_an_untrained_model_makes_none(found):
    assert found.controls.values["accuracy_real"] > 0.9
    assert found.metrics.values["from_caption/accuracy"] < 0.7
    shuffled = found.controls.values["from_caption/accuracy_shuffled"]
    assert shuffled == pytest.approx(1 / 3, abs=0.1)


def test_what_is_nearer_than_held_out_recordings_is_counted(found):
    for space in ("embedding", "spectrogram"):
        far = found.tables[f"nearest_{space}"]
        assert set(far) == {*MADE, "real", "vocoded", "copied"}
        assert list(far["real"].values()) == sorted(far["real"].values())
        for made in MADE:
            share = found.metrics.values[f"{made}/nearer_share_{space}"]
            assert share <= 0.75 or far[made]["0.75"] < far["real"]["0.01"]
        assert found.controls.values[f"nearer_share_{space}_real"] == pytest.approx(0.1)


def test_dawn_is_told_from_night_in_recordings_but_not_by_an_untrained_model(found):
    real = found.controls.intervals["dawn_less_night/centroid_hz_real"]
    assert real[0] > 500
    assert found.tables["hours"]["real"]["dawn"]["centroid_hz"] > 1000
    for made in MADE:
        assert f"{made}/dawn_less_night/centroid_hz_hours_dealt" in found.controls.values
    assert answers(found)["dawn differs from night as in the recordings"]


def test_the_end_of_a_loop_is_compared_with_its_own_steps(found):
    for name in WITHIN.values():
        assert 0 <= found.metrics.values[f"from_caption/{name}"] <= 1
        assert f"from_caption/{name}" in found.metrics.intervals
        assert {f"{name}_unlooped", f"{name}_real"} <= set(found.controls.values)
    (question,) = (each for each in answers(found) if "loop" in each)
    assert set(answers(found)[question]) == {f"from_caption/{name}" for name in WITHIN.values()}


def test_a_seam_that_is_heard_lies_above_all_other_steps():
    time = np.arange(48_000) / 16_000
    rng = np.random.default_rng(0)
    whole = np.sin(2 * np.pi * 440 * time) + 0.01 * rng.normal(size=48_000)
    climbing = np.sin(2 * np.pi * (300 + 300 * time) * time) * np.linspace(0.05, 1, 48_000)
    sounds = np.stack([whole, climbing]).astype(np.float32) / 2
    for shares in seam_shares(sounds, Mel()).values():
        assert shares[0] < OWN
        assert shares[1] > OWN


def test_grounds_are_guessed_from_what_is_said_of_the_others():
    said = np.array([0, 0, 0, 1, 1, 1, 2, 3, 3])
    ground = np.array([0, 0, 1, 1, 1, 0, 2, 2, 2])
    assert ground_told(said, ground).tolist() == [
        False,  # of the others one of each
        False,
        False,
        False,
        False,
        False,
        False,  # nobody else is told the same
        True,
        True,
    ]
    assert ground_told(np.array([4, 4, 4, 7, 7]), np.array([0, 0, 0, 1, 1])).all()


def test_places_that_look_different_are_compared_by_their_sounds(cases, tmp_path):
    rows, classes, images = [], [], []
    for number in range(60):
        ocean, wood, lit = number % 3 == 0, number % 3 == 1, float(number % 3 == 2)
        figures = dict.fromkeys(FIELDS, 0.0) | {"lit_frac": lit}
        rows.append([8, 256 * (4 * number + 3), 256 * (80 + number % 40), *figures.values()])
        kind = "ocean" if ocean else "forest" if wood else "crop"
        classes.append(np.full((256, 256), LAYERS.index(kind), np.uint8))
        images.append(np.full((256, 256, 3), 40 * (number % 3), np.uint8))
    for name, table in (("rows", rows), ("classes", classes), ("images", images)):
        np.save(tmp_path / f"{name}.npy", np.array(table))
    tagger = train_tagger(
        [wave.samples for wave in cases.learnt], cases.learnt_labels, cases.count, steps=5
    )
    found = Findings()
    heard = measure_places(cases, tagger, tmp_path, found)
    told = found.tables["places"]
    assert list(told) == list(GROUNDS)
    assert sum(each["tiles"] for each in told.values()) == len(heard.places)
    for each in told.values():
        assert sum(each["tagger"].values()) == pytest.approx(1)
        assert sum(each["captions"].values()) == each["tiles"]
    assert "from_place/ground_told_shuffled" in found.controls.values
    save_places(cases, heard, tmp_path / "places.png")
    with Image.open(tmp_path / "places.png") as picture:
        assert picture.size[0] > 600
    np.save(tmp_path / "classes.npy", np.zeros_like(np.array(classes)))
    with pytest.raises(ConfigError, match="0 held-out tiles show a forest"):
        measure_places(cases, tagger, tmp_path, found)


def test_hours_go_around_midnight():
    assert near(23.5, 0.0)
    assert near(0.75, 0.0)
    assert not near(22.75, 0.0)
    assert near(4.0, 5.0)


def test_hours_dealt_anew_leave_no_difference():
    values = np.concatenate([np.full(64, 3.0), np.zeros(64)])
    mean, low, high = dealt_hours(values, 0)
    assert low < 0 < high
    assert abs(mean) < 0.3


def test_each_mistake_is_told(settings, cases, day, waves, tmp_path):
    for given, told in (
        ({"limit": 3}, "limit=3 is too few"),
        ({"steps": 0}, "steps=0"),
        ({"seconds": 0.1}, "seconds=0.1"),
        ({"tiles": tmp_path}, "belong together"),
    ):
        with pytest.raises(ConfigError, match=told):
            replace(settings, **given)
    with pytest.raises(ConfigError, match="within 1 h of 5:00"):
        HourTest(cases, [wave for wave in day if not near(wave.clip.hour, 5.0)])
    one = [[w for w in side if w.clip.label == "Rooster"] for side in waves]
    with pytest.raises(ConfigError, match="recordings of 1 kinds"):
        SoundscapeCases(cases.pipeline, cases.encoder, *one, settings)
    with pytest.raises(ConfigError, match="no mean of images"):
        measure_tiles(cases, tmp_path, tmp_path, Findings())


def test_a_tagger_that_hears_nothing_is_no_evidence():
    found = Findings()
    found.metrics.add("from_caption/accuracy_over_real", 1.0)
    found.controls.add("accuracy_chance", 0.2)

    def told():
        return next(iter(answers(found).values()))["from_caption/accuracy_over_real"]

    found.controls.add("accuracy_real", 0.2, 0.1, 0.3)
    assert told() == "no evidence"
    found.controls.add("accuracy_real", 0.8, 0.7, 0.9)
    assert told() == "yes"
    found.metrics.add("from_caption/accuracy_over_real", 0.5)
    assert told() == "no"


def test_a_side_of_zero_is_certain_or_none():
    assert [side(ends) for ends in ((0.1, 2.0), (-2.0, -0.1), (-1.0, 1.0), None)] == [1, -1, 0, 0]


def test_the_command_writes_the_same_scores_and_a_sheet(settings, found, tmp_path, capsys):
    out, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    words = ["soundscape", "--clips", settings.clips, "--day", settings.day, "--model"]
    words += [settings.model, "--seconds", "0.5", "--steps", "1", "--tagger-steps", "30"]
    words += ["--hour-seeds", "3", "--loop-seeds", "2", "--limit", "4"]
    words += ["--sheet", str(sheet), "--out", str(out)]
    assert evaluate.main(words) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(out)]
    assert "accuracy: from recording" in told.err
    report = json.loads(out.read_text())
    assert report["task"] == "soundscape"
    assert report["metrics"] == found.metrics.values
    assert report["controls"] == found.controls.values
    assert report["command"].startswith("terrascape evaluate soundscape --clips DIR/esc.parquet")
    assert "--limit 4" in report["command"]
    assert report["data"]["held_out"] == 10
    assert len(report["model"]) == 64
    assert lines(report)
    picture = np.asarray(Image.open(sheet))
    assert picture.std() > 20
    assert evaluate.main(words) == 2
    assert "is not overwritten" in capsys.readouterr().err


def test_a_model_of_another_kind_is_refused(settings, tmp_path, capsys):
    words = ["soundscape", "--clips", settings.clips, "--day", settings.day]
    words += ["--model", "satellite-nano", "--out", str(tmp_path / "report.json")]
    assert evaluate.main(words) == 2
    assert "makes no sounds" in capsys.readouterr().err
