"""The shared space in its three published settings, at tiny sizes."""

import math

import pytest
import torch

from generation.checkpoint import load_part, save_part
from generation.encoders.heads import likeness
from generation.encoders.metadata import Metadata
from generation.encoders.sound_space import SoundSpace
from generation.errors import ConfigError

SETTINGS = {
    "geoclap": {"kind": "pooled", "joined": "none"},
    "psm": {"kind": "gaussian", "joined": "late"},
    "sat2sound": {"kind": "codebook", "joined": "early"},
}
SIZES = {
    "dim": 12,
    "width": 16,
    "towers": {
        "image": {"image_px": 16, "patch": 8, "dim": 8, "depth": 1, "heads": 2},
        "audio": {"dim": 8, "depth": 1, "heads": 2, "bands": 32, "frames": 48},
        "text": {"dim": 6},
    },
    "metadata": {"vocabularies": {"source": ["field", "archive"]}, "layers": 1, "heads": 2},
    "codebook": {"codes": 10},
}


def space(name, drop=0.5, compat="right"):
    torch.manual_seed(0)
    metadata = {**SIZES["metadata"], "drop": drop}
    return SoundSpace(**{**SIZES, **SETTINGS[name], "metadata": metadata}, compat=compat).eval()


def some(count=3):
    torch.manual_seed(1)
    images, gsd = torch.randn(count, 3, 16, 16), torch.full((count,), 600.0)
    mels, states = torch.randn(count, 32, 48), torch.randn(count, 4, 6)
    return images, gsd, mels, states, torch.ones(count, 4, dtype=torch.bool)


def at(count, hour, month=5.0):
    return Metadata(
        latlon=torch.tensor([[46.0, 7.0]]).repeat(count, 1),
        month=torch.full((count,), month),
        hour=torch.full((count,), hour),
        labels={"source": torch.full((count,), -1)},
    )


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_all_modalities_lie_in_one_space(name):
    ours = space(name)
    images, gsd, mels, states, words = some()
    every = [ours.embed_image(images, gsd), ours.embed_audio(mels), ours.embed_text(states, words)]
    for one in every:
        assert one.vector.shape == (3, 12)
        assert one.vector.isfinite().all()
        assert (one.log_variance is not None) == (name == "psm")
        assert (one.weights is not None) == (name == "sat2sound")
        for other in every:
            assert likeness(one, other).shape == (3, 3)


@pytest.mark.parametrize("name", ["psm", "sat2sound"])
@torch.no_grad()
def test_another_hour_is_another_embedding_and_costs_no_other_look(name):
    ours = space(name)
    images, gsd, *_ = some()
    tokens = ours.image(images, gsd)
    dawn, dusk = (ours.head_image(tokens, at(3, hour)).vector for hour in (6.0, 18.0))
    assert (dawn - dusk).abs().max() > 1e-4
    torch.testing.assert_close(ours.embed_image(images, gsd, at(3, 6.0)).vector, dawn)


@pytest.mark.parametrize("name", ["psm", "sat2sound"])
@torch.no_grad()
def test_what_is_not_known_changes_nothing(name):
    ours = space(name)
    images, gsd, *_ = some()
    none = ours.embed_image(images, gsd).vector
    unknown = ours.embed_image(images, gsd, Metadata.unknown(3, ["source"])).vector
    torch.testing.assert_close(none, unknown)
    known = ours.embed_image(images, gsd, at(3, math.nan, month=math.nan)).vector
    assert (none - known).abs().max() > 1e-4  # the place is known


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_an_embedding_does_not_depend_on_its_batch_or_on_when_it_is_asked_for(name):
    ours = space(name)
    images, gsd, mels, states, words = some()
    known = None if name == "geoclap" else at(3, 6.0)
    whole = ours.embed_image(images, gsd, known).vector
    torch.testing.assert_close(ours.embed_image(images, gsd, known).vector, whole)
    one = None if known is None else at(1, 6.0)
    torch.testing.assert_close(ours.embed_image(images[:1], gsd[:1], one).vector[0], whole[0])
    torch.testing.assert_close(
        ours.embed_audio(mels[1:2]).vector[0], ours.embed_audio(mels).vector[1]
    )
    filled = torch.cat([states, torch.randn(3, 5, 6)], 1)
    more = torch.cat([words, torch.zeros(3, 5, dtype=torch.bool)], 1)
    torch.testing.assert_close(
        ours.embed_text(filled, more).vector, ours.embed_text(states, words).vector
    )


@torch.no_grad()
def test_as_published_metadata_is_dropped_while_evaluating():
    theirs = space("psm", compat="mvrl")
    images, gsd, *_ = some(4)
    same = images[:1].repeat(4, 1, 1, 1)
    vectors = [theirs.embed_image(same, gsd, at(4, 6.0)).vector for _ in range(6)]
    assert any(not torch.equal(vectors[0], other) for other in vectors[1:])


@torch.no_grad()
def test_as_published_the_codebook_sees_what_comes_out_where_nothing_was_known():
    ours, theirs = (space("sat2sound", compat=c, drop=0.0) for c in ("right", "mvrl"))
    shared = theirs.state_dict()
    fits = {n: v for n, v in ours.state_dict().items() if v.shape == shared[n].shape}
    theirs.load_state_dict({**shared, **fits})
    images, gsd, *_ = some()
    for each in (ours, theirs):
        each.head.temperature = 100.0  # so that every code has a share
    found = [
        s.embed_image(images, gsd, Metadata.unknown(3, ["source"])).weights for s in (ours, theirs)
    ]
    assert (found[0] - found[1]).abs().max() > 1e-6


def test_metadata_where_none_was_learnt_is_refused():
    images, gsd, *_ = some()
    with pytest.raises(ConfigError, match="knows no metadata"):
        space("geoclap").embed_image(images, gsd, at(3, 6.0))


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_a_space_is_saved_and_loaded(name, tmp_path):
    ours = space(name)
    save_part(ours, tmp_path / "space")
    again = load_part(SoundSpace, tmp_path / "space").eval()
    images, gsd, mels, *_ = some()
    torch.testing.assert_close(again.embed_audio(mels).vector, ours.embed_audio(mels).vector)
    torch.testing.assert_close(
        again.embed_image(images, gsd).vector, ours.embed_image(images, gsd).vector
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_every_parameter_learns(name):
    ours = space(name).train()
    images, gsd, mels, states, words = some()
    known = None if name == "geoclap" else at(3, 6.0)
    if name != "geoclap":
        ours.metadata_encoder.drop = 0.0
        known.labels["source"].fill_(1)
    every = [
        ours.embed_image(images, gsd, known),
        ours.embed_audio(mels),
        ours.embed_text(states, words),
    ]
    loss = sum((e.vector * torch.randn_like(e.vector)).sum() for e in every)
    loss = loss + sum(e.log_variance.sum() for e in every if e.log_variance is not None)
    loss.backward()
    still = [n for n, p in ours.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not still
