"""What OpenStreetMap's tags mean for the layout: one table, read top to bottom.

Each key maps its values to a :class:`Rule`; ``"*"`` stands for every value that is not listed and
``None`` for "draws nothing". Keys are tried in the order of :data:`RULES`, so a building on a
meadow is a building. Areas and lines are told apart by the geometry, never guessed from the tags.

Widths are metres on the ground, taken from the tag ``width`` where it is a plain number of metres
and else typical of the class. ``from_zoom`` keeps small things off small-scale maps, where the
least drawable width of one pixel would turn every footpath into a motorway.

What lies underground (tunnels, cellars, ``layer`` below zero) is drawn by no rule: no satellite
sees it. Left out on purpose: boundaries, trees and other points, tree rows, power lines, fences.

Source:
    The key and value definitions of wiki.openstreetmap.org/wiki/Map_features; the zoom levels
    follow the habit of the OSM Carto map style, rounded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

COASTLINE = "coastline"
"""Layer of lines that part land (left) from sea (right); :mod:`generation.geo.coast` fills them."""
MAX_WIDTH_M = 200.0
"""A ``width`` tag above this is a typing mistake."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How one tag is drawn."""

    layer: str
    width_m: float | None = None
    """Width of a line in metres; ``None``: the tag is drawn for areas only."""
    from_zoom: int = 0
    """The lowest zoom level at which it is drawn."""


def _areas(layer: str, values: str, from_zoom: int = 0) -> dict[str, Rule | None]:
    return {value: Rule(layer, from_zoom=from_zoom) for value in values.split()}


def _lines(layer: str, rows: list[tuple[str, float, int]]) -> dict[str, Rule | None]:
    return {
        value: Rule(layer, width_m, from_zoom)
        for values, width_m, from_zoom in rows
        for value in values.split()
    }


def _nothing(values: str) -> dict[str, Rule | None]:
    return dict.fromkeys(values.split())


_RUINED = "abandoned razed dismantled proposed construction planned disused demolished no"

RULES: dict[str, dict[str, Rule | None]] = {
    "building": {
        **_nothing("no underground entrance proposed demolished razed"),
        "*": Rule("building", from_zoom=13),
    },
    "aeroway": {
        **_lines("road", [("runway", 45.0, 10), ("taxiway", 18.0, 13), ("taxilane", 12.0, 14)]),
        **_areas("road", "apron helipad", 11),
        **_areas("building", "terminal hangar", 13),
        **_areas("grass", "aerodrome"),
    },
    "highway": {
        **_lines(
            "road",
            [
                ("motorway", 12.0, 5),
                ("trunk", 11.0, 6),
                ("primary", 10.0, 8),
                ("motorway_link trunk_link primary_link", 6.0, 11),
                ("secondary", 9.0, 9),
                ("tertiary", 8.0, 11),
                ("secondary_link tertiary_link", 6.0, 12),
                ("unclassified residential road raceway busway", 6.0, 12),
                ("living_street pedestrian", 5.0, 13),
                ("service", 4.0, 14),
                ("track", 3.0, 14),
                ("footway cycleway bridleway path steps trail", 2.0, 16),
            ],
        ),
        **_areas("road", "rest_area services", 14),
        **_nothing(f"corridor elevator platform via_ferrata {_RUINED}"),
    },
    "railway": {
        **_lines(
            "rail",
            [
                ("rail", 4.0, 8),
                ("light_rail subway narrow_gauge monorail", 4.0, 11),
                ("tram funicular miniature", 3.0, 14),
            ],
        ),
        **_areas("building", "station roundhouse", 14),
        **_nothing(f"platform {_RUINED}"),
    },
    "waterway": {
        **_lines(
            "river",
            [
                ("river", 20.0, 8),
                ("canal", 12.0, 10),
                ("stream", 3.0, 13),
                ("drain ditch", 2.0, 14),
                ("tidal_channel", 6.0, 12),
            ],
        ),
        **_areas("river", "riverbank"),
        **_areas("lake", "dock boatyard"),
    },
    "natural": {
        "coastline": Rule(COASTLINE, width_m=0.0),
        **_areas("lake", "water"),  # the tag ``water`` may make it a river, see _water
        **_areas("glacier", "glacier"),
        **_areas("forest", "wood"),
        **_areas("shrub", "scrub heath shrubbery"),
        **_areas("grass", "grassland fell tundra grass"),
        **_areas(
            "bare",
            "sand beach shingle scree bare_rock rock stone mud dune blockfield earth_bank desert",
        ),
        **_areas("wetland", "wetland"),
    },
    "landuse": {
        **_areas("forest", "forest"),
        **_areas(
            "crop",
            "farmland orchard vineyard plant_nursery allotments greenhouse_horticulture farm",
        ),
        **_areas(
            "grass", "meadow grass village_green recreation_ground cemetery flowerbed greenfield"
        ),
        **_areas("bare", "quarry landfill"),
        **_areas("lake", "reservoir basin pond salt_pond aquaculture"),
        **_areas(
            "urban",
            "residential commercial retail industrial construction brownfield garages"
            " railway depot port education religious institutional civil military"
            " farmyard fairground churchyard highway",
        ),
    },
    "wetland": {"*": Rule("wetland")},
    "leisure": {
        **_areas(
            "grass",
            "park garden golf_course pitch playground common dog_park"
            " recreation_ground horse_riding",
        ),
        **_areas("urban", "stadium sports_centre track fitness_station"),
        **_areas("lake", "swimming_pool swimming_area", 14),
    },
    "amenity": _areas(
        "urban",
        "parking school university college hospital kindergarten marketplace"
        " fuel bus_station prison grave_yard fire_station police",
    ),
    "man_made": {
        **_areas("road", "bridge", 14),
        "pier": Rule("road", 3.0, 14),
        "breakwater": Rule("road", 5.0, 13),
        "groyne": Rule("road", 3.0, 14),  # "road": paved ground that lies above the water
    },
    "place": _areas("road", "square", 14),
    "area:highway": {"*": Rule("road", from_zoom=16)},
}
"""key -> value -> how it is drawn; the first key that a feature has with a known value decides."""

