import json
import re
import zipfile

import pytest
import torch
from diffusers import ControlNetModel

from generation.checkpoint import load_safetensors
from generation.convert import convert, kinds
from generation.convert.geoclip import MEMBER, geoclip_shapes
from generation.convert.geosynth import controlnet_config, coordnet_shapes
from generation.convert.report import WEIGHTS_NAME
from generation.encoders.location import equal_earth, load_geoclip
from generation.errors import InvalidSpecError, MissingFileError, OutputError, WeightsError

TINY = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "layers_per_block": 2,
    "cross_attention_dim": 16,
    "attention_head_dim": [1, 1],
    "use_linear_projection": True,
    "conditioning_embedding_out_channels": (4, 4, 8, 8),
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def ldm_name(name, layers=2):
    """The name that the original implementation gives a parameter of diffusers' ControlNet."""
    for new, old in RESNET.items() if "resnets" in name else ():
        name = name.replace(f".{new}.", f".{old}.")

    def level(match):
        block, kind, index, rest = match.groups()
        place = int(block) * (layers + 1) + int(index) + 1
        if kind == "downsamplers":
            return f"input_blocks.{(int(block) + 1) * (layers + 1)}.0.op.{rest.split('.', 1)[1]}"
        return f"input_blocks.{place}.{int(kind == 'attentions')}.{rest}"

    rules = [
        (r"^time_embedding\.linear_(\d)", lambda m: f"time_embed.{2 * int(m[1]) - 2}"),
        (r"^conv_in", "input_blocks.0.0"),
        (r"^controlnet_cond_embedding\.conv_in", "input_hint_block.0"),
        (r"^controlnet_cond_embedding\.conv_out", "input_hint_block.14"),
        (
            r"^controlnet_cond_embedding\.blocks\.(\d)",
            lambda m: f"input_hint_block.{2 * int(m[1]) + 2}",
        ),
        (r"^controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0"),
        (r"^controlnet_mid_block", "middle_block_out.0"),
        (r"^mid_block\.attentions\.0", "middle_block.1"),
        (r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
        (r"^down_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", level),
    ]
    for pattern, replacement in rules:
        name, hits = re.subn(pattern, replacement, name)
        if hits:
            break
    return name


def randomised(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def controlnet():
    model = ControlNetModel(**TINY)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict({name: value / 10 for name, value in randomised(shapes).items()})
    return model.eval()


@pytest.fixture(scope="module")
def coordnet():
    return randomised(coordnet_shapes([32, 32, 32, 32, 64, 64, 64], 8, 128), seed=1)


@pytest.fixture
def checkpoint(controlnet, coordnet, tmp_path):
    state = {f"control_model.{ldm_name(n)}": value for n, value in controlnet.state_dict().items()}
    state |= {f"control_model.{name}": value for name, value in coordnet.items()}
    state |= {
        "model.diffusion_model.out.2.weight": torch.zeros(1),
        "first_stage_model.x": torch.zeros(1),
        "cond_stage_model.y": torch.zeros(1),
        "betas": torch.zeros(4),
        "surprise": torch.zeros(1),
    }
    path = tmp_path / "geosynth.ckpt"
    torch.save({"state_dict": state, "optimizer_states": [], "global_step": 7}, path)
    return path


def rewrite(path, change):
    content = torch.load(path, weights_only=True)
    change(content["state_dict"])
    torch.save(content, path)


def test_the_controlnet_loads_strictly_and_is_equal_number_by_number(
    checkpoint, controlnet, tmp_path
):
    convert("controlnet", checkpoint, tmp_path / "out")
    loaded = ControlNetModel.from_pretrained(tmp_path / "out" / "controlnet")
    result = loaded.load_state_dict(
        load_safetensors(tmp_path / "out" / "controlnet" / "diffusion_pytorch_model.safetensors"),
        strict=True,
    )
    assert not result.missing_keys
    assert not result.unexpected_keys
    for name, value in controlnet.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_the_converted_controlnet_computes_the_same(checkpoint, controlnet, tmp_path):
    convert("controlnet", checkpoint, tmp_path / "out")
    loaded = ControlNetModel.from_pretrained(tmp_path / "out" / "controlnet").eval()
    inputs = {
        "sample": torch.randn(1, 4, 8, 8),
        "timestep": torch.tensor([7]),
        "encoder_hidden_states": torch.randn(1, 3, 16),
        "controlnet_cond": torch.rand(1, 3, 64, 64),
    }
    with torch.no_grad():
        wanted, found = controlnet(**inputs), loaded(**inputs)
    assert torch.equal(wanted.mid_block_res_sample, found.mid_block_res_sample)
    for one, other in zip(wanted.down_block_res_samples, found.down_block_res_samples, strict=True):
        assert torch.equal(one, other)


def test_the_coordnet_is_kept_apart_and_equal(checkpoint, coordnet, tmp_path):
    for kind in ("controlnet", "coordnet"):
        folder = tmp_path / kind / "coordnet"
        convert(kind, checkpoint, tmp_path / kind)
        loaded = load_safetensors(folder / "diffusion_pytorch_model.safetensors")
        assert loaded.keys() == coordnet.keys()
        assert all(torch.equal(loaded[name], value) for name, value in coordnet.items())
        settings = json.loads((folder / "config.json").read_text())
        assert settings["channels"] == [32, 32, 32, 32, 64, 64, 64]
        assert (settings["embed_dim"], settings["time_embed_dim"]) == (8, 128)


def test_every_key_of_the_checkpoint_is_accounted_for_once(checkpoint, tmp_path):
    keys = set(torch.load(checkpoint, weights_only=True)["state_dict"])
    for kind in ("controlnet", "coordnet"):
        report = convert(kind, checkpoint, tmp_path / kind)
        assert report.mapped.keys() | report.left.keys() == keys
        assert not report.mapped.keys() & report.left.keys()
        assert report.left["surprise"].startswith("unknown")
        assert "frozen" in report.left["first_stage_model.x"]
        assert "schedule" in report.left["betas"]
        assert [n.split(":")[0] for n in report.notes[:2]] == ["global_step", "optimizer_states"]
        saved = json.loads((tmp_path / kind / "conversion.json").read_text())
        assert saved["left"] == report.left
        assert all((tmp_path / kind / file).is_file() for file in report.files)


def test_a_checkpoint_without_coordnet_gives_a_controlnet_only(checkpoint, tmp_path):
    def drop(state):
        for name in [name for name in state if ".loc_" in name]:
            del state[name]

    rewrite(checkpoint, drop)
    convert("controlnet", checkpoint, tmp_path / "out")
    assert not (tmp_path / "out" / "coordnet").exists()
    with pytest.raises(WeightsError, match="only the checkpoints named Location"):
        convert("coordnet", checkpoint, tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("control_model.zero_convs.3.0.weight"), r"lacks .*down_blocks\.3"),
        (lambda s: s.pop("control_model.time_embed.0.bias"), "time_embedding.linear_1.bias"),
        (
            lambda s: s.update({"control_model.new_thing.weight": torch.ones(1)}),
            "no place for .*new_thing",
        ),
        (
            lambda s: s.update({"control_model.time_embed.0.bias": torch.ones(3)}),
            r"has shape \(3,\)",
        ),
        (
            lambda s: s["control_model.time_embed.0.bias"].fill_(float("nan")),
            "NaN or infinity",
        ),
        (lambda s: s.pop("control_model.loc_blocks.1.ff.weight"), r"loc_blocks\.1\.ff\.weight"),
        (lambda s: s.pop("control_model.input_hint_block.8.weight"), "input_hint_block.8"),
        (
            lambda s: [s.pop(name) for name in list(s) if name.startswith("control_model.")],
            "no key starts with control_model",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(checkpoint, tmp_path, change, reason):
    rewrite(checkpoint, change)
    with pytest.raises(WeightsError, match=reason):
        convert("controlnet", checkpoint, tmp_path / "out")
    assert not (tmp_path / "out" / "controlnet" / "diffusion_pytorch_model.safetensors").exists()


def test_full_size_configurations_are_read_off_the_shapes():
    settings = {
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "layers_per_block": 2,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
        "conditioning_embedding_out_channels": [16, 32, 96, 256],
    }
    older = {"cross_attention_dim": 768, "attention_head_dim": 8, "use_linear_projection": False}
    for wanted in (settings, settings | older):
        with torch.device("meta"):
            state = ControlNetModel(**wanted).state_dict()
        shapes = {ldm_name(name): tuple(value.shape) for name, value in state.items()}
        found = controlnet_config("x", shapes)
        assert {name: found[name] for name in wanted} == wanted
        assert (found["in_channels"], found["conditioning_channels"]) == (4, 3)


def test_the_published_coordnet_has_its_known_size():
    shapes = coordnet_shapes([320] * 4 + [640] * 3 + [1280] * 6)
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 16_443_392


@pytest.fixture
def geoclip_wheel(tmp_path):
    weights = {n: value / 50 for n, value in randomised(geoclip_shapes()).items()}
    weights["LocEnc2.capsule.0.b"] *= 50 * 256
    torch.save(weights, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "geoclip.whl", "w") as wheel:
        wheel.write(tmp_path / "w.pth", MEMBER)
    return tmp_path / "geoclip.whl", weights


def test_geoclip_is_halved_but_for_its_frequencies(geoclip_wheel, tmp_path):
    wheel, weights = geoclip_wheel
    report = convert("geoclip", wheel, tmp_path / "out")
    loaded = load_safetensors(tmp_path / "out" / WEIGHTS_NAME)
    assert report.mapped.keys() == weights.keys()
    assert set(report.mapped.values()) == loaded.keys()
    for name, value in weights.items():
        found = loaded[report.mapped[name]]
        assert torch.equal(found, value if name.endswith("capsule.0.b") else value.half())
    card = (tmp_path / "out" / "card.md").read_text()
    assert "MIT License" in card
    assert report.source_sha256 in card
    assert all(f"| {name} | {target} |" in card for name, target in report.mapped.items())


def test_converted_geoclip_runs_in_our_encoder(geoclip_wheel, tmp_path):
    wheel, weights = geoclip_wheel
    convert("geoclip", wheel, tmp_path / "out")
    encoder = load_geoclip(tmp_path / "out").float()
    where = torch.tensor([[45.98, 7.66], [-33.9, 151.2], [89.9, -180.0]])
    wanted = 0
    for index in range(3):
        w = {n.split(".", 1)[1]: v for n, v in weights.items() if n.startswith(f"LocEnc{index}")}
        angle = 2 * torch.pi * equal_earth(where) @ w["capsule.0.b"].T
        x = torch.cat([angle.cos(), angle.sin()], dim=-1)
        for layer in (1, 3, 5):
            x = torch.relu(x @ w[f"capsule.{layer}.weight"].T + w[f"capsule.{layer}.bias"])
        wanted = wanted + x @ w["head.0.weight"].T + w["head.0.bias"]
    with torch.no_grad():
        found = encoder(where)
    assert torch.cosine_similarity(found, wanted).min() > 0.99999


def test_geoclip_of_another_shape_is_refused(tmp_path):
    torch.save({"LocEnc0.capsule.0.b": torch.ones(3, 2)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"LocEnc0\.capsule\.0\.b has shape"):
        convert("geoclip", tmp_path / "w.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_kind_a_file_and_a_used_folder_are_checked_first(geoclip_wheel, tmp_path):
    wheel, _ = geoclip_wheel
    with pytest.raises(InvalidSpecError, match=", ".join(kinds())):
        convert("geoclop", wheel, tmp_path / "out")
    with pytest.raises(MissingFileError, match="nowhere"):
        convert("geoclip", tmp_path / "nowhere.pth", tmp_path / "out")
    convert("geoclip", wheel, tmp_path / "out")
    with pytest.raises(OutputError, match="nothing is overwritten"):
        convert("geoclip", wheel, tmp_path / "out")
