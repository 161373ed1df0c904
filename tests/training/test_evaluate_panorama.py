import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_panorama import HEIGHT, WIDTH, make_panorama_pipeline, write_panorama

from generation.errors import ConfigError
from generation.geo.location import Location, Region
from generation.geo.mercator import to_px
from generation.geo.sphere import Band
from training import evaluate, panorama_report, panorama_sets
from training.evaluate_panorama import PanoramaTest, heading_error
from training.panorama_baselines import (
    blend_views,
    copy_nearest,
    through_codec,
    with_satellite,
    with_strange_views,
)
from training.panorama_cases import BINS_KM, Ask, Case, asks, bin_name, choose_cases
from training.panorama_data import PanoramaDataset, SeenFrom, ViewSet, read_sets
from training.panorama_metrics import METRICS
from training.panorama_report import Digest, better, lines, summary, verdicts
from training.panorama_sheet import compose_sheet
from training.tables import panorama as panorama_table
from training.terrain import LABEL, Elevation, Mosaic

BOX = Region(19.0, 29.0, 31.0, 41.0)
ZOOM = 8


@pytest.fixture(scope="session")
def panorama_file(tmp_path_factory):
    """Two sets of a made-up country, rendered as all sets are."""
    rng = np.random.default_rng(0)
    heights = rng.uniform(0, 1500, (24, 24)).repeat(20, 0).repeat(20, 1)
    left, top = (int(v) for v in to_px(Location(BOX.north, BOX.west), ZOOM))
    right, bottom = (int(v) for v in to_px(Location(BOX.south, BOX.east), ZOOM))
    shape = (bottom - top) // 256 + 2, (right - left) // 256 + 2
    rgb = rng.integers(20, 230, (16 * shape[0], 16 * shape[1], 3), np.uint8)
    mosaic = Mosaic(rgb.repeat(16, 0).repeat(16, 1), np.ones(shape, bool), ZOOM, left, top)
    world = panorama_sets.World(Elevation.of(heights, BOX), mosaic, Band(HEIGHT, WIDTH))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panorama_sets, "SETS_A_SHARD", 2)
        return panorama_sets.write_shard(world, "test", tmp_path_factory.mktemp("sets"), 0)


@pytest.fixture(scope="session")
def sets(panorama_file):
    return read_sets([panorama_file])


@pytest.fixture(scope="session")
def panorama_pipeline():
    return make_panorama_pipeline()


@pytest.fixture(scope="session")
def measurement(panorama_pipeline, sets):
    return PanoramaTest(panorama_pipeline, sets, steps=1)


@pytest.fixture(scope="session")
def found(measurement):
    return measurement.measure()


@pytest.fixture
def _two_sets_suffice(monkeypatch):
    monkeypatch.setattr(panorama_report, "LEAST_SETS", 2)


def sample_of(sets, others=(1, 2, 3)):
    return PanoramaDataset(sets).sample(0, 0, others)


def test_a_copy_is_the_nearest_whatever_slot_it_lies_in(sets):
    sample = sample_of(sets)
    apart = sample["offset_m"].norm(dim=1)
    nearest = sample["panoramas"][int(apart.argmin())].numpy()
    np.testing.assert_array_equal(copy_nearest(sample), nearest)
    order = torch.tensor([2, 0, 1])
    turned = {**sample, **{k: sample[k][order] for k in ("panoramas", "offset_m", "valid")}}
    np.testing.assert_array_equal(copy_nearest(turned), nearest)
    np.testing.assert_array_equal(blend_views(turned), blend_views(sample))


def test_a_blend_weighs_by_the_inverse_distance():
    grey = torch.tensor([100, 200, 0], dtype=torch.uint8)
    sample = {
        "panoramas": grey[:, None, None, None].expand(3, 4, 8, 3),
        "valid": torch.tensor([True, True, False]),
        "offset_m": torch.tensor([[1000.0, 0.0], [0.0, 3000.0], [1.0, 0.0]]),
    }
    assert (blend_views(sample) == 125).all()
    alone = {**sample, "valid": torch.tensor([False, True, False])}
    np.testing.assert_array_equal(blend_views(alone), copy_nearest(alone))
    with pytest.raises(ConfigError, match="no panorama is given"):
        copy_nearest({**sample, "valid": torch.zeros(3, dtype=torch.bool)})


