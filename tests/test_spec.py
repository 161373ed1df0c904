import json
import math

import pytest

from generation.errors import InvalidSpecError, LayoutError, MissingFileError
from generation.spec import MAX_PROMPT, RunSpec, ViewSpec

MATTERHORN = {"lat": 45.98, "lon": 7.66}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lat": 95}, r"lat=95.*\[-90, 90\]"),
        ({"lat": -122.4, "lon": 37.8}, "swapped.*lat=37.8, lon=-122.4"),
        ({"lat": math.nan}, "lat=nan"),
        ({"lon": math.inf}, "lon=inf"),
        ({"lat": 89.0}, r"lat=89.*85\.0511"),
        ({"lat": 84.9, "zoom": 2}, "lat=84.9.*pole"),
        ({"lat": 10**400}, "lat=inf"),
        ({"seed": -5}, r"seed=-5.*0 to 2\^63"),
        ({"seed": 2**64}, "seed=18446744073709551616"),
        ({"seed": True}, "seed=True is no whole number"),
        ({"seed": 1.5}, "seed=1.5 is no whole number"),
        ({"steps": 0}, "steps=0.*1 to 200"),
        ({"steps": 10**6}, "steps=1000000"),
        ({"text_guidance": math.nan}, "text_guidance=nan.*0 to 20"),
        ({"layout_guidance": -1.0}, "layout_guidance=-1.0"),
        ({"location_guidance": "2"}, "location_guidance='2' is no number"),
        ({"size": 100000}, "size=100000.*64 to 1024"),
        ({"size": 250}, "size=250.*multiple of 8.*248"),
        ({"size": 10**400}, r"size=10+…\(401 digits\).*example 1024\)"),
        ({"size": -(10**5000)}, r"size=-10+…\(5001 digits\).*example 64\)"),
        ({"seed": [10**5000]}, "seed=a list is no whole number"),
        ({"steps": 10**400}, r"steps=10+…\(401 digits\).*1 to 200"),
        ({"lon": -(10**400)}, "lon=-inf"),
        ({"text_guidance": -(10**400)}, r"text_guidance=-10+…\(401 digits\).*0 to 20"),
        ({"prompt": 10**5000}, r"prompt=10+…\(5001 digits\) is no text"),
        ({"model": 10**5000}, r"model=10+…\(5001 digits\) is no name"),
        ({"zoom": 23}, "zoom=23.*0 to 22"),
        ({"prompt": "a\0b"}, "prompt='a.x00b' holds a NUL at character 2.*take it out"),
        ({"prompt": "\udcff"}, "prompt.*UTF-8"),
        ({"prompt": None}, "prompt=None is no text"),
        ({"layout": ""}, "layout=''"),
        ({"layout_sha256": "0" * 64}, "layout_sha256.*only a file has one"),
        ({"layout": "a.png", "layout_sha256": "xyz"}, "64 hexadecimal"),
        ({"use_location": 1}, "use_location=1.*true or false"),
        ({"model": " "}, "model=' '.*terrascape models"),
        ({"kind": "sonnet"}, "kind='sonnet'.*satellite"),
    ],
)
def test_each_bad_field_is_refused_with_its_value_and_the_cure(changes, said):
    with pytest.raises(InvalidSpecError, match=said) as refusal:
        RunSpec.from_dict({**MATTERHORN, **changes})
    assert "\n" not in str(refusal.value)
    assert "\0" not in str(refusal.value)


def test_the_constructor_refuses_what_from_dict_refuses():
    with pytest.raises(InvalidSpecError, match="seed=-5"):
        RunSpec(**MATTERHORN, seed=-5)


def test_too_long_a_prompt_is_told_where_to_cut():
    prompt = "x" * (MAX_PROMPT - 4) + " end" + "y" * 8000
    with pytest.raises(InvalidSpecError, match=r"10000 characters, 2000 are allowed.*x end'"):
        RunSpec(**MATTERHORN, prompt=prompt)


@pytest.mark.parametrize(
    "prompt", ["", "🏔️ neige", "two\nlines", "\x01\x7f\ufffe", "x" * MAX_PROMPT]
)
def test_any_other_prompt_is_kept_to_the_letter(prompt):
    spec = RunSpec(**MATTERHORN, prompt=prompt)
    assert RunSpec.from_json(spec.to_json()) == spec
    assert spec.to_json().isascii()


