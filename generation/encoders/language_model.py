"""Strings as token states of a large language model, or of the small one that is embedded.

LD-SDM reads taxonomic strings with a frozen Llama 2; the embedded model of ranges with MiniLM. Both
are asked in the same way and say how wide their states are.

Source:
    Sastry et al., "LD-SDM: Language-Driven Hierarchical Species Distribution Modeling" (2023), for
    the choice of a language model. Which of its states are read is not stated there; here those
    behind its last layer.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from generation.encoders.language_weights import open_whole
from generation.encoders.text import TextEncoder
from generation.errors import InvalidSpecError, WeightsError
from generation.hub import fetch
from generation.registry import find, list_models

MINILM = "minilm"
MAX_TOKENS = 48
"""Of a string; four ranks of the longest names are some forty tokens of Llama's."""
_AT_ONCE = 16


class LanguageModelEncoder:
    """A frozen language model of transformers: strings in, states of its last layer out."""

    def __init__(
        self, folder: Path, *, max_tokens: int = MAX_TOKENS, remembered: int = 4096
    ) -> None:
        """Open a model.

        Args:
            folder: As transformers saves a causal language model and its tokenizer, in safetensors.
            max_tokens: Strings are filled up to, or cut at, these.
            remembered: Strings whose states are kept.

        Raises:
            WeightsError: A file is damaged or missing.
        """
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise WeightsError(f"{folder} holds no .safetensors (download it again)")
        self.tokenizer, self.model = open_whole(
            (AutoTokenizer, AutoModel), folder, files, "language model", torch.bfloat16
        )
        if self.tokenizer.pad_token is None:  # Llama has none; what is filled up is masked anyway
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.padding_side = "right"
        self.max_tokens, self._remembered = max_tokens, remembered
        self._states: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    @property
    def dim(self) -> int:
        """Width of a state."""
        return int(self.model.config.hidden_size)

    @torch.no_grad()
    def __call__(
        self, sentences: Sequence[str]
    ) -> tuple[Float[Tensor, "batch tokens state"], Bool[Tensor, "batch tokens"]]:
        """Encode strings.

        Args:
            sentences: What lies beyond ``max_tokens`` is not read.

        Returns:
            States on the CPU, zero where there is no token, and the mask of real tokens.
        """
        absent = [s for s in dict.fromkeys(sentences) if s not in self._states]
        for at in range(0, len(absent), _AT_ONCE):
            part = absent[at : at + _AT_ONCE]
            batch = self.tokenizer(
                part,
                padding="max_length",
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.model.device)
            mask = batch["attention_mask"].bool()
            states = self.model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).last_hidden_state
            states = (states * mask[..., None]).float().cpu()
            self._states.update(
                {s: (x, m) for s, x, m in zip(part, states, mask.cpu(), strict=True)}
            )
        found = [self._states[s] for s in sentences]
        while len(self._states) > self._remembered:
            self._states.popitem(last=False)
        return torch.stack([f[0] for f in found]), torch.stack([f[1] for f in found])


ReadsText = TextEncoder | LanguageModelEncoder
"""What turns strings into token states."""


def text_encoder(name: str = MINILM, *, remembered: int = 4096, online: bool = False) -> ReadsText:
    """Give what reads strings.

    Args:
        name: ``minilm``, a registered language model, or a folder of one.
        remembered: Strings whose states are kept.
        online: Whether weights may be fetched from the Hub.

    Raises:
        InvalidSpecError: No language model has this name.
        MissingFileError: Its weights are not on this machine.
        WeightsError: They are damaged.
        NetworkError: The Hub was asked and did not answer.
    """
    if name == MINILM:
        return TextEncoder(remembered=remembered)
    folder = Path(name)
    if not folder.is_dir():
        card = find(name)
        if card.kind != "language-model":
            raise InvalidSpecError(
                f"text={name!r} is of kind {card.kind!r} and reads no strings (give {MINILM}, a "
                f"folder, or one of {', '.join(list_models('language-model'))})"
            )
        folder = fetch(card.name, online=online)
    return LanguageModelEncoder(folder, remembered=remembered)
