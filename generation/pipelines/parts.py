"""The parts of a published pipeline, each checked before it is trusted.

diffusers and transformers know the older names of parameters that published files still carry, so
they do the loading; what they would pass over in silence is an error here.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from transformers import CLIPTextModel, CLIPTokenizer

from generation.checkpoint import PART_WEIGHTS, load_safetensors
from generation.encoders.clip_text import ClipTextEncoder
from generation.errors import InvalidSpecError, MissingExtraError, MissingFileError, WeightsError

TEXT_WEIGHTS = "model.safetensors"
SAMPLERS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "pndm": PNDMScheduler,
    "unipc": UniPCMultistepScheduler,
    "dpm": DPMSolverMultistepScheduler,
}
"""Samplers without noise of their own, so that a picture depends on its seed alone."""
PUBLISHED = "published"
_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_ATTENTIONS = ("sdpa", "xformers")
_IDLE = ("position_ids",)
"""Buffers that older files hold and newer classes compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where and how a full-size pipeline computes; checked on construction."""

    device: str = "auto"
    """A torch device; ``auto``: the GPU if there is one."""
    precision: str = "auto"
    """``fp32``, ``fp16`` or ``bf16``; ``auto``: fp16 on a GPU, fp32 elsewhere."""
    attention: str = "sdpa"
    """``sdpa``, torch's own, or ``xformers``."""
    sampler: str = PUBLISHED
    """``published``: what the base model's folder names; or a key of :data:`SAMPLERS`."""

    def __post_init__(self) -> None:
        choices = {
            "precision": ("auto", *_PRECISIONS),
            "attention": _ATTENTIONS,
            "sampler": (PUBLISHED, *SAMPLERS),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InvalidSpecError(
                    f"{name}={getattr(self, name)!r} is unknown (give {', '.join(allowed)})"
                )

    def place(self) -> tuple[torch.device, torch.dtype]:
        """Give the device and the precision that the options come to on this machine."""
        gpu = torch.cuda.is_available()
        device = torch.device(("cuda" if gpu else "cpu") if self.device == "auto" else self.device)
        if device.type == "cuda" and not gpu:
            raise InvalidSpecError(
                f"device={self.device!r}: torch sees no GPU here (give device='cpu' or 'auto')"
            )
        automatic = "fp16" if device.type == "cuda" else "fp32"
        return device, _PRECISIONS[automatic if self.precision == "auto" else self.precision]


def load_model(kind: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:  # noqa: ANN401
    """Load a model of diffusers, or of ours, from its folder.

    Raises:
        MissingFileError: The folder lacks its configuration or its weights.
        WeightsError: They are damaged, or do not fit each other.
    """
    _configuration(folder)
    load_safetensors(folder / PART_WEIGHTS)  # whole, finite, and no pickle
    return _checked(
        folder,
        lambda: kind.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            torch_dtype=dtype,
        ),
    ).requires_grad_(False)


def load_text(folder: Path, dtype: torch.dtype = torch.float32) -> ClipTextEncoder:
    """Load the tokenizer and the text model of a base folder, with checks as ``load_model``."""
    settings = _configuration(folder / "text_encoder")
    if settings.get("model_type") != "clip_text_model":
        raise WeightsError(
            f"{folder}/text_encoder is a {settings.get('model_type')} (Stable Diffusion 2.1's is a "
            "clip_text_model; give its folder)"
        )
    load_safetensors(folder / "text_encoder" / TEXT_WEIGHTS)
    model = _checked(
        folder / "text_encoder",
        lambda: CLIPTextModel.from_pretrained(
            folder / "text_encoder",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            dtype=dtype,
        ),
    )
    if not any((folder / "tokenizer" / n).is_file() for n in ("vocab.json", "tokenizer.json")):
        raise MissingFileError(f"{folder}/tokenizer has no vocabulary (download the folder again)")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder}/tokenizer: {_brief(error)} (download it again)") from error
    return ClipTextEncoder(tokenizer, model)


def load_scheduler(folder: Path, sampler: str = PUBLISHED) -> Any:  # noqa: ANN401 - one of SAMPLERS
    """Make the sampler that a base folder names, or another one with the folder's schedule.

    Raises:
        MissingFileError: The folder has no schedule.
        WeightsError: Its schedule is not GeoSynth's kind, or its sampler is none of ours.
    """
    settings = _configuration(folder, "scheduler_config.json")
    if settings.get("prediction_type", "epsilon") != "epsilon":
        raise WeightsError(
            f"{folder}: the model predicts {settings['prediction_type']!r} and not the noise (is "
            "it Stable Diffusion 2.1 at 768 px? GeoSynth stands on 2.1-base)"
        )
    known = {kind.__name__: kind for kind in SAMPLERS.values()}
    named = str(settings.get("_class_name"))
    kind = known.get(named) if sampler == PUBLISHED else SAMPLERS[sampler]
    if kind is None:
        raise WeightsError(
            f"{folder}: its sampler {named} is none of {', '.join(known)} (choose another sampler: "
            f"{', '.join(SAMPLERS)})"
        )
    return kind.from_config({k: v for k, v in settings.items() if not k.startswith("_")})


def set_steps(scheduler: Any, steps: int) -> None:  # noqa: ANN401 - one of SAMPLERS
    """Spread a number of steps over the schedule."""
    with (
        warnings.catch_warnings()
    ):  # diffusers hands numpy a tensor in a form that numpy 2 dislikes
        warnings.simplefilter("ignore", DeprecationWarning)
        scheduler.set_timesteps(steps)


def choose_attention(unet: Any, controlnet: Any, attention: str) -> None:  # noqa: ANN401
    """Switch the networks to xformers, if that is what was asked for.

    Raises:
        MissingExtraError: xformers is not installed, or there is no GPU for it.
    """
    if attention != "xformers":
        return
    cure = "install it with `pip install terrascape[gpu]` on a machine with a GPU, or use 'sdpa'"
    for network in filter(None, (unet, controlnet)):
        try:
            network.enable_xformers_memory_efficient_attention()
        except (ImportError, ValueError, NotImplementedError) as error:
            raise MissingExtraError(
                f"attention='xformers' cannot be had: {_brief(error)} ({cure})"
            ) from error


def _checked(folder: Path, load: Callable[[], tuple[Any, dict[str, Any]]]) -> Any:  # noqa: ANN401
    try:
        model, told = load()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder}: cannot be loaded, {_brief(error)} (download the folder again, or use the "
            "config.json that was saved with these weights)"
        ) from error
    wrong = [f"{name} is missing" for name in sorted(told["missing_keys"])]
    wrong += [
        f"{name} is unknown" for name in sorted(told["unexpected_keys"]) if not name.endswith(_IDLE)
    ]
    wrong += [f"{entry} has another shape" for entry in map(str, told["mismatched_keys"])]
    if wrong:
        rest = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(
            f"{folder}: does not fit its config.json: {', '.join(wrong[:3])}{rest} (use the "
            "config.json that was saved with these weights)"
        )
    return model.eval()


def _configuration(folder: Path, name: str = "config.json") -> dict[str, Any]:
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


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