def test_all_mistakes_come_at_once():
    with pytest.raises(InvalidSpecError) as refusal:
        RunSpec.from_dict({"lat": 95, "lon": 7.66, "size": 250, "sede": 3, "seed": -1})
    for word in ("lat=95", "size=250", "'sede' is no field", "seed=-1"):
        assert word in str(refusal.value)


def test_a_missing_coordinate_is_named():
    with pytest.raises(InvalidSpecError, match="lon is missing"):
        RunSpec.from_dict({"lat": 1})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "JSON list"),
        ('{"lat": 1, "lon": 2', "no JSON"),
        ('{"lat": 1, "lat": 2, "lon": 3}', "'lat' is given more than once"),
        ('{"lat": 1, "lon": NaN}', "lon=nan"),
        ('{"lat": 1, "lon": ' + "9" * 5000 + "}", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("", "no JSON"),
    ],
)
def test_what_is_no_description_is_refused(text, said):
    with pytest.raises(InvalidSpecError, match=said):
        RunSpec.from_json(text)


def test_equal_specs_have_one_canonical_form():
    a = RunSpec.from_dict({"lat": 45, "lon": 0, "text_guidance": 2})
    b = RunSpec.from_dict({"text_guidance": 2.0, "lon": -0.0, "lat": 45.0})
    assert a == b
    assert a.to_json() == b.to_json()
    assert a.sha256() == b.sha256()
    assert list(json.loads(a.to_json())) == sorted(json.loads(a.to_json()))
    assert a.sha256() != RunSpec(lat=45.0, lon=0.0, seed=1).sha256()


def test_the_window_lies_around_the_place():
    spec = RunSpec(**MATTERHORN, size=512)
    window = spec.window()
    assert (window.width_px, window.height_px, window.zoom) == (512, 512, 8)
    assert window.center.lat == pytest.approx(spec.lat, abs=0.02)
    assert window.center.lon == pytest.approx(spec.lon, abs=0.02)


def test_a_layout_file_is_pinned_by_its_content(tmp_path):
    path = tmp_path / "map.geojson"
    path.write_text("{}")
    spec = RunSpec(**MATTERHORN, layout=str(path))
    pinned = spec.pinned()
    assert pinned.layout_sha256 == (
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
    assert pinned.pinned() == pinned
    path.write_text("[]")
    with pytest.raises(LayoutError, match=r"has changed since.*restore the file"):
        pinned.pinned()
    path.unlink()
    with pytest.raises(MissingFileError, match=r"map.geojson.*auto, none or the path"):
        spec.pinned()
    with pytest.raises(MissingFileError, match=r"name too long.*check its name"):
        RunSpec(**MATTERHORN, layout="x" * 5000).pinned()


@pytest.mark.parametrize("layout", ["auto", "none"])
def test_nothing_is_pinned_without_a_file(layout):
    spec = RunSpec(**MATTERHORN, layout=layout)
    assert spec.layout_path is None
    assert spec.pinned() is spec


PANORAMA = {"kind": "panorama", **MATTERHORN}
NEAR = {"file": "a.jpg", "lat": 45.9, "lon": 7.7}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heading": 400}, "heading=400 is no heading.*0 up to 360"),
        ({"heading": math.nan}, "heading=nan is no heading"),
        ({"heading": 360.0}, "heading=360.0"),
        ({"heading": "east"}, "heading='east' is no number"),
        ({"far": 1}, "far=1.*true or false"),
        ({"satellite": ""}, "satellite=''.*auto, none, generated"),
        ({"satellite_sha256": "0" * 64}, "satellite_sha256.*only a file has one"),
        ({"satellite_guidance": 21.0}, "satellite_guidance=21.0.*0 to 20"),
        ({"views_guidance": -1.0}, "views_guidance=-1.0.*0 to 20"),
        ({"views": 3}, "views=3.*give a list"),
        ({"views": [3]}, "view 1: 3 is no view"),
        ({"views": [{"lat": 1}]}, "view 1: a view without a file"),
        ({"views": [{"file": " "}]}, r"view 1: file=' ' \(give the path"),
        ({"views": [{**NEAR, "lat": 95}]}, "view 1: 'a.jpg': no such place: lat=95"),
        ({"views": [{**NEAR, "lon": "7"}]}, "lon='7' is no number"),
        ({"views": [{**NEAR, "heading": 400}]}, "view 1: 'a.jpg': heading=400 is no heading"),
        ({"views": [{"file": "a.jpg", "lat": 45.9}]}, "only lat is given.*FILE@LAT,LON,HEADING"),
        ({"views": [{"file": "a.jpg", "heading": 9}]}, "a heading without a place"),
        ({"views": [{**NEAR, "sha256": "x"}]}, "sha256='x'.*64 hexadecimal"),
        ({"views": [{**NEAR, "yaw": 1}]}, "'yaw' is no field of a view"),
        ({"views": [NEAR] * 2}, "views 1 and 2 are the same: 'a.jpg' and 'a.jpg' at one place"),
        ({"views": [NEAR] * 50}, "50 views are given, 20 are allowed"),
        ({"views": [{**NEAR, "lat": 50.5}]}, "'a.jpg' stands 503 km away, 100 km.*far=true"),
    ],
)
def test_each_bad_field_of_a_panorama_is_refused(changes, said):
    with pytest.raises(InvalidSpecError, match=said) as refusal:
        RunSpec.from_dict({**PANORAMA, **changes})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("lat", [86.0, 90.0, -90.0])
