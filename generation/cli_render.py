"""``terrascape render``: a satellite image, a panorama or those of a walk, a soundscape."""

import argparse
import dataclasses
import json
from pathlib import Path

from generation.cli_style import add_style, render_film, style_fields
from generation.console import Parser, Progress, print_json, real, tell_notes, whole
from generation.errors import InvalidSpecError
from generation.registry import find
from generation.spec import DEFAULT_MODELS, RunSpec
from generation.view_spec import ViewSpec

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(RunSpec)}
_SATELLITE_NUMBERS = {
    "seed": "chooses the noise, 0 to 2^63 - 1",
    "size": "side of the picture in pixels, 64 to 1024, a multiple of 8",
    "steps": "steps of the sampler, 1 to 200",
    "zoom": "web-mercator zoom level, 0 to 22; sets the scale",
    "text_guidance": "how far the prompt is exaggerated, 0 to 20",
    "location_guidance": "how far the location is exaggerated, 0 to 20",
    "layout_guidance": "how far the layout is exaggerated, 0 to 20",
    "sound_guidance": "how far the sound is exaggerated, 0 to 20",
}
_SCALE = (
    "0: not used, 1: as trained; more exaggerates, which makes the embedded model's panoramas less "
    "like the real ones (0 to 20, above 2 with a note)"
)
_PANORAMA_NUMBERS = {
    "seed": "chooses the noise, 0 to 2^63 - 1",
    "steps": "steps of the sampler, 1 to 200",
    "text_guidance": "how far the prompt is exaggerated, 0 to 20",
    "satellite_guidance": f"how far the satellite image is followed; {_SCALE}",
    "views_guidance": f"how far the other panoramas are followed; {_SCALE}",
}
_SOUNDSCAPE_NUMBERS = {
    "seconds": "how long, 0.1 to 600",
    "seed": "chooses the noise, 0 to 2^63 - 1",
    "steps": "steps of the sampler, 1 to 200",
    "sound_guidance": "how far what is asked for is exaggerated, 0 to 20",
    "candidates": "of so many sounds for each source the best is kept, 1 to 16",
}
_ROOM_BYTES = 4_000_000
"""More than the files of a panorama take."""


