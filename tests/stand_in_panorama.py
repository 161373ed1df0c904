"""Panoramas that cost nothing: real specs, grids and files, pixels straight from a seed."""

import numpy as np
from PIL import Image
from stand_in import make_layout

from generation.geo.location import Location
from generation.geo.sphere import Band
from generation.media.panorama import PanoramaRender

BAND = Band(32, 128, 45.0, -45.0)


def noise(seed, rows, cols):
    """Smooth noise, which JPEG keeps well."""
    small = np.random.default_rng(seed).integers(0, 256, (rows // 8, cols // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((cols, rows), Image.Resampling.BICUBIC))


def draw_panorama(
    spec, *, on_step=None, cancelled=None, online=False, version="1", model_sha256="ab" * 32
):
    """Noise of the seed; a satellite image unless there is none, over a layout unless there is."""
    image = noise(spec.seed, BAND.height, BAND.width)
    return PanoramaRender(
        image=image,
        spec=spec,
        band=BAND,
        place=Location(spec.lat, spec.lon),
        crops={name: image[:, :32] // (i + 1) for i, name in enumerate(("front", "back"))},
        overlay=255 - image,
        satellite=None if spec.satellite == "none" else noise(spec.seed + 1, 64, 64),
        layout=None if spec.satellite == "none" else make_layout(spec),
        provenance={
            "model": spec.model,
            "model_sha256": model_sha256,
            "versions": {"torch": version},
            "attribution": "© nobody",
            "online": online,
            "seconds": 1.5,
            "notes": (),
        },
    )


def sphere(height=128, seed=0):
    """A whole sphere, twice as wide as high."""
    return noise(seed, height, 2 * height)
