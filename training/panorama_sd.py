"""Panoramas at full size: a frozen Stable Diffusion learns to listen to what stands around a place.

The task of ``training/train_panorama.py`` for configurations with ``backbone: sd21``. As published,
the base is frozen, and the control branch and the encoder of views learn by the plain error of the
predicted noise. Beside it, ``draft_weight`` lets the encoder's own looked-up panorama learn what it
should look like, which the published model has not; 0 leaves it out.

Source:
    Xiong et al., "Mixed-View Panorama Synthesis using Geospatially Guided Diffusion" (TMLR 2025),
    arXiv 2407.09672. Its number of steps and its sizes of sets are not published.
"""

import io
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from generation.checkpoint import load_part
from generation.config import config
from generation.diffusion.codec import signal
from generation.diffusion.panorama_denoiser import ViewControlNet
from generation.diffusion.views import MixedViewEncoder
from generation.errors import ConfigError
from generation.geo.sphere import Band
from generation.pipelines.folders import BASE
from generation.pipelines.panorama_parts import control_of
from generation.pipelines.panorama_sd import MixedViewPipeline, with_text
from generation.pipelines.parts import load_model, load_scheduler, load_text
from generation.registry import locate
from training.data import counted_batches
from training.panorama_data import PanoramaDataset, ViewSet, open_sets, surroundings
from training.panorama_inputs import leave_out, save_panel
from training.trainer import LoopConfig

_IDLE = ("correction", "null_vector", "view_vector", "overhead_vector")
"""Parts of the encoder of views that speak to the embedded model alone."""


@config
class PanoramaSdConfig:
    """Everything that tells one full-size run from another."""

    backbone: Literal["sd21"] = "sd21"
    data: str = "runs/panoramas_full/train-*.parquet"
    """A pattern of Parquet files of sets, or a CSV file of real panoramas."""
    out: Path = Path("runs/panorama_full")
    base: Path | None = None
    """Folder of Stable Diffusion 2.1-base; by default the registered ``sd21-base``."""
    start_from: Path | None = None
    """A weights folder of an earlier run to go on from."""
    height: int = 256
    width: int = 1024
    dim: int = 128
    """Features of what is found around."""
    prompt: str = ""
    """What every panorama is told; the sets have no texts of their own."""
    drop_text: float = 0.1
    """Probability of an empty prompt instead."""
    drop_satellite: float = 0.15
    """Probability that a target is told no satellite image."""
    keep_depth: float = 0.1
    """Probability that it is told its depths."""
    draft_weight: float = 0.1
    """Weight of the draft's error, in pixels from -1 to 1; 0 is as published."""
    panel_rows: int = 4
    panel_steps: int = 20
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        shares = ("drop_text", "drop_satellite", "keep_depth")
        wrong = [
            f"{name}={getattr(self, name)} is no probability (give 0 to 1)"
            for name in shares
            if not 0 <= getattr(self, name) <= 1
        ]
        if not 0 <= self.draft_weight < float("inf"):
            wrong.append(f"draft_weight={self.draft_weight} (give 0 or more)")
        wrong += [
            f"{name}={getattr(self, name)} (give 1 or more)"
            for name in ("height", "width", "panel_rows", "panel_steps")
            if getattr(self, name) < 1
        ]
        if self.dim < 8 or self.dim % 8:
            wrong.append(f"dim={self.dim} is no multiple of 8")
        if wrong:
            raise ConfigError("; ".join(wrong))


