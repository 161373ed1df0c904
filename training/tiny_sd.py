"""A tiny Stable Diffusion with random weights, and made-up pairs, in the published layouts.

    python -m training.tiny_sd --out runs/tiny_sd

It lets the full-size recipe and pipeline run anywhere in seconds. Its pictures are noise.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from generation.atomic import atomic_path
from generation.encoders.location import LocationEncoder
from generation.geo.layout import PALETTE

EMBED_DIM = 8
SIZE_PX = 64
_WIDTHS = (16, 32)
_TEXT_DIM = 16


def write_base(folder: Path, *, seed: int = 0) -> None:
    """Write the folders of a StableDiffusionPipeline."""
    torch.manual_seed(seed)
    UNet2DConditionModel(
        sample_size=SIZE_PX // 8,
        block_out_channels=_WIDTHS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        cross_attention_dim=_TEXT_DIM,
        attention_head_dim=(1, 2),
        use_linear_projection=True,
        norm_num_groups=8,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
        sample_size=SIZE_PX,
    ).save_pretrained(folder / "vae")
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    _write_text(folder)
    parts = {
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    index = {"_class_name": "StableDiffusionPipeline", **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _write_text(folder: Path) -> None:
    """Write a text model and a tokenizer that knows single letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    tokenizer.save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=_TEXT_DIM,
        intermediate_size=2 * _TEXT_DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


def write_location_encoder(folder: Path, *, seed: int = 0) -> None:
    """Write a location encoder as ``terrascape convert satclip`` does."""
    torch.manual_seed(seed)
    encoder = LocationEncoder(degree=4, hidden_dim=16, embed_dim=EMBED_DIM)
    encoder.double().save_pretrained(folder)


def write_pairs(folder: Path, *, count: int = 6, seed: int = 0) -> None:
    """Write pictures that follow their layouts, with a manifest in each of the two forms."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines, published = [], []
    for i in range(count):
        classes = rng.integers(0, len(PALETTE), (4, 4)).repeat(16, axis=0).repeat(16, axis=1)
        drawn = PALETTE[classes]
        noise = rng.integers(-20, 20, drawn.shape)
        picture = (drawn // 2 + noise + 30).clip(0, 255).astype(np.uint8)
        Image.fromarray(drawn).save(folder / f"map_{i}.png")
        Image.fromarray(picture).save(folder / f"image_{i}.png")
        lat, lon = float(rng.uniform(-60, 60)), float(rng.uniform(-180, 180))
        prompt = f"the image features {'abcdefghij'[i % 10]}"
        named = {"image": f"image_{i}.png", "layout": f"map_{i}.png", "prompt": prompt}
        lines.append(json.dumps({**named, "lat": lat, "lon": lon}))
        source = {"source": named["layout"], "target": named["image"], "prompt": prompt}
        published.append({**source, "class": i})
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "prompt.json").write_text(json.dumps(published))
    with atomic_path(folder / "location_embeds.npy") as temporary, temporary.open("wb") as file:
        np.save(file, rng.standard_normal((count, EMBED_DIM)))


def main(argv: list[str] | None = None) -> None:
    """Write everything that configs/geosynth_sd21_tiny.yaml reads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args(argv).out
    write_base(out / "sd21-base")
    write_location_encoder(out / "satclip-location")
    write_pairs(out / "pairs")


if __name__ == "__main__":
    main()
