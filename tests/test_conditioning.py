"""What a denoiser is told, for any subset of inputs."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.nn import functional as F

from generation.conditioning import Given, SatelliteConditioner
from generation.geo.layout import PALETTE

INPUTS = ("text", "location", "layout")
PARTS = ("tokens", "mask", "vector", "hint")


@pytest.fixture
def conditioner():
    torch.manual_seed(0)
    return SatelliteConditioner(
        state_dim=384, token_dim=8, vector_dim=12, location_degree=4, location_dim=10, patch=4
    )


def given(count=2, **has):
    generator = torch.Generator().manual_seed(1)
    words = torch.arange(6) < torch.tensor([[6], [3]])[:count]
    flags = {f"has_{name}": torch.full((count,), has.get(name, True)) for name in INPUTS}
    return Given(
        states=torch.randn(count, 6, 384, generator=generator) * words[..., None],
        words=words,
        latlon=torch.tensor([[45.98, 7.66], [-12.0, 130.0]])[:count],
        gsd_m=torch.tensor([425.0, 598.0])[:count],
        classes=torch.randint(0, len(PALETTE), (count, 16, 16), generator=generator).byte(),
        **flags,
    )


@pytest.mark.parametrize("has", list(product([True, False], repeat=3)))
def test_any_subset_of_inputs_gives_a_condition_of_the_same_shape(conditioner, has):
    condition = conditioner(given(**dict(zip(INPUTS, has, strict=True))))
    assert condition.tokens.shape == (2, 8, 8)  # two tokens of the place, six of the text
    assert condition.mask.shape == (2, 8)
    assert condition.vector.shape == (2, 12)
    assert condition.hint.shape == (2, 48, 4, 4)
    assert all(getattr(condition, part).isfinite().all() for part in ("tokens", "vector", "hint"))


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_absent_has_no_influence(conditioner, name):
    inputs = given(**{name: False})
    other = replace(
        inputs,
        **{
            "text": {"states": torch.randn(2, 6, 384), "words": torch.ones(2, 6).bool()},
            "location": {"latlon": torch.tensor([[0.0, 0.0], [80.0, 1.0]])},
            "layout": {"classes": torch.zeros(2, 16, 16).byte()},
        }[name],
    )
    first, second = conditioner(inputs), conditioner(other)
    for part in PARTS:
        assert torch.equal(getattr(first, part), getattr(second, part))


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_given_has_influence(conditioner, name):
    with_it, without = conditioner(given()), conditioner(given(**{name: False}))
    parts = ("hint",) if name == "layout" else ("tokens", "vector")
    for part in parts:
        assert not torch.allclose(getattr(with_it, part), getattr(without, part))


def test_missing_is_not_the_same_as_zero(conditioner):
    inputs = given()
    zeros = {
        "text": {"states": torch.zeros(2, 6, 384)},
        "location": {"latlon": torch.zeros(2, 2)},
        "layout": {"classes": torch.zeros(2, 16, 16).byte()},
    }
    for name, values in zeros.items():
        zero, missing = conditioner(replace(inputs, **values)), conditioner(given(**{name: False}))
        part = "hint" if name == "layout" else "tokens"
        assert not torch.allclose(getattr(zero, part), getattr(missing, part))


def test_the_nulls_are_learned_where_an_input_is_missing(conditioner):
    nulls = {
        "text": (conditioner.text.null_token, conditioner.text.null_vector),
        "location": (conditioner.location.null_tokens, conditioner.location.null_vector),
        "layout": (conditioner.layout.null_hint,),
    }
    for name, parameters in nulls.items():
        for present in (False, True):
            conditioner.zero_grad()
            condition = conditioner(given(**{name: present}))
            sum(p.square().sum() for p in (condition.tokens, condition.hint)).backward(
                retain_graph=True
            )
            condition.vector.sum().backward()
            assert all((p.grad.abs().sum() > 0) != present for p in parameters)


def test_the_mask_shows_the_words_or_one_null_token(conditioner):
    assert conditioner(given()).mask.tolist() == [
        [True] * 8,
        [True] * 5 + [False] * 3,
    ]
    assert conditioner(given(text=False)).mask.tolist() == [[True] * 3 + [False] * 5] * 2


def test_samples_do_not_see_each_other(conditioner):
    mixed = replace(
        given(), has_text=torch.tensor([True, False]), has_layout=torch.tensor([False, True])
    )
    both = conditioner(mixed)
    for index, has in enumerate([{"layout": False}, {"text": False}]):
        alone = conditioner(given(**has))
        for part in PARTS:
            torch.testing.assert_close(getattr(both, part)[index], getattr(alone, part)[index])


def test_hints_are_the_colours_of_the_palette(conditioner):
    inputs = given()
    colours = F.pixel_shuffle(conditioner(inputs).hint, 4).permute(0, 2, 3, 1) * 255
    expected = torch.from_numpy(PALETTE).float()[inputs.classes.long()]
    torch.testing.assert_close(colours, expected)


def test_the_scale_of_the_picture_is_heard(conditioner):
    inputs = given()
    finer = conditioner(replace(inputs, gsd_m=inputs.gsd_m / 2)).vector
    assert not torch.allclose(finer, conditioner(inputs).vector)
    wide = replace(inputs, gsd_m=torch.tensor([0.05, 156543.0]))
    assert conditioner(wide).vector.isfinite().all()


def test_a_saved_conditioner_says_the_same(conditioner, tmp_path):
    conditioner.save_pretrained(tmp_path)
    loaded, inputs = SatelliteConditioner.from_pretrained(tmp_path), given()
    for part in PARTS:
        torch.testing.assert_close(
            getattr(loaded(inputs), part), getattr(conditioner(inputs), part)
        )
