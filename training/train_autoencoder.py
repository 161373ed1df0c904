"""Fit the patch codec and train the decoder that draws the detail.

    accelerate launch training/train_autoencoder.py configs/autoencoder_nano.yaml

Add --resume to go on; any field: key=value, for example loop.steps=2000. The run leaves snapshots,
metrics and panels, and in ``weights/`` the folders ``codec`` and ``decoder`` that
``train_geosynth.py`` starts from. The columns of a panel: layout, the latents alone without noise,
drawn without noise, drawn from half and from all of the noise that it learns to read, real.
"""

import sys
from collections.abc import Iterator
from dataclasses import field
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a script: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from generation.atomic import atomic_folder
from generation.checkpoint import load_part, save_part
from generation.config import config, load_config
from generation.diffusion.codec import PatchCodec, signal, to_bytes, to_signal
from generation.diffusion.decoder import DetailDecoder
from generation.diffusion.flow import noised
from generation.errors import ConfigError
from generation.geo.layout import PALETTE
from training.data import TileDataset, counted_batches
from training.losses import discriminator_hinge, generator_hinge
from training.perception import FeatureDiscriminator, StageFeatures, unlikeness
from training.trainer import LoopConfig, run_recipe


@config
class CodecConfig:
    """The patch codec, fitted on the training tiles."""

    patch: int = 8
    latent_channels: int = 16
    whitening: float = 0.5
    gamma: float = 0.5
    fit_images: int = 2000


@config
class DecoderConfig:
    """Sizes of the decoder."""

    coarse_width: int = 128
    fine_width: int = 64
    coarse_blocks: int = 3
    fine_blocks: int = 2
    max_share: float = 0.2
    """The most noise that it learns to read."""