def test_wrong_inputs_change_that_input_and_nothing_else(sets):
    dataset, sample = PanoramaDataset(sets), sample_of(sets, (1, 2))
    other = dataset.sample(1, 0, ())
    wrong = with_satellite(sample, "another", other)
    assert torch.equal(wrong["satellite"], other["satellite"])
    assert not torch.equal(wrong["satellite"], sample["satellite"])
    assert all(torch.equal(wrong[k], sample[k]) for k in sample if k != "satellite")
    assert not with_satellite(sample, "none", other)["has_satellite"]
    assert with_satellite(sample, "own", other) is sample
    strange = with_strange_views(sample, dataset, 1)
    assert torch.equal(strange["panoramas"][1], dataset.sample(1, 1, ())["image"])
    assert torch.equal(strange["panoramas"][2], sample["panoramas"][2])  # an empty slot
    assert all(torch.equal(strange[k], sample[k]) for k in sample if k != "panoramas")


def test_the_codec_alone_loses_something(panorama_pipeline, sets):
    real = sample_of(sets)["image"].numpy()[None]
    again = through_codec(panorama_pipeline, real)
    assert again.shape == real.shape
    assert 0 < np.abs(again.astype(int) - real).mean() < 40


def line_of_sets(count=4, views=6, step_km=5.0):
    """Sets far from each other, whose panoramas stand in a row to the east."""
    degrees = step_km / 111.19
    places = [
        [Location(0.0, 10.0 * number + i * degrees) for i in range(views)]
        for number in range(count)
    ]
    return [
        ViewSet(f"set-{n}", b"", row[0], tuple(SeenFrom(b"", None, place) for place in row))
        for n, row in enumerate(places)
    ]


def test_cases_are_a_fixed_rule_with_the_nearest_first():
    cases = [case for case in choose_cases(line_of_sets(), 4, 1) if case.full]
    assert [(case.number, case.target) for case in cases] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert cases[0].order == (1, 2, 3, 4, 5)
    assert {case.drawn() for case in cases} > {cases[0].drawn()}
    assert sorted(cases[0].drawn()) == [1, 2, 3, 4, 5]
    assert cases[0].km == pytest.approx((5, 10, 15, 20, 25), rel=1e-3)
    assert all(case.partner != case.number for case in cases)
    assert len({case.partner for case in cases}) == 4
    assert choose_cases(line_of_sets(), 4, 1) == choose_cases(line_of_sets(), 4, 1)
    assert sum(case.full for case in choose_cases(line_of_sets(), 2, 99)) == 12


def test_a_bin_is_measured_where_three_panoramas_lie_so_far_away():
    cases = choose_cases(line_of_sets(step_km=4.0), 4, 1)
    for number in range(4):
        of_set = [case for case in cases if case.number == number]
        bins = [edges for case in of_set for edges in case.bins]
        assert len(bins) == len(set(bins))
        assert (1, 3) not in bins  # none stands so near
        for case in of_set:
            for low, high in case.bins:
                views, nearest = case.within(low, high)
                kms = [case.km[case.order.index(view)] for view in views]
                assert low <= nearest == min(kms) < high
    with_three = {edges for case in cases for edges in case.bins if len(case.within(*edges)[0]) > 2}
    assert {(3, 6), (6, 12)} <= with_three


def test_requests_name_what_there_is_and_no_more():
    case = Case(0, 0, 1, (4, 2), (2.0, 13.0), bins=BINS_KM)
    wanted = asks(case)
    assert wanted["views_2"] == Ask((4, 2))
    assert not {"views_3", "any_3"} & set(wanted)
    assert set(wanted["any_2"].others) == {4, 2}
    assert wanted["any_0"] == wanted["views_0"]
    assert wanted["wrong_satellite"] == Ask((4, 2), "another")
    assert wanted["nothing"] == Ask((), "none")
    assert wanted["one_view/1-3"] == Ask((4,)) == wanted["views_1"]  # drawn once
    assert wanted["one_view/12-20"] == Ask((2,))
    assert not [name for name in wanted if name.startswith(("three_views", "one_view/3"))]
    only_bins = asks(replace(case, full=False))
    assert set(only_bins) == {"one_view/1-3", "one_view/12-20"}


