"""BirdSAT: transformers that fill in, what is known besides, finding and matching."""

import math

import numpy as np
import pytest
import torch

from generation.checkpoint import save_part
from generation.encoders.birdsat import CveMae, CvmMae, KnownBesides, as_view, encode_date, resized
from generation.encoders.cross_view import Above, load_cross_view, ranked_again
from generation.encoders.masked_vit import MaskedVit, Masking, grid_positions, patchified
from generation.errors import ConfigError, InvalidSpecError, MissingFileError, WeightsError

NAN = float("nan")
GROUND = {"views": [[16, 32, 8]], "dim": 16, "depth": 1, "heads": 2, "decoder": [8, 1, 2]}
SATELLITE = {"views": [[16, 16, 8]], "dim": 16, "depth": 1, "heads": 2, "decoder": [0, 0, 0]}
BOTH = {"views": [[16, 32, 8], [16, 16, 8]], "dim": 16, "depth": 1, "heads": 2}
BOTH |= {"decoder": [8, 1, 2]}


def pictures(count, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    embed, match = CveMae(GROUND, SATELLITE), CvmMae(BOTH)
    for model in (embed, match):
        for null in model.metadata.null.values():
            torch.nn.init.normal_(null)
    save_part(embed, tmp_path / "embed")
    save_part(match, tmp_path / "match")
    return tmp_path


# --- the transformer -----------------------------------------------------------------------------
def test_positions_tell_rows_and_columns_apart():
    found = grid_positions(2, 3, 8)
    assert found.shape == (6, 8)
    # the second column of the first row: angles 1 and 1/100
    angles = torch.tensor([1.0, 0.01])
    torch.testing.assert_close(found[1, :4], torch.cat([angles.sin(), angles.cos()]))
    torch.testing.assert_close(found[1, 4:], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert len({tuple(row.tolist()) for row in found}) == 6
    with pytest.raises(ConfigError, match="multiple of 4"):
        grid_positions(2, 2, 6)


def test_positions_of_both_views_are_really_set():
    tower = MaskedVit(**BOTH)
    positions = tower.pos_embed[0]
    assert positions.shape == (1 + 8 + 4, 16)
    assert not positions[0].any()  # of the class token
    assert positions[1:].abs().sum(1).min() > 1
    torch.testing.assert_close(positions[9:], grid_positions(2, 2, 16, 2))
    assert len({tuple(row.tolist()) for row in positions}) == 13  # none like another


def test_patches_are_cut_row_by_row_with_colours_last():
    image = torch.arange(3 * 4 * 4).reshape(1, 3, 4, 4).float()
    found = patchified(image, 2)
    assert found.shape == (1, 4, 12)
    assert found[0, 1].tolist() == [2, 18, 34, 3, 19, 35, 6, 22, 38, 7, 23, 39]


def test_masks_show_a_quarter_and_are_drawn_for_each_image():
    torch.manual_seed(0)
    masking = Masking.random(4, 8, 0.75, torch.device("cpu"))
    assert masking.kept.shape == (4, 2)
    assert masking.hidden.sum(1).tolist() == [6, 6, 6, 6]
    assert len({tuple(sorted(row.tolist())) for row in masking.kept}) > 1
    for row, kept in enumerate(masking.kept):
        assert not masking.hidden[row, kept].any()
    with pytest.raises(ConfigError, match="some must be seen"):
        Masking.random(1, 8, 0.95, torch.device("cpu"))


@pytest.mark.parametrize("cell", ["vit", "vitae"])
def test_the_order_of_shown_patches_does_not_matter(cell):
    """A masking that shows everything in another order gives every patch the same token."""
    torch.manual_seed(0)
    tower = MaskedVit(**{**GROUND, "cell": cell}).eval()
    images = [noise(2, 3, 16, 32)]
    plain = tower.encode(images)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1)).expand(2, 8)
    shown = tower.encode(images, Masking(order, 8))
    torch.testing.assert_close(shown[:, 0], plain[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shown[:, 1:], plain[:, 1:][:, order[0]], atol=1e-5, rtol=1e-5)


def test_a_hidden_patch_says_nothing():
    torch.manual_seed(0)
    tower = MaskedVit(**GROUND).eval()
    image = noise(1, 3, 16, 32)
    masking = Masking(torch.tensor([[0, 5]]), 8)
    changed = image.clone()
    changed[..., 8:, :8] += 5  # patch 4
    same, other = (tower.encode([each], masking) for each in (image, changed))
    torch.testing.assert_close(same, other)
    changed[..., 8:, 8:16] += 5  # patch 5
    assert not torch.allclose(tower.encode([changed], masking), same)


def test_filled_in_patches_have_the_sizes_of_their_views():
    tower = MaskedVit(**BOTH)
    masking = Masking.random(2, 12, 0.5, torch.device("cpu"))
    seen = tower.encode([noise(2, 3, 16, 32), noise(2, 3, 16, 16)], masking)
    assert seen.shape == (2, 7, 16)
    assert [tuple(each.shape) for each in tower.decode(seen, masking)] == [
        (2, 8, 192),
        (2, 4, 192),
    ]
    with pytest.raises(ConfigError, match="no decoder"):
        MaskedVit(**SATELLITE).decode(seen, masking)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"views": []}, "no view"),
        ({"views": [[16, 30, 8]]}, "no patches"),
        ({"views": [[16, 32]]}, "no height, width and patch"),
        ({"heads": 3}, "no 3 heads"),
        ({**BOTH, "cell": "vitae"}, "one view"),
        ({"cell": "swin"}, "vit or vitae"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, told):
    with pytest.raises(ConfigError, match=told):
        MaskedVit(**{**GROUND, **changes})


