"""Train a satellite image model that obeys a layout, a location and a sentence.

One process:    accelerate launch training/train_geosynth.py configs/geosynth_nano.yaml
Two, on CPUs:   torchrun --nproc_per_node 2 training/train_geosynth.py CONFIG loop.world_size=2
Go on:          add --resume. Any field: key=value, for example loop.steps=2000.

The run leaves snapshots, metrics, panels of fixed places and seeds, and in ``weights/`` the
averaged weights as a folder that ``terrascape render`` can use.
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
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from generation.checkpoint import PART_WEIGHTS, load_part, sha256_file
from generation.conditioning import Condition, Given, SatelliteConditioner
from generation.config import config, load_variant
from generation.diffusion.codec import PatchCodec, signal
from generation.diffusion.decoder import DetailDecoder
from generation.diffusion.denoiser import build_networks
from generation.diffusion.flow import noised, shares
from generation.errors import ConfigError
from generation.geo.layout import PALETTE
from generation.pipelines.satellite import PARTS, SatellitePipeline
from training.data import TILE, TileDataset, counted_batches
from training.geosynth_sd import GeoSynthSdConfig, GeoSynthSdTask
from training.network import UNetConfig
from training.trainer import LoopConfig, Task, run_recipe

LEARNT = ("unet", "controlnet", "conditioner")
"""The parts that this recipe trains; the others come from ``train_autoencoder.py``."""


@config
class NetworkConfig(UNetConfig):
    """Sizes of the denoiser, its control branch and its conditioner."""

    location_degree: int = 12


@config
class GeoSynthConfig:
    """Everything that tells one run from another."""

    backbone: Literal["nano"] = "nano"
    """``sd21`` makes it a full-size run: see ``training.geosynth_sd``."""
    data: Path = Path("runs/tiles")
    """What ``python -m training.data`` built."""
    out: Path = Path("runs/geosynth_nano")
    autoencoder: Path = Path("runs/autoencoder_nano/weights")
    """What ``train_autoencoder.py`` left."""
    start_from: Path | None = None
    """A weights folder of an earlier stage to go on from."""
    crop_px: int = TILE
    """Side of the crops learnt from; a first stage on small crops sees four times as many."""
    drop: float = 0.12
    """Probability of dropping each input, independently."""
    drop_all: float = 0.05
    """Probability of dropping all of them."""
    time_mean: float = 0.8
    """Centre of the normal law whose sigmoid is the share of noise."""
    time_sd: float = 1.7
    sampler_shift: float = 3.0
    """How far the sampler's steps lean towards noise, where the composition is decided."""
    panel_tiles: int = 8
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        for name in ("drop", "drop_all"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} is no probability (give 0 to 1)")


class GeoSynthModel(nn.Module):
    """A training step as a forward pass, so that every wrapper of Accelerate sees it."""

    def __init__(self, pipeline: SatellitePipeline, cfg: GeoSynthConfig) -> None:
        super().__init__()
        self.denoiser = pipeline.denoiser
        self.conditioner = pipeline.conditioner
        self.codec = pipeline.codec
        self.cfg = cfg

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Noise a batch, predict its velocity, compare.

        Source:
            Lipman et al., "Flow Matching for Generative Modeling" (2023), Eqs. 20-23, with time
            running from data to noise; the law of times: Esser et al. (2024), Eq. 19.
        """
        images = signal(batch["image"])
        # What is to be learnt is computed in full precision, also under autocast.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            x0 = self.codec.encode(images)
        noise = torch.randn_like(x0)
        share = shares(
            len(x0), mean=self.cfg.time_mean, deviation=self.cfg.time_sd, device=x0.device
        )
        predicted = self.velocity(noised(x0, noise, share), share, self.condition(batch))
        return {"loss": F.mse_loss(predicted.float(), noise - x0)}

    def condition(self, batch: dict[str, Tensor]) -> Condition:
        """Say what a batch is told, some of it dropped."""
        condition: Condition = self.conditioner(self.given(batch))
        return condition

    def velocity(
        self,
        x_t: Float[Tensor, "batch channels rows cols"],
        share: Float[Tensor, " batch"],
        condition: Condition,
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Predict ``noise - x0`` from latents with a share of noise in them."""
        return self.denoiser(x_t, 1000 * share, condition)

    def given(self, batch: dict[str, Tensor]) -> Given:
        """Drop inputs of a batch at random."""
        count, device = len(batch["image"]), batch["image"].device
        any_left = torch.rand(count, device=device) >= self.cfg.drop_all

        def keep() -> Tensor:
            return (torch.rand(count, device=device) >= self.cfg.drop) & any_left

        return Given(
            states=batch["states"],
            words=batch["mask"],
            latlon=batch["latlon"],
            gsd_m=batch["gsd_m"],
            classes=batch["classes"],
            has_text=keep(),
            has_location=keep(),
            has_layout=keep(),
        )


