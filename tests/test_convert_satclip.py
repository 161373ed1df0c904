import json
import math

import numpy as np
import pytest
import torch
from scipy.special import assoc_legendre_p_all

from generation.convert import convert
from generation.convert.report import WEIGHTS_NAME
from generation.encoders.location import LocationEncoder
from generation.errors import WeightsError

DEGREE, HIDDEN, EMBED = 6, 12, 5


def satclip_features(lon, lat, degree=DEGREE):
    """The published features: angles from -180 and -90, zonal ones pi times too large."""
    phi, theta = math.radians(lon + 180), math.radians(lat + 90)
    legendre = assoc_legendre_p_all(degree, degree, math.cos(theta))[0]
    features = []
    for band in range(degree):
        for m in range(-band, band + 1):
            k = abs(m)
            value = (-1) ** k * legendre[band, k]  # without the Condon-Shortley phase
            factorials = math.factorial(band - k) / math.factorial(band + k)
            if m == 0:
                features.append(math.sqrt((2 * band + 1) / 4 * math.pi) * value)
                continue
            norm = math.sqrt(2 * (2 * band + 1) / (4 * math.pi) * factorials)
            features.append(norm * value * (math.sin(k * phi) if m < 0 else math.cos(k * phi)))
    return np.array(features)


@pytest.fixture
def checkpoint(tmp_path):
    generator = torch.Generator().manual_seed(0)
    sizes = {"layers.0": (HIDDEN, DEGREE**2), "layers.1": (HIDDEN, HIDDEN)}
    state = {}
    for layer, shape in {**sizes, "last_layer": (EMBED, HIDDEN)}.items():
        weight = torch.randn(shape, generator=generator, dtype=torch.float64) / shape[1]
        state[f"model.location.nnet.{layer}.weight"] = weight
        state[f"model.location.nnet.{layer}.bias"] = torch.randn(shape[0], dtype=torch.float64)
    path = tmp_path / "satclip.ckpt"
    torch.save({"state_dict": {**state, "model.visual.conv1.weight": torch.ones(1)}}, path)
    return path, {name.rpartition("nnet.")[2]: value.numpy() for name, value in state.items()}


def test_the_first_published_constants_are_met():
    features = satclip_features(0.0, 90.0 - 180.0)  # theta = 0
    np.testing.assert_allclose(features[0], 0.886226925452758)  # printed in its source
    np.testing.assert_allclose(features[2], 1.53499006191973)


def test_the_converted_encoder_gives_satclips_embeddings(checkpoint, tmp_path):
    path, weights = checkpoint
    report = convert("satclip", path, tmp_path / "out")
    encoder = LocationEncoder.from_pretrained(tmp_path / "out", torch_dtype=torch.float64)
    assert report.left.keys() == {"model.visual.conv1.weight"}
    assert len(report.mapped) == len(weights)
    for lat, lon in [(37.776, -122.256), (-33.9, 151.2), (0.0, 0.0), (88.0, -179.9), (-90.0, 10.0)]:
        x = satclip_features(lon, lat)
        x = np.sin(30 * (weights["layers.0.weight"] @ x + weights["layers.0.bias"]))
        x = np.sin(weights["layers.1.weight"] @ x + weights["layers.1.bias"])
        wanted = weights["last_layer.weight"] @ x + weights["last_layer.bias"]
        with torch.no_grad():
            found = encoder(torch.tensor([[lat, lon]], dtype=torch.float64))[0]
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-11)


def test_its_sizes_are_read_off_the_weights(checkpoint, tmp_path):
    convert("satclip", checkpoint[0], tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["degree"] == DEGREE
    assert (settings["hidden_dim"], settings["embed_dim"], settings["layers"]) == (HIDDEN, EMBED, 2)
    assert (tmp_path / "out" / WEIGHTS_NAME).is_file()


def test_another_model_is_refused(tmp_path):
    torch.save(
        {"state_dict": {"model.nnet.layers.0.weight": torch.ones(3, 7)}}, tmp_path / "x.ckpt"
    )
    with pytest.raises(WeightsError, match="no location tower of SatCLIP"):
        convert("satclip", tmp_path / "x.ckpt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
