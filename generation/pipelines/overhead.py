"""The satellite image that a panorama or a soundscape is given: a file's, or one drawn for it.

The model of panoramas was trained on images of 256 px at zoom 8 whose middle is the place itself,
so whatever there is gets cut around it, between pixels if need be.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from generation.errors import InvalidSpecError
from generation.geo.imagery import FileImagery, cut_square
from generation.geo.layout import Layout
from generation.geo.location import Location
from generation.geo.mercator import Window, gsd_m, to_px, world_px
from generation.pipelines.panorama import OnStep
from generation.spec import DEFAULT_MODELS, SATELLITE_WORDS, RunSpec
from generation.spec_checks import HAVE_IT

SIDE_PX = 256
"""Side of the image that a model of panoramas is given."""
ZOOM = 8
"""Its web-mercator zoom level, about 0.6 km a pixel at the equator."""
DRAWN_PX = 320
"""Side of an image that is drawn: room for cutting around any place in its middle."""
PAINTER = DEFAULT_MODELS["satellite"]
"""What draws it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overhead:
    """What lies below, seen from above, and what is known of it."""

    rgb: UInt8[np.ndarray, "side side 3"] | None = None
    """North up, the place in the middle; ``None`` where there is none."""
    about: dict[str, object]
    """Its source, for the record."""
    layout: Layout | None = None
    """What a drawn one follows."""
    attribution: str = ""
    notes: tuple[str, ...] = ()


def is_drawn(spec: RunSpec) -> bool:
    """Tell whether a spec asks for a satellite image that is drawn for it."""
    if spec.satellite != "auto":
        return spec.satellite == "generated"
    try:
        Window.around(Location(spec.lat, spec.lon), ZOOM, DRAWN_PX)
    except InvalidSpecError:
        return False
    return True


def overhead_of(
    spec: RunSpec,
    *,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
    online: bool = False,
) -> Overhead:
    """Give the satellite image that the spec of a panorama or a soundscape asks for.

    Args:
        spec: What is drawn.
        on_step: Told ``(step, steps, preview)`` of drawing one.
        cancelled: Asked before each step of drawing one.
        online: Whether its layout may come from the network.

    Raises:
        InvalidSpecError: A file is no imagery or does not reach all around the place; or one is to
            be generated where there is no map.
        MissingFileError: A file is not there.
    """
    place = Location(spec.lat, spec.lon)
    if spec.satellite not in SATELLITE_WORDS:
        return _from_file(Path(spec.satellite), place)
    if is_drawn(spec):
        return _drawn(spec, place, on_step, cancelled, online)
    note = f"no satellite image: around latitude {place.lat:g} the map of the world ends"
    notes = (note,) if spec.satellite == "auto" else ()
    return Overhead(about={"source": "none"}, notes=notes)


def reach_km(lat: float) -> float:
    """Give how far the image reaches to each side of a place, kilometres."""
    return SIDE_PX / 2 * gsd_m(lat, ZOOM) / 1000


def satellite_spec(spec: RunSpec, place: Location, size_px: int = DRAWN_PX) -> RunSpec:
    """Describe the satellite image that is drawn for another kind's spec around a place.

    The sound of a panorama is one of its place, that of a soundscape is what is made.
    """
    plain = RunSpec(lat=spec.lat, lon=spec.lon)
    sound = ("sound", "sound_sha256", "sound_text") if spec.kind == "soundscape" else ()
    reset = {name: getattr(plain, name) for name in (*HAVE_IT, *sound)}
    drawn = {"kind": "satellite", "model": PAINTER, "size": size_px, "zoom": ZOOM}
    return replace(spec, **reset, **drawn, lat=place.lat, lon=place.lon)  # type: ignore[arg-type]


def cut_around(
    rgb: UInt8[np.ndarray, "height width 3"], window: Window, place: Location
) -> UInt8[np.ndarray, "side side 3"]:
    """Cut what a model of panoramas is given out of a larger image.

    Raises:
        InvalidSpecError: It does not reach as far.
    """
    x, y = to_px(place, window.zoom)
    right = (x - window.col_px) % world_px(window.zoom)
    return cut_square(rgb, right, y - window.row_px, SIDE_PX)


def _from_file(path: Path, place: Location) -> Overhead:
    imagery = FileImagery([path])
    window = Window.around(place, ZOOM, SIDE_PX + 2, multiple_px=1)
    patch = imagery.read(window)
    if not patch.seen.all():
        raise InvalidSpecError(
            f"imagery {path.name} covers {patch.seen.mean():.0%} of the square that reaches "
            f"{reach_km(place.lat):.0f} km to each side of the place (it lies at {imagery.extent}; "
            "give a larger one, or --satellite generated)"
        )
    origin = "a synthetic image" if imagery.synthetic else "an image"
    return Overhead(
        rgb=cut_around(patch.rgb, window, place),
        about={"source": path.name, "synthetic": imagery.synthetic, "gsd_m": _gsd(place)},
        attribution=imagery.attribution,
        notes=(f"the satellite image is {origin} out of {path.name}",),
    )


def _drawn(
    spec: RunSpec,
    place: Location,
    on_step: OnStep | None,
    cancelled: Callable[[], bool] | None,
    online: bool,
) -> Overhead:
    from generation.pipelines.satellite import render

    drawing = satellite_spec(spec, place)
    drawn = render(drawing, on_step=on_step, cancelled=cancelled, online=online)
    about = {
        "source": f"generated by {PAINTER}",
        "synthetic": True,
        "gsd_m": _gsd(place),
        "model_sha256": drawn.provenance["model_sha256"],
    }
    told = drawn.provenance["notes"]
    return Overhead(
        rgb=cut_around(drawn.image, drawn.window, place),
        about=about,
        layout=drawn.layout,
        attribution=str(drawn.provenance["attribution"]),
        notes=(
            f"the satellite image is generated by {PAINTER} (synthetic)",
            *(told if isinstance(told, list) else ()),
        ),
    )


def _gsd(place: Location) -> float:
    return round(gsd_m(place.lat, ZOOM), 3)