class GeoSynthTask:
    """Model, data and panels of a run."""

    def __init__(self, cfg: GeoSynthConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        self.dataset = TileDataset(cfg.data, crop_px=cfg.crop_px)
        self.pipeline = self._build()
        self.model = GeoSynthModel(self.pipeline, cfg).train()

    def _build(self) -> SatellitePipeline:
        cfg, net = self.cfg, self.cfg.network
        codec = load_part(PatchCodec, cfg.autoencoder / "codec")
        decoder = load_part(DetailDecoder, cfg.autoencoder / "decoder")
        scheduler = FlowMatchEulerDiscreteScheduler(shift=cfg.sampler_shift)
        if cfg.start_from is not None:
            _check_same(cfg.start_from / "codec", cfg.autoencoder / "codec")
            unet, controlnet, conditioner = (
                load_part(PARTS[name], cfg.start_from / name) for name in LEARNT
            )
            return SatellitePipeline(unet, controlnet, conditioner, codec, decoder, scheduler)
        channels = codec.config["latent_channels"]
        unet, controlnet = build_networks(
            latent_channels=channels,
            latent_size=TILE // codec.patch,
            patch=codec.patch,
            sizes=net.sizes(),
        )
        conditioner = SatelliteConditioner(
            token_dim=net.token_dim,
            vector_dim=net.vector_dim,
            location_degree=net.location_degree,
            patch=codec.patch,
        )
        return SatellitePipeline(unet, controlnet, conditioner, codec, decoder, scheduler)

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    def panel(self, path: Path) -> None:
        """Draw fixed tiles with fixed seeds: layout, generated, real."""
        count = min(self.cfg.panel_tiles, len(self.dataset))
        chosen = np.linspace(0, len(self.dataset) - 1, count).astype(int).tolist()
        scenes = [self.dataset.scene(index) for index in chosen]
        drawn = self.pipeline(scenes, num_inference_steps=10)
        rows = [
            np.concatenate([PALETTE[s.layout], image, np.asarray(self.dataset.images[i])], axis=1)
            for s, image, i in zip(scenes, drawn, chosen, strict=True)
        ]
        half = (len(rows) + 1) // 2
        sheet = np.concatenate(
            [np.concatenate(rows[k : k + half]) for k in (0, len(rows) - half)], 1
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(path)
        for part in (self.pipeline.unet, self.pipeline.controlnet, self.pipeline.conditioner):
            part.train()

    def export(self, folder: Path) -> None:
        """Save the weights as a pipeline folder."""
        self.pipeline.save_pretrained(folder)


def _check_same(first: Path, second: Path) -> None:
    if sha256_file(first / PART_WEIGHTS) != sha256_file(second / PART_WEIGHTS):
        raise ConfigError(
            f"start_from was trained on the latents of another codec: {first} is not {second} "
            "(give the autoencoder that the first stage had)"
        )


BACKBONES: dict[str, type[GeoSynthConfig | GeoSynthSdConfig]] = {
    "nano": GeoSynthConfig,
    "sd21": GeoSynthSdConfig,
}


def _task(cfg: GeoSynthConfig | GeoSynthSdConfig) -> Task:
    return GeoSynthTask(cfg) if isinstance(cfg, GeoSynthConfig) else GeoSynthSdTask(cfg)


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_variant, BACKBONES, "backbone"), _task)


if __name__ == "__main__":
    main()
