"""Parts of published pipelines of sounds, each checked before it is trusted; and lengths of sounds.

What belongs to diffusers is loaded by :mod:`generation.pipelines.parts`; here are the models and
tokenizers of transformers, and the samplers.
"""

import json
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AudioLDM2Pipeline, AutoencoderOobleck, EDMDPMSolverMultistepScheduler
from jaxtyping import Float, Int
from torch import Tensor

from generation.checkpoint import load_safetensors
from generation.errors import MissingFileError, WeightsError
from generation.pipelines.parts import load_model

WEIGHTS = "model.safetensors"
OVERLAP_S = 0.5
"""The longest time over which the end of a loop goes over into its beginning."""
_IDLE = ("position_ids", "token_type_ids", "relative_position_index", ".attn.bias", ".masked_bias")
"""Buffers that some releases write and others do not; the classes compute them."""
_COSINE = "CosineDPMSolverMultistepScheduler"
_FADED_SHARE = 10
_DEPRECATED = "The AudioLDMPipeline has been deprecated"


class ArctanSolver(EDMDPMSolverMultistepScheduler):
    """DPM-Solver++ without noise of its own, for networks that are told noise by its arctangent.

    Stable Audio's published sampler draws noise at each step with a package of its own (torchsde).
    This one has the same noise levels and tells the network of them in the same way, so that a
    sound depends on its seed alone.

    Source:
        Lu et al., "DPM-Solver++" (2022), Algorithm 2; Evans et al., "Stable Audio Open" (2024),
        for what the network is told: 2/pi times the arctangent of the noise level.
    """

    def precondition_noise(self, sigma: "float | torch.Tensor") -> torch.Tensor:
        """Tell the network of a noise level: 0 is none, 1 is nothing but noise."""
        return torch.as_tensor(sigma).atan() / math.pi * 2


