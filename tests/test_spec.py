import json
import math

import pytest

from generation.errors import InvalidSpecError, LayoutError, MissingFileError
from generation.spec import MAX_PROMPT, RunSpec

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
