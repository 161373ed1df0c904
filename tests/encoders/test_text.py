"""Sentences as token states."""

import torch
from torch.nn import functional as F

from generation.encoders.text import MAX_TOKENS, STATE_DIM, TextEncoder


def mean_state(encoder, sentence):
    states, words = encoder([sentence])
    return states[0, words[0]].mean(0)


def test_states_are_zero_where_there_is_no_token(text_encoder):
    states, words = text_encoder(["a river", "a snowy alpine valley with a lake", ""])
    assert states.shape == (3, MAX_TOKENS, STATE_DIM)
    assert words.sum(1).tolist() == [4, 9, 2]  # with the two marks around each
    assert (states[~words] == 0).all()
    assert states[words].abs().sum(-1).min() > 0


def test_a_sentence_has_one_encoding_whatever_stands_beside_it():
    alone, together = TextEncoder(), TextEncoder()
    expected, _ = alone(["green hills"])
    found, _ = together(["a desert", "green hills", "a long sentence about a coast with islands"])
    torch.testing.assert_close(found[1:2], expected, atol=1e-5, rtol=1e-4)


def test_what_was_encoded_is_remembered_up_to_a_limit(text_encoder):
    first, _ = text_encoder(["a quiet bay"])
    again, _ = text_encoder(["a quiet bay"])
    assert torch.equal(first, again)
    small = TextEncoder(remembered=2)
    states, _ = small(["one", "two", "three", "one"])
    assert torch.equal(states[0], states[3])
    assert list(small._states) == ["two", "three"]


def test_like_sentences_lie_near_each_other(text_encoder):
    snow, ice, sand = (
        mean_state(text_encoder, s)
        for s in ("snowy mountain peaks", "icy alpine summits", "a hot sandy desert")
    )
    near, far = F.cosine_similarity(snow, ice, dim=0), F.cosine_similarity(snow, sand, dim=0)
    assert near > far


def test_what_is_not_read_is_told(text_encoder, capfd):
    assert text_encoder.cut("a snowy alpine valley") == ""
    assert text_encoder.cut("") == ""
    words = " ".join(["snow"] * (MAX_TOKENS - 2))
    assert text_encoder.cut(words) == ""
    assert text_encoder.cut(f"{words} and sand") == "and sand"
    assert text_encoder.cut("word " * 2000).startswith("word")
    assert capfd.readouterr().err == ""


def test_what_is_not_read_changes_nothing(text_encoder):
    words = " ".join(["snow"] * (MAX_TOKENS - 2))
    states, _ = text_encoder([words, f"{words} and sand"])
    torch.testing.assert_close(states[0], states[1], atol=1e-5, rtol=1e-4)


def test_any_text_can_be_encoded(text_encoder):
    states, words = text_encoder(["🏔️🌊", "東京の海", "\x00", "\n\t"])
    assert states.isfinite().all()
    assert words.any(1).all()
