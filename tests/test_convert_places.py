"""Published place encoders and databases: SINR, SatCLIP as repacked, and RANGE's database."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from generation.cli import main as terrascape
from generation.convert import convert
from generation.encoders.place_encoder import load_place_encoder
from generation.encoders.retrieval_model import load_retrieval
from generation.errors import MissingFileError, WeightsError

DEGREE, HIDDEN, EMBED, ROWS = 4, 12, 5, 40


# --- SINR ----------------------------------------------------------------------------------------
class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w2 = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return x + F.relu(self.w2(F.relu(self.w1(x))))


class Sinr(nn.Module):
    """The network and its classes, with published names and order of features."""

    def __init__(self, inputs=4):
        super().__init__()
        self.class_emb = nn.Linear(8, 30, bias=False)
        self.feats = nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), Layer(), Layer())

    def forward(self, lonlat):
        share = lonlat / torch.tensor([180.0, 90.0])
        return self.feats(torch.cat([(torch.pi * share).sin(), (torch.pi * share).cos()], 1))


def test_sinr_gives_what_its_network_gives(tmp_path, capsys):
    torch.manual_seed(0)
    net = Sinr()
    torch.save({"state_dict": net.state_dict(), "params": {"num_classes": 30}}, tmp_path / "a.pt")
    out = tmp_path / "sinr"
    assert terrascape(["convert", "sinr", str(tmp_path / "a.pt"), "--out", str(out)]) == 0
    report = json.loads((out / "conversion.json").read_text())
    assert report["left"] == {"class_emb.weight": "a class of species, or not of the network"}
    assert len(report["mapped"]) == 10
    lonlat = torch.tensor([[7.0, 45.0], [-120.0, -60.0], [180.0, 0.0]])
    found = load_place_encoder(str(out))(lonlat.flip(1))
    torch.testing.assert_close(found, net(lonlat).detach(), atol=1e-5, rtol=1e-5)
    assert "10 tensors" in capsys.readouterr().err


def test_other_networks_are_no_sinr(tmp_path):
    def refused(told, state):
        torch.save(state, tmp_path / "b.pt")
        with pytest.raises(WeightsError, match=told):
            convert("sinr", tmp_path / "b.pt", tmp_path / "out")

    state = Sinr().state_dict()
    refused("no network of SINR", {"class_emb.weight": state["class_emb.weight"]})
    refused("an environment too", Sinr(inputs=24).state_dict())
    del state["feats.3.w2.bias"]
    refused("residuals.1.w2.bias", state)


# --- SatCLIP and RANGE's database ----------------------------------------------------------------
def satclip(seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"layers.0": (HIDDEN, DEGREE**2), "layers.1": (HIDDEN, HIDDEN)}
    state = {}
    for layer, shape in {**sizes, "last_layer": (EMBED, HIDDEN)}.items():
        weight = torch.randn(shape, generator=generator, dtype=torch.float64) / shape[1] ** 0.5
        state[f"nnet.{layer}.weight"] = weight
        state[f"nnet.{layer}.bias"] = torch.randn(shape[0], generator=generator).double() / 8
    return state


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A database whose keys are near the vectors of their places, longitude first."""
    home = tmp_path_factory.mktemp("range")
    torch.save({"state_dict": satclip()}, home / "satclip.ckpt")
    convert("satclip", home / "satclip.ckpt", home / "tower")
    rng = np.random.default_rng(0)
    lonlat = np.stack([rng.uniform(-180, 180, ROWS), rng.uniform(-90, 90, ROWS)], 1)
    encoder = load_place_encoder(str(home / "tower"))
    keys = encoder(torch.from_numpy(lonlat).flip(1)).numpy()
    values = rng.normal(3, 2, (ROWS, 7))
    shutil.rmtree(home / "tower")
    arrays = {"locs": lonlat, "satclip_embeddings": 4 * keys, "image_embeddings": values}
    np.savez(home / "range_db_tiny.npz", **{k: v.astype(np.float32) for k, v in arrays.items()})
    return home


def arrays_of(home):
    with np.load(home / "range_db_tiny.npz") as data:
        return {name: data[name] for name in data.files}