@config
class AutoencoderConfig:
    """Everything that tells one run from another."""

    data: Path = Path("runs/tiles")
    """What ``python -m training.data`` built."""
    out: Path = Path("runs/autoencoder_nano")
    start_from: Path | None = None
    """A folder with the codec and the decoder of an earlier run to go on from, as large as they
    are."""
    crop_px: int = 96
    layout_drop: float = 0.1
    colours: float = 1.0
    """Weight of the mean colour of each patch, beside being right about the latents."""
    perceptual: float = 1.0
    """Weight of looking like the tile itself, half as much where the latents are noisiest."""
    adversarial: float = 0.1
    """Weight of looking real to the discriminator."""
    panel_tiles: int = 8
    codec: CodecConfig = field(default_factory=CodecConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    discriminator_width: int = 64
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.layout_drop <= 1:
            raise ConfigError(f"layout_drop={self.layout_drop} is no probability (give 0 to 1)")
        if not 0 < self.decoder.max_share < 1:
            raise ConfigError(
                f"decoder.max_share={self.decoder.max_share} is no share of noise (give more than "
                "0 and less than 1)"
            )


def new_decoder(cfg: AutoencoderConfig) -> DetailDecoder:
    """Make an untrained decoder of the sizes of a configuration."""
    return DetailDecoder(
        latent_channels=cfg.codec.latent_channels,
        patch=cfg.codec.patch,
        coarse_width=cfg.decoder.coarse_width,
        fine_width=cfg.decoder.fine_width,
        coarse_blocks=cfg.decoder.coarse_blocks,
        fine_blocks=cfg.decoder.fine_blocks,
        max_share=cfg.decoder.max_share,
    )


class AutoencoderModel(nn.Module):
    """A step of both players as one forward pass, so that the one loop serves this recipe too."""

    def __init__(self, codec: PatchCodec, decoder: DetailDecoder, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.codec = codec
        self.decoder = decoder
        self.discriminator = FeatureDiscriminator(cfg.discriminator_width)
        self.seen = StageFeatures()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Draw a batch from noisy latents and let the discriminator compare it with the real one.

        The losses of both players are added; neither's reaches the parameters of the other.
        """
        cfg, images = self.cfg, signal(batch["image"])
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            real, x0 = self.codec.tone(images), self.codec.encode(images)
        top = float(self.decoder.config["max_share"])
        share = top * torch.rand(len(x0), device=x0.device)
        noisy = noised(x0, torch.randn_like(x0), share)
        keep = torch.rand(len(x0), device=x0.device) >= cfg.layout_drop
        clean, drawn = self.decoder(noisy, share, batch["classes"], keep, self.codec)

        with torch.no_grad():
            in_real = self.seen(real)
        in_drawn = self.seen(drawn)
        said_real = self.discriminator(in_real)
        said_drawn = self.discriminator([maps.detach() for maps in in_drawn])
        self.discriminator.requires_grad_(False)
        fooled = self.discriminator(in_drawn)
        self.discriminator.requires_grad_(True)
        certain = 1 - 0.5 * share / top  # of what the tile itself looked like
        losses = {
            "latents": F.mse_loss(clean.float(), x0),
            "colours": F.l1_loss(self._means(drawn), self._means(real)),
            "perceptual": (certain * unlikeness(in_drawn, in_real)).mean(),
            "generator": generator_hinge(fooled),
            "discriminator": discriminator_hinge(said_real, said_drawn),
        }
        total = (
            losses["latents"]
            + cfg.colours * losses["colours"]
            + cfg.perceptual * losses["perceptual"]
            + cfg.adversarial * losses["generator"]
            + losses["discriminator"]
        )
        return {"loss": total, **losses}

    def _means(self, tones: Tensor) -> Tensor:
        return F.avg_pool2d(tones.float(), self.codec.patch)


class AutoencoderTask:
    """Model, data and panels of a run."""

    def __init__(self, cfg: AutoencoderConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        self.dataset = TileDataset(cfg.data, crop_px=cfg.crop_px)
        codec, decoder = self._build()
        self.model = AutoencoderModel(codec, decoder, cfg).train()

    def _build(self) -> tuple[PatchCodec, DetailDecoder]:
        cfg = self.cfg
        if cfg.start_from is not None:
            codec = load_part(PatchCodec, cfg.start_from / "codec")
            return codec, load_part(DetailDecoder, cfg.start_from / "decoder")
        count = min(cfg.codec.fit_images, len(self.dataset))
        chosen = np.linspace(0, len(self.dataset) - 1, count).astype(int)
        images = np.asarray(self.dataset.images[chosen])
        codec = PatchCodec.fit(
            images,
            patch=cfg.codec.patch,
            latent_channels=cfg.codec.latent_channels,
            whitening=cfg.codec.whitening,
            gamma=cfg.codec.gamma,
        )
        decoder = new_decoder(cfg)
        latents = codec.encode(to_signal(images[:: max(1, count // 200)]))
        decoder.spread.copy_(latents.std(dim=(0, 2, 3)))
        return codec, decoder

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    def panel(self, path: Path) -> None:
        """Draw fixed tiles from fixed noise."""
        count = min(self.cfg.panel_tiles, len(self.dataset))
        chosen = np.linspace(0, len(self.dataset) - 1, count).astype(int)
        images = np.asarray(self.dataset.images[chosen])[:, :128, :128]
        classes = np.asarray(self.dataset.classes[chosen])[:, :128, :128]
        codec, top = self.model.codec, self.model.decoder.config["max_share"]
        x0 = codec.encode(to_signal(images))
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
        given = torch.from_numpy(classes), torch.ones(count, dtype=torch.bool)
        columns = [PALETTE[classes], to_bytes(codec.decode(x0))]
        for share in (0.0, top / 2, top):
            mixed = (1 - share) * x0 + share * noise
            tones = self.model.decoder(mixed, torch.full((count,), share), *given, codec)[1]
            columns.append(to_bytes(codec.untone(tones)))
        rows = np.concatenate([*columns, images], axis=2)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(list(rows))).save(path)

    def export(self, folder: Path) -> None:
        """Save codec and decoder; the discriminator has done its work."""
        with atomic_folder(folder) as staging:
            save_part(self.model.codec, staging / "codec")
            save_part(self.model.decoder, staging / "decoder", half=True)


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_config, AutoencoderConfig), AutoencoderTask)


if __name__ == "__main__":
    main()
