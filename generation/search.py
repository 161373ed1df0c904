"""``terrascape search``: find tiles, clips and captions by words, a sound, an image or a place."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from generation.cards import SIMULATED
from generation.console import Parser, real, tell_notes, whole
from generation.errors import InvalidSpecError, shown
from generation.geo.location import Location
from generation.registry import GALLERY, SIMULATED_NOTE, list_models, places_are_simulated

if TYPE_CHECKING:
    from generation.encoders.gallery import Gallery
    from generation.encoders.gallery_rows import Hit
    from generation.encoders.heads import Embedding
    from generation.encoders.sound_encoder import SoundEncoder

# Annotations that name these are strings: the shape checks of the tests resolve them late.

ANSWERS = {
    "text": ("tile", "clip"),
    "audio": ("tile", "caption"),
    "image": ("clip", "caption"),
    "place": ("clip", "caption"),
}
"""What is looked for unless the person says: all but the query's own kind."""


def add_search(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "search",
        help="find tiles, clips and captions by words, a sound, an image or a place",
        description=(
            "Find what is most alike in a gallery: --text, --audio, --image, or --lat and --lon. "
            "Without --kind, all but the kind that was asked with is looked for; a place is asked "
            "with the tile of the gallery that is nearest to it."
        ),
    )
    add = parser.add_argument
    add("--text", help="words, such as 'surf on a beach'")
    add("--audio", type=Path, metavar="FILE", help="a recording")
    add(
        "--image",
        type=Path,
        metavar="FILE",
        help="a GeoTIFF of three 8-bit bands; its middle square counts",
    )
    add("--lat", type=real, help="degrees north")
    add("--lon", type=real, help="degrees east")
    add("--at-month", type=whole, metavar="M", help="imagine the image in this month, 1 to 12")
    add("--at-hour", type=real, metavar="H", help="imagine it at this local time, 0 to 23.99")
    add("--kind", action="append", default=[], help="tile, clip or caption; may be given again")
    add("--region", metavar="W,S,E,N", help="only what lies in this box, in degrees")
    add("--month", type=whole, metavar="M", help="only what is from this month, 1 to 12")
    add("--licence", action="append", default=[], help="a whole name; may be given again")
    add("--top", type=whole, default=5, metavar="N", help="how many of each kind, 1 to 1000")
    add("--gallery", default=str(GALLERY), metavar="URI", help="a folder, or s3:// and the like")
    add("--model", help="a name or a folder; the one that made the gallery if absent")
    add("--json", action="store_true", help="print one JSON list")
    parser.set_defaults(run=_search)


def _search(args: argparse.Namespace) -> None:
    asked = _asked(args)
    from generation.geo.grid import parse_region

    region = None if args.region is None else parse_region(args.region)
    from generation.encoders.gallery import Gallery

    gallery = Gallery.open(args.gallery)
    embed = _of_place if asked == "place" else _embedded
    query, notes = embed(args, gallery)
    hits = gallery.search_each(
        query,
        args.top,
        kinds=args.kind or ANSWERS[asked],
        region=region,
        month=args.month,
        licences=args.licence,
    )
    if not hits:
        notes.append("nothing in the gallery passes the filters")
    own = places_are_simulated(gallery.maker.model)
    if own or any(hit.location_source == SIMULATED for hit in hits):
        notes.append(SIMULATED_NOTE)
    tell_notes(notes)
    if args.json:
        print(json.dumps([dataclasses.asdict(hit) for hit in hits], indent=2, allow_nan=False))
    else:
        _print_lines(hits)


def _asked(args: argparse.Namespace) -> str:
    """Say which of the ways to ask was taken, and refuse none, several and halves."""
    ways = {name: getattr(args, name) is not None for name in ("text", "audio", "image")}
    ways["place"] = args.lat is not None or args.lon is not None
    taken = [name for name, given in ways.items() if given]
    if len(taken) != 1:
        raise InvalidSpecError(
            f"{' and '.join(taken) or 'nothing'} to search by (give one of --text, --audio, "
            "--image, or --lat with --lon)"
        )
    if ways["place"] and (args.lat is None or args.lon is None):
        raise InvalidSpecError(
            f"lat={args.lat}, lon={args.lon} is half a place (give both --lat and --lon)"
        )
    if not ways["image"] and (args.at_month is not None or args.at_hour is not None):
        raise InvalidSpecError(
            f"--at-month and --at-hour tell when an image is imagined, and {taken[0]} was given "
            "(give --image, or leave them out)"
        )
    return taken[0]


def _of_place(args: argparse.Namespace, gallery: "Gallery") -> "tuple[Embedding, list[str]]":
    """Take the nearest tile of the gallery; no model has to be loaded for it."""
    if args.model is not None:
        gallery.require(named_encoder(args.model).sha256)
    tile, embedding, apart_km = gallery.nearest_tile(Location(args.lat, args.lon))
    note = (
        f"asked with the nearest tile, {_plain(tile.title)!r}, whose centre {tile.lat:.2f}, "
        f"{tile.lon:.2f} lies {apart_km:.0f} km away"
    )
    return embedding, [note]


def _embedded(args: argparse.Namespace, gallery: "Gallery") -> "tuple[Embedding, list[str]]":
    """Embed words, a recording or an image, and say what to know of it."""
    encoder = named_encoder(args.model or _maker(gallery))
    gallery.require(encoder.sha256)
    if args.text is not None:
        return encoder.text([args.text]), []
    if args.audio is not None:
        from generation.media.audio import open_audio

        return encoder.audio([open_audio(args.audio)]), []
    return _of_image(args, encoder)


def _maker(gallery: "Gallery") -> str:
    name = gallery.maker.model
    if name not in list_models("sound-space"):
        raise InvalidSpecError(
            f"the gallery was made by {shown(name)}, which is no registered space of sounds (give "
            f"its folder with --model; its sha256 is {gallery.maker.sha256})"
        )
    return name


def _of_image(args: argparse.Namespace, encoder: "SoundEncoder") -> "tuple[Embedding, list[str]]":
    from generation.encoders.sound_encoder import unread_notes
    from generation.media.geotiff import geotiff_image
    from generation.media.image import read_bytes

    encoder.check_time(args.at_month, args.at_hour)
    image = geotiff_image(read_bytes(args.image))
    told = "its place was told to the model" if encoder.takes_metadata else "its place was not told"
    note = (
        f"the image lies at {image.center.lat:.2f}, {image.center.lon:.2f} with {image.gsd_m:.4g} "
        f"m a pixel; {told}"
    )
    notes = [note, *unread_notes(encoder.name, encoder.unread(args.at_month, args.at_hour))]
    return encoder.placed(image, args.at_month, args.at_hour), notes


def named_encoder(name: str) -> "SoundEncoder":
    """Load a space by its name or from its folder.

    Raises:
        InvalidSpecError: It is neither a folder nor the name of a space of sounds.
        MissingFileError: Its weights are not on this machine.
    """
    from generation.encoders.sound_encoder import SoundEncoder, load_sound_encoder

    folder = Path(name)
    return SoundEncoder.from_pretrained(folder) if folder.is_dir() else load_sound_encoder(name)


def _print_lines(hits: "Sequence[Hit]") -> None:
    for hit in hits:
        place = f"{'-':>7} {'-':>8}" if hit.lat is None else f"{hit.lat:7.2f} {hit.lon:8.2f}"
        credit = _plain(f"({hit.licence}, {hit.author})")
        print(f"{hit.score:7.3f}  {hit.kind:8}{place}  {_plain(hit.title)}  {credit}")


def _plain(text: str) -> str:
    """Keep what could steer a terminal from reaching it."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
