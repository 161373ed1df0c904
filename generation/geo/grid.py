"""Regular grids of places on the web-mercator map: what a map of anything is computed on."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from generation.errors import InvalidSpecError
from generation.geo.location import Location, Region
from generation.geo.mercator import Window, gsd_m, to_px, world_px

MAX_CELLS = 1_000_000
CELLS_PX = tuple(2**power for power in range(9))
"""Powers of two, so that cells meet at the antimeridian and pixels of a zoom level are cells."""
VIEW_PX = (8, 512)


def parse_region(text: str) -> Region:
    """Read west, south, east, north in degrees, with commas between.

    Raises:
        InvalidSpecError: It is not four numbers, or they are no box.
        InvalidLocationError: One lies outside its range.
    """
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise InvalidSpecError(
            f"region={text[:60]!r} is no box (give west,south,east,north in degrees, such as "
            "5,45,11,48)"
        ) from None
    return Region(west, south, east, north)


def window_of(region: Region, zoom: int, step_px: int = 1) -> Window:
    """Give the pixels that a region covers, its edges rounded outwards to multiples of a step.

    Raises:
        InvalidSpecError: The region has no width, or reaches beyond the map's edge.
    """
    if region.west == region.east:
        raise InvalidSpecError(
            f"a region from lon {region.west:g} to {region.east:g} is empty (give west,south,east,"
            "north with an east that lies east of west)"
        )
    left, top = to_px(Location(region.north, region.west), zoom)
    right, bottom = to_px(Location(region.south, region.east), zoom)
    if region.crosses_antimeridian:
        right += world_px(zoom)
    col, row = (math.floor(edge / step_px) * step_px for edge in (left, top))
    end_col, end_row = (math.ceil(edge / step_px) * step_px for edge in (right, bottom))
    return Window(zoom, col, row, end_col - col, end_row - row)


@dataclass(frozen=True, slots=True)
class MapGrid:
    """Square cells of one zoom level, each seen through a view around its middle.

    Cells lie on multiples of their size from the map's north-west corner, so that two grids of one
    zoom level and cell share the cells that both have.
    """

    window: Window
    """The pixels that the cells cover; beyond the map's width over the antimeridian."""
    cell_px: int = 16
    """Side of a cell."""
    view_px: int = 128
    """Side of the image that a cell is seen through."""

    def __post_init__(self) -> None:
        if self.cell_px not in CELLS_PX:
            raise InvalidSpecError(
                f"cell={self.cell_px} px is no cell ({', '.join(map(str, CELLS_PX))}; choose one "
                "of these)"
            )
        if not VIEW_PX[0] <= self.view_px <= VIEW_PX[1] or self.view_px % 2:
            raise InvalidSpecError(
                f"view={self.view_px} px is no view (give an even number, {VIEW_PX[0]} to "
                f"{VIEW_PX[1]})"
            )
        edges = self.window.col_px, self.window.row_px, self.window.width_px, self.window.height_px
        if any(edge % self.cell_px for edge in edges):
            raise InvalidSpecError(
                f"window {edges} (column, row, width, height) is not made of cells of "
                f"{self.cell_px} px (give multiples; MapGrid.covering does)"
            )
        if self.rows * self.cols > MAX_CELLS:
            raise InvalidSpecError(
                f"a map of {self.cols}x{self.rows} cells is too large (at most {MAX_CELLS}; choose "
                "a smaller region, a larger cell or a lower zoom; are west and east swapped?)"
            )

    @classmethod
    def covering(
        cls, region: Region, *, zoom: int = 8, cell_px: int = 16, view_px: int = 128
    ) -> "MapGrid":
        """Give the smallest grid that covers a region.

        Raises:
            InvalidSpecError: The region is empty, reaches beyond the map or has too many cells.
        """
        if not 0 <= zoom <= 22:
            raise InvalidSpecError(f"zoom={zoom} is no zoom level (0 to 22; choose one of these)")
        if cell_px not in CELLS_PX:  # before it divides anything
            cls(Window(zoom, 0, 0, 1, 1), cell_px, view_px)
        return cls(window_of(region, zoom, cell_px), cell_px, view_px)

    @property
    def zoom(self) -> int:
        """Of the pixels."""
        return self.window.zoom

    @property
    def rows(self) -> int:
        """Cells from north to south."""
        return self.window.height_px // self.cell_px

    @property
    def cols(self) -> int:
        """Cells from west to east."""
        return self.window.width_px // self.cell_px

    @property
    def world_cells(self) -> int:
        """Cells once around the Earth."""
        return world_px(self.zoom) // self.cell_px

    @property
    def bounds(self) -> Region:
        """The box in degrees; over the antimeridian, west is greater than east."""
        return self.window.bounds

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine map (a, b, c, d, e, f) from cell (column, row) to EPSG:3857 metres."""
        a, b, c, d, e, f = self.window.transform
        return a * self.cell_px, b, c, d, e * self.cell_px, f

    def views(self, row: int, col: int, rows: int, cols: int) -> Window | None:
        """Give the window that the views of a rectangle of cells cover, clipped to the map.

        Args:
            row: First row, counted from the map's northern edge.
            col: First column, counted from the map's western edge.
            rows: How many.
            cols: How many.
        """
        before = (self.cell_px - self.view_px) // 2
        width = (cols - 1) * self.cell_px + self.view_px
        top = row * self.cell_px + before
        bottom = min(top + (rows - 1) * self.cell_px + self.view_px, world_px(self.zoom))
        top = max(0, top)
        if bottom <= top:
            return None
        return Window(self.zoom, col * self.cell_px + before, top, width, bottom - top)

    def centers(
        self, rows: np.ndarray, cols: np.ndarray
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Give latitudes and longitudes of cells, counted from the map's north-west corner."""
        size = world_px(self.zoom)
        y = (np.asarray(rows, np.float64) + 0.5) * self.cell_px / size
        x = (np.asarray(cols, np.float64) + 0.5) * self.cell_px / size
        return np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y)))), x % 1.0 * 360 - 180

    def gsd_m(self, lat_deg: float) -> float:
        """Ground metres per pixel at a latitude."""
        return gsd_m(lat_deg, self.zoom)
