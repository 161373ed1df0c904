"""Panoramas: from a RunSpec to a finished picture with its crops and where it was found."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from generation.diffusion.codec import to_signal
from generation.diffusion.guidance import GuidanceScales
from generation.diffusion.surroundings import Surroundings
from generation.errors import InvalidSpecError, shown
from generation.geo.location import Location, great_circle_km
from generation.geo.mercator import gsd_m, to_px
from generation.geo.sphere import Band, bearing_deg, offset_m, perspective, turn
from generation.media.panorama import PanoramaRender, open_panorama, placed_view, to_band
from generation.pipelines.overhead import SIDE_PX, ZOOM, Overhead, overhead_of
from generation.pipelines.overlay import SeenView, Sources, overlay
from generation.pipelines.panorama import OnStep, PanoramaPipeline
from generation.pipelines.whole import made_by, stamped
from generation.registry import find, list_models
from generation.spec import RunSpec
from generation.view_spec import FAR_KM, ViewSpec

MAX_VIEWS = 3
"""Panoramas that the model looks at."""
TRAINED_KM = 30.0
"""How far away they stood while it learnt."""
CROPS = {"front": 0.0, "right": 90.0, "back": 180.0, "left": 270.0}
"""Pictures without distortion that are cut out, and how far right of the heading they look."""
CROP_PX, CROP_DEG = 256, 90.0
LABEL = "learnt from panoramas rendered from terrain, seen from 1,500 m over the ground"
_GREY = 128
_HERE_KM = 0.005
_SAME_KM = 0.001


@dataclass(frozen=True, slots=True, eq=False)
class OpenView:
    """A panorama that is looked at, on the model's grid, its middle looking north."""

    spec: ViewSpec
    place: Location
    km: float
    pixels: UInt8[np.ndarray, "height width 3"]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file, for people."""
        return Path(self.spec.file).name


@lru_cache(maxsize=1)
def _pipeline(folder: Path, stamp: tuple[float, ...]) -> PanoramaPipeline:
    return PanoramaPipeline.from_pretrained(folder)


def load_panorama(name: str) -> PanoramaPipeline:
    """Give a registered pipeline of panoramas, loaded once as long as its files do not change."""
    return _pipeline(*stamped(name))


def open_pipeline(name: str, *, online: bool = False) -> Any:  # noqa: ANN401 - by the card's family
    """Give a registered pipeline of panoramas of any family.

    Args:
        name: A registered name.
        online: Whether weights may be fetched from the Hub.

    Raises:
        InvalidSpecError: It draws something else.
    """
    card = find(name)
    if card.kind != "panorama":
        raise InvalidSpecError(
            f"model={name!r} is of kind {card.kind!r} and draws no panoramas (models that do: "
            f"{', '.join(list_models('panorama'))})"
        )
    if card.family == "mixed-view":
        from generation.pipelines.panorama_sd import load_mixed_view

        return load_mixed_view(card.name, online=online)
    return load_panorama(name)


def render(
    spec: RunSpec,
    *,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
    online: bool = False,
) -> PanoramaRender:
    """Make the panorama that a spec describes.

    Args:
        spec: What to draw.
        on_step: Told ``(step, steps, preview)``.
        cancelled: Asked before each step.
        online: Whether the layout of a generated satellite image may be fetched from
            OpenStreetMap, and weights from the Hub.

    Raises:
        TerrascapeError: Whatever the person can mend.
    """
    if spec.kind != "panorama":
        raise InvalidSpecError(f"kind={shown(spec.kind)} is no panorama (give kind='panorama')")
    pipeline = open_pipeline(spec.model, online=online)
    band, place = pipeline.views.band, Location(spec.lat, spec.lon)
    views, notes = open_views(spec, band)
    began = time.perf_counter()
    ground = overhead_of(spec, cancelled=cancelled, online=online)
    notes += [*ground.notes, *_unused(spec, views, ground)]
    drawn = pipeline(
        _surroundings(spec, views, ground, band),
        seeds=[spec.seed],
        num_inference_steps=spec.steps,
        guidance=GuidanceScales(satellite=spec.satellite_guidance, views=spec.views_guidance),
        on_step=None if on_step is None else _turned_steps(on_step, spec.heading),
        cancelled=cancelled,
    )
    crops, told = cut_crops(drawn.images[0], band, spec.heading)
    image = turned(drawn.images[0], spec.heading)
    sources = Sources(
        guide=drawn.guide,
        views=[_seen(view, place) for view in views],
        satellite=ground.rgb,
        band=band,
        heading_deg=spec.heading,
    )
    return PanoramaRender(
        image=image,
        spec=spec,
        band=band,
        place=place,
        crops=crops,
        overlay=overlay(image, sources),
        satellite=ground.rgb,
        layout=ground.layout,
        provenance={
            **made_by(spec, pipeline, seconds=time.perf_counter() - began, online=online),
            "attribution": ground.attribution,
            "notes": [LABEL, *notes, *told],
            **_shares(sources, views, place, ground),
        },
    )


def open_views(spec: RunSpec, band: Band) -> tuple[list[OpenView], list[str]]:
    """Open the panoramas of a spec that are looked at: the nearest, in the order of distance.

    Args:
        spec: What names them.
        band: The grid that they are brought to.

    Returns:
        The views, and what is to be known of them.

    Raises:
        TerrascapeError: One of them cannot be read, has no place, stands too far away, or is
            another one once more.
    """
    target = Location(spec.lat, spec.lon)
    there = [_placed(view) for view in spec.views]
    _refuse_twins(there)
    views: list[OpenView] = []
    for view, place in sorted(
        there, key=lambda pair: (great_circle_km(target, pair[1]), pair[0].file)
    ):
        km = great_circle_km(target, place)
        if km > FAR_KM and not spec.far:
            raise InvalidSpecError(
                f"view {shown(view.file, None)} stands {km:.0f} km away, {FAR_KM:g} km are "
                "allowed (is its place right? give --far to take it all the same)"
            )
        if len(views) < MAX_VIEWS:
            views.append(_opened(view, place, km, band))
    notes = []
    if len(there) > MAX_VIEWS:
        notes.append(f"{len(there)} views given, the {MAX_VIEWS} nearest are used")
    for each in views:
        notes += [f"{each.name}: {note}" for note in each.notes]
        notes += _distance_notes(each)
    return views, notes


def _placed(view: ViewSpec) -> tuple[ViewSpec, Location]:
    """Give a view that knows its heading, and its place."""
    found = placed_view(view)
    if found.place is None:
        raise InvalidSpecError(
            f"view {shown(view.file, None)} does not tell where it was taken (give "
            "FILE@LAT,LON,HEADING)"
        )
    return found, found.place


def _opened(view: ViewSpec, place: Location, km: float, band: Band) -> OpenView:
    panorama = open_panorama(Path(view.file))
    try:
        pixels = to_band(panorama, band, view.heading)
    except InvalidSpecError as error:
        raise InvalidSpecError(f"view {shown(view.file, None)}: {error}") from None
    return OpenView(view, place, km, pixels, panorama.notes)


def _refuse_twins(views: Sequence[tuple[ViewSpec, Location]]) -> None:
    """Refuse a panorama that is there twice; files that tell their own place are compared here."""
    for j, (b, there) in enumerate(views):
        for a, here in views[:j]:
            same = a.file == b.file or (a.sha256 is not None and a.sha256 == b.sha256)
            if same and great_circle_km(here, there) < _SAME_KM:
                raise InvalidSpecError(
                    f"views {shown(a.file, None)} and {shown(b.file, None)} are one panorama at "
                    "one place (give it once)"
                )


def _distance_notes(view: OpenView) -> list[str]:
    if view.km < _HERE_KM:
        return [f"{view.name} stands at the place itself: what is drawn should repeat it"]
    if view.km > TRAINED_KM:
        return [
            f"{view.name} stands {view.km:.0f} km away; the model learnt from panoramas up to "
            f"{TRAINED_KM:g} km away"
        ]
    return []


def _unused(spec: RunSpec, views: Sequence[OpenView], ground: Overhead) -> list[str]:
    """Tell what is there and, by its scale, not used; and whether there is anything at all."""
    notes = []
    if views and spec.views_guidance == 0:
        notes.append("views_guidance=0: the views are not used")
    if ground.rgb is not None and spec.satellite_guidance == 0:
        notes.append("satellite_guidance=0: the satellite image is not used")
    if not views and ground.rgb is None:
        notes.append("neither a view nor a satellite image is given: what is drawn is no place")
    return notes


def _surroundings(
    spec: RunSpec, views: Sequence[OpenView], ground: Overhead, band: Band
) -> Surroundings:
    """Give what is available around the place in the form that the model takes."""
    place = Location(spec.lat, spec.lon)
    panoramas = np.zeros((MAX_VIEWS, band.height, band.width, 3), np.uint8)
    offsets = np.ones((MAX_VIEWS, 2), np.float32)
    for slot, view in enumerate(views):
        panoramas[slot], offsets[slot] = view.pixels, offset_m(place, view.place)
    used = len(views) if spec.views_guidance else 0
    blank = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    satellite = blank if ground.rgb is None else ground.rgb
    has_satellite = ground.rgb is not None and spec.satellite_guidance != 0
    return Surroundings(
        panoramas=to_signal(panoramas)[None],
        valid=(torch.arange(MAX_VIEWS) < used)[None],
        offset_m=torch.from_numpy(offsets)[None],
        satellite=to_signal(satellite[None]),
        has_satellite=torch.tensor([has_satellite]),
        gsd_m=torch.tensor([gsd_m(place.lat, ZOOM)], dtype=torch.float32),
        lat_deg=torch.tensor([place.lat], dtype=torch.float32),
        depth=torch.zeros(1, 1, band.height, band.width),
        has_depth=torch.tensor([False]),
    )


def turned(
    panorama: UInt8[np.ndarray, "height width 3"], heading_deg: float
) -> UInt8[np.ndarray, "height width 3"]:
    """Turn a panorama whose middle looks north to a heading."""
    values = torch.from_numpy(panorama).movedim(-1, 0)[None].float()
    return _bytes(turn(values, 0.0, heading_deg)[0])


def _bytes(values: Tensor) -> UInt8[np.ndarray, "height width 3"]:
    rounded = values.round().clamp(0, 255).byte().movedim(0, -1)
    return np.ascontiguousarray(rounded.numpy())


def _turned_steps(on_step: OnStep, heading_deg: float) -> OnStep:
    def tell(step: int, steps: int, preview: UInt8[np.ndarray, "height width 3"] | None) -> None:
        on_step(step, steps, None if preview is None else turned(preview, heading_deg))

    return tell


def cut_crops(
    panorama: UInt8[np.ndarray, "height width 3"], band: Band, heading_deg: float
) -> tuple[dict[str, UInt8[np.ndarray, "rows cols 3"]], list[str]]:
    """Cut pictures without distortion out of a panorama whose middle looks north.

    Returns:
        The pictures by where they look from the heading; and a note, if the band leaves parts of
        them out, which are grey.
    """
    values = torch.from_numpy(panorama).movedim(-1, 0)[None].float()
    crops, beyond = {}, False
    for name, yaw in CROPS.items():
        seen, covered = perspective(
            values,
            band,
            yaw_deg=heading_deg + yaw,
            fov_deg=CROP_DEG,
            size=(CROP_PX, CROP_PX),
        )
        crops[name] = _bytes(torch.where(covered, seen[0], float(_GREY)))
        beyond |= not bool(covered.all())
    told = (
        f"the crops are grey above {band.top_deg:g} and below {band.bottom_deg:g} degrees of "
        "elevation, which the panorama does not show"
    )
    return crops, [told] if beyond else []


def _seen(view: OpenView, target: Location) -> SeenView:
    (x, y), (x0, y0) = to_px(view.place, ZOOM), to_px(target, ZOOM)
    half = 128 << ZOOM
    return SeenView(
        name=view.name,
        pixels=view.pixels,
        offset_m=offset_m(target, view.place),
        mark_px=((x - x0 + half) % (2 * half) - half, y - y0),
    )


def _shares(
    sources: Sources, views: Sequence[OpenView], target: Location, ground: Overhead
) -> dict[str, object]:
    """Tell where the panorama was found, for the record."""
    shares, satellite, own = sources.shares()
    return {
        "views": [
            {
                "file": view.name,
                "km": round(view.km, 3),
                "bearing_deg": round(bearing_deg(target, view.place), 1),
                "share": round(share, 4),
            }
            for view, share in zip(views, shares, strict=True)
        ],
        "satellite": {**ground.about, "share": round(satellite, 4)},
        "own_share": round(own, 4),
    }
