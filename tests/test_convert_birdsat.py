"""Published BirdSAT: tiny checkpoints in its layout become models that compute the same."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from generation.cli import main as terrascape
from generation.convert import convert
from generation.encoders.birdsat import as_view
from generation.encoders.cross_view import Above, load_cross_view
from generation.errors import MissingFileError, WeightsError

DIM, WIDTH, HEADS = 64, 32, 1
SIDES, PATCHES = (96, 56), (32, 28)  # 9 and 4 patches


class Attention(nn.Module):
    """ViTAE's: its queries and values have biases and its keys have none."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM)
        self.q_bias, self.v_bias = (nn.Parameter(torch.randn(DIM)) for _ in "qv")

    def forward(self, x):
        query, key, value = self.qkv(x).chunk(3, -1)
        scores = (query + self.q_bias) @ key.transpose(1, 2) / DIM**0.5
        return self.proj(scores.softmax(-1) @ (value + self.v_bias))


class PlainAttention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim, self.qkv, self.proj = dim, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        query, key, value = self.qkv(x).chunk(3, -1)
        return self.proj((query @ key.transpose(1, 2) / self.dim**0.5).softmax(-1) @ value)


class Block(nn.Module):
    def __init__(self, dim, attention):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.attn = attention
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def widened(self, x):
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))

    def forward(self, x):
        return self.widened(x + self.attn(self.norm1(x)))


