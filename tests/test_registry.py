import json
import shutil

import pytest
from tiny import make_pipeline

import generation
from generation.errors import InvalidSpecError, MissingFileError
from generation.registry import ASSETS, PIPELINE_KINDS, find, is_here, list_models, locate


def put_weights(folder):
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def put_pipeline(folder, **parts):
    """Write what names the parts of a pipeline, and every file that a whole one has."""
    parts = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        **parts,
    }
    files = [
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
        *(f"{part}/config.json" for part in ("unet", "vae")),
        *(f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")),
    ]
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")
    (folder / "model_index.json").write_text(json.dumps(parts))
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


def test_a_whole_pipeline_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    folder = put_pipeline(tmp_path / "sd21-base")
    assert is_here("sd21-base")
    assert locate("sd21-base") == folder


@pytest.mark.parametrize(
    "name",
    [
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_a_pipeline_that_lacks_a_file_is_not_here_and_the_file_is_named(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    (put_pipeline(tmp_path / "sd21-base") / name).unlink()
    assert not is_here("sd21-base")
    with pytest.raises(MissingFileError, match=rf"sd21-base: {name}.* is missing.*download"):
        locate("sd21-base")


def test_every_missing_file_of_a_pipeline_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    put_pipeline(tmp_path / "satellite-nano", decoder=["generation", "DetailDecoder"])
    with pytest.raises(
        MissingFileError,
        match=r"decoder/config\.json is missing, decoder/diffusion_pytorch_model\.safetensors is",
    ):
        locate("satellite-nano")


def test_a_vocabulary_may_have_either_form(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    folder = put_pipeline(tmp_path / "sd21-base") / "tokenizer"
    (folder / "vocab.json").rename(folder / "tokenizer.json")
    assert is_here("sd21-base")


@pytest.mark.parametrize("index", ["", "{", "[]"])
def test_a_damaged_list_of_parts_is_named(index, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    (put_pipeline(tmp_path / "sd21-base") / "model_index.json").write_text(index)
    assert not is_here("sd21-base")
    with pytest.raises(MissingFileError, match=r"model_index\.json is no JSON object"):
        locate("sd21-base")


def test_half_a_model_at_home_does_not_give_way_to_the_embedded_one(tmp_path, monkeypatch):
    monkeypatch.setattr("generation.registry.ASSETS", tmp_path / "assets")
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path / "home"))
    put_pipeline(tmp_path / "assets" / "satellite-nano")
    (put_pipeline(tmp_path / "home" / "satellite-nano") / "unet" / "config.json").unlink()
    assert not is_here("satellite-nano")
    with pytest.raises(MissingFileError, match=r"home/satellite-nano.*unet/config\.json"):
        locate("satellite-nano")


def test_a_saved_satellite_pipeline_is_here_until_a_part_is_taken_away(tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    make_pipeline().save_pretrained(tmp_path / "satellite-nano")
    assert is_here("satellite-nano")
    shutil.rmtree(tmp_path / "satellite-nano" / "codec")
    assert not is_here("satellite-nano")


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