def add_render(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Declare the command."""
    render = commands.add_parser("render", help="draw a place", description="Draw a place.")
    kinds = render.add_subparsers(title="kinds", metavar="KIND", required=True)
    _add_satellite(kinds)
    _add_panorama(kinds)
    _add_soundscape(kinds)


def add_postcard(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "postcard",
        help="a place from above, all around and to be heard",
        description=(
            "Draw a satellite image of a place, from it a panorama and a soundscape, and write a "
            "page that shows all three."
        ),
    )
    add = parser.add_argument
    add("--lat", type=real, required=True, help="degrees north")
    add("--lon", type=real, required=True, help="degrees east")
    add(
        "--heading", type=real, default=0.0, metavar="DEG", help="where the panorama's middle looks"
    )
    add("--month", type=whole, metavar="N", help="1 to 12")
    add("--hour", type=real, metavar="N", help="local time, 0 to below 24")
    add("--prompt", default="", help="what the satellite image should look like")
    add("--layout", default="auto", help="what it follows: auto, none, or the path of a map file")
    add("--caption", help="what is heard there; without it, what fits the satellite image")
    add("--loop", action="store_true", help="let the sound's end go over into its beginning")
    numbers = {name: _SOUNDSCAPE_NUMBERS[name] for name in ("seconds", "seed", "steps")}
    _add_numbers(parser, numbers)
    add("--online", action="store_true", help="let the layout come from Overpass")
    add("--out", type=Path, default=Path("outputs"), help="folder of the results")
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_postcard)


def _postcard(args: argparse.Namespace) -> None:
    from generation.pipelines.postcard import make_postcard

    fields = {name: getattr(args, name) for name in _DEFAULTS if hasattr(args, name)}
    done = make_postcard(
        {**fields, "sound_text": _caption(args)},
        args.out,
        on_step=Progress("step"),
        online=args.online,
    )
    tell_notes(done.notes)
    if args.json:
        print_json({"page": str(done.page), "files": [str(path) for path in done.files]})
    else:
        print(*done.files, sep="\n")


def _add_satellite(kinds: "argparse._SubParsersAction[Parser]") -> None:
    parser = kinds.add_parser(
        "satellite", help="a satellite image", description="Draw a georeferenced satellite image."
    )
    parser.add_argument("--lat", type=real, required=True, help="degrees north")
    parser.add_argument("--lon", type=real, required=True, help="degrees east")
    parser.add_argument("--prompt", default="", help="what it should look like")
    parser.add_argument("--layout", default="auto", help="auto, none, or the path of a map file")
    parser.add_argument(
        "--sound",
        default=_DEFAULTS["sound"],
        metavar="FILE",
        help="a recording, or a GeoTIFF of a place, that it should sound like",
    )
    parser.add_argument("--sound-text", default="", help="what is heard there, in words")
    parser.add_argument(
        "--sound-model", default=_DEFAULTS["sound_model"], help="the space it is understood in"
    )
    _add_numbers(parser, _SATELLITE_NUMBERS)
    add_style(parser)
    _add_common(parser, "satellite")
    parser.set_defaults(run=_render_satellite)


def _add_panorama(kinds: "argparse._SubParsersAction[Parser]") -> None:
    parser = kinds.add_parser(
        "panorama",
        help="a view all around",
        description=(
            "Draw a panorama of a place from panoramas nearby and a satellite image, any of which "
            "may be missing; or, with --path, the panoramas of a walk. The embedded model "
            f"{find(DEFAULT_MODELS['panorama']).learnt}."
        ),
    )
    parser.add_argument("--lat", type=real, help="degrees north")
    parser.add_argument("--lon", type=real, help="degrees east")
    parser.add_argument(
        "--heading",
        type=real,
        metavar="DEG",
        help="where its middle looks, degrees clockwise from north, 0 up to 360; without it "
        "north, and along a path the way of travel",
    )
    parser.add_argument(
        "--view",
        action="append",
        default=[],
        metavar="FILE@LAT,LON,HEADING",
        help="a panorama of a place nearby, all around, and where its middle looks; FILE alone if "
        "it says so itself; may be given again, the 3 nearest are used",
    )
    parser.add_argument("--far", action="store_true", help="allow panoramas over 100 km away")
    parser.add_argument(
        "--satellite",
        default=_DEFAULTS["satellite"],
        metavar="WHICH",
        help="none, generated, a GeoTIFF or a .vrt of such; auto: generated where there is a map",
    )
    parser.add_argument(
        "--layout",
        default="auto",
        help="what a generated one follows: auto, none, or the path of a map file",
    )
    parser.add_argument(
        "--prompt",
        default="",
        help="what it should look like: read by a generated satellite image, and by models of "
        "panoramas that take words, which the embedded one does not",
    )
    _add_numbers(parser, _PANORAMA_NUMBERS)
    parser.add_argument(
        "--path", type=Path, metavar="FILE", help="walk along the one line of a .geojson file"
    )
    parser.add_argument(
        "--frames", type=whole, metavar="N", help="panoramas of a walk (12 unless given)"
    )
    _add_common(parser, "panorama")
    parser.set_defaults(run=_render_panorama)


def _add_soundscape(kinds: "argparse._SubParsersAction[Parser]") -> None:
    parser = kinds.add_parser(
        "soundscape",
        help="what could be heard there",
        description=(
            "Make what could be heard at a place. Without --caption, --layers and --audio-like, "
            "captions that fit its satellite image, month and hour are looked up and each becomes "
            f"a source. The embedded model {find(DEFAULT_MODELS['soundscape']).learnt}."
        ),
    )
    add = parser.add_argument
    add("--lat", type=real, required=True, help="degrees north")
    add("--lon", type=real, required=True, help="degrees east")
    add("--month", type=whole, metavar="N", help="1 to 12")
    add("--hour", type=real, metavar="N", help="local time, 0 to below 24")
    add("--caption", help="what is heard there; 'surf and a dog' is two sources")
    add("--audio-like", metavar="FILE", default=_DEFAULTS["sound"], help="a recording to resemble")
    add(
        "--layers",
        type=Path,
        metavar="FILE",
        help="a .layers.json that a soundscape came with, as it is or edited",
    )
    add("--captioner", default="", metavar="NAME", help="a model that writes the caption: llava")
    add("--loop", action="store_true", help="let its end go over into its beginning")
    add(
        "--satellite",
        default=_DEFAULTS["satellite"],
        metavar="WHICH",
        help="none, generated, a GeoTIFF or a .vrt of such; auto: generated if nothing else says "
        "what is heard",
    )
    add("--layout", default="auto", help="what a generated one follows: auto, none, or a map file")
    add("--prompt", default="", help="what a generated satellite image should look like")
    add("--sound-model", default=_DEFAULTS["sound_model"], help="the space it is understood in")
    _add_numbers(parser, _SOUNDSCAPE_NUMBERS)
    _add_common(parser, "soundscape")
    parser.set_defaults(run=_render_soundscape)


def _add_numbers(parser: Parser, numbers: dict[str, str]) -> None:
    for name, text in numbers.items():
        default = _DEFAULTS[name]
        kind = whole if isinstance(default, int) else real
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, default=default, metavar="N", help=text
        )


def _add_common(parser: Parser, kind: str) -> None:
    parser.add_argument("--no-location", action="store_true", help="do not tell where it lies")
    parser.add_argument("--model", default=DEFAULT_MODELS[kind], help="see `terrascape models`")
    parser.add_argument("--online", action="store_true", help="let the layout come from Overpass")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder of the results")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _render_satellite(args: argparse.Namespace) -> None:
    spec = RunSpec.from_dict({**_fields(args), **style_fields(args)})
    needed_bytes = 9 * args.size**2 + 1_000_000
    if args.film_to is None:
        _render_one(spec, args, needed_bytes)
    else:
        render_film(spec, args, needed_bytes)


def _fields(args: argparse.Namespace) -> dict[str, object]:
    """Give the fields of a spec that the command line names as it does."""
    fields = {name: getattr(args, name) for name in _DEFAULTS if hasattr(args, name)}
    return {**fields, "use_location": not args.no_location}


def _render_one(spec: RunSpec, args: argparse.Namespace, needed_bytes: int) -> None:
    spec = spec.pinned()
    from generation.media.artifact import save_render
    from generation.media.folder import output_folder
    from generation.pipelines.kinds import renderer_for

    with output_folder(args.out, needed_bytes=needed_bytes):
        result = renderer_for(spec.kind)(spec, on_step=Progress("step"), online=args.online)
        paths = [str(path) for path in save_render(result, args.out)]
    tell_notes(result.provenance.get("notes"))
    if args.json:
        seconds = result.provenance.get("seconds")
        print_json({"files": paths, "spec": dataclasses.asdict(result.spec), "seconds": seconds})
    else:
        print(*paths, sep="\n")


def _render_soundscape(args: argparse.Namespace) -> None:
    asked = {"kind": "soundscape", "sound": args.audio_like, "sound_text": _caption(args)}
    layers = () if args.layers is None else layers_of(args.layers)
    spec = RunSpec.from_dict({**_fields(args), **asked, "layers": layers})
    _render_one(spec, args, round(400_000 * spec.seconds) + _ROOM_BYTES)


def _caption(args: argparse.Namespace) -> str:
    if args.caption is not None and not args.caption.strip():
        raise InvalidSpecError(
            f"--caption {args.caption!r} says nothing (say what is heard, or leave it out)"
        )
    return args.caption or ""


def layers_of(path: Path) -> list[object]:
    """Read a list of layers; what is wrong with one of them the spec will tell.

    Raises:
        MissingFileError: There is no such file.
        InvalidSpecError: It is no JSON list.
    """
    from generation.media.image import read_bytes

    try:
        values = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        values = None
    if values == []:
        raise InvalidSpecError(f"layers {path} is an empty list (give one layer or more)")
    if not isinstance(values, list):
        raise InvalidSpecError(
            f'layers {path} is no JSON list of layers (give one like [{{"text": "surf on a beach", '
            '"level_db": -6, "pan": 0.3}])'
        )
    return values


def _render_panorama(args: argparse.Namespace) -> None:
    views = tuple(ViewSpec.parse(text) for text in args.view)
    fields = {**_fields(args), "kind": "panorama", "views": views}
    placed = [name for name in ("lat", "lon") if getattr(args, name) is not None]
    if args.path is None:
        if len(placed) < 2:
            raise InvalidSpecError("no place is given (give --lat and --lon, or --path for a walk)")
        if args.frames is not None:
            raise InvalidSpecError(f"--frames {args.frames} without a path (give --path as well)")
        heading = 0.0 if args.heading is None else args.heading
        spec = RunSpec.from_dict({**fields, "heading": heading})
        _render_one(spec, args, _ROOM_BYTES)
        return
    if placed:
        raise InvalidSpecError(
            f"--path and --{placed[0]} are given (a walk starts where its path does; give one of "
            "the two)"
        )
    _render_walk(fields, args)


def _render_walk(fields: dict[str, object], args: argparse.Namespace) -> None:
    from generation.media.folder import output_folder
    from generation.pipelines.walk import Walk, render_walk

    frames = 12 if args.frames is None else args.frames
    walk = Walk.along(args.path, frames, fields, heading_deg=args.heading)
    with output_folder(args.out, needed_bytes=_ROOM_BYTES * frames):
        done = render_walk(
            walk,
            args.out,
            on_frame=Progress("frame"),
            on_ground=Progress("satellite image"),
            online=args.online,
        )
    tell_notes(done.notes)
    if args.json:
        print_json({"files": [str(path) for path in done.files], "seconds": done.seconds})
    else:
        print(*done.files, sep="\n")
