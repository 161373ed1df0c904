"""What a model's panoramas of unseen places are worth, beside copies, blends and wrong inputs.

Noise belongs to the target, so that all its panoramas start from the same numbers and differ by
what they were drawn from alone. Intervals are 95 %, by bootstrap over sets: the targets of a set
show one place at one moment and are no independent witnesses.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import default_collate

from generation.diffusion.codec import to_bytes
from generation.diffusion.surroundings import Surroundings
from generation.errors import ConfigError
from generation.pipelines.panorama import PanoramaPipeline
from training.metrics import Images
from training.panorama_baselines import (
    Panorama,
    Sample,
    blend_views,
    copy_nearest,
    through_codec,
    with_satellite,
    with_strange_views,
)
from training.panorama_cases import Ask, Case, asks, bin_name, choose_cases
from training.panorama_data import PanoramaDataset, ViewSet, surroundings
from training.panorama_metrics import METRICS, PanoramaRuler

Report = Callable[[int, int], None]
"""Told how many panoramas are done, and of how many."""
SHEET_SETS = 6
SHEET_NAMES = ("copy", "views_0", "views_1", "views_3", "real")


@dataclass(slots=True)
class Findings:
    """Scores of all cases, by what the panoramas were drawn from."""

    cases: list[Case]
    tables: dict[str, Float[np.ndarray, "cases metrics"]] = field(default_factory=dict)
    """A row for each case; NaN where it has no such panorama, or no such score."""
    shown: dict[str, dict[int, Panorama]] = field(default_factory=dict)
    """Panoramas of a few cases, for the sheet."""

    def add(self, name: str, case: int, row: Float[np.ndarray, " metrics"]) -> None:
        """Record the scores of one panorama."""
        empty = np.full((len(self.cases), len(METRICS)), np.nan)
        self.tables.setdefault(name, empty)[case] = row

    def show(self, name: str, case: int, image: Panorama) -> None:
        """Keep a panorama for the sheet, if its case and its name are shown there."""
        if name in SHEET_NAMES and case in self.on_sheet:
            self.shown.setdefault(name, {})[case] = image

    @property
    def on_sheet(self) -> list[int]:
        """The first case of each of the first sets."""
        first: dict[int, int] = {}
        for i, case in enumerate(self.cases):
            if case.full:
                first.setdefault(case.number, i)
        return list(first.values())[:SHEET_SETS]


class PanoramaTest:
    """A model, sets that it has not seen, and the ruler."""

    def __init__(
        self,
        pipeline: PanoramaPipeline,
        sets: Sequence[ViewSet],
        *,
        limit: int = 40,
        targets: int = 1,
        steps: int = 10,
        seed: int = 0,
        batch: int = 8,
    ) -> None:
        self.pipeline, self.dataset = pipeline, PanoramaDataset(sets)
        self.cases = choose_cases(sets, limit, targets)
        self.steps, self.seed, self.batch = steps, seed, batch
        self.ruler = PanoramaRuler()
        band, sample = pipeline.views.band, self.sample(self.cases[0], Ask())
        height, width = sample["image"].shape[:2]
        if (height, width) != (band.height, band.width):
            raise ConfigError(
                f"the panoramas have {height}x{width} px and the model draws "
                f"{band.height}x{band.width} (give sets of that size)"
            )

    def sample(self, case: Case, ask: Ask) -> Sample:
        """Give what a case is drawn from; depths are never told."""
        sample = self.dataset.sample(case.number, case.target, ask.others)
        other = self.dataset.sample(case.partner, 0, ()) if ask.satellite != "own" else sample
        sample = with_satellite(sample, ask.satellite, other)
        if ask.strange:
            sample = with_strange_views(sample, self.dataset, case.partner)
        return sample

    def ground(self, sample: Sample) -> Bool[np.ndarray, "height width"]:
        """Tell which pixels are ground: by their depth, else those below the horizon."""
        if bool(sample["has_depth"]):
            return (sample["depth"] > 0).numpy()
        below = (self.pipeline.views.band.elevations_deg() < 0).numpy()
        return np.broadcast_to(below[:, None], sample["image"].shape[:2]).copy()

    def measure(self, report: Report | None = None) -> Findings:
        """Draw and score everything."""
        found = Findings(self.cases)
        for number, case in enumerate(self.cases):
            self._without_model(found, number, case)
        wanted = [asks(case) for case in self.cases]
        jobs = [(n, ask) for n, each in enumerate(wanted) for ask in dict.fromkeys(each.values())]
        jobs.sort(key=lambda job: (len(job[1].others), job[0]))  # equal work side by side
        for start in range(0, len(jobs), self.batch):
            part = jobs[start : start + self.batch]
            for (number, ask), image, draft in zip(part, *self._draw(part), strict=True):
                names = [name for name, each in wanted[number].items() if each == ask]
                row = self._scored(number, image[None])[0]
                for name in names:
                    found.add(name, number, row)
                    found.show(name, number, image)
                if "views_3" in names:
                    found.add("draft", number, self._scored(number, draft[None])[0])
            if report is not None:
                report(start + len(part), len(jobs))
        return found

    def _draw(self, jobs: Sequence[tuple[int, Ask]]) -> tuple[Images, Images]:
        """Draw panoramas; give them, and what was looked up before the denoiser had its say."""
        around = _around([self.sample(self.cases[number], ask) for number, ask in jobs])
        drawn = self.pipeline(
            around,
            seeds=[self._noise_of(self.cases[number]) for number, _ in jobs],
            num_inference_steps=self.steps,
        )
        codec, guide = self.pipeline.codec, drawn.guide
        with torch.no_grad():
            latents = codec.encode(guide.draft) + guide.correction
            draft = self.pipeline.decoder.decode(latents, codec)
        return drawn.images, to_bytes(draft)

    def _noise_of(self, case: Case) -> int:
        """Give a seed of the target's own, whatever else is measured."""
        return self.seed + 1000 * case.number + case.target

    def _scored(self, number: int, images: Images) -> Float[np.ndarray, "n metrics"]:
        here = self.sample(self.cases[number], Ask())
        real, ground = here["image"].numpy(), self.ground(here)
        count = len(images)
        return self.ruler(images, np.stack([real] * count), np.stack([ground] * count))

    def _without_model(self, found: Findings, number: int, case: Case) -> None:
        """Score the real panorama, the codec's own limit, copies and blends."""
        pictures: dict[str, Panorama] = {}
        if case.full:
            nearest = self.sample(case, Ask(case.order[: self.dataset.views]))
            real = nearest["image"].numpy()
            pictures |= {
                "real": real,
                "codec": through_codec(self.pipeline, real[None])[0],
                "copy": copy_nearest(nearest),
                "blend": blend_views(nearest),
            }
        for edges in case.bins:
            given = case.within(*edges)
            if given is not None:
                sample, name = self.sample(case, Ask(given[0])), bin_name(*edges)
                pictures[f"copy/{name}"] = copy_nearest(sample)
                if len(given[0]) == self.dataset.views:
                    pictures[f"blend/{name}"] = blend_views(sample)
        if not pictures:
            return
        rows = self._scored(number, np.stack(list(pictures.values())))
        for (name, picture), row in zip(pictures.items(), rows, strict=True):
            found.add(name, number, row)
            found.show(name, number, picture)

    def some_surroundings(self, count: int = 2) -> Surroundings:
        """Give what the first cases are drawn from, with all their panoramas."""
        cases = self.cases[:count]
        return _around([self.sample(c, Ask(c.order[: self.dataset.views])) for c in cases])