class Cell(Block):
    def __init__(self):
        super().__init__(DIM, Attention())
        self.PCM = nn.Sequential(
            nn.Conv2d(DIM, 4 * DIM, 3, padding=1, groups=DIM // 4),
            nn.BatchNorm2d(4 * DIM),
            nn.SiLU(),
            nn.Conv2d(4 * DIM, DIM, 3, padding=1, groups=DIM // 4),
        )
        self.PCM[1].running_mean.normal_()

    def forward(self, x):
        count, tokens, dim = x.shape
        side = round((tokens - 1) ** 0.5)
        grid = x[:, 1:].permute(0, 2, 1).reshape(count, dim, side, side)
        near = self.PCM(grid).reshape(count, dim, -1).permute(0, 2, 1)
        x = x + self.attn(self.norm1(x))
        return self.widened(torch.cat([x[:, :1], x[:, 1:] + near], 1))


class Tower(nn.Module):
    """A masked autoencoder with the names of its layers; two views have numbers."""

    def __init__(self, views):
        super().__init__()
        numbers = [""] if len(views) == 1 else ["1", "2"]
        tokens = 1 + sum((SIDES[v] // PATCHES[v]) ** 2 for v in views)
        self.read = [f"patch_embed{number}" for number in numbers]
        for number, view in zip(numbers, views, strict=True):
            patch = PATCHES[view]
            embed = nn.ModuleDict({"proj": nn.Conv2d(3, DIM, patch, stride=patch)})
            self.add_module(f"patch_embed{number}", embed)
            self.add_module(f"decoder_pred{number}", nn.Linear(WIDTH, 3 * patch**2))
        self.cls_token = nn.Parameter(torch.randn(1, 1, DIM))
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, DIM), requires_grad=False)
        both = len(views) == 2
        self.blocks = nn.ModuleList(
            Block(DIM, PlainAttention(DIM)) if both else Cell() for _ in range(2)
        )
        self.norm = nn.LayerNorm(DIM, eps=1e-6)
        self.decoder_embed = nn.Linear(DIM, WIDTH)
        self.mask_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.decoder_pos_embed = nn.Parameter(torch.randn(1, tokens, WIDTH), requires_grad=False)
        self.decoder_blocks = nn.ModuleList([Block(WIDTH, PlainAttention(WIDTH))])
        self.decoder_norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def first(self, images, order=None):
        """Give the class token, the patches being read in an order."""
        parts = [
            getattr(self, name)["proj"](image).flatten(2).transpose(1, 2)
            for name, image in zip(self.read, images, strict=True)
        ]
        x = torch.cat(parts, 1) + self.pos_embed[:, 1:]
        x = x if order is None else x[:, order]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([first, x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class Published(nn.Module):
    def __init__(self, kind):
        super().__init__()
        if kind == "embed":
            self.ground_encoder, self.sat_encoder = Tower([0]), Tower([1])
        else:
            self.model, self.match = Tower([0, 1]), nn.Linear(DIM, 1)
        self.geo_encode, self.date_encode = nn.Linear(4, DIM), nn.Linear(4, DIM)


def told(net, latlon, date):
    lat, lon = (np.pi * latlon / [90, 180]).T
    month, day = (2 * np.pi * date / [12, 31]).T
    place = np.stack([np.sin(lat), np.cos(lat), np.sin(lon), np.cos(lon)], 1)
    when = np.stack([np.sin(month), np.cos(month), np.sin(day), np.cos(day)], 1)
    place, when = (torch.from_numpy(each).float() for each in (place, when))
    return net.geo_encode(place) + net.date_encode(when)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("birdsat")
    nets = {kind: Published(kind).eval() for kind in ("embed", "match")}
    for kind, net in nets.items():
        torch.save({"state_dict": net.state_dict(), "epoch": 1}, home / f"{kind}.ckpt")
    return home, nets


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    view, above = (rng.integers(0, 256, (2, side, side, 3), np.uint8) for side in SIDES)
    known = np.array([[45.0, 7.0], [-30.0, 150.0]]), np.array([[5.0, 9.0], [12.0, 31.0]])
    return view, Above(above, *(each.astype(np.float32) for each in known))


@torch.no_grad()
def test_a_folder_of_both_computes_what_is_published(checkpoints, samples, tmp_path):
    home, nets = checkpoints
    report = convert("birdsat", home, tmp_path)
    encoder = load_cross_view(str(tmp_path))
    view, above = samples
    images = [
        as_view(torch.from_numpy(each), (side, side))
        for each, side in zip((view, above.images), SIDES, strict=True)
    ]
    # its towers read their patches in an order drawn by lot, which is always the same here
    orders = [torch.randperm(count, generator=torch.Generator().manual_seed(0)) for count in (9, 4)]
    embed, match = nets["embed"], nets["match"]
    known = told(embed, above.latlon, above.date)
    ground = F.normalize(embed.ground_encoder.first(images[:1], orders[0]), dim=1)
    satellite = F.normalize(embed.sat_encoder.first(images[1:], orders[1]) + known, dim=1)
    close = {"atol": 1e-5, "rtol": 1e-4}
    torch.testing.assert_close(encoder.ground(view), ground, **close)
    torch.testing.assert_close(encoder.satellite(above), satellite, **close)
    plain = F.normalize(embed.sat_encoder.first(images[1:], orders[1]), dim=1)
    torch.testing.assert_close(encoder.satellite(Above(above.images)), plain, **close)
    logits = match.match(match.model.first(images) + told(match, above.latlon, above.date))
    torch.testing.assert_close(encoder.match(view, above), logits[:, 0].sigmoid(), **close)
    assert len(report.mapped) + len(report.left) == sum(len(n.state_dict()) for n in nets.values())
    assert set(report.left.values()) == {"the satellite tower's own decoder, which nothing reads"}
    assert all(name.startswith("embed.ckpt/sat_encoder.") for name in report.left)


def test_one_file_is_half_a_model(checkpoints, samples, tmp_path, capsys):
    home, _ = checkpoints
    assert terrascape(["convert", "birdsat", str(home / "match.ckpt"), "--out", str(tmp_path)]) == 0
    assert "0 left" in capsys.readouterr().err
    encoder = load_cross_view(str(tmp_path))
    assert encoder.match(*samples).shape == (2,)
    with pytest.raises(MissingFileError, match="has no embed/"):
        encoder.ground(samples[0])


def test_other_checkpoints_are_refused(checkpoints, tmp_path):
    home, nets = checkpoints
    state = nets["match"].state_dict()

    def refused(told, source, kind=WeightsError):
        with pytest.raises(kind, match=told):
            convert("birdsat", source, tmp_path / "out")
        assert not list((tmp_path / "out").rglob("*.safetensors"))

    def saved(changed):
        file = tmp_path / "changed.ckpt"
        torch.save({"state_dict": changed}, file)
        return file

    refused("holds no .ckpt", tmp_path, MissingFileError)
    refused("neither CVE-MAE", saved({"encoder.weight": torch.ones(2)}))
    refused(
        "model.norm.weight|joint_tower.norm",
        saved({k: v for k, v in state.items() if k != "model.norm.weight"}),
    )
    refused(
        "lacks 'joint_tower.pos_embed'",
        saved({k: v for k, v in state.items() if "pos_embed" not in k}),
    )
    refused("no two square views", saved({**state, "model.pos_embed": torch.ones(1, 8, DIM)}))
    embed = {k: v for k, v in nets["embed"].state_dict().items() if not k.endswith("0.attn.q_bias")}
    refused("bias of queries or of values alone", saved(embed))
    twice = tmp_path / "twice"
    twice.mkdir()
    for name in ("a.ckpt", "b.ckpt"):
        (twice / name).write_bytes((home / "match.ckpt").read_bytes())
    with pytest.raises(WeightsError, match="are both match"):
        convert("birdsat", twice, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.safetensors"))
