"""Metadata tokens: circles by hand, what is unknown, and what is dropped when."""

import math

import pytest
import torch

from generation.encoders.metadata import (
    Metadata,
    MetadataEncoder,
    checked_hour,
    checked_month,
    encode_hour,
    encode_month,
    encode_place,
    parsed_date,
)
from generation.errors import ConfigError, InvalidSpecError

VOCABULARIES = {"source": ("field", "station", "archive")}


def batch(count, **changes):
    known = {
        "latlon": torch.tensor([[46.0, 7.0]]).repeat(count, 1),
        "month": torch.full((count,), 5.0),
        "hour": torch.full((count,), 6.0),
        "labels": {"source": torch.full((count,), 1)},
    }
    return Metadata(**{**known, **changes})


def encoder(**options):
    torch.manual_seed(0)
    return MetadataEncoder(8, VOCABULARIES, **options)


def test_the_sphere_by_hand():
    latlon = torch.tensor([[0.0, 0.0], [0.0, 90.0], [90.0, 12.0], [-90.0, 12.0], [30.0, 180.0]])
    half = math.sqrt(3) / 2
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [-half, 0, 0.5]]
    torch.testing.assert_close(
        encode_place(latlon), torch.tensor(expected).float(), atol=1e-6, rtol=0
    )


def test_as_published_both_poles_are_one_place():
    poles = torch.tensor([[90.0, 12.0], [-90.0, 12.0]])
    theirs, ours = encode_place(poles, "mvrl"), encode_place(poles)
    torch.testing.assert_close(theirs[0], theirs[1], atol=1e-6, rtol=0)
    assert (ours[0] - ours[1]).norm() > 1
    where = torch.tensor([[22.5, -90.0]])  # a quarter turn and a half turn back
    root = math.sqrt(0.5)
    torch.testing.assert_close(encode_place(where, "mvrl"), torch.tensor([[root, root, -1, 0]]))


def test_the_day_has_24_hours_and_as_published_23():
    hours = torch.tensor([0.0, 6.0, 23.0])
    ours, theirs = encode_hour(hours), encode_hour(hours, "mvrl")
    torch.testing.assert_close(ours[:2], torch.tensor([[0.0, 1.0], [1.0, 0.0]]), atol=1e-6, rtol=0)
    assert (ours[2] - ours[0]).norm() == pytest.approx(2 * math.sin(math.pi / 24), abs=1e-6)
    torch.testing.assert_close(theirs[2], theirs[0], atol=1e-6, rtol=0)


def test_the_year_closes():
    months = encode_month(torch.tensor([3.0, 12.0]))
    torch.testing.assert_close(months, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), atol=1e-6, rtol=0)


def test_each_known_part_is_a_token_of_its_own():
    ours = encoder().eval()
    assert ours.parts == ("source", "place", "month", "hour")
    tokens, mask = ours(batch(2))
    assert tokens.shape == (2, 4, 8)
    assert mask.all()
    changes = {
        "source": {"labels": {"source": torch.zeros(2, dtype=torch.long)}},
        "place": {"latlon": torch.zeros(2, 2)},
        "month": {"month": torch.full((2,), 11.0)},
        "hour": {"hour": torch.full((2,), 18.0)},
    }
    for part, change in changes.items():
        moved = (ours(batch(2, **change))[0] != tokens).any(2).any(0)
        assert [n for n, m in zip(ours.parts, moved.tolist(), strict=True) if m] == [part]


def test_what_was_never_learnt_is_passed_over():
    ours = encoder(reads=("hour", "place")).eval()
    assert ours.parts == ("source", "place", "hour")
    assert not any("month" in name for name in ours.state_dict())
    tokens, mask = ours(batch(2))
    other, _ = ours(batch(2, month=torch.full((2,), 11.0)))
    assert tokens.shape == (2, 3, 8)
    assert mask.all()
    assert torch.equal(tokens, other)
    with pytest.raises(ConfigError, match="reads='weather'"):
        encoder(reads=("hour", "weather"))


def test_what_is_not_known_is_masked_and_finite():
    tokens, mask = encoder().eval()(Metadata.unknown(3, ["source"]))
    assert not mask.any()
    assert tokens.isfinite().all()


def test_parts_are_dropped_while_learning_only():
    ours = encoder(drop=0.5)
    rate = torch.stack([ours.train()(batch(1000))[1].float().mean(0) for _ in range(3)])
    assert ((rate - 0.5).abs() < 0.06).all()
    assert (rate[0] != rate[1]).any()  # sample by sample, not a fixed number of them
    assert ours.eval()(batch(1000))[1].all()
    assert encoder(drop=0.0).train()(batch(9))[1].all()


def test_as_published_a_fixed_number_is_dropped_also_while_evaluating():
    theirs = encoder(drop=0.5, compat="mvrl").eval()
    hour = torch.full((9,), 6.0)
    hour[:2] = math.nan  # are counted among the four
    _, mask = theirs(batch(9, hour=hour))
    assert (~mask).sum(0).tolist() == [4, 4, 4, 4]
    hour[:7] = math.nan
    assert (~theirs(batch(9, hour=hour))[1]).sum(0).tolist() == [4, 4, 4, 7]


def test_a_word_is_found_or_refused():
    assert encoder().row("source", "station") == 1
    with pytest.raises(InvalidSpecError, match=r"source=.moon. was never learnt .*field, station"):
        encoder().row("source", "moon")


def test_dates_that_do_not_exist_are_refused():
    assert checked_month(12) == 12
    assert checked_hour(23.5) == 23.5
    assert parsed_date("2024-02-29").day == 29
    for wrong in (0, 13):
        with pytest.raises(InvalidSpecError, match=f"month={wrong} .*1 for January"):
            checked_month(wrong)
    for wrong in (-1.0, 24.0, 25.0, math.nan):
        with pytest.raises(InvalidSpecError, match=f"hour={wrong} .*0 to 23.99"):
            checked_hour(wrong)
    for wrong in ("2023-02-30", "30 Feb", "", "2024-13-01"):
        with pytest.raises(InvalidSpecError, match="no day of the calendar"):
            parsed_date(wrong)
