"""The real classes at sizes that cost nothing, and tiles to feed them."""

import io

import numpy as np

SIZES = {
    "block_out_channels": (16, 32),
    "attention_head_dim": (1, 2),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "norm_num_groups": 8,
    "vector_dim": 16,
}
PLACES = [(8, 132, 86), (8, 135, 90), (8, 128, 99), (8, 255, 60)]
"""Tiles of the Alps, the Balkans, the Sahara's edge and one beside the antimeridian."""


def make_pipeline(text_encoder=None):
    """Build an untrained satellite pipeline for windows of any multiple of 8 pixels."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    from generation.conditioning import SatelliteConditioner
    from generation.diffusion.codec import PatchCodec
    from generation.diffusion.decoder import DetailDecoder
    from generation.diffusion.denoiser import build_networks
    from generation.pipelines.satellite import SatellitePipeline

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet, controlnet = build_networks(latent_channels=8, latent_size=8, patch=8, sizes=SIZES)
        conditioner = SatelliteConditioner(
            token_dim=16, vector_dim=16, location_degree=4, location_dim=16
        )
    codec = PatchCodec.fit(smooth_images(64, 32), patch=8, latent_channels=8)
    decoder = DetailDecoder(8, coarse_width=16, fine_width=8, coarse_blocks=1, fine_blocks=1)
    scheduler = FlowMatchEulerDiscreteScheduler()
    return SatellitePipeline(unet, controlnet, conditioner, codec, decoder, scheduler, text_encoder)


def smooth_images(count, side):
    """Give images whose neighbouring pixels are alike, as real ones are."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (count, side // 8, side // 8, 3))
    fine = coarse.repeat(8, 1).repeat(8, 2) + rng.normal(0, 8, (count, side, side, 3))
    return fine.clip(0, 255).astype(np.uint8)


def write_tiles(path):
    """Write a Parquet file in the schema of the training data, one tile a place."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for (zoom, x, y), image in zip(PLACES, smooth_images(len(PLACES), 256), strict=True):
        road = np.zeros((256, 256), np.uint8)
        road[100] = 255
        rows.append(
            {
                "tile_id": f"{zoom}/{x}/{y}",
                "image": {"bytes": png(image), "path": None},
                "roads": {"bytes": png(road), "path": None},
                "elev_m": 900.0,
                "t_mean_c": 8.0,
                "p_year_mm": 700.0,
                "lit_frac": 0.03,
                "road_frac": 0.004,
                "koppen": 15,
                "igbp": 4,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def png(pixels):
    """Encode an image."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
