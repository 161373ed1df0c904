"""Maps of where a taxon lives: measurements for programs and a picture for people."""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from generation.encoders.range_encoder import RangeEncoder
from generation.encoders.taxonomy import Taxon
from generation.errors import InvalidSpecError, OutputError
from generation.geo.climate_novelty import climates_at, novelty_at, todays_climates
from generation.geo.environment import (
    ATTRIBUTION,
    MOST_WATER,
    Environment,
    embedded_environment,
    sampled,
)
from generation.geo.layers import land_cover
from generation.geo.location import Region
from generation.media.folder import output_folder, write_together
from generation.media.geotiff import Band, cog_bytes
from generation.media.image import png_bytes
from generation.media.lettering import font
from generation.pipelines.maps_cache import MapCache
from generation.pipelines.maps_files import TAG, check_out
from generation.pipelines.maps_image import LIKELY, coloured, round_degrees

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

WORLD = Region(-180.0, -90.0, 180.0, 90.0)
CELLS_DEG = (0.05, 10.0)
MOST_CELLS = 1_000_000
_PICTURE_PX = (1200, 820)
"""Width of a picture's map at most, and its height at most."""
_MARGIN_PX = 32
_SEA, _LAND = (224, 230, 235), (246, 244, 238)
_INK, _SOFT = (20, 20, 20), (90, 90, 90)
_WATER = 0
"""Of the classes of land cover."""
_WORTH_KEEPING = 10_000
"""Cells from which on a map's embedded places are kept on disk: one of half a degree has 260,000
and 265 MB."""
_JUDGED = 4000
"""Cells of land whose climates are held to today's, evenly taken from all."""
LIVES = 0.5
"""From this probability on a species counts as living at a place."""


