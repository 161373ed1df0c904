"""Which named regions, seas and countries a point lies in, from files of named shapes."""

from collections.abc import Sequence
from pathlib import Path

from generation.errors import ConfigError, MissingFileError
from generation.geo.location import Location


class PlaceNames:
    """Names by place, from GeoParquet files in degrees such as those of Natural Earth.

    Args:
        files: Each with a column ``name`` (in any case) and polygons in WGS84.

    Raises:
        MissingFileError: A file is not there.
        ConfigError: A file has no such column, or other coordinates.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        import shapely

        names: list[str] = []
        shapes: list[object] = []
        for path in files:
            found = _read(path)
            names += found[0]
            shapes += found[1]
        self._names = names
        self._shapes = shapes
        self._tree = shapely.STRtree(shapes)

    def __len__(self) -> int:
        return len(self._names)

    def at(self, place: Location) -> list[str]:
        """List the names of the shapes around a point, smallest first, each once."""
        import shapely

        rows = self._tree.query(shapely.Point(place.lon, place.lat), predicate="intersects")
        rows = sorted(rows.tolist(), key=lambda row: shapely.area(self._shapes[row]))
        return list(dict.fromkeys(self._names[row] for row in rows))


def _read(path: Path) -> tuple[list[str], list[object]]:
    import geopandas

    if not path.is_file():
        raise MissingFileError(f"no file of names at {path} (give GeoParquet files)")
    try:
        table = geopandas.read_parquet(path)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} is no GeoParquet: {error} (give files with names)") from error
    column = next((c for c in table.columns if c.lower() == "name"), None)
    if column is None or table.crs is None or not table.crs.is_geographic:
        raise ConfigError(
            f"{path}: a column 'name' and coordinates in degrees are needed (columns: "
            f"{', '.join(map(str, table.columns))}; coordinates: {table.crs})"
        )
    named = table[table[column].notna() & ~table.geometry.is_empty & table.geometry.notna()]
    return [_spoken(name) for name in named[column]], list(named.geometry)


def _spoken(name: str) -> str:
    """Write a name as in a sentence: maps print the largest ones in capitals."""
    return name.title() if name.isupper() else name
