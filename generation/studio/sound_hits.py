"""What the sound tab shows of an answer, as HTML: cards, the meaning of the map's colours, notes.

Titles, names and addresses come from other people: all of them are escaped, and only addresses of
web pages become links.
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from generation.geo.location import Location
from generation.studio.map_widget import place_text
from generation.studio.score_map import ScoreMap
from generation.studio.sound_search import NEAR_KM, Answer
from generation.studio.stage import page_words

if TYPE_CHECKING:
    from generation.encoders.gallery_rows import Hit

# Annotations that name these are strings: the shape checks of the tests resolve them late.

QUERIES = (
    *("waves on a beach", "a tropical shower", "birds in a forest", "a rooster at dawn"),
    *("a dog in the village", "a helicopter", "logging in the woods", "a bush fire"),
)
"""Questions worth a first look, one for each kind of sound that the embedded spaces know."""
SIMULATED = (
    "Places of sounds are simulated: what a place sounds like was learnt from clips that were not "
    "recorded there."
)
_WORDS = {"tile": "place", "clip": "clip", "caption": "sentence"}
"""What the kinds of rows are called on the page."""
_SECTION = '<section class="ts-found" aria-label="Results" aria-live="polite"'


def queries_html() -> str:
    """List the example questions as chips."""
    chips = "".join(
        f'<button type="button" class="ts-chip" data-pick="{query}">{query}</button>'
        for query in map(escape, QUERIES)
    )
    return f'<div class="ts-chips" role="group" aria-label="Example questions">{chips}</div>'


def empty_hits(why: str = "") -> str:
    """Show what will be where before the first question, or why nothing can be asked."""
    if why:
        return refused_hits(why)
    return (
        f'{_SECTION}><p class="ts-caption">Write what is heard, press an example or drop a clip: '
        "the places, sounds and sentences that are most alike appear here.</p></section>"
    )


def asking_hits() -> str:
    """Tell that a question is on its way."""
    return (
        f'{_SECTION} aria-busy="true"><p class="ts-status" role="status">Listening and comparing… '
        "The first question takes longer, for the model is loaded.</p></section>"
    )


def refused_hits(text: str) -> str:
    """Tell in the results' place why there are none."""
    return f'{_SECTION}><p class="ts-note ts-wrong" role="alert">{page_words(text)}</p></section>'


def hits_html(answer: Answer) -> str:
    """List what was found, the best first."""
    if not answer.hits:
        near = f" within {NEAR_KM:,.0f} km of the place" if answer.question.near else ""
        kinds = " or ".join(_WORDS[kind] for kind in answer.question.kinds)
        return (
            f'{_SECTION}><p class="ts-note">The gallery has no {kinds}{near}: choose other '
            "kinds, or search everywhere.</p></section>"
        )
    cards = "".join(_card(rank, hit) for rank, hit in enumerate(answer.hits, 1))
    head = (
        f"{len(answer.hits)} most alike {escape(answer.question.label)}, understood by "
        f"{escape(answer.model)}"
    )
    return (
        f'{_SECTION}><p class="ts-caption">{head}</p><ol class="ts-hits">{cards}</ol>'
        f'<p class="ts-note">{SIMULATED}</p></section>'
    )


def scale_html(scores: ScoreMap | None, label: str = "") -> str:
    """Tell what the colours of the map mean."""
    if scores is None:
        return (
            '<p class="ts-caption">A search colours the places that have a tile in the gallery. '
            "Click to choose a place.</p>"
        )
    ramp = f"linear-gradient(to right,{','.join(scores.colours)})"
    return (
        f'<div class="ts-scale"><span>≤ {scores.low:.3g}</span><i style="background:{ramp}" '
        'role="img" aria-label="From less alike, dark, to more alike, bright"></i>'
        f"<span>≥ {scores.high:.3g}</span></div>"
        f'<p class="ts-caption">How alike {scores.tiles:,} tiles are to {escape(label)}; brighter '
        "is more. Only places with a tile in the gallery are coloured.</p>"
    )


def place_html(place: Location | None) -> str:
    """Tell which place is chosen."""
    words = "none is chosen" if place is None else place_text(place.lat, place.lon)
    return f'<p class="ts-status" role="status">Place: {words}</p>'


def web_link(url: str) -> str:
    """Give an address if it is one of a web page; empty if it is anything else."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in ("http", "https") and parts.netloc else ""


def _card(rank: int, hit: "Hit") -> str:
    facts = [escape(fact) for fact in _facts(hit)]
    link = web_link(hit.url)
    if link:
        facts.append(
            f'<a href="{escape(link)}" target="_blank" rel="noopener noreferrer">source'
            f'<span class="ts-hidden"> of {escape(hit.title)}, opens a new page</span></a>'
        )
    return (
        f'<li class="ts-hit"><span class="ts-rank" aria-hidden="true">{rank}</span><div>'
        f'<p class="ts-hit-title"><b>{escape(hit.title)}</b></p>'
        f'<p class="ts-facts"><span class="ts-kind">{_WORDS[hit.kind]}</span>'
        f" {' · '.join(facts)}</p></div>"
        f'<div class="ts-hit-end"><span class="ts-score" title="Likeness; higher is more alike">'
        f"{hit.score:.3f}</span>{_set_place(hit)}</div></li>"
    )


def _facts(hit: "Hit") -> Sequence[str]:
    facts = []
    if hit.lat is not None and hit.lon is not None:
        simulated = " (simulated)" if hit.location_source == "simulated" else ""
        facts.append(place_text(round(hit.lat, 2), round(hit.lon, 2)) + simulated)
    return [*facts, *(each for each in (hit.licence, hit.author) if each)]


def _set_place(hit: "Hit") -> str:
    if hit.lat is None or hit.lon is None:
        return ""
    about = f"Choose {place_text(round(hit.lat, 2), round(hit.lon, 2))} as the place"
    return (
        f'<button type="button" class="ts-chip" data-pick="{hit.lat:.4f},{hit.lon:.4f}" '
        f'aria-label="{about}">Go here</button>'
    )
