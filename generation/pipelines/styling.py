"""What a picture should look like: another place, a climate, or where a taxon lives.

The looks of a place are retrieved (RANGE), so a picture can say which places it took them from.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from generation.checkpoint import load_part
from generation.conditioning import StyleConditioner
from generation.encoders.life_encoder import environment_of, load_life
from generation.encoders.range_encoder import load_range_encoder
from generation.encoders.retrieval_model import Retrieval, load_retrieval
from generation.errors import InvalidSpecError, WeightsError
from generation.geo.climate_novelty import novelty_at
from generation.geo.environment import embedded_environment
from generation.geo.location import Location, great_circle_km
from generation.registry import find, list_models, locate
from generation.spec import RunSpec

SUFFIX = "-style"
"""A model's conditioner for styles has its name with this behind it."""
VISUAL, PLACE, CLIMATE, TAXON = "visual", "place", "climate", "taxon"
"""The parts of a style."""
SOURCES = 8
"""Places that a record names of those that a look was taken from."""
RETRIEVAL = "retrieval"
"""Under this a conditioner keeps the fingerprint of the encoders of the database it learnt with."""
LIFE = "taxabind-nano"
"""The space that taxa are understood in."""
_RANGES = "ranges-nano"
"""Whose table of names says what a person means."""


@dataclass(frozen=True, slots=True)
class Styled:
    """What a render is told of its style, and what is told of that to people."""

    conditioner: StyleConditioner
    parts: Mapping[str, Float[Tensor, " _dim"]]
    about: Mapping[str, object]
    notes: tuple[str, ...]


def open_style(spec: RunSpec, model_sha256: str) -> Styled:
    """Give the conditioner that goes with a spec's model, and the style as vectors.

    Args:
        spec: With a style.
        model_sha256: Of the pipeline that draws.

    Raises:
        InvalidSpecError: Nothing was trained to give this model a style, or the taxon is unknown.
        WeightsError: The conditioner was trained with other weights than those here.
    """
    card, conditioner = _card(spec.model), conditioner_of(spec.model, model_sha256)
    made_for = conditioner.config["made_for"] or {}
    parts: dict[str, Tensor] = {}
    about: dict[str, object] = {"conditioner": card}
    notes: list[str] = []
    if spec.has_look and spec.style_lat is not None and spec.style_lon is not None:
        retrieval = load_retrieval(spec.style_database)
        _same(card, spec.style_database, made_for.get(RETRIEVAL), retrieval.towers_sha256)
        parts |= looks(retrieval, spec.style_lat, spec.style_lon, spec.sharpness)
        about["looks"] = looks_record(retrieval, spec)
    if spec.has_habitat:
        taxon = load_range_encoder(_RANGES).taxonomy.resolve(spec.taxon)
        life = load_life(LIFE)
        _same(card, LIFE, made_for.get(LIFE), life.sha256)
        parts[TAXON] = life.text([taxon.string])[0]
        about["taxon"] = taxon.string
        notes += taxon.notes
    if spec.has_climate:
        parts[CLIMATE] = climate(spec)
        found = novelty_at(
            spec.lat,
            spec.lon,
            warmer_c=spec.warmer_c or 0.0,
            rain_share=(spec.rain_percent or 0.0) / 100,
        )
        about["climate"] = {"new": found.new, "most_like_today": list(found.analogue)}
        notes += [found.note] if found.new else []
    return Styled(conditioner, parts, about, tuple(notes))


def conditioner_of(model: str, model_sha256: str) -> StyleConditioner:
    """Give the conditioner for styles that goes with a model.

    Raises:
        InvalidSpecError: Nothing was trained to give this model a style.
        WeightsError: The conditioner was trained with other weights than those here.
    """
    card = _card(model)
    conditioner = _conditioner(*_stamped(locate(card)))
    _same(card, model, (conditioner.config["made_for"] or {}).get(model), model_sha256)
    return conditioner


@torch.no_grad()
def looks(retrieval: Retrieval, lat: float, lon: float, sharpness: float) -> dict[str, Tensor]:
    """Give the visual part and the place part of a place."""
    here = torch.tensor([[lat, lon]], dtype=torch.float64)
    return {
        VISUAL: retrieval.encoder.visual(here, sharpness)[0],
        PLACE: retrieval.encoder.key(here)[0],
    }


def looks_record(retrieval: Retrieval, spec: RunSpec) -> dict[str, object]:
    """Say where the looks that a spec asks for come from."""
    if spec.style_lat is None or spec.style_lon is None:
        raise InvalidSpecError(
            "the spec asks for the looks of no place (give style_lat, style_lon)"
        )
    encoder, place = retrieval.encoder, (spec.style_lat, spec.style_lon)
    top = min(SOURCES, len(encoder.database))
    return {
        "model": spec.style_database,
        "model_sha256": retrieval.sha256,
        "lat": place[0],
        "lon": place[1],
        "apart_km": round(great_circle_km(Location(spec.lat, spec.lon), Location(*place)), 1),
        "sharpness": spec.sharpness,
        "radius_km": round(encoder.radius_km, 1),
        "half_of_weight_within_km": round(encoder.spread_km(*place, beta=spec.sharpness), 1),
        "sources": [
            {name: round(value, 5) for name, value in asdict(each).items()}
            for each in encoder.sources(*place, top=top, beta=spec.sharpness)
        ],
    }


def climate(spec: RunSpec) -> Float[Tensor, " variables"]:
    """Give the climate of a spec's place with the changes that it asks for.

    Raises:
        InvalidSpecError: No climate is known there.
    """
    environment = embedded_environment().changed(
        warmer_c=spec.warmer_c or 0.0, rain_share=(spec.rain_percent or 0.0) / 100
    )
    found = environment_of(torch.tensor([[spec.lat, spec.lon]]), environment)[0]
    if not bool(found.isfinite().all()):
        raise InvalidSpecError(
            f"no climate is known at lat={spec.lat:g}, lon={spec.lon:g}, as at sea (give a place "
            "on land, or leave warmer_c and rain_percent out)"
        )
    return found


def _same(card: str, name: str, trained: str | None, here: str) -> None:
    if trained != here:
        raise WeightsError(
            f"{card} was trained with {name} of sha256 {trained}, here is {here} (restore the two "
            "together, or train it anew)"
        )


def _card(model: str) -> str:
    styled = {name.removesuffix(SUFFIX): name for name in list_models("styling")}
    name = find(model).name
    if name not in styled:
        raise InvalidSpecError(
            f"model={model!r} takes no style (leave style_lat, taxon, warmer_c and rain_percent "
            f"out, or give a model that does: {', '.join(styled)})"
        )
    return styled[name]


def _stamped(folder: Path) -> tuple[Path, tuple[float, ...]]:
    return folder, tuple(p.stat().st_mtime for p in sorted(folder.rglob("*.safetensors")))


@lru_cache(maxsize=1)
def _conditioner(folder: Path, stamp: tuple[float, ...]) -> StyleConditioner:
    conditioner: StyleConditioner = load_part(StyleConditioner, folder).eval()
    return conditioner.requires_grad_(False)
