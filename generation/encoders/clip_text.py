"""The text tower of Stable Diffusion: a prompt to the token states that its U-Net attends to."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer


class ClipTextEncoder:
    """A tokenizer and its frozen CLIP text model."""

    def __init__(self, tokenizer: CLIPTokenizer, model: CLIPTextModel) -> None:
        self.tokenizer, self.model = tokenizer, model.eval().requires_grad_(False)
        self.max_tokens = int(model.config.max_position_embeddings)

    def tokens(self, prompts: Sequence[str]) -> Int[Tensor, "batch words"]:
        """Cut and pad prompts to the length that the model was trained with."""
        encoded = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.max_tokens,
            truncation=True,
            return_tensors="pt",
        )
        ids: Tensor = encoded["input_ids"]
        return ids

    def encode(self, tokens: Int[Tensor, "batch words"]) -> Float[Tensor, "batch words dim"]:
        """Give the token states, the model's last; padding is attended to, as in training."""
        with torch.no_grad():
            states: Tensor = self.model(tokens.to(self.model.device), return_dict=True)[0]
        return states

    def __call__(self, prompts: Sequence[str]) -> Float[Tensor, "batch words dim"]:
        """Encode prompts; the empty one is what Stable Diffusion knows as no prompt."""
        return self.encode(self.tokens(prompts))

    def cut(self, prompt: str) -> str:
        """Give the end of a prompt that is too long to be read; empty when all of it is read."""
        encoded = self.tokenizer(
            prompt,
            truncation=True,
            max_length=self.max_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        words = [
            end
            for (_, end), special in zip(
                encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
            )
            if not special
        ]
        return prompt[max(words, default=0) :].strip()
