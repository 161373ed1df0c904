"""What the panorama tab's fields hold, and a panorama to drop."""

from tiny_panorama import panorama_pixels

from generation.geo.location import Location
from generation.geo.sphere import Band
from generation.media.panorama import panorama_jpeg
from generation.studio.panorama_form import PanoramaForm

PLACE = Location(45.98, 7.66)
FULL = Band(128, 256, 90.0, -90.0)


def form(**changes):
    given = {"lat": PLACE.lat, "lon": PLACE.lon, "heading": 90, "choice": "none", "image": None}
    given |= {"prompt": "", "far": False, "seed": "7", "steps": 3, "model": "panorama-nano"}
    given |= {"satellite_guidance": 1.0, "views_guidance": 1.0, "given": [], "rows": "[]"}
    return PanoramaForm(**{**given, **changes})


def row(view, **changes):
    return {"key": view.key, "lat": view.lat, "lon": view.lon, "heading": view.heading} | changes


def write_ridge(path):
    """Save a panorama whose file tells its place and heading."""
    place = Location(46.0, 7.7)
    path.write_bytes(panorama_jpeg(panorama_pixels(1), FULL, heading_deg=120.0, place=place))
    return path