class WritingPipeline(AudioLDM2Pipeline):
    """AudioLDM 2 with a language model of the class that its published folder names.

    diffusers calls a method on it that the class has lost, and hands on what it remembers by a name
    that it is about to lose. Eight vectors are written as fast by reading all again.
    """

    def generate_language_model(
        self,
        inputs_embeds: Float[Tensor, "batch words dim"],
        max_new_tokens: int = 8,
        *,
        attention_mask: Int[Tensor, "batch words"],
    ) -> Float[Tensor, "batch written dim"]:
        """Write vectors, each of them read again before the next one."""
        states, mask = inputs_embeds, attention_mask
        for _ in range(max_new_tokens):
            told = self.language_model(inputs_embeds=states, attention_mask=mask)
            states = torch.cat([states, told.last_hidden_state[:, -1:]], 1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        return states[:, -max_new_tokens:]


def load_transformer(kind: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:  # noqa: ANN401
    """Load a model of transformers from its folder.

    Args:
        kind: Its class.
        folder: Where its configuration and its safetensors lie.
        dtype: Precision of its weights.

    Raises:
        MissingFileError: The folder lacks its configuration or its weights.
        WeightsError: They are damaged, or do not fit each other.
    """
    read_settings(folder)
    load_safetensors(folder / WEIGHTS)  # whole, finite, and no pickle
    with _quietly():
        try:
            model, told = kind.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                dtype=dtype,
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{folder}: cannot be loaded, {_brief(error)} (download the folder again, or use "
                "the config.json that was saved with these weights)"
            ) from error
    wrong = [f"{n} is missing" for n in sorted(told["missing_keys"]) if not n.endswith(_IDLE)]
    wrong += [f"{n} is unknown" for n in sorted(told["unexpected_keys"]) if not n.endswith(_IDLE)]
    wrong += [f"{entry} has another shape" for entry in map(str, told["mismatched_keys"])]
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(
            f"{folder}: does not fit its config.json: {', '.join(wrong[:3])}{rest} (use the "
            "config.json that was saved with these weights)"
        )
    return model.eval().requires_grad_(False)


def load_oobleck(folder: Path, dtype: torch.dtype = torch.float32) -> Any:  # noqa: ANN401
    """Load Stable Audio's autoencoder, which diffusers builds by a function that torch has renamed.

    Raises:
        MissingFileError: The folder lacks its configuration or its weights.
        WeightsError: They are damaged, or do not fit each other.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weight_norm", category=FutureWarning)
        return load_model(AutoencoderOobleck, folder, dtype)


def load_tokenizer(kind: Any, folder: Path) -> Any:  # noqa: ANN401 - a tokenizer of transformers
    """Load a tokenizer from its folder.

    Raises:
        MissingFileError: The folder has no vocabulary.
        WeightsError: It is damaged.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise MissingFileError(
            f"{folder} has no vocabulary, tokenizer.json or vocab.json (copy the folder there from "
            "where the model is published)"
        )
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder}: {_brief(error)} (download it again)") from error


def load_solver(folder: Path) -> tuple[Any, bool]:
    """Make the sampler of Stable Audio, without noise of its own.

    Returns:
        It, and whether it takes the place of the published one.

    Raises:
        MissingFileError: The folder has no schedule.
        WeightsError: Its sampler is none that is known.
    """
    settings = read_settings(folder, "scheduler_config.json")
    named = str(settings.get("_class_name"))
    plain = {name: value for name, value in settings.items() if not name.startswith("_")}
    if named == _COSINE:
        return ArctanSolver.from_config(plain), True
    if named == EDMDPMSolverMultistepScheduler.__name__:
        return EDMDPMSolverMultistepScheduler.from_config(plain), False
    raise WeightsError(
        f"{folder}: its sampler {named} is none of {_COSINE} and "
        f"{EDMDPMSolverMultistepScheduler.__name__} (download the folder again)"
    )


def read_settings(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Read a configuration.

    Raises:
        MissingFileError: It is not there.
        WeightsError: It is no JSON object.
    """
    path = folder / name
    if not path.is_file():
        raise MissingFileError(f"{path} is not there (download or restore the model's folder)")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON (download it again)") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{path} holds a {type(settings).__name__} (download it again)")
    return settings


@contextmanager
def without_retirement_notice() -> Iterator[None]:
    """Keep diffusers from saying that AudioLDM's class is no longer worked on, and nothing else.

    It is still the class that loads the published weights.
    """
    logger = logging.getLogger("diffusers.pipelines.pipeline_utils")

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_DEPRECATED)

    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def overlap_samples(samples: int, rate: int) -> int:
    """How many samples more a loop of so many samples is made with: 0.5 s, or a tenth of it."""
    return min(round(OVERLAP_S * rate), samples // _FADED_SHARE)


def closed(
    sounds: Float[np.ndarray, "batch longer"], samples: int
) -> Float[np.ndarray, "batch samples"]:
    """Let the end of sounds go over into their beginning.

    What is beyond the last sample fades out over the first ones, which fade in, so the first
    sample is the one that followed the last; powers add up to one.

    Args:
        sounds: Longer than they are to be.
        samples: How many to keep.
    """
    beyond = sounds.shape[1] - samples
    angle = np.arange(beyond, dtype=np.float32) / max(beyond, 1) * np.float32(np.pi / 2)
    result = sounds[:, :samples].copy()
    result[:, :beyond] = sounds[:, samples:] * np.cos(angle) + result[:, :beyond] * np.sin(angle)
    return result


def within_full_scale(
    sounds: Float[np.ndarray, "batch samples"],
) -> Float[np.ndarray, "batch samples"]:
    """Turn down each sound that is louder than full scale, all of it; leave the others alone."""
    peaks = np.abs(sounds).max(1, keepdims=True)
    return (sounds / np.maximum(peaks, 1)).astype(np.float32)


@contextmanager
def _quietly() -> Iterator[None]:
    """Load without transformers' bar of progress; its state afterwards is that before."""
    from transformers.utils import logging as told

    shown = told.is_progress_bar_enabled()
    told.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            told.enable_progress_bar()


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
