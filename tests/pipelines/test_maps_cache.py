import os

import numpy as np
import pytest

from generation.pipelines.maps_cache import CELLS, SEEN, UNSEEN, Block, MapCache


@pytest.fixture
def cache(tmp_path):
    return MapCache(tmp_path / "cache")


def some_block():
    cells = np.arange(CELLS) % 3 == 0
    seen = np.arange(cells.sum()) % 2 == 0
    values = np.random.default_rng(0).random((seen.sum(), 5)).astype(np.float32)
    return Block.empty((5,), np.float32).with_cells(cells, seen, values), cells, seen, values


def test_a_block_keeps_what_was_found(cache):
    block, cells, seen, values = some_block()
    cache.shelf(a=1).save_block("0-0", block)
    again = cache.shelf(a=1).load_block("0-0", (5,), np.float32)
    np.testing.assert_array_equal(again.values[again.seen], values)
    assert not again.missing(cells).any()
    assert again.missing(~cells).sum() == CELLS - cells.sum()
    assert ((again.states == SEEN).sum(), (again.states == UNSEEN).sum()) == (
        *(seen.sum(), (~seen).sum()),
    )
    for other in (
        cache.shelf(a=2).load_block("0-0", (5,), np.float32),
        cache.shelf(a=1).load_block("0-0", (6,), np.float32),
        cache.shelf(a=1).load_block("0-0", (5,), np.float16),
    ):
        assert other.missing(cells).sum() == cells.sum()


def test_no_flipped_bit_gets_through(cache):
    block, *_ = some_block()
    shelf = cache.shelf(a=1)
    shelf.save_block("0-0", block)
    path = shelf.folder / "0-0.npz"
    data, rng = path.read_bytes(), np.random.default_rng(1)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        found = shelf.load_block("0-0", (5,), np.float32)
        if found.seen.any():
            np.testing.assert_array_equal(found.states, block.states)
            np.testing.assert_array_equal(found.values, block.values)


def test_the_oldest_goes_first_when_the_cache_is_full(cache):
    cache.max_bytes = 20_000
    for number in range(4):
        cache.shelf(n=number).save("0-0", {"a": np.zeros(2000, np.float32)})
        path = cache.shelf(n=number).folder / "0-0.npz"
        os.utime(path, (1000 + number, 1000 + number))
    assert cache.shelf(n=0).load("0-0") is not None  # used now
    cache.trim()
    assert [cache.shelf(n=number).load("0-0") is not None for number in range(4)] == [
        *(True, False, False, True)
    ]
