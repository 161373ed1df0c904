"""``terrascape range``: databases of looks, and where the look of a place comes from."""

import argparse
from dataclasses import asdict
from pathlib import Path

from generation.console import Parser, Progress, print_json, real, tell_notes, whole
from generation.geo.location import Location

_MODEL = "range-nano"


def add_range(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Declare the command."""
    command = commands.add_parser(
        "range",
        help="how places look, and from where that is known",
        description="Build a database of how places look, or ask one (RANGE).",
    )
    kinds = command.add_subparsers(title="kinds", metavar="KIND", required=True)
    _add_build(kinds)
    _add_sources(kinds)


def _add_build(kinds: "argparse._SubParsersAction[Parser]") -> None:
    parser = kinds.add_parser(
        "build",
        help="make a database of your own images",
        description=(
            "Embed the images of Parquet files with the columns image, lat and lon, row by row, "
            "and write a folder that --style-database takes. Images are of one size and about one "
            "scale; for the embedded model, 256 px of web-mercator zoom 8. Started again, it goes "
            "on where it stopped."
        ),
    )
    add = parser.add_argument
    add("images", type=Path, nargs="+", metavar="FILE", help="Parquet files")
    add("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    add("--model", default=_MODEL, help="whose encoders embed them: a name or a folder")
    add("--licence", default="", help="of the images, kept beside the rows")
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_build)


def _build(args: argparse.Namespace) -> None:
    from generation.encoders.retrieval_build import build_database
    from generation.encoders.retrieval_model import load_retrieval

    built = build_database(
        args.images,
        load_retrieval(args.model),
        args.out,
        licence=args.licence,
        on_rows=Progress("image"),
    )
    notes = (
        [f"{built.resumed} of {built.rows} images were embedded before"] if built.resumed else []
    )
    if built.repeated:
        notes.append(f"{built.repeated} images are the same as another; they count twice")
    tell_notes(notes)
    if args.json:
        print_json({"folder": str(args.out), **asdict(built)})
    else:
        print(args.out)


def _add_sources(kinds: "argparse._SubParsersAction[Parser]") -> None:
    parser = kinds.add_parser(
        "sources",
        help="where the look of a place comes from",
        description="List the places whose looks go into that of a place, with their shares.",
    )
    add = parser.add_argument
    add("--lat", type=real, required=True, help="degrees north")
    add("--lon", type=real, required=True, help="degrees east")
    add("--sharpness", type=real, metavar="N", help="0: what lies near, to 1: what is alike")
    add("--top", type=whole, default=10, metavar="N", help="so many places")
    add("--model", default=_MODEL, help="a name, or a folder that `range build` made")
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_sources)


def _sources(args: argparse.Namespace) -> None:
    from generation.encoders.retrieval_model import load_retrieval

    place = Location(args.lat, args.lon)
    retrieval = load_retrieval(args.model)
    encoder = retrieval.encoder
    found = encoder.sources(place.lat, place.lon, top=args.top, beta=args.sharpness)
    spread = encoder.spread_km(place.lat, place.lon, beta=args.sharpness)
    if args.json:
        print_json(
            {
                **asdict(place),
                "model_sha256": retrieval.sha256,
                "sharpness": encoder.beta if args.sharpness is None else args.sharpness,
                "radius_km": encoder.radius_km,
                "half_of_weight_within_km": spread,
                "sources": [asdict(each) for each in found],
            }
        )
        return
    tell_notes([f"half of all weight lies within {spread:,.0f} km"])
    for each in found:
        print(f"{each.weight:7.4f}  {each.km:8,.0f} km  {each.lat:8.3f} {each.lon:9.3f}")
