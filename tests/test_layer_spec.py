"""Layers of a soundscape as descriptions."""

import hashlib
import math

import pytest

from generation.errors import AudioError, InvalidSpecError, MissingFileError
from generation.layer_spec import LayerSpec, read_layers
from generation.spec import RunSpec

PLACE = {"kind": "soundscape", "lat": 43.7, "lon": 7.27}


def test_a_layer_comes_back_from_what_it_says():
    layer = LayerSpec("surf", level_db=-6.0, pan=0.25)
    assert LayerSpec.from_dict(layer.to_dict()) == layer
    assert read_layers([layer.to_dict(), "rain"])[0] == (layer, LayerSpec("rain"))


def test_a_spec_with_layers_comes_back_with_one_fingerprint():
    layers = ["surf", {"text": "a dog", "level_db": -6, "pan": 1}]
    spec = RunSpec.from_dict({**PLACE, "layers": layers, "hour": 6, "month": 5, "seconds": 4})
    assert RunSpec.from_json(spec.to_json()) == spec
    other = RunSpec.from_dict({**PLACE, "layers": layers[::-1], "hour": 6, "month": 5})
    assert other.sha256() != spec.sha256()
    assert spec.model == "soundscape-nano"


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ({"text": "a", "level_db": 12.1}, "level_db=12.1 is not allowed (give -60 to 12)"),
        ({"text": "a", "level_db": -1e9}, "level_db=-1000000000.0"),
        ({"text": "a", "level_db": math.nan}, "level_db=nan"),
        ({"text": "a", "pan": -2}, "pan=-2 is not allowed (give -1 to 1)"),
        ({"text": "a", "pan": True}, "pan=True"),
        ({"text": "  "}, "it has neither text nor file (give one of the two"),
        ({"text": "a", "file": "b.wav"}, "it has both 'a' and 'b.wav' (give one of the two"),
        ({"file": ""}, "file=''"),
        ({"text": 3}, "text=3 is no text"),
        ({"text": "a", "loud": 1}, "'loud' is no field of a layer"),
        ({"text": "a", "sha256": "0" * 64}, "sha256="),
        (7, "7 is no layer"),
    ],
)
def test_each_mistake_of_a_layer_is_told(layer, told):
    with pytest.raises(InvalidSpecError) as caught:
        RunSpec.from_dict({**PLACE, "layers": [layer]})
    assert told in str(caught.value)
    assert "layer 1" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"seconds": 0}, "seconds=0 is not allowed (give 0.1 to 600)"),
        ({"seconds": 3600}, "seconds=3600"),
        ({"seconds": math.nan}, "seconds=nan"),
        ({"seconds": "10"}, "seconds='10'"),
        ({"hour": 24}, "hour=24 is no hour of the day (give 0 to 23.99"),
        ({"hour": -0.5}, "hour=-0.5"),
        ({"hour": math.nan}, "hour=nan"),
        ({"month": 0}, "month=0 is no month"),
        ({"month": 13}, "month=13"),
        ({"month": 5.0}, "month=5.0"),
        ({"month": True}, "month=True"),
        ({"loop": 1}, "loop=1 (give true or false)"),
        ({"loop": True, "seconds": 1.234}, "seconds=1.234 with loop=true (give a multiple of 0.01"),
        ({"candidates": 17}, "candidates=17"),
        ({"layers": "surf"}, "layers='surf' (give a list"),
        ({"layers": ["a"] * 9}, "9 layers are given, 8 are allowed"),
        (
            {"layers": ["a"], "sound_text": "b"},
            "sound_text and layers are given (give one of them)",
        ),
        ({"captioner": "llava", "layers": ["a"]}, "layers and captioner are given"),
        ({"captioner": 3}, "captioner=3 is no text"),
        ({"views": ["a.jpg@1,2"]}, "(give kind='panorama', or leave it out)"),
        ({"lat": 86, "satellite": "generated"}, "ends at latitude"),
    ],
)
def test_each_mistake_of_a_soundscape_is_told(fields, told):
    with pytest.raises(InvalidSpecError) as caught:
        RunSpec.from_dict({**PLACE, **fields})
    assert told in str(caught.value)


@pytest.mark.parametrize("field", [{"hour": 3}, {"layers": ["a"]}, {"seconds": 5}, {"loop": True}])
@pytest.mark.parametrize("kind", ["satellite", "panorama"])
def test_a_picture_has_no_length_and_no_hour(kind, field):
    with pytest.raises(InvalidSpecError, match="give kind='soundscape', or"):
        RunSpec.from_dict({**PLACE, "kind": kind, **field})


def test_recordings_are_pinned(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(b"sound")
    spec = RunSpec.from_dict({**PLACE, "layers": ["surf", {"file": str(file)}]})
    pinned = spec.pinned()
    assert pinned.layers[0] == LayerSpec("surf")
    assert pinned.layers[1].sha256 == hashlib.sha256(b"sound").hexdigest()
    assert pinned.pinned() == pinned
    file.write_bytes(b"another")
    with pytest.raises(AudioError, match="has changed since"):
        pinned.pinned()
    file.unlink()
    with pytest.raises(MissingFileError, match="layer="):
        spec.pinned()
