"""How long one satellite image takes, and how near that is to the best this machine can do.

The bound is the image's floating-point operations over the rate of the machine's own matrix
product, measured in the same run; ``efficiency`` is bound over measured time. Seconds depend on
who else uses the machine, ratios of alternated pairs hardly do.
"""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from jaxtyping import UInt8
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from generation.conditioning import Condition, SatelliteConditioner
from generation.diffusion.codec import PatchCodec
from generation.diffusion.decoder import DetailDecoder
from generation.diffusion.denoiser import build_networks
from generation.diffusion.guidance import GuidanceScales
from generation.geo.layers import EmbeddedSource
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.pipelines.satellite import SatellitePipeline, load_pipeline
from generation.pipelines.scene import Scene
from training.metrics import psnr

SIZE_PX, ZOOM, STEPS, SCALE = 256, 8, 10, 2.0
"""Ten steps with equal guidance scales: two evaluations a step, twenty in all."""
PLACE = Location(45.98, 7.66)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_GEMM_SIDES = (256, 512, 1024, 2048)
_GEMM_LIMIT_S = 0.2
"""Larger matrices are not tried once a product takes this long."""


def gemm_rate(dtype: torch.dtype) -> float:
    """Return the best rate of a square matrix product on this machine, FLOP/s."""
    best = 0.0
    for side in _GEMM_SIDES:
        a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
        a @ b  # the first call prepares kernels
        times = [timed(partial(torch.matmul, a, b))[0] for _ in range(5 if side < 2048 else 3)]
        best = max(best, 2 * side**3 / min(times))
        if min(times) > _GEMM_LIMIT_S:
            break
    return best


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Do some work; return the seconds it took, and what it returned."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def untrained_pipeline(seed: int = 0) -> SatellitePipeline:
    """Return the nano pipeline with random weights: as fast as a trained one, and no more."""
    torch.manual_seed(seed)
    codec = PatchCodec()
    patch, channels = codec.patch, codec.config["latent_channels"]
    unet, controlnet = build_networks(
        latent_channels=channels, latent_size=SIZE_PX // patch, patch=patch
    )
    conditioner = SatelliteConditioner(patch=patch)
    decoder = DetailDecoder(latent_channels=channels, patch=patch)
    return SatellitePipeline(
        unet, controlnet, conditioner, codec, decoder, FlowMatchEulerDiscreteScheduler()
    )


class Bench:
    """One pipeline and one place, drawn by our loop and by a plain one."""

    def __init__(self, pipeline: SatellitePipeline) -> None:
        self.pipeline = pipeline
        self.window = Window.around(PLACE, ZOOM, SIZE_PX)
        source = EmbeddedSource()
        source.layout(self.window)  # reads the shapes
        self.layout_s, layout = timed(lambda: source.layout(self.window))
        self.classes = layout.classes

    def scene(self, number: int) -> Scene:
        """Return the scene with a prompt of its own, so that no text is remembered."""
        return Scene(self.window, f"snowy alpine valley number {number}", self.classes, seed=number)

    def ours(self, number: int) -> UInt8[np.ndarray, "1 height width 3"]:
        """Draw with the pipeline."""
        scales = GuidanceScales(SCALE, SCALE, SCALE)
        return self.pipeline([self.scene(number)], num_inference_steps=STEPS, guidance=scales)

    @torch.no_grad()
    def plain(self, number: int) -> UInt8[np.ndarray, "1 height width 3"]:
        """Draw with the loop of diffusers' own ControlNet pipelines, on the same weights.

        Both halves of the guidance in one batch of two, control branch and U-Net called one after
        the other, a step of the scheduler; the same decoder.
        """
        pipe, scene = self.pipeline, self.scene(number)
        sets = pipe.conditions([scene])
        both = Condition.cat([sets[frozenset()], sets[frozenset(("layout", "location", "text"))]])
        context = {"encoder_hidden_states": both.tokens, "class_labels": both.vector}
        scheduler = pipe._schedule(STEPS)
        x = pipe._noise(scene)
        for t in scheduler.timesteps[:STEPS]:
            double = torch.cat([x, x])
            down, mid = pipe.controlnet(
                double, t, controlnet_cond=both.hint, return_dict=False, **context
            )
            without, given = pipe.unet(
                double,
                t,
                encoder_attention_mask=both.mask,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
                return_dict=False,
                **context,
            )[0].chunk(2)
            velocity = without + SCALE * (given - without)
            x = scheduler.step(velocity, t, x, return_dict=False)[0]
        return pipe._finish(x, sets, GuidanceScales(SCALE, SCALE, SCALE))


