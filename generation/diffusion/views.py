"""What a panorama is told by the panoramas and the satellite image around its place.

Three ways lead from what is available to the denoiser:

* Local geospatial attention weighs the pixels of each panorama by their features, by what lies at
  the target, by the distance and by the bearing, and pools them to a few tokens. The denoiser
  attends to the tokens of all panoramas that are there.
* Global attention weighs the satellite image by what those panoramas show.
* Both images, weighed, are brought to the target's own directions: a panorama by asking where a
  point that the target sees at some distance appears in it, at several distances; the satellite
  image by the point of the ground a ray meets. The maps that come of it steer the control branch.

Everything is relative to the azimuth, so turned inputs give turned outputs. A panorama that is not
there changes nothing, whatever its slot holds; without any, the satellite image alone speaks, and
without that one learned tokens do.

Source:
    Xiong et al., "Mixed-View Panorama Synthesis using Geospatially Guided Diffusion" (TMLR 2025)
    for the two attentions and the fusion; Workman et al., "Revisiting Near/Remote Sensing with
    Geospatial Attention" (CVPR 2022), §3.2, for the geometric features. Lookups at several
    distances stand in for the published pixel-by-pixel alignment, which holds at infinity only:
    they are a plane sweep (Collins, "A space-sweep approach to true multi-image matching", 1996).
"""

import math
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from generation.diffusion.azimuth import AzimuthConv2d, conv3
from generation.geo.sphere import (
    Band,
    ground_distance_m,
    lookup,
    on_satellite,
    sample,
    seen_from,
)

_GROUND = 0.0
"""Stands for the smooth ground below the eye in a list of distances."""
_PROFILE_NEAR_M, _PROFILE_FAR_M = 500.0, 60e3
"""Distances between which the satellite image is read along each azimuth."""
_FARTHEST_M = 120e3
"""Where rays to the smooth ground are ended."""
_FILL = -1e4
"""Logit of what is not there."""


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


