"""An original AudioLDM checkpoint, tiny and random, with the keys that its authors' code writes."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from published_audio import write_audioldm, write_roberta

from generation.cli import main
from generation.convert import convert
from generation.errors import MissingFileError, WeightsError
from generation.media.audio import Recording
from generation.pipelines.published_sounds import load_published
from generation.pipelines.sound_maker import SoundAsk
from generation.registry import locate

LAYERS, LEVELS = 1, 2
"""Of the tiny U-Net and of the tiny autoencoder."""
UNET_PLACES = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "film_emb",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
}
UNET_LAYERS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def ldm_unet(state):
    result = {}
    for name, value in state.items():
        place = max((p for p in UNET_PLACES if name.startswith(f"{p}.")), key=len)
        rest = name.removeprefix(f"{place}.")
        first, _, leaf = rest.partition(".")
        if "resnets" in place:
            rest = f"{UNET_LAYERS[first]}.{leaf}"
        result[f"model.diffusion_model.{UNET_PLACES[place]}.{rest}"] = value
    return result


def ldm_vae(state):
    result = {}
    for name, value in state.items():
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        for ours in range(LEVELS):
            there = f"up.{LEVELS - 1 - ours}"
            name = name.replace(f"up_blocks.{ours}.resnets", f"{there}.block")
            name = name.replace(f"up_blocks.{ours}.upsamplers.0", f"{there}.upsample")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if ".attentions.0." in name:
            name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
            for ours, theirs in (
                ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
                ("to_out.0", "proj_out"),
            ):  # fmt: skip
                name = name.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
            value = value[:, :, None, None] if value.ndim == 2 else value
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        result[f"first_stage_model.{name}"] = value
    return result


HTSAT = {
    "batch_norm.": "bn0.",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "attention.self.": "attn.",
}


def laion_clap(state):
    result = {}
    for name, value in state.items():
        if re.match(r"audio_model\..*\.self\.(key|value)\.", name):
            continue
        if name.startswith("audio_model") and ".self.query." in name:
            parts = [state[name.replace("query", part)] for part in ("query", "key", "value")]
            name, value = name.replace("query", "qkv"), torch.cat(parts)
        for side in ("audio", "text"):
            for number, place in ((1, 0), (2, 2)):
                name = name.replace(
                    f"{side}_projection.linear{number}", f"{side}_projection.{place}"
                )
        if name.startswith("audio_model."):
            name = name.replace("audio_model.audio_encoder.", "audio_branch.")
            for ours, theirs in HTSAT.items():
                name = name.replace(ours, theirs)
        name = name.replace("text_model.", "text_branch.")
        result[f"cond_stage_model.model.{name}"] = value
    return result


def original(parts, *, average=True):
    """Give the state dict of an original checkpoint of these parts."""
    unet = ldm_unet(parts["unet"].state_dict())
    vocoder = {
        f"first_stage_model.vocoder.{name.replace('upsampler.', 'ups.')}": value
        for name, value in parts["vocoder"].state_dict().items()
        if name not in ("mean", "scale")
    }
    state = ldm_vae(parts["vae"].state_dict()) | vocoder
    state |= laion_clap(parts["text_encoder"].state_dict())
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    clap = "cond_stage_model.model"
    state |= {
        "betas": betas.float(),
        "alphas_cumprod": (1 - betas).cumprod(0).float(),
        "logvar": torch.zeros(1000),
        "scale_factor": torch.tensor(0.9),
        f"{clap}.text_transform.sequential.0.weight": torch.randn(4, 4),
        f"{clap}.audio_branch.tscam_conv.weight": torch.randn(5, 16, 2, 3),
        f"{clap}.audio_branch.head.weight": torch.randn(5, 5),
        f"{clap}.audio_branch.spectrogram_extractor.stft.conv_real.weight": torch.randn(3, 1, 4),
        f"{clap}.audio_branch.logmel_extractor.melW": torch.randn(3, 16),
        f"{clap}.text_branch.embeddings.position_ids": torch.arange(66)[None],
        "some_counter": torch.tensor(1),
    }
    if not average:
        return state | unet
    for name, value in unet.items():
        state[name] = torch.randn_like(value)
        state["model_ema." + name.removeprefix("model.").replace(".", "")] = value
    return state | {"model_ema.decay": torch.tensor(0.99), "model_ema.num_updates": torch.tensor(9)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The parts, their original checkpoint, the folder it becomes and the report."""
    root = tmp_path_factory.mktemp("audioldm")
    parts = write_audioldm(root / "parts" / "audioldm", whole=True)
    state = original(parts)
    torch.save({"state_dict": state, "epoch": 3, "global_step": 7}, root / "audioldm.ckpt")
    report = convert("audioldm", root / "audioldm.ckpt", root / "home" / "audioldm")
    write_roberta(root / "home" / "audioldm" / "tokenizer")
    return root, state, report