QUERY: dict[str, bool | str | list[str]] = {
    key: True if "*" in values or len(values) > 14 else sorted(v for v, r in values.items() if r)
    for key, values in RULES.items()
    if key not in ("area:highway", "wetland")
}
"""The tags to ask a server for; the shape that osmnx wants."""
KEYS: frozenset[str] = frozenset(
    {*RULES, "water", "width", "area", "tunnel", "layer", "location", "indoor", "covered"}
)
"""Every key that any rule looks at."""


def classify(tags: Mapping[str, str], *, is_area: bool) -> Rule | None:
    """Find how a feature is drawn.

    Args:
        tags: Its OpenStreetMap tags.
        is_area: Whether its geometry is a polygon.

    Returns:
        The rule, with the width of a ``width`` tag where there is one; ``None``: not drawn.
    """
    if _is_underground(tags):
        return None
    for key, values in RULES.items():
        value = tags.get(key)
        if value is None:
            continue
        rule = values.get(value, values.get("*"))
        if rule is None or (not is_area and rule.width_m is None):
            continue
        if key == "natural" and value == "water":
            return _water(tags, rule)
        if is_area or rule.layer == COASTLINE:
            return rule
        width_m = parse_width_m(tags.get("width"))
        return rule if width_m is None else Rule(rule.layer, width_m, rule.from_zoom)
    return None


def parse_width_m(text: str | None) -> float | None:
    """Read a ``width`` tag: metres, with or without the unit.

    Returns:
        Metres, or ``None`` for other units, lists, words and impossible numbers, for which the
        class's typical width is used.
    """
    if text is None:
        return None
    try:
        width_m = float(text.strip().removesuffix("m").strip())
    except ValueError:
        return None
    return width_m if 0.3 <= width_m <= MAX_WIDTH_M else None


def _water(tags: Mapping[str, str], lake: Rule) -> Rule:
    """Tell running from standing water."""
    running = tags.get("water") in {"river", "canal", "stream", "rapids", "oxbow_river", "ditch"}
    return Rule("river") if running else lake


def _is_underground(tags: Mapping[str, str]) -> bool:
    """Whether no satellite can see it."""
    if tags.get("tunnel", "no") not in ("no", "building_passage"):
        return True
    if tags.get("location") in ("underground", "indoor") or tags.get("indoor", "no") != "no":
        return True
    layer = tags.get("layer", "0").lstrip()
    is_building = tags.get("building", "no") != "no"
    return layer.startswith("-") and (is_building or "highway" in tags or "railway" in tags)