def count_work(denoiser: nn.Module, draw: Callable[[], object]) -> tuple[int, int]:
    """Return the floating-point operations and the network evaluations of a drawing.

    Two halves of guidance that go through the network as one batch are two evaluations.
    """
    evaluations = 0

    def count(_module: nn.Module, inputs: tuple[Any, ...], _result: object) -> None:
        nonlocal evaluations
        evaluations += len(inputs[0])

    handle = denoiser.register_forward_hook(count)
    try:
        with FlopCounterMode(display=False) as counter:
            draw()
    finally:
        handle.remove()
    return counter.get_total_flops(), evaluations


def run(
    model: str, pairs: int, threads: int | None = None, *, untrained: bool = False
) -> dict[str, Any]:
    """Load a model and time it.

    Args:
        model: A name of the registry.
        pairs: How often ours and the plain loop draw, in turns.
        threads: Threads of torch; its own choice when absent.
        untrained: Random weights instead of the model's.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    load_s, pipeline = timed(untrained_pipeline if untrained else lambda: load_pipeline(model))
    named = {"model": "untrained" if untrained else model, "load_s": round(load_s, 3)}
    return {**named, **measure(pipeline, pairs)}


def measure(pipeline: SatellitePipeline, pairs: int) -> dict[str, Any]:
    """Time a pipeline; ours and the plain loop in turns.

    Returns:
        Seconds, FLOPs, rates in FLOP/s, and ratios, ready for JSON.
    """
    bench = Bench(pipeline)
    bench.ours(1000)  # warm both sides up
    bench.plain(1001)
    flops, evaluations = count_work(pipeline.denoiser, lambda: bench.ours(1002))
    alike = float(min(psnr(bench.ours(0), bench.plain(0))[0], 100.0))
    ours, plain = [], []
    for number in range(1, pairs + 1):
        ours.append(timed(partial(bench.ours, number))[0])
        plain.append(timed(partial(bench.plain, number + 10_000))[0])
    rates = {name: gemm_rate(dtype) for name, dtype in DTYPES.items()}
    used = str(pipeline.unet.dtype).removeprefix("torch.")
    seconds = statistics.median(ours)
    return {
        "model_sha256": pipeline.sha256 or None,
        "machine": machine(),
        "layout_s": round(bench.layout_s, 4),
        "image": {"size_px": SIZE_PX, "steps": STEPS, "network_evaluations": evaluations},
        "seconds": round(seconds, 4),
        "seconds_best": round(min(ours), 4),
        "flops": flops,
        "dtype": used,
        "gemm_flops_per_s": {name: round(rate) for name, rate in rates.items()},
        "fastest_dtype": max(rates, key=lambda name: rates[name]),
        "bound_s": round(flops / rates[used], 4),
        "efficiency": round(flops / rates[used] / seconds, 4),
        "plain_diffusers_s": round(statistics.median(plain), 4),
        "speedup_over_plain": round(
            statistics.median(b / a for a, b in zip(ours, plain, strict=True)), 3
        ),
        "pairs": pairs,
        "psnr_db_ours_to_plain": round(alike, 1),
        "peak_rss_bytes": peak_rss(),
    }


def machine() -> dict[str, object]:
    """Describe what a measurement was made on."""
    return {
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def peak_rss() -> int:
    """Return the most memory that this process held so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tell(result: dict[str, Any]) -> str:
    """Return a measurement as lines for people."""
    rates = {name: rate / 1e9 for name, rate in result["gemm_flops_per_s"].items()}
    machine, image = result["machine"], result["image"]
    lines = [
        f"{image['size_px']}x{image['size_px']} image, {image['network_evaluations']} network "
        f"evaluations: {result['seconds']:.2f} s (best {result['seconds_best']:.2f} s)",
        f"work: {result['flops'] / 1e9:.1f} GFLOP in {result['dtype']}",
        "matrix product of this machine: "
        + ", ".join(f"{name} {rate:.1f} GFLOP/s" for name, rate in rates.items())
        + f" (fastest: {result['fastest_dtype']})",
        f"bound {result['bound_s']:.2f} s, efficiency {result['efficiency']:.0%}",
        f"plain diffusers loop, same weights: {result['plain_diffusers_s']:.2f} s, ours "
        f"{result['speedup_over_plain']:.2f} times as fast (median of {result['pairs']} alternated "
        f"pairs; pictures agree to {result['psnr_db_ours_to_plain']:.0f} dB)",
        f"loading {result['load_s']:.1f} s, layout {result['layout_s'] * 1e3:.0f} ms, peak memory "
        f"{result['peak_rss_bytes'] / 2**20:.0f} MiB",
        f"{machine['threads']} threads of {machine['cpus']} CPUs ({machine['capability']}), load "
        f"{machine['load_1min']}, torch {machine['torch']}",
    ]
    if result["fastest_dtype"] != result["dtype"]:
        lines.append(
            f"note: the model runs in {result['dtype']}, this machine multiplies fastest in "
            f"{result['fastest_dtype']}"
        )
    return "\n".join(lines)
