"""The command line: ``terrascape render satellite --lat 45.98 --lon 7.66 --out outputs``.

Results go to stdout (paths, one a line, or JSON), progress and mistakes to stderr. Exit code 0:
done; 2: something to mend in what was asked, told in one sentence; 1: a mistake of ours, or a
replay that is not equal; 130: stopped with Ctrl-C. Nothing here imports torch before it renders.

Other packages add commands through the entry-point group ``terrascape.commands``: a function
``command(subparsers)`` that declares a parser and sets its default ``run``.
"""

import argparse
import dataclasses
import gc
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from generation.cli_render import add_postcard, add_render
from generation.console import (
    DONE,
    OURS,
    THEIRS,
    Parser,
    Progress,
    guarded,
    print_json,
    real,
    tell_notes,
    whole,
)
from generation.range_command import add_range
from generation.search import add_search
from generation.species import add_map_range, add_species

COMMANDS = "terrascape.commands"
_OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""What torch and its like leave behind when imported is a million objects that stay; at Python's
own figure, looking through them again and again takes a fifth of a short command's time."""
_PACKAGES = (
    *("terrascape", "torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy"),
    *("pillow", "rasterio", "shapely", "osmnx", "gradio"),
)


def main(argv: list[str] | None = None) -> int:
    """Run a command and give its exit code."""
    words = sys.argv[1:] if argv is None else argv
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)

    def work() -> int | None:
        parser = build_parser(words)
        args = parser.parse_args(words)
        if not hasattr(args, "run"):
            parser.print_help(sys.stderr)
            return THEIRS
        code: int | None = args.run(args)
        return code

    return guarded("terrascape", work)