def _around(samples: Sequence[Sample]) -> Surroundings:
    around = surroundings(default_collate(list(samples)))
    return replace(around, has_depth=torch.zeros_like(around.has_depth))


@torch.no_grad()
def heading_error(
    pipeline: PanoramaPipeline,
    around: Surroundings,
    headings_deg: Sequence[float] | None = None,
    *,
    steps: int = 10,
    seed: int = 0,
) -> dict[str, Any]:
    """Draw places with other headings and from noise turned along; compare before decoding.

    Args:
        pipeline: The model.
        around: What the places are drawn from.
        headings_deg: Where their middles look: multiples of what a cell of the denoiser's coarsest
            map covers, or its pooling does not turn along. One cell, a quarter, a half and all but
            one cell of a full turn when absent.
        steps: Steps of the sampler.
        seed: Chooses the noise.

    Returns:
        The largest absolute differences: ``velocity`` of the first evaluation, ``latents`` at the
        end, draft included, whose ``largest_latent`` tells what rounding to expect.

    Raises:
        ConfigError: A heading turns no whole number of cells.
    """
    grid, blocks = pipeline.views.grid, len(pipeline.unet.config["block_out_channels"])
    cell_deg = grid.step_deg * 2 ** (blocks - 1)
    if headings_deg is None:
        headings_deg = (cell_deg, 90.0, 180.0, 360.0 - cell_deg)
    odd = [heading for heading in headings_deg if heading % cell_deg]
    if odd:
        raise ConfigError(f"headings {odd} turn no whole cells (give multiples of {cell_deg:g})")
    generator = torch.Generator().manual_seed(seed)
    channels = pipeline.codec.config["latent_channels"]
    shape = (len(around.valid), channels, grid.height, grid.width)
    noise = torch.randn(shape, generator=generator)
    straight = list(_latents(pipeline, around, 0.0, noise, steps))
    worst = {"velocity": 0.0, "latents": 0.0}
    largest = float(straight[-1].abs().max())
    for heading in headings_deg:
        shift = -round(heading / grid.step_deg)
        turned = _latents(pipeline, around, heading, noise.roll(shift, dims=3), steps)
        for name, plain, other in zip(worst, straight, turned, strict=True):
            apart = float((plain.roll(shift, dims=3) - other).abs().max())
            worst[name] = max(worst[name], apart)
    return {
        "max_abs_velocity": worst["velocity"],
        "max_abs_latents": worst["latents"],
        "largest_latent": largest,
        "headings_deg": list(headings_deg),
        "places": len(noise),
        "steps": steps,
        "dtype": str(pipeline.unet.dtype).removeprefix("torch."),
    }


def _latents(
    pipeline: PanoramaPipeline, around: Surroundings, heading_deg: float, x: Tensor, steps: int
) -> Iterator[Tensor]:
    """Sample as the pipeline does; give the first velocity, then the latents at the end."""
    guide = pipeline.views(around, heading_deg)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(steps)
    for number, t in enumerate(scheduler.timesteps):
        velocity = pipeline.denoiser(x, t.expand(len(x)), guide)
        if number == 0:
            yield velocity
        x = scheduler.step(velocity, t, x, return_dict=False)[0]
    draft = pipeline.codec.encode(guide.draft) + guide.correction
    yield draft + x * pipeline.views.spread[:, :, None]
