"""How long ten seconds of sound take, beside the rate of the machine's own matrix product.

The real-time factor is seconds of work over seconds of sound; below one, sound is made faster than
it is heard. The bound is the floating-point operations over the rate of products, measured in the
same run with as many threads.
"""

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from generation.encoders.heads import Embedding
from generation.encoders.sound_space import AUDIO
from generation.errors import ConfigError
from generation.pipelines.soundscape import SoundscapePipeline
from generation.registry import find, locate
from training.bench_satellite import count_work, gemm_rate, machine, peak_rss, timed

SECONDS, STEPS, GUIDANCE = 10.0, 10, 2.0
MOST_RTF = 0.25
"""What one thread is asked to reach."""


class SoundscapeBench:
    """One sound, asked for with an embedding: time does not depend on which."""

    def __init__(self, pipeline: SoundscapePipeline, seconds: float = SECONDS) -> None:
        self.pipeline, self.seconds = pipeline, seconds
        dim = pipeline.conditioner.config["embed_dim"]
        self.asked = Embedding(torch.randn(1, dim, generator=torch.Generator().manual_seed(0)))
        mel, patch = pipeline.vocoder.mel, pipeline.codec.patch
        columns = -(-mel.frames(round(seconds * mel.rate)) // patch)
        channels = pipeline.codec.config["latent_channels"]
        self.latents = torch.randn(1, channels, mel.bands // patch, columns)

    def made(self, seed: int) -> Float[np.ndarray, "1 samples"]:
        """Make the sound: sample, decode, give it a voice."""
        return self.pipeline(
            self.asked,
            AUDIO,
            seconds=self.seconds,
            seeds=[seed],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
        )

    def voiced(self) -> Float[np.ndarray, "1 samples"]:
        """Turn latents of that length into sound, the last part of it."""
        return self.pipeline.sounds(self.latents, [0])


def run(
    model: str, rounds: int, threads: Sequence[int] = (1, 2), *, weights: Path | None = None
) -> dict[str, Any]:
    """Load a model and time it.

    Args:
        model: A name of the registry.
        rounds: How often a sound is made.
        threads: Numbers of torch's threads to time with.
        weights: A folder of weights in place of a registered model.
    """
    if weights is None and find(model).kind != "soundscape":
        raise ConfigError(f"{model} makes no sounds (see `terrascape models`)")
    folder = weights or locate(model)
    load_s, pipeline = timed(partial(SoundscapePipeline.from_pretrained, folder))
    named = {"model": "weights" if weights else model, "load_s": round(load_s, 3)}
    return {**named, **measure(pipeline, rounds, threads)}


def measure(
    pipeline: SoundscapePipeline,
    rounds: int,
    threads: Sequence[int] = (1, 2),
    *,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Time a pipeline with each number of threads; torch's own number is put back at the end.

    Returns:
        Seconds, FLOPs, rates in FLOP/s, and ratios, ready for JSON.
    """
    bench, before = SoundscapeBench(pipeline, seconds), torch.get_num_threads()
    flops, evaluations = count_work(pipeline.denoiser, lambda: bench.made(0))
    told: dict[str, Any] = {
        "model_sha256": pipeline.sha256 or None,
        "sound": {
            "seconds": seconds,
            "steps": STEPS,
            "guidance": GUIDANCE,
            "window_evaluations": evaluations,
        },
        "flops": flops,
        "dtype": str(pipeline.unet.dtype).removeprefix("torch."),
        "rounds": rounds,
        "most_real_time_factor": MOST_RTF,
    }
    try:
        told["threads"] = {str(n): _timings(bench, n, rounds, flops) for n in threads}
    finally:
        torch.set_num_threads(before)
    return {**told, "machine": machine(), "peak_rss_bytes": peak_rss()}


def _timings(bench: SoundscapeBench, threads: int, rounds: int, flops: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    bench.made(1000)  # warm up
    bench.voiced()
    every = [timed(partial(bench.made, number))[0] for number in range(rounds)]
    voiced = [timed(bench.voiced)[0] for _ in range(rounds)]
    rate, seconds = gemm_rate(bench.pipeline.unet.dtype), statistics.median(every)
    return {
        "seconds": round(seconds, 4),
        "seconds_best": round(min(every), 4),
        "voicing_s": round(statistics.median(voiced), 4),
        "real_time_factor": round(seconds / bench.seconds, 4),
        "real_time_factor_best": round(min(every) / bench.seconds, 4),
        "gemm_flops_per_s": round(rate),
        "bound_s": round(flops / rate, 4),
        "efficiency": round(flops / rate / seconds, 4),
    }


def tell(result: dict[str, Any]) -> str:
    """Return a measurement as lines for people."""
    sound, on = result["sound"], result["machine"]
    lines = [
        f"{sound['seconds']:g} s of sound in {sound['steps']} steps, "
        f"{sound['window_evaluations']} evaluations of a window, {result['flops'] / 1e9:.1f} GFLOP "
        f"in {result['dtype']}"
    ]
    for threads, part in result["threads"].items():
        reached = part["real_time_factor"] <= result["most_real_time_factor"]
        goal = f"at most {result['most_real_time_factor']:g} wanted: {'yes' if reached else 'no'}"
        lines.append(
            f"{threads} thread{'s' if threads != '1' else ''}: {part['seconds']:.2f} s (best "
            f"{part['seconds_best']:.2f} s; spectrogram to sound {part['voicing_s']:.2f} s), "
            f"real-time factor {part['real_time_factor']:.2f}"
            + (f" ({goal})" if threads == "1" else "")
            + f"; matrix product {part['gemm_flops_per_s'] / 1e9:.0f} GFLOP/s, bound "
            f"{part['bound_s']:.2f} s, efficiency {part['efficiency']:.0%}"
        )
    lines.append(
        f"loading {result['load_s']:.1f} s, peak memory {result['peak_rss_bytes'] / 2**20:.0f} "
        f"MiB; {on['cpus']} CPUs ({on['capability']}), load {on['load_1min']}, torch {on['torch']}"
    )
    return "\n".join(lines)
