"""``terrascape map range`` and ``terrascape species``: where a taxon lives, and who lives here."""

import argparse
import dataclasses
from pathlib import Path

from generation.console import Parser, print_json, real, tell_notes, whole
from generation.geo.location import Location

_MODEL = "ranges-nano"


def add_map_range(kinds: "argparse._SubParsersAction[Parser]") -> None:
    """Declare the kind of map."""
    parser = kinds.add_parser(
        "range",
        help="where a taxon could live",
        description="Map how likely a species, a genus, a family or an order lives in each cell.",
    )
    add = parser.add_argument
    add("--taxon", required=True, help="such as 'Panthera leo' or 'Carnivora Felidae'")
    add("--region", metavar="W,S,E,N", help="a box in degrees; the whole Earth if absent")
    add("--cell", type=real, default=0.5, metavar="DEG", help="side of a cell in degrees")
    add("--out", type=Path, required=True, help="a new .tif; a .png lies beside it")
    _add_climate(parser)
    parser.set_defaults(run=_map_range)


def add_species(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "species",
        help="who could live at a place",
        description="List the mammals that most likely live at a place.",
    )
    add = parser.add_argument
    add("--lat", type=real, required=True, help="degrees north")
    add("--lon", type=real, required=True, help="degrees east")
    add("--top", type=whole, default=20, metavar="N", help="so many species")
    add("--unlearnt", action="store_true", help="also those whose ranges the model never saw")
    _add_climate(parser)
    parser.set_defaults(run=_species)


def _add_climate(parser: Parser) -> None:
    add = parser.add_argument
    add("--warmer", type=real, default=0.0, metavar="C", help="what if it were so much warmer")
    add("--rain", type=real, default=0.0, metavar="PERCENT", help="what if it rained more, or less")
    add("--model", default=_MODEL, help="a model of ranges")
    add("--json", action="store_true", help="print one JSON object")


def _map_range(args: argparse.Namespace) -> None:
    from generation.encoders.range_encoder import load_range_encoder
    from generation.geo.grid import parse_region
    from generation.pipelines.range_maps import WORLD, DegreeGrid, range_map, save_range_map

    region = WORLD if args.region is None else parse_region(args.region)
    encoder = load_range_encoder(args.model)
    found = range_map(
        encoder,
        encoder.taxonomy.resolve(args.taxon),
        DegreeGrid(region, args.cell),
        warmer_c=args.warmer,
        rain_share=args.rain / 100,
    )
    files = [str(path) for path in save_range_map(found, args.out)]
    notes = found.about["notes"]
    tell_notes([str(note) for note in notes] if isinstance(notes, list) else [])
    if args.json:
        print_json({"files": files, "map": found.about})
    else:
        print(*files, sep="\n")


def _species(args: argparse.Namespace) -> None:
    from generation.encoders.range_encoder import load_range_encoder
    from generation.pipelines.range_maps import ranked_species

    place = Location(args.lat, args.lon)
    encoder = load_range_encoder(args.model)
    found = ranked_species(
        encoder,
        (place.lat, place.lon),
        args.top,
        warmer_c=args.warmer,
        rain_share=args.rain / 100,
        unlearnt=args.unlearnt,
    )
    tell_notes(found.notes)
    if args.json:
        print_json(
            {**dataclasses.asdict(place), "model": encoder.name, **dataclasses.asdict(found)}
        )
        return
    for each in found.species:
        print(f"{float(str(each['likely'])):6.3f}  {each['taxon']}")
    for change, names in (("gained", found.gained), ("lost", found.lost)):
        if names:
            print(f"\n{change}: {len(names)}", *names[: args.top], sep="\n  ")
