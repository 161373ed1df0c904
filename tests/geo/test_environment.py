"""Climate, height and land cover of places, by hand and as shipped."""

from dataclasses import replace

import numpy as np
import pytest

from generation.errors import InvalidSpecError, MissingFileError
from generation.geo.environment import (
    BIOCLIM,
    COVER,
    VARIABLES,
    Environment,
    embedded_environment,
    sampled,
)


def small(temperature, rain):
    shape = (1, 2)
    months = np.ones((12, *shape), np.float32)
    return Environment(
        temperature_c=months * np.array(temperature, np.float32)[:, None, None],
        rain_mm=months * np.array(rain, np.float32)[:, None, None],
        elevation_m=np.full(shape, 100.0, np.float32),
        cover=np.zeros((17, *shape), np.float32),
    )


def test_the_variables_by_hand():
    year = small([0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1], [10, 0, 0, 0, 0, 0, 60, 50, 40, 0, 0, 20])
    told = dict(zip(VARIABLES, year.variables()[:, 0, 0].tolist(), strict=True))
    assert told["elevation_m"] == 100
    assert told["bio1"] == pytest.approx(3)
    assert (told["bio5"], told["bio6"], told["bio7"]) == (6, 0, 6)
    assert told["bio4"] == pytest.approx(
        100 * np.std([0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1]), rel=1e-5
    )
    assert told["bio8"] == pytest.approx(5)  # July to September are the wettest
    assert told["bio10"] == pytest.approx(16 / 3)  # June to August
    assert told["bio11"] == pytest.approx(2 / 3)  # December to February
    assert (told["bio12"], told["bio13"], told["bio14"]) == (180, 60, 0)
    assert (told["bio16"], told["bio17"]) == (150, 0)
    assert told["bio18"] == pytest.approx(110)
    assert told["bio19"] == pytest.approx(30)  # the coldest quarter goes over the new year


def test_another_climate_changes_all_that_follows_from_it():
    year = small(np.arange(12), np.full(12, 50))
    warmer = year.changed(warmer_c=3.0, rain_share=-0.2)
    before, after = (
        dict(zip(VARIABLES, e.variables()[:, 0, 0], strict=True)) for e in (year, warmer)
    )
    assert after["bio1"] - before["bio1"] == pytest.approx(3)
    assert after["bio12"] / before["bio12"] == pytest.approx(0.8)
    assert after["bio7"] == pytest.approx(before["bio7"])
    for change in ({"warmer_c": 21.0}, {"rain_share": -1.5}, {"warmer_c": float("nan")}):
        with pytest.raises(InvalidSpecError, match="is not allowed"):
            year.changed(**change)


def test_fields_are_read_between_cells_around_the_date_line_and_at_the_poles():
    field = np.arange(8, dtype=np.float32).reshape(1, 2, 4)  # cells of 90 degrees
    places = np.array(
        [[45, -135], [45, -90], [45, 180], [45, -180], [90, -135], [0, -135]], np.float32
    )
    told = sampled(field, places)[:, 0]
    np.testing.assert_allclose(told, [0, 0.5, 1.5, 1.5, 0, 2], atol=1e-6)
    for wrong in ([[91.0, 0.0]], [[0.0, 181.0]], [[np.nan, 0.0]]):
        with pytest.raises(InvalidSpecError, match="latitudes of -90 to 90 first"):
            sampled(field, np.array(wrong, np.float32))


def test_what_ships_knows_paris_from_manaus_and_yakutsk():
    fields = embedded_environment().variables()
    assert fields.shape == (len(VARIABLES), 180, 360)
    assert len(BIOCLIM) == 18
    assert len(COVER) == 17
    assert np.isfinite(fields).all()
    np.testing.assert_allclose(fields[len(BIOCLIM) :].sum(0), 1, atol=0.05)
    places = np.array([[48.85, 2.35], [-3.1, -60.0], [62.0, 129.7]], np.float32)
    paris, manaus, yakutsk = (
        dict(zip(VARIABLES, row, strict=True)) for row in sampled(fields, places)
    )
    assert paris["bio1"] == pytest.approx(10.9, abs=0.5)
    assert manaus["bio12"] == pytest.approx(2370, rel=0.1)
    assert yakutsk["bio6"] < -35 < 15 < yakutsk["bio5"]
    assert manaus["igbp_2"] > 0.5


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="environment"):
        embedded_environment(tmp_path / "environment_1deg.npz")


@pytest.mark.parametrize("name", ["temperature_c", "rain_mm", "elevation_m", "cover"])
def test_fields_of_another_grid_are_refused(name):
    whole = embedded_environment()
    other = getattr(whole, name)[..., ::2, ::2]
    with pytest.raises(InvalidSpecError, match="one grid"):
        replace(whole, **{name: other})
