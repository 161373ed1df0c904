"""Style of there, layout of here; habitats; climates; and films of looks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_steering import SPEC, WINDOW
from tiny import make_pipeline

from generation.checkpoint import model_sha256, save_part
from generation.cli import main as terrascape
from generation.conditioning import StyleConditioner
from generation.diffusion.guidance import GuidanceScales
from generation.encoders.life_encoder import load_life
from generation.encoders.retrieval_model import load_retrieval
from generation.errors import ConfigError, InvalidLocationError, InvalidSpecError, WeightsError
from generation.pipelines.film import frames_of
from generation.pipelines.satellite import render
from generation.pipelines.scene import Scene
from generation.pipelines.styling import LIFE, RETRIEVAL, conditioner_of, looks
from generation.spec import RunSpec

PARTS = {"visual": 79, "place": 64, "climate": 18, "taxon": 64}


def make_styles(**made_for):
    torch.manual_seed(5)
    styles = StyleConditioner(PARTS, 16, 16, 1, 8, made_for=made_for).eval()
    for way in styles.ways.values():
        torch.nn.init.normal_(way.to_vector.weight)  # as if it had learnt
    return styles


def vectors(seed, *names):
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(PARTS[name], generator=rng) for name in names}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    make_pipeline().save_pretrained(home / "satellite-nano")
    made_for = {
        "satellite-nano": model_sha256(home / "satellite-nano"),
        RETRIEVAL: load_retrieval().towers_sha256,
        LIFE: load_life().sha256,
    }
    save_part(make_styles(**made_for), home / "satellite-nano-style")
    return home


@pytest.fixture
def home(models, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(models))
    return models


def test_without_a_style_nothing_changes(tiny_pipeline):
    plain = Scene(WINDOW, "a valley", seed=7)
    first = tiny_pipeline([plain], num_inference_steps=2)
    again = tiny_pipeline([plain], num_inference_steps=2, styling=make_styles())
    assert np.array_equal(again, first)


@pytest.mark.parametrize("name", PARTS)
def test_each_part_changes_the_picture_alone(tiny_pipeline, name):
    def draw(seed):
        scene = Scene(WINDOW, seed=7, style=vectors(seed, name))
        return tiny_pipeline([scene], num_inference_steps=2, styling=make_styles())

    assert (draw(1) != draw(2)).mean() > 0.05
    assert np.array_equal(draw(1), draw(1))


def test_scenes_of_a_batch_may_lack_parts(tiny_pipeline):
    styles = [vectors(1, "visual", "place"), {}, vectors(2, "taxon")]

    def draw(*which):
        scenes = [Scene(WINDOW, seed=7, style=styles[n]) for n in which]
        return tiny_pipeline(scenes, num_inference_steps=2, styling=make_styles()).astype(int)

    together = draw(0, 1, 2)
    for n in (0, 2):  # without any style there is nothing to be null of: another token count
        assert np.abs(together[n] - draw(n)[0]).max() <= 1


def test_guidance_zero_takes_a_part_out(tiny_pipeline):
    def draw(seed, **scales):
        scene = Scene(WINDOW, seed=7, style=vectors(seed, "taxon", "climate"))
        guidance = GuidanceScales(**scales)
        return tiny_pipeline(
            [scene], num_inference_steps=2, guidance=guidance, styling=make_styles()
        )

    off = {"habitat": 0.0, "climate": 0.0}
    assert np.array_equal(draw(1, **off), draw(2, **off))
    assert not np.array_equal(draw(1, habitat=0.0), draw(2, habitat=0.0))


def test_a_style_needs_a_conditioner_that_has_its_parts(tiny_pipeline):
    scene = Scene(WINDOW, style=vectors(1, "visual"))
    with pytest.raises(InvalidSpecError, match="nothing here was trained to follow one"):
        tiny_pipeline([scene], num_inference_steps=1)
    odd = Scene(WINDOW, style={"visual": torch.zeros(7)})
    with pytest.raises(ConfigError, match="vectors of 7 dimensions"):
        tiny_pipeline([odd], num_inference_steps=1, styling=make_styles())


def test_a_render_says_where_its_look_comes_from(home):
    made = render(replace(SPEC, style_lat=23.5, style_lon=5.0, sharpness=0.25))
    told = made.provenance["style"]["looks"]
    assert (told["lat"], told["lon"], told["sharpness"]) == (23.5, 5.0, 0.25)
    assert told["radius_km"] == pytest.approx(1424.6, abs=0.1)
    assert 2_000 < told["apart_km"] < 3_000
    weights = [each["weight"] for each in told["sources"]]
    assert weights == sorted(weights, reverse=True)
    assert 0 < sum(weights) < 1
    plain = render(SPEC)
    assert "style" not in plain.provenance
    assert not np.array_equal(plain.image, made.image)


def test_sharpness_place_taxon_and_climate_each_matter(home):
    base = {"style_lat": 23.5, "style_lon": 5.0}
    ways = (
        base,
        {**base, "sharpness": 1.0},
        {"style_lat": -5.0, "style_lon": -62.0},
        {"taxon": "Panthera leo"},
        {"taxon": "Rangifer tarandus"},
        {"warmer_c": 0.0},
        {"warmer_c": 3.0, "rain_percent": -20.0},
    )
    images = [render(replace(SPEC, **way)).image for way in ways]
    for n, one in enumerate(images):
        assert all(not np.array_equal(one, other) for other in images[:n])


@pytest.mark.parametrize(
    "way",
    [
        {"style_lat": 23.5, "style_lon": 5.0, "style_guidance": 0.0},
        {"taxon": "Panthera leo", "habitat_guidance": 0.0},
        {"warmer_c": 3.0, "climate_guidance": 0.0},
    ],
)
def test_what_is_guided_by_zero_changes_no_pixel(home, way):
    assert np.array_equal(render(replace(SPEC, **way)).image, render(SPEC).image)


def test_looks_are_those_of_the_database():
    retrieval = load_retrieval()
    here = torch.tensor([[23.5, 5.0]])
    parts = looks(retrieval, 23.5, 5.0, 0.5)
    assert {n: len(v) for n, v in parts.items()} == {"visual": 79, "place": 64}
    torch.testing.assert_close(
        torch.cat([parts["visual"], parts["place"]]), retrieval.encoder(here, 0.5)[0],
        atol=1e-5, rtol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"style_lat": 120.0, "style_lon": 45.0}, "swapped"),
        ({"style_lat": 45.0}, "degrees for both"),
        ({"sharpness": 1.5}, "what lies near"),
        ({"warmer_c": 40.0}, "-20 to 20"),
        ({"rain_percent": -150.0}, "-100 to 300"),
        ({"style_guidance": -1.0}, "0 to 20"),
        ({"style_database": ""}, "range-nano or a folder"),
        ({"kind": "panorama", "taxon": "Panthera leo"}, "kind='satellite'"),
    ],
)
def test_wrong_fields_are_refused(fields, hint):
    with pytest.raises(InvalidSpecError, match=hint):
        RunSpec.from_dict({"lat": 45.98, "lon": 7.66, **fields})


def test_a_spec_without_style_keeps_its_fingerprint():
    said = RunSpec(lat=45.98, lon=7.66).to_dict()
    assert not {"style_lat", "taxon", "warmer_c", "sharpness"} & said.keys()
    styled = RunSpec(lat=45.98, lon=7.66, taxon="Panthera leo")
    assert RunSpec.from_json(styled.to_json()) == styled


def test_misspelt_and_unknown_taxa_are_refused_with_the_nearest(home):
    with pytest.raises(InvalidSpecError, match=r"not known.*Panthera"):
        render(replace(SPEC, taxon="Pantera"))


def test_other_weights_and_other_models_are_refused(home):
    with pytest.raises(InvalidSpecError, match="takes no style"):
        conditioner_of("geosynth", "abc")
    with pytest.raises(WeightsError, match="satellite-nano-style was trained with satellite-nano"):
        conditioner_of("satellite-nano", "abc")


def test_the_sea_has_no_climate_to_be_told(home, monkeypatch):
    monkeypatch.setattr(
        "generation.pipelines.styling.environment_of", lambda *_: torch.full((1, 18), torch.nan)
    )
    with pytest.raises(InvalidSpecError, match=r"no climate is known at lat=45\.98"):
        render(replace(SPEC, warmer_c=1.0))


def test_a_film_goes_along_the_great_circle():
    specs = frames_of(RunSpec(lat=60.0, lon=-90.0), (60.0, 90.0), 3)
    assert [(s.style_lat, round(abs(s.style_lon))) for s in specs[::2]] == [
        (pytest.approx(60.0), 90), (pytest.approx(60.0), 90)
    ]  # fmt: skip
    assert specs[1].style_lat == pytest.approx(90.0)
    assert {(s.lat, s.lon, s.seed) for s in specs} == {(60.0, -90.0, 0)}
    with pytest.raises(InvalidSpecError, match="2 to 60"):
        frames_of(RunSpec(lat=60.0, lon=-90.0), (60.0, 90.0), 1)
    with pytest.raises(InvalidLocationError):
        frames_of(RunSpec(lat=60.0, lon=-90.0), (160.0, 90.0), 3)


def test_the_command_draws_styles_and_films(home, tmp_path, capsys):
    words = ["render", "satellite", "--lat=45.98", "--lon=7.66", "--size=64", "--steps=1"]
    words += ["--layout=none", "--out", str(tmp_path), "--json"]
    assert terrascape([*words, "--style-from=23.5,5.0", "--sharpness=0.2"]) == 0
    spec = json.loads(capsys.readouterr().out)["spec"]
    assert (spec["style_lat"], spec["style_lon"], spec["sharpness"]) == (23.5, 5.0, 0.2)
    assert terrascape([*words, "--film-to=23.5,5.0", "--frames=3"]) == 0
    film = json.loads(capsys.readouterr().out)
    assert len(film["files"]) == 4
    from generation.media.image import open_rgb

    assert open_rgb(tmp_path / film["strip"]).shape == (64, 192, 3)
    for wrong, hint in (
        (["--style-from=23.5"], "no place"),
        (["--style-from=123.5,5"], "swapped"),
        (["--frames=3"], "without a film"),
    ):
        assert terrascape([*words, *wrong]) == 2
        assert hint in capsys.readouterr().err


def test_every_picture_has_a_card_of_plausibility(home):
    card = render(replace(SPEC, taxon="Panthera leo")).provenance["plausibility"]
    assert -1 <= card["novelty"]["most_alike"] <= 1
    assert 0 <= card["seems_to_be"]["share_of_land_that_fits_better"] <= 1
    assert card["range"]["taxon"] == "Carnivora Felidae Panthera leo"
    assert card["range"]["nearest_predicted_km"] > 500  # no lions in the Alps
    assert set(card["agreement"]) == {"location", "taxon"}
    other = render(replace(SPEC, zoom=14)).provenance["plausibility"]
    assert "not judged" in other["note"]
