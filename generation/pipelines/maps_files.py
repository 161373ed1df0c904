"""From what a person asks for to a soundscape map on disk: a GeoTIFF to measure, a PNG to look at.

Both say how they were made: from the TIFF's tag ``TERRASCAPE_MAP`` the map can be made again.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from generation.cards import SIMULATED
from generation.checkpoint import model_sha256
from generation.encoders.heads import Embedding
from generation.encoders.metadata import MONTH
from generation.encoders.sound_encoder import SoundEncoder, load_sound_encoder, unread_notes
from generation.errors import InvalidSpecError, OutputError
from generation.geo.grid import MapGrid
from generation.geo.imagery import FileImagery, Imagery
from generation.geo.layers import ATTRIBUTION
from generation.geo.location import Region
from generation.media.audio import open_audio
from generation.media.folder import output_folder, write_together
from generation.media.geotiff import Band, cog_bytes
from generation.pipelines.drawn_imagery import SECONDS_A_WINDOW, DrawnImagery, windows_to_draw
from generation.pipelines.maps import (
    OnCells,
    SoundMap,
    check_reach,
    kept_bytes,
    sound_map,
)
from generation.pipelines.maps_cache import MapCache
from generation.pipelines.maps_image import map_png
from generation.registry import SIMULATED_NOTE, locate

if TYPE_CHECKING:
    from generation.pipelines.satellite import SatellitePipeline

DRAWN = "generated"
"""What stands for imagery that is generated."""
MAX_DRAWN = 64
"""Windows that are generated without being asked to."""
PAINTER = "satellite-nano"
TAG = "TERRASCAPE_MAP"
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRequest:
    """A soundscape map as a person asks for it."""

    region: Region
    text: str = ""
    """What is to be heard; or ``audio``."""
    audio: Path | None = None
    """A recording of it."""
    model: str = "sat2sound-nano"
    month: int | None = None
    hour: float | None = None
    zoom: int = 8
    cell_px: int = 16
    view_px: int = 128
    imagery: tuple[str, ...] = ()
    """Files, or :data:`DRAWN`; none leaves small regions to be generated."""

    def __post_init__(self) -> None:
        if bool(self.text.strip()) == (self.audio is not None):
            given = "text and audio" if self.audio is not None else "neither text nor audio"
            raise InvalidSpecError(f"{given} (give either of them: a map answers one question)")
        if DRAWN in self.imagery and len(self.imagery) > 1:
            raise InvalidSpecError(
                f"imagery {', '.join(self.imagery)} (give files, or {DRAWN} alone)"
            )

    def grid(self) -> MapGrid:
        """Give the cells.

        Raises:
            InvalidSpecError: The region, or what the cells are, makes no map.
        """
        return MapGrid.covering(
            self.region, zoom=self.zoom, cell_px=self.cell_px, view_px=self.view_px
        )

    @property
    def asked(self) -> str:
        """The question, for people."""
        return f"“{self.text.strip()}”" if self.audio is None else f"sound of {self.audio.name}"


def make_sound_map(
    request: MapRequest,
    out: Path,
    *,
    cache: MapCache | None = None,
    tell: Tell = lambda _: None,
    on_cells: OnCells | None = None,
) -> tuple[SoundMap, list[Path]]:
    """Compute a map and write it as ``out`` and as a picture beside it, both or none.

    Args:
        request: What is asked for.
        out: A new file, ``.tif`` or ``.tiff``; the picture has its name with ``.png``.
        cache: Keeps what is seen; the person's own by default.
        tell: Told in sentences what is about to be done, and what to know of the result.
        on_cells: Told how many of the cells are done.

    Returns:
        The map and the two files.

    Raises:
        OutputError: A file is there already, or cannot be written.
        TerrascapeError: Whatever else the person can mend.
    """
    grid = request.grid()
    check_out(out)
    cache = cache or MapCache()
    imagery = open_imagery(request, grid, cache)
    encoder = load_sound_encoder(request.model)
    encoder.check_time(request.month, request.hour)
    check_reach(imagery, grid)
    query = _query(request, encoder)
    with output_folder(out.parent, needed_bytes=8 * grid.rows * grid.cols + 4_000_000):
        for note in _plans(imagery, encoder, grid, cache):
            tell(note)
        found = sound_map(
            encoder,
            imagery,
            grid,
            query,
            month=request.month,
            hour=request.hour,
            cache=cache,
            on_cells=on_cells,
        )
        paths = save_sound_map(found, request, out, cache)
    cache.trim()
    for note in remarks(found):
        tell(note)
    return found, paths


def check_out(out: Path) -> None:
    """Refuse a name that is taken or no TIFF's, before any work.

    Raises:
        OutputError: See there.
    """
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise OutputError(f"out={str(out)!r} is no GeoTIFF's name (let it end in .tif)")
    for path in (out, out.with_suffix(".png")):
        if path.exists() or path.is_symlink():
            raise OutputError(
                f"{path} exists and is not overwritten (remove it, or choose another name)"
            )


def open_imagery(request: MapRequest, grid: MapGrid, cache: MapCache) -> Imagery:
    """Give the imagery that was named; where none was, generate that of a small region.

    Raises:
        InvalidSpecError: None was named for a large region, or a file is none.
        MissingFileError: A file, or the model that generates, is not here.
    """
    if request.imagery and request.imagery != (DRAWN,):
        return FileImagery([Path(name) for name in request.imagery])
    count = windows_to_draw(grid)
    if not request.imagery and count > MAX_DRAWN:
        raise InvalidSpecError(
            f"no imagery for {grid.cols}x{grid.rows} cells, and generating it takes {count} "
            f"windows (up to {MAX_DRAWN} are generated unasked; give imagery as a GeoTIFF, or "
            f"{DRAWN})"
        )

    def load() -> "SatellitePipeline":
        from generation.pipelines.satellite import load_pipeline

        return load_pipeline(PAINTER)

    return DrawnImagery(load, model_sha256(locate(PAINTER)), cache, name=PAINTER)


def _plans(
    imagery: Imagery, encoder: SoundEncoder, grid: MapGrid, cache: MapCache
) -> Iterator[str]:
    """Tell what is about to be done, once there is nothing left to refuse."""
    if isinstance(imagery, DrawnImagery):
        yield (
            f"the imagery is generated: up to {windows_to_draw(grid)} windows of 256 px, about "
            f"{SECONDS_A_WINDOW} s each where they are new"
        )
    yield f"{grid.cols}x{grid.rows} cells, each of {_kilometres(grid):.3g} km"
    needed = kept_bytes(encoder, grid)
    if needed > cache.max_bytes:
        yield (
            f"seeing it all takes {needed / 1e9:.1f} GB, {cache.max_bytes / 1e9:.1f} GB are kept: "
            "another map of this region will look at parts of it again"
        )


def remarks(found: SoundMap) -> list[str]:
    """Tell what to know of a map before believing it."""
    notes = [SIMULATED_NOTE] if found.about["location_source"] == SIMULATED else []
    if found.about["imagery_synthetic"]:
        notes.append("the imagery is synthetic: this is no map of what is there")
    if found.missing:
        notes.append(
            f"{found.missing} of {found.scores.size} cells have no score: the imagery does not "
            f"cover their view of {found.grid.view_px} px"
        )
    return [*notes, *unread_notes(str(found.about["model"]), found.unread)]


def save_sound_map(
    found: SoundMap, request: MapRequest, out: Path, cache: MapCache | None = None
) -> list[Path]:
    """Write a map as GeoTIFF and as a picture beside it, both or none.

    Raises:
        OutputError: A file is there already, or cannot be written.
    """
    check_out(out)
    record = {"query": request.asked, **_described(request), **found.about}
    credit = _credit(found)
    tags = {
        TAG: json.dumps(record, sort_keys=True),
        "QUERY": request.asked,
        "MODEL": str(found.about["model"]),
        "MODEL_SHA256": str(found.about["model_sha256"]),
        "MONTH": _told(request.month),
        "HOUR": _told(request.hour),
        "IMAGERY": str(found.about["imagery"]),
        "IMAGERY_SYNTHETIC": str(found.about["imagery_synthetic"]).lower(),
        "LOCATION_SOURCE": str(found.about["location_source"]),
        "ATTRIBUTION": credit,
    }
    bands = [Band("score", found.unit, found.scores)]
    if found.uncertainty is not None:
        bands.append(Band("uncertainty", "sum of standard deviations", found.uncertainty))
    text = {"Title": request.asked, "Copyright": credit, TAG: tags[TAG]}
    return write_together(
        {
            out: cog_bytes(bands, found.grid.transform, tags),
            out.with_suffix(".png"): map_png(found, _title(request, found), credit, text, cache),
        }
    )


def _query(request: MapRequest, encoder: SoundEncoder) -> Embedding:
    if request.audio is not None:
        return encoder.audio([open_audio(request.audio)])
    return encoder.text([request.text])


def _described(request: MapRequest) -> dict[str, object]:
    """Give a request as JSON can hold it; what the map itself tells is left out."""
    audio = None if request.audio is None else str(request.audio)
    files = list(request.imagery)
    region = list(dataclasses.astuple(request.region))
    return {"text": request.text, "audio": audio, "imagery_files": files, "region": region}


def _told(value: float | int | None) -> str:
    return "not told" if value is None else f"{value:g}"


def _title(request: MapRequest, found: SoundMap) -> str:
    """Give the question with its time, as in: “surf”, May, 06:00 local time, sat2sound-nano."""
    parts = [request.asked]
    if request.month is not None and MONTH not in found.unread:
        parts.append(_MONTHS[request.month - 1])
    if request.hour is not None:
        minutes = round(request.hour * 60) % (24 * 60)
        parts.append(f"{minutes // 60:02d}:{minutes % 60:02d} local time")
    synthetic = ["synthetic imagery"] if found.about["imagery_synthetic"] else []
    return ", ".join([*parts, request.model, *synthetic])


def _credit(found: SoundMap) -> str:
    """Give the small print: imagery, its owner, the base map, and what was simulated."""
    about = found.about
    named = about["attribution"] not in ("", ATTRIBUTION)  # the latter is named at the end
    owner = f" ({about['attribution']})" if named else ""
    warning = " SYNTHETIC IMAGERY: no map of what is there." if about["imagery_synthetic"] else ""
    simulated = about["location_source"] == SIMULATED
    learnt = "; learnt from sounds whose places are simulated" if simulated else ""
    return (
        f"Imagery: {about['imagery']}{owner}.{warning} Model: {about['model']}, sha256 "
        f"{str(about['model_sha256'])[:12]}{learnt}. {ATTRIBUTION}"
    )


def _kilometres(grid: MapGrid) -> float:
    """Give the side of a cell on the ground in the middle of the map."""
    return grid.cell_px * grid.window.gsd_m / 1000