def test_a_panorama_may_stand_beyond_the_map_where_no_satellite_image_is_cut_out(lat):
    for satellite in ("auto", "none"):
        spec = RunSpec.from_dict({**PANORAMA, "lat": lat, "satellite": satellite})
        assert RunSpec.from_json(spec.to_json()) == spec
    for satellite in ("generated", "ground.tif"):
        said = rf"lat={lat:g} with satellite='{satellite}': .*cut out of, ends.*satellite=none"
        with pytest.raises(InvalidSpecError, match=said):
            RunSpec.from_dict({**PANORAMA, "lat": lat, "satellite": satellite})
    with pytest.raises(InvalidSpecError, match="beyond the edge"):
        RunSpec(lat=lat, lon=7.66)


@pytest.mark.parametrize(
    "changes", [{"heading": 90}, {"views": [NEAR]}, {"satellite": "none"}, {"far": True}]
)
def test_only_a_panorama_has_a_heading_and_views(changes):
    with pytest.raises(InvalidSpecError, match="give kind='panorama'"):
        RunSpec.from_dict({**MATTERHORN, **changes})


def test_mistakes_of_views_come_with_all_others():
    with pytest.raises(InvalidSpecError) as refusal:
        RunSpec.from_dict({**PANORAMA, "heading": 400, "views": [{}, {**NEAR, "lat": 99}]})
    for word in ("heading=400", "view 1: a view without a file", "view 2: 'a.jpg'", "lat=99"):
        assert word in str(refusal.value)


def test_a_far_view_is_taken_when_asked_for_and_one_at_the_place_itself_always():
    far = RunSpec.from_dict({**PANORAMA, "far": True, "views": [{**NEAR, "lat": 50.5}]})
    assert far.views[0].place.lat == 50.5
    here = RunSpec.from_dict({**PANORAMA, "views": [{"file": "a.jpg", **MATTERHORN}]})
    assert here.views == (ViewSpec("a.jpg", 45.98, 7.66),)


