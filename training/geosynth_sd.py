"""GeoSynth at full size: a frozen Stable Diffusion learns to follow a layout, and a place.

The task of ``training/train_geosynth.py`` for configurations with ``backbone: sd21``. As published,
only the ControlNet and the CoordNet learn, by the plain error of the predicted noise, and no input
is ever dropped; the ``drop_*`` options, zero by default, teach the learned nulls that separate
guidance scales need.

Source:
    Sastry et al., "GeoSynth" (2024), arXiv 2404.06637, §3-4, and its published training settings.
"""

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from generation.config import config
from generation.diffusion.codec import signal
from generation.diffusion.coordnet import (
    CoordNet,
    LearnedNulls,
    Networks,
    Steering,
    predict_noise,
)
from generation.diffusion.guidance import GuidanceScales
from generation.encoders.location import LocationEncoder
from generation.errors import ConfigError
from generation.geo.location import Location
from generation.geo.mercator import MAX_LAT, Window
from generation.pipelines.folders import BASE, LOCATION_ENCODER
from generation.pipelines.geosynth import ZOOM, GeoSynthPipeline, Picture
from generation.pipelines.parts import load_model, load_scheduler, load_text
from generation.registry import locate
from training.data import CountedSampler
from training.pairs import PairDataset, PairSample
from training.trainer import LoopConfig

_PANEL_GUIDANCE = GuidanceScales(layout=1.0, location=1.0, text=7.5)


@config
class GeoSynthSdConfig:
    """Everything that tells one full-size run from another."""

    backbone: Literal["sd21"] = "sd21"
    data: Path = Path("runs/pairs/pairs.jsonl")
    """A manifest; see ``training.pairs``."""
    embeddings: Path | None = None
    """Location embeddings (.npy) that a published manifest's ``class`` counts the rows of."""
    out: Path = Path("runs/geosynth_sd21")
    base: Path | None = None
    """Folder of Stable Diffusion 2.1-base; by default the registered ``sd21-base``."""
    location_encoder: Path | None = None
    """Folder; by default the registered ``satclip-location``."""
    start_from: Path | None = None
    """A weights folder of an earlier run to go on from."""
    hint: Literal["layout", "edges"] = "layout"
    """What the ControlNet follows; edges are found in the pictures themselves."""
    location: bool = False
    """Whether a CoordNet learns too."""
    size_px: int = 512
    drop_text: float = 0.0
    """Probability of an empty prompt; this and the next two are 0 in the published runs."""
    drop_layout: float = 0.0
    """Probability of the learned null instead of the layout."""
    drop_location: float = 0.0
    panel_pairs: int = 4
    panel_steps: int = 20
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        drops = ("drop_text", "drop_layout", "drop_location")
        wrong = [f"{n}={getattr(self, n)}" for n in drops if not 0 <= getattr(self, n) < 1]
        if wrong:
            raise ConfigError(f"{', '.join(wrong)}: no probability below 1 (give 0 to 0.5)")
        if self.drop_location and not self.location:
            raise ConfigError("drop_location without location (set location: true)")
        if self.size_px < 8 or self.size_px % 8:
            raise ConfigError(f"size_px={self.size_px} is no multiple of 8 (512 as published)")


