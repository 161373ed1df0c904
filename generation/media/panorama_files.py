"""The files that a panorama becomes: JPEGs for viewers, and pictures of what it was made from."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from generation.media.gpano import jpeg_bytes
from generation.media.image import decode_rgb, png_bytes
from generation.media.panorama import PanoramaRender, panorama_jpeg

PANORAMA = ".jpg"
OVERLAY, SATELLITE = ".overlay.png", ".satellite.png"


def panorama_files(render: PanoramaRender, record: str) -> dict[str, bytes]:
    """Give the bytes of a panorama's files by ending, the record inside the panorama itself."""
    about = {"Software": "Terrascape", "Synthetic": "true"}
    files = {
        PANORAMA: panorama_jpeg(
            render.image,
            render.band,
            heading_deg=render.spec.heading,
            place=render.place,
            texts={**about, "RunSpec": render.spec.to_json(), "Terrascape": record},
        )
    }
    files |= {f".{name}.jpg": jpeg_bytes(crop) for name, crop in render.crops.items()}
    told = "which view and which part of the satellite image was used where"
    files[OVERLAY] = png_bytes(render.overlay, {**about, "Description": told})
    if render.satellite is not None:
        told = "the satellite image that the panorama was drawn from"
        credit = str(render.provenance.get("attribution") or "")
        texts = {"Software": "Terrascape", "Description": told}
        files[SATELLITE] = png_bytes(
            render.satellite, texts | ({"Copyright": credit} if credit else {})
        )
    return files


def panorama_endings(record: Mapping[str, object]) -> list[str]:
    """Give the endings of all files that a record tells of, its layout excepted."""
    crops = record.get("crops")
    names = [str(name) for name in crops] if isinstance(crops, list) else []
    satellite = [SATELLITE] if record.get("satellite") is not None else []
    return [PANORAMA, *(f".{name}.jpg" for name in names), OVERLAY, *satellite]


def about_sphere(render: PanoramaRender) -> dict[str, object]:
    """Tell which part of the sphere is shown, and what lies beside the panorama."""
    return {
        "projection": "equirectangular",
        "elevations_deg": [render.band.top_deg, render.band.bottom_deg],
        "heading_deg": render.spec.heading,
        "crops": list(render.crops),
    }


def as_jpeg(rgb: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """Give what a file shows of a picture, after the losses of JPEG."""
    return decode_rgb(jpeg_bytes(rgb), "the panorama")
