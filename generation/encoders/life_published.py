"""TaxaBind as published: six modalities in 512 dimensions, with the towers of others.

Source:
    Sastry et al., "TaxaBind: A Unified Embedding Space for Ecological Applications" (WACV 2025),
    §3.1: names and photographs go through BioCLIP, satellite images through CLIP's image tower,
    places through GeoCLIP's, sounds through CLAP's, environments through a residual network.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from generation.checkpoint import load_part, model_sha256
from generation.encoders.heads import unit
from generation.encoders.life_encoder import LifeEncoder
from generation.encoders.life_space import (
    AUDIO,
    ENVIRONMENT,
    GROUND,
    LOCATION,
    SATELLITE,
    TEXT,
    EnvironmentEncoder,
    known,
)
from generation.encoders.location import GeoClipLocationEncoder
from generation.encoders.retrieval import check_places
from generation.encoders.sound_readers import FusedReader, NumberReader, Pixels
from generation.encoders.sound_towers import ClapAudioTower
from generation.errors import InvalidSpecError
from generation.geo.environment import Environment
from generation.media.audio import Recording

_RESIZED = 256 / 224
"""To which side an image is brought before its middle is cut out, by the side that is read."""
Settings = Mapping[str, Any]


class PublishedLifeSpace(ModelMixin, ConfigMixin):
    """Towers of those modalities whose settings are given."""

    @register_to_config
    def __init__(
        self,
        clip: Settings | None = None,
        satellite: Settings | None = None,
        audio: Settings | None = None,
        location: Settings | None = None,
        environment: Settings | None = None,
        dim: int = 512,
    ) -> None:
        """Build untrained towers.

        Args:
            clip: Of names and photographs, as transformers' ``CLIPConfig``.
            satellite: As transformers' ``CLIPVisionConfig``.
            audio: What differs from CLAP in transformers' ``ClapAudioConfig``.
            location: Of :class:`GeoClipLocationEncoder`.
            environment: Of :class:`EnvironmentEncoder`.
            dim: Of the space.
        """
        super().__init__()
        from transformers import (
            CLIPConfig,
            CLIPModel,
            CLIPVisionConfig,
            CLIPVisionModelWithProjection,
        )

        self.towers = nn.ModuleDict()
        if clip is not None:
            self.towers["clip"] = CLIPModel(CLIPConfig(**clip))
        if satellite is not None:
            sizes = CLIPVisionConfig(**satellite)
            self.towers[SATELLITE] = CLIPVisionModelWithProjection(sizes)
        if audio is not None:
            self.towers[AUDIO] = ClapAudioTower(audio)
        if location is not None:
            self.towers[LOCATION] = GeoClipLocationEncoder(**location)
        if environment is not None:
            self.towers[ENVIRONMENT] = EnvironmentEncoder(**environment)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What can be embedded."""
        both = (TEXT, GROUND) if "clip" in self.towers else ()
        rest = (SATELLITE, LOCATION, ENVIRONMENT, AUDIO)
        return (*both, *(name for name in rest if name in self.towers))

    def tower(self, modality: str) -> nn.Module:
        """Give the tower of a modality, as published: CLIP's own parts for names and photographs.

        Raises:
            InvalidSpecError: The space lacks it.
        """
        if modality not in self.modalities:
            raise InvalidSpecError(
                f"the space has no modality {modality!r} (give one of {', '.join(self.modalities)})"
            )
        return self.towers[{TEXT: "clip", GROUND: "clip"}.get(modality, modality)]

    def forward(self, modality: str, given: Tensor) -> Float[Tensor, "n dim"]:
        """Embed what a tower reads: unit vectors."""
        tower: Any = self.tower(modality)
        if modality == TEXT:
            states = tower.text_model(input_ids=given).pooler_output
            return unit(tower.text_projection(states))
        if modality == GROUND:
            return unit(tower.visual_projection(tower.vision_model(given).pooler_output))
        if modality == SATELLITE:
            return unit(tower(given).image_embeds)
        found: Tensor = tower(given)
        return unit(found[:, 0] if modality == AUDIO else found)


