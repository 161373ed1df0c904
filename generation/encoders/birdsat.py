"""BirdSAT: views from the ground and satellite images, embedded apart or matched together.

``CveMae`` has a tower for each and compares their class tokens; ``CvmMae`` reads both at once and
says whether they belong together. What is known besides, a place and a date, is added to the class
token: of the satellite image in the one, of the pair in the other.

Source:
    Sastry et al., "BirdSAT: Cross-View Contrastive Masked Autoencoders for Bird Species
    Classification and Mapping" (WACV 2024), CVE-MAE(-Meta) and CVM-MAE(-Meta).

The published code differs in four places, which are not copied:

* one throw for a whole batch decides whether its metadata are dropped, also while evaluating, so
  the same image has different embeddings; here each sample and part is dropped apart, while
  learning alone, and what is unknown is a learned null (zero where published weights know none);
* the positions of CVM-MAE are all zero; here they are set (converted weights keep theirs);
* patches are shuffled even where none is masked (see :class:`MaskedVit`);
* the frozen satellite tower keeps moving its batch norms; here it stays as it is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from generation.encoders.heads import Compat, unit
from generation.encoders.image import IMAGENET
from generation.encoders.masked_vit import Images, MaskedVit
from generation.encoders.metadata import encode_place
from generation.errors import ConfigError

PLACE, DATE = "place", "date"
PARTS = (PLACE, DATE)
GROUND = {"views": ((384, 384, 32),), "cell": "vitae"}
SATELLITE = {"views": ((224, 224, 16),), "cell": "vitae", "decoder": (0, 0, 0)}
"""As published, with the other sizes of :class:`MaskedVit`."""


def encode_date(date: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 4"]:
    """Give a month and a day of the month as points on two circles.

    Source:
        BirdSAT's code: sine and cosine of 2 pi month / 12 and of 2 pi day / 31.
    """
    angle = 2 * math.pi * date / date.new_tensor([12.0, 31.0])
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


class KnownBesides(nn.Module):
    """The place and the date of a sample as one vector to add to its class token.

    The published features of a place take both poles for one place, as its formula has it.
    """

    def __init__(self, dim: int, reads: Sequence[str], drop: float) -> None:
        """Build untrained layers.

        Args:
            dim: Of the vector.
            reads: Which of place and date are read; the others are passed over.
            drop: Probability that a part of a sample is not told while learning.

        Raises:
            ConfigError: ``reads`` names something else.
        """
        super().__init__()
        odd = [name for name in reads if name not in PARTS]
        if odd:
            raise ConfigError(f"reads={odd[0]!r} is not known of a view (of {', '.join(PARTS)})")
        self.dim, self.drop = dim, drop
        self.layers = nn.ModuleDict({name: nn.Linear(4, dim) for name in PARTS if name in reads})
        self.null = nn.ParameterDict({name: nn.Parameter(torch.zeros(dim)) for name in self.layers})

    def forward(
        self, latlon: Float[Tensor, "batch 2"], date: Float[Tensor, "batch 2"]
    ) -> Float[Tensor, "batch dim"]:
        """Sum what is known; NaN is unknown.

        Args:
            latlon: Degrees, latitude first.
            date: Month, 1 to 12, and day of the month, 1 to 31.
        """
        features = {PLACE: encode_place(latlon, "mvrl"), DATE: encode_date(date)}
        total = latlon.new_zeros(len(latlon), self.dim)
        for name, layer in self.layers.items():
            told = features[name].isfinite().all(1)
            if self.training and self.drop:
                told = told & (torch.rand(len(told), device=told.device) >= self.drop)
            known = layer(torch.nan_to_num(features[name]))
            total = total + torch.where(told[:, None], known, self.null[name])
        return total


class CveMae(ModelMixin, ConfigMixin):
    """Unit vectors of ground views and of satellite images: CVE-MAE(-Meta)."""

    @register_to_config
    def __init__(
        self,
        ground: Mapping[str, Any] = GROUND,
        satellite: Mapping[str, Any] = SATELLITE,
        reads: Sequence[str] = PARTS,
        drop: float = 0.25,
        compat: Compat = "right",
    ) -> None:
        """Build untrained towers.

        Args:
            ground: Settings of its :class:`MaskedVit`; with a decoder, to learn by filling in.
            satellite: Settings of the other.
            reads: Which of place and date are read.
            drop: Probability that a part of the metadata is not told while learning.
            compat: ``mvrl`` for published weights, which learnt from shuffled patches.

        Raises:
            ConfigError: The two do not share one space, or see more than one view each.
        """
        super().__init__()
        self.ground_tower = MaskedVit(**ground, compat=compat)
        self.satellite_tower = MaskedVit(**satellite, compat=compat)
        towers = (self.ground_tower, self.satellite_tower)
        dims = [int(tower.config["dim"]) for tower in towers]
        views = [len(tower.sizes) for tower in towers]
        if dims[0] != dims[1] or views != [1, 1]:
            raise ConfigError(
                f"towers of {dims[0]} and {dims[1]} dimensions, {views[0]} and {views[1]} views, "
                "are no pair (give both the same dim, and one view each)"
            )
        self.metadata = KnownBesides(dims[0], reads, drop)

    def embed_ground(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Give unit vectors of ground views."""
        return unit(self.ground_tower.encode([images])[:, 0])

    def embed_satellite(
        self, images: Images, latlon: Float[Tensor, "batch 2"], date: Float[Tensor, "batch 2"]
    ) -> Float[Tensor, "batch dim"]:
        """Give unit vectors of satellite images with what is known of them; NaN is unknown."""
        return unit(self.satellite_tower.encode([images])[:, 0] + self.metadata(latlon, date))


