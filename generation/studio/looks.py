"""What the page shows of looks, ranges and plausibility, as HTML."""

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


def card_html(record: object) -> str:
    """Show the card of plausibility of a result; nothing where its record has none."""
    card = _of(record, "plausibility")
    if not card:
        return ""
    if "note" in card:
        return f'<p class="ts-caption">Plausibility: {escape(str(card["note"]))}</p>'
    real = card.get("real", {})
    seems, novelty = card["seems_to_be"], card["novelty"]
    rows = [
        (
            "Seems to be",
            f"{place_text(seems['lat'], seems['lon'])}, {seems['km']:,.0f} km away",
            _range(real, "seems_to_be_km", "{:,.0f} km"),
        ),
        (
            "Land that would fit better",
            f"{seems['share_of_land_that_fits_better']:.1%}",
            _range(real, "share_of_land_that_fits_better", "{:.1%}"),
        ),
        (
            "Most alike known tile",
            f"{novelty['most_alike']:.2f}, at {place_text(novelty['lat'], novelty['lon'])}",
            _range(real, "most_alike", "{:.2f}"),
        ),
        (
            "Agrees with the life of its place",
            f"{card['agreement']['location']:.2f}",
            _range(real, "agreement_location", "{:.2f}"),
        ),
    ]
    if "taxon" in card["agreement"]:
        rows.append(("Agrees with the taxon", f"{card['agreement']['taxon']:.2f}", ""))
    if "range" in card:
        lives = card["range"]
        rows.append(
            (
                "The taxon here",
                f"{lives['likely']:.0%} likely; predicted {lives['nearest_predicted_km']:,.0f} km "
                "away",
                "",
            )
        )
    body = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td><td>{escape(beside)}</td></tr>"
        for name, value, beside in rows
    )
    return (
        '<details class="ts-card-plausible" open><summary>Plausibility</summary><table><thead><tr>'
        "<th></th><th>this image</th><th>real tiles, 90 %</th></tr></thead>"
        f"<tbody>{body}</tbody></table></details>"
    )


def _range(real: Mapping[str, Any], name: str, form: str) -> str:
    """Write what nine in ten real tiles get."""
    if name not in real:
        return ""
    low, _, high = real[name]
    return f"{form.format(low)} to {form.format(high)}"


def _of(record: object, *names: str) -> Mapping[str, Any]:
    """Go down into a record; nothing where it is not what it should be."""
    for name in names:
        record = record.get(name) if isinstance(record, Mapping) else None
    return record if isinstance(record, Mapping) else {}
