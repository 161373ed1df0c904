"""The panoramas that are dropped into the tab: their list, their map, and the spec with them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from panorama_fields import PLACE, form, row, write_ridge
from tiny_panorama import write_panorama

from generation.errors import InvalidSpecError, TerrascapeError
from generation.geo.location import Location
from generation.studio.panorama_views import (
    around_html,
    list_html,
    region_of,
    take_views,
    typed,
)
from generation.view_spec import MAX_VIEWS_GIVEN


@pytest.fixture
def placed(tmp_path):
    """A panorama whose file tells its place and heading."""
    return write_ridge(tmp_path / "ridge.jpg")


def test_a_file_fills_in_its_own_place_and_heading(placed, tmp_path):
    bare = write_panorama(tmp_path / "bare.png")
    views, refused = take_views([str(placed), str(bare)], [])
    assert refused == ""
    assert (views[0].lat, views[0].lon, views[0].heading) == ("46", "7.7", "120")
    assert views[0].notes == ()
    assert (views[1].lat, views[1].lon, views[1].heading) == ("", "", "0")
    assert any("north is assumed" in note for note in views[1].notes)
    shown = list_html(views)
    assert shown.count("data-row=") == 2
    assert shown.count('value="46"') == 1


def test_what_is_no_panorama_is_left_out_and_told(placed, tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    views, refused = take_views([str(empty), str(placed)], [])
    assert [view.name for view in views] == ["ridge.jpg"]
    assert "empty.jpg" in refused
    assert str(tmp_path) not in refused  # a person knows the name alone


def test_no_more_views_are_taken_than_may_be_named(placed):
    views, refused = take_views([str(placed)] * (MAX_VIEWS_GIVEN + 1), [])
    assert len(views) == MAX_VIEWS_GIVEN
    assert len({view.key for view in views}) == MAX_VIEWS_GIVEN
    assert f"{MAX_VIEWS_GIVEN} panoramas are allowed" in refused


def test_a_key_that_was_removed_is_not_given_to_two_views(placed):
    views, _ = take_views([str(placed)] * 3, [])
    views, _ = take_views([str(placed)] * 2, [views[0], views[2]])
    assert len({view.key for view in views}) == 4


def test_what_is_typed_replaces_what_the_file_told(placed, tmp_path):
    views, _ = take_views([str(placed)], [])
    rows = json.dumps([row(views[0], lat="46.01", heading="10.5"), {**row(views[0]), "key": "v9"}])
    spec = form(given=views, rows=rows).spec(tmp_path / "out")
    (view,) = spec.views
    assert (view.lat, view.lon, view.heading) == (46.01, 7.7, 10.5)
    assert Path(view.file).read_bytes() == placed.read_bytes()
    assert Path(view.file).is_relative_to(tmp_path / "out")
    assert Path(view.file).name == "ridge.jpg"
    assert view.sha256


@pytest.mark.parametrize("rows", ["[", "[1]", '{"key": 1}', '[{"key": "v1"}]', "[" * 5000])
def test_rows_that_the_page_does_not_send_are_refused(rows):
    with pytest.raises(InvalidSpecError, match="reload the page"):
        typed([], rows)


@pytest.mark.parametrize(("change", "message"), [
    ({"lat": None}, "lat=None"),
    ({"lat": 95}, "no such place"),
    ({"heading": 400}, "heading=400"),
    ({"heading": float("nan")}, "heading=nan"),
    ({"heading": None}, "heading=None"),
    ({"seed": "x"}, "seed='x'"),
    ({"steps": 2.5}, "steps=2.5"),
    ({"choice": "file"}, "no satellite image is chosen"),
    ({"choice": "file", "image": "gone.tif"}, "gone.tif"),
    ({"typed": {"lat": ""}}, "ridge.jpg: lat=''"),
    ({"typed": {"lat": "95"}}, "no such place"),
    ({"typed": {"heading": "400"}}, "heading=400"),
    ({"typed": {"heading": "nan"}}, "heading='nan'"),
    ({"typed": {"lat": "51"}}, "ridge.jpg' stands 558 km away"),
    ({"twice": True}, "views 1 and 2 are the same: 'ridge.jpg' and 'ridge.jpg'"),
])  # fmt: skip
def test_a_mistake_is_told_and_nothing_is_written(placed, change, message, tmp_path):
    out = tmp_path / "out"
    views, _ = take_views([str(placed)] * (2 if change.pop("twice", False) else 1), [])
    rows = json.dumps([row(views[0], **change.pop("typed", {}))])
    with pytest.raises(TerrascapeError, match=re.escape(message)) as caught:
        form(given=views, rows=rows, **change).spec(out)
    assert str(tmp_path) not in str(caught.value)
    assert not out.exists()


def test_a_far_view_is_taken_where_that_is_ticked(placed, tmp_path):
    views, _ = take_views([str(placed)], [])
    spec = form(given=views, rows=json.dumps([row(views[0], lat="51")]), far=True).spec(tmp_path)
    assert spec.far
    assert spec.views[0].lat == 51


def test_the_map_shows_each_view_where_it_stands(placed):
    views, _ = take_views([str(placed)] * 2, [])
    views[1] = replace(views[1], lat="46.3", lon="7.66")  # 36 km to the north
    region = region_of(PLACE, views)
    shown = around_html(PLACE, views, 90.0)
    spots = re.findall(r'ts-spot" style="left:([\d.]+)%;top:([\d.]+)%">(\d)', shown)
    assert [number for *_, number in spots] == ["1", "2"]
    for (left, top, _), view in zip(spots, views, strict=True):
        back = region.location(float(left) / 100, float(top) / 100)
        assert back.lat == pytest.approx(float(view.lat), abs=1e-3)
        assert back.lon == pytest.approx(float(view.lon), abs=1e-3)
    assert "2: 35.6 km N, 0°" in shown
    assert "rotate(90.0deg)" in shown


def test_the_map_tells_of_views_beyond_it_and_without_a_place(placed):
    views, _ = take_views([str(placed)] * 2, [])
    views = [replace(views[0], lat="-33"), replace(views[1], lat="")]
    shown = around_html(PLACE, views, None)
    assert "1 of the panoramas stands beyond it" in shown
    assert "2: its file tells no place" in shown
    assert "Take far panoramas" in shown
    assert "ts-spot" not in shown


def test_the_map_crosses_the_antimeridian(placed):
    views, _ = take_views([str(placed)], [])
    views = [replace(views[0], lat="-17", lon="-179.95")]
    shown = around_html(Location(-17.0, 179.95), views, 0.0)
    (left,) = re.findall(r'ts-spot" style="left:([\d.]+)%', shown)
    assert 50 < float(left) < 100  # to the east
