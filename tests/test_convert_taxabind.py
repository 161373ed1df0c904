"""Published TaxaBind: tiny parts in their layouts become a space that computes the same."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from generation.cli import main as terrascape
from generation.convert import convert
from generation.encoders.life_encoder import load_life
from generation.encoders.location import GeoClipLocationEncoder
from generation.encoders.sound_readers import FusedReader
from generation.errors import InvalidSpecError, MissingFileError, WeightsError
from generation.media.audio import Recording

WIDTH, HEADS, WORDS, VOCABULARY, PATCH, SIDE, DIM = 128, 2, 9, 40, 8, 16, 12
CLAP = {
    "num_mel_bins": 16, "spec_size": 64, "patch_embeds_hidden_size": 8, "depths": [2, 2],
    "num_attention_heads": [2, 4], "num_hidden_layers": 2, "window_size": 2, "hidden_size": 16,
    "projection_dim": DIM, "enable_fusion": True,
}  # fmt: skip


class Block(nn.Module):
    """A residual block with the names of open_clip."""

    def __init__(self, width):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 32), "c_proj": nn.Linear(32, width)})

    def forward(self, x, mask=None):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Tower(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(2))

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn(5, WIDTH))
        self.proj = nn.Parameter(torch.randn(WIDTH, DIM))
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Tower(WIDTH)

    def forward(self, pixels):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)
        x = self.transformer(self.ln_pre(x + self.positional_embedding))
        return self.ln_post(x[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """CLIP as open_clip lays it out: written from its paper and the names of its layers."""

    def __init__(self):
        super().__init__()
        self.visual, self.transformer = Visual(), Tower(16)
        self.token_embedding = nn.Embedding(VOCABULARY, 16)
        self.positional_embedding = nn.Parameter(torch.randn(WORDS, 16))
        self.ln_final = nn.LayerNorm(16)
        self.text_projection = nn.Parameter(torch.randn(16, DIM))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def encode_text(self, numbers):
        count = numbers.shape[1]
        mask = torch.full((count, count), -torch.inf).triu(1)
        x = self.token_embedding(numbers) + self.positional_embedding[:count]
        x = self.ln_final(self.transformer(x, mask))
        return x[torch.arange(len(x)), numbers.argmax(1)] @ self.text_projection


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.w1, self.w2 = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)

    def forward(self, x):
        return x + torch.relu(self.w2(torch.relu(self.w1(x))))


class Environments(nn.Module):
    def __init__(self):
        super().__init__()
        self.feats = nn.Sequential(nn.Linear(20, DIM), nn.ReLU(), *[Residual() for _ in range(4)])


def geoclip_named(model):
    """Give our tower of places the published names."""
    layers = {0: "capsule.1", 2: "capsule.3", 4: "capsule.5", 6: "head.0"}
    named = {f"LocEnc{n}.capsule.0.b": each for n, each in enumerate(model.frequencies)}
    for n, tower in enumerate(model.towers):
        for at, name in layers.items():
            named |= {f"LocEnc{n}.{name}.{k}": v for k, v in tower[at].state_dict().items()}
    return {name: value.detach().clone() for name, value in named.items()}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The folder of parts and the models that lie there."""
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("published")
    made = {
        "clip": OpenClip(),
        "climate": Environments(),
        "place": GeoClipLocationEncoder(fourier_dim=4, hidden_dim=6, embed_dim=DIM),
        "satellite": CLIPVisionModelWithProjection(
            CLIPVisionConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                             num_attention_heads=2, image_size=SIDE, patch_size=PATCH,
                             projection_dim=DIM)
        ),
        "sound": ClapAudioModelWithProjection(ClapAudioConfig(**CLAP)),
    }  # fmt: skip
    for model in made.values():
        model.eval()
    for name in ("taxabind-vit-b-16", "ecogeo", "ecoclim"):
        (home / name).mkdir()
    clip = {**made["clip"].state_dict(), "attn_mask": torch.zeros(WORDS, WORDS)}
    torch.save(clip, home / "taxabind-vit-b-16/open_clip_pytorch_model.bin")
    told = {"vision_cfg": {"width": WIDTH}, "text_cfg": {"heads": HEADS}}
    (home / "taxabind-vit-b-16/open_clip_config.json").write_text(json.dumps({"model_cfg": told}))
    torch.save(geoclip_named(made["place"]), home / "ecogeo/pytorch_model.bin")
    torch.save(made["climate"].state_dict(), home / "ecoclim/pytorch_model.bin")
    made["satellite"].save_pretrained(home / "ecosat")
    made["sound"].save_pretrained(home / "ecosound")
    return home, made


