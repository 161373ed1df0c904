"""Tables of what is known of places and of life, from reports."""

from collections.abc import Mapping
from typing import Any

from training.tables_sound import rows_of

_GUESSES = (
    ("model", ""),
    ("mean range of its kin", "_relatives"),
    ("the model, told the genus alone", "_genus_alone"),
    ("another species' name", "_dealt"),
    ("mean of all ranges", "_all_ranges"),
)


def ranges(report: Mapping[str, Any]) -> str:
    """Make the table of ``terrascape evaluate ranges``, a row for each guess."""
    values = {**report["metrics"], **report["controls"]}
    sides = ("unseen_species", "unseen_genera")
    head = ["guess"]
    for side in sides:
        named = side.replace("_", " ")
        head += [f"{named}: average precision", "cost, km"]
    rows = []
    for label, suffix in _GUESSES:
        row = [label]
        for side in sides:
            row += [
                f"{values[f'{side}/map{suffix}']:.3f}",
                f"{values[f'{side}/pac_km{suffix}']:.0f}",
            ]
        rows.append(row)
    data, told = report["data"], []
    for side in sides:
        for figure, name in (("map", "precision"), ("pac_km", "cost")):
            answer = report["answers"][side][figure]
            told.append(f"{side.replace('_', ' ')}, {name}: {answer}")
    return rows_of(head, rows) + (
        f"\n{data['learnt']} species were learnt from; {data['unseen_species']} species of known "
        f"genera and\n{data['unseen_genera']} of unknown genera were held out. Better than their "
        f"kin for certain? {'; '.join(told)}.\n"
    )


_SIGHTS = (
    ("satellite image", "satellite"),
    ("place", "location"),
    ("environment", "environment"),
    ("image and place", "satellite_location"),
    ("all three", "all"),
)
_ASKED = ("who/", "where/unseen_species_", "where/unseen_genera_")


def taxabind(report: Mapping[str, Any]) -> str:
    """Make the table of ``terrascape evaluate taxabind``, a row for each way of being told."""
    told, dealt = report["metrics"], report["controls"]
    head = ["told", "who lives here: average precision", "where an unseen species lives: AUC"]
    rows = [
        [
            label,
            *(f"{told[f'{q}{way}']:.3f} ({dealt[f'{q}{way}_shuffled']:.3f})" for q in _ASKED),
        ]
        for label, way in _SIGHTS
    ]
    data = report["data"]
    return rows_of([*head, "of an unseen genus"], rows) + (
        f"\nIn brackets: told of another place, or by another name. {data['tiles']} tiles of "
        f"held-out blocks,\n{data['learnt']} species learnt from. Without the model: the most "
        f"widespread first {dealt['who/prior']:.3f},\nwho lives at the nearest tile of training "
        f"{dealt['who/neighbour']:.3f}.\n"
    )


_PUBLISHED = {"direct": 0.381, "cartesian3d": 0.362, "wrap": 0.861, "geoclip-location": 0.916}
"""RANGE (CVPR 2025), Table 1, temperature."""
_PROBES = ("t_mean_c", "elev_m", "koppen", "igbp")


def location(report: Mapping[str, Any]) -> str:
    """Make the table of ``terrascape evaluate location``, a row for each encoder."""
    values = {**report["metrics"], **report["controls"]}
    head = ("features", "stations, R2", "as published", "temperature, R2", "height, R2")
    rows = [
        (
            name,
            f"{values[f'{name}/stations_r2']:.3f}",
            f"{_PUBLISHED[name]:.3f}" if name in _PUBLISHED else "",
            *(f"{values[f'{name}/{probe}']:.2f}" for probe in _PROBES),
        )
        for name in report["model"]
    ]
    last = report["model"][-1]
    probes = (f"{values[f'{last}_shuffled/{probe}']:.2f}" for probe in _PROBES)
    stations = f"{values[f'{last}/stations_r2_shuffled']:.3f}"
    rows.append((f"{last}, of other places", stations, "", *probes))
    answers = "; ".join(
        f"{name}: {', '.join(f'{probe} {answer}' for probe, answer in told.items())}"
        for name, told in report["answers"].items()
    )
    return rows_of((*head, "Köppen class", "land cover"), rows) + (
        f"\nBetter than their own key encoder for certain? {answers}.\n"
    )


_STYLES = (("style", "look"), ("climate", "climate"), ("habitat", "taxon that lives there"))


def style(report: Mapping[str, Any]) -> str:
    """Make the table of ``terrascape evaluate style``, a row for each way of being told."""
    told, beside = report["metrics"], report["controls"]
    rows = []
    for kind, label in _STYLES:
        low, high = report["intervals"][f"{kind}_towards"]
        others = (f"{beside[f'{kind}_towards_{name}']:.2f}" for name in ("real", "shuffled"))
        share = f"{told[f'{kind}_towards']:.2f} ({low:.2f} to {high:.2f})"
        rows.append((label, share, *others, f"{told[f'{kind}_pairs']:.0f}"))
    head = ("told of another place: its", "moves towards it", "real tiles", "a third climate")
    return rows_of((*head, "pairs"), rows) + (
        "\nThe share of pictures of one layout and noise that lie nearer to real tiles of the "
        "other place once they\nare told of it; one half is chance. In brackets: 95 % over blocks "
        "of 10 degrees.\n"
    )


_WAYS = (
    ("image alone", "image"),
    ("image and place", "place"),
    ("the first of these, matched", "matched"),
    ("image with a far place", "other_place"),
    ("a far image, right place", "other_image"),
    ("mean colour", "colour"),
)


def birdsat(report: Mapping[str, Any]) -> str:
    """Make the table of ``terrascape evaluate birdsat``, a row for each way of asking."""
    values = {**report["metrics"], **report["controls"]}
    depths = ("recall_at_1", "recall_at_5", "recall_at_10", "near_at_1", "near_at_10")
    rows = [
        (label, *(f"{values[f'{way}/{depth}']:.3f}" for depth in depths))
        for label, way in _WAYS
        if f"{way}/recall_at_1" in values
    ]
    head = ("asked with", "itself first", "in 5", "in 10", "one within 10 km first", "in 10")
    data = report["data"]
    pairs = (
        f"Of true and false pairs {values['pairs/right']:.3f} are told right (with places "
        f"exchanged {values['pairs/right_other_place']:.3f}).\n"
        if "pairs/right_other_place" in values
        else ""
    )
    return rows_of(head, rows) + (
        f"\n{data['pairs']} views of {data['sets']} sets; by chance "
        f"{values['chance/recall_at_10']:.3f} in 10.\n{pairs}"
    )