class PanoramaSdModel(nn.Module):
    """A training step as a forward pass; only what learns is registered as a part of it.

    What is frozen is neither saved with snapshots nor wrapped by Accelerate.
    """

    def __init__(self, pipeline: MixedViewPipeline, cfg: PanoramaSdConfig) -> None:
        super().__init__()
        self.control, self.views = pipeline.control, pipeline.views
        self.requires_grad_(True)
        for name in _IDLE:
            getattr(self.views, name).requires_grad_(False)
        self.cfg = cfg
        self._frozen = (pipeline,)
        self._words = pipeline.text_encoder.tokens([cfg.prompt, ""])

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Noise a batch, predict the noise, compare.

        Source:
            Ho et al., "Denoising Diffusion Probabilistic Models" (2020), Eq. 14.
        """
        cfg, images = self.cfg, signal(batch["image"])
        pipeline = self._placed(images.device)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            x0 = pipeline.latents(images)
        around = leave_out(
            surroundings(batch), drop_satellite=cfg.drop_satellite, keep_depth=cfg.keep_depth
        )
        guide = self.views(around)
        schedule = pipeline.scheduler
        noise = torch.randn_like(x0)
        t = torch.randint(schedule.config.num_train_timesteps, (len(x0),), device=x0.device)
        told = with_text(guide, self._states(pipeline, len(x0)))
        predicted = pipeline.denoiser(schedule.add_noise(x0, noise, t), t.float(), told)
        drawn = F.mse_loss(predicted.float(), noise)
        draft = F.mse_loss(guide.draft.float(), images)
        return {"loss": drawn + cfg.draft_weight * draft, "drawn": drawn, "draft": draft}

    def _states(self, pipeline: MixedViewPipeline, count: int) -> Float[Tensor, "batch words dim"]:
        """Give the states of the prompt, or of none where it is dropped."""
        states = pipeline.text_encoder.encode(self._words)
        dropped = torch.rand(count, device=states.device) < self.cfg.drop_text
        return states[dropped.long()]

    def _placed(self, device: torch.device) -> MixedViewPipeline:
        """Bring the frozen parts to where the batch is, at the first step."""
        (pipeline,) = self._frozen
        if pipeline.device != device:
            for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder.model):
                part.to(device)
        return pipeline


class PanoramaSdTask:
    """Model, data and panels of a full-size run."""

    def __init__(self, cfg: PanoramaSdConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        _, sets = open_sets(cfg.data, _band(cfg))
        _check_sizes(sets, cfg)
        self.dataset = PanoramaDataset(sets)
        self.pipeline = self._build()
        self.model = PanoramaSdModel(self.pipeline, cfg).train()

    def _build(self) -> MixedViewPipeline:
        cfg = self.cfg
        base = cfg.base or locate(BASE)
        unet = load_model(UNet2DConditionModel, base / "unet")
        vae = load_model(AutoencoderKL, base / "vae")
        levels = len(unet.config["block_out_channels"])
        patch = 2 ** (len(vae.config["block_out_channels"]) - 1)
        coarsest = patch * 2 ** (levels - 1)
        if cfg.height % coarsest or cfg.width % coarsest:
            raise ConfigError(
                f"height={cfg.height}, width={cfg.width}: this base halves them to cells of "
                f"{coarsest} px (give multiples of that; 256 and 1024 as published)"
            )
        return MixedViewPipeline(
            unet,
            vae,
            load_text(base),
            load_scheduler(base / "scheduler", "ddim"),
            *self._learnt(unet, patch, (cfg.dim,) * levels),
        )

    def _learnt(
        self, unet: UNet2DConditionModel, patch: int, level_dims: tuple[int, ...]
    ) -> tuple[ViewControlNet, MixedViewEncoder]:
        cfg = self.cfg
        if cfg.start_from is not None:
            views = load_part(MixedViewEncoder, cfg.start_from / "views")
            band = _band(cfg)
            if views.band != band:
                raise ConfigError(
                    f"{cfg.start_from} draws {views.band.width}x{views.band.height} px of "
                    f"elevations from {views.band.bottom_deg:g} to {views.band.top_deg:g} degrees, "
                    f"and not {band.width}x{band.height} px from {band.bottom_deg:g} to "
                    f"{band.top_deg:g} (give its own height and width)"
                )
            return load_part(ViewControlNet, cfg.start_from / "control"), views
        views = MixedViewEncoder(
            height=cfg.height,
            width=cfg.width,
            patch=patch,
            dim=cfg.dim,
            token_dim=unet.config["cross_attention_dim"],
            vector_dim=1,
            level_dims=level_dims,
            latent_channels=unet.config["in_channels"],
        )
        return control_of(unet, level_dims), views

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    def panel(self, path: Path) -> None:
        """Draw fixed places with fixed seeds: nearest, drawn with 0, 1 and 3 panoramas, real."""
        save_panel(
            path,
            self.dataset,
            self.cfg.panel_rows,
            lambda around, seeds: (
                self.pipeline(
                    around,
                    seeds=seeds,
                    prompts=[self.cfg.prompt] * len(seeds),
                    num_inference_steps=self.cfg.panel_steps,
                ).images
            ),
        )

    def export(self, folder: Path) -> None:
        """Save what was learnt, for ``terrascape render panorama``."""
        self.pipeline.save_pretrained(folder)


def _band(cfg: PanoramaSdConfig) -> Band:
    """Give the grid that a run draws on."""
    return Band(cfg.height, cfg.width)


def _check_sizes(sets: list[ViewSet], cfg: PanoramaSdConfig) -> None:
    """Refuse panoramas of another size, told from their files' heads."""
    sizes = set()
    for group in sets:
        for view in group.views:
            with Image.open(io.BytesIO(view.image), formats=("JPEG", "PNG")) as file:
                sizes.add(file.size)
    strange = sorted(sizes - {(cfg.width, cfg.height)})
    if strange:
        width, height = strange[0]
        raise ConfigError(
            f"{cfg.data} holds panoramas of {width}x{height} px and not {cfg.width}x{cfg.height} "
            f"(draw sets of that size: python -m training.panorama_sets --height {cfg.height}, or "
            "set height and width)"
        )