@dataclass(frozen=True, slots=True)
class DegreeGrid:
    """Cells of equal degrees, row 0 the northernmost."""

    region: Region = WORLD
    cell_deg: float = 0.5

    def __post_init__(self) -> None:
        low, high = CELLS_DEG
        if not low <= self.cell_deg <= high:
            raise InvalidSpecError(
                f"cell={self.cell_deg:g} degrees is not allowed (give {low:g} to {high:g})"
            )
        if self.rows * self.cols > MOST_CELLS:
            raise InvalidSpecError(
                f"a map of {self.cols}x{self.rows} cells is too large (at most {MOST_CELLS}; give "
                "a larger --cell or a smaller --region)"
            )

    @property
    def width_deg(self) -> float:
        """From west to east; a region may run over the date line."""
        region = self.region
        return region.east - region.west + (360 if region.east <= region.west else 0)

    @property
    def rows(self) -> int:
        """Cells from north to south."""
        return max(1, round((self.region.north - self.region.south) / self.cell_deg))

    @property
    def cols(self) -> int:
        """Cells from west to east."""
        return max(1, round(self.width_deg / self.cell_deg))

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine map (a, b, c, d, e, f) from cell (column, row) to degrees."""
        height = self.region.north - self.region.south
        across, down = self.width_deg / self.cols, height / self.rows
        return across, 0.0, self.region.west, 0.0, -down, self.region.north

    def latlon(self) -> Float32[np.ndarray, "cells 2"]:
        """Give the middles of the cells, row by row."""
        a, _, c, _, e, f = self.transform
        lat = f + e * (np.arange(self.rows) + 0.5)
        lon = (c + a * (np.arange(self.cols) + 0.5) + 180) % 360 - 180
        both = np.meshgrid(lat, lon, indexing="ij")
        return np.stack([each.ravel() for each in both], 1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class RangeMap:
    """A finished map."""

    taxon: Taxon
    grid: DegreeGrid
    likely: Float32[np.ndarray, "rows cols"]
    """How likely the taxon is in each cell, 0 to 1."""
    about: dict[str, object] = field(default_factory=dict)
    """How it was made."""


def range_map(
    encoder: RangeEncoder,
    taxon: Taxon,
    grid: DegreeGrid,
    *,
    warmer_c: float = 0.0,
    rain_share: float = 0.0,
) -> RangeMap:
    """Compute a map.

    Args:
        encoder: The model of ranges.
        taxon: What :meth:`Taxonomy.resolve` found.
        grid: Its cells.
        warmer_c: Degrees that every month is warmer.
        rain_share: Share of rain that every month has more.

    Raises:
        InvalidSpecError: A change of climate is out of range.
    """
    environment = _changed(warmer_c, rain_share)
    places = grid.latlon()
    likely = encoder.likely_at([taxon.string], _embedded(encoder, places, environment))[0]
    novel = _new_climates(places, environment) if warmer_c or rain_share else None
    about: dict[str, object] = {
        "taxon": taxon.string,
        "known": taxon.known,
        "learnt": taxon.learnt,
        "notes": [*taxon.notes, *_remarks(taxon, encoder), *_guessed(novel)],
        "model": encoder.name,
        "model_sha256": encoder.sha256,
        "warmer_c": warmer_c,
        "rain_share": rain_share,
        "new_climate_share_of_land": novel,
        "cell_deg": grid.cell_deg,
        "attribution": ATTRIBUTION,
    }
    return RangeMap(taxon, grid, likely.reshape(grid.rows, grid.cols), about)


def _changed(warmer_c: float, rain_share: float) -> Environment:
    return embedded_environment().changed(warmer_c=warmer_c, rain_share=rain_share)


def _remarks(taxon: Taxon, encoder: RangeEncoder) -> list[str]:
    if taxon.learnt:
        return []
    return [f"{encoder.name} learnt from no species of it: this is what its name and kin suggest"]


def _embedded(
    encoder: RangeEncoder, places: Float[np.ndarray, "cells 2"], environment: Environment
) -> Float[Tensor, "cells dim"]:
    """Embed the cells of a map, which take nearly all of its time, or find them kept on disk."""
    if len(places) < _WORTH_KEEPING:
        return encoder.places(places, environment)
    told = hashlib.sha256(places.tobytes() + environment.variables().tobytes()).hexdigest()
    shelf = MapCache().shelf(kind="range places", model=encoder.sha256, places=told)
    kept = shelf.load("places")
    dim = int(encoder.model.config["dim"])
    if kept is not None and set(kept) == {"places"} and kept["places"].shape == (len(places), dim):
        return torch.from_numpy(kept["places"])
    found = encoder.places(places, environment)
    with suppress(OutputError):  # the map is made all the same
        shelf.save("places", {"places": found.numpy()})
    return found


def _new_climates(places: Float[np.ndarray, "cells 2"], changed: Environment) -> float | None:
    """Give the share of the land of a map whose climate is like none of today's."""
    water = sampled(changed.cover[:1], places)[:, 0]
    land = places[water < MOST_WATER]
    if not len(land):
        return None
    some = land[:: 1 + len(land) // _JUDGED]
    found = todays_climates().new(climates_at(changed, some))
    return round(float(np.average(found, weights=np.cos(np.deg2rad(some[:, 0])))), 4)


def _guessed(novel: float | None) -> list[str]:
    if not novel:
        return []
    share = f"{novel:.0%}" if novel >= 0.01 else "less than 1%"
    return [f"{share} of this land would have a climate that no land has today: guessed there"]


def save_range_map(found: RangeMap, out: Path) -> list[Path]:
    """Write a map as ``out``, a float32 COG, and as a picture beside it, both or none.

    Raises:
        OutputError: A file is there already, or cannot be written.
    """
    check_out(out)
    with output_folder(out.parent, needed_bytes=8 * found.likely.size + 4_000_000):
        record = json.dumps(found.about, sort_keys=True)
        tags = {
            TAG: record,
            "TAXON": found.taxon.string,
            "MODEL": str(found.about["model"]),
            "MODEL_SHA256": str(found.about["model_sha256"]),
            "ATTRIBUTION": ATTRIBUTION,
        }
        band = Band("likely", "probability", found.likely)
        return write_together(
            {
                out: cog_bytes([band], found.grid.transform, tags, crs="EPSG:4326"),
                out.with_suffix(".png"): range_png(found, {TAG: record}),
            }
        )


def range_png(found: RangeMap, text: dict[str, str]) -> bytes:
    """Draw a map for people: title, coloured land and sea, degrees, a legend."""
    from PIL import Image, ImageDraw

    grid = found.grid
    scale = min(_PICTURE_PX[0] / grid.cols, _PICTURE_PX[1] / grid.rows)
    width, height = max(1, int(grid.cols * scale)), max(1, int(grid.rows * scale))
    rgb = _drawn(found, (height, width))
    canvas = Image.new("RGB", (max(width + 2 * _MARGIN_PX, 480), height + 172), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((_MARGIN_PX, 14), _title(found), _INK, font(18))
    canvas.paste(Image.fromarray(rgb), (_MARGIN_PX, 48))
    _name_degrees(pen, grid, (width, height))
    top = height + 76
    ramp = np.linspace(0, 1, 300, dtype=np.float32)[None].repeat(14, 0)
    canvas.paste(Image.fromarray(coloured(ramp, (0.0, 1.0), LIKELY)), (_MARGIN_PX, top))
    for share in (0.0, 0.5, 1.0):
        place = (_MARGIN_PX + 299 * share, top + 18)
        pen.text(place, f"{share:g}", _INK, font(12), anchor="ma")
    pen.text((_MARGIN_PX + 324, top), "how likely it lives there", _SOFT, font(12))
    for number, line in enumerate(_small_print(found)):
        pen.text((_MARGIN_PX, top + 40 + 16 * number), line, _SOFT, font(12))
    return png_bytes(np.asarray(canvas), text)


def _title(found: RangeMap) -> str:
    about, parts = found.about, [found.taxon.string]
    if about["warmer_c"]:
        parts.append(f"{about['warmer_c']:+g} °C")
    if about["rain_share"]:
        parts.append(f"{100 * float(str(about['rain_share'])):+g} % rain")
    return ", ".join(parts)


def _small_print(found: RangeMap) -> list[str]:
    notes = found.about["notes"]
    told = "; ".join(str(note) for note in notes) if isinstance(notes, list) else ""
    model = (
        f"{found.about['model']}, predicted, not observed. Ranges learnt from PHYLACINE 1.2 (CC0)."
    )
    return [line for line in (model, ATTRIBUTION, told) if line]


def _drawn(found: RangeMap, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """Lay the colours over pale land and sea, the likelier the stronger, and draw the shores."""
    height, width = size
    a, _, c, _, e, f = found.grid.transform
    lat = f + e * found.grid.rows * (np.arange(height) + 0.5) / height
    lon = c + a * found.grid.cols * (np.arange(width) + 0.5) / width
    cover = land_cover()
    rows = ((90 - lat) * cover.shape[0] / 180).astype(int).clip(0, cover.shape[0] - 1)
    cols = ((lon + 180) % 360 * cover.shape[1] / 360).astype(int).clip(0, cover.shape[1] - 1)
    sea = cover[np.ix_(rows, cols)] == _WATER
    base = np.where(sea[..., None], _SEA, _LAND).astype(np.float64)
    up = (np.arange(height) * found.grid.rows // height).clip(0, found.grid.rows - 1)
    along = (np.arange(width) * found.grid.cols // width).clip(0, found.grid.cols - 1)
    likely = found.likely[np.ix_(up, along)]
    strength = np.sqrt(likely.clip(0, 1)).astype(np.float64)[..., None]
    rgb = base * (1 - strength) + coloured(likely, (0.0, 1.0), LIKELY) * strength
    shore = np.zeros_like(sea)
    shore[1:] |= sea[1:] != sea[:-1]
    shore[:, 1:] |= sea[:, 1:] != sea[:, :-1]
    rgb[shore] = 0.6 * rgb[shore]
    return rgb.round().astype(np.uint8)


def _name_degrees(pen: "ImageDraw", grid: DegreeGrid, size: tuple[int, int]) -> None:
    width, height = size
    west, north = grid.region.west, grid.region.north
    for lon in round_degrees(west, west + grid.width_deg):
        at = _MARGIN_PX + (lon - west) / grid.width_deg * width
        shown_lon = (lon + 180) % 360 - 180
        pen.text((at, 52 + height), f"{shown_lon:g}°", _SOFT, font(12), anchor="ma")
    for lat in round_degrees(grid.region.south, north):
        at = 48 + (north - lat) / (north - grid.region.south) * height
        pen.text((_MARGIN_PX - 4, at), f"{lat:g}°", _SOFT, font(12), anchor="rm")


@dataclass(frozen=True, slots=True)
class Inhabitants:
    """Who could live at a place."""

    species: list[dict[str, object]]
    """The likeliest first."""
    gained: list[str]
    """Who would live there under the changed climate and does not today; the likeliest first."""
    lost: list[str]
    """Who lives there today and would not."""
    notes: list[str]
    """What else is to be known."""


def _near_sea(lat: float, lon: float) -> bool:
    """Say whether a place, or what lies a degree from it, is mostly water."""
    around = [(lat + north, lon + east) for north in (-1, 0, 1) for east in (-1, 0, 1)]
    places = np.array([(min(90, max(-90, a)), (b + 180) % 360 - 180) for a, b in around])
    water = sampled(embedded_environment().cover[:1], places.astype(np.float32))
    return bool((water > MOST_WATER).any())


def ranked_species(
    encoder: RangeEncoder,
    latlon: tuple[float, float],
    top: int,
    *,
    warmer_c: float = 0.0,
    rain_share: float = 0.0,
    unlearnt: bool = False,
) -> Inhabitants:
    """List the species of the table that most likely live at a place.

    Args:
        encoder: The model of ranges.
        latlon: Degrees, latitude first.
        top: So many of them.
        warmer_c: Degrees that every month is warmer.
        rain_share: Share of rain that every month has more.
        unlearnt: Whether species are listed that the model has never seen the range of. What it
            says of them is meant for maps of where they could live, and too much for a list.

    Raises:
        InvalidSpecError: ``top`` is no number of species, or a change is out of range.
    """
    where: Float[np.ndarray, "1 2"] = np.array([latlon], np.float32)
    table = encoder.taxonomy
    asked = np.array(table.learnt) | unlearnt
    rows = np.flatnonzero(asked & ~(np.array(table.sea) & (not _near_sea(*latlon))))
    if not 1 <= top <= len(rows):
        raise InvalidSpecError(f"top={top} is no number of species (give 1 to {len(rows)})")
    likely = encoder.all_species(where, _changed(warmer_c, rain_share))[0, rows]
    today, notes = likely, ["predicted from ranges of mammals, not observed"]
    if left := len(table.taxa) - int(asked.sum()):
        notes.append(f"{left} species that the model did not learn from are left out")
    if left := int(asked.sum()) - len(rows):
        notes.append(f"{left} whales and seals of the sea are left out: there is none here")
    if warmer_c or rain_share:
        today = encoder.all_species(where)[0, rows]
        found = novelty_at(*latlon, warmer_c=warmer_c, rain_share=rain_share)
        notes += [found.note] if found.new else []

    def named(chosen: Int[np.ndarray, " n"]) -> list[str]:
        return [encoder.taxonomy.strings[rows[at]] for at in chosen.tolist()]

    order, before = (np.argsort(-each, kind="stable") for each in (likely, today))
    species: list[dict[str, object]] = [
        {
            "taxon": encoder.taxonomy.strings[rows[at]],
            "likely": round(float(likely[at]), 4),
            "likely_today": round(float(today[at]), 4),
            "learnt": encoder.taxonomy.learnt[rows[at]],
        }
        for at in order[:top].tolist()
    ]
    lives, lived = likely >= LIVES, today >= LIVES
    return Inhabitants(
        species,
        gained=named(order[(lives & ~lived)[order]]),
        lost=named(before[(lived & ~lives)[before]]),
        notes=notes,
    )