class CvmMae(ModelMixin, ConfigMixin):
    """Whether a ground view and a satellite image belong together: CVM-MAE(-Meta)."""

    @register_to_config
    def __init__(
        self,
        tower: Mapping[str, Any] | None = None,
        reads: Sequence[str] = PARTS,
        drop: float = 0.25,
    ) -> None:
        """Build an untrained model.

        Args:
            tower: Settings of its :class:`MaskedVit`, of two views; as published if absent.
            reads: Which of place and date are read.
            drop: Probability that a part of the metadata is not told while learning.

        Raises:
            ConfigError: The tower does not see two views.
        """
        super().__init__()
        settings = tower or {"views": ((384, 384, 32), (224, 224, 16))}
        self.joint_tower = MaskedVit(**settings)
        if len(self.joint_tower.sizes) != 2:
            raise ConfigError(
                f"{len(self.joint_tower.sizes)} views cannot be matched (give ground and satellite)"
            )
        dim = int(self.joint_tower.config["dim"])
        self.match = nn.Linear(dim, 1)
        self.metadata = KnownBesides(dim, reads, drop)

    def forward(
        self,
        ground: Images,
        satellite: Images,
        latlon: Float[Tensor, "batch 2"],
        date: Float[Tensor, "batch 2"],
    ) -> Float[Tensor, " batch"]:
        """Give the logit of each pair; what is known is of the satellite image, NaN unknown."""
        pair = self.joint_tower.encode([ground, satellite])[:, 0]
        return self.match(pair + self.metadata(latlon, date))[:, 0]


def as_view(
    pixels: UInt8[Tensor, "batch height width 3"], size: tuple[int, int]
) -> Float[Tensor, "batch 3 rows columns"]:
    """Bring images to the size of a view and normalise them as the weights are trained.

    Args:
        pixels: Of any size; all of an image is kept.
        size: Height and width, pixels.
    """
    images = pixels.permute(0, 3, 1, 2).float() / 255
    if images.shape[-2:] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    mean, deviation = (images.new_tensor(each).view(1, 3, 1, 1) for each in IMAGENET)
    return (images - mean) / deviation


def resized(
    images: UInt8[np.ndarray, "n height width 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "n rows columns 3"]:
    """Bring images to a size, as bytes again, to be kept until they are learnt from."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    small = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy()
