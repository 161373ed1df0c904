"""What the page shows of looks and ranges, as HTML."""

from collections.abc import Mapping, Sequence
from html import escape
from threading import Lock
from typing import Any

from generation.errors import TerrascapeError
from generation.geo.location import Location
from generation.spec import RunSpec
from generation.studio.map_widget import place_text, world_html

_FIRST = Lock()
"""Held while models are loaded: two threads must not import diffusers at once."""
TOP = 6
"""Places that are listed of those that a look comes from."""


def where_from(
    lat: float | None, lon: float | None, sharpness: float, database: str
) -> tuple[str, str]:
    """Show where the look of a place comes from.

    Args:
        lat: Degrees north; none if the field is empty.
        lon: Degrees east.
        sharpness: 0 to 1.
        database: A model that retrieves, or a folder.

    Returns:
        The map of the world with all weights, and the places with the greatest.
    """
    try:
        if lat is None or lon is None:
            return world_html(None, None), ""
        place = Location(float(lat), float(lon))
        overlay, sources, spread = _weighed(place, float(sharpness), database)
    except TerrascapeError as error:
        return world_html(lat, lon), _wrong(str(error))
    rows = "".join(
        f"<li><b>{each.weight:.1%}</b> {escape(place_text(each.lat, each.lon))} "
        f"<small>{each.km:,.0f} km</small></li>"
        for each in sources
    )
    return (
        world_html(place.lat, place.lon, overlay),
        f'<p class="ts-caption">Half of the look comes from within {spread:,.0f} km. Most of all '
        f'from:</p><ol class="ts-sources">{rows}</ol>',
    )


def _weighed(place: Location, sharpness: float, database: str) -> tuple[str, Sequence[Any], float]:
    import torch

    from generation.studio.score_map import score_map

    with _FIRST:
        from generation.encoders.retrieval_model import load_retrieval

        encoder = load_retrieval(database).encoder
    here = torch.tensor([[place.lat, place.lon]], dtype=torch.float64)
    weights = encoder.weights(here, sharpness)[0].double()
    drawn = score_map(encoder.database.latlon.double().numpy(), weights.numpy())
    sources = encoder.sources(place.lat, place.lon, top=TOP, beta=sharpness)
    return drawn.overlay, sources, encoder.spread_km(place.lat, place.lon, beta=sharpness)


def range_of(taxon: str, lat: float | None, lon: float | None) -> tuple[str, str]:
    """Show where a taxon lives.

    Args:
        taxon: As a person writes it.
        lat: Of the place that is drawn, to be seen beside it; none if the field is empty.
        lon: The same.

    Returns:
        The map of the world, and what was understood.
    """
    try:
        return _ranged(taxon, lat, lon)
    except TerrascapeError as error:
        return world_html(lat, lon), _wrong(str(error))


def _ranged(taxon: str, lat: float | None, lon: float | None) -> tuple[str, str]:
    from generation.studio.score_map import CELL_DEG, score_map

    with _FIRST:
        from generation.encoders.range_encoder import load_range_encoder
        from generation.pipelines.range_maps import DegreeGrid, range_map

        encoder = load_range_encoder()
    found = encoder.taxonomy.resolve(taxon)
    grid = DegreeGrid(cell_deg=CELL_DEG)
    likely = range_map(encoder, found, grid).likely.ravel()
    kept = likely > 0.05 * likely.max()
    drawn = score_map(grid.latlon()[kept].astype(float), likely[kept].astype(float))
    notes = "".join(f'<p class="ts-note">{escape(note)}</p>' for note in found.notes)
    return (
        world_html(lat, lon, drawn.overlay),
        f'<p class="ts-caption">{escape(found.string)}: where it is predicted to live, up to '
        f"{likely.max():.0%} likely. Predicted, not observed.</p>{notes}",
    )


def _wrong(text: str) -> str:
    return f'<p class="ts-note ts-wrong" role="alert">{escape(text)}</p>'


def styled_html(spec: RunSpec, record: object) -> str:
    """Say in a result whose look it has, whose habitat it is and which climate it was told."""
    lines = []
    if spec.has_look and spec.style_lat is not None and spec.style_lon is not None:
        looks = _of(record, "style", "looks")
        within = looks.get("half_of_weight_within_km")
        reach = f", half of it from within {within:,.0f} km" if within is not None else ""
        lines.append(
            f"Looks like {place_text(spec.style_lat, spec.style_lon)} (sharpness "
            f"{spec.sharpness:g}, guidance {spec.style_guidance:g}{reach})"
        )
    if spec.has_habitat:
        lines.append(f"Habitat of {spec.taxon} (guidance {spec.habitat_guidance:g})")
    if spec.has_climate:
        warmer, rain = spec.warmer_c or 0.0, spec.rain_percent or 0.0
        lines.append(
            f"Told its climate with {warmer:+g} °C and {rain:+g} % rain (guidance "
            f"{spec.climate_guidance:g})"
        )
    return "".join(f'<p class="ts-facts">{escape(line)}</p>' for line in lines)


def _of(record: object, *names: str) -> Mapping[str, Any]:
    """Go down into a record; nothing where it is not what it should be."""
    for name in names:
        record = record.get(name) if isinstance(record, Mapping) else None
    return record if isinstance(record, Mapping) else {}