def test_one_file_at_two_places_is_two_views():
    spec = RunSpec.from_dict({**PANORAMA, "views": [NEAR, {**NEAR, "lat": 45.91}]})
    assert len(spec.views) == 2


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("a.jpg@45.98,7.66,120", ViewSpec("a.jpg", 45.98, 7.66, 120.0)),
        ("a.jpg@-45.98,7.66", ViewSpec("a.jpg", -45.98, 7.66, 0.0)),
        ("a@b.jpg@ 45 , 7 ", ViewSpec("a@b.jpg", 45.0, 7.0)),
        ("me@home.jpg", ViewSpec("me@home.jpg")),
        ("a, b.jpg", ViewSpec("a, b.jpg")),
        ("a.jpg", ViewSpec("a.jpg")),
    ],
)
def test_a_view_is_read_from_text(text, view):
    assert ViewSpec.parse(text) == view
    assert ViewSpec.parse(str(view)) == view


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.jpg@45.98", "has another form.*FILE@LAT,LON,HEADING"),
        ("a.jpg@", "has another form"),
        ("a.jpg@45,7,1,2", "has another form"),
        ("a.jpg@45,east", "has another form"),
        ("a.jpg@95,7", "no such place: lat=95"),
        ("a.jpg@45,7,400", "heading=400.0 is no heading"),
        ("a.jpg@45,7,nan", "heading=nan is no heading"),
        ("a.jpg@45,7,-1", "heading=-1.0 is no heading"),
        ("@45,7", "file=''"),
        ("", "file=''"),
    ],
)
def test_a_text_that_is_no_view_is_refused(text, said):
    with pytest.raises(InvalidSpecError, match=said):
        ViewSpec.parse(text)


def test_views_come_as_objects_or_as_text_between_semicolons():
    objects = [{"file": "a.jpg", "lat": 45.9, "lon": 7.7, "heading": 90}, {"file": "b.jpg"}]
    by_object = RunSpec.from_dict({**PANORAMA, "views": objects})
    by_text = RunSpec.from_dict({**PANORAMA, "views": "a.jpg@45.9,7.7,90; b.jpg;"})
    by_lines = RunSpec.from_dict({**PANORAMA, "views": ["a.jpg@45.9,7.7,90", "b.jpg"]})
    assert by_object == by_text == by_lines
    assert by_object.sha256() == by_text.sha256()
    assert RunSpec.from_json(by_text.to_json()) == by_text
    assert json.loads(by_text.to_json()) == by_text.to_dict()


def test_a_panorama_is_drawn_by_its_own_model():
    assert RunSpec.from_dict(PANORAMA).model == "panorama-nano"
    assert RunSpec.from_dict({**PANORAMA, "model": "mine"}).model == "mine"
    assert RunSpec.from_dict(MATTERHORN).model == "satellite-nano"


def test_a_spec_without_panorama_fields_keeps_its_fingerprint():
    spec = RunSpec(**MATTERHORN)
    assert not {"heading", "views", "satellite", "far"} & set(spec.to_dict())
    assert spec.sha256() == "b9fb6cbeb0663aaf42aeb415abae903a7dea671cddc82f525e693de64e936d9f"


def test_views_and_satellite_images_are_pinned_by_their_content(tmp_path):
    a, b, ground = (tmp_path / name for name in ("a.jpg", "b.jpg", "ground.png"))
    for number, path in enumerate((a, b, ground)):
        path.write_bytes(bytes([number]))
    views = (ViewSpec(str(a), 45.9, 7.7), ViewSpec(str(b), 45.9, 7.7))
    spec = RunSpec(**PANORAMA, model="m", views=views, satellite=str(ground)).pinned()
    assert [len(view.sha256) for view in spec.views] == [64, 64]
    assert spec.satellite_sha256 is not None
    assert spec.pinned() == spec
    ground.write_bytes(b"other")
    with pytest.raises(InvalidSpecError, match=r"satellite='.*ground.png' has changed since"):
        spec.pinned()
    ground.write_bytes(bytes([2]))
    a.write_bytes(b"other")
    with pytest.raises(InvalidSpecError, match=r"view='.*a.jpg' has changed.*sha256=\w+, now"):
        spec.pinned()
    a.unlink()
    with pytest.raises(MissingFileError, match=rf"a.jpg' is no file.*{spec.views[0].sha256}"):
        spec.pinned()


def test_one_panorama_under_two_names_is_found_out(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"same")
    views = [{**NEAR, "file": str(tmp_path / name)} for name in ("a.jpg", "b.jpg")]
    spec = RunSpec.from_dict({**PANORAMA, "views": views})
    with pytest.raises(InvalidSpecError, match=r"views 1 and 2 are the same: .*a\.jpg.*b\.jpg"):
        spec.pinned()
