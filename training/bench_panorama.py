"""How long one panorama takes, beside a plain U-Net and the rate of the machine's products.

The plain side is diffusers' own U-Net of the same configuration and weights, without wrapping in
azimuth, control branch, views or codec, in a loop of as many evaluations. What ours takes beyond
that is the price of looking around. Both draw in turns, so that a busy machine slows both.
"""

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor

from generation.diffusion.surroundings import Surroundings
from generation.errors import ConfigError
from generation.pipelines.panorama import PanoramaPipeline
from generation.registry import find, locate
from training.bench_satellite import count_work, gemm_rate, machine, peak_rss, timed

STEPS, VIEWS = 10, 3
SATELLITE_PX, GSD_M, LAT_DEG = 256, 420.0, 46.0
OFFSETS_M = ((2500.0, -1200.0), (-6000.0, 7000.0), (15000.0, 9000.0))
"""How far east and north of the place its three panoramas stand."""


def some_surroundings(pipeline: PanoramaPipeline) -> Surroundings:
    """Make three panoramas and a satellite image of coloured noise: time does not depend on it."""
    band, generator = pipeline.views.band, torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) * 2 - 1

    return Surroundings(
        panoramas=noise(1, VIEWS, 3, band.height, band.width),
        valid=torch.ones(1, VIEWS, dtype=torch.bool),
        offset_m=torch.tensor([OFFSETS_M]),
        satellite=noise(1, 3, SATELLITE_PX, SATELLITE_PX),
        has_satellite=torch.tensor([True]),
        gsd_m=torch.tensor([GSD_M]),
        lat_deg=torch.tensor([LAT_DEG]),
        depth=torch.zeros(1, 1, band.height, band.width),
        has_depth=torch.tensor([False]),
    )


class PanoramaBench:
    """One place, drawn by our pipeline, and the U-Net alone as diffusers has it."""

    def __init__(self, pipeline: PanoramaPipeline) -> None:
        self.pipeline, self.around = pipeline, some_surroundings(pipeline)
        # The class of diffusers itself: its convolutions fill up with zeros.
        self.unet = UNet2DConditionModel.from_config(pipeline.unet.config)
        self.unet.load_state_dict(pipeline.unet.state_dict())
        self.unet.eval()
        with torch.no_grad():
            self.guide = pipeline.views(self.around)

    def ours(self, seed: int) -> UInt8[np.ndarray, "1 height width 3"]:
        """Draw with the pipeline: look around, sample, decode."""
        return self.pipeline(self.around, seeds=[seed], num_inference_steps=STEPS).images

    @torch.no_grad()
    def plain(self, seed: int) -> Float[Tensor, "1 channels rows cols"]:
        """Sample latents with the U-Net alone, told the same tokens."""
        guide, grid = self.guide, self.pipeline.views.grid
        channels = self.pipeline.codec.config["latent_channels"]
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn((1, channels, grid.height, grid.width), generator=generator)
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            velocity = self.unet(
                x,
                t.expand(1),
                encoder_hidden_states=guide.tokens,
                encoder_attention_mask=guide.mask,
                class_labels=guide.vector,
                return_dict=False,
            )[0]
            x = scheduler.step(velocity, t, x, return_dict=False)[0]
        return x


def run(
    model: str, pairs: int, threads: Sequence[int] = (1, 2), *, weights: Path | None = None
) -> dict[str, Any]:
    """Load a model and time it.

    Args:
        model: A name of the registry.
        pairs: How often ours and the plain loop draw, in turns.
        threads: Numbers of torch's threads to time with.
        weights: A folder of weights in place of a registered model.
    """
    if weights is None and find(model).kind != "panorama":
        raise ConfigError(f"{model} draws no panoramas (see `terrascape models`)")
    folder = weights or locate(model)
    load_s, pipeline = timed(partial(PanoramaPipeline.from_pretrained, folder))
    named = {"model": "weights" if weights else model, "load_s": round(load_s, 3)}
    return {**named, **measure(pipeline, pairs, threads)}


def measure(
    pipeline: PanoramaPipeline, pairs: int, threads: Sequence[int] = (1, 2)
) -> dict[str, Any]:
    """Time a pipeline with each number of threads; torch's own number is put back at the end.

    Returns:
        Seconds, FLOPs, rates in FLOP/s, and ratios, ready for JSON.
    """
    bench, before = PanoramaBench(pipeline), torch.get_num_threads()
    flops, evaluations = count_work(pipeline.denoiser, lambda: bench.ours(0))
    plain_flops, _ = count_work(bench.unet, lambda: bench.plain(0))
    band = pipeline.views.band
    told: dict[str, Any] = {
        "model_sha256": pipeline.sha256 or None,
        "panorama": {
            "height_px": band.height,
            "width_px": band.width,
            "views": VIEWS,
            "steps": STEPS,
            "network_evaluations": evaluations,
        },
        "flops": flops,
        "plain_unet_flops": plain_flops,
        "dtype": str(pipeline.unet.dtype).removeprefix("torch."),
        "pairs": pairs,
    }
    try:
        told["threads"] = {str(number): _timings(bench, number, pairs, flops) for number in threads}
    finally:
        torch.set_num_threads(before)
    return {**told, "machine": machine(), "peak_rss_bytes": peak_rss()}


def _timings(bench: PanoramaBench, threads: int, pairs: int, flops: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    bench.ours(1000)  # warm both sides up
    bench.plain(1000)
    ours, plain = [], []
    for number in range(pairs):
        ours.append(timed(partial(bench.ours, number))[0])
        plain.append(timed(partial(bench.plain, number))[0])
    look_s, _ = timed(lambda: _looked(bench))
    rate, seconds = gemm_rate(bench.pipeline.unet.dtype), statistics.median(ours)
    return {
        "seconds": round(seconds, 4),
        "seconds_best": round(min(ours), 4),
        "looking_around_s": round(look_s, 4),
        "plain_unet_s": round(statistics.median(plain), 4),
        "times_plain_unet": round(
            statistics.median(a / b for a, b in zip(ours, plain, strict=True)), 3
        ),
        "gemm_flops_per_s": round(rate),
        "bound_s": round(flops / rate, 4),
        "efficiency": round(flops / rate / seconds, 4),
    }


@torch.no_grad()
def _looked(bench: PanoramaBench) -> object:
    return bench.pipeline.views(bench.around)


def tell(result: dict[str, Any]) -> str:
    """Return a measurement as lines for people."""
    size, on = result["panorama"], result["machine"]
    lines = [
        f"{size['height_px']}x{size['width_px']} panorama from {size['views']} others and a "
        f"satellite image, {size['network_evaluations']} network evaluations, "
        f"{result['flops'] / 1e9:.1f} GFLOP in {result['dtype']}"
    ]
    for threads, part in result["threads"].items():
        lines.append(
            f"{threads} thread{'s' if threads != '1' else ''}: {part['seconds']:.2f} s (best "
            f"{part['seconds_best']:.2f} s; looking around {part['looking_around_s']:.2f} s), "
            f"{part['times_plain_unet']:.2f} times the plain U-Net's {part['plain_unet_s']:.2f} s; "
            f"matrix product {part['gemm_flops_per_s'] / 1e9:.0f} GFLOP/s, efficiency "
            f"{part['efficiency']:.0%}"
        )
    lines.append(
        f"loading {result['load_s']:.1f} s, peak memory {result['peak_rss_bytes'] / 2**20:.0f} "
        f"MiB; {on['cpus']} CPUs ({on['capability']}), load {on['load_1min']}, torch {on['torch']}"
    )
    return "\n".join(lines)
