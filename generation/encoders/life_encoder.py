"""A space of life with all that turns names, pixels and places into what it reads."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from generation.checkpoint import load_part, model_sha256
from generation.encoders.heads import masked_mean, unit
from generation.encoders.life_space import (
    AUDIO,
    ENVIRONMENT,
    GROUND,
    LOCATION,
    MODALITIES,
    SATELLITE,
    TEXT,
    LifeSpace,
    known,
)
from generation.encoders.retrieval import check_places
from generation.encoders.retrieval_model import TileTower
from generation.encoders.text import TextEncoder
from generation.encoders.tile_statistics import tile_statistics
from generation.errors import InvalidSpecError
from generation.geo.environment import BIOCLIM, Environment, embedded_environment, sampled
from generation.media.audio import Recording
from generation.registry import find, list_models, locate

_AT_ONCE = 256


class LifeEncoder:
    """Names, satellite images, places and environments to unit vectors of one space."""

    def __init__(self, space: LifeSpace, looks: TileTower, folder: Path, name: str = "") -> None:
        """Keep the parts of a space that this project trained.

        Args:
            space: The towers.
            looks: What measures images.
            folder: Where they are from.
            name: What messages call it.
        """
        self.space, self.looks, self.folder = space.eval(), looks.eval(), folder
        self.name, self.sha256 = name, model_sha256(folder)
        self._text: TextEncoder | None = None

    @property
    def dim(self) -> int:
        """Dimensions of the space."""
        return int(self.space.config["dim"])

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the space reads."""
        return MODALITIES

    def ground(self, images: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n dim"]:
        """Embed photographs taken on the ground, where the space has learnt from any.

        Raises:
            InvalidSpecError: It has not.
        """
        raise self._lacking(GROUND)

    def audio(self, recordings: Sequence[Recording]) -> Float[Tensor, "n dim"]:
        """Embed sounds, where the space has learnt from any.

        Raises:
            InvalidSpecError: It has not.
        """
        raise self._lacking(AUDIO)

    def _lacking(self, modality: str) -> InvalidSpecError:
        return InvalidSpecError(
            f"{self.name or self.folder} has no modality {modality!r} (give one of "
            f"{', '.join(self.modalities)})"
        )

    @torch.no_grad()
    def text(self, strings: Sequence[str]) -> Float[Tensor, "n dim"]:
        """Embed taxonomic strings, from the order down, cut at any rank.

        Raises:
            InvalidSpecError: One says nothing.
        """
        if any(not string.strip() for string in strings):
            raise InvalidSpecError("an empty taxon names nothing (give 'Carnivora Felidae' or so)")
        if self._text is None:
            self._text = TextEncoder()
        return self.space(TEXT, text_states(strings, self._text))

    @torch.no_grad()
    def satellite(self, images: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n dim"]:
        """Embed satellite images of one size and of about the scale that was learnt from."""
        return self.space(SATELLITE, self.looks.look(tile_statistics(images)))

    @torch.no_grad()
    def location(self, latlon: Float[Tensor, "n 2"]) -> Float[Tensor, "n dim"]:
        """Embed places, degrees, latitude first.

        Raises:
            InvalidLocationError: One is none.
        """
        check_places(latlon)
        return self.space(LOCATION, latlon.float())

    @torch.no_grad()
    def environment(
        self, latlon: Float[Tensor, "n 2"], environment: Environment | None = None
    ) -> Float[Tensor, "n dim"]:
        """Embed what the environment of places is.

        Args:
            latlon: Degrees, latitude first.
            environment: Theirs; the embedded one if absent.

        Raises:
            InvalidLocationError: One is no place.
            InvalidSpecError: Nothing is known of the environment of one.
        """
        check_places(latlon)
        variables = environment_of(latlon, environment)
        if not bool(known(variables).all()):
            lat, lon = latlon[int((~known(variables)).nonzero()[0])].tolist()
            raise InvalidSpecError(
                f"no environment is known at lat={lat:g}, lon={lon:g} (leave that modality out, or "
                "take the embedded environment, which covers the globe)"
            )
        return self.space(ENVIRONMENT, variables)

    def together(self, vectors: Mapping[str, Float[Tensor, "n dim"]]) -> Float[Tensor, "n dim"]:
        """Put what several modalities say together: the direction of the sum of their vectors.

        Raises:
            InvalidSpecError: There is none, or one that the space lacks.
        """
        strange = [name for name in vectors if name not in self.modalities]
        if strange or not vectors:
            raise InvalidSpecError(
                f"{', '.join(strange) or 'nothing'} is no modality of {self.name} (give some of "
                f"{', '.join(self.modalities)})"
            )
        return unit(torch.stack(list(vectors.values())).sum(0))


def text_states(strings: Sequence[str], encoder: TextEncoder) -> Float[Tensor, "n state"]:
    """Give the mean of what a text encoder says of the words of each string."""
    parts = [
        masked_mean(*encoder(list(strings[at : at + _AT_ONCE])))
        for at in range(0, len(strings), _AT_ONCE)
    ]
    return torch.cat(parts)


def environment_of(
    latlon: Float[Tensor, "n 2"], environment: Environment | None = None
) -> Float[Tensor, "n variables"]:
    """Read the variables of :data:`BIOCLIM` at places."""
    fields = (environment or embedded_environment()).variables()[: len(BIOCLIM)]
    return torch.from_numpy(sampled(fields, latlon.numpy()))


def is_published(folder: Path) -> bool:
    """Tell whether a folder holds a published space, as ``terrascape convert taxabind`` leaves."""
    path = folder / "space" / "config.json"
    return path.is_file() and "PublishedLifeSpace" in path.read_text(encoding="utf-8")


@lru_cache(maxsize=2)
def _loaded(folder: Path, stamp: tuple[float, ...], name: str) -> LifeEncoder:
    if is_published(folder):
        from generation.encoders.life_published import PublishedLifeEncoder

        return PublishedLifeEncoder(folder, name)
    space: LifeSpace = load_part(LifeSpace, folder / "space").requires_grad_(False)
    return LifeEncoder(space, load_part(TileTower, folder / "looks"), folder, name)


def load_life(name: str = "taxabind-nano") -> LifeEncoder:
    """Give a registered space of life, or a folder of one, loaded once.

    Raises:
        InvalidSpecError: It is neither a folder nor the name of such a model.
        MissingFileError: Its weights are not on this machine.
    """
    folder = Path(name)
    if not folder.is_dir():
        card = find(name)
        if card.kind != "life-space":
            raise InvalidSpecError(
                f"model={name!r} is of kind {card.kind!r} and no space of life (give one of "
                f"{', '.join(list_models('life-space'))})"
            )
        folder = locate(card.name)
    stamp = tuple(file.stat().st_mtime for file in sorted(folder.rglob("*")) if file.is_file())
    return _loaded(folder, stamp, name)