class GeoSynthSdModel(nn.Module):
    """A training step as a forward pass; only what learns is registered as a part of it.

    What is frozen is neither saved with snapshots nor wrapped by Accelerate.
    """

    def __init__(self, pipeline: GeoSynthPipeline, cfg: GeoSynthSdConfig) -> None:
        super().__init__()
        networks = pipeline.networks
        self.controlnet, self.coordnet = networks.controlnet, networks.coordnet
        self.nulls = networks.nulls
        self.requires_grad_(True)
        self.cfg = cfg
        self._frozen = (pipeline,)
        self._schedule = DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        )
        self._no_words = pipeline.text_encoder.tokens([""])

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Noise a batch, predict the noise, compare.

        Source:
            Ho et al., "Denoising Diffusion Probabilistic Models" (2020), Eq. 14.
        """
        pipeline = self._placed(batch["image"].device)
        with torch.no_grad(), torch.autocast(batch["image"].device.type, enabled=False):
            images = signal(batch["image"])
            latents = pipeline.vae.encode(images, return_dict=False)[0].sample()
            latents = latents * pipeline.vae.config["scaling_factor"]
        noise = torch.randn_like(latents)
        last = self._schedule.config["num_train_timesteps"]
        t = torch.randint(last, (len(latents),), device=latents.device)
        noisy = self._schedule.add_noise(latents, noise, t)
        predicted = predict_noise(pipeline.networks, noisy, t, self._steering(pipeline, batch))
        return {"loss": F.mse_loss(predicted.float(), noise.float())}

    def _steering(self, pipeline: GeoSynthPipeline, batch: dict[str, Tensor]) -> Steering:
        cfg, count, device = self.cfg, len(batch["image"]), batch["image"].device

        def keep(drop: float) -> Tensor | None:
            return torch.rand(count, device=device) >= drop if drop else None

        told, tokens = keep(cfg.drop_text), batch["tokens"]
        if told is not None:
            tokens = torch.where(told[:, None], tokens, self._no_words.to(device))
        return Steering(
            states=pipeline.text_encoder.encode(tokens),
            hint=batch["hint"].permute(0, 3, 1, 2).float() / 255,
            has_layout=keep(cfg.drop_layout),
            embedding=batch["embedding"] if cfg.location else None,
            has_location=keep(cfg.drop_location),
        )

    def _placed(self, device: torch.device) -> GeoSynthPipeline:
        """Bring the frozen parts to where the batch is, at the first step."""
        (pipeline,) = self._frozen
        if pipeline.device != device:
            for part in (pipeline.networks.unet, pipeline.vae, pipeline.text_encoder.model):
                part.to(device)
        return pipeline


class GeoSynthSdTask:
    """Model, data and panels of a full-size run."""

    def __init__(self, cfg: GeoSynthSdConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        self.dataset = PairDataset(
            cfg.data, size_px=cfg.size_px, hint=cfg.hint, embeddings=cfg.embeddings
        )
        self.pipeline = self._build()
        self._check_places()
        self.model = GeoSynthSdModel(self.pipeline, cfg).train()

    def _build(self) -> GeoSynthPipeline:
        cfg = self.cfg
        base = cfg.base or locate(BASE)
        unet = load_model(UNet2DConditionModel, base / "unet")
        encoder = None
        if cfg.location and cfg.embeddings is None:
            folder = cfg.location_encoder or locate(LOCATION_ENCODER)
            encoder = load_model(LocationEncoder, folder, torch.float64)
        return GeoSynthPipeline(
            self._networks(unet, encoder),
            load_model(AutoencoderKL, base / "vae"),
            load_text(base),
            load_scheduler(base / "scheduler", "ddim"),
            encoder,
            cfg.hint,
        )

    def _networks(self, unet: UNet2DConditionModel, encoder: LocationEncoder | None) -> Networks:
        cfg, size = self.cfg, 0
        if cfg.location and self.dataset.embeddings is not None:
            size = int(self.dataset.embeddings.shape[1])
        elif encoder is not None:
            size = int(encoder.config["embed_dim"])
        dropped_size = size if cfg.drop_location else 0
        if cfg.start_from is not None:
            return Networks(
                unet,
                load_model(ControlNetModel, cfg.start_from),
                load_model(CoordNet, cfg.start_from / "coordnet") if cfg.location else None,
                self._nulls(cfg.start_from / "nulls", dropped_size),
            )
        return Networks(
            unet,
            ControlNetModel.from_unet(unet),
            CoordNet.for_unet(unet, size) if cfg.location else None,
            self._nulls(None, dropped_size),
        )

    def _nulls(self, folder: Path | None, embed_dim: int) -> LearnedNulls | None:
        dropped = self.cfg.drop_layout > 0
        if not dropped and not embed_dim:
            return None
        if folder is not None and (folder / "config.json").is_file():
            return load_model(LearnedNulls, folder)
        return LearnedNulls(layout=dropped, embed_dim=embed_dim)

    def _check_places(self) -> None:
        if not self.cfg.location:
            return
        given = self.dataset.embeddings is not None
        lacking = [
            row for row in self.dataset.rows if (row.embedding if given else row.location) is None
        ]
        if lacking:
            raise ConfigError(
                f"{self.cfg.data}: {len(lacking)} of {len(self.dataset.rows)} pairs have no "
                f"{'class' if given else 'lat and lon'} (add them, or set location: false)"
            )

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        sampler = CountedSampler(
            len(self.dataset),
            seed=self.cfg.loop.seed,
            start=start,
            rank=rank,
            world_size=world_size,
        )
        loader: Any = torch.utils.data.DataLoader(
            self.dataset,
            batch_size=self.cfg.loop.batch_size,
            sampler=sampler,
            collate_fn=self._collate,
        )
        return iter(loader)

    def _collate(self, samples: list[PairSample]) -> dict[str, Tensor]:
        batch = {
            "image": torch.stack([sample["image"] for sample in samples]),
            "hint": torch.stack([sample["hint"] for sample in samples]),
            "tokens": self.pipeline.text_encoder.tokens([s["prompt"] for s in samples]),
        }
        if self.cfg.location:
            batch["embedding"] = torch.stack([self._embedding(sample) for sample in samples])
        return batch

    def _embedding(self, sample: PairSample) -> Tensor:
        if len(sample["embedding"]):
            return sample["embedding"]
        lat, lon = sample["latlon"].tolist()
        return self.pipeline.embed([(lat, lon)])[0]

    def panel(self, path: Path) -> None:
        """Draw fixed pairs with fixed seeds: hint, generated, real."""
        count = min(self.cfg.panel_pairs, len(self.dataset))
        rows = []
        for index in np.linspace(0, len(self.dataset) - 1, count).astype(int).tolist():
            sample = self.dataset[index, 0]
            drawn = self.pipeline.draw(
                [self._picture(sample, index)],
                num_inference_steps=self.cfg.panel_steps,
                guidance=_PANEL_GUIDANCE,
            )[0]
            rows.append(np.concatenate([sample["hint"].numpy(), drawn, sample["image"].numpy()], 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(path)

    def _picture(self, sample: PairSample, index: int) -> Picture:
        lat, lon = sample["latlon"].tolist()
        known = bool(np.isfinite(lat)) and abs(lat) < MAX_LAT
        place = Location(lat, lon) if known else Location(0.0, 0.0)
        return Picture(
            window=Window.around(place, ZOOM, self.cfg.size_px),
            prompt=sample["prompt"],
            hint=sample["hint"].numpy(),
            embedding=self._embedding(sample) if self.cfg.location else None,
            seed=index,
        )

    def export(self, folder: Path) -> None:
        """Save what was learnt as GeoSynth is published, for ``terrascape render``."""
        self.pipeline.save_steering(folder)
