"""Parts that weigh and read what stands around a place; see :mod:`generation.diffusion.views`."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from generation.diffusion.azimuth import AzimuthConv2d, conv3
from generation.geo.sphere import Band, ground_distance_m, lookup, on_satellite

_PROFILE_NEAR_M, _PROFILE_FAR_M = 500.0, 60e3
"""Distances between which the satellite image is read along each azimuth."""
FARTHEST_M = 120e3
"""Where rays to the smooth ground are ended."""


class LocalGeospatialAttention(nn.Module):
    """Weigh the pixels of a panorama by what they show and how they lie to the target.

    Source:
        Xiong et al. (2025), the module drawn as "local attention": channel maximum and mean, the
        overhead feature at the target, distance and bearing -> convolutions of 3 and 5 -> one of 1
        -> softmax over pixels; one head there, several here. The bearing is relative to each
        column, so that a turned panorama gives turned weights.
    """

    def __init__(self, dim: int, heads: int, hidden: int = 16, overhead: int = 8) -> None:
        super().__init__()
        self.overhead = nn.Linear(dim, overhead)
        inputs = 2 + overhead + 3
        self.narrow = conv3(inputs, hidden)
        self.wide = AzimuthConv2d(inputs, hidden, 5, padding=2)
        self.join = nn.Conv2d(2 * hidden, heads, 1)

    def forward(
        self,
        features: Float[Tensor, "slots dim rows cols"],
        planes: Float[Tensor, "slots 3 rows cols"],
        overhead: Float[Tensor, "slots dim"],
    ) -> tuple[Float[Tensor, "slots heads rows cols"], Float[Tensor, "slots heads dim"]]:
        """Return weights that sum to one over the pixels, and the features that they pool."""
        rows, cols = features.shape[2:]
        below = self.overhead(overhead)[:, :, None, None].expand(-1, -1, rows, cols)
        x = torch.cat(
            [features.amax(1, keepdim=True), features.mean(1, keepdim=True), below, planes], 1
        )
        logits = self.join(F.silu(torch.cat([self.narrow(x), self.wide(x)], 1)))
        weights = logits.flatten(2).softmax(-1)
        pooled = torch.einsum("nhp,ndp->nhd", weights, features.flatten(2))
        return weights.unflatten(2, (rows, cols)), pooled


class GlobalAttention(nn.Module):
    """Weigh the parts of the satellite image by what the panoramas show.

    Source:
        Xiong et al. (2025), "global attention"; a normalisation over each sample in place of one
        over the batch, so that a picture does not depend on its neighbours.
    """

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.to_cells = nn.Sequential(
            nn.Linear(dim, dim), nn.SiLU(), nn.LayerNorm(dim), nn.Linear(dim, side * side)
        )

    def forward(
        self, seen: Float[Tensor, "batch dim"], any_view: Bool[Tensor, " batch"]
    ) -> Float[Tensor, "batch 1 side side"]:
        """Return shares in (0, 1) for each part; one half where there is no panorama."""
        cells = self.to_cells(seen) * any_view[:, None]
        return cells.unflatten(1, (1, self.side, self.side)).sigmoid()


class ViewScore(nn.Module):
    """How much a cell of a panorama, found at some distance, is worth for a cell of the target.

    Panoramas that agree at a distance speak for it, which is what depth is told from: each is
    compared to the mean of all, in which a far one counts for less. The more near ones there are,
    the less a far one has to say, and the sharper the choice: a mean of many would be a blur.
    """

    def __init__(self, dim: int, rows: int, hidden: int = 32) -> None:
        super().__init__()
        self.of_found = nn.Conv2d(dim, hidden, 1)
        self.of_apart = nn.Conv2d(dim, hidden, 1, bias=False)
        self.of_centre = nn.Linear(dim, hidden)
        self.of_standing = nn.Linear(2, hidden, bias=False)
        nn.init.zeros_(self.of_standing.weight)
        self.sharper = nn.Parameter(torch.zeros(1))
        self.of_row = nn.Parameter(0.1 * torch.randn(hidden, rows, 1))
        self.out = nn.Conv2d(hidden, 1, 1)

    def forward(
        self,
        slots: "Slots",
        seen: Float[Tensor, "slots steps dim rows cols"],
        told: Float[Tensor, "slots steps dim rows cols"],
        centre: Float[Tensor, "batch dim"],
        offset_m: Float[Tensor, "slots 2"],
    ) -> Float[Tensor, "slots steps rows cols"]:
        """Return logits.

        Args:
            slots: Whose panoramas they are.
            seen: What each shows there.
            told: The geometry that it was found with.
            centre: The overhead feature at the target.
            offset_m: How far east and north of the target each panorama stands.
        """
        near = nearness(slots, offset_m)
        among = slots.add_up(near).clamp_min(1)[slots.owner]
        agreed = slots.add_up(seen * near[:, None, None, None, None])[slots.owner]
        apart = (seen - agreed / among[:, None, None, None, None]).abs()
        x = self.of_found((seen + told).flatten(0, 1)) + self.of_apart(apart.flatten(0, 1))
        x = x.unflatten(0, seen.shape[:2]) + self.of_row
        standing = self.of_standing(torch.stack([near.log() / 3, among.log2()], -1))
        x = x + (self.of_centre(centre)[slots.owner] + standing)[:, None, :, None, None]
        logits = self.out(F.silu(x).flatten(0, 1)).unflatten(0, seen.shape[:2])[:, :, 0]
        return logits * (self.sharper * among.log2()[:, None, None, None]).exp()


class SatelliteProfile(nn.Module):
    """Read the satellite image outwards along each azimuth, and say what it means for each row.

    A ridge rises over the smooth ground; how far depends on what lies along the whole azimuth.
    """

    def __init__(self, rows: int, dim: int, bins: int = 32, hidden: int = 32) -> None:
        super().__init__()
        self.bins, self.rows, self.dim = bins, rows, dim
        self.stem = AzimuthConv2d(3, hidden, 4, stride=2, padding=1)
        self.mix = conv3(hidden, hidden)
        self.to_rows = nn.Conv1d(hidden * (bins // 2), dim, 1)
        self.spread = nn.Conv1d(dim, rows * (dim // 4), 1)
        self.out = nn.Conv2d(dim // 4, dim, 1)

    def forward(
        self,
        satellite: Float[Tensor, "batch 3 side side"],
        lat_deg: Float[Tensor, "batch 1 1"],
        gsd_m: Float[Tensor, "batch 1 1"],
        grid: Band,
        heading_deg: float,
    ) -> Float[Tensor, "batch dim rows cols"]:
        """Return a map on the grid of latents."""
        azimuth = Band(1, 2 * grid.width).azimuths_deg(heading_deg).to(satellite)
        steps = torch.logspace(
            math.log10(_PROFILE_NEAR_M),
            math.log10(_PROFILE_FAR_M),
            self.bins,
            device=satellite.device,
        )[:, None]
        right, down = on_satellite(azimuth, steps, lat_deg, gsd_m)
        shown, on_image = lookup(satellite, right, down)
        x = F.silu(self.stem(shown * on_image[:, None]))
        x = F.silu(self.mix(x))  # (batch, hidden, bins/2, cols)
        x = F.silu(self.to_rows(x.flatten(1, 2)))
        x = self.spread(x).unflatten(1, (self.dim // 4, self.rows))
        return self.out(F.silu(x))


class Patches(nn.Module):
    """One vector for each patch of pixels."""

    def __init__(self, patch: int, channels: int, dim: int) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(patch)
        self.first = nn.Conv2d(channels * patch**2, dim, 1)
        self.second = nn.Conv2d(dim, dim, 1)

    def forward(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim rows cols"]:
        """Return the vectors as a grid."""
        first = self.first(self.fold(pixels))
        return first + self.second(F.silu(first))


class PatchStem(nn.Module):
    """Patches that know their neighbours."""

    def __init__(self, patch: int, dim: int, mix: nn.Conv2d) -> None:
        super().__init__()
        self.patches = Patches(patch, 3, dim)
        self.norm = nn.GroupNorm(8, dim)
        self.mix = mix

    def forward(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim rows cols"]:
        """Return the vectors as a grid."""
        x = self.patches(pixels)
        return x + self.mix(F.silu(self.norm(x)))


class Slots:
    """The slots of a batch that hold a panorama, as one list: work is done for these alone.

    Where a whole batch has none, one blank slot is worked on and thrown away, so that every layer
    takes part in every step.
    """

    def __init__(self, valid: Bool[Tensor, "batch views"]) -> None:
        self.valid = valid
        index = valid.flatten().nonzero()[:, 0]
        self.real = bool(len(index))
        self.index = index if self.real else torch.zeros_like(valid.flatten()[:1], dtype=torch.long)
        self.owner = self.index // valid.shape[1]

    def take(self, values: Float[Tensor, "batch views ..."]) -> Float[Tensor, "slots ..."]:
        """Make the list."""
        return values.flatten(0, 1)[self.index]

    def put(
        self, values: Float[Tensor, "slots ..."], fill: float = 0.0
    ) -> Float[Tensor, "batch views ..."]:
        """Put values of the list where they belong, and ``fill`` where there is no panorama."""
        if not self.real:
            values = values * 0 + fill
        shape = (self.valid.numel(), *values.shape[1:])
        dense = values.new_full(shape, fill).index_copy(0, self.index, values)
        return dense.unflatten(0, tuple(self.valid.shape))

    def add_up(self, values: Float[Tensor, "slots ..."]) -> Float[Tensor, "batch ..."]:
        """Add the values of each sample up."""
        values = values if self.real else values * 0
        total = values.new_zeros(len(self.valid), *values.shape[1:])
        return total.index_add(0, self.owner, values)


def geometry_planes(
    offset_m: Float[Tensor, "slots 2"], grid: Band
) -> Float[Tensor, "slots 3 rows cols"]:
    """Give distance, and bearing relative to each column, as planes over each panorama.

    Args:
        offset_m: How far east and north of the target each panorama stands.
        grid: The grid of the planes; its middle looks north.
    """
    east, north = offset_m.unbind(-1)
    distance = torch.log1p(torch.hypot(east, north) / 1000) / 4
    # Towards the target, as seen from the panorama.
    bearing = torch.atan2(-east, -north)
    apart = bearing[:, None] - grid.azimuths_deg().to(bearing).deg2rad()
    planes = torch.stack([distance[:, None].expand_as(apart), apart.cos(), apart.sin()], 1)
    return planes[:, :, None].expand(-1, -1, grid.height, -1)


def on_ground(
    image: Float[Tensor, "batch channels side side"],
    band: Band,
    eye_m: float,
    lat_deg: Float[Tensor, "batch 1 1"],
    gsd_m: Float[Tensor, "batch 1 1"],
    heading_deg: float,
) -> tuple[Float[Tensor, "batch channels rows cols"], Bool[Tensor, "batch rows cols"]]:
    """Look an image of the ground up where the rays of a band meet it; tell which fall on it."""
    azimuth = band.azimuths_deg(heading_deg).to(image)
    elevation = band.elevations_deg().to(image)[:, None]
    reach = ground_distance_m(elevation, eye_m).clamp(max=FARTHEST_M)
    right, down = on_satellite(azimuth, reach, lat_deg, gsd_m)
    return lookup(image, right, down)


def nearness(slots: Slots, offset_m: Float[Tensor, "slots 2"]) -> Float[Tensor, " slots"]:
    """Give the distance of the nearest panorama over that of each, in (0, 1]."""
    apart = offset_m.norm(dim=-1).clamp_min(1.0)
    places = apart.new_full((len(slots.valid),), math.inf)
    return places.scatter_reduce(0, slots.owner, apart, "amin")[slots.owner] / apart


def masked_mean(
    values: Float[Tensor, "batch views dim"], valid: Bool[Tensor, "batch views"]
) -> Float[Tensor, "batch dim"]:
    """Average over the slots that hold a panorama; zero where none does."""
    weight = valid[..., None].to(values)
    return (values * weight).sum(1) / weight.sum(1).clamp_min(1)


def to_one(weights: Float[Tensor, "*batch rows cols"]) -> Float[Tensor, "*batch rows cols"]:
    """Scale weights so that the largest of each map is one."""
    return weights / weights.amax((-2, -1), keepdim=True).clamp_min(1e-12)


def refined(
    cells: Float[Tensor, "batch channels rows cols"], factor: int
) -> Float[Tensor, "batch channels height width"]:
    """Bring a coarse map to the grid of pixels, bilinear and circular in columns."""
    wrapped = F.pad(cells, (1, 1, 0, 0), mode="circular")
    fine = F.interpolate(wrapped, scale_factor=factor, mode="bilinear", align_corners=False)
    return fine[..., factor:-factor]


class ResidualBlock(nn.Module):
    """Two wrapped convolutions beside the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, dim)
        self.first, self.second = conv3(dim, dim), conv3(dim, dim)
        nn.init.zeros_(self.second.weight)

    def forward(
        self, x: Float[Tensor, "batch dim rows cols"]
    ) -> Float[Tensor, "batch dim rows cols"]:
        """Return the sum."""
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))
