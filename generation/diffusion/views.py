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
    A prediction and the diffusion of what is left: Whang et al., "Deblurring via stochastic
    refinement" (CVPR 2022), Eq. 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from generation.diffusion.azimuth import conv3
from generation.diffusion.surroundings import Guide, Surroundings
from generation.diffusion.view_attention import (
    FARTHEST_M,
    GlobalAttention,
    LocalGeospatialAttention,
    Patches,
    PatchStem,
    ResidualBlock,
    SatelliteProfile,
    Slots,
    ViewScore,
    geometry_planes,
    masked_mean,
    on_ground,
    refined,
    to_one,
)
from generation.geo.sphere import Band, ground_distance_m, sample, seen_from

_GROUND = 0.0
"""Stands for the smooth ground below the eye in a list of distances."""
_FILL = -1e4
"""Logit of what is not there."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """What was looked up, before it is told to the denoiser."""

    cells: Float[Tensor, "batch dim rows cols"]
    draft: Float[Tensor, "batch 3 height width"]
    pooled: Float[Tensor, "batch views tokens dim"]
    overhead: Float[Tensor, "batch dim orows ocols"]
    view_weights: Float[Tensor, "batch views rows cols"]
    satellite_weight: Float[Tensor, "batch rows cols"]
    local: Float[Tensor, "batch views rows cols"]
    gate: Float[Tensor, "batch side side"]


class MixedViewEncoder(ModelMixin, ConfigMixin):
    """Panoramas and a satellite image around a place -> tokens, a draft and maps for its panorama.

    The buffer ``spread`` holds how far, in each latent channel and row, the truth lies from the
    draft. ``detail`` is how much of what a sample has beyond the expected panorama is drawn: 1 as
    real panoramas have, less is nearer to what is likely. None in ``distances_m`` is infinity.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913 - the sizes of a network, as its configuration lists them
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
        distances_m: Sequence[float | None] = (None, 45e3, 18e3, 7e3, _GROUND),
        level_dims: Sequence[int] = (64, 64, 64),
        latent_channels: int = 16,
        num_blocks: int = 3,
        detail: float = 1.0,
    ) -> None:
        super().__init__()
        self.band = Band(height, width, top_deg, bottom_deg)
        self.patch, self.dim, self.view_tokens = patch, dim, view_tokens
        self.grid = self.band.coarser(patch)
        self.eye_m, self.distances_m = eye_m, _metres(distances_m)
        rows = self.grid.height
        # Overhead and panorama features, and the published attention inside each panorama.
        self.view_stem = PatchStem(patch, dim, conv3(dim, dim))
        self.overhead_stem = PatchStem(patch, dim, nn.Conv2d(dim, dim, 3, padding=1))
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
        self.found = Patches(patch, 3, dim)
        self.geometry = nn.Linear(6, dim)
        self.score = ViewScore(dim, rows)
        self.ground = Patches(patch, 4, dim)
        self.ground_score = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.SiLU(), nn.Conv2d(dim, 1, 1))
        self.profile = SatelliteProfile(rows, dim)
        self.depth = Patches(patch, 2, dim)
        self.null_found = nn.Parameter(torch.zeros(dim))
        self.null_depth = nn.Parameter(torch.zeros(dim))
        self.rows = nn.Parameter(0.1 * torch.randn(1, dim, rows, 1))
        self.colours = nn.Conv2d(dim, 9, 1)
        self.draft = Patches(patch, 3, dim)
        self.fuse = conv3(5 * dim, dim)
        self.blocks = nn.ModuleList(ResidualBlock(dim) for _ in range(num_blocks))
        self.correction = conv3(dim, latent_channels)
        nn.init.zeros_(self.correction.weight)
        self.to_level = conv3(dim, level_dims[0])
        self.down = nn.ModuleList(conv3(a, b, stride=2) for a, b in pairwise(level_dims))
        self.held = False
        """Whether the draft has been learnt and stays as it is in training."""
        self.detail_share = detail
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(latent_channels, rows))

    def hold(self) -> None:
        """Keep the draft as it is from now on; what the denoiser is told of it still learns."""
        self.held = True
        self.requires_grad_(False)
        self.tell(True)

    def tell(self, learns: bool) -> None:
        """Let what the denoiser is told of the draft learn, or not: nothing else needs it."""
        read = (self.to_tokens, self.overhead_tokens, self.view_vector, self.overhead_vector)
        for part in (self.to_level, self.down, *read):
            part.requires_grad_(learns)
        for alone in (self.null_token, self.null_vector):
            alone.requires_grad_(learns)

    def forward(self, around: Surroundings, heading_deg: float = 0.0) -> Guide:
        """Look around.

        Args:
            around: What is available.
            heading_deg: Where the middle of the target looks.
        """
        around = _blanked(around)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.held):
            looked = self._look(around, heading_deg)
            correction = self.correction(F.silu(looked.cells))
        levels = [self.to_level(F.silu(looked.cells))]
        for layer in self.down:
            levels.append(layer(F.silu(levels[-1])))
        tokens, mask = self._tokens(looked.pooled, around, looked.overhead)
        seen = masked_mean(looked.pooled.mean(2), around.valid)
        vector = self.null_vector + self.view_vector(seen) * around.valid.any(1, keepdim=True)
        below = self.overhead_vector(looked.overhead.mean((2, 3)))
        return Guide(
            tokens=tokens,
            mask=mask,
            vector=vector + below * around.has_satellite[:, None],
            draft=looked.draft,
            correction=correction,
            levels=levels,
            view_weights=looked.view_weights,
            satellite_weight=looked.satellite_weight,
            local=looked.local,
            overhead=looked.gate,
        )

    def _look(self, around: Surroundings, heading_deg: float) -> "_Looked":
        """Weigh what is there, look it up in the target's directions, and make the draft."""
        valid = around.valid
        slots = Slots(valid)
        overhead = self._overhead(around)
        centre = overhead.mean((2, 3))
        panoramas = slots.take(around.panoramas)
        offset_m = slots.take(around.offset_m)
        attention, pooled = self.local(
            self.view_stem(panoramas), geometry_planes(offset_m, self.grid), centre[slots.owner]
        )
        focus = to_one(attention.mean(1))
        dense = slots.put(pooled)  # (batch, views, tokens, dim)
        seen = masked_mean(dense.mean(2), valid)
        gate = self.overhead_gate(seen, valid.any(1))
        found, scores, shown = self._found(slots, panoramas, offset_m, focus, centre, heading_deg)
        ground, profile, lit, below = self._satellite(around, gate, heading_deg)
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
        tones = refined(self.colours(mixed + profile + self.rows), self.patch)
        own, gain, shift = tones.chunk(3, 1)
        fine = refined(share, self.patch)
        picked = slots.take(fine[:, :-2].unflatten(1, views.shape[1:3]))
        draft = slots.add_up((picked[:, :, None] * shown).sum(1))
        draft = draft + fine[:, -2:-1] * (below * (1 + gain) + shift) + fine[:, -1:] * own
        parts = [mixed, ground * lit, profile + self.rows, told, self.draft(draft)]
        x = self.fuse(torch.cat(parts, 1))
        for block in self.blocks:
            x = block(x)
        return _Looked(
            cells=x,
            draft=draft,
            pooled=dense,
            overhead=overhead,
            view_weights=chosen.sum(2),
            satellite_weight=share[:, -2],
            local=slots.put(focus),
            gate=gate[:, 0],
        )

    def _overhead(self, around: Surroundings) -> Float[Tensor, "batch dim rows cols"]:
        features = self.overhead_stem(F.avg_pool2d(around.satellite, 2))
        keep = around.has_satellite[:, None, None, None]
        return torch.where(keep, features, self.null_overhead[:, None, None])

    def _found(
        self,
        slots: "Slots",
        panoramas: Float[Tensor, "slots 3 height width"],
        offset_m: Float[Tensor, "slots 2"],
        focus: Float[Tensor, "slots rows cols"],
        centre: Float[Tensor, "batch dim"],
        heading_deg: float,
    ) -> tuple[
        Float[Tensor, "slots steps dim rows cols"],
        Float[Tensor, "slots steps rows cols"],
        Float[Tensor, "slots steps 3 height width"],
    ]:
        """Find what each panorama shows in the target's directions, its worth, and its pixels."""
        lookups = [
            self._found_at(step, panoramas, offset_m, focus, heading_deg)
            for step in self.distances_m
        ]
        seen, where, shown = (torch.stack(part, 1) for part in zip(*lookups, strict=True))
        told = self.geometry(where).movedim(-1, 2)
        scores = self.score(slots, seen, told, centre, offset_m)
        return seen + told, scores, shown

    def _found_at(
        self,
        step: float,
        panoramas: Float[Tensor, "slots 3 height width"],
        offset_m: Float[Tensor, "slots 2"],
        focus: Float[Tensor, "slots rows cols"],
        heading_deg: float,
    ) -> tuple[
        Float[Tensor, "slots dim rows cols"],
        Float[Tensor, "slots rows cols 6"],
        Float[Tensor, "slots 3 height width"],
    ]:
        """Look up one distance: features, the geometry that they were found with, and pixels."""
        fine = self._rays(self.band, step, offset_m, heading_deg)
        coarse = self._rays(self.grid, step, offset_m, heading_deg)
        with torch.no_grad():
            shown = sample(panoramas, fine[0], fine[1], self.band)
        shown = shown.unflatten(2, (self.band.height, self.band.width))
        features = self.found(shown)
        marks = sample(focus[:, None], *coarse[:2], self.grid).unflatten(2, focus.shape[1:])
        east, north = (part[:, None, None] for part in offset_m.unbind(-1))
        bearing = torch.atan2(east, north) - self.grid.azimuths_deg(heading_deg).to(east).deg2rad()
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
        return features * (1 + marks), torch.stack(planes, -1).to(features.dtype), shown

    def _rays(
        self, band: Band, step: float, offset_m: Float[Tensor, "slots 2"], heading_deg: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give azimuth and elevation in each panorama, how much nearer it is, and how far."""
        # Doubles, where there are any, so that another heading finds the same pixels.
        offset_m = offset_m if offset_m.device.type == "mps" else offset_m.double()
        azimuth = band.azimuths_deg(heading_deg).to(offset_m).expand(len(offset_m), 1, -1)
        elevation = band.elevations_deg().to(offset_m)[None, :, None]
        if math.isinf(step):
            return azimuth, elevation, torch.zeros_like(elevation), torch.full_like(elevation, 2.0)
        reach = torch.full_like(elevation, step)
        if step == _GROUND:
            reach = ground_distance_m(elevation, self.eye_m).clamp(max=FARTHEST_M)
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
        Float[Tensor, "batch 3 height width"],
    ]:
        """Bring the satellite image to the target's directions: ground, profile, where, pixels."""
        lat, gsd = around.lat_deg[:, None, None], around.gsd_m[:, None, None]
        with torch.no_grad():
            shown, on_image = on_ground(
                around.satellite, self.band, self.eye_m, lat, gsd, heading_deg
            )
            # No ground is met over the horizon, nor known beyond the image.
            below = self.band.elevations_deg().to(shown)[:, None] < 0
            known = (on_image & below)[:, None].to(shown)
        coarser = gsd * (around.satellite.shape[-1] / gate.shape[-1])
        marks, _ = on_ground(gate, self.grid, self.eye_m, lat, coarser, heading_deg)
        keep = around.has_satellite[:, None, None, None]
        ground = self.ground(torch.cat([shown * known, known], 1)) * (1 + marks)
        lit = F.avg_pool2d(known, self.patch) * keep
        profile = self.profile(around.satellite, lat, gsd, self.grid, heading_deg)
        ground, profile = torch.where(keep, ground, 0.0), torch.where(keep, profile, 0.0)
        return ground, profile, lit, shown * known

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


def _metres(distances_m: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.inf if each is None else each for each in distances_m)


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