def test_sets_without_a_second_panorama_are_left_out():
    alone = [replace(group, views=group.views[:1]) for group in line_of_sets(3)]
    with pytest.raises(ConfigError, match="1 of 4 sets hold two"):
        choose_cases([*alone, line_of_sets(4)[3]], 4, 1)


def test_every_control_differs_from_the_model(found):
    model = found.tables["views_3"]
    full = [i for i, case in enumerate(found.cases) if case.full]
    assert np.isfinite(model[full][:, : METRICS.index("psnr_db_ground")]).all()
    others = set(found.tables) - {"views_3", "any_3"}  # of four there are but three to choose
    assert {"copy", "blend", "codec", "real", "draft", "wrong_satellite", "nothing"} <= others
    for name in others - {n for n in others if "/" in n}:
        assert np.abs(found.tables[name][full] - model[full]).max() > 1e-6, name


def test_only_asked_cases_are_scored(found):
    for name, table in found.tables.items():
        asked = [i for i, case in enumerate(found.cases) if name in asks(case)]
        if name in ("real", "codec", "draft") or name.startswith(("copy", "blend")):
            continue
        assert np.flatnonzero(np.isfinite(table[:, 0])).tolist() == asked, name


def test_real_panoramas_are_perfect_and_a_codec_bounds_what_can_be_had(found):
    psnr = METRICS.index("psnr_db")
    full = [i for i, case in enumerate(found.cases) if case.full]
    assert (found.tables["real"][full, psnr] == 60).all()
    for name in ("views_0", "views_3", "nothing"):
        assert (found.tables[name][full, psnr] < found.tables["codec"][full, psnr]).all()


def test_scores_do_not_depend_on_the_batch(measurement, panorama_pipeline, sets, found):
    small = PanoramaTest(panorama_pipeline, sets, steps=1, limit=2, batch=3).measure()
    for name, table in found.tables.items():
        np.testing.assert_allclose(small.tables[name], table, rtol=0.02, atol=0.02)


def test_depths_are_never_told(measurement):
    assert not measurement.some_surroundings().has_depth.any()


def test_ground_is_told_by_depth_or_by_the_horizon(measurement):
    sample = measurement.sample(measurement.cases[0], Ask())
    by_depth = measurement.ground(sample)
    np.testing.assert_array_equal(by_depth, sample["depth"].numpy() > 0)
    assert 0.2 < by_depth.mean() < 0.8
    without = measurement.ground({**sample, "has_depth": torch.tensor(False)})
    assert not without[: HEIGHT // 2].any()
    assert without[HEIGHT // 2 :].all()


def test_panoramas_of_another_size_are_refused(panorama_pipeline, sets, monkeypatch):
    monkeypatch.setattr(panorama_pipeline.views, "band", Band(64, 256))
    with pytest.raises(ConfigError, match="32x128 px and the model draws 64x256"):
        PanoramaTest(panorama_pipeline, sets)


def test_a_turned_heading_turns_latents(panorama_pipeline, measurement):
    told = heading_error(panorama_pipeline, measurement.some_surroundings(), (45.0, 270.0))
    assert told["max_abs_velocity"] < 1e-5
    assert told["max_abs_latents"] < 1e-6 * max(told["largest_latent"], 10)
    with pytest.raises(ConfigError, match=r"22\.5.*multiples of 45"):
        heading_error(panorama_pipeline, measurement.some_surroundings(), (22.5,))


def test_a_denoiser_that_knows_its_columns_does_not_turn(measurement):
    pipeline = make_panorama_pipeline()

    def spoil(_module, _inputs, velocity):
        return velocity + 0.01 * torch.arange(velocity.shape[-1])

    pipeline.denoiser.register_forward_hook(spoil)
    told = heading_error(pipeline, measurement.some_surroundings(), (90.0,), steps=2)
    assert told["max_abs_velocity"] > 0.01


def test_intervals_are_over_sets_and_not_over_panoramas():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 10)
    table = np.repeat(rng.normal(size=(8, 1)), 10, 0).repeat(len(METRICS), 1)
    wide, narrow = (summary(table, g)["psnr_db"] for g in (groups, np.arange(80)))
    assert wide["mean"] == pytest.approx(narrow["mean"])
    assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])
    table[:30] = np.nan
    assert summary(table, groups)["psnr_db"]["panoramas"] == 50
    assert summary(np.full_like(table, np.nan), groups)["ssim"]["mean"] is None


