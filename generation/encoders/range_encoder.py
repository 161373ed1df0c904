"""A range model with all that turns names and places into what it reads."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from generation.checkpoint import load_part, load_safetensors, model_sha256
from generation.encoders.language_model import ReadsText, text_encoder
from generation.encoders.ranges import RangeModel, logits
from generation.encoders.taxonomy import Taxonomy
from generation.errors import InvalidSpecError, WeightsError
from generation.geo.environment import VARIABLES, Environment, embedded_environment, sampled
from generation.registry import find, list_models, locate

TAXA, EMBEDDED = "taxa.csv", "taxa.safetensors"
"""The table of names, and their embeddings, so that all can be compared with a place at once."""
_AT_ONCE = 16384
_REMEMBERED = 256
"""Strings whose states are kept: one of Llama's takes 800 kB."""


class RangeEncoder:
    """Names to ranges, and places to who lives there."""

    def __init__(self, model: RangeModel, taxonomy: Taxonomy, folder: Path, name: str = "") -> None:
        """Keep the parts.

        Raises:
            WeightsError: The model reads another environment than the embedded one.
        """
        if tuple(model.config["variables"]) != VARIABLES:
            raise WeightsError(
                f"{folder} reads other variables than the embedded environment has (use the "
                "weights that came with this version, or train them anew)"
            )
        self.model, self.taxonomy, self.folder = model.eval(), taxonomy, folder
        self.name, self.sha256 = name, model_sha256(folder)
        self._text: ReadsText | None = None

    @torch.no_grad()
    def taxa(self, strings: Sequence[str]) -> Float[Tensor, "taxa one_more"]:
        """Embed taxonomic strings; those that were not learnt with the bias chosen for them."""
        if self._text is None:
            self._text = text_encoder(str(self.model.config["text"]), remembered=_REMEMBERED)
        embedded: Tensor = self.model.embed_taxa(*self._text(strings))
        bias = torch.tensor([0.0, *self.model.config["novel_bias"]])
        embedded[:, -1] += bias[[self.taxonomy.novelty(string) for string in strings]]
        return embedded

    @torch.no_grad()
    def places(
        self, latlon: Float[np.ndarray, "n 2"], environment: Environment | None = None
    ) -> Float[Tensor, "n dim"]:
        """Embed places.

        Args:
            latlon: Degrees, latitude first.
            environment: Theirs; the embedded one if absent.

        Raises:
            InvalidSpecError: A place is none.
        """
        fields = (environment or embedded_environment()).variables()
        given = torch.from_numpy(sampled(fields, latlon))
        where = torch.from_numpy(latlon)
        parts = [
            self.model.embed_places(where[at : at + _AT_ONCE], given[at : at + _AT_ONCE])
            for at in range(0, len(where), _AT_ONCE)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def likely(
        self,
        strings: Sequence[str],
        latlon: Float[np.ndarray, "n 2"],
        environment: Environment | None = None,
    ) -> Float[np.ndarray, "taxa n"]:
        """Say how likely each taxon is at each place, 0 to 1."""
        return self.likely_at(strings, self.places(latlon, environment))

    @torch.no_grad()
    def likely_at(
        self, strings: Sequence[str], places: Float[Tensor, "n dim"]
    ) -> Float[np.ndarray, "taxa n"]:
        """Say how likely each taxon is at places that :meth:`places` has embedded, 0 to 1."""
        return np.asarray(logits(places, self.taxa(strings)).sigmoid().T.numpy())

    @torch.no_grad()
    def all_species(
        self, latlon: Float[np.ndarray, "n 2"], environment: Environment | None = None
    ) -> Float[np.ndarray, "n species"]:
        """Say how likely each species of the table is at each place.

        Raises:
            WeightsError: Their embeddings are not those of the table.
        """
        taxa = load_safetensors(self.folder / EMBEDDED)["taxa"].float()
        if len(taxa) != len(self.taxonomy.taxa):
            raise WeightsError(
                f"{self.folder}: {len(taxa)} embeddings of {len(self.taxonomy.taxa)} species "
                f"(restore {EMBEDDED} and {TAXA} together)"
            )
        scores = logits(self.places(latlon, environment), taxa)
        return np.asarray(scores.sigmoid().numpy())


@lru_cache(maxsize=2)
def _loaded(folder: Path, stamp: tuple[float, ...], name: str) -> RangeEncoder:
    model = load_part(RangeModel, folder)
    return RangeEncoder(model, Taxonomy.read(folder / TAXA), folder, name)


def load_range_encoder(name: str = "ranges-nano") -> RangeEncoder:
    """Give a registered model of ranges, loaded once as long as its files do not change.

    Raises:
        InvalidSpecError: No model has this name, or it knows no ranges.
        MissingFileError: Its weights are not on this machine.
    """
    card = find(name)
    if card.kind != "ranges":
        raise InvalidSpecError(
            f"model={name!r} is of kind {card.kind!r} and knows no ranges (give one of "
            f"{', '.join(list_models('ranges'))})"
        )
    folder = locate(card.name)
    stamp = tuple(file.stat().st_mtime for file in sorted(folder.iterdir()))
    return _loaded(folder, stamp, card.name)
