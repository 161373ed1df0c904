"""Panoramas at full size: a frozen Stable Diffusion that listens to what stands around a place.

Trained are the control branch and the encoder of views, and only these are saved; the base is named
and found by its registered name. Text is read as Stable Diffusion reads it: its states come first,
then the tokens of the views with their mask, and the U-Net attends to all of them. Everything wraps
in azimuth, the decoder of pixels too.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from generation.atomic import atomic_folder
from generation.checkpoint import load_part, model_sha256, save_part
from generation.diffusion.azimuth import wrap_azimuth
from generation.diffusion.codec import to_bytes
from generation.diffusion.guidance import GuidanceScales, guided
from generation.diffusion.noise import position_noise
from generation.diffusion.panorama_denoiser import MixedViewDenoiser, ViewControlNet
from generation.diffusion.surroundings import Guide, Surroundings
from generation.diffusion.views import MixedViewEncoder
from generation.encoders.clip_text import ClipTextEncoder
from generation.errors import CancelledError, InvalidSpecError, MissingFileError, WeightsError
from generation.hub import fetch
from generation.pipelines.folders import BASE, Folders
from generation.pipelines.panorama import NOISE_LEVEL, Drawn, Guides, OnStep
from generation.pipelines.panorama_parts import check_parts
from generation.pipelines.parts import (
    Options,
    choose_attention,
    load_model,
    load_scheduler,
    load_text,
    set_steps,
)

PARTS = {"control": ViewControlNet, "views": MixedViewEncoder}
_INDEX = "model_index.json"
_TOKENS_ROUND = 8
"""Attention kernels of GPUs take masks whose length is a multiple of this."""
_PREVIEW_SHRINK = 4


class MixedViewPipeline:
    """A frozen Stable Diffusion, what it is told of a place's surroundings, and the loop."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: ClipTextEncoder,
        scheduler: Any,  # noqa: ANN401 - one of SAMPLERS
        control: ViewControlNet,
        views: MixedViewEncoder,
    ) -> None:
        check_parts(unet, vae, text_encoder, control, views)
        wrap_azimuth(vae)
        self.unet, self.vae = unet.eval(), vae.eval()
        self.text_encoder, self.scheduler = text_encoder, scheduler
        self.control, self.views = control.eval(), views.eval()
        self.denoiser = MixedViewDenoiser(unet, control)
        self.sha256 = ""

    @property
    def device(self) -> torch.device:
        """Where the weights lie, and so where everything is computed."""
        return next(self.unet.parameters()).device

    def save_pretrained(self, folder: Path, *, half: bool = False) -> None:
        """Save what was trained and the name of the base, all or nothing.

        Args:
            folder: Where to.
            half: Whether in half precision, which is enough for drawing and not for going on.
        """
        index: dict[str, object] = {"_class_name": type(self).__name__, "base": BASE}
        index |= {name: ["generation", cls.__name__] for name, cls in PARTS.items()}
        with atomic_folder(folder) as staging:
            for name in PARTS:
                save_part(getattr(self, name), staging / name, half=half)
            (staging / _INDEX).write_text(json.dumps(index, indent=2) + "\n")

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        *,
        base: Path | None = None,
        options: Options | None = None,
        online: bool = False,
    ) -> "MixedViewPipeline":
        """Load what :meth:`save_pretrained` wrote, and the base, every file checked.

        Args:
            folder: The trained parts.
            base: Folder of Stable Diffusion 2.1-base; by default the registered one.
            options: Device, precision, attention and sampler.
            online: Whether the Hub may be asked for the base.

        Raises:
            MissingFileError: The folder holds no such pipeline, or the base is not here.
            WeightsError: A file is damaged, or parts do not fit each other.
            MissingExtraError: xformers was asked for and cannot be had.
        """
        named = _base_name(folder, cls.__name__)
        base = base or fetch(named, online=online)
        options = options or Options()
        device, dtype = options.place()
        unet = load_model(UNet2DConditionModel, base / "unet", dtype).to(device)
        control = load_model(ViewControlNet, folder / "control", dtype).to(device)
        choose_attention(unet, control.encoder, options.attention)
        text = load_text(base, dtype)
        text.model.to(device)
        pipeline = cls(
            unet,
            load_model(AutoencoderKL, base / "vae", dtype).to(device),
            text,
            load_scheduler(base / "scheduler", options.sampler),
            control,
            load_part(MixedViewEncoder, folder / "views").to(device),  # bearings need full floats
        )
        pipeline.sha256 = _whole_sha256(folder, base)
        return pipeline

    @torch.no_grad()
    def __call__(
        self,
        around: Surroundings,
        *,
        seeds: Sequence[int],
        prompts: Sequence[str] | None = None,
        num_inference_steps: int = 50,
        guidance: GuidanceScales | None = None,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Drawn:
        """Draw one panorama for each place, its middle looking north.

        Args:
            around: What is available around the places.
            seeds: One for each; equal seeds start from equal noise in every direction, wherever
                the place is.
            prompts: One for each, each of which may be empty; none at all when absent.
            num_inference_steps: Steps of the sampler.
            guidance: Scales for ``text``, ``satellite`` and ``views``; plain sampling when absent.
            on_step: Told ``(step, steps, preview of the first)``; the last is the picture.
            cancelled: Asked before each step.

        Raises:
            InvalidSpecError: Seeds, prompts, steps or sizes do not fit.
            CancelledError: ``cancelled`` said so.
        """
        prompts = [""] * len(seeds) if prompts is None else list(prompts)
        self._check(around, seeds, prompts, num_inference_steps)
        guidance, scheduler = guidance or GuidanceScales(), copy.deepcopy(self.scheduler)
        told = Told(self, around, prompts)
        set_steps(scheduler, num_inference_steps)
        x = torch.cat([self._noise(seed) for seed in seeds]).to(self.device)
        x = x * scheduler.init_noise_sigma
        total, last = len(scheduler.timesteps), scheduler.config.num_train_timesteps
        for i, t in enumerate(scheduler.timesteps):
            if cancelled is not None and cancelled():
                raise CancelledError(f"stopped at step {i} of {total}, as asked")
            noisy = scheduler.scale_model_input(x, t).to(self.unet.dtype)
            now = t.to(self.device, torch.float32).expand(len(x))
            evaluate = partial(self._evaluate, told, noisy, now)
            noise = guided(evaluate, guidance.terms(told.given, float(t) / last))
            if on_step is not None and i + 1 < total:
                kept = float(scheduler.alphas_cumprod[int(t)])
                clean = (x[:1] - (1 - kept) ** 0.5 * noise[:1]) / kept**0.5
                on_step(i + 1, total, self._preview(clean))
            x = scheduler.step(noise, t, x, return_dict=False)[0]
        images = to_bytes(self._decode(x))
        if on_step is not None:
            on_step(total, total, images[0])
        return Drawn(images, _on_cpu(told.guides[told.guides.given]))

    def latents(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Encode panoramas in [-1, 1], drawing from what the encoder says of each cell."""
        found: Tensor = self.vae.encode(images, return_dict=False)[0].sample()
        return found * self.vae.config["scaling_factor"]

    def _check(
        self, around: Surroundings, seeds: Sequence[int], prompts: Sequence[str], steps: int
    ) -> None:
        count, band = len(around.valid), self.views.band
        for name, given in (("seeds", seeds), ("prompts", prompts)):
            if len(given) != count:
                raise InvalidSpecError(
                    f"{len(given)} {name} for {count} places (give one for each)"
                )
        if steps < 1:
            raise InvalidSpecError(f"num_inference_steps={steps} (give at least 1)")
        height, width = around.panoramas.shape[-2:]
        if (height, width) != (band.height, band.width):
            raise InvalidSpecError(
                f"panoramas of {width}x{height} px (this model takes {band.width}x{band.height}, "
                f"elevations from {band.bottom_deg:g} to {band.top_deg:g} degrees; resize them)"
            )

    def _evaluate(
        self, told: "Told", x_t: Tensor, t: Tensor, subsets: Sequence[frozenset[str]]
    ) -> Sequence[Tensor]:
        return [self.denoiser(x_t, t, told[subset]).float() for subset in subsets]

    def _noise(self, seed: int) -> Float[Tensor, "1 channels rows cols"]:
        grid, channels = self.views.grid, self.vae.config["latent_channels"]
        rows, cols = range(grid.height), range(grid.width)
        return position_noise(seed, NOISE_LEVEL, rows, cols, channels, period=grid.width)

    def _decode(self, x: Float[Tensor, "batch channels rows cols"]) -> Tensor:
        latents = (x / self.vae.config["scaling_factor"]).to(self.vae.dtype)
        return self.vae.decode(latents, return_dict=False)[0]

    def _preview(self, clean: Float[Tensor, "1 channels rows cols"]) -> UInt8[np.ndarray, "h w 3"]:
        """Decode a quarter of the rows and columns: a sixteenth of the work."""
        shrink = _PREVIEW_SHRINK if min(clean.shape[-2:]) >= 2 * _PREVIEW_SHRINK else 1
        small = to_bytes(self._decode(F.avg_pool2d(clean, shrink)))[0]
        return small.repeat(shrink, axis=0).repeat(shrink, axis=1)


class Told:
    """What the denoiser is told for any subset of text, satellite image and views."""

    def __init__(
        self, pipeline: MixedViewPipeline, around: Surroundings, prompts: Sequence[str]
    ) -> None:
        device = pipeline.device
        placed = {f.name: getattr(around, f.name).to(device) for f in fields(Surroundings)}
        self.guides = Guides(pipeline.views, Surroundings(**placed))
        self.states = pipeline.text_encoder(list(prompts))
        self.no_states = pipeline.text_encoder([""] * len(prompts))
        text = frozenset({"text"} if any(prompt.strip() for prompt in prompts) else ())
        self.given = self.guides.given | text
        self.dtype = pipeline.unet.dtype
        self._made: dict[frozenset[str], Guide] = {}

    def __getitem__(self, subset: frozenset[str]) -> Guide:
        if subset not in self._made:
            states = self.states if "text" in subset else self.no_states
            self._made[subset] = with_text(self.guides[subset - {"text"}], states, self.dtype)
        return self._made[subset]


def with_text(
    guide: Guide, states: Float[Tensor, "batch words dim"], dtype: torch.dtype | None = None
) -> Guide:
    """Put the states of a text before the tokens of a guide.

    Args:
        guide: What was found around the places.
        states: What the text encoder says of their prompts; all of it is attended to.
        dtype: Precision of the denoiser; that of the guide if absent.

    Returns:
        The guide with more tokens. Tokens that nothing attends to fill it up to a round number.
    """
    dtype = dtype or guide.tokens.dtype
    tokens = torch.cat([states.to(dtype), guide.tokens.to(dtype)], 1)
    heard = torch.ones(states.shape[:2], dtype=torch.bool, device=guide.mask.device)
    mask = torch.cat([heard, guide.mask], 1)
    more = -tokens.shape[1] % _TOKENS_ROUND
    return replace(
        guide,
        tokens=F.pad(tokens, (0, 0, 0, more)),
        mask=F.pad(mask, (0, more), value=False),
        levels=[level.to(dtype) for level in guide.levels],
    )


def _on_cpu(guide: Guide) -> Guide:
    """Bring what was found to where pictures of it are made."""
    tensors = {f.name: getattr(guide, f.name) for f in fields(Guide) if f.name != "levels"}
    moved = {name: value.cpu() for name, value in tensors.items()}
    return Guide(**moved, levels=[level.cpu() for level in guide.levels])


def _base_name(folder: Path, wanted: str) -> str:
    path = folder / _INDEX
    if not path.is_file():
        raise MissingFileError(
            f"{folder} holds no full-size panorama pipeline: {_INDEX} is not there (give the "
            "folder that training wrote, weights/)"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON (restore the model's folder)") from error
    found = index.get("_class_name") if isinstance(index, dict) else None
    if found != wanted or not isinstance(index.get("base"), str):
        raise WeightsError(
            f"{path} describes a {found} and not a {wanted} with its base (give the folder that "
            "training with backbone: sd21 wrote)"
        )
    base: str = index["base"]
    return base


def _whole_sha256(folder: Path, base: Path) -> str:
    both = model_sha256(folder) + Folders(base=base).sha256()
    return hashlib.sha256(both.encode()).hexdigest()


def _find(name: str, *, online: bool) -> tuple[Path, Path]:
    """Give the folders of a registered model's trained parts and of its base."""
    folder = fetch(name, online=online)
    return folder, fetch(_base_name(folder, MixedViewPipeline.__name__), online=online)


def mixed_view_sha256(name: str, *, online: bool = False) -> str:
    """Give the hash that a registered full-size pipeline writes into its pictures."""
    return _whole_sha256(*_find(name, online=online))


def load_mixed_view(
    name: str, *, online: bool = False, options: Options | None = None
) -> MixedViewPipeline:
    """Give a registered full-size pipeline, loaded once as long as its files do not change.

    The sampler is UniPC unless the options say otherwise: it is good from ten steps on, which is
    what a RunSpec asks for by default.

    Raises:
        MissingFileError: Weights are not here; the message says what to do.
        WeightsError: A file is damaged, or parts do not fit each other.
    """
    folder, base = _find(name, online=online)
    files = [*sorted(folder.rglob("*.safetensors")), *Folders(base=base).weights()]
    stamp = tuple(file.stat().st_mtime for file in files)
    return _loaded(folder, base, stamp, options or Options(sampler="unipc"))


@lru_cache(maxsize=1)
def _loaded(
    folder: Path, base: Path, stamp: tuple[float, ...], options: Options
) -> MixedViewPipeline:
    return MixedViewPipeline.from_pretrained(folder, base=base, options=options)
