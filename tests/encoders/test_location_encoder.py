"""Places as numbers: no pole, no seam, known functions."""

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.special import sph_harm_y

from generation.checkpoint import PART_WEIGHTS, load_safetensors, save_safetensors
from generation.encoders.location import (
    GeoClipLocationEncoder,
    LocationEncoder,
    equal_earth,
    load_geoclip,
    spherical_harmonics,
)
from generation.errors import MissingFileError, WeightsError
from generation.registry import locate


def expected(latlon, degree):
    """The real harmonics from scipy's complex ones, without the Condon-Shortley phase."""
    polar, azimuth = np.radians(90 - latlon[:, 0]), np.radians(latlon[:, 1])
    values = []
    for band in range(degree):
        for m in range(-band, band + 1):
            y = (-1) ** m * sph_harm_y(band, abs(m), polar, azimuth)
            part = y.real if m >= 0 else y.imag
            values.append(part * (np.sqrt(2) if m else 1))
    return np.stack(values, axis=-1)


def test_harmonics_have_the_published_values():
    rng = np.random.default_rng(0)
    latlon = np.stack([rng.uniform(-90, 90, 50), rng.uniform(-180, 180, 50)], axis=1)
    ours = spherical_harmonics(torch.from_numpy(latlon), 12).numpy()
    np.testing.assert_allclose(ours, expected(latlon, 12), atol=1e-12)


def test_harmonics_are_orthonormal():
    degree = 10
    nodes, weights = np.polynomial.legendre.leggauss(degree)
    lat, lon = np.degrees(np.arcsin(nodes)), np.arange(2 * degree) * 360 / (2 * degree) - 180
    grid = np.stack(np.meshgrid(lat, lon, indexing="ij"), axis=-1).reshape(-1, 2)
    area = np.repeat(weights, 2 * degree) * 2 * np.pi / (2 * degree)
    values = spherical_harmonics(torch.from_numpy(grid), degree).numpy()
    gram = (values * area[:, None]).T @ values
    np.testing.assert_allclose(gram, np.eye(degree**2), atol=1e-10)


def test_both_poles_are_ordinary_points_in_single_precision():
    lon = torch.linspace(-180, 180, 37)
    for lat in (90.0, -90.0, 89.99999):
        latlon = torch.stack([torch.full_like(lon, lat), lon], dim=-1)
        values = spherical_harmonics(latlon, 40)
        assert values.isfinite().all()
        assert (values - values[0]).abs().max() < 1e-4  # every longitude is the same place
        assert values.abs().max() < 40


def test_single_precision_stays_close_to_double_at_a_high_degree():
    latlon = torch.rand(200, 2, dtype=torch.float64) * torch.tensor([180.0, 360.0]) - torch.tensor(
        [90.0, 180.0]
    )
    exact = spherical_harmonics(latlon, 40)
    assert (spherical_harmonics(latlon.float(), 40) - exact).abs().max() < 1e-3


def test_there_is_no_seam_at_the_antimeridian():
    lat = torch.linspace(-90, 90, 19)
    east, west = (torch.stack([lat, torch.full_like(lat, lon)], -1) for lon in (180.0, -180.0))
    torch.testing.assert_close(
        spherical_harmonics(east, 20), spherical_harmonics(west, 20), atol=1e-4, rtol=0
    )


def test_any_leading_shape_is_kept():
    assert spherical_harmonics(torch.zeros(2), 3).shape == (9,)
    assert spherical_harmonics(torch.zeros(4, 5, 2), 3).shape == (4, 5, 9)


def test_an_encoder_tells_places_apart_and_learns():
    torch.manual_seed(0)
    encoder = LocationEncoder(degree=6, hidden_dim=16, embed_dim=8)
    places = torch.tensor([[45.98, 7.66], [46.5, 7.66], [-45.98, 7.66], [45.98, -172.34]])
    embedding = encoder(places)
    assert embedding.shape == (4, 8)
    assert torch.pdist(embedding).min() > 1e-3
    embedding.square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_a_saved_encoder_gives_the_same_embedding(tmp_path):
    encoder = LocationEncoder(degree=4, hidden_dim=8, embed_dim=6, layers=3)
    encoder.save_pretrained(tmp_path)
    places = torch.tensor([[1.0, 2.0], [-3.0, 4.0]])
    loaded = LocationEncoder.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(places), encoder(places))


