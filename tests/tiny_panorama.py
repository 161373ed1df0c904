"""A whole pipeline of panoramas at sizes that cost nothing, and panoramas to feed it."""

import numpy as np
from tiny import smooth_images

HEIGHT, WIDTH, PATCH, LATENTS = 32, 128, 8, 8


def make_panorama_pipeline(seed=0):
    """Build an untrained pipeline for panoramas of 32x128 px, all of whose inputs matter."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    from generation.diffusion.codec import PatchCodec
    from generation.diffusion.panorama_decoder import PanoramaDecoder
    from generation.diffusion.panorama_denoiser import ViewControlNet
    from generation.diffusion.trunk import build_unet
    from generation.diffusion.views import MixedViewEncoder
    from generation.pipelines.panorama import PanoramaPipeline

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = build_unet(
            latent_channels=LATENTS,
            latent_size=(HEIGHT // PATCH, WIDTH // PATCH),
            sizes={
                "block_out_channels": (16, 32),
                "attention_head_dim": (1, 2),
                "layers_per_block": 1,
                "norm_num_groups": 8,
                "cross_attention_dim": 16,
                "vector_dim": 16,
            },
        )
        control = ViewControlNet(
            in_channels=LATENTS,
            block_out_channels=(16, 16),
            residual_channels=(16, 32),
            attention_head_dim=(1, 1),
            cross_attention_dim=16,
            norm_num_groups=8,
            vector_dim=16,
            level_dims=(16, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        )
        views = MixedViewEncoder(
            height=HEIGHT,
            width=WIDTH,
            patch=PATCH,
            dim=16,
            token_dim=16,
            vector_dim=16,
            level_dims=(16, 16),
            latent_channels=LATENTS,
        )
        decoder = PanoramaDecoder(width=16, num_blocks=1, fine_width=8)
    codec = PatchCodec.fit(smooth_images(64, 32), patch=PATCH, latent_channels=LATENTS)
    scheduler = FlowMatchEulerDiscreteScheduler()
    return PanoramaPipeline(unet, control, views, codec, decoder, scheduler)


def make_home(folder):
    """Save tiny pipelines of panoramas and of satellite images as TERRASCAPE_HOME has them."""
    from tiny import make_pipeline

    make_panorama_pipeline().save_pretrained(folder / "panorama-nano")
    make_pipeline().save_pretrained(folder / "satellite-nano")
    return folder


def panorama_pixels(seed=0, height=128):
    """Give a panorama of the whole sphere: sky, and ground whose colours tell the azimuth."""
    rng = np.random.default_rng(seed)
    shades = rng.integers(60, 200, (1, 16, 3)).repeat(height // 8, 1)  # twice as wide as high
    ground = np.broadcast_to(shades, (height // 2, 2 * height, 3))
    sky = np.full((height // 2, 2 * height, 3), (120, 170, 230))
    return np.concatenate([sky, ground]).astype(np.uint8)


def write_panorama(path, seed=0, height=128):
    """Save such a panorama; the file's ending tells how."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(panorama_pixels(seed, height)).save(path)
    return path