@pytest.mark.parametrize(
    ("metric", "low", "high", "answer"),
    [
        ("psnr_db", 0.1, 0.4, "yes"),
        ("psnr_db", -0.1, 0.4, "no evidence"),
        ("psnr_db", -0.4, -0.1, "no"),
        ("lite0_distance_ground", -0.4, -0.1, "yes"),
        ("lite0_distance", 0.1, 0.4, "no"),
        ("ssim", None, None, "no evidence"),
    ],
)
def test_a_difference_counts_when_its_interval_leaves_zero(metric, low, high, answer):
    assert better(metric, {"mean": 0.0, "low": low, "high": high}) == answer


def test_few_sets_give_a_mean_and_no_interval():
    table, groups = np.ones((6, len(METRICS))), np.array([0, 0, 0, 1, 2, 3])
    told = summary(table, groups)["psnr_db"]
    assert (told["mean"], told["low"], told["panoramas"]) == (1, None, 6)
    assert better("psnr_db", told) == "no evidence"
    assert summary(table, np.arange(6))["psnr_db"]["low"] == 1


def fake_report(found, better_by):
    """The report of a model whose panoramas are better than all else by so many decibels."""
    tables = {name: table.copy() for name, table in found.tables.items()}
    for number in range(4):
        tables[f"views_{number}"] = found.tables["copy"] + (1 + number) * better_by
        tables[f"any_{number}"] = found.tables["copy"] + (1 + number % 3) * better_by
    for name in tables:
        kind, _, edges = name.partition("/")
        if kind in ("one_view", "three_views"):
            base = found.tables[f"copy/{edges}"]
            tables[name] = np.fmax(base, found.tables.get(f"blend/{edges}", base)) + better_by
    digest = Digest(replace(found, tables=tables))
    return {
        "metrics": digest.metrics().values,
        "controls": digest.controls().values,
        "differences": digest.differences(),
        "heading_equivariance": {
            "max_abs_velocity": 1e-6,
            "max_abs_latents": 2e-5,
            "largest_latent": 9.0,
        },
    }


@pytest.mark.usefixtures("_two_sets_suffice")
def test_verdicts_follow_the_differences(found):
    for sign, answer in ((1, "yes"), (-1, "no")):
        report = fake_report(found, 5.0 * sign)
        told = verdicts(report)
        question = "better with each further panorama, 0 to 3, the nearest first"
        assert told[question]["psnr_db"] == answer
        by_chance = told[question.replace("the nearest first", "in an order of chance")]
        assert by_chance["psnr_db"] == "no"  # the third is a step back from the second
        assert told[question]["lite0_distance"] == ("no" if answer == "yes" else "yes")
        steps = report["differences"]["2_minus_1_views"]["psnr_db"]
        assert steps["mean"] == pytest.approx(5.0 * sign)
        assert told["turns with its heading to 1e-05"] == {
            "max_abs_velocity": "yes",
            "max_abs_latents": "no",
        }
        said = "\n".join(lines({**report, "verdicts": told}))
        assert f"{question}? " in said
        assert "another heading changes velocities by at most 1.0e-06" in said


@pytest.mark.usefixtures("_two_sets_suffice")
def test_a_bin_without_panoramas_is_no_evidence(found):
    report = fake_report(found, 5.0)
    name = bin_name(*BINS_KM[-1])
    for pair in ("one_view_minus_copy", "three_views_minus_blend"):
        report["differences"][pair][name]["psnr_db"] = {"mean": None, "low": None, "high": None}
    told = verdicts(report)
    blend = "three given: better than their blend in every bin beyond 3 km"
    assert told[blend]["psnr_db"] == "no evidence"