def test_images_of_another_size_are_refused():
    with pytest.raises(InvalidSpecError, match="32x16 px"):
        MaskedVit(**GROUND).encode([noise(1, 3, 16, 16)])


# --- what is known besides -----------------------------------------------------------------------
def test_dates_are_points_on_two_circles():
    found = encode_date(torch.tensor([[12.0, 31.0], [3.0, 15.5]]))
    expected = [[0.0, 1.0, 0.0, 1.0], [1.0, 0.0, math.sin(math.pi), math.cos(math.pi)]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_what_is_not_known_is_the_null_and_each_part_is_dropped_by_itself():
    torch.manual_seed(0)
    known = KnownBesides(8, ("place", "date"), drop=0.5)
    for null in known.null.values():
        torch.nn.init.normal_(null)
    nothing = torch.full((1, 2), NAN)
    place, date = torch.tensor([[45.0, 7.0]]), torch.tensor([[5.0, 9.0]])
    null = known.null["place"] + known.null["date"]
    known.eval()
    torch.testing.assert_close(known(nothing, nothing)[0], null)
    both = known(place, date)
    torch.testing.assert_close(
        both, known(place, nothing) + known(nothing, date) - null, atol=1e-5, rtol=1e-5
    )
    assert torch.equal(known(place, date), both)  # nothing is dropped while it is asked
    known.train()
    told = known(place.expand(400, 2), date.expand(400, 2))
    kinds = torch.unique(told.detach().round(decimals=4), dim=0, return_counts=True)[1]
    assert len(kinds) == 4  # both, either, none: drawn for each sample and each part
    assert kinds.min() > 60
    with pytest.raises(ConfigError, match="place, date"):
        KnownBesides(8, ("hour",), 0.0)


# --- the models ----------------------------------------------------------------------------------
def test_the_same_image_always_has_the_same_vector(folder):
    encoder = load_cross_view(str(folder))
    assert encoder.reads == ("place", "date")
    view, above = pictures(3, 20, 40), pictures(3, 24, 24, seed=1)
    where = Above(above, np.array([[45.0, 7.0], [0.0, 180.0], [-90.0, 0.0]], np.float32))
    one = encoder.ground(view)
    torch.testing.assert_close(one.norm(dim=1), torch.ones(3))
    assert torch.equal(one, encoder.ground(view))
    assert torch.equal(encoder.satellite(where), encoder.satellite(where))
    assert torch.equal(encoder.match(view, where), encoder.match(view, where))
    torch.testing.assert_close(one[1:2], encoder.ground(view[1:2]))
    told = encoder.satellite(where)
    assert not torch.allclose(told, encoder.satellite(Above(above)))
    unknown = Above(above, np.full((3, 2), NAN, np.float32), np.full((3, 2), NAN, np.float32))
    assert torch.equal(encoder.satellite(unknown), encoder.satellite(Above(above)))
    assert encoder.ground(view[:0]).shape == (0, 16)


def test_what_is_found_is_matched_and_ordered_again(folder):
    encoder = load_cross_view(str(folder))
    view, above = pictures(9, 16, 32), Above(pictures(2, 16, 16, seed=1))
    done = []
    order = encoder.found(above, view, first=4, on_query=lambda at, of: done.append((at, of)))
    cosines = encoder.satellite(above) @ encoder.ground(view).T
    for query in range(2):
        rows = order[query]
        first = cosines[query].argsort(descending=True)[:4]
        assert set(rows[:4].tolist()) == set(first.tolist())
        fits = encoder.match(view[rows[:4].numpy()], above[np.full(4, query)])
        assert (fits.diff() <= 0).all()
        assert (cosines[query][rows[4:]].diff() <= 0).all()
    assert done == [(1, 2), (2, 2)]
    plain = encoder.found(above, view, first=0)
    assert torch.equal(plain, cosines.argsort(dim=1, descending=True))


def test_a_gallery_is_ranked_again_by_hand():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.7]])
    found = ranked_again(scores, lambda _, rows: rows.float(), first=3)
    assert found.tolist() == [[3, 2, 1, 0]]
    with pytest.raises(InvalidSpecError, match="first=-1"):
        ranked_again(scores, lambda _, rows: rows.float(), first=-1)


