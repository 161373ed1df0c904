"""Pictures in words, what could be heard in them too: LLaVA 1.5 through transformers."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from generation.checkpoint import model_sha256
from generation.encoders.language_weights import open_whole
from generation.errors import InvalidSpecError, MissingFileError, WeightsError
from generation.hub import fetch
from generation.registry import find, list_models

SOUNDS = (
    "This is the ground seen straight from above. In one sentence, name the sounds "
    "that a person standing in the middle of it could hear, the loudest first, and leave out what "
    "can only be seen."
)
"""What is asked of a satellite image for a soundscape."""
MAX_TOKENS = 77
"""Of a caption; as much as CLAP's readers of words take."""
_CLASS_TOKENS = 1
"""Tokens that CLIP puts before those of the patches."""


@dataclass(frozen=True)
class Captioner:
    """A LLaVA and its processor."""

    processor: Any
    model: Any
    sha256: str = ""
    """Of the weights."""

    @torch.no_grad()
    def __call__(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        *,
        question: str = SOUNDS,
        max_new_tokens: int = MAX_TOKENS,
    ) -> str:
        """Answer a question about a picture, in the form in which LLaVA 1.5 learnt to be asked.

        Words are always the most likely ones, so equal pictures get equal answers.

        Args:
            image: The picture.
            question: What is asked.
            max_new_tokens: Where the answer is cut off.
        """
        from PIL import Image

        given = self.processor(
            images=Image.fromarray(image),
            text=f"USER: <image>\n{question}\nASSISTANT:",
            return_tensors="pt",
        ).to(self.model.device, self.model.dtype)
        told = self.model.generate(**given, max_new_tokens=max_new_tokens, do_sample=False)
        words = told[:, given["input_ids"].shape[1] :]
        text: str = self.processor.batch_decode(words, skip_special_tokens=True)[0]
        return " ".join(text.split())

    def captions(self, images: UInt8[np.ndarray, "batch height width 3"]) -> list[str]:
        """Say of each image what could be heard there.

        Images are read one by one, so that a caption depends on its image alone.

        Args:
            images: Satellite images, north up.

        Returns:
            A sentence for each, of at most 77 tokens; empty where the model has nothing to say.
        """
        return [self(image) for image in images]


def load_captioner(name: str = "llava", *, online: bool = False) -> Captioner:
    """Give a registered model that writes captions, loaded once as long as its files are the same.

    Args:
        name: A registered name, or a folder.
        online: Whether weights, about 14 GB, may be fetched from the Hub.

    Raises:
        InvalidSpecError: It writes no captions.
        MissingFileError: Its weights are not on this machine.
        WeightsError: A file is damaged, or it is another model.
        NetworkError: The Hub was asked and did not answer.
    """
    if Path(name).is_dir():
        return _stamped(Path(name))
    card = find(name)
    if card.kind != "captioner":
        raise InvalidSpecError(
            f"{name!r} is of kind {card.kind!r} and writes no captions (models that do: "
            f"{', '.join(list_models('captioner'))})"
        )
    return _stamped(fetch(card.name, online=online))


def _stamped(folder: Path) -> Captioner:
    stamp = tuple(file.stat().st_mtime for file in sorted(folder.glob("*.safetensors")))
    return _loaded(folder, stamp)


@lru_cache(maxsize=1)
def _loaded(folder: Path, stamp: tuple[float, ...]) -> Captioner:
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor, model = open_whole(
        (AutoProcessor, LlavaForConditionalGeneration),
        folder,
        _weights(folder),
        "LLaVA",
        torch.float16,
    )
    _tell_patches(processor, model.config)
    return Captioner(processor, model, model_sha256(folder))


def _weights(folder: Path) -> list[Path]:
    """List the files of weights, and refuse a folder that lacks some of those it names itself.

    Raises:
        MissingFileError: One is not there.
        WeightsError: The list in the folder is damaged.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} lists no files of weights (download it again)") from error
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise MissingFileError(f"{folder} lacks {', '.join(absent)} (download the rest of it)")
    return [folder / name for name in names]


def _tell_patches(processor: Any, config: Any) -> None:  # noqa: ANN401 - of transformers
    """Tell the processor how many tokens an image has; older published ones do not know."""
    processor.patch_size = config.vision_config.patch_size
    processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    processor.num_additional_image_tokens = _CLASS_TOKENS