@pytest.fixture(scope="module")
def converted(parts, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted")
    return convert("taxabind", parts[0], out), load_life(str(out)), out


def alike(found, wanted):
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, F.normalize(wanted, dim=1), atol=2e-5, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-4  # not one vector for all


def test_every_key_is_told_of(parts, converted):
    report, life, out = converted
    assert list(report.left) == ["taxabind-vit-b-16/attn_mask"]
    targets = [name for told in report.mapped.values() for name in told.split(", ")]
    assert len(targets) == len(set(targets))
    missing = life.published.state_dict().keys() - set(targets)
    assert missing == {f"towers.environment.{name}" for name in ("mean", "deviation")}
    assert json.loads((out / "conversion.json").read_text())["kind"] == "taxabind"
    assert life.dim == DIM
    assert life.modalities == ("text", "ground", "satellite", "location", "environment", "audio")


@torch.no_grad()
def test_names_and_photographs_are_those_of_open_clip(parts, converted):
    clip, space = parts[1]["clip"], converted[1].published
    numbers = torch.tensor([[38, 4, 5, 39, 39, 39], [38, 7, 8, 9, 10, 39]])
    alike(space("text", numbers), clip.encode_text(numbers))
    pixels = torch.randn(2, 3, SIDE, SIDE)
    alike(space("ground", pixels), clip.visual(pixels))


@torch.no_grad()
def test_images_places_environments_and_sounds_are_those_of_their_models(parts, converted):
    made, life = parts[1], converted[1]
    pixels = torch.randn(2, 3, SIDE, SIDE)
    alike(life.published("satellite", pixels), made["satellite"](pixels).image_embeds)
    latlon = torch.tensor([[-90.0, 180.0], [46.5, 7.25], [90.0, -180.0]])
    alike(life.location(latlon), made["place"](latlon))
    values = 9 * torch.randn(3, 20)  # beyond what ours would clamp
    alike(life.variables(values), made["climate"].feats(values))
    rng = np.random.default_rng(0)
    heard = [Recording(rng.normal(0, 0.1, 48_000 * n).astype(np.float32), 48_000) for n in (1, 2)]
    tower = life.published.tower("audio")
    mels = torch.cat([FusedReader(tower.bands, tower.frames)(each) for each in heard])
    alike(life.audio(heard), made["sound"](mels, torch.ones(2, 1).bool()).audio_embeds)


def test_photographs_and_tiles_are_read_as_pixels(converted):
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    for read in (converted[1].ground, converted[1].satellite):
        found = read(images)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
        assert not torch.allclose(found[0], found[1])


def test_what_cannot_be_read_is_said(converted):
    life = converted[1]
    with pytest.raises(MissingFileError, match="tokenizer"):
        life.text(["Animalia Chordata"])
    with pytest.raises(InvalidSpecError, match="19 variables"):
        life.environment(torch.zeros(1, 2))
    with pytest.raises(InvalidSpecError, match="give 20"):
        life.variables(torch.zeros(1, 18))
    with pytest.raises(InvalidSpecError, match="nothing is known"):
        life.variables(torch.full((1, 20), torch.nan))


def test_some_parts_make_a_space_too(parts, tmp_path):
    source = tmp_path / "some"
    source.mkdir()
    (source / "ecogeo").symlink_to(parts[0] / "ecogeo")
    assert terrascape(["convert", "taxabind", str(source), "--out", str(tmp_path / "out")]) in (
        0,
        None,
    )
    life = load_life(str(tmp_path / "out"))
    assert life.modalities == ("location",)
    with pytest.raises(InvalidSpecError, match=r"no modality 'audio' \(give one of location\)"):
        life.audio([])


def test_parts_that_are_not_whole_are_refused(parts, tmp_path):
    with pytest.raises(MissingFileError, match="no part of TaxaBind"):
        convert("taxabind", tmp_path, tmp_path / "out")
    folder = tmp_path / "ecoclim"
    folder.mkdir()
    with pytest.raises(MissingFileError, match="no weights"):
        convert("taxabind", tmp_path, tmp_path / "out")
    weights = parts[1]["climate"].state_dict()
    weights["feats.2.w3.weight"] = torch.zeros(1)
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"w3"):
        convert("taxabind", tmp_path, tmp_path / "out")
