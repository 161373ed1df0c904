import json

import pytest

from generation.errors import InvalidSpecError, LayoutError, MissingFileError
from generation.geo.location import Location, great_circle_km
from generation.geo.route import MAX_STOPS, read_route, stops_along


def line(*points, kind="LineString"):
    return {"type": kind, "coordinates": [list(point) for point in points]}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_line_is_read_longitude_first_and_repeated_points_are_one(tmp_path):
    shape = line((7.6, 46.0, 400), (7.6, 46.0, 400), (7.7, 46.1, 900))
    feature = {"type": "Feature", "properties": {}, "geometry": shape}
    for content in (shape, feature, {"type": "FeatureCollection", "features": [feature]}):
        route = read_route(write(tmp_path / "a.geojson", content))
        assert route == (Location(46.0, 7.6), Location(46.1, 7.7))


def test_stops_are_evenly_spaced_and_look_the_way_of_travel():
    route = (Location(0.0, 0.0), Location(0.0, 1.0), Location(1.0, 1.0))
    stops = stops_along(route, 5)
    assert [(s.place.lat, s.place.lon) for s in stops] == [
        (0.0, 0.0), (0.0, 0.5), (0.0, 1.0), (0.5, 1.0), (1.0, 1.0)
    ]  # fmt: skip
    assert [s.heading_deg for s in stops] == [90.0, 90.0, 0.0, 0.0, 0.0]


def test_the_way_between_two_points_is_a_great_circle_over_the_antimeridian():
    route = (Location(60.0, 170.0), Location(60.0, -170.0))
    first, middle, last = stops_along(route, 3)
    assert middle.place.lat > 60.0, "shorter than the parallel"
    assert abs(middle.place.lon) == 180.0
    assert middle.heading_deg == pytest.approx(90.0, abs=0.01)
    halves = [great_circle_km(a, middle.place) for a in (first.place, last.place)]
    assert halves[0] == pytest.approx(halves[1], abs=1e-3)


def test_one_frame_stands_at_the_start():
    (stop,) = stops_along((Location(0.0, 0.0), Location(-1.0, 0.0)), 1)
    assert (stop.place, stop.heading_deg) == (Location(0.0, 0.0), 180.0)


@pytest.mark.parametrize("count", [0, -1, MAX_STOPS + 1])
def test_a_number_of_frames_that_cannot_be_is_refused(count):
    with pytest.raises(InvalidSpecError, match=f"frames={count} .*1 to {MAX_STOPS}"):
        stops_along((Location(0.0, 0.0), Location(0.0, 1.0)), count)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not readable as JSON"),
        ('{"type": "LineString", "coordinates": [[NaN, 1], [2, 3]]}', "NaN is no number"),
        ({"type": "FeatureCollection", "features": []}, "without features"),
        (line((0, 0), (1, 1)) | {"type": "MultiPoint"}, "MultiPoint.*one LineString"),
        ({"type": "GeometryCollection", "geometries": [line((0, 0), (1, 1))] * 2}, "one LineStr"),
        (line((1, 1), (1, 1)), "without length"),
        (line((46.0, 97.6), (46.1, 97.7)), "swapped"),
        ({"type": "LineString", "coordinates": []}, "one LineString"),
        ({"type": "LineString", "coordinates": "abc"}, "no readable geometry"),
    ],
)
def test_what_is_no_path_is_refused_in_one_sentence(content, said, tmp_path):
    with pytest.raises(LayoutError, match=said) as caught:
        read_route(write(tmp_path / "a.geojson", content))
    assert "\n" not in str(caught.value)
    assert "a.geojson" in str(caught.value)


def test_collections_without_end_are_refused(tmp_path):
    deep = '{"type": "GeometryCollection", "geometries": [' * 400 + "]}" * 400
    with pytest.raises(LayoutError):
        read_route(write(tmp_path / "a.geojson", deep))


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"b\.geojson.*one LineString"):
        read_route(tmp_path / "b.geojson")
