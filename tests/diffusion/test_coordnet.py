import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch.nn import functional as F

from generation.convert.geosynth import coordnet_shapes
from generation.diffusion.coordnet import (
    SD_CHANNELS,
    CoordNet,
    LearnedNulls,
    Networks,
    Steering,
    predict_noise,
    residual_widths,
)

CHANNELS = [16, 16, 16, 16, 32, 32, 32]
X_T = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
T = torch.tensor([7, 400])


def filled(model, seed=0):
    """Give every parameter, the zero ones too, a random value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def coordnet():
    return filled(CoordNet(CHANNELS, embed_dim=8, time_embed_dim=64))


@pytest.fixture(scope="module")
def networks(coordnet):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=(1, 2),
        norm_num_groups=8,
    ).eval()
    controlnet = ControlNetModel.from_unet(unet).eval()
    for block in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        filled(block, 1)
    filled(controlnet.controlnet_cond_embedding, 2)
    return Networks(unet, controlnet, coordnet)


@pytest.fixture
def steering():
    generator = torch.Generator().manual_seed(4)
    return {
        "states": torch.randn(2, 5, 16, generator=generator),
        "hint": torch.rand(2, 3, 64, 64, generator=generator),
        "embedding": torch.randn(2, 8, generator=generator),
    }


@torch.no_grad()
def noise(networks, steering, **changes):
    return predict_noise(networks, X_T, T, Steering(**{**steering, **changes}))


def test_the_full_size_has_the_published_parameters():
    with torch.device("meta"):
        state = CoordNet().state_dict()
    assert sum(value.numel() for value in state.values()) == 16_443_392
    assert {name: tuple(v.shape) for name, v in state.items()} == coordnet_shapes(SD_CHANNELS)
    assert len(SD_CHANNELS) == 13


@torch.no_grad()
def test_the_chain_computes_the_published_formula(coordnet):
    embedding, time = torch.randn(3, 8), torch.randn(3, 64)
    vectors = coordnet(embedding, time)
    token = embedding
    blocks = [f"loc_blocks.{i}" for i in range(6)] + ["loc_middle_block"]
    state = coordnet.state_dict()
    for block, vector in zip(blocks, vectors, strict=True):
        w = {n.removeprefix(f"{block}."): v for n, v in state.items() if n.startswith(f"{block}.")}
        value = (time @ w["value_embed.weight"].T) @ w["cross_attn.in_proj_weight"][16:].T
        value = value + w["cross_attn.in_proj_bias"][16:]
        attended = F.linear(value, w["cross_attn.out_proj.weight"], w["cross_attn.out_proj.bias"])
        token = F.layer_norm(attended, (8,), w["norm1.weight"], w["norm1.bias"]) + token
        inner = F.layer_norm(token @ w["ff.weight"].T, (8,), w["norm2.weight"], w["norm2.bias"])
        token = inner + token
        torch.testing.assert_close(vector, token @ w["ff_zero.weight"].T)
    assert [vector.shape[1] for vector in vectors] == CHANNELS


def test_queries_and_keys_have_no_effect_and_no_gradient():
    model = filled(CoordNet(CHANNELS, embed_dim=8, time_embed_dim=64))
    embedding, time = torch.randn(2, 8), torch.randn(2, 64)
    before = torch.cat(model(embedding, time), dim=1)
    before.square().sum().backward()
    for block in (*model.loc_blocks, model.loc_middle_block):
        assert block.query_embed.weight.grad.abs().max() == 0
        assert block.key_embed.weight.grad.abs().max() == 0
        assert block.cross_attn.in_proj_weight.grad[:16].abs().max() == 0
        assert block.value_embed.weight.grad.abs().max() > 0
        with torch.no_grad():
            block.query_embed.weight.mul_(-3)
            block.key_embed.weight.add_(1)
    torch.testing.assert_close(torch.cat(model(embedding, time), dim=1), before)


def test_it_fits_the_u_net_it_is_made_for(networks, steering):
    made = CoordNet.for_unet(networks.unet, embed_dim=8)
    assert residual_widths(networks.unet) == CHANNELS == list(made.config["channels"])
    assert made.config["time_embed_dim"] == 64
    plain = noise(Networks(networks.unet, networks.controlnet), steering)
    untrained = noise(Networks(networks.unet, networks.controlnet, made), steering)
    assert torch.equal(plain, untrained), "an untrained CoordNet changes nothing"


@torch.no_grad()
def test_its_vectors_are_added_to_the_residuals_at_every_pixel(networks, steering):
    context = {"encoder_hidden_states": steering["states"]}
    control = networks.controlnet
    down, mid = control(X_T, T, controlnet_cond=steering["hint"], return_dict=False, **context)
    time = control.time_embedding(control.time_proj(T))
    *vectors, last = networks.coordnet(steering["embedding"], time)
    wanted = networks.unet(
        X_T,
        T,
        down_block_additional_residuals=tuple(
            d + v[:, :, None, None].expand_as(d) for d, v in zip(down, vectors, strict=True)
        ),
        mid_block_additional_residual=mid + last[:, :, None, None].expand_as(mid),
        return_dict=False,
        **context,
    )[0]
    torch.testing.assert_close(noise(networks, steering), wanted)


def test_each_input_steers_and_may_be_missing_for_a_sample(networks, steering):
    nothing = noise(networks, steering, hint=None, embedding=None)
    assert torch.equal(nothing, noise(Networks(networks.unet), steering))
    placed = noise(networks, steering, hint=None)
    drawn = noise(networks, steering, embedding=None)
    both = noise(networks, steering)
    for one, other in ((nothing, placed), (nothing, drawn), (drawn, both), (placed, both)):
        assert (one - other).abs().max() > 1e-3
    flags = {
        "has_layout": torch.tensor([True, False]),
        "has_location": torch.tensor([False, True]),
    }
    mixed = noise(networks, steering, **flags)
    torch.testing.assert_close(mixed[:1], drawn[:1])
    torch.testing.assert_close(mixed[1:], placed[1:])


def test_a_learned_null_stands_for_a_missing_input(networks, steering):
    nulls = filled(LearnedNulls(embed_dim=8), 5)
    taught = Networks(networks.unet, networks.controlnet, networks.coordnet, nulls)
    absent = torch.tensor([False, False])
    blank = nulls.hint.detach()[None, :, None, None].expand(2, 3, 64, 64)
    nowhere = nulls.location.detach().expand(2, 8)
    assert torch.equal(
        noise(taught, steering, has_layout=absent, has_location=absent),
        noise(networks, steering, hint=blank, embedding=nowhere),
    )


def test_a_saved_coordnet_loads_bit_by_bit(coordnet, tmp_path):
    coordnet.save_pretrained(tmp_path)
    loaded = CoordNet.from_pretrained(tmp_path, use_safetensors=True)
    for name, value in coordnet.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
