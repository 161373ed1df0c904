"""What stands around the places of a batch, and what a denoiser is told of it."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is available around the places of a batch; slots without a panorama may hold anything.

    Panoramas look north in their middle; bytes are given as [-1, 1].
    """

    panoramas: Float[Tensor, "batch views 3 height width"]
    valid: Bool[Tensor, "batch views"]
    offset_m: Float[Tensor, "batch views 2"]
    """How far east and north of the target each panorama stands."""
    satellite: Float[Tensor, "batch 3 side side"]
    """Centred on the target, north up."""
    has_satellite: Bool[Tensor, " batch"]
    gsd_m: Float[Tensor, " batch"]
    """Ground metres of a satellite pixel."""
    lat_deg: Float[Tensor, " batch"]
    depth: Float[Tensor, "batch 1 height width"]
    """Optional hint at the target's depths: 0 in the sky, else 1/255 (near) to 1 (far)."""
    has_depth: Bool[Tensor, " batch"]


@dataclass(frozen=True, slots=True)
class Guide:
    """What the denoiser is told of the surroundings, and where it was found."""

    tokens: Float[Tensor, "batch tokens dim"]
    mask: Bool[Tensor, "batch tokens"]
    vector: Float[Tensor, "batch features"]
    draft: Float[Tensor, "batch 3 height width"]
    """The panorama as it can be looked up, [-1, 1]."""
    correction: Float[Tensor, "batch latents rows cols"]
    """What is added to the draft's latents to set it right."""
    levels: list[Tensor]
    """Maps at the resolutions of the denoiser, finest first."""
    view_weights: Float[Tensor, "batch views rows cols"]
    """Share of each panorama in what is known of a cell of the target; with ``satellite_weight``
    and what was left to the model they sum to one."""
    satellite_weight: Float[Tensor, "batch rows cols"]
    local: Float[Tensor, "batch views rows cols"]
    """Where each panorama was attended to, 0 to 1, on its own grid."""
    overhead: Float[Tensor, "batch side side"]
    """How much each part of the satellite image was let through, 0 to 1."""
