"""The probes behind the choices that the documents report."""

import copy

import numpy as np

from training import probe_codec
from training.evaluate_tiles import read_tiles
from training.metrics import LiteFeatures


def test_every_way_gives_back_tiles_and_the_tiles_themselves_are_perfect(tile_file, tiny_pipeline):
    tiles = read_tiles([tile_file])
    pipeline = copy.copy(tiny_pipeline)
    pipeline.decoder = copy.copy(tiny_pipeline.decoder)
    found = {
        name: back(slice(0, 2)) for name, back in probe_codec.ways(tiles.images, tiles, pipeline)
    }
    assert len(found) == len(probe_codec.CHANNELS) + len(probe_codec.SHARES)
    assert all(images.shape == (2, 256, 256, 3) for images in found.values())
    errors = [
        np.abs(found[f"linear, {n} channels"] - tiles.images[:2].astype(float)).mean()
        for n in probe_codec.CHANNELS
    ]
    assert errors[0] > errors[1] > errors[2]
    perfect = probe_codec.score(tiles.images, tiles, LiteFeatures())
    assert perfect["gradient_energy"] == 1
    assert perfect["psnr_db"] == 60
