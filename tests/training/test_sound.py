"""From clips to pairs to a bound space to its report, at tiny sizes."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState, GradientState
from tiny import png

from generation.checkpoint import load_part
from generation.cli import main as terrascape
from generation.config import load_config
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_space import SoundSpace
from generation.errors import ConfigError, TerrascapeError
from generation.geo.layout import LAYERS
from training.data import FIELDS, list_files
from training.evaluate_sound import rule_embeddings
from training.ranks import ranks
from training.snapshot import newest
from training.sound_pairs import HEARD, INDOORS, SAID, Clip, Ground, place
from training.sound_pairs import main as build
from training.sound_rows import SoundRows
from training.sound_samples import SoundPairs
from training.train_binding import BindingConfig, SpaceConfig, new_space
from training.train_binding import main as train

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "space.dim=8",
    "space.width=8",
    "space.image_px=16",
    "space.tower_dim=8",
    "space.tower_depth=1",
    "space.tower_heads=2",
    "space.codes=8",
    "loop.steps=2",
    "loop.batch_size=4",
    "loop.warmup_steps=1",
    "loop.snapshot_every=1",
    "loop.log_every=1",
]


def ground(**layers):
    count = len(next(iter(layers.values())))
    rest = {name: np.zeros(count) for name in LAYERS}
    return Ground(
        layers={**rest, **{n: np.array(v) for n, v in layers.items()}},
        lit=np.array([0.0, 0.5] * count)[:count],
        rain_mm=np.full(count, 600.0),
        warm_c=np.full(count, 8.0),
    )


def sound(hz):
    out = io.BytesIO()
    turns = np.sin(2 * np.pi * hz * np.arange(8_000) / 8_000)
    soundfile.write(out, turns.astype(np.float32), 8_000, format="OGG", subtype="VORBIS")
    return {"bytes": out.getvalue(), "path": None}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Sixty tiles over the whole world: sea, wood, field and coast."""
    out = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    rows, classes = [], []
    grounds = ("ocean", "forest", "crop", "savanna")
    for index in range(60):
        figures = dict.fromkeys(FIELDS, 0.0) | {
            "p_year_mm": 900.0, "t_mean_c": 8.0, "lit_frac": 0.05 * (index % 2)
        }  # fmt: skip
        rows.append([8, 256 * (4 * index + 3), 256 * (80 + index % 40), *figures.values()])
        tile = np.full((256, 256), LAYERS.index(grounds[index % 4]), np.uint8)
        tile[:100] = LAYERS.index(grounds[(index + 1) % 4])
        classes.append(tile)
    np.save(out / "rows.npy", np.array(rows, np.float64))
    np.save(out / "classes.npy", np.stack(classes))
    np.save(out / "images.npy", rng.integers(0, 256, (60, 256, 256, 3), dtype=np.uint8))
    return out


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two clips a fold of two labels, and a day of four recordings."""
    out = tmp_path_factory.mktemp("clips")
    rows = [
        {
            "audio": sound(200 + 100 * fold + 50 * number),
            "label": label,
            "fold": fold,
            "title": f"{label} {fold}",
            "source_url": "https://example.org",
            "author": "someone",
            "license": "CC0",
        }
        for number, label in enumerate(("Sea waves", "Rooster"))
        for fold in (1, 4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), out / "esc.parquet")
    day = [{"audio": sound(900 + h), "date": "20190522", "hour": h, "minute": 30} for h in range(4)]
    pq.write_table(pa.Table.from_pylist(day), out / "day.parquet")
    return out


@pytest.fixture(scope="module")
def pairs(tiles, clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("pairs") / "pairs"
    esc, day = f"--clips={clips / 'esc.parquet'}", f"--day={clips / 'day.parquet'}"
    build([esc, day, f"--tiles={tiles}", f"--out={out}", "--places=2", "--test-places=2"])
    return out


def run(name, pairs, tiles, out, *overrides):
    words = [f"pairs={pairs}", f"tiles={tiles}", f"out={out}", *TINY]
    words += [*(["towers_from=null"] if name in ("psm", "sat2sound") else []), *overrides]
    try:
        train([str(ROOT / f"configs/{name}_nano.yaml"), *words])
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    return newest(out / "snapshots")


def test_every_sound_has_a_rule_and_words():
    assert HEARD.keys() == SAID.keys()
    everywhere = ground(ocean=[1.0, 0.0, 0.4], forest=[0.0, 1.0, 0.6])
    for rule in HEARD.values():
        weight = rule(everywhere)
        assert weight.shape == (3,)
        assert (weight >= 0).all()
    assert HEARD["Sea waves"](everywhere).argmax() == 2
    assert HEARD["Sea waves"](everywhere)[:2].tolist() == [0, 0]
    assert HEARD["Forest dawn to night"](everywhere).argmax() == 1
    assert not set(INDOORS) & set(HEARD)


def test_every_sound_gets_about_as_many_pairs():
    day = "Forest dawn to night"
    clips = [
        Clip(label, "", "", "", "", test=False, month=None, hour=None)
        for label in (day, day, day, "Sea waves")
    ]
    land = ground(ocean=[0.5] * 20, forest=[0.5] * 20)
    pairs = place(clips, land, np.zeros(20, bool), per_clip=(6, 6), seed=0)
    assert np.bincount(pairs[:, 0]).tolist() == [2, 2, 2, 6]


def test_a_clip_and_its_tiles_are_of_one_side():
    day = "Forest dawn to night"
    clip = Clip(day, "", "", "", "", test=False, month=None, hour=None)
    held = np.array([False, True] * 5)
    wood = ground(forest=[1.0] * 10)
    learnt = place([clip], wood, held, per_clip=(50, 5), seed=0)
    assert len(learnt) == 50  # of few places, some more than once
    assert set(learnt[:, 1].tolist()) == {0, 2, 4, 6, 8}
    tested = place([replace(clip, test=True)], wood, held, per_clip=(5, 5), seed=0)
    assert sorted(tested[:, 1].tolist()) == [1, 3, 5, 7, 9]
    with pytest.raises(ConfigError, match=f"'{day}' could be heard on 5 tiles only, 6 are asked"):
        place([replace(clip, test=True)], wood, held, per_clip=(5, 6), seed=0)
    with pytest.raises(ConfigError, match="could be heard on 0 tiles only, 5 are asked"):
        place([clip], ground(forest=[0.0] * 10), held, per_clip=(5, 5), seed=0)


def test_pairs_say_that_their_places_are_simulated(pairs):
    about = json.loads((pairs / "about.json").read_text())
    assert about["location_source"] == "simulated"
    told = json.loads((pairs / "clips.json").read_text())
    assert [clip["test"] for clip in told] == [False, True, False, True, False, False, False, True]
    assert told[-1]["hour"] == 3.5
    assert told[-1]["month"] == 5
    assert told[0]["hour"] is None
    assert told[0]["author"] == "someone"
    assert np.load(pairs / "plausible.npy").shape == (60, len(HEARD))
    assert np.load(pairs / "pairs.npy").shape == (13, 2)
    mels = np.load(pairs / "mels.npy")
    assert mels.shape == (8, 64, 512)
    assert np.isfinite(mels).all()


def test_no_clip_and_no_tile_is_on_both_sides(pairs, tiles):
    sides = [SoundPairs(pairs, tiles, 16, test=test) for test in (False, True)]
    for column in (0, 1):
        first, second = (set(side.pairs[:, column].tolist()) for side in sides)
        assert first
        assert second
        assert not first & second
    one, same, other = sides[0][0, 7], sides[0][0, 7], sides[0][0, 8]
    assert all(torch.equal(one[n], same[n]) for n in one if not one[n].isnan().any())
    assert not torch.equal(one["mel"], other["mel"])
    assert one["image"].shape == (3, 16, 16)
    assert torch.equal(sides[1][0, 0]["image"], sides[1][0, 5]["image"])


@pytest.mark.parametrize("name", ["geoclap", "psm", "sat2sound"])
def test_a_space_is_bound_and_measured(name, pairs, tiles, tmp_path, capsys):
    assert run(name, pairs, tiles, tmp_path / "run").step == 2
    weights = tmp_path / "run/weights"
    assert load_part(SoundSpace, weights).config["dim"] == 8
    words = ["evaluate", "sound", f"--data={pairs}", f"--tiles={tiles}", f"--model={weights}"]
    assert terrascape([*words, f"--out={tmp_path / 'report.json'}"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["data"]["location_source"] == "simulated"
    assert report["data"]["pairs"] == 6
    for way in ("image_to_audio", "audio_to_image", "text_to_audio", "audio_to_text"):
        assert 0 <= report["metrics"][f"{way}/recall_at_10_percent"] <= 1
        assert report["controls"][f"{way}/median_rank_chance"] == 3.5
        assert f"{way}/recall_at_1_shuffled" in report["controls"]
    assert 0 <= report["controls"]["image_to_audio/recall_at_10_percent_ceiling"] <= 1
    without = "image_to_audio/recall_at_1_without_metadata" in report["controls"]
    assert without == (name != "geoclap")
    assert terrascape([*words, f"--out={tmp_path / 'report.json'}"]) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_the_ceiling_is_what_the_rules_leave_to_chance():
    """Two sounds with a place each are found; two that share all places stand in the middle."""
    labels = np.arange(4).repeat(2)
    plausible = np.zeros((8, 4))
    plausible[:2, 0] = plausible[2:4, 1] = 1.0
    plausible[4:, 2:] = 0.5
    found = ranks(*rule_embeddings(plausible, labels))
    assert found.tolist() == [1.5] * 4 + [2.5] * 4


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(pairs, tiles, tmp_path):
    changes = ("loop.steps=3", "loop.keep_snapshots=3")
    whole = run("psm", pairs, tiles, tmp_path / "whole", *changes)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for step in (2, 3):
        shutil.rmtree(tmp_path / f"cut/snapshots/step-{step:08d}")
    resumed = run("psm", pairs, tiles, tmp_path / "cut", *changes, "--resume")
    assert all(torch.equal(whole.weights[key], resumed.weights[key]) for key in whole.weights)


@pytest.mark.parametrize("name", ["geoclap", "psm", "sat2sound"])
def test_pairs_of_one_kind_of_sound_may_be_left_out(pairs, tiles, tmp_path, name):
    with_all = run(name, pairs, tiles, tmp_path / "all", "same_sound=negative")
    without = run(name, pairs, tiles, tmp_path / "without", "same_sound=left out")
    assert any(not torch.equal(with_all.weights[k], without.weights[k]) for k in with_all.weights)


def test_a_space_begins_with_the_towers_of_another(pairs, tiles, tmp_path):
    run("geoclap", pairs, tiles, tmp_path / "first")
    first = tmp_path / "first/weights"
    theirs = load_part(SoundSpace, first).state_dict()
    run("psm", pairs, tiles, tmp_path / "run", f"towers_from={first}", "loop.lr=0")
    ours = load_part(SoundSpace, tmp_path / "run/weights").state_dict()
    taken = [name for name in theirs if name.split(".")[0] in ("image", "audio", "project")]
    assert len(taken) > 20
    assert all(torch.equal(theirs[name], ours[name]) for name in taken)
    with pytest.raises(SystemExit):
        run("psm", pairs, tiles, tmp_path / "other", f"towers_from={first}", "space.tower_dim=16")


def test_images_alone_learn_and_what_is_not_dated_is_heard_at_any_hour(pairs, tiles, tmp_path):
    given = [f"pairs={pairs}", f"tiles={tiles}", *TINY]
    first = [*given, f"out={tmp_path / 'first'}", "space.kind=codebook", "space.joined=early"]
    config = str(ROOT / "configs/geoclap_nano.yaml")
    assert not train([config, *first, "space.reads=[place, hour]"])
    before = tmp_path / "first/weights"
    again = [*given, f"start_from={before}", "learns=[image]", "undated=any hour", "loop.lr=0.1"]
    assert not train([config, *again, f"out={tmp_path / 'again'}"])
    old, new = (
        load_part(SoundSpace, folder).state_dict()
        for folder in (before, tmp_path / "again/weights")
    )
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert {name.split(".")[0] for name in moved} >= {"image", "join", "metadata_encoder"}
    assert not [name for name in moved if "audio" in name or "text" in name or "codes" in name]
    assert not any("circles.month" in name for name in new)

    hours = {}
    for undated in ("unknown", "any hour"):
        data = SoundPairs(pairs, tiles, 16, test=False, undated=undated)
        dated = np.array([data.clips[row]["hour"] is not None for row in data.pairs[:, 0]])
        drawn = [[data[n, d]["hour"].item() for d in (0, 1)] for n in range(len(data))]
        hours[undated] = np.array(drawn)
    assert np.isnan(hours["unknown"][~dated]).all()
    assert ((hours["any hour"] >= 0) & (hours["any hour"] < 24)).all()
    assert (hours["any hour"][~dated][:, 0] != hours["any hour"][~dated][:, 1]).all()
    np.testing.assert_array_equal(hours["any hour"][dated], hours["unknown"][dated])


def test_a_sound_is_bound_to_a_hub_that_does_not_move(pairs, tiles, tmp_path):
    """Bit for bit: of the hub, nothing but the tower of the new modality changes."""
    run("geobind", pairs, tiles, tmp_path / "hub", "hub=null", "bind=[image, text]")
    hub = load_part(SoundSpace, tmp_path / "hub/weights").state_dict()
    run("geobind", pairs, tiles, tmp_path / "run", f"hub={tmp_path / 'hub/weights'}")
    bound = load_part(SoundSpace, tmp_path / "run/weights").state_dict()
    moved = {name for name in hub if not torch.equal(hub[name], bound[name])}
    assert moved
    assert all(".audio." in f".{name}" for name in moved)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("bind=[audio]", "nothing to bind"),
        ("hub=nowhere", "not bound to a hub"),
        ("loop.accumulate=2", "to its own negatives"),
        ("part=-1", "part=-1 is no number of samples"),
        ("rows=nowhere", "needs kinds of sounds, which rows=nowhere has not"),
        (("rows=nowhere", "same_sound=negative"), "rows needs weights to go on from"),
        ("pairs=nowhere", "nowhere/pairs.npy is not there"),
        ("same_sound=perhaps", "same_sound"),
        ("loop.batch_size=1", "nothing to tell a pair from"),
        ("space.kind=best", "space.kind"),
    ],
)
def test_mistakes_are_one_message(pairs, tiles, tmp_path, capsys, override, told):
    overrides = (override,) if isinstance(override, str) else override
    with pytest.raises(SystemExit) as stopped:
        run("geoclap", pairs, tiles, tmp_path / "run", *overrides)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        *("geoclap_nano", "psm_nano", "sat2sound_nano", "geobind_nano_hub", "geobind_nano"),
        *("geoclap_full", "psm_full", "sat2sound_full", "geobind_full"),
        *("psm_nano_hours", "sat2sound_nano_hours"),
    ],
)
def test_every_configuration_is_valid(name):
    assert load_config(BindingConfig, ROOT / f"configs/{name}.yaml").loop.batch_size >= 2


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Six real pairs in two row groups, one of them without a date."""
    out = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    table = [
        {
            "image": {
                "bytes": png(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)),
                "path": None,
            },
            "audio": sound(200 + 90 * number),
            "caption": ("surf", "birds", "a dog")[number % 3],
            "lat": 40.0 + number,
            "lon": 170.0 + number,
            "gsd_m": 10.0,
            "date": None if number == 5 else "2024-05-31",
            "hour": 6.5,
        }
        for number in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(table), out / "train-0.parquet", row_group_size=4)
    return out / "train-*.parquet"