def build_parser(words: list[str]) -> Parser:
    """Declare the commands; those of other packages are loaded only where ``words`` needs them."""
    parser = Parser(prog="terrascape", description="Draws what a place may look like.")
    parser.add_argument(
        "--version", action="version", version=f"terrascape {_version('terrascape')}"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (
        add_render,
        add_postcard,
        _add_replay,
        _add_batch,
        _add_convert,
        add_search,
        add_species,
        add_range,
        _add_map,
        _add_models,
        _add_info,
    ):
        add(commands)
    first = next((word for word in words if not word.startswith("-")), None)
    if first is None or first not in commands.choices:
        _add_entry_points(commands, first)
    return parser


def _add_entry_points(commands: "argparse._SubParsersAction[Parser]", wanted: str | None) -> None:
    """Let other packages declare their commands: the wanted one, or all for the help."""
    entries = sorted(metadata.entry_points(group=COMMANDS), key=lambda entry: entry.name)
    for entry in [entry for entry in entries if entry.name == wanted] or entries:
        try:
            entry.load()(commands)
        except ImportError as error:
            if entry.name == wanted:
                raise
            print(f"terrascape: no command {entry.name!r} here ({error})", file=sys.stderr)


def _add_replay(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "replay",
        help="make a saved render again and compare",
        description="Make a saved render again; exit code 0 only if every pixel is equal.",
    )
    parser.add_argument("file", type=Path, help="a .png, .tif, .jpg or .json that `render` wrote")
    parser.add_argument("--show", action="store_true", help="only print the record of its making")
    parser.add_argument("--out", type=Path, help="save what was made again in this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_replay)


def _replay(args: argparse.Namespace) -> int:
    from generation.media.artifact import read_artifact

    artifact = read_artifact(args.file)
    if args.show:
        print_json(artifact.record)
        return DONE
    from generation.media.artifact import save_render
    from generation.pipelines.kinds import renderer_for
    from generation.replay import compare, render_again

    again = render_again(artifact, renderer_for(artifact.spec.kind), on_step=Progress("step"))
    verdict = compare(artifact, again)
    paths = [str(path) for path in save_render(again, args.out)] if args.out else []
    if args.json:
        print_json({**dataclasses.asdict(verdict), "files": paths})
    else:
        print(verdict.text, *paths, sep="\n")
    return DONE if verdict.equal else OURS


def _add_batch(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "batch",
        help="render many places",
        description="Render every request of a file; started again, it goes on where it stopped.",
    )
    parser.add_argument("requests", type=Path, help="a .jsonl or .csv file of requests")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--online", action="store_true", help="let layouts come from Overpass")
    parser.add_argument("--engine", choices=["local"], default="local", help="where it runs")
    parser.add_argument("--workers", type=whole, default=1, metavar="N", help="processes, 1 to 64")
    parser.set_defaults(run=_batch)


def _batch(args: argparse.Namespace) -> int:
    from generation.render_batch import run_batch, run_workers, summary

    if args.workers == 1:
        tally = run_batch(args.requests, args.out, online=args.online)
    else:
        tally = run_workers(args.requests, args.out, workers=args.workers, online=args.online)
    print(f"terrascape: {summary(tally, args.out)}", file=sys.stderr)
    return tally.exit_code


def _add_convert(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser(
        "convert",
        help="turn a foreign checkpoint into safetensors",
        description="Turn a foreign checkpoint into safetensors; conversion.json names each key.",
    )
    known = (
        "controlnet, coordnet, satclip, geoclip, sinr, range, geoclap, psm, sat2sound, taxabind, "
        "birdsat"
    )
    parser.add_argument("kind", help=f"{known} or audioldm")
    told = (
        "the foreign file, or for range, taxabind and birdsat a folder; nothing is unpickled freely"
    )
    parser.add_argument("file", type=Path, help=told)
    parser.add_argument("--out", type=Path, required=True, help="a folder without weights")
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> None:
    from generation.convert import convert

    report = convert(args.kind, args.file, args.out)
    print(f"terrascape: {report.summary()}", file=sys.stderr)
    print(*(args.out / name for name in report.files), sep="\n")


def _add_map(commands: "argparse._SubParsersAction[Parser]") -> None:
    command = commands.add_parser("map", help="map a region", description="Map a region.")
    kinds = command.add_subparsers(title="kinds", metavar="KIND", required=True)
    add_map_range(kinds)
    parser = kinds.add_parser(
        "sound",
        help="where something could be heard",
        description="Map how much each place of a region looks like the place of a sound.",
    )
    parser.add_argument("--text", default="", help="what is to be heard, in words")
    parser.add_argument("--audio", type=Path, metavar="FILE", help="a recording of it")
    parser.add_argument("--region", required=True, metavar="W,S,E,N", help="a box in degrees")
    parser.add_argument("--model", default="sat2sound-nano", help="a space of sounds and places")
    parser.add_argument("--month", type=whole, metavar="N", help="1 to 12")
    parser.add_argument("--hour", type=real, metavar="N", help="local time, 0 to below 24")
    for name, default, text in (
        ("zoom", 8, "web-mercator zoom level of the imagery's pixels, 0 to 22"),
        ("cell", 16, "side of a cell in pixels, a power of two up to 256"),
        ("view", 128, "side of the image that a cell is seen through, in pixels"),
    ):
        parser.add_argument(f"--{name}", type=whole, default=default, metavar="N", help=text)
    parser.add_argument(
        "--imagery",
        nargs="+",
        default=[],
        metavar="FILE",
        help="GeoTIFFs or a .vrt of such; or the word generated, as small regions are without it",
    )
    parser.add_argument("--out", type=Path, required=True, help="a new .tif; a .png lies beside it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_map_sound)


def _map_sound(args: argparse.Namespace) -> None:
    from generation.geo.grid import parse_region
    from generation.pipelines.maps_files import MapRequest, make_sound_map

    request = MapRequest(
        region=parse_region(args.region),
        text=args.text,
        audio=args.audio,
        model=args.model,
        month=args.month,
        hour=args.hour,
        zoom=args.zoom,
        cell_px=args.cell,
        view_px=args.view,
        imagery=tuple(args.imagery),
    )
    found, paths = make_sound_map(
        request, args.out, tell=lambda text: tell_notes([text]), on_cells=Progress("cell")
    )
    files = [str(path) for path in paths]
    if args.json:
        print_json({"files": files, "map": found.about})
    else:
        print(*files, sep="\n")


def _add_models(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser("models", help="list what --model takes")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.set_defaults(run=_models)


def _models(args: argparse.Namespace) -> None:
    models = _known_models()
    if args.json:
        print_json(models)
        return
    for model in models:
        print(f"{model['name']:24} {'here' if model['here'] else 'not here':9} {model['summary']}")


def _known_models() -> list[dict[str, object]]:
    from generation.registry import find, is_here, list_models

    return [{**dataclasses.asdict(find(name)), "here": is_here(name)} for name in list_models()]


def _add_info(commands: "argparse._SubParsersAction[Parser]") -> None:
    parser = commands.add_parser("info", help="versions, models and the machine")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_info)


def _info(args: argparse.Namespace) -> None:
    from generation.geo.sources import cache_folder
    from generation.registry import ASSETS

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    about: dict[str, object] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": {"present": os.cpu_count(), "usable": usable},
        "packages": {name: _version(name) for name in _PACKAGES},
        "models": {str(model["name"]): bool(model["here"]) for model in _known_models()},
        "folders": {
            "assets": str(ASSETS),
            "TERRASCAPE_HOME": os.environ.get("TERRASCAPE_HOME"),
            "layout cache": str(cache_folder()),
        },
    }
    if args.json:
        print_json(about)
        return
    for name, value in about.items():
        lines = value if isinstance(value, dict) else {"": value}
        for key, each in lines.items():
            print(f"{f'{name} {key}':36} {each}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
