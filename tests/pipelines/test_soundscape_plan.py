"""What is heard at a place."""

import pytest

from generation.errors import InvalidSpecError
from generation.pipelines.soundscape_plan import split, spread


@pytest.mark.parametrize(
    ("sentence", "sources"),
    [
        ("surf", ["surf"]),
        ("surf and a dog barking", ["surf", "a dog barking"]),
        ("Surf, rain; a dog, and wind.", ["Surf", "rain", "a dog", "wind"]),
        ("waves with birds over the sand", ["waves", "birds", "the sand"]),
        ("sand", ["sand"]),
        ("wind and wind", ["wind"]),
        ("and", ["and"]),
        ("волны и собака", ["волны и собака"]),
    ],
)
def test_a_sentence_is_split_where_sources_join(sentence, sources):
    assert split(sentence) == sources


def test_too_many_sources_are_refused():
    with pytest.raises(InvalidSpecError, match="9 sources, 8 are allowed"):
        split(", ".join("abcdefghi"))


def test_sources_stand_apart_the_first_in_the_middle():
    layers = spread([(name, -1.234) for name in "abcdefgh"])
    pans = [layer.pan for layer in layers]
    assert pans == [0.0, -0.4, 0.4, -0.6, 0.6, -0.8, 0.8, -1.0]
    assert layers[0].level_db == -1.2
