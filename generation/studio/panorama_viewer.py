"""A panorama to look around in: dragged, zoomed or steered by keys, within the band it covers.

Pannellum draws it, which is served from ``assets/pannellum``. Where a browser cannot run it, the
flat picture stays.
"""

from html import escape
from typing import TYPE_CHECKING

from generation.registry import ASSETS

if TYPE_CHECKING:
    from generation.geo.sphere import Band

# Annotations that name it are strings: the page is put together without torch.

VIEWER = ASSETS / "pannellum"
"""Folder of the viewer's files; ``assets/SOURCES.md`` tells where they come from."""
VIEWER_JS, VIEWER_CSS = "pannellum.js", "pannellum.css"
"""Where the page finds them, relative to itself."""
COMPASS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
_WIDE_DEG = 100
"""Width of the view at first, degrees; less where the band is too low for it."""

MOUNT_JS = (
    f"const files = {{js: {VIEWER_JS!r}, css: {VIEWER_CSS!r}}}, wide = {_WIDE_DEG};\n"
    f"const compass = {list(COMPASS)!r};\n"
    """
let shown = null;
const fetched = () => window.tsPannellum ??= new Promise((done, failed) => {
  const css = Object.assign(document.createElement('link'), {rel: 'stylesheet', href: files.css});
  const js = Object.assign(document.createElement('script'), {src: files.js});
  js.addEventListener('load', done);
  js.addEventListener('error', () => { window.tsPannellum = null; failed(); });
  document.head.append(css, js);
});
const close = () => {
  if (!shown) return;
  clearInterval(shown.timer);
  shown.sizes?.disconnect();
  shown.viewer?.destroy();
  if (shown.url) URL.revokeObjectURL(shown.url);
  shown = null;
};
const mount = async () => {
  const box = element.querySelector('.ts-pano[data-heading]');
  if (shown && shown.box === box) return;
  close();
  if (!box) return;
  const mine = shown = {box};
  const flat = box.querySelector('img'), view = box.querySelector('.ts-pano-view');
  try {
    await fetched();
    const file = await (await fetch(flat.src)).blob();
    if (shown !== mine) return;
    const top = Number(box.dataset.top), bottom = Number(box.dataset.bottom);
    const heading = Number(box.dataset.heading);
    mine.url = URL.createObjectURL(file);
    mine.viewer = pannellum.viewer(view, {
      type: 'equirectangular', panorama: mine.url, autoLoad: true, ignoreGPanoXMP: true,
      haov: 360, vaov: top - bottom, vOffset: (top + bottom) / 2,
      minPitch: bottom, maxPitch: top, avoidShowingBackground: true,
      hfov: wide, minHfov: 30, maxHfov: 120, compass: true, northOffset: heading,
      capturedKeyNumbers: [37, 38, 39, 40, 61, 107, 109, 173, 187, 189],
    });
    mine.viewer.on('load', () => box.classList.add('ts-pano-open'));
    mine.sizes = new ResizeObserver(() => mine.viewer.resize());
    mine.sizes.observe(box);
    const told = element.querySelector('.ts-pano-look');
    mine.timer = setInterval(() => {
      const azimuth = ((mine.viewer.getYaw() + heading) % 360 + 360) % 360;
      const pitch = Math.round(mine.viewer.getPitch());
      const rise = pitch ? `, ${Math.abs(pitch)}° ${pitch > 0 ? 'up' : 'down'}` : '';
      const text = `Looking ${compass[Math.round(azimuth / 45) % 8]}, ` +
        `${Math.round(azimuth) % 360}°${rise}`;
      if (told && told.textContent !== text) told.textContent = text;
    }, 200);
  } catch {
    if (shown === mine) shown = {box};  // the flat picture stays
  }
};
new MutationObserver(mount).observe(element, {childList: true, subtree: true});
mount();
"""
)
"""Opens the panorama in the element, and again whenever another one takes its place."""


def viewer_html(source: str, band: "Band", heading_deg: float, badge: str) -> str:
    """Show a panorama that can be looked around in.

    Args:
        source: Of its picture, all azimuths wide.
        band: The elevations that it covers; nothing beyond them is shown.
        heading_deg: Where its middle looks.
        badge: HTML of what must always be said of it, laid over its corner.
    """
    about = (
        "Panorama of all directions: drag or use the arrow keys to look around, plus and minus to "
        "zoom"
    )
    return (
        f'<div class="ts-pano ts-frame" data-heading="{heading_deg:g}" '
        f'data-top="{band.top_deg:g}" data-bottom="{band.bottom_deg:g}">'
        f'<img src="{source}" alt="{flat_text(heading_deg)}">'
        f'<div class="ts-pano-view" role="application" aria-label="{escape(about)}"></div>'
        f"{badge}</div>"
    )


def flat_html(source: str | None, empty: str, badge: str = "") -> str:
    """Show a panorama flat, as it is while it is drawn; or say why there is none.

    Args:
        source: Of its picture, if there is one.
        empty: What is said in its stead.
        badge: HTML laid over its corner.
    """
    look = "ts-pano ts-frame ts-live" if badge else "ts-pano ts-frame"
    inner = (
        f'<img src="{source}" alt="The panorama as far as it is drawn">{badge}'
        if source
        else f'<span class="ts-empty">{escape(empty)}</span>'
    )
    return f'<div class="{look}">{inner}</div>'


def flat_text(heading_deg: float) -> str:
    """Say what a flat panorama is."""
    return f"The whole panorama, flat; its middle looks {compass_text(heading_deg)}"


def compass_text(azimuth_deg: float) -> str:
    """Write a direction for people."""
    return f"{COMPASS[round(azimuth_deg / 45) % 8]}, {round(azimuth_deg) % 360}°"