def changed(home, tmp_path, **arrays):
    folder = tmp_path / "changed"
    shutil.copytree(home, folder, dirs_exist_ok=True)
    np.savez(folder / "range_db_tiny.npz", **{**arrays_of(home), **arrays})
    return folder


def test_a_published_database_is_read_with_its_encoder(published, tmp_path, capsys):
    out = tmp_path / "range"
    assert terrascape(["convert", "range", str(published), "--out", str(out)]) == 0
    told = json.loads((out / "conversion.json").read_text())
    assert told["mapped"]["locs"] == "latlon"
    assert any("fit their own places" in note for note in told["notes"])
    arrays = arrays_of(published)
    lonlat, keys = (torch.from_numpy(arrays[n]) for n in ("locs", "satclip_embeddings"))
    values = torch.from_numpy(arrays["image_embeddings"])
    encoder = load_retrieval(str(out)).encoder
    place = lonlat[3:5].flip(1).double()
    query = encoder.key(place)
    torch.testing.assert_close(query, F.normalize(keys[3:5], dim=1), atol=1e-5, rtol=1e-5)
    weights = (12 * query @ F.normalize(keys, dim=1).T).softmax(1)
    torch.testing.assert_close(encoder.visual(place, 1.0), weights @ values, atol=1e-4, rtol=1e-4)
    both = load_place_encoder(f"range:{out}")(place)
    weights = (15 * query @ F.normalize(keys, dim=1).T).softmax(1)
    expected = torch.cat([weights @ values, query], 1).double()
    torch.testing.assert_close(both, expected, atol=1e-4, rtol=1e-4)
    assert terrascape(["range", "sources", "--lat", "10", "--lon", "20", "--model", str(out)]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 10


def test_repacked_encoders_are_read_too(published, tmp_path):
    folder = tmp_path / "repacked"
    folder.mkdir()
    shutil.copy(published / "range_db_tiny.npz", folder)
    save_file(satclip(), folder / "model.safetensors")
    convert("range", folder, tmp_path / "out")
    one = load_retrieval(str(tmp_path / "out")).encoder
    convert("range", published, tmp_path / "other")
    place = torch.tensor([[45.0, 7.0]])
    torch.testing.assert_close(one(place), load_retrieval(str(tmp_path / "other")).encoder(place))


def test_rows_that_do_not_belong_together_are_refused(published, tmp_path):
    def refused(told, folder):
        with pytest.raises(WeightsError, match=told):
            convert("range", folder, tmp_path / "out")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)

    arrays = arrays_of(published)
    lonlat, keys = arrays["locs"], arrays["satclip_embeddings"]
    refused("mixed up", changed(published, tmp_path, satclip_embeddings=-keys))
    turned = np.random.default_rng(1).permutation(ROWS)
    refused("mixed up", changed(published, tmp_path, satclip_embeddings=keys[turned]))
    refused("39 keys", changed(published, tmp_path, satclip_embeddings=keys[1:]))
    refused("latitude", changed(published, tmp_path, locs=lonlat[:, ::-1]))
    refused("NaN", changed(published, tmp_path, image_embeddings=np.full((ROWS, 7), np.nan)))
    refused("of 4 dimensions", changed(published, tmp_path, satclip_embeddings=keys[:, 1:]))
    folder = changed(published, tmp_path)
    np.savez(folder / "range_db_tiny.npz", locs=lonlat)
    refused("lacks satclip_embeddings, image_embeddings", folder)
    (folder / "range_db_tiny.npz").write_bytes(b"PK\x03\x04cut")
    refused("no readable .npz", folder)


def test_both_files_are_needed(published, tmp_path):
    folder = tmp_path / "alone"
    folder.mkdir()
    shutil.copy(published / "range_db_tiny.npz", folder)
    with pytest.raises(MissingFileError, match="holds 0 files"):
        convert("range", folder, tmp_path / "out")
    with pytest.raises(MissingFileError, match="holds 0 files"):
        convert("range", tmp_path / "nowhere", tmp_path / "out")