def test_a_run_goes_on_from_weights_on_pairs_of_ones_own(pairs, tiles, rows, tmp_path):
    run("psm", pairs, tiles, tmp_path / "first")
    before = load_part(SoundSpace, tmp_path / "first/weights").state_dict()
    changes = (f"rows={rows}", f"start_from={tmp_path / 'first/weights'}", "part=3")
    run("psm", pairs, tiles, tmp_path / "second", *changes)
    after = load_part(SoundSpace, tmp_path / "second/weights").state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert any(name.startswith("image.") for name in moved)
    assert any(name.startswith("audio.") for name in moved)


def test_real_pairs_are_read_as_the_towers_take_them(rows):
    torch.manual_seed(0)
    encoder = SoundEncoder(new_space(SpaceConfig(kind="gaussian", joined="late"), frames=48))
    data = SoundRows(list_files(str(rows)), encoder)
    assert len(data) == 6
    one, same, other = data[1, 3], data[1, 3], data[1, 4]
    assert one["image"].shape == (3, 64, 64)
    assert one["mel"].shape == (64, 48)
    assert one["latlon"].tolist() == [41, 171]
    assert one["month"] == 5
    assert one["hour"] == 6.5
    assert data[5, 0]["month"].isnan()
    assert torch.equal(one["image"], same["image"])
    assert not torch.equal(one["image"], other["image"])
    fixed = SoundRows(list_files(str(rows)), encoder, fixed=True)
    assert torch.equal(fixed[1, 3]["image"], fixed[1, 4]["image"])
    # 40 pixels of 10 m, the largest square, are spread over 64
    assert fixed[1, 0]["gsd_m"].item() == pytest.approx(10 * 40 / 64)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"caption": " "}, "row 0 has no caption"),
        ({"date": "2024-02-30"}, "2024-02-30"),
        ({"hour": 25.0}, "hour=25.0 is no hour"),
        ({"lat": 91.0}, "lat=91"),
        ({"image": b"no image"}, "row 0 is no readable image"),
        ({"audio": {"bytes": b"no sound", "path": None}}, "row 0 is no readable sound"),
    ],
)
def test_a_broken_row_is_named(change, told, tmp_path):
    row = {"image": png(np.zeros((8, 8, 3), np.uint8)), "audio": sound(300), "caption": "surf"}
    row |= {"lat": 1.0, "lon": 2.0, "gsd_m": 10.0, "date": "2024-05-31", "hour": 6.5} | change
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    encoder = SoundEncoder(new_space(SpaceConfig(), frames=48))
    data = SoundRows([tmp_path / "rows.parquet"], encoder)
    with pytest.raises(TerrascapeError, match=told):
        data[0, 0]


def test_files_without_a_column_are_refused(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"image": b"", "lat": 1.0}]), tmp_path / "rows.parquet")
    encoder = SoundEncoder(new_space(SpaceConfig(), frames=48))
    with pytest.raises(ConfigError, match="lacks the column audio, caption, lon, gsd_m"):
        SoundRows([tmp_path / "rows.parquet"], encoder)