def test_the_sheet_has_a_row_for_each_set_and_a_column_for_each_kind(found):
    sheet = compose_sheet(found)
    assert sheet.shape == (18 + 2 * (HEIGHT + 4) - 4, 5 * (WIDTH + 4) - 4, 3)
    first = found.on_sheet[0]
    np.testing.assert_array_equal(sheet[18 : 18 + HEIGHT, :WIDTH], found.shown["copy"][first])
    np.testing.assert_array_equal(sheet[18 : 18 + HEIGHT, -WIDTH:], found.shown["real"][first])


@pytest.mark.usefixtures("_two_sets_suffice")
def test_the_command_writes_a_report_and_a_sheet(panorama_file, tmp_path, capsys):
    make_panorama_pipeline().save_pretrained(tmp_path / "weights")
    out, sheet = tmp_path / "report.json", tmp_path / "sheet.png"
    words = ["panorama", "--data", str(panorama_file), "--weights", str(tmp_path / "weights")]
    words += ["--steps", "1", "--limit", "2", "--out", str(out), "--sheet", str(sheet)]
    assert evaluate.main(words) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(out)]
    assert "better than its copy in every bin beyond 3 km? " in told.err
    report = json.loads(out.read_text())
    assert report["data"]["label"] == LABEL
    assert report["data"]["split"] == "test"
    assert report["data"]["sets"] == 2
    assert set(report["metrics"]) == set(METRICS)
    assert {"psnr_db_copy", "ssim_blend", "seam_ratio_real"} <= set(report["controls"])
    assert list(report["curves"]["views"]) == ["0", "1", "2", "3"]
    assert set(report["curves"]["distance"]) == {bin_name(*edges) for edges in BINS_KM}
    low, high = report["intervals"]["psnr_db"]
    assert low <= report["metrics"]["psnr_db"] <= high
    assert "--data test-00000.parquet" in report["command"] or "--data DIR/" in report["command"]
    assert str(tmp_path) not in out.read_text()
    assert sheet.is_file()
    table = panorama_table(report)
    assert "| model, 0 panoramas |" in table
    assert table.count("\n| ") > 15
    assert evaluate.main(words) == 2  # never over an old report
    assert "exists" in capsys.readouterr().err


def test_real_panoramas_of_a_table_are_measured_too(tmp_path, capsys):
    make_panorama_pipeline().save_pretrained(tmp_path / "weights")
    rows = ["file,lat,lon,heading_deg"]
    for number, (lat, lon) in enumerate([(45.0, 7.0), (45.04, 7.0), (47.0, 9.0), (47.0, 9.1)]):
        write_panorama(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,{lat},{lon},{90 * number}")
    (tmp_path / "real.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "report.json"
    words = ["panorama", "--data", str(tmp_path / "real.csv"), "--out", str(out), "--steps", "1"]
    assert evaluate.main([*words, "--weights", str(tmp_path / "weights")]) == 0
    report = json.loads(out.read_text())
    assert report["data"]["label"] == "panoramas of a table"
    assert report["data"]["sets"] == 2
    # One other panorama each and no satellite image: what cannot be asked is absent, not zero.
    assert report["curves"]["views"]["1"]["psnr_db"]["panoramas"] == 2
    assert report["curves"]["views"]["2"]["psnr_db"]["mean"] is None
    assert report["controls"]["psnr_db_wrong_satellite"] is None
    assert report["controls"]["psnr_db_copy"] > 0
    assert "no evidence" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--limit", "1"], "--limit 1"),
        (["--targets", "0"], "--targets 0"),
        (["--steps", "0"], "--steps 0"),
        (["--model", "satellite-nano"], "draws no panoramas"),
        (["--model", "no-such"], "no-such"),
        (["--weights", "nowhere"], "holds no panorama pipeline"),
        (["--sheet", "nowhere/sheet.png"], "there is no folder"),
    ],
)
def test_impossible_measurements_are_refused_in_one_sentence(words, hint, tmp_path, capsys):
    common = ["panorama", "--data", "x.parquet", "--out", str(tmp_path / "r.json")]
    assert evaluate.main([*common, *words]) == 2
    told = capsys.readouterr().err
    assert hint in told
    assert told.count("\n") == 1
    assert not (tmp_path / "r.json").exists()