class MixedViewEncoder(ModelMixin, ConfigMixin):
    """Panoramas and a satellite image around a place -> tokens and maps for its panorama."""

    @register_to_config
    def __init__(
        self,
        height: int = 128,
        width: int = 512,
        top_deg: float = 45.0,
        bottom_deg: float = -45.0,
        eye_m: float = 1500.0,
        patch: int = 8,
        dim: int = 64,
        token_dim: int = 128,
        vector_dim: int = 256,
        view_tokens: int = 4,
        satellite_side: int = 8,
        distances_m: tuple[float, ...] = (math.inf, 45e3, 18e3, 7e3, _GROUND),
        level_dims: tuple[int, ...] = (64, 64, 64),
    ) -> None:
        super().__init__()
        self.band = Band(height, width, top_deg, bottom_deg)
        self.patch, self.dim, self.view_tokens = patch, dim, view_tokens
        self.grid = self.band.coarser(patch)
        self.eye_m, self.distances_m = eye_m, tuple(distances_m)
        rows = self.grid.height
        # Overhead and panorama features, and the published attention inside each panorama.
        self.view_stem = _PatchStem(patch, dim, conv3(dim, dim))
        self.overhead_stem = _PatchStem(patch, dim, nn.Conv2d(dim, dim, 3, padding=1))
        self.local = LocalGeospatialAttention(dim, view_tokens)
        self.to_tokens = nn.Sequential(
            nn.Linear(dim + 4, token_dim), nn.SiLU(), nn.Linear(token_dim, token_dim)
        )
        self.overhead_gate = GlobalAttention(dim, satellite_side)
        self.overhead_tokens = nn.Linear(dim, token_dim)
        self.null_token = nn.Parameter(0.02 * torch.randn(token_dim))
        self.null_overhead = nn.Parameter(0.02 * torch.randn(dim))
        self.null_vector = nn.Parameter(torch.zeros(vector_dim))
        self.view_vector = nn.Linear(dim, vector_dim)
        self.overhead_vector = nn.Linear(dim, vector_dim)
        # What is found in the target's own directions.
        self.found = _Patches(patch, 3, dim)
        self.geometry = nn.Linear(6, dim)
        self.score = ViewScore(dim, rows)
        self.ground = _Patches(patch, 4, dim)
        self.ground_score = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.SiLU(), nn.Conv2d(dim, 1, 1))
        self.profile = SatelliteProfile(rows, dim)
        self.depth = _Patches(patch, 2, dim)
        self.null_found = nn.Parameter(torch.zeros(dim))
        self.null_depth = nn.Parameter(torch.zeros(dim))
        self.rows = nn.Parameter(0.1 * torch.randn(1, dim, rows, 1))
        self.fuse = nn.ModuleList([conv3(4 * dim, dim), conv3(dim, level_dims[0])])
        self.down = nn.ModuleList(
            conv3(a, b, stride=2) for a, b in zip(level_dims, level_dims[1:], strict=False)
        )

    def forward(self, around: Surroundings, heading_deg: float = 0.0) -> Guide:
        """Look around.

        Args:
            around: What is available.
            heading_deg: Where the middle of the target looks.
        """
        around = _blanked(around)
        valid = around.valid
        slots = _Slots(valid)
        overhead = self._overhead(around)
        centre = overhead.mean((2, 3))
        panoramas = slots.take(around.panoramas)
        offset_m = slots.take(around.offset_m)
        attention, pooled = self.local(
            self.view_stem(panoramas), self._planes(offset_m), centre[slots.owner]
        )
        focus = _to_one(attention.mean(1))
        dense = slots.put(pooled)  # (batch, views, tokens, dim)
        seen = _masked_mean(dense.mean(2), valid)
        gate = self.overhead_gate(seen, valid.any(1))
        found, scores = self._found(slots, panoramas, offset_m, focus, centre, heading_deg)
        ground, profile, lit = self._satellite(around, gate, heading_deg)
        keep = around.has_satellite[:, None, None, None]
        told = torch.where(
            around.has_depth[:, None, None, None],
            self.depth(torch.cat([around.depth, (around.depth > 0).float()], 1)),
            self.null_depth[:, None, None],
        )
        # One softmax decides between every panorama, the satellite image and nothing at all.
        views = slots.put(scores, fill=_FILL)
        overhead_score = torch.where(keep, self.ground_score(ground), _FILL)
        logits = torch.cat([views.flatten(1, 2), overhead_score, torch.zeros_like(lit)], 1)
        share = logits.softmax(1)
        chosen = share[:, :-2].unflatten(1, views.shape[1:3])
        picked = (slots.take(chosen)[:, :, None] * found).sum(1)
        mixed = slots.add_up(picked) + share[:, -2:-1] * ground
        mixed = mixed + share[:, -1:] * self.null_found[:, None, None]
        x = torch.cat([mixed, ground * lit, profile + self.rows, told], 1)
        x = self.fuse[1](F.silu(self.fuse[0](F.silu(x))))
        levels = [x]
        for layer in self.down:
            levels.append(layer(F.silu(levels[-1])))
        tokens, mask = self._tokens(dense, around, overhead)
        vector = self.view_vector(seen) * valid.any(1, keepdim=True)
        lights = self.overhead_vector(centre) * around.has_satellite[:, None]
        return Guide(
            tokens=tokens,
            mask=mask,
            vector=vector + lights + self.null_vector,
            levels=levels,
            view_weights=chosen.sum(2),
            satellite_weight=share[:, -2],
            local=slots.put(focus),
            overhead=gate[:, 0],
        )

    def _overhead(self, around: Surroundings) -> Float[Tensor, "batch dim rows cols"]:
        features = self.overhead_stem(F.avg_pool2d(around.satellite, 2))
        keep = around.has_satellite[:, None, None, None]
        return torch.where(keep, features, self.null_overhead[:, None, None])

    def _planes(self, offset_m: Float[Tensor, "slots 2"]) -> Float[Tensor, "slots 3 rows cols"]:
        """Give distance, and bearing relative to each column, as planes over each panorama."""
        east, north = offset_m.unbind(-1)
        distance = torch.log1p(torch.hypot(east, north) / 1000) / 4
        # Towards the target, as seen from the panorama.
        bearing = torch.atan2(-east, -north)
        azimuth = self.grid.azimuths_deg().to(bearing).deg2rad()
        apart = bearing[:, None] - azimuth
        planes = torch.stack([distance[:, None].expand_as(apart), apart.cos(), apart.sin()], 1)
        return planes[:, :, None].expand(-1, -1, self.grid.height, -1)

    def _found(
        self,
        slots: "_Slots",
        panoramas: Float[Tensor, "slots 3 height width"],
        offset_m: Float[Tensor, "slots 2"],
        focus: Float[Tensor, "slots rows cols"],
        centre: Float[Tensor, "batch dim"],
        heading_deg: float,
    ) -> tuple[Float[Tensor, "slots steps dim rows cols"], Float[Tensor, "slots steps rows cols"]]:
        """Find what each panorama shows in the target's directions, and how much it is worth."""
        lookups = [
            self._found_at(step, panoramas, offset_m, focus, heading_deg)
            for step in self.distances_m
        ]
        seen = torch.stack([found for found, _ in lookups], 1)
        told = self.geometry(torch.stack([where for _, where in lookups], 1)).movedim(-1, 2)
        count = slots.count[:, None, None, None, None].clamp_min(1)
        among = (slots.add_up(seen) / count)[slots.owner]
        scores = self.score(seen + told, (seen - among).abs(), centre[slots.owner])
        return seen + told, scores

    def _found_at(
        self,
        step: float,
        panoramas: Float[Tensor, "slots 3 height width"],
        offset_m: Float[Tensor, "slots 2"],
        focus: Float[Tensor, "slots rows cols"],
        heading_deg: float,
    ) -> tuple[Float[Tensor, "slots dim rows cols"], Float[Tensor, "slots rows cols 6"]]:
        """Look up one distance: features, and the geometry that they were found with."""
        fine = self._rays(self.band, step, offset_m, heading_deg)
        coarse = self._rays(self.grid, step, offset_m, heading_deg)
        with torch.no_grad():
            shown = sample(panoramas, fine[0], fine[1], self.band)
        features = self.found(shown.unflatten(2, (self.band.height, self.band.width)))
        marks = sample(focus[:, None], coarse[0], coarse[1], self.grid)
        marks = marks.unflatten(2, (self.grid.height, self.grid.width))
        east, north = (part[:, None, None] for part in offset_m.unbind(-1))
        azimuth = self.grid.azimuths_deg(heading_deg).to(panoramas).deg2rad()
        bearing = torch.atan2(east, north) - azimuth
        near = torch.log1p(torch.hypot(east, north) / 1000) / 4
        shape = features.shape[:1] + features.shape[2:]
        planes = [
            coarse[2].expand(shape),
            coarse[3].expand(shape),
            bearing.cos().expand(shape),
            bearing.sin().expand(shape),
            near.expand(shape),
            torch.full_like(features[:, 0], float(step == _GROUND)),
        ]
        return features * (1 + marks), torch.stack(planes, -1)

    def _rays(
        self, band: Band, step: float, offset_m: Float[Tensor, "slots 2"], heading_deg: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give azimuth and elevation in each panorama, how much nearer it is, and how far."""
        azimuth = band.azimuths_deg(heading_deg).to(offset_m).expand(len(offset_m), 1, -1)
        elevation = band.elevations_deg().to(offset_m)[None, :, None]
        if math.isinf(step):
            return azimuth, elevation, torch.zeros_like(elevation), torch.full_like(elevation, 2.0)
        reach = torch.full_like(elevation, step)
        if step == _GROUND:
            reach = ground_distance_m(elevation, self.eye_m).clamp(max=_FARTHEST_M)
        east, north = (part[:, None, None] for part in offset_m.unbind(-1))
        there = seen_from(azimuth, elevation, reach, east, north)
        ratio = ((reach / there[2]).log() / 2).clamp(-2, 2)
        return there[0], there[1], ratio, (reach.log() - math.log(1e4)) / 2

    def _satellite(
        self, around: Surroundings, gate: Float[Tensor, "batch 1 side side"], heading_deg: float
    ) -> tuple[
        Float[Tensor, "batch dim rows cols"],
        Float[Tensor, "batch dim rows cols"],
        Float[Tensor, "batch 1 rows cols"],
    ]:
        """Bring the satellite image to the target's directions: ground, profile, and where."""
        lat, gsd = around.lat_deg[:, None, None], around.gsd_m[:, None, None]
        with torch.no_grad():
            shown, on_image = self._ground(around.satellite, self.band, lat, gsd, heading_deg)
            # No ground is met over the horizon, nor known beyond the image.
            below = self.band.elevations_deg().to(shown)[:, None] < 0
            known = (on_image & below)[:, None].to(shown)
        marks, _ = self._ground(
            gate, self.grid, lat, gsd * (around.satellite.shape[-1] / gate.shape[-1]), heading_deg
        )
        keep = around.has_satellite[:, None, None, None]
        ground = self.ground(torch.cat([shown * known, known], 1)) * (1 + marks)
        lit = F.avg_pool2d(known, self.patch) * keep
        profile = self.profile(around.satellite, lat, gsd, self.grid, heading_deg)
        return torch.where(keep, ground, 0.0), torch.where(keep, profile, 0.0), lit

    def _ground(
        self, image: Tensor, band: Band, lat: Tensor, gsd: Tensor, heading_deg: float
    ) -> tuple[Tensor, Tensor]:
        """Look an image of the ground up where the rays of a band meet it."""
        azimuth = band.azimuths_deg(heading_deg).to(image)
        elevation = band.elevations_deg().to(image)[:, None]
        reach = ground_distance_m(elevation, self.eye_m).clamp(max=_FARTHEST_M)
        right, down = on_satellite(azimuth, reach, lat, gsd)
        return lookup(image, right, down)

    def _tokens(
        self,
        pooled: Float[Tensor, "batch views tokens dim"],
        around: Surroundings,
        overhead: Float[Tensor, "batch dim rows cols"],
    ) -> tuple[Float[Tensor, "batch all token_dim"], Bool[Tensor, "batch all"]]:
        """List the tokens of every panorama and of the satellite image, and one that is always."""
        batch = len(around.valid)
        apart = around.offset_m.norm(dim=-1)[..., None] / 1000
        near = torch.cat([torch.log1p(apart) / 4, apart / 30, torch.exp(-apart / 5)], -1)
        near = F.pad(near, (0, 1), value=1.0)[:, :, None].expand(-1, -1, self.view_tokens, -1)
        views = self.to_tokens(torch.cat([pooled, near], -1)).flatten(1, 2)
        coarse = F.adaptive_avg_pool2d(overhead, 2).flatten(2).transpose(1, 2)
        sky = self.overhead_tokens(coarse)
        null = self.null_token.expand(batch, 1, -1)
        mask = torch.cat(
            [
                torch.ones_like(around.has_satellite)[:, None],
                around.valid.repeat_interleave(self.view_tokens, 1),
                around.has_satellite[:, None].expand(-1, sky.shape[1]),
            ],
            1,
        )
        return torch.cat([null, views, sky], 1), mask


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

    Panoramas that agree at a distance speak for it, which is what depth is told from.
    """

    def __init__(self, dim: int, rows: int, hidden: int = 32) -> None:
        super().__init__()
        self.of_found = nn.Conv2d(dim, hidden, 1)
        self.of_apart = nn.Conv2d(dim, hidden, 1, bias=False)
        self.of_centre = nn.Linear(dim, hidden)
        self.of_row = nn.Parameter(0.1 * torch.randn(hidden, rows, 1))
        self.out = nn.Conv2d(hidden, 1, 1)

    def forward(
        self,
        found: Float[Tensor, "slots steps dim rows cols"],
        apart: Float[Tensor, "slots steps dim rows cols"],
        centre: Float[Tensor, "slots dim"],
    ) -> Float[Tensor, "slots steps rows cols"]:
        """Return logits.

        Args:
            found: Features with their geometry.
            apart: How far they are from what the panoramas show on average at that distance.
            centre: The overhead feature at the target.
        """
        x = self.of_found(found.flatten(0, 1)) + self.of_apart(apart.flatten(0, 1))
        x = x.unflatten(0, found.shape[:2]) + self.of_row
        x = x + self.of_centre(centre)[:, None, :, None, None]
        return self.out(F.silu(x).flatten(0, 1)).unflatten(0, found.shape[:2])[:, :, 0]


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


class _Patches(nn.Module):
    """One vector for each patch of pixels."""

    def __init__(self, patch: int, channels: int, dim: int) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(patch)
        self.first = nn.Conv2d(channels * patch**2, dim, 1)
        self.second = nn.Conv2d(dim, dim, 1)

    def forward(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim rows cols"]:
        first = self.first(self.fold(pixels))
        return first + self.second(F.silu(first))


class _PatchStem(nn.Module):
    """Patches that know their neighbours."""

    def __init__(self, patch: int, dim: int, mix: nn.Conv2d) -> None:
        super().__init__()
        self.patches = _Patches(patch, 3, dim)
        self.norm = nn.GroupNorm(8, dim)
        self.mix = mix

    def forward(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim rows cols"]:
        x = self.patches(pixels)
        return x + self.mix(F.silu(self.norm(x)))


class _Slots:
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
        self.count = valid.sum(1)

    def take(self, values: Float[Tensor, "batch views *rest"]) -> Float[Tensor, "slots *rest"]:
        """Make the list."""
        return values.flatten(0, 1)[self.index]

    def put(
        self, values: Float[Tensor, "slots *rest"], fill: float = 0.0
    ) -> Float[Tensor, "batch views *rest"]:
        """Put values of the list where they belong, and ``fill`` where there is no panorama."""
        if not self.real:
            values = values * 0 + fill
        shape = (self.valid.numel(), *values.shape[1:])
        dense = values.new_full(shape, fill).index_copy(0, self.index, values)
        return dense.unflatten(0, tuple(self.valid.shape))

    def add_up(self, values: Float[Tensor, "slots *rest"]) -> Float[Tensor, "batch *rest"]:
        """Add the values of each sample up."""
        values = values if self.real else values * 0
        total = values.new_zeros(len(self.valid), *values.shape[1:])
        return total.index_add(0, self.owner, values)


def _blanked(around: Surroundings) -> Surroundings:
    """Put zeros where nothing is given: a product with zero does not remove a NaN."""
    view = around.valid[:, :, None]
    has, depth = (flags[:, None, None, None] for flags in (around.has_satellite, around.has_depth))
    return Surroundings(
        panoramas=torch.where(view[..., None, None], around.panoramas, 0.0),
        valid=around.valid,
        offset_m=torch.where(view, around.offset_m, 1.0),
        satellite=torch.where(has, around.satellite, 0.0),
        has_satellite=around.has_satellite,
        gsd_m=torch.where(around.has_satellite, around.gsd_m, 600.0),
        lat_deg=torch.where(around.has_satellite, around.lat_deg, 0.0),
        depth=torch.where(depth, around.depth, 0.0),
        has_depth=around.has_depth,
    )


def _masked_mean(
    values: Float[Tensor, "batch views dim"], valid: Bool[Tensor, "batch views"]
) -> Float[Tensor, "batch dim"]:
    weight = valid[..., None].to(values)
    return (values * weight).sum(1) / weight.sum(1).clamp_min(1)


def _to_one(weights: Float[Tensor, "*batch rows cols"]) -> Float[Tensor, "*batch rows cols"]:
    """Scale weights so that the largest of each map is one."""
    return weights / weights.amax((-2, -1), keepdim=True).clamp_min(1e-12)