def test_the_fourier_towers_are_rebuilt_from_a_configuration_of_lists(tmp_path):
    encoder = GeoClipLocationEncoder(
        sigmas=[1.0, 4.0], fourier_dim=4, hidden_dim=8, embed_dim=6
    ).eval()
    encoder.save_pretrained(tmp_path)
    places = torch.tensor([[90.0, 0.0], [-12.0, 34.0]])
    loaded = GeoClipLocationEncoder.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(places), encoder(places))
    assert not any(p.requires_grad for p in loaded.frequencies)


@pytest.fixture
def geoclip(tmp_path):
    """A small encoder, kept as the published one is: in half precision but for its frequencies."""
    torch.manual_seed(0)
    encoder = GeoClipLocationEncoder(
        sigmas=[1.0, 256.0], fourier_dim=8, hidden_dim=16, embed_dim=6
    ).eval()
    encoder.save_config(tmp_path)
    kept = {
        name: value if name.startswith("frequencies.") else value.half()
        for name, value in encoder.state_dict().items()
    }
    save_safetensors(kept, tmp_path / PART_WEIGHTS)
    return encoder, kept


def test_geoclip_is_half_on_disk_and_single_in_memory(geoclip, tmp_path):
    encoder, kept = geoclip
    loaded = load_geoclip(tmp_path)
    assert not loaded.training
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    for name, value in load_safetensors(tmp_path / PART_WEIGHTS).items():
        assert value.dtype == (torch.float32 if "frequencies" in name else torch.float16)
        assert torch.equal(loaded.state_dict()[name], kept[name].float())
    for mine, theirs in zip(loaded.frequencies, encoder.frequencies, strict=True):
        assert torch.equal(mine, theirs)  # to the last bit: they are phases of many turns
        assert not mine.requires_grad
    places = torch.tensor([[90.0, 0.0], [-12.0, 34.0]])
    torch.testing.assert_close(loaded(places), encoder(places), atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", ["frequencies.1", "towers.0.4.weight"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_geoclip_with_a_number_that_is_none_is_refused(geoclip, tmp_path, name, bad):
    _, kept = geoclip
    kept[name].view(-1)[3] = bad
    safetensors.torch.save_file(kept, tmp_path / PART_WEIGHTS)
    with pytest.raises(WeightsError, match=rf"{name} holds NaN or infinity in 1 of .*fetch"):
        load_geoclip(tmp_path)


def test_geoclip_that_is_not_whole_is_refused(geoclip, tmp_path):
    _, kept = geoclip
    save_safetensors({**kept, "frequencies.0": torch.ones(8, 3)}, tmp_path / PART_WEIGHTS)
    with pytest.raises(WeightsError, match=r"frequencies\.0 has shape \(8, 3\) and not \(8, 2\)"):
        load_geoclip(tmp_path)
    del kept["towers.1.6.bias"]
    save_safetensors(kept, tmp_path / PART_WEIGHTS)
    with pytest.raises(WeightsError, match=r"towers\.1\.6\.bias is missing"):
        load_geoclip(tmp_path)
    (tmp_path / PART_WEIGHTS).unlink()
    with pytest.raises(MissingFileError, match="no weights at"):
        load_geoclip(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(MissingFileError, match=r"config\.json is not there"):
        load_geoclip(tmp_path)


def test_the_shipped_geoclip_has_its_published_frequencies():
    """Their spread is that of the paper: sigma 1, 16 and 256."""
    folder = locate("geoclip-location")
    loaded = load_geoclip(folder)
    stored = load_safetensors(folder / PART_WEIGHTS)
    for index, sigma in enumerate((1.0, 16.0, 256.0)):
        frequencies = loaded.frequencies[index]
        assert torch.equal(frequencies, stored[f"frequencies.{index}"])
        assert frequencies.std().item() == pytest.approx(sigma, rel=0.1)
    here, near, far = torch.tensor([[45.98, 7.66], [45.98, 7.67], [-33.9, 151.2]])
    with torch.no_grad():
        embedding = loaded(torch.stack([here, near, far]))
    alike = torch.nn.functional.cosine_similarity(embedding[:1], embedding[1:])
    assert alike[0] > 0.9 > alike[1]


@pytest.mark.parametrize(
    ("lat", "lon", "x", "y"),
    [
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 180.0, 2.7066299836, 0.0),
        (90.0, 0.0, 0.0, 1.3173627591),  # the pole is a line
        (-90.0, -180.0, -1.6035886, -1.3173627591),
    ],
)
def test_equal_earth_has_the_published_extent(lat, lon, x, y):
    xy = equal_earth(torch.tensor([[lat, lon]], dtype=torch.float64))[0] * 180 / 66.50336
    assert xy.tolist() == pytest.approx([x, y], abs=2e-3)
