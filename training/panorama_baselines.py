"""What needs no model, and inputs that are wrong on purpose: the scale for scores of panoramas.

A sample is what :meth:`training.panorama_data.PanoramaDataset.sample` gives; its panoramas look
north in their middle, so a copy needs no turning any more.
"""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from generation.diffusion.codec import to_bytes, to_signal
from generation.errors import ConfigError
from generation.pipelines.panorama import PanoramaPipeline
from training.metrics import Images
from training.panorama_data import PanoramaDataset

Sample = dict[str, Tensor]
Panorama = UInt8[np.ndarray, "height width 3"]
OWN, ANOTHER, NONE = "own", "another", "none"
"""Whose satellite image a target is given."""


def copy_nearest(sample: Sample) -> Panorama:
    """Give the nearest of the panoramas of a sample as if it were the target's.

    Raises:
        ConfigError: The sample has no panorama.
    """
    return _given(sample)[0][0]


def blend_views(sample: Sample) -> Panorama:
    """Give the mean of the panoramas of a sample, weighed by their inverse distance.

    One that stands within a metre of the target counts as if it stood a metre away.

    Raises:
        ConfigError: The sample has no panorama.
    """
    panoramas, apart = _given(sample)
    weight = 1 / np.maximum(apart, 1.0)
    mixed = np.tensordot(weight / weight.sum(), panoramas.astype(np.float64), axes=1)
    return np.round(mixed).astype(np.uint8)


def _given(sample: Sample) -> tuple[Images, np.ndarray]:
    """Give the panoramas that are there, the nearest first, and their distances in metres."""
    valid = sample["valid"]
    if not bool(valid.any()):
        raise ConfigError("no panorama is given, so none can be copied (give one or more)")
    apart = sample["offset_m"][valid].double().norm(dim=1)
    order = apart.argsort(stable=True)
    return sample["panoramas"][valid][order].numpy(), apart[order].numpy()


@torch.no_grad()
def through_codec(pipeline: PanoramaPipeline, images: Images) -> Images:
    """Encode and decode panoramas: the best that any model over this codec could draw."""
    latents = pipeline.codec.encode(to_signal(images).to(pipeline.device))
    return to_bytes(pipeline.decoder.decode(latents, pipeline.codec))


def with_satellite(sample: Sample, whose: str, other: Sample) -> Sample:
    """Give a sample its own satellite image, that of another place, or none.

    Where another image is given, it is said to lie at the sample's own place and scale.
    """
    if whose == ANOTHER:
        return {**sample, "satellite": other["satellite"]}
    if whose == NONE:
        return {**sample, "has_satellite": torch.tensor(False)}
    return sample


def with_strange_views(sample: Sample, dataset: PanoramaDataset, number: int) -> Sample:
    """Put panoramas of another set into the slots of a sample, at the offsets that it states.

    Args:
        sample: What is changed.
        dataset: All sets.
        number: The other set; where it has fewer panoramas, they are used again.
    """
    panoramas = sample["panoramas"].clone()
    count = len(dataset.sets[number].views)
    for slot in sample["valid"].nonzero()[:, 0].tolist():
        panoramas[slot] = dataset.sample(number, slot % count, ())["image"]
    return {**sample, "panoramas": panoramas}
