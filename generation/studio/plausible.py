"""The card of plausibility under a result, as HTML."""

from collections.abc import Mapping
from html import escape
from typing import Any

from generation.studio.map_widget import place_text

_Row = tuple[str, str, str]
"""What is judged, what was found, and what real ones get."""


def card_html(record: object) -> str:
    """Show the card of plausibility of a result; nothing where its record has none."""
    card = record.get("plausibility") if isinstance(record, Mapping) else None
    if not isinstance(card, Mapping) or not card:
        return ""
    below = card_html({"plausibility": card["satellite"]}) if "satellite" in card else ""
    if "note" in card:
        return f'<p class="ts-caption">Plausibility: {escape(str(card["note"]))}</p>' + below
    if "seems_to_be" in card:
        return _table("this image", "real tiles, 90 %", _satellite(card))
    if "clips" in card:
        return _table("this sound", f"of {card['clips']} clips", _soundscape(card))
    return _table("this panorama", "rendered ones, 90 %", _panorama(card)) + below


def _satellite(card: Mapping[str, Any]) -> list[_Row]:
    real, seems, novelty = card.get("real", {}), card["seems_to_be"], card["novelty"]
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
        away = f"predicted {lives['nearest_predicted_km']:,.0f} km away"
        rows.append(("The taxon here", f"{lives['likely']:.0%} likely; {away}", ""))
    return rows


def _panorama(card: Mapping[str, Any]) -> list[_Row]:
    found, rendered = card["agreement"], card.get("rendered", {})
    rows = [
        (
            "Alike the satellite image",
            f"{found['satellite']:.2f}",
            _range(rendered, "satellite", "{:.2f}"),
        )
    ]
    if "match" in found:
        beside = _range(rendered, "match", "{:.0%}")
        rows.append(("Belongs to it", f"{found['match']:.0%} likely", beside))
    return rows


def _soundscape(card: Mapping[str, Any]) -> list[_Row]:
    better, novelty = card["share_of_clips_that_fit_better"], card["novelty"]
    return [
        (
            "Fits its place, as what chose it hears it",
            f"{card['fits_its_place']:.2f}",
            f"{better:.0%} fit better",
        ),
        ("Most alike known clip", f"{novelty['most_alike']:.2f}", str(novelty["clip"])),
    ]


def _table(this: str, beside: str, rows: list[_Row]) -> str:
    body = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td><td>{escape(real)}</td></tr>"
        for name, value, real in rows
    )
    return (
        '<details class="ts-card-plausible" open><summary>Plausibility</summary><table><thead><tr>'
        f"<th></th><th>{escape(this)}</th><th>{escape(beside)}</th></tr></thead>"
        f"<tbody>{body}</tbody></table></details>"
    )


def _range(real: Mapping[str, Any], name: str, form: str) -> str:
    """Write what nine in ten real ones get."""
    if name not in real:
        return ""
    low, _, high = real[name]
    return f"{form.format(low)} to {form.format(high)}"
