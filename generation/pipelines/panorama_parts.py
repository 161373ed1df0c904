"""The parts of a full-size panorama pipeline: how one is made of a base, and whether they fit."""

from diffusers import AutoencoderKL, UNet2DConditionModel

from generation.diffusion.panorama_denoiser import ViewControlNet
from generation.diffusion.views import MixedViewEncoder
from generation.encoders.clip_text import ClipTextEncoder
from generation.errors import WeightsError

_COPIED = ("conv_in", "time_embedding", "down_blocks", "mid_block")
"""Parts of a U-Net that a control branch begins as a copy of."""


def control_of(unet: UNet2DConditionModel, level_dims: tuple[int, ...]) -> ViewControlNet:
    """Make a control branch that begins as a copy of a U-Net's encoder and changes nothing yet.

    Args:
        unet: A trained U-Net without class embedding.
        level_dims: Widths of the maps that steer it, finest first; one for each of its levels.

    Raises:
        WeightsError: The U-Net is none of Stable Diffusion 2's kind.
    """
    settings = unet.config
    widths, heads = tuple(settings["block_out_channels"]), settings["attention_head_dim"]
    control = ViewControlNet(
        in_channels=settings["in_channels"],
        block_out_channels=widths,
        residual_channels=widths,
        attention_head_dim=(heads,) * len(widths) if isinstance(heads, int) else tuple(heads),
        layers_per_block=settings["layers_per_block"],
        cross_attention_dim=settings["cross_attention_dim"],
        norm_num_groups=settings["norm_num_groups"],
        vector_dim=None,
        level_dims=level_dims,
        down_block_types=tuple(settings["down_block_types"]),
        zero_start=True,
    )
    try:
        for name in _COPIED:
            copied = getattr(control.encoder, name)
            copied.load_state_dict(getattr(unet, name).state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"the U-Net's {name} cannot be copied: {reason} (give Stable Diffusion 2.1-base)"
        ) from error
    return control


def check_parts(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    text_encoder: ClipTextEncoder,
    control: ViewControlNet,
    views: MixedViewEncoder,
) -> None:
    """Refuse parts of different models, before their shapes meet in the middle of a render.

    Raises:
        WeightsError: Names every pair that does not fit.
    """
    net, branch, seen = unet.config, control.config, views.config
    context, cell = net["cross_attention_dim"], 2 ** (len(vae.config["block_out_channels"]) - 1)
    pairs = [
        ("the text encoder's width", text_encoder.model.config.hidden_size, context),
        ("the autoencoder's channels", vae.config["latent_channels"], net["in_channels"]),
        ("the control branch's in_channels", branch["in_channels"], net["in_channels"]),
        ("its cross_attention_dim", branch["cross_attention_dim"], context),
        ("its residual_channels", branch["residual_channels"], net["block_out_channels"]),
        ("its layers_per_block", branch["layers_per_block"], net["layers_per_block"]),
        ("its level_dims", branch["level_dims"], seen["level_dims"]),
        ("its vector_dim", branch["vector_dim"], None),
        ("the encoder of views' token_dim", seen["token_dim"], context),
        ("its patch", seen["patch"], cell),
    ]
    wrong = [f"{what} is {a} and not {b}" for what, a, b in pairs if _plain(a) != _plain(b)]
    if wrong:
        raise WeightsError(
            f"the parts are of different models: {'; '.join(wrong)} (give the base that the "
            "control branch was trained on, Stable Diffusion 2.1-base)"
        )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value
