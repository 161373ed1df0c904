"""Panoramas: from a RunSpec to a finished picture with its crops and where it was found."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from generation.cards import ModelCard
from generation.diffusion.codec import to_signal
from generation.diffusion.guidance import GuidanceScales
from generation.diffusion.surroundings import Surroundings
from generation.errors import InvalidSpecError, shown
from generation.geo.location import Location
from generation.geo.mercator import gsd_m
from generation.geo.sphere import Band, bearing_deg, offset_m, perspective, turn
from generation.media.panorama import PanoramaRender
from generation.pipelines.overhead import SIDE_PX, ZOOM, Overhead, is_drawn, overhead_of
from generation.pipelines.overlay import SeenView, Sources, overlay
from generation.pipelines.panorama import OnStep, PanoramaPipeline
from generation.pipelines.panorama_views import MAX_VIEWS, OpenView, open_views
from generation.pipelines.plausibility_kinds import of_panorama
from generation.pipelines.whole import made_by, stamped
from generation.registry import find, list_models
from generation.spec import RunSpec

CROPS = {"front": 0.0, "right": 90.0, "back": 180.0, "left": 270.0}
"""Pictures without distortion that are cut out, and how far right of the heading they look."""
CROP_PX, CROP_DEG = 256, 90.0
EXAGGERATED = 2.0
"""Scales above are told of: what they draw was measured to be less like the place."""
_GREY = 128


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
        on_step: Told ``(step, steps, preview)``; a satellite image that is drawn for it comes first
            and has no preview.
        cancelled: Asked before each step.
        online: Whether the layout of a generated satellite image may be fetched from
            OpenStreetMap, and weights from the Hub.

    Raises:
        TerrascapeError: Whatever the person can mend.
    """
    if spec.kind != "panorama":
        raise InvalidSpecError(f"kind={shown(spec.kind)} is no panorama (give kind='panorama')")
    pipeline, card = open_pipeline(spec.model, online=online), find(spec.model)
    _refuse_unread(spec, card)
    band, place = pipeline.views.band, Location(spec.lat, spec.lon)
    views, notes = open_views(spec, band)
    began = time.perf_counter()
    steps = None if on_step is None else _Steps(on_step, spec)
    ground = overhead_of(
        spec, on_step=None if steps is None else steps.of_ground, cancelled=cancelled, online=online
    )
    notes += [*ground.notes, *_unused(spec, views, ground), *_exaggerated(spec)]
    if card.reads_prompt and (unread := pipeline.text_encoder.cut(spec.prompt)):
        notes.append(f"{card.name} did not read the prompt beyond: …{unread[:60]!r}")
    drawn = pipeline(
        _surroundings(spec, views, ground, band),
        seeds=[spec.seed],
        num_inference_steps=spec.steps,
        guidance=GuidanceScales(
            text=spec.text_guidance, satellite=spec.satellite_guidance, views=spec.views_guidance
        ),
        on_step=None if steps is None else steps.of_panorama,
        cancelled=cancelled,
        **({"prompts": [spec.prompt]} if card.reads_prompt else {}),
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
            "notes": [*([card.learnt] if card.learnt else []), *notes, *told],
            **_shares(sources, views, place, ground),
            "plausibility": of_panorama(drawn.images[0], ground.rgb, spec),
        },
    )


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


def _refuse_unread(spec: RunSpec, card: ModelCard) -> None:
    """Refuse a prompt that nothing reads."""
    if spec.prompt.strip() and not card.reads_prompt and not is_drawn(spec):
        raise InvalidSpecError(
            f"prompt={shown(spec.prompt)} is read by nobody: {card.name} takes none, and no "
            "satellite image is drawn (leave the prompt out, let one be drawn with "
            "satellite=generated, or give a model that takes one)"
        )


def _exaggerated(spec: RunSpec) -> list[str]:
    """Tell of scales that are so large that they do harm."""
    scales = {name: getattr(spec, name) for name in ("satellite_guidance", "views_guidance")}
    return [
        f"{name}={scale:g} exaggerates far: above 1 the embedded model's panoramas are less like "
        "the real ones"
        for name, scale in scales.items()
        if scale > EXAGGERATED
    ]


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


class _Steps:
    """Counts the steps of a satellite image and of the panorama after it as those of one work."""

    def __init__(self, on_step: OnStep, spec: RunSpec) -> None:
        self.on_step, self.spec, self.before = on_step, spec, 0

    def of_ground(
        self, step: int, steps: int, _preview: UInt8[np.ndarray, "height width 3"] | None
    ) -> None:
        """Tell a step of the satellite image."""
        self.before = steps
        self.on_step(step, steps + self.spec.steps, None)

    def of_panorama(
        self, step: int, steps: int, preview: UInt8[np.ndarray, "height width 3"] | None
    ) -> None:
        """Tell a step of the panorama, turned to its heading."""
        shown_ = None if preview is None else turned(preview, self.spec.heading)
        self.on_step(self.before + step, self.before + steps, shown_)


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
    east, north = offset_m(target, view.place)
    pixel_m = gsd_m(target.lat, ZOOM)  # there is none for a place beyond the map's end
    return SeenView(
        number=view.number,
        name=view.name,
        pixels=view.pixels,
        offset_m=(east, north),
        mark_px=(east / pixel_m, -north / pixel_m),
    )


def _shares(
    sources: Sources, views: Sequence[OpenView], target: Location, ground: Overhead
) -> dict[str, object]:
    """Tell where the panorama was found, for the record."""
    shares, satellite, own = sources.shares()
    by_number = sorted(zip(views, shares, strict=True), key=lambda pair: pair[0].number)
    return {
        "views": [
            {
                "number": view.number,
                "file": view.name,
                "km": round(view.km, 3),
                "bearing_deg": round(bearing_deg(target, view.place), 1),
                "share": round(share, 4),
            }
            for view, share in by_number
        ],
        "satellite": {**ground.about, "share": round(satellite, 4)},
        "own_share": round(own, 4),
    }
