"""A postcard: one page with a place from above, all around and to be heard, in a single file."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

_STYLE = """
:root { color-scheme: light dark;
  --paper: #faf9f6; --ink: #23262b; --soft: #6b7078; --line: #d9d6cf }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17191d; --ink: #ecebe7; --soft: #9aa0a8; --line: #33373d }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 48px }
h1 { font-size: 1.5rem; margin: 0 }
p { margin: .25rem 0 }
.soft { color: var(--soft); font-size: .875rem }
figure { margin: 20px 0 0 }
figcaption { margin-top: 6px; color: var(--soft); font-size: .875rem }
img { display: block; width: 100%; height: auto; border-radius: 6px }
.around { overflow-x: auto; border-radius: 6px; cursor: grab; touch-action: pan-x }
.around img { width: max(100%, 1024px); border-radius: 0 }
.pair { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 20px }
@media (max-width: 640px) { .pair { grid-template-columns: 1fr; gap: 0 } }
audio { width: 100%; margin-top: 10px }
ul { padding-left: 1.2rem; margin: .5rem 0 0 }
footer { margin-top: 28px; padding-top: 14px; border-top: 1px solid var(--line) }
code { font-size: .8125rem; overflow-wrap: anywhere }
"""
_DRAG = """
for (const box of document.querySelectorAll('.around')) {
  let from = null;
  box.addEventListener('pointerdown', e => {
    if (e.pointerType === 'mouse') { from = e.clientX + box.scrollLeft; e.preventDefault(); }
  });
  addEventListener('pointermove', e => { if (from !== null) box.scrollLeft = from - e.clientX; });
  addEventListener('pointerup', () => { from = null; });
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What stands on a postcard."""

    title: str
    when: str
    """Month and hour in words; empty if any."""
    above: bytes
    """PNG of the satellite image."""
    around: bytes
    """JPEG of the panorama."""
    spectrogram: bytes
    """PNG."""
    sound: bytes
    """FLAC."""
    loop: bool
    heard: Sequence[str]
    """The sources, a line each."""
    notes: Sequence[str]
    """What to know of all three."""
    made: Sequence[tuple[str, str]]
    """File names, and what made each."""


def card_page(card: Card) -> bytes:
    """Write the page; equal cards give equal bytes, and nothing is fetched to show it."""
    looping = " loop" if card.loop else ""
    heard = "".join(f"<li>{_safe(line)}</li>" for line in card.heard)
    notes = "".join(f"<li>{_safe(line)}</li>" for line in dict.fromkeys(card.notes))
    made = "".join(
        f"<p class=soft><code>{_safe(name)}</code> {_safe(maker)}</p>" for name, maker in card.made
    )
    when = f"<p class=soft>{_safe(card.when)}</p>" if card.when else ""
    return f"""<!doctype html>
<html lang=en><head><meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta name=generator content="Terrascape, synthetic media">
<title>{_safe(card.title)}</title><style>{_STYLE}</style></head><body><main>
<h1>{_safe(card.title)}</h1>{when}
<p class=soft>Synthetic: nothing on this card was photographed or recorded there.</p>
<figure><div class=around tabindex=0 role=region aria-label="panorama, scrolls sideways">
<img alt="panorama, all around" src="{_inline("image/jpeg", card.around)}"></div>
<figcaption>All around, drag to look</figcaption></figure>
<div class=pair>
<figure><img alt="satellite image" src="{_inline("image/png", card.above)}">
<figcaption>From above, north up</figcaption></figure>
<figure><img alt="spectrogram" src="{_inline("image/png", card.spectrogram)}">
<audio controls{looping} src="{_inline("audio/flac", card.sound)}"></audio>
<figcaption>To be heard there<ul>{heard}</ul></figcaption></figure>
</div>
<footer>{made}<ul class=soft>{notes}</ul></footer>
</main><script>{_DRAG}</script></body></html>
""".encode()


def _safe(text: str) -> str:
    return html.escape(text, quote=True)


def _inline(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
