"""Sets of panoramas in the schema of the training data, made up and small."""

import io

import numpy as np

HEIGHT, WIDTH = 32, 128
SATELLITE_PX = 448


def encoded(pixels, kind="PNG"):
    """Encode an image as the columns of Parquet hold it."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return {"bytes": buffer.getvalue(), "path": None}


def make_row(number=0, views=4, size=(HEIGHT, WIDTH)):
    """Give one set: skies over ground whose colour tells the azimuth, 3 km apart."""
    rng = np.random.default_rng(number)
    lat, lon = 45.0 + number, 7.0
    height, width = size
    seen = []
    for view in range(views):
        image = np.full((height, width, 3), (120, 170, 230))
        image[height // 2 :] = rng.integers(40, 200, (1, width // 8, 3)).repeat(8, 1)
        image = (image + rng.normal(0, 8, image.shape)).clip(0, 255)
        depth = np.zeros((height, width), np.uint8)
        depth[height // 2 :] = np.linspace(255, 60, height // 2)[:, None]
        place = {"lat": lat + 0.027 * view, "lon": lon, "heading_deg": 0.0, "altitude_m": 1500.0}
        pictures = {"image": encoded(image.astype(np.uint8)), "depth": encoded(depth)}
        seen.append(place | pictures)
    satellite = rng.integers(0, 255, (56, 56, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return {
        "set_id": f"train-{number}", "lat": lat, "lon": lon,
        "satellite": encoded(satellite), "views": seen,
    }  # fmt: skip


def write_sets(path, count=2, size=(HEIGHT, WIDTH), **changes):
    """Write a Parquet file of sets; ``changes`` are made to the last one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [make_row(number, size=size) for number in range(count)]
    rows[-1] |= changes
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
