"""GeoSynth at full size: Stable Diffusion 2.1-base steered by a ControlNet and a CoordNet.

The parts are those of diffusers' StableDiffusionControlNetPipeline, in its folders; any subset of
inputs may be given. The published models never saw an input missing: without a layout or a
location nothing is added to the frozen base, and only ``layout=1, location=1, text=7.5`` is
guidance as published. Networks trained here with dropped inputs bring their learned nulls along.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from generation.checkpoint import save_part
from generation.diffusion.codec import to_bytes
from generation.diffusion.coordnet import (
    CoordNet,
    LearnedNulls,
    Networks,
    Steering,
    predict_noise,
    stacked,
)
from generation.diffusion.guidance import GuidanceScales, guided
from generation.diffusion.noise import position_noise
from generation.encoders.clip_text import ClipTextEncoder
from generation.encoders.location import LocationEncoder
from generation.errors import CancelledError, LayoutError, MissingFileError
from generation.geo.layout import PALETTE
from generation.geo.mercator import Window
from generation.media.edges import canny_edges
from generation.pipelines.folders import Folders, check_fit, find_folders
from generation.pipelines.parts import (
    Options,
    choose_attention,
    load_model,
    load_scheduler,
    load_text,
    set_steps,
)
from generation.pipelines.satellite import OnStep
from generation.pipelines.scene import Scene
from generation.registry import find
from generation.spec import RunSpec

SIZE_PX, ZOOM = 512, 19
"""What the published models were trained at: tiles of zoom 18 drawn at 512 px."""
_PREVIEW_SHRINK = 4


@dataclass(frozen=True, slots=True)
class Picture:
    """What one picture is given; a scene whose layout and place are turned into signals."""

    window: Window
    prompt: str = ""
    hint: UInt8[np.ndarray, "height width 3"] | None = None
    embedding: Float[Tensor, " embed"] | None = None
    seed: int = 0


class GeoSynthPipeline:
    """A frozen Stable Diffusion, what steers it, and the loop that uses them."""

    def __init__(
        self,
        networks: Networks,
        vae: AutoencoderKL,
        text_encoder: ClipTextEncoder,
        scheduler: Any,  # noqa: ANN401 - one of SAMPLERS
        location_encoder: LocationEncoder | None = None,
        hint: str = "layout",
    ) -> None:
        check_fit(networks, vae, text_encoder, location_encoder)
        self.networks, self.vae, self.text_encoder = networks, vae, text_encoder
        self.scheduler, self.location_encoder, self.hint = scheduler, location_encoder, hint
        self.sha256 = ""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.networks.unet.device

    @classmethod
    def from_pretrained(
        cls, folders: Folders, *, hint: str = "layout", options: Options | None = None
    ) -> "GeoSynthPipeline":
        """Load the parts, every file checked.

        Raises:
            MissingFileError: A file is not there.
            WeightsError: A file is damaged, or parts do not fit each other.
            MissingExtraError: xformers was asked for and cannot be had.
        """
        options = options or Options()
        device, dtype = options.place()

        def part(kind: Any, folder: Path | None) -> Any:  # noqa: ANN401
            return None if folder is None else load_model(kind, folder, dtype).to(device)

        networks = Networks(
            unet=part(UNet2DConditionModel, folders.base / "unet"),
            controlnet=part(ControlNetModel, folders.controlnet),
            coordnet=part(CoordNet, folders.coordnet),
            nulls=part(LearnedNulls, folders.nulls),
        )
        choose_attention(networks.unet, networks.controlnet, options.attention)
        text = load_text(folders.base, dtype)
        text.model.to(device)
        encoder = folders.location_encoder
        pipeline = cls(
            networks,
            part(AutoencoderKL, folders.base / "vae"),
            text,
            load_scheduler(folders.base / "scheduler", options.sampler),
            None if encoder is None else load_model(LocationEncoder, encoder, torch.float64),
            hint,
        )
        pipeline.sha256 = folders.sha256()
        return pipeline

    def save_steering(self, folder: Path) -> None:
        """Save what steers the base, in the published form: the ControlNet in the folder itself."""
        parts = {"": self.networks.controlnet, "coordnet": self.networks.coordnet}
        for name, part in {**parts, "nulls": self.networks.nulls}.items():
            if part is not None:
                save_part(part, folder / name)

    def __call__(
        self,
        scenes: Sequence[Scene],
        *,
        num_inference_steps: int = 50,
        guidance: GuidanceScales | None = None,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> UInt8[np.ndarray, "batch height width 3"]:
        """Draw one picture for each scene; see :meth:`draw`."""
        return self.draw(
            [self.picture(scene) for scene in scenes],
            num_inference_steps=num_inference_steps,
            guidance=guidance,
            on_step=on_step,
            cancelled=cancelled,
        )

    def picture(self, scene: Scene) -> Picture:
        """Turn a scene's layout and place into what the networks read.

        Raises:
            LayoutError: The ControlNet reads segment masks, which a layout is not.
        """
        hint = None
        if scene.layout is not None and self.networks.controlnet is not None:
            if self.hint == "segments":
                raise LayoutError(
                    "layout: this model was trained on segment masks, which no map gives (use "
                    "layout=none, or GeoSynthPipeline.draw with a mask as the picture's hint)"
                )
            drawn = PALETTE[scene.layout]
            hint = canny_edges(drawn) if self.hint == "edges" else drawn
        embedding = None
        if scene.use_location and self.location_encoder is not None:
            centre = scene.window.center
            embedding = self.embed([scene.place or (centre.lat, centre.lon)])[0]
        return Picture(scene.window, scene.prompt, hint, embedding, scene.seed)

    @torch.no_grad()
    def embed(self, latlon: Sequence[tuple[float, float]]) -> Float[Tensor, "places embed"]:
        """Embed places, latitude first, in double precision as the published embeddings are."""
        if self.location_encoder is None:
            raise MissingFileError(
                "the pipeline has no location encoder (give its folder; `terrascape convert "
                "satclip` makes it)"
            )
        return self.location_encoder(torch.tensor(list(latlon), dtype=torch.float64)).float()

    @torch.no_grad()
    def draw(
        self,
        pictures: Sequence[Picture],
        *,
        num_inference_steps: int = 50,
        guidance: GuidanceScales | None = None,
        on_step: OnStep | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> UInt8[np.ndarray, "batch height width 3"]:
        """Draw pictures of one size.

        Args:
            pictures: What each is given.
            num_inference_steps: Steps of the sampler.
            guidance: Scales; ``layout=1, location=1, text=7.5`` is as published. Plain conditional
                sampling when absent.
            on_step: Told ``(step, steps, preview of the first picture)``.
            cancelled: Asked before each step.

        Raises:
            CancelledError: ``cancelled`` said so.
        """
        guidance, scheduler = guidance or GuidanceScales(), copy.deepcopy(self.scheduler)
        steering = SteeringSets(self, pictures)
        set_steps(scheduler, num_inference_steps)
        x = torch.cat([self._noise(picture) for picture in pictures]).to(self.device)
        total, last = len(scheduler.timesteps), scheduler.config.num_train_timesteps
        for i, t in enumerate(scheduler.timesteps):
            if cancelled is not None and cancelled():
                raise CancelledError(f"stopped at step {i} of {total}, as asked")
            now = t.to(self.device).expand(len(x))
            noisy = scheduler.scale_model_input(x, t).to(self.networks.unet.dtype)
            evaluate = partial(self._evaluate, steering, noisy, now)
            noise = guided(evaluate, guidance.terms(steering.given, float(t) / last))
            if on_step is not None:
                kept = float(scheduler.alphas_cumprod[int(t)])
                clean = (x[:1] - (1 - kept) ** 0.5 * noise[:1]) / kept**0.5
                on_step(i + 1, total, self._preview(clean))
            x = scheduler.step(noise, t, x, return_dict=False)[0]
        return to_bytes(self._decode(x))

    def remarks(self, spec: RunSpec) -> list[str]:
        """Tell what of a spec this model was not trained for, or does not read."""
        steered, placed = self.networks.controlnet is not None, self.networks.coordnet is not None
        layout, found = steered and spec.layout != "none", []
        if not steered and spec.layout != "none":
            found.append("the model reads no layout; the layout was not used")
        if not placed and spec.use_location:
            found.append("the model knows no places; the location was not used")
        if layout and self.hint == "edges":
            found.append("the model reads edges: those of the drawn layout")
        if spec.size != SIZE_PX or spec.zoom != ZOOM:
            found.append(
                f"the model was trained at {SIZE_PX} px and zoom {ZOOM}, about 0.3 m a pixel"
            )
        scales = [spec.layout_guidance] * layout
        scales += [spec.location_guidance] * (placed and spec.use_location)
        if self.networks.nulls is None and any(scale != 1 for scale in scales):
            found.append(
                "the model never saw a layout or a location missing; guidance as published is "
                "layout 1, location 1, text 7.5"
            )
        return found

    def _evaluate(
        self, steering: "SteeringSets", x_t: Tensor, t: Tensor, subsets: Sequence[frozenset[str]]
    ) -> Sequence[Tensor]:
        """Evaluate together what goes through the same networks: an absent input leaves one out."""
        answers: dict[frozenset[str], Tensor] = {}
        for together in steering.alike(subsets):
            told, count = stacked([steering[subset] for subset in together]), len(together)
            noise = predict_noise(self.networks, x_t.repeat(count, 1, 1, 1), t.repeat(count), told)
            answers |= zip(together, noise.float().chunk(count), strict=True)
        return [answers[subset] for subset in subsets]

    def _noise(self, picture: Picture) -> Float[Tensor, "1 channels rows cols"]:
        window, cell = picture.window, 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        row, col = window.row_px // cell, window.col_px // cell
        return position_noise(
            picture.seed,
            window.zoom,
            range(row, row + window.height_px // cell),
            range(col, col + window.width_px // cell),
            self.vae.config["latent_channels"],
        )

    def _decode(self, x: Float[Tensor, "batch channels rows cols"]) -> Tensor:
        latents = (x / self.vae.config["scaling_factor"]).to(self.vae.dtype)
        return self.vae.decode(latents, return_dict=False)[0]

    def _preview(self, clean: Float[Tensor, "1 channels rows cols"]) -> UInt8[np.ndarray, "h w 3"]:
        """Decode a quarter of the rows and columns: a sixteenth of the work."""
        shrink = _PREVIEW_SHRINK if min(clean.shape[-2:]) >= 8 * _PREVIEW_SHRINK else 1
        small = to_bytes(self._decode(F.avg_pool2d(clean, shrink)))[0]
        return small.repeat(shrink, axis=0).repeat(shrink, axis=1)


class SteeringSets:
    """The steering of a batch for any subset of inputs, each made once."""

    def __init__(self, pipeline: GeoSynthPipeline, pictures: Sequence[Picture]) -> None:
        networks = pipeline.networks
        self.device, self.dtype = pipeline.device, networks.unet.dtype
        self.always = networks.nulls is not None
        """Whether a missing input is a learned null, which the networks have to be shown."""
        self.states = pipeline.text_encoder([picture.prompt for picture in pictures])
        self.no_states = pipeline.text_encoder([""] * len(pictures))
        steered, placed = networks.controlnet is not None, networks.coordnet is not None
        self.has = {
            "text": [bool(p.prompt.strip()) for p in pictures],
            "layout": [steered and p.hint is not None for p in pictures],
            "location": [placed and p.embedding is not None for p in pictures],
        }
        self.given = frozenset(name for name, flags in self.has.items() if any(flags))
        window = pictures[0].window
        blank = np.zeros((window.height_px, window.width_px, 3), np.uint8)
        hints = np.stack([blank if p.hint is None else p.hint for p in pictures])
        self.hint = torch.from_numpy(hints).permute(0, 3, 1, 2).float() / 255 if steered else None
        size = networks.coordnet.config["embed_dim"] if networks.coordnet is not None else 0
        nowhere = torch.zeros(size)
        rows = [nowhere if p.embedding is None else p.embedding for p in pictures]
        self.embedding = torch.stack(rows) if placed else None
        self._made: dict[frozenset[str], Steering] = {}

    def __getitem__(self, subset: frozenset[str]) -> Steering:
        if subset not in self._made:
            self._made[subset] = Steering(
                states=self.states if "text" in subset else self.no_states,
                hint=self._signal(self.hint, "layout", subset),
                has_layout=self._flags("layout", subset),
                embedding=self._signal(self.embedding, "location", subset),
                has_location=self._flags("location", subset),
            )
        return self._made[subset]

    def alike(self, subsets: Sequence[frozenset[str]]) -> list[list[frozenset[str]]]:
        """Put together the subsets that go through the same networks."""
        groups: dict[tuple[bool, bool], list[frozenset[str]]] = {}
        for subset in dict.fromkeys(subsets):
            told = self[subset]
            groups.setdefault((told.hint is None, told.embedding is None), []).append(subset)
        return list(groups.values())

    def _signal(self, signal: Tensor | None, name: str, subset: frozenset[str]) -> Tensor | None:
        if signal is None or not (self.always or name in subset):
            return None
        return signal.to(self.device, self.dtype)

    def _flags(self, name: str, subset: frozenset[str]) -> Tensor:
        flags = self.has[name] if name in subset else [False] * len(self.has[name])
        return torch.tensor(flags, device=self.device)


def load_geosynth(
    name: str, *, online: bool = False, options: Options | None = None
) -> GeoSynthPipeline:
    """Give a registered GeoSynth, loaded once as long as its files do not change.

    The sampler is UniPC unless the options say otherwise: it is good from ten steps on, which is
    what a RunSpec asks for by default.

    Raises:
        MissingFileError: Weights are not here; the message says what to get and where to put it.
    """
    card = find(name)
    folders = find_folders(card.name, online=online)
    stamp = tuple(file.stat().st_mtime for file in folders.weights())
    return _loaded(folders, stamp, card.hint, options or Options(sampler="unipc"))


@lru_cache(maxsize=1)
def _loaded(
    folders: Folders, stamp: tuple[float, ...], hint: str, options: Options
) -> GeoSynthPipeline:
    return GeoSynthPipeline.from_pretrained(folders, hint=hint, options=options)
