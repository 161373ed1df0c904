"""Train a model of panoramas that looks at other panoramas and at a satellite image.

    accelerate launch training/train_panorama.py configs/panorama_nano.yaml

Two processes on CPUs:   torchrun --nproc_per_node 2 training/train_panorama.py CONFIG
loop.world_size=2. Go on: add --resume. Any field: key=value, for example loop.steps=2000.
With ``backbone: sd21`` it is the full-size model that learns, see :mod:`training.panorama_sd`.

The run leaves snapshots, metrics, panels of fixed places and seeds, and in ``weights/`` the
averaged weights as a folder that ``terrascape render panorama`` can use. The columns of a panel:
the nearest panorama given, drawn with 0, 1 and 3 panoramas, real.
"""

import sys
from collections.abc import Iterator
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # run as a script: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from generation.checkpoint import load_part
from generation.config import config, load_variant
from generation.diffusion.codec import PatchCodec, signal
from generation.diffusion.flow import noised, shares
from generation.diffusion.panorama_decoder import PanoramaDecoder
from generation.diffusion.panorama_denoiser import ViewControlNet
from generation.diffusion.surroundings import Surroundings
from generation.diffusion.trunk import build_unet
from generation.diffusion.views import MixedViewEncoder
from generation.errors import ConfigError
from generation.pipelines.panorama import PARTS, PanoramaPipeline
from training.data import counted_batches, list_files
from training.network import UNetConfig
from training.panorama_data import PanoramaDataset, read_sets, surroundings
from training.panorama_inputs import leave_out, save_panel
from training.panorama_sd import PanoramaSdConfig, PanoramaSdTask
from training.trainer import LoopConfig, Task, run_recipe

_LEAST_ERROR = 1e-4
"""Mean squared error of latents below which a draft is good enough."""


@config
class PanoramaNetworkConfig(UNetConfig):
    """Sizes of the denoiser, its control branch and the encoder of views."""

    control_channels: tuple[int, ...] = (32, 48, 80)
    dim: int = 64
    """Features of what is found around."""
    decoder_width: int = 64
    decoder_blocks: int = 3


@config
class PanoramaCodecConfig:
    """The patch codec, fitted on the training panoramas."""

    patch: int = 8
    latent_channels: int = 16
    whitening: float = 0.5
    gamma: float = 1.0
    fit_images: int = 1200