class PublishedLifeEncoder(LifeEncoder):
    """A converted TaxaBind: as :class:`LifeEncoder`, with photographs and sounds.

    Vectors are not centred: the published ones are compared as they are.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        """Load what ``terrascape convert taxabind`` wrote.

        Args:
            folder: It holds ``space`` and, if names are to be read, ``tokenizer``.
            name: What messages call it.

        Raises:
            MissingFileError: There are no weights.
            WeightsError: They are damaged.
        """
        self.published: PublishedLifeSpace = load_part(PublishedLifeSpace, folder / "space")
        self.published.eval().requires_grad_(False)
        self.folder, self.name, self.sha256 = folder, name, model_sha256(folder)
        self._words: NumberReader | None = None

    @property
    def dim(self) -> int:
        """Dimensions of the space."""
        return int(self.published.config["dim"])

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the space reads."""
        return self.published.modalities

    @torch.no_grad()
    def text(self, strings: Sequence[str]) -> Float[Tensor, "n dim"]:
        """Embed taxonomic strings: the seven ranks from the kingdom down, as published.

        Raises:
            InvalidSpecError: One says nothing or is too long, or the space reads no names.
            MissingFileError: There is no tokenizer beside the weights.
        """
        tower: Any = self._tower(TEXT)
        if any(not string.strip() for string in strings):
            raise InvalidSpecError("an empty taxon names nothing (give 'Animalia Chordata' or so)")
        longest = int(tower.config.text_config.max_position_embeddings)
        if self._words is None:
            self._words = NumberReader(self.folder, longest + 1)
        numbers: Int[Tensor, "n words"] = self._words.numbers(strings)[0]
        if numbers.shape[1] > longest:
            raise InvalidSpecError(
                f"a taxon of {numbers.shape[1]} tokens is too long (give up to {longest})"
            )
        return self.published(TEXT, numbers)

    @torch.no_grad()
    def ground(self, images: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n dim"]:
        """Embed photographs, square ones."""
        return self._seen(GROUND, images, self._tower(GROUND).config.vision_config.image_size)

    @torch.no_grad()
    def satellite(self, images: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n dim"]:
        """Embed satellite images, square ones."""
        return self._seen(SATELLITE, images, self._tower(SATELLITE).config.image_size)

    @torch.no_grad()
    def audio(self, recordings: Sequence[Recording]) -> Float[Tensor, "n dim"]:
        """Embed recordings, at any rate and of any length."""
        tower: Any = self._tower(AUDIO)
        reader = FusedReader(tower.bands, tower.frames)
        return self.published(AUDIO, torch.cat([reader(each) for each in recordings]))

    @torch.no_grad()
    def location(self, latlon: Float[Tensor, "n 2"]) -> Float[Tensor, "n dim"]:
        """Embed places, degrees, latitude first.

        Raises:
            InvalidLocationError: One is none.
        """
        self._tower(LOCATION)
        check_places(latlon)
        return self.published(LOCATION, latlon.float())

    def environment(
        self, latlon: Float[Tensor, "n 2"], environment: Environment | None = None
    ) -> Float[Tensor, "n dim"]:
        """Refuse: the variables of the published model are not those that come with this project.

        Raises:
            InvalidSpecError: Always; :meth:`variables` embeds the values themselves.
        """
        raise InvalidSpecError(
            "the published model reads elevation and the 19 variables of WorldClim 2.1, scaled, "
            "which are not in this project (give their values to variables())"
        )

    @torch.no_grad()
    def variables(self, values: Float[Tensor, "n variables"]) -> Float[Tensor, "n dim"]:
        """Embed environments given as elevation and 19 bioclimatic variables, scaled as published.

        One that is NaN counts as 0, the mean, as in the published code.

        Raises:
            InvalidSpecError: They are not as many as the model reads, or all of a row are NaN.
        """
        count = int(self._tower(ENVIRONMENT).config["variables"])
        if values.shape[1] != count:
            raise InvalidSpecError(f"{values.shape[1]} variables were given (give {count})")
        if not bool(known(values).all()):
            raise InvalidSpecError("nothing is known of an environment (leave that row out)")
        return self.published(ENVIRONMENT, values.float())

    def _tower(self, modality: str) -> Any:  # noqa: ANN401 - a tower of others
        if modality not in self.modalities:
            raise self._lacking(modality)
        return self.published.tower(modality)

    def _seen(
        self, modality: str, images: UInt8[np.ndarray, "n height width 3"], side: int
    ) -> Float[Tensor, "n dim"]:
        reader = Pixels(image_px=side, normalised="imagenet", resized_px=round(side * _RESIZED))
        return self.published(modality, reader(images))