def test_parts_that_are_missing_are_named(folder):
    (folder / "match").rename(folder / "away")
    encoder = load_cross_view(str(folder))
    assert not encoder.matches
    view, above = pictures(2, 16, 32), Above(pictures(2, 16, 16))
    assert encoder.found(above, view).shape == (2, 2)
    with pytest.raises(MissingFileError, match="has no match/"):
        encoder.match(view, above)
    (folder / "embed").rename(folder / "gone")
    with pytest.raises(MissingFileError, match="neither embed/ nor match/"):
        load_cross_view(str(folder))
    (folder / "away").rename(folder / "match")
    assert load_cross_view(str(folder)).reads == ("place", "date")
    with pytest.raises(MissingFileError, match="has no embed/"):
        load_cross_view(str(folder)).ground(view)


def test_parts_that_read_other_things_are_no_model(folder):
    save_part(CvmMae(BOTH, reads=("place",)), folder / "match")
    with pytest.raises(WeightsError, match="same metadata"):
        load_cross_view(str(folder))


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({"latlon": [[91.0, 0.0]]}, "latlon .91.0, 0.0. of image 0"),
        ({"latlon": [[0.0, 181.0]]}, "latitude first"),
        ({"date": [[13.0, 1.0]]}, "month, then day"),
        ({"date": [[1.0, 0.0]]}, "1 to 31"),
    ],
)
def test_places_and_dates_outside_are_refused(folder, known, told):
    values = {name: np.array(each, np.float32) for name, each in known.items()}
    with pytest.raises(InvalidSpecError, match=told):
        load_cross_view(str(folder)).satellite(Above(pictures(1, 16, 16), **values))


def test_pairs_come_in_equal_numbers_and_towers_share_a_space(folder):
    with pytest.raises(InvalidSpecError, match="2 views and 1 satellite"):
        load_cross_view(str(folder)).match(pictures(2, 16, 32), Above(pictures(1, 16, 16)))
    with pytest.raises(ConfigError, match="16 and 8 dimensions"):
        CveMae(GROUND, {**SATELLITE, "dim": 8})
    with pytest.raises(ConfigError, match="1 views cannot be matched"):
        CvmMae(GROUND)
    with pytest.raises(InvalidSpecError, match="compares no views"):
        load_cross_view("ranges-nano")


def test_images_are_brought_to_a_view_and_normalised():
    grey = np.full((1, 30, 50, 3), 124, np.uint8)
    found = as_view(torch.from_numpy(grey), (16, 32))
    assert found.shape == (1, 3, 16, 32)
    expected = (124 / 255 - 0.485) / 0.229
    torch.testing.assert_close(found[0, 0], torch.full((16, 32), expected), atol=1e-5, rtol=1e-5)
    small = resized(pictures(2, 32, 64), (16, 32))
    assert small.shape == (2, 16, 32, 3)
    assert (resized(grey, (16, 32)) == 124).all()
