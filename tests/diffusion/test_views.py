"""What a panorama is told of its surroundings: invariances, missing inputs and the geometry."""

import math
from dataclasses import fields, replace

import pytest
import torch

from generation.diffusion.surroundings import Surroundings
from generation.diffusion.view_attention import Slots, masked_mean, refined, to_one
from generation.diffusion.views import MixedViewEncoder
from generation.geo.sphere import EARTH_RADIUS_M, Band

ROWS, COLS, SIDE, VIEWS = 32, 512, 64, 3
MAPS = ("draft", "correction", "view_weights", "satellite_weight")
"""What lies on the target's own grid beside ``levels``."""


@pytest.fixture(scope="module")
def encoder():
    """An untrained encoder; what starts at zero is moved away from it, so that all parts count."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = MixedViewEncoder(
            height=ROWS, width=COLS, dim=16, token_dim=16, vector_dim=16, level_dims=(16, 16, 16),
            latent_channels=4, satellite_side=4,
        )  # fmt: skip
        for parameter in encoder.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return encoder.eval().requires_grad_(False)


def make(count=2, seed=0, **changes):
    """Surroundings of a few places, with everything there."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=draw) * 2 - 1

    around = Surroundings(
        panoramas=refined(uniform(count * VIEWS, 3, ROWS // 8, COLS // 8), 8).unflatten(
            0, (count, VIEWS)
        ),  # neighbouring pixels are alike, as real ones are
        valid=torch.ones(count, VIEWS, dtype=torch.bool),
        offset_m=15e3 * uniform(count, VIEWS, 2),
        satellite=uniform(count, 3, SIDE, SIDE),
        has_satellite=torch.ones(count, dtype=torch.bool),
        gsd_m=torch.full((count,), 1700.0),
        lat_deg=30 * uniform(count),
        depth=uniform(count, 1, ROWS, COLS).abs(),
        has_depth=torch.zeros(count, dtype=torch.bool),
    )
    return replace(around, **changes)


def none(count=2):
    return torch.zeros(count, dtype=torch.bool)


def no_views(count=2):
    return torch.zeros(count, VIEWS, dtype=torch.bool)


def parts(guide):
    """Everything that a guide holds, by name."""
    told = {f.name: getattr(guide, f.name) for f in fields(guide) if f.name != "levels"}
    return told | {f"level {n}": level for n, level in enumerate(guide.levels)}


def same(first, second, *, but=(), atol=1e-5):
    for name, value in parts(first).items():
        if name not in but:
            torch.testing.assert_close(value, parts(second)[name], atol=atol, rtol=1e-5, msg=name)


def apart(first, second):
    """How far two maps lie apart, as a share of their largest value."""
    return float((first - second).abs().max() / first.abs().max())


def pick(around, *places):
    return Surroundings(**{f.name: getattr(around, f.name)[list(places)] for f in fields(around)})


# --- order and absence ---------------------------------------------------------------------------
def test_the_order_of_panoramas_does_not_matter(encoder):
    around, order = make(), [2, 0, 1]
    first = encoder(around)
    second = encoder(
        replace(around, panoramas=around.panoramas[:, order], offset_m=around.offset_m[:, order])
    )
    same(first, second, but=("tokens", "view_weights", "local"))
    torch.testing.assert_close(first.view_weights[:, order], second.view_weights)
    a, b = (guide.tokens[:, 1:13].unflatten(1, (VIEWS, 4)) for guide in (first, second))
    torch.testing.assert_close(a[:, order], b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("junk", [math.nan, math.inf, 1e30])
def test_what_a_masked_slot_holds_changes_nothing(encoder, junk):
    around = make()
    around.valid[:, 1] = False
    around.valid[1] = False
    first = encoder(around)
    around.panoramas[:, 1], around.panoramas[1] = junk, junk
    around.offset_m[:, 1], around.offset_m[1] = junk, junk
    second = encoder(around)
    for name, value in parts(first).items():
        assert torch.equal(value, parts(second)[name]), name
    assert not second.mask[:, 5:9].any()


@pytest.mark.parametrize("junk", [math.nan, 1e30])
def test_what_stands_for_a_missing_satellite_image_changes_nothing(encoder, junk):
    around = make(has_satellite=torch.tensor([False, True]))
    first = encoder(around)
    around.satellite[0] = junk
    around.gsd_m[0], around.lat_deg[0], around.depth[:] = junk, junk, junk
    second = encoder(around)
    for name, value in parts(first).items():
        assert torch.equal(value, parts(second)[name]), name


def test_fewer_panoramas_are_the_same_as_masked_ones(encoder):
    around = make()
    around.valid[:, 2] = False
    fewer = replace(
        around, panoramas=around.panoramas[:, :2], valid=around.valid[:, :2],
        offset_m=around.offset_m[:, :2],
    )  # fmt: skip
    same(encoder(around), encoder(fewer), but=("tokens", "mask", "view_weights", "local"))


def test_without_panoramas_the_satellite_image_alone_speaks(encoder):
    around = make(valid=no_views())
    told = encoder(around)
    assert told.mask.sum(1).tolist() == [5, 5]  # the one that is always, and four of the satellite
    assert float(told.view_weights.abs().max()) == 0
    assert float(told.satellite_weight.max()) > 0
    other = encoder(replace(around, satellite=-around.satellite))
    assert (told.levels[0] - other.levels[0]).abs().max() > 1e-3


def test_without_a_satellite_image_the_panoramas_alone_speak(encoder):
    around = make(has_satellite=none())
    told = encoder(around)
    assert told.mask.sum(1).tolist() == [13, 13]
    assert float(told.satellite_weight.abs().max()) == 0
    other = encoder(replace(around, panoramas=-around.panoramas))
    assert (told.levels[0] - other.levels[0]).abs().max() > 1e-3


def test_with_nothing_every_place_is_told_the_same(encoder):
    guides = [
        encoder(
            make(seed=seed, valid=no_views(), has_satellite=none(), lat_deg=torch.full((2,), lat))
        )
        for seed, lat in ((0, 10.0), (1, -70.0))
    ]
    for name, value in parts(guides[0]).items():
        assert torch.equal(value, parts(guides[1])[name]), name
        assert torch.equal(value[0], value[1]), name
    assert guides[0].mask.sum(1).tolist() == [1, 1]


def test_a_hint_of_depths_counts_where_it_is_given(encoder):
    around = make(has_depth=torch.tensor([True, False]))
    first, second = encoder(around), encoder(replace(around, depth=0.5 * around.depth))
    assert (first.levels[0][0] - second.levels[0][0]).abs().max() > 1e-3
    assert torch.equal(first.levels[0][1], second.levels[0][1])


# --- batches and turns ---------------------------------------------------------------------------
def test_a_place_does_not_depend_on_its_neighbours_in_a_batch(encoder):
    around = make(4, has_satellite=torch.tensor([True, False, True, False]))
    around.valid[1], around.valid[2, 1:], around.valid[3, 0] = False, False, False
    together = encoder(around)
    for place in range(4):
        alone = parts(encoder(pick(around, place)))
        for name, value in parts(together).items():
            torch.testing.assert_close(value[place : place + 1], alone[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("turns", [1, 5, 15])
def test_a_turned_target_gives_turned_maps_and_the_same_tokens(encoder, turns):
    """22.5 degrees are 32 columns of pixels and 4, 2 and 1 columns of the three levels."""
    around = make(has_depth=none())
    north, turned = (encoder(around, heading_deg=heading) for heading in (0.0, 22.5 * turns))
    for n, (a, b) in enumerate(zip(north.levels, turned.levels, strict=True)):
        assert apart(a.roll(-turns * 4 // 2**n, 3), b) < 1e-5
    for name in MAPS:
        a, b = getattr(north, name), getattr(turned, name)
        columns = 32 if name == "draft" else 4
        # Beside the foot of a panorama directions change fast, and so do errors of rounding.
        assert apart(a.roll(-turns * columns, -1), b) < (2e-4 if name == "draft" else 1e-5)
    for name in ("tokens", "mask", "vector", "local", "overhead"):
        torch.testing.assert_close(getattr(north, name), getattr(turned, name), atol=1e-5, rtol=0)
    assert (north.levels[0] - turned.levels[0]).abs().max() > 1e-3


def test_a_turned_world_of_panoramas_gives_turned_maps(encoder):
    """All panoramas and where they stand are turned by 90 degrees around the target."""
    around = make(has_satellite=none())
    east, north = around.offset_m.unbind(-1)
    world = replace(
        around,
        panoramas=around.panoramas.roll(COLS // 4, -1),
        offset_m=torch.stack([north, -east], -1),
    )
    first, second = encoder(around), encoder(world)
    for n, (a, b) in enumerate(zip(first.levels, second.levels, strict=True)):
        assert apart(a.roll(16 // 2**n, 3), b) < 1e-4
    assert apart(first.draft.roll(128, 3), second.draft) < 1e-3
    assert apart(first.tokens, second.tokens) < 1e-5


def test_what_is_known_of_a_cell_is_shared_out(encoder):
    around = make(3, has_satellite=torch.tensor([True, False, True]))
    around.valid[1, 0] = False
    told = encoder(around)
    known = told.view_weights.sum(1) + told.satellite_weight
    assert float(told.view_weights.min()) >= 0
    assert float(told.satellite_weight.min()) >= 0
    assert float(known.max()) <= 1 + 1e-6
    assert float(told.view_weights[1, 0].abs().max()) == 0
    assert float(told.local.max()) == pytest.approx(1)
    assert 0 < float(told.overhead.min()) < float(told.overhead.max()) < 1


# --- geometry ------------------------------------------------------------------------------------
@pytest.mark.parametrize("heading", [0.0, 90.0])
@pytest.mark.parametrize(
    ("azimuth", "offset"),
    [(40.0, (8e3, -3e3)), (200.0, (-12e3, 1e3)), (179.0, (0.5e3, 20e3)), (310.0, (1.0, 1.0))],
)
def test_a_landmark_is_found_in_the_targets_own_direction(encoder, azimuth, offset, heading):
    """A spot 18 km from the target, painted where a panorama elsewhere sees it."""
    band, reach, elevation = Band(128, COLS), 18e3, -1.5
    wide = MixedViewEncoder(height=128, width=COLS, dim=16, token_dim=16, vector_dim=16)
    away = math.radians(azimuth)
    east, north = reach * math.sin(away) - offset[0], reach * math.cos(away) - offset[1]
    there = math.hypot(east, north)
    drop = reach * math.tan(math.radians(elevation))
    drop += (reach**2 - there**2) / (2 * EARTH_RADIUS_M)
    column = nearest(band.azimuths_deg(), math.degrees(math.atan2(east, north)))
    row = nearest(band.elevations_deg(), math.degrees(math.atan2(drop, there)))
    panorama = torch.zeros(1, 3, 128, COLS)
    for across in (-1, 0, 1):
        panorama[0, :, row - 1 : row + 2, (column + across) % COLS] = 1.0
    focus, offset_m = torch.zeros(1, 16, 64), torch.tensor([offset])
    shown = wide._found_at(reach, panorama, offset_m, focus, heading)[2][0, 0]
    weight = shown / shown.sum()
    columns = (weight.sum(0) * torch.exp(2j * math.pi * torch.arange(COLS) / COLS)).sum()
    middle = columns.angle().item() / (2 * math.pi) * COLS
    target = (azimuth - heading + 180) / 360 * COLS - 0.5
    assert (middle - target + COLS / 2) % COLS - COLS / 2 == pytest.approx(0, abs=0.75)
    rows = (weight.sum(1) * band.elevations_deg()).sum().item()
    assert rows == pytest.approx(elevation, abs=0.75 * band.row_deg)


def nearest(values, wanted, period=360):
    apart = (values - wanted + period / 2).remainder(period) - period / 2
    return int(apart.abs().argmin())


def test_a_spot_on_the_satellite_image_is_found_below_the_horizon(encoder):
    """9 km south-east of the target, 1.5 km below the eye: 9.5 degrees down."""
    satellite = torch.zeros(1, 3, 256, 256)
    gsd, azimuth, reach = 300.0, 135.0, 9e3
    right, down = (reach * f / gsd for f in (math.sin(math.radians(135)), math.sqrt(0.5)))
    satellite[0, :, round(127.5 + down), round(127.5 + right)] = 1.0
    around = replace(pick(make(), 0), satellite=satellite, lat_deg=torch.zeros(1))
    around = replace(around, gsd_m=torch.full((1,), gsd))
    gate = torch.full((1, 1, 4, 4), 0.5)
    wide = MixedViewEncoder(height=128, width=COLS, dim=16, token_dim=16, vector_dim=16)
    shown = wide._satellite(around, gate, 0.0)[3][0, 0]
    row, column = divmod(int(shown.argmax()), COLS)
    assert Band().azimuths_deg()[column].item() == pytest.approx(azimuth, abs=2.0)
    expected = -math.degrees(math.atan(1500 / reach))
    assert Band().elevations_deg()[row].item() == pytest.approx(expected, abs=1.0)
    assert float(shown[:64].abs().max()) == 0  # nothing lies over the horizon


# --- parts ---------------------------------------------------------------------------------------
def test_slots_are_listed_and_put_back():
    valid = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    slots, values = Slots(valid), torch.arange(9.0).reshape(3, 3, 1)
    assert slots.take(values).flatten().tolist() == [0, 2, 7]
    assert slots.put(slots.take(values), fill=-1.0)[..., 0].tolist() == [
        [0, -1, 2],
        [-1] * 3,
        [-1, 7, -1],
    ]
    assert slots.add_up(slots.take(values)).flatten().tolist() == [2, 0, 7]
    empty = Slots(torch.zeros(2, 3, dtype=torch.bool))
    assert empty.put(empty.take(values[:2]), fill=-1.0).flatten().tolist() == [-1] * 6
    assert empty.add_up(empty.take(values[:2] + 1)).flatten().tolist() == [0, 0]


def test_a_mean_over_no_panoramas_is_zero():
    values, valid = (
        torch.tensor([[[1.0], [5.0]], [[2.0], [3.0]]]),
        torch.tensor([[True, True], [False, False]]),
    )
    assert masked_mean(values, valid).flatten().tolist() == [3, 0]


def test_maps_are_refined_around_the_circle():
    cells = torch.rand(1, 2, 4, 16)
    fine = refined(cells, 8)
    assert fine.shape == (1, 2, 32, 128)
    torch.testing.assert_close(refined(cells.roll(3, 3), 8), fine.roll(24, 3))
    torch.testing.assert_close(fine.unflatten(3, (16, 8)).mean((2, 4)), smoothed(cells))
    assert float(to_one(cells).amax((-2, -1)).min()) == 1


def smoothed(cells):
    """The mean of a refined column: three quarters of its own and an eighth of each neighbour."""
    mean = cells.mean(2) * 0.75 + 0.125 * (cells.mean(2).roll(1, 2) + cells.mean(2).roll(-1, 2))
    return mean


def test_every_layer_learns_and_a_held_draft_does_not(encoder):
    missing = torch.tensor([True, False])
    around = make(has_depth=missing, has_satellite=missing)
    around.valid[0, 2] = False
    learner = MixedViewEncoder.from_config(encoder.config).requires_grad_(True)
    learner.load_state_dict(encoder.state_dict())

    def learn():
        learner.zero_grad()
        told = learner(around)
        loss = told.draft.square().mean() + told.correction.square().mean()
        loss = loss + told.tokens.square().mean() + told.vector.square().mean()
        (loss + sum(level.square().mean() for level in told.levels)).backward()
        return {n for n, p in learner.named_parameters() if p.grad is not None and p.grad.any()}

    silent = {n for n, _ in learner.named_parameters()} - learn()
    assert not silent - {"score.out.bias"}, silent
    learner.hold()
    assert {name.split(".")[0] for name in learn()} == {
        *("to_level", "down", "to_tokens", "overhead_tokens"),
        *("view_vector", "overhead_vector", "null_token", "null_vector"),
    }
