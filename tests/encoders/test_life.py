"""Spaces of life: unit vectors around a mean, and what cannot be embedded is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from generation.encoders.life_encoder import environment_of, load_life
from generation.encoders.life_space import EnvironmentEncoder, LifeSpace, known
from generation.errors import InvalidLocationError, InvalidSpecError
from generation.geo.environment import embedded_environment

SPECIES = ["Carnivora Felidae Panthera leo", "Carnivora", "Rodentia Muridae Mus musculus"]
CITIES = torch.tensor([[46.5, 7.25], [-1.3, 36.8], [51.5, -0.1]])


@pytest.fixture(scope="module")
def life():
    return load_life()


def test_all_modalities_give_unit_vectors_of_one_space(life):
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    found = {
        "text": life.text(SPECIES),
        "satellite": life.satellite(images),
        "location": life.location(CITIES),
        "environment": life.environment(CITIES),
    }
    assert tuple(found) == life.modalities
    for vectors in found.values():
        assert vectors.shape == (3, life.dim)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
        assert not torch.allclose(vectors[0], vectors[1], atol=1e-2)
    both = life.together({name: found[name] for name in ("text", "location")})
    torch.testing.assert_close(
        both, torch.nn.functional.normalize(found["text"] + found["location"], dim=1)
    )


def test_a_seam_and_a_pole_are_places_as_others(life):
    seam = life.location(torch.tensor([[10.0, 180.0], [10.0, -180.0]]))
    torch.testing.assert_close(seam[0], seam[1], atol=1e-4, rtol=0)
    pole = life.location(torch.tensor([[-90.0, -180.0], [-90.0, 37.0], [-90.0, 180.0]]))
    torch.testing.assert_close(pole[0], pole[1], atol=1e-4, rtol=0)
    edges = torch.tensor([[-90.0, 180.0], [-90.0, -180.0], [90.0, 180.0], [68.0, 180.0]])
    there = environment_of(edges)
    assert there.shape == (4, 18)
    torch.testing.assert_close(there[0], there[1], equal_nan=True)
    with pytest.raises(InvalidLocationError):
        life.location(torch.tensor([[90.5, 0.0]]))


def test_where_nothing_is_known_there_is_no_environment_to_embed(life):
    fields = embedded_environment()
    gone = np.where(np.arange(fields.elevation_m.shape[1]) < 180, np.nan, 1.0)  # the west
    partly = replace(fields, rain_mm=fields.rain_mm * gone)
    wholly = replace(
        partly, temperature_c=fields.temperature_c * gone, elevation_m=fields.elevation_m * gone
    )
    places = torch.tensor([[46.5, 7.25], [10.0, -60.0]])
    assert environment_of(places, partly)[1].isnan().any()
    assert life.environment(places, partly).isfinite().all()
    with pytest.raises(InvalidSpecError, match=r"lat=10, lon=-60"):
        life.environment(places, wholly)


def test_what_the_space_lacks_is_refused_with_what_it_has(life):
    for read in (lambda: life.ground(np.zeros((1, 8, 8, 3), np.uint8)), lambda: life.audio([])):
        with pytest.raises(InvalidSpecError, match="give one of text, satellite, location, env"):
            read()
    with pytest.raises(InvalidSpecError, match="audio is no modality"):
        life.together({"audio": torch.ones(1, life.dim)})
    with pytest.raises(InvalidSpecError, match="nothing is no modality"):
        life.together({})
    with pytest.raises(InvalidSpecError, match="names nothing"):
        life.text(["Carnivora", " "])
    with pytest.raises(InvalidSpecError, match="no space of life"):
        load_life("ranges-nano")


def test_each_modality_is_centred_on_its_own_mean():
    torch.manual_seed(0)
    space = LifeSpace(dim=8, state_dim=6, statistics=5, variables=4, degree=2, width=12).eval()
    examples = {"text": torch.randn(40, 6), "satellite": 3 + torch.randn(40, 5)}
    space.centre(examples)
    for name, given in examples.items():
        raw = space.raw(name, given)
        torch.testing.assert_close(getattr(space, f"{name}_mean"), raw.mean(0))
        assert space(name, given).mean(0).norm() < 0.5 * raw.mean(0).norm()
    with pytest.raises(InvalidSpecError, match="'audio' is not of this space"):
        space("audio", examples["text"])


def test_variables_that_are_not_known_count_as_the_mean_of_those_learnt_from():
    torch.manual_seed(0)
    encoder = EnvironmentEncoder(variables=3, width=8, dim=8, blocks=1).eval()
    encoder.fit(5 + 2 * torch.randn(100, 3))
    gap = torch.tensor([[4.0, torch.nan, 6.0]])
    filled = torch.where(gap.isnan(), encoder.mean, gap)
    torch.testing.assert_close(encoder(gap), encoder(filled))
    assert not torch.allclose(encoder(gap), encoder(torch.tensor([[4.0, 0.0, 6.0]])))
    assert known(torch.tensor([[torch.nan] * 3, [1.0, torch.nan, torch.nan]])).tolist() == [0, 1]


def test_published_sizes_are_those_of_the_paper():
    encoder = EnvironmentEncoder()
    assert sum(each.numel() for each in encoder.parameters()) == 2_112_000
