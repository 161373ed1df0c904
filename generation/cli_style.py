"""What ``terrascape render satellite`` takes of looks, habitats and climates."""

import argparse
import dataclasses
from pathlib import Path

from generation.console import Parser, Progress, print_json, real, tell_notes, whole
from generation.errors import InvalidSpecError
from generation.geo.location import Location
from generation.spec import RunSpec

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(RunSpec)}
_SCALES = {
    "style_guidance": "look of elsewhere",
    "habitat_guidance": "habitat",
    "climate_guidance": "climate",
}


def add_style(parser: Parser) -> None:
    """Declare the options."""
    group = parser.add_argument_group(
        "looks", "the layout stays that of the place; what is not given changes nothing"
    )
    add = group.add_argument
    add("--style-from", metavar="LAT,LON", help="look like that place, in the place's own layout")
    add(
        "--sharpness",
        type=real,
        default=_DEFAULTS["sharpness"],
        metavar="N",
        help="0: like what lies near it, to 1: like what resembles it",
    )
    add(
        "--style-database",
        default=_DEFAULTS["style_database"],
        metavar="NAME",
        help="where looks are taken from: a model, or a folder that `terrascape range build` made",
    )
    add("--taxon", default="", help="be the habitat of a species or a higher taxon of mammals")
    add("--warmer", type=real, dest="warmer_c", metavar="C", help="told its climate, so warmer")
    add(
        "--rain",
        type=real,
        dest="rain_percent",
        metavar="PERCENT",
        help="told its climate with more rain, or less; 0 is as it is",
    )
    for name, what in _SCALES.items():
        add(
            f"--{name.replace('_', '-')}",
            type=real,
            default=_DEFAULTS[name],
            metavar="N",
            help=f"how far the {what} is exaggerated, 0 (left out) to 20",
        )
    add(
        "--film-to",
        metavar="LAT,LON",
        help="draw frames whose look moves from there, or from the place itself, to this place",
    )
    add("--frames", type=whole, metavar="N", help="of such a film, 2 to 60 (8 unless given)")


def style_fields(args: argparse.Namespace) -> dict[str, object]:
    """Give the fields of a spec that need more than their name.

    Raises:
        InvalidSpecError: A place is none, or frames are given without a film.
    """
    if args.frames is not None and args.film_to is None:
        raise InvalidSpecError(f"--frames {args.frames} without a film (give --film-to as well)")
    if args.style_from is None:
        return {}
    place = place_of("--style-from", args.style_from)
    return {"style_lat": place.lat, "style_lon": place.lon}


def place_of(option: str, text: str) -> Location:
    """Read ``LAT,LON``.

    Raises:
        InvalidSpecError: It is no pair of numbers.
        InvalidLocationError: It is no place.
    """
    try:
        lat, lon = (float(part) for part in text.split(","))
    except ValueError:
        raise InvalidSpecError(
            f"{option} {text!r} is no place (give latitude and longitude in degrees, such as "
            f"{option}=45.98,7.66)"
        ) from None
    return Location(lat, lon)


def render_film(spec: RunSpec, args: argparse.Namespace, needed_bytes: int) -> None:
    """Draw a film and print its files."""
    from generation.media.folder import output_folder
    from generation.pipelines.film import draw_film, frames_of

    to = place_of("--film-to", args.film_to)
    specs = frames_of(spec.pinned(), (to.lat, to.lon), 8 if args.frames is None else args.frames)
    out: Path = args.out
    with output_folder(out, needed_bytes=needed_bytes * (len(specs) + 1)):
        film = draw_film(specs, out, on_frame=Progress("frame"), online=args.online)
    tell_notes(film.notes)
    files = [str(path) for path in (*film.frames, film.strip)]
    if args.json:
        print_json({"files": files, "strip": str(film.strip)})
    else:
        print(*files, sep="\n")
