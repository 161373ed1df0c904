"""Layouts by hand: a canvas in the palette's colours, read back into classes."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np
from jaxtyping import UInt8

from generation.errors import LayoutError
from generation.geo.layout import CLASSES, MAP_TOLERANCE, PALETTE, Layout, LayoutClass
from generation.geo.mercator import Window
from generation.media.folder import atomic_write, output_folder
from generation.media.image import png_bytes, read_bytes

CANVAS_PX = 512
"""Side of the canvas; large enough to aim, whatever the size of the picture."""
FIRST_PAINT = "ocean"
"""The class on the brush at first."""
BRUSH_PX = 28
"""Width of the brush at first, pixels of the canvas."""
MAX_UNCLEAR = 0.3
"""The largest share of a drawing that may lie between two colours."""
LAYOUT_FOLDER = "layouts"
"""Folder of drawn and chosen layouts below the results."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A layout as drawn, at the canvas's size."""

    classes: UInt8[np.ndarray, "height width"]
    unclear: float
    """Share of the pixels that had no colour of the palette, such as the soft edges of a brush."""

    @property
    def note(self) -> str:
        """What the person should know of how the drawing was read."""
        if not self.unclear:
            return ""
        return (
            f"{self.unclear:.1%} of the drawing lay between two colours, as the soft edge of a "
            "stroke does; it took the ground beside it"
        )

    def fitted(self, size: int) -> UInt8[np.ndarray, "size size"]:
        """Give the classes at the picture's size, each pixel being what lies at its centre."""
        height, width = self.classes.shape
        middles = (np.arange(size) + 0.5) / size
        rows, cols = (middles * height).astype(int), (middles * width).astype(int)
        return self.classes[np.ix_(rows, cols)]

    def layout(self, window: Window) -> Layout:
        """Give the drawing as the layout of a window."""
        notes = (self.note,) if self.note else ()
        return Layout(self.fitted(window.width_px), window, "drawn by hand", notes=notes)


def canvas(layout: Layout) -> UInt8[np.ndarray, "height width 3"]:
    """Give a layout as the ground of the canvas."""
    side = layout.classes.shape[0]
    index = (np.arange(CANVAS_PX) * side) // CANVAS_PX
    return PALETTE[layout.classes[np.ix_(index, index)]]


def read_drawing(pixels: UInt8[np.ndarray, "height width channels"]) -> Drawing:
    """Read a canvas: a pixel with no palette colour takes the class of the nearest one that has.

    The soft edge of a stroke is a mixture of two colours, which may come close to a third; its
    neighbours tell better than its colour what it belongs to.

    Args:
        pixels: RGB, or RGBA where transparent pixels count as undrawn.

    Raises:
        LayoutError: Too much of it has no palette colour: a photograph, or nothing at all.
    """
    from scipy.ndimage import distance_transform_edt

    colour = pixels[..., :3].astype(np.int16)
    nearest = np.zeros(colour.shape[:2], np.uint8)
    least = np.full(colour.shape[:2], 256, np.int16)
    for index, rgb in enumerate(PALETTE.astype(np.int16)):
        distance = np.abs(colour - rgb).max(-1)
        nearer = distance < least
        nearest[nearer], least[nearer] = index, distance[nearer]
    clear = least <= MAP_TOLERANCE
    if pixels.shape[2] == 4:
        clear &= pixels[..., 3] == 255
    unclear = float(1 - clear.mean())
    if unclear > MAX_UNCLEAR:
        raise LayoutError(
            f"{unclear:.0%} of the drawing has no colour of the palette (at most "
            f"{MAX_UNCLEAR:.0%} may; press 'Start over' and draw with the colours of the brush)"
        )
    if unclear:
        rows, cols = distance_transform_edt(~clear, return_distances=False, return_indices=True)
        nearest = nearest[rows, cols]
    return Drawing(nearest, unclear)


def save_drawing(drawing: Drawing, size: int, out: Path) -> Path:
    """Save a drawing as a map that a RunSpec can name; the same drawing keeps its file."""
    data = png_bytes(
        PALETTE[drawing.fitted(size)],
        {"Software": "Terrascape", "Description": "layout: a map, drawn by hand"},
    )
    return keep_bytes(data, "drawn.png", out / LAYOUT_FOLDER)


def keep_layout(path: Path, out: Path) -> Path:
    """Copy a chosen map file beside the results, so that a replay finds it."""
    folder = out / LAYOUT_FOLDER
    if path.parent.resolve() == folder.resolve():
        return path
    return keep_bytes(read_bytes(path), path.name, folder)


def drawable() -> list[LayoutClass]:
    """List the classes that can be painted: all but the borders, which no source draws either."""
    return [each for each in CLASSES if each.name != "boundary"]


def paints() -> dict[str, str]:
    """Give the colour of each class that can be painted, as #rrggbb."""
    return {each.name: "#{:02x}{:02x}{:02x}".format(*each.rgb) for each in drawable()}


def brush() -> gr.Brush:
    """Give the brush as it is at first."""
    return gr.Brush(
        default_size=BRUSH_PX,
        colors=list(paints().values()),
        default_color=paints()[FIRST_PAINT],
        color_mode="fixed",
    )


BRUSH_JS = f"""(name, size) => {{
  const colours = {json.dumps(paints())};
  return {{__type__: 'update', brush: {{
    default_size: size, colors: Object.values(colours), default_color: colours[name],
    color_mode: 'fixed'}}}};
}}"""
"""Takes another colour or width on the brush, in the page itself, before the next stroke."""


def keep_bytes(data: bytes, name: str, folder: Path) -> Path:
    """Write a file whose name begins with its fingerprint; the same content keeps its file.

    Raises:
        OutputError: It cannot be written there.
    """
    with output_folder(folder, needed_bytes=len(data)) as made:
        path = made / f"{hashlib.sha256(data).hexdigest()[:12]}_{name[-80:]}"
        atomic_write(path, data)
    return path
