"""Ways of telling a place by numbers, behind one interface."""

import math

import numpy as np
import pytest
import torch

from generation.checkpoint import save_part
from generation.encoders.location import LocationEncoder, spherical_harmonics
from generation.encoders.place_encoder import (
    PlaceEncoder,
    SinrLocationEncoder,
    load_place_encoder,
    sphere2vec,
    wrapped,
)
from generation.errors import InvalidLocationError, InvalidSpecError, WeightsError

PLACES = torch.tensor([[45.98, 7.66], [-90.0, 0.0], [90.0, 12.0], [0.0, 180.0], [0.0, -180.0]])
BASES = {"direct": 2, "cartesian3d": 3, "wrap": 4, "sinr-input": 4, "spherec": 48,
         "spherec-plus": 96, "harmonics-5": 25}  # fmt: skip


@pytest.mark.parametrize(("name", "dim"), BASES.items())
def test_bases_give_finite_features_everywhere(name, dim):
    encoder = load_place_encoder(name)
    found = encoder(PLACES)
    assert (encoder.name, encoder.dim) == (name, dim)
    assert found.shape == (5, dim)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", [n for n in BASES if n not in ("direct", "spherec-plus")])
def test_there_is_no_seam_at_the_antimeridian(name):
    if name == "spherec":
        return  # waves that are no whole part of the circle break there, as published
    east, west = load_place_encoder(name)(PLACES[3:].double())
    torch.testing.assert_close(east, west, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["direct", "harmonics-5", "geoclip-location", "range-key"])
def test_what_is_no_place_is_refused(name):
    with pytest.raises(InvalidLocationError, match="swapped"):
        load_place_encoder(name)(torch.tensor([[120.0, 45.0]]))


def test_sinr_takes_the_poles_for_one_place():
    features = wrapped(torch.tensor([[90.0, 0.0], [-90.0, 0.0]]).double(), doubled=True)
    torch.testing.assert_close(features[0], features[1], atol=1e-9, rtol=0)
    lat, lon = 30.0, 50.0
    by_hand = [
        math.sin(math.pi * lon / 180), math.sin(math.pi * lat / 90),
        math.cos(math.pi * lon / 180), math.cos(math.pi * lat / 90),
    ]  # fmt: skip
    found = wrapped(torch.tensor([[lat, lon]]).double(), doubled=True)[0]
    assert found.tolist() == pytest.approx(by_hand)


def test_the_network_of_sinr_has_its_published_size():
    model = SinrLocationEncoder()
    assert sum(p.numel() for p in model.parameters()) == 527_616
    assert model.eval()(PLACES).shape == (5, 256)


def test_sphere2vec_is_that_of_its_equations():
    lat, lon = math.radians(20.0), math.radians(-70.0)
    found = sphere2vec(torch.tensor([[20.0, -70.0]]).double(), plus=True, scales=2, least=0.1)[0]
    expected = []
    for wave in (lambda v: (math.sin(v[0]),), lambda v: (math.cos(v[0]) * math.cos(v[1]),),
                 lambda v: (math.cos(v[0]) * math.sin(v[1]),), lambda v: (math.cos(v[0]),),
                 lambda v: (math.sin(v[1]),), lambda v: (math.cos(v[1]),)):  # fmt: skip
        expected += [wave((lat / s, lon / s))[0] for s in (1.0, 0.1)]
    assert found.tolist() == pytest.approx(expected)


def test_parts_of_many_places_are_put_together(monkeypatch):
    encoder = load_place_encoder("harmonics-5")
    whole = encoder(PLACES)
    monkeypatch.setattr("generation.encoders.place_encoder._AT_ONCE", 2)
    assert torch.equal(encoder(PLACES), whole)
    assert encoder(PLACES[:0]).shape == (0, 25)


def test_a_folder_of_weights_is_an_encoder(tmp_path):
    torch.manual_seed(0)
    model = LocationEncoder(degree=3, hidden_dim=8, embed_dim=5).eval()
    save_part(model, tmp_path / "mine")
    encoder = load_place_encoder(str(tmp_path / "mine"))
    with torch.no_grad():
        torch.testing.assert_close(encoder(PLACES), model(PLACES))
    assert (encoder.name, encoder.dim) == ("mine", 5)


def test_the_embedded_database_tells_places_three_ways():
    key, sharp, mixed = (load_place_encoder(n) for n in ("range-key", "range", "range-plus"))
    assert sharp.dim == mixed.dim > key.dim
    one, other = sharp(PLACES), mixed(PLACES)
    assert not torch.allclose(one[:, : sharp.dim - key.dim], other[:, : sharp.dim - key.dim])
    torch.testing.assert_close(one[:, sharp.dim - key.dim :], key(PLACES))


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(InvalidSpecError, match="no place encoder is named 'geoklip'"):
        load_place_encoder("geoklip")
    with pytest.raises(InvalidSpecError, match="harmonics-0"):
        load_place_encoder("harmonics-0")
    (tmp_path / "config.json").write_text('{"_class_name": "Other"}')
    with pytest.raises(WeightsError, match="no location encoder that is known"):
        load_place_encoder(str(tmp_path))


def test_harmonics_of_a_high_degree_are_those_of_scipy_up_to_the_poles():
    from scipy.special import sph_harm_y

    latlon = torch.tensor([[85.0, 20.0], [-89.9, -170.0], [12.0, 33.0]]).double()
    degree = 40
    found = spherical_harmonics(latlon, degree).numpy()
    for row, (lat, lon) in enumerate(latlon.tolist()):
        theta, phi = math.radians(90 - lat), math.radians(lon)
        for band, m in ((39, 39), (39, 0), (39, -17), (20, 3), (38, -1)):
            value = sph_harm_y(band, abs(m), theta, phi)
            sign = (-1) ** abs(m)  # without the phase of Condon and Shortley
            real = {True: value.real, False: math.sqrt(2) * sign * value.real}[m == 0]
            if m < 0:
                real = math.sqrt(2) * sign * value.imag
            assert found[row, band * band + band + m] == pytest.approx(real, abs=1e-9)


def test_places_in_single_precision_stay_close_at_degree_forty():
    latlon = torch.tensor(np.random.default_rng(0).uniform([-90, -180], [90, 180], (500, 2)))
    double = spherical_harmonics(latlon, 40)
    single = spherical_harmonics(latlon.float(), 40)
    assert single.isfinite().all()
    assert (single - double).abs().max() < 2e-3


def test_an_encoder_is_what_it_is_told():
    encoder = PlaceEncoder("twice", 2, lambda latlon: 2 * latlon)
    assert torch.equal(encoder(PLACES), 2 * PLACES)