def test_every_tensor_of_every_part_is_the_same(made):
    from safetensors.torch import load_file

    root = made[0]
    for part in ("unet", "vae", "vocoder", "text_encoder"):
        name = next((root / "parts" / "audioldm" / part).glob("*.safetensors")).name
        wanted, found = (
            load_file(root / where / "audioldm" / part / name) for where in ("parts", "home")
        )
        assert wanted.keys() == found.keys(), part
        assert all(torch.equal(wanted[key], found[key]) for key in wanted), part


def test_every_key_is_accounted_for(made):
    root, state, report = made
    assert report.mapped.keys() | report.left.keys() == state.keys()
    assert not report.mapped.keys() & report.left.keys()
    told = json.loads((root / "home" / "audioldm" / "conversion.json").read_text())
    assert told["left"]["some_counter"] == "unknown: no part of AudioLDM"
    assert "average" in told["left"]["model.diffusion_model.out.2.weight"]
    assert told["mapped"]["model_ema.diffusion_modelout2weight"] == "unet/conv_out.weight"
    qkv = "cond_stage_model.model.audio_branch.layers.0.blocks.0.attn.qkv.weight"
    assert told["mapped"][qkv].count("text_encoder/audio_model") == 3
    assert any("running average" in note for note in told["notes"])
    assert any("roberta-base" in note for note in told["notes"])


def test_the_folder_sounds_as_the_parts_did(made, monkeypatch):
    root = made[0]
    t = np.arange(8000) / 16_000
    heard = Recording(np.sin(2000 * t).astype(np.float32), 16_000)
    asks = [SoundAsk(seed=1, text="rain"), SoundAsk(seed=2, recording=heard)]
    sounds = []
    for where in ("parts", "home"):
        monkeypatch.setenv("TERRASCAPE_HOME", str(root / where))
        sounds.append(load_published("audioldm").make(asks, seconds=0.2, steps=2))
    np.testing.assert_allclose(sounds[0], sounds[1], atol=1e-6)


def test_without_a_tokenizer_it_is_told_what_is_missing(made, tmp_path, monkeypatch):
    shutil.copytree(made[0] / "home" / "audioldm", tmp_path / "audioldm")
    shutil.rmtree(tmp_path / "audioldm" / "tokenizer")
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    with pytest.raises(MissingFileError, match=r"tokenizer/vocab\.json or tokenizer\.json"):
        locate("audioldm")


def saved(state, tmp_path):
    torch.save({"state_dict": state}, tmp_path / "changed.ckpt")
    return tmp_path / "changed.ckpt"


def test_a_checkpoint_without_running_average_is_taken_as_it_is(made, tmp_path):
    state = {n: v for n, v in made[1].items() if not n.startswith("model_ema.")}
    report = convert("audioldm", saved(state, tmp_path), tmp_path / "out")
    assert report.mapped["model.diffusion_model.out.2.weight"] == "unet/conv_out.weight"
    assert not any("average" in note for note in report.notes)


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("model.diffusion_model.film_emb.weight", "no U-Net of AudioLDM.*film_emb"),
        ("model.diffusion_model.middle_block.0.in_layers.0.weight", "nothing becomes mid_block"),
        ("model_ema.diffusion_modelout2weight", "running average lacks"),
        ("first_stage_model.encoder.conv_in.weight", "no autoencoder of AudioLDM"),
        ("first_stage_model.vocoder.conv_pre.bias", r"conv_pre\.bias is missing"),
        ("cond_stage_model.model.audio_branch.bn0.weight", r"bn0\.weight is missing"),
        ("cond_stage_model.model.text_projection.2.weight", "is missing"),
        ("scale_factor", "scale_factor is missing"),
    ],
)
def test_a_key_that_is_missing_is_named(made, tmp_path, lost, reason):
    state = {name: value for name, value in made[1].items() if name != lost}
    if lost.startswith("model.diffusion_model."):
        average = "model_ema." + lost.removeprefix("model.").replace(".", "")
        state.pop(average)
    with pytest.raises(WeightsError, match=reason):
        convert("audioldm", saved(state, tmp_path), tmp_path / "out")
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"first_stage_model.more.weight": torch.ones(2)}, "no part has a place for"),
        ({"cond_stage_model.model.audio_branch.more": torch.ones(2)}, "no part has a place for"),
        ({"betas": torch.linspace(0.0015, 0.0195, 1000)}, "not linear in the square root"),
        ({"first_stage_model.vocoder.ups.0.weight": torch.ones(32, 16, 10)}, "kernels of"),
    ],
)
def test_other_architectures_are_refused(made, tmp_path, change, reason):
    with pytest.raises(WeightsError, match=reason):
        convert("audioldm", saved({**made[1], **change}, tmp_path), tmp_path / "out")


def test_the_command_converts(made, tmp_path, capsys):
    out = tmp_path / "audioldm"
    assert main(["convert", "audioldm", str(made[0] / "audioldm.ckpt"), "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "audioldm: " in told.err
    assert str(out / "model_index.json") in told.out
    assert json.loads((out / "unet" / "config.json").read_text())["attention_head_dim"] == [1, 2]
