"""Names of regions by place."""

import geopandas
import pytest
import shapely

from generation.errors import ConfigError, MissingFileError
from generation.geo.location import Location
from training.place_names import PlaceNames


@pytest.fixture
def regions(tmp_path):
    return write(
        tmp_path / "regions.parquet",
        {
            "Name": ["ALPS", "Europe", None, "Fiji"],
            "geometry": [
                shapely.box(6, 45, 14, 48),
                shapely.box(-10, 36, 40, 70),
                shapely.box(6, 45, 14, 48),
                shapely.MultiPolygon(
                    [shapely.box(177, -19, 180, -16), shapely.box(-180, -19, -179, -16)]
                ),
            ],
        },
    )


def write(path, columns, crs="EPSG:4326"):
    geopandas.GeoDataFrame(columns, crs=crs).to_parquet(path)
    return path


def test_the_smallest_region_comes_first_and_capitals_are_spoken(regions):
    names = PlaceNames([regions])
    assert len(names) == 3
    assert names.at(Location(46.0, 7.6)) == ["Alps", "Europe"]
    assert names.at(Location(0.0, 0.0)) == []


def test_regions_on_both_sides_of_the_antimeridian_are_found(regions):
    names = PlaceNames([regions])
    assert names.at(Location(-17.0, 179.0)) == names.at(Location(-17.0, -179.5)) == ["Fiji"]


def test_several_files_are_one_set_and_a_name_is_told_once(regions):
    assert PlaceNames([regions, regions]).at(Location(46.0, 7.6)) == ["Alps", "Europe"]
    assert PlaceNames([]).at(Location(46.0, 7.6)) == []


def test_files_that_name_nothing_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match="no file of names"):
        PlaceNames([tmp_path / "none.parquet"])
    plain = write(tmp_path / "plain.parquet", {"kind": ["x"], "geometry": [shapely.Point(0, 0)]})
    with pytest.raises(ConfigError, match="a column 'name'"):
        PlaceNames([plain])
    metric = {"name": ["x"], "geometry": [shapely.Point(0, 0)]}
    with pytest.raises(ConfigError, match="coordinates in degrees"):
        PlaceNames([write(tmp_path / "metric.parquet", metric, "EPSG:3857")])
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ConfigError, match="is no GeoParquet"):
        PlaceNames([tmp_path / "text.parquet"])
