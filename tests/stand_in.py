"""A renderer that costs nothing: real spec, window and layout, pixels straight from the seed."""

from dataclasses import dataclass, replace

import numpy as np

from generation.geo.layout import CLASSES, Layout
from generation.geo.sources import FileSource


@dataclass
class Drawn:
    image: np.ndarray
    layout: Layout | None
    spec: object
    window: object
    provenance: dict


def make_layout(spec):
    window = spec.window()
    if spec.layout == "none":
        return None
    if spec.layout_path is not None:
        return FileSource(spec.layout_path).layout(window)
    classes = np.arange(window.height_px)[:, None] // 32 % len(CLASSES) + np.zeros(
        (1, window.width_px)
    )
    return Layout(classes.astype(np.uint8), window, "stripes", "© nobody")


def draw(spec, *, on_step=None, cancelled=None, online=False, version="1", model_sha256="ab" * 32):
    """Noise of the seed over the layout: another seed, place or layout gives another picture."""
    layout = make_layout(spec)
    rng = np.random.default_rng(spec.seed)
    image = rng.integers(0, 120, (spec.size, spec.size, 3), dtype=np.uint8)
    if layout is not None:
        image += layout.rgb() // 2
    if on_step is not None:
        for step in range(spec.steps):
            on_step(step + 1, spec.steps, image)
    provenance = {
        "model": spec.model,
        "model_sha256": model_sha256,
        "versions": {"torch": version},
        "device": "cpu",
        "licences": ["Apache-2.0"],
        "attribution": layout.attribution if layout else "",
        "online": online,
        "seconds": float(rng.random()),
        "notes": [],
    }
    return Drawn(image, layout, spec, spec.window(), provenance)


def names(folder):
    """List a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def repaint(render, **changes):
    """Give a copy of a render with other attributes."""
    return replace(render, **changes)
