"""The files that a satellite image becomes: PNG, GeoTIFF, and the map that it followed."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from generation.geo.layout import Layout
from generation.geo.mercator import Window
from generation.media.geotiff import geotiff_bytes
from generation.media.gpano import SYNTHETIC
from generation.media.image import png_bytes
from generation.spec import RunSpec

PICTURES = (".png", ".tif")
"""The endings of the files that hold the picture, in the order in which they are told."""
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    f"<rdf:Description {SYNTHETIC}/></rdf:RDF></x:xmpmeta>"
)


@runtime_checkable
class OnMap(Protocol):
    """A picture that lies on a map."""

    @property
    def image(self) -> UInt8[np.ndarray, "height width 3"]:
        """The picture."""

    @property
    def spec(self) -> RunSpec:
        """What was asked for."""

    @property
    def window(self) -> Window:
        """Where it lies."""


def satellite_files(render: OnMap, record: str) -> dict[str, bytes]:
    """Give the bytes of the picture's files by ending, the record inside."""
    spec = render.spec.to_json()
    return {
        ".png": png_bytes(
            render.image,
            {
                "Software": "Terrascape",
                "Synthetic": "true",
                "RunSpec": spec,
                "Terrascape": record,
                "XML:com.adobe.xmp": _XMP,
            },
        ),
        ".tif": geotiff_bytes(
            render.image,
            render.window,
            {
                "TIFFTAG_SOFTWARE": "Terrascape",
                "SYNTHETIC": "true",
                "RUNSPEC": spec,
                "TERRASCAPE": record,
            },
        ),
    }


def layout_png(layout: Layout) -> bytes:
    """Encode the map that a picture followed, with the credit that its data ask for."""
    about = {"Software": "Terrascape", "Description": "layout: a map, drawn from data"}
    credit = {"Source": layout.source, "Copyright": layout.attribution}
    return png_bytes(layout.rgb(), about | {key: value for key, value in credit.items() if value})


def about_map(render: OnMap) -> dict[str, object]:
    """Tell where the picture lies."""
    return {"crs": "EPSG:3857", "transform": list(render.window.transform)}
