"""How plausible a satellite image is: a card that goes into the record of every one.

It says how new the image looks, where on Earth it seems to be, how well it agrees with what was
asked for, and how far the range of a taxon is. Beside each figure stands what real tiles of unseen
places get (``floor.json`` of the database), since none of these means anything by itself.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from generation.encoders.life_encoder import LifeEncoder, load_life
from generation.encoders.range_encoder import RangeEncoder, load_range_encoder
from generation.encoders.retrieval import distances_km
from generation.encoders.retrieval_model import Retrieval, load_retrieval
from generation.encoders.tile_statistics import SMALLEST_PX
from generation.errors import TerrascapeError, WeightsError
from generation.geo.environment import embedded_environment
from generation.geo.location import Location, great_circle_km
from generation.spec import RunSpec

RETRIEVAL, LIFE, RANGES = "range-nano", "taxabind-nano", "ranges-nano"
"""The models that judge."""
FLOOR = "floor.json"
"""What real tiles of unseen places get, beside the database."""
ZOOM = 8
"""The scale that the judges know."""
LIVES = 0.5
"""From this share of its greatest probability on a taxon is predicted to live in a cell."""


def plausibility(image: UInt8[np.ndarray, "height width 3"], spec: RunSpec) -> dict[str, Any]:
    """Judge a satellite image.

    Args:
        image: What was drawn.
        spec: What was asked for.

    Returns:
        Figures by name, with those of real tiles under ``real``; where nothing can be said, why.
    """
    if spec.zoom != ZOOM or min(image.shape[:2]) < SMALLEST_PX:
        return {"note": f"not judged: the judges know images of zoom {ZOOM} of {SMALLEST_PX} px on"}
    try:
        retrieval, life = load_retrieval(RETRIEVAL), load_life(LIFE)
        card = {**_likeness(image, spec, retrieval), "agreement": _agreement(image, spec, life)}
        if spec.taxon.strip():
            card["range"] = _range(spec, load_range_encoder(RANGES))
        card["real"] = floor(retrieval.folder)
    except TerrascapeError as error:  # a picture is worth keeping though its judge is not here
        return {"note": f"not judged: {error}"}
    return card


def judged(
    images: UInt8[np.ndarray, "n height width 3"], retrieval: Retrieval
) -> tuple[Float[Tensor, " n"], Tensor, Float[Tensor, "n 2"], Float[Tensor, "n cells"]]:
    """Judge images without what was asked for.

    Returns:
        The greatest cosine with the database, the row it is with, the place on land that fits best
        and how well each fits.
    """
    _, keys = retrieval.read(images)
    best, rows = retrieval.encoder.most_alike(keys)
    places, known = _land(retrieval.folder, retrieval.sha256)
    fit = keys @ known.T
    return best, rows, places[fit.argmax(1)], fit


def _likeness(
    image: UInt8[np.ndarray, "height width 3"], spec: RunSpec, retrieval: Retrieval
) -> dict[str, Any]:
    best, rows, seems, fit = judged(image[None], retrieval)
    own = torch.tensor([[spec.lat, spec.lon]], dtype=torch.float64)
    row = retrieval.encoder.database.latlon[rows[0]].tolist()
    where = seems[0].tolist()
    _, key = retrieval.read(image[None])
    agrees = float((key @ retrieval.encoder.key(own).T)[0, 0])
    return {
        "novelty": {
            "most_alike": round(float(best[0]), 4),
            "lat": round(row[0], 3),
            "lon": round(row[1], 3),
            "km": round(_apart(spec, row), 1),
        },
        "seems_to_be": {
            "lat": round(where[0], 3),
            "lon": round(where[1], 3),
            "km": round(_apart(spec, where), 1),
            "share_of_land_that_fits_better": round(float((fit[0] > agrees).float().mean()), 4),
        },
        "nearest_of_database_km": round(retrieval.encoder.nearest_km(spec.lat, spec.lon), 1),
        "fits_its_place": round(agrees, 4),
    }


def _agreement(
    image: UInt8[np.ndarray, "height width 3"], spec: RunSpec, life: LifeEncoder
) -> dict[str, float]:
    """Give cosines of the image with what else is known, in the space of life."""
    seen = life.satellite(image[None])
    own = torch.tensor([[spec.lat, spec.lon]], dtype=torch.float32)
    others = {"location": life.location(own)}
    if spec.taxon.strip():
        others["taxon"] = life.text(
            [load_range_encoder(RANGES).taxonomy.resolve(spec.taxon).string]
        )
    return {name: round(float((seen @ each.T)[0, 0]), 4) for name, each in others.items()}


def _range(spec: RunSpec, encoder: RangeEncoder) -> dict[str, Any]:
    taxon = encoder.taxonomy.resolve(spec.taxon)
    places = _cells()
    here = np.array([[spec.lat, spec.lon]], np.float32)
    own = float(encoder.likely([taxon.string], here)[0, 0])
    likely = encoder.likely([taxon.string], places)[0]
    least = LIVES * likely.max()
    km = distances_km(torch.from_numpy(here), torch.from_numpy(places[likely >= least]))
    return {
        "taxon": taxon.string,
        "likely": round(own, 4),
        "likely_at_most": round(float(likely.max()), 4),
        "nearest_predicted_km": 0.0 if own >= least else round(float(km.min()), 1),
    }


def _apart(spec: RunSpec, place: list[float]) -> float:
    return great_circle_km(Location(spec.lat, spec.lon), Location(*place))


@lru_cache(maxsize=1)
def _cells() -> Float[np.ndarray, "cells 2"]:
    """Give the middles of all cells of land of one degree."""
    return embedded_environment().land


@lru_cache(maxsize=2)
def _land(folder: Path, sha256: str) -> tuple[Float[Tensor, "cells 2"], Float[Tensor, "cells key"]]:
    """Give places on land and their keys; ``sha256`` tells whether the weights are the same."""
    places = torch.from_numpy(_cells())
    with torch.no_grad():
        return places, load_retrieval(str(folder)).encoder.key(places)


def floor(folder: Path) -> Mapping[str, Any]:
    """Give what real tiles get; nothing where it was not measured."""
    path = folder / FLOOR
    if not path.is_file():
        return {}
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is no JSON: {error} (restore it, or measure anew)") from error
    return found
