import pytest

import generation
from generation.errors import InvalidSpecError, MissingFileError
from generation.registry import ASSETS, PIPELINE_KINDS, find, is_here, list_models, locate


def put_weights(folder):
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_every_listed_model_is_found_by_name_and_by_alias():
    assert list_models()[0] == "satellite-nano"
    for name in list_models():
        card = find(name)
        assert card.name == name
        assert card.kind in PIPELINE_KINDS
        assert all(find(alias) is card for alias in card.hub)


def test_parts_are_listed_by_kind_only():
    assert list_models("location") == ["satclip-location", "geoclip-location"]
    assert "geoclip-location" not in list_models()
    assert list_models("nothing") == []


def test_full_size_names_follow_their_repositories():
    assert find("MVRL/GeoSynth-Location-OSM").name == "geosynth-location-osm"
    assert find("mvrl/geosynth").name == "geosynth"
    base = find("sd21-base").hub
    assert base[0] != "stabilityai/stable-diffusion-2-1-base", "withdrawn: only the last resort"


def test_cards_tell_the_pipeline_and_what_its_control_branch_reads():
    assert (find("satellite-nano").family, find("satellite-nano").hint) == ("nano", "layout")
    hints = {name: find(name).hint for name in list_models() if find(name).family == "geosynth"}
    assert len(hints) == 7
    assert hints["geosynth-location-osm"] == hints["geosynth"] == "layout"
    assert hints["geosynth-location-canny"] == hints["geosynth-canny"] == "edges"
    assert hints["geosynth-sam"] == "segments"


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InvalidSpecError, match=r"satelite-nano.*did you mean 'satellite-nano'"):
        find("satelite-nano")


def test_home_is_searched_before_the_embedded_models(tmp_path, monkeypatch):
    put_weights(tmp_path / "home" / "geoclip-location")
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path / "home"))
    assert locate("geoclip-location") == tmp_path / "home" / "geoclip-location"


def test_an_empty_folder_is_no_model(tmp_path, monkeypatch):
    (tmp_path / "sd21-base").mkdir()
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    assert not is_here("sd21-base")
    put_weights(tmp_path / "sd21-base" / "unet")
    assert is_here("sd21-base")


def test_absent_full_size_weights_name_their_sources():
    with pytest.raises(MissingFileError, match=r"MVRL/GeoSynth-OSM.*TERRASCAPE_HOME"):
        locate("geosynth-osm")


def test_absent_embedded_weights_tell_how_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("generation.registry.ASSETS", tmp_path)
    with pytest.raises(MissingFileError, match="pip install -e"):
        locate("satellite-nano")


def test_the_embedded_location_encoder_comes_with_the_checkout():
    folder = locate("geoclip-location")
    assert folder == ASSETS / "geoclip-location"
    assert {file.name for file in folder.iterdir()} >= {
        "diffusion_pytorch_model.safetensors",
        "config.json",
        "card.md",
    }


def test_a_part_is_not_loaded_as_a_pipeline():
    with pytest.raises(InvalidSpecError, match=r"'location'.*satellite-nano"):
        generation.load("geoclip-location")


def test_the_public_face_is_complete():
    assert generation.Location(45.98, 7.66).lat == 45.98
    assert generation.list_models() == list_models()
    assert set(generation.__all__) == set(dir(generation))
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = generation.nothing_here