@config
class PanoramaConfig:
    """Everything that tells one run from another."""

    backbone: Literal["nano"] = "nano"
    data: str = "runs/panoramas/train-*.parquet"
    out: Path = Path("runs/panorama_nano")
    start_from: Path | None = None
    """A weights folder of an earlier run to go on from."""
    height: int = 128
    width: int = 512
    stage: Literal["draft", "denoiser", "joint", "decoder"] = "joint"
    """``draft`` learns what can be looked up, without the denoiser; ``denoiser`` learns the rest
    and leaves the draft as it is; ``joint`` learns both; ``decoder`` learns to turn latents with
    errors of the draft's size into pixels, and nothing else."""
    draft_weight: float = 1.0
    """Weight of the draft's error, in units of its logarithm, beside the denoiser's."""
    drop_satellite: float = 0.15
    """Probability that a target is told no satellite image."""
    keep_depth: float = 0.1
    """Probability that it is told its depths."""
    time_mean: float = 0.6
    """Centre of the normal law whose sigmoid is the share of noise."""
    time_sd: float = 1.6
    pure_noise: float = 0.15
    """Probability that a sample is all noise: what is expected is learnt from these."""
    decoder_errors: float = 0.6
    """Largest error of the decoder's inputs, in those of the draft."""
    sampler_shift: float = 1.5
    panel_rows: int = 6
    network: PanoramaNetworkConfig = field(default_factory=PanoramaNetworkConfig)
    codec: PanoramaCodecConfig = field(default_factory=PanoramaCodecConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        for name in ("drop_satellite", "keep_depth", "pure_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} is no probability (give 0 to 1)")
        if self.decoder_errors < 0:
            raise ConfigError(f"decoder_errors={self.decoder_errors} is no size (give 0 or more)")


class PanoramaModel(nn.Module):
    """A training step as a forward pass, so that every wrapper of Accelerate sees it."""

    def __init__(self, pipeline: PanoramaPipeline, cfg: PanoramaConfig) -> None:
        super().__init__()
        self.denoiser, self.views, self.codec = pipeline.denoiser, pipeline.views, pipeline.codec
        self.decoder = pipeline.decoder
        self.cfg = cfg

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Noise a batch, predict its velocity, compare; see ``train_geosynth``."""
        images = signal(batch["image"])
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            x0 = self.codec.encode(images)
        if self.cfg.stage == "decoder":
            return self._decoded(x0, self.codec.tone(images))
        guide = self.views(self.given(batch))
        draft = self.codec.encode(guide.draft.float()) + guide.correction.float()
        # Of a place without panoramas the error is twenty times that of one with three; compared
        # by their logarithms, as decibels are, each place has the same say.
        apart = (draft - x0).square().mean((1, 2, 3)).add(_LEAST_ERROR).log().mean()
        if self.cfg.stage == "draft":
            return {"loss": apart}
        rest = (x0 - draft.detach()) / self.views.spread[:, :, None]
        noise = torch.randn_like(x0)
        share = shares(
            len(x0),
            mean=self.cfg.time_mean,
            deviation=self.cfg.time_sd,
            pure=self.cfg.pure_noise,
            device=x0.device,
        )
        predicted = self.denoiser(noised(rest, noise, share), 1000 * share, guide)
        drawn = F.mse_loss(predicted.float(), noise - rest)
        if self.views.held:
            return {"loss": drawn, "draft": apart}
        return {"loss": drawn + self.cfg.draft_weight * apart, "drawn": drawn, "draft": apart}

    def _decoded(self, x0: Tensor, tones: Tensor) -> dict[str, Tensor]:
        """Compare pixels, and their steps to the next ones, which is where borders show."""
        errors = torch.randn_like(x0)
        # Errors of neighbouring patches are alike in some panoramas and not in others.
        alike = F.avg_pool2d(F.pad(errors, (1, 1, 1, 1), mode="circular"), 3, 1) * 3
        mix = torch.rand(len(x0), 1, 1, 1, device=x0.device)
        errors = (1 - mix).sqrt() * errors + mix.sqrt() * alike
        size = self.cfg.decoder_errors * torch.rand_like(mix) ** 2
        made = self.decoder(x0 + size * errors * self.views.spread[:, :, None], self.codec)
        apart = made.float() - tones
        beside, below = apart - apart.roll(1, 3), apart[:, :, 1:] - apart[:, :, :-1]
        pixels, steps = apart.abs().mean(), beside.abs().mean() + below.abs().mean()
        return {"loss": pixels + steps, "pixels": pixels, "steps": steps}

    def given(self, batch: dict[str, Tensor]) -> Surroundings:
        """Leave out some of what is there: none to all panoramas, the satellite image, depths."""
        return leave_out(
            surroundings(batch),
            drop_satellite=self.cfg.drop_satellite,
            keep_depth=self.cfg.keep_depth,
        )


class PanoramaTask:
    """Model, data and panels of a run."""

    def __init__(self, cfg: PanoramaConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        self.dataset = PanoramaDataset(read_sets(list_files(cfg.data)))
        self.pipeline = self._build()
        self.model = PanoramaModel(self.pipeline, cfg).train()
        if cfg.stage == "draft":
            self.model.denoiser.requires_grad_(False)
            self.model.decoder.requires_grad_(False)
            self.pipeline.views.tell(False)  # of two processes, each wants every gradient
            return
        self._measure_spread()
        self.model.decoder.requires_grad_(cfg.stage == "decoder")
        if cfg.stage == "decoder":
            self.model.denoiser.requires_grad_(False)
            self.model.views.requires_grad_(False)
        if cfg.stage == "denoiser":
            self.pipeline.views.hold()

    @torch.no_grad()
    def _measure_spread(self, samples: int = 96) -> None:
        """Find how far the truth lies from the draft, the inputs being dropped as in training."""
        count = min(samples, len(self.dataset))
        chosen = np.linspace(0, len(self.dataset) - 1, count).astype(int).tolist()
        apart = []
        for first in range(0, count, 8):
            items = [self.dataset[index, 0] for index in chosen[first : first + 8]]
            batch = torch.utils.data.default_collate(items)
            guide = self.pipeline.views(self.model.given(batch))
            codec = self.pipeline.codec
            apart.append(codec.encode(signal(batch["image"])) - codec.encode(guide.draft))
            apart[-1] -= guide.correction
        self.pipeline.views.spread.copy_(torch.cat(apart).std((0, 3)))

    def _build(self) -> PanoramaPipeline:
        cfg, net = self.cfg, self.cfg.network
        scheduler = FlowMatchEulerDiscreteScheduler(shift=cfg.sampler_shift)
        if cfg.start_from is not None:
            parts = {name: load_part(part, cfg.start_from / name) for name, part in PARTS.items()}
            return PanoramaPipeline(**parts, scheduler=scheduler)
        codec = self._fitted()
        channels = cfg.codec.latent_channels
        unet = build_unet(
            latent_channels=channels,
            latent_size=(cfg.height // codec.patch, cfg.width // codec.patch),
            sizes=net.sizes(),
        )
        levels = (net.dim,) * len(net.block_out_channels)
        control = ViewControlNet(
            in_channels=channels,
            block_out_channels=net.control_channels,
            residual_channels=net.block_out_channels,
            attention_head_dim=(1,) * len(net.control_channels),
            layers_per_block=net.layers_per_block,
            cross_attention_dim=net.token_dim,
            norm_num_groups=net.norm_num_groups,
            vector_dim=net.vector_dim,
            level_dims=levels,
            down_block_types=tuple(unet.config["down_block_types"]),
        )
        views = MixedViewEncoder(
            height=cfg.height,
            width=cfg.width,
            patch=codec.patch,
            dim=net.dim,
            token_dim=net.token_dim,
            vector_dim=net.vector_dim,
            level_dims=levels,
            latent_channels=channels,
        )
        decoder = PanoramaDecoder(width=net.decoder_width, num_blocks=net.decoder_blocks)
        return PanoramaPipeline(unet, control, views, codec, decoder, scheduler)

    def _fitted(self) -> PatchCodec:
        """Fit the codec on panoramas spread over the sets."""
        cfg = self.cfg.codec
        chosen = np.linspace(0, len(self.dataset) - 1, min(cfg.fit_images, len(self.dataset)))
        images = [self.dataset.target(int(index)) for index in chosen]
        return PatchCodec.fit(
            np.stack(images),
            patch=cfg.patch,
            latent_channels=cfg.latent_channels,
            whitening=cfg.whitening,
            gamma=cfg.gamma,
        )

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    def panel(self, path: Path) -> None:
        """Draw fixed places with fixed seeds: nearest, drawn with 0, 1 and 3 panoramas, real."""
        save_panel(
            path,
            self.dataset,
            self.cfg.panel_rows,
            lambda around, seeds: self.pipeline(around, seeds=seeds).images,
        )
        self.model.train()

    def export(self, folder: Path) -> None:
        """Save the weights as a pipeline folder."""
        self.pipeline.save_pretrained(folder)


BACKBONES: dict[str, type[PanoramaConfig | PanoramaSdConfig]] = {
    "nano": PanoramaConfig,
    "sd21": PanoramaSdConfig,
}


def _task(cfg: PanoramaConfig | PanoramaSdConfig) -> Task:
    return PanoramaTask(cfg) if isinstance(cfg, PanoramaConfig) else PanoramaSdTask(cfg)


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_variant, BACKBONES, "backbone"), _task)


if __name__ == "__main__":
    main()
