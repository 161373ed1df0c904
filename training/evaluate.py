r"""Measure a model against real data and write a report.

    terrascape evaluate geosynth --data 'DIR/test-*.parquet' --out report.json
    terrascape evaluate panorama --data 'DIR/test-*.parquet' --out report.json
    terrascape evaluate soundscape --clips 'DIR/*.parquet' --day 'DIR/*.parquet' --out report.json
    python -m training.evaluate geosynth --data 'DIR/test-*.parquet' --out controls.json \
        --controls-only

A report holds ``metrics`` (the model's scores), ``controls`` (the same scores of real tiles, of
shuffled conditions and of trivial pictures, named after the score), ``intervals`` (95 %, by
bootstrap over cells of the map), and what it takes to make it again. Nothing heavy is imported
before a measurement starts.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from generation.console import DONE, Parser, Progress, guarded, real, whole
from generation.errors import ConfigError
from training.evaluate_commands import KINDS
from training.reports import refuse_old, tell, write_report

if TYPE_CHECKING:
    from training.evaluate_controls import Scores, Yardstick
    from training.evaluate_tiles import Tiles
    from training.painter import PipelinePainter

GUIDANCE = ("text_guidance", "location_guidance", "layout_guidance")


def command(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Declare ``evaluate`` among the commands of ``terrascape``."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on real data",
        description="Measure a model on real data, with controls, and write a JSON report.",
    )
    _add_kinds(parser)


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    geosynth = kinds.add_parser(
        "geosynth",
        help="satellite images",
        description="Measure satellite images of places that the model has not seen.",
    )
    add = geosynth.add_argument
    add("--data", required=True, metavar="PATTERN", help="Parquet files of real test tiles")
    add("--out", type=Path, required=True, metavar="FILE", help="the report, a new .json file")
    add(
        "--limit",
        type=whole,
        metavar="N",
        help="measure so many tiles, evenly spread; all if absent",
    )
    add("--model", default="satellite-nano", help="see `terrascape models`")
    add("--seed", type=whole, default=0, metavar="N", help="chooses noise, captions and subsets")
    add("--steps", type=whole, metavar="N", help="steps of the sampler; as in a render if absent")
    for name in GUIDANCE:
        text = f"{name.split('_')[0]} guidance; as in a render if absent"
        add(f"--{name.replace('_', '-')}", type=real, metavar="N", help=text)
    add("--batch", type=whole, default=8, metavar="N", help="pictures drawn at once")
    add("--controls-only", action="store_true", help="measure real tiles and trivial pictures only")
    add("--sheet", type=Path, metavar="FILE", help="also write a contact sheet, a new .png file")
    geosynth.set_defaults(run=_geosynth)
    sound = kinds.add_parser(
        "sound",
        help="places, sounds and words in one space",
        description="Measure retrieval between unseen places, unseen sounds and words.",
    )
    add = sound.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="what training.sound_pairs built")
    add("--tiles", type=Path, required=True, metavar="DIR", help="the tiles that it was built on")
    add("--model", type=Path, required=True, help="a name, or weights of train_binding.py")
    add("--out", type=Path, required=True, metavar="FILE", help="the report, a new .json file")
    add("--seed", type=whole, default=0, metavar="N", help="chooses shuffles and intervals")
    add(
        "--ranks",
        choices=("inclusive", "mvrl"),
        default="inclusive",
        help="mvrl: better than k, as the published code counts",
    )
    sound.set_defaults(run=_sound)
    steering = kinds.add_parser(
        "steering",
        help="pictures that were steered by sounds",
        description="Draw a picture for unseen clips of each sound and let another space judge.",
    )
    add = steering.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="what training.sound_pairs built")
    add("--tiles", type=Path, required=True, metavar="DIR", help="the tiles that it was built on")
    add("--sound-model", default="sat2sound-nano", help="the space that steers")
    add("--judge", default="geoclap-nano", help="the space that judges, another one")
    add("--per-sound", type=whole, default=8, metavar="N", help="pictures for each sound")
    add("--out", type=Path, required=True, metavar="FILE", help="the report, a new .json file")
    add("--sheet", type=Path, metavar="FILE", help="also write the pictures, a new .png file")
    add("--seed", type=whole, default=0, metavar="N", help="chooses real tiles and shuffles")
    steering.set_defaults(run=_steering)
    _add_panorama(kinds)
    for add_kind in KINDS:
        add_kind(kinds)


def _add_panorama(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    panorama = kinds.add_parser(
        "panorama",
        help="panoramas of unseen places",
        description="Measure panoramas of unseen places over the number and the distance of the "
        "panoramas given, beside copies, blends and wrong inputs.",
    )
    add = panorama.add_argument
    add("--data", required=True, metavar="PATTERN", help="Parquet files of sets, or one .csv file")
    add("--out", type=Path, required=True, metavar="FILE", help="the report, a new .json file")
    add("--limit", type=whole, default=40, metavar="N", help="sets measured, evenly spread")
    add("--targets", type=whole, default=1, metavar="N", help="targets in each set")
    add("--model", default="panorama-nano", help="see `terrascape models`")
    add("--weights", type=Path, metavar="DIR", help="a folder of weights, in place of a model")
    add("--steps", type=whole, default=10, metavar="N", help="steps of the sampler")
    add("--seed", type=whole, default=0, metavar="N", help="chooses noise and intervals")
    add("--batch", type=whole, default=8, metavar="N", help="panoramas drawn at once")
    add("--sheet", type=Path, metavar="FILE", help="also write a contact sheet, a new .png file")
    panorama.set_defaults(run=_panorama)


def _panorama(args: argparse.Namespace) -> int:
    refuse_old(args.out, args.sheet)
    for name, least in (("limit", 2), ("targets", 1), ("steps", 1), ("seed", 0), ("batch", 1)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name} {getattr(args, name)} is too few ({least} or more)")
    from training.panorama_report import lines, measured

    report, metrics, controls = measured(
        args.data,
        args.weights or args.model,
        limit=args.limit,
        targets=args.targets,
        steps=args.steps,
        seed=args.seed,
        batch=args.batch,
        sheet=args.sheet,
    )
    for line in lines(report):
        tell(line)
    words = ["terrascape", "evaluate", "panorama", "--data", _shown(args.data)]
    words += ["--weights", "DIR"] if args.weights else ["--model", args.model]
    for name in ("limit", "targets", "steps", "seed", "batch"):
        words += [f"--{name}", str(getattr(args, name))]
    report["command"] = shlex.join([*words, "--out", args.out.name])
    write_report(report, metrics, controls, args.out)
    print(args.out)
    return DONE


def _sound(args: argparse.Namespace) -> int:
    refuse_old(args.out)
    from generation.checkpoint import load_part, model_sha256
    from generation.encoders.sound_space import SoundSpace
    from generation.registry import locate
    from training.evaluate_sound import measure
    from training.sound_samples import SoundPairs

    folder = args.model if args.model.is_dir() else locate(str(args.model))
    space = load_part(SoundSpace, folder).eval()
    image_px = space.image.config["image_px"]
    dataset = SoundPairs(args.data, args.tiles, image_px, test=True)
    tell(f"{len(dataset)} pairs of unseen places and unseen sounds")
    metrics, controls = measure(space, dataset, seed=args.seed, rule=args.ranks)
    about = json.loads((args.data / "about.json").read_text(encoding="utf-8"))
    words = ["terrascape", "evaluate", "sound", "--data", "PAIRS", "--tiles", "TILES"]
    words += ["--model", "DIR", "--seed", str(args.seed), "--ranks", args.ranks]
    report: dict[str, object] = {
        "task": "sound",
        "data": {"pairs": len(dataset), **about},
        "model": model_sha256(folder),
        "kind": space.config["kind"],
        "command": shlex.join([*words, "--out", args.out.name]),
        "settings": {"seed": args.seed, "ranks": args.ranks},
    }
    write_report(report, metrics, controls, args.out)
    print(args.out)
    return DONE


def _steering(args: argparse.Namespace) -> int:
    refuse_old(args.out, args.sheet)
    if args.judge == args.sound_model:
        raise ConfigError(f"--judge {args.judge} steers as well (give another space)")
    if not 1 <= args.per_sound <= 100:
        raise ConfigError(f"--per-sound {args.per_sound} is not allowed (give 1 to 100)")
    from training.evaluate_heard import report_heard

    report, metrics, controls = report_heard(
        args.data,
        args.tiles,
        sound_model=args.sound_model,
        judge=args.judge,
        per_sound=args.per_sound,
        seed=args.seed,
        sheet=args.sheet,
    )
    words = ["terrascape", "evaluate", "steering", "--data", "PAIRS", "--tiles", "TILES"]
    words += ["--sound-model", args.sound_model, "--judge", args.judge]
    words += ["--per-sound", str(args.per_sound), "--seed", str(args.seed)]
    report["command"] = shlex.join([*words, "--out", args.out.name])
    write_report(report, metrics, controls, args.out)
    print(args.out)
    return DONE


def _geosynth(args: argparse.Namespace) -> int:
    _check(args)
    from generation.checkpoint import sha256_file
    from training.data import list_files
    from training.evaluate_controls import Yardstick, measure_controls
    from training.evaluate_tiles import evenly, read_tiles
    from training.metrics import LiteFeatures

    files = list_files(args.data)
    painter = None if args.controls_only else _painter(args)
    known = read_tiles(files, seed=args.seed)
    tiles = known.take(evenly(len(known), min(args.limit or len(known), len(known))))
    tell(f"{len(tiles)} real tiles; measuring the controls")
    ruler = LiteFeatures()
    yardstick = Yardstick(tiles, ruler, seed=args.seed)
    controls = measure_controls(yardstick)
    report: dict[str, object] = {
        "task": "geosynth",
        "data": {
            "pattern": _shown(args.data),
            "files": {file.name: sha256_file(file) for file in files},
            "tiles": len(tiles),
        },
        "feature_network": {"name": "EfficientNet-Lite0", "sha256": sha256_file(ruler.weights)},
        "command": shlex.join(["terrascape", *_words(args)]),
        "settings": {
            "seed": args.seed,
            "kid_subset_size": yardstick.subset_size,
            "prompt_probe_tiles": len(known),
        },
    }
    metrics = (
        None if painter is None else _measure(args, painter, yardstick, known, controls, report)
    )
    write_report(report, metrics, controls, args.out)
    print(args.out)
    return DONE


def _painter(args: argparse.Namespace) -> "PipelinePainter":
    from training.painter import PipelinePainter

    given = {name: getattr(args, name) for name in ("steps", *GUIDANCE)}
    return PipelinePainter(args.model, **{k: v for k, v in given.items() if v is not None})


def _measure(
    args: argparse.Namespace,
    painter: "PipelinePainter",
    yardstick: "Yardstick",
    known: "Tiles",
    controls: "Scores",
    report: dict[str, object],
) -> "Scores":
    """Draw, score, and add what the report says of the model."""
    from training.evaluate_geosynth import derived, in_batches, measure_latents, measure_model

    bars: dict[str, Progress] = {}

    def progress(what: str, done: int, total: int) -> None:
        bars.setdefault(what, Progress(what, every_s=30.0))(done, total)

    metrics, more, images = measure_model(
        yardstick, in_batches(painter, args.batch, progress), known
    )
    controls.update(more)
    controls.update(measure_latents(yardstick, painter.reconstruct, args.batch))
    derived(metrics, controls)
    report.update(painter.about())
    if args.sheet is not None:
        from training.contact_sheet import save_sheet

        save_sheet(yardstick.tiles, images, args.sheet)
        print(args.sheet)
    return metrics


def _check(args: argparse.Namespace) -> None:
    """Refuse what could only fail after an hour of drawing."""
    refuse_old(args.out, args.sheet)
    if args.batch < 1:
        raise ConfigError(f"--batch {args.batch} draws nothing (at least 1)")
    if args.seed < 0:
        raise ConfigError(f"--seed {args.seed} is negative (0 or more)")
    if args.limit is not None and args.limit < 4:
        raise ConfigError(f"--limit {args.limit} is too few to compare (at least 4 tiles)")


def _words(args: argparse.Namespace) -> list[str]:
    """Return the command line that gives this report, whatever order it was typed in."""
    words = ["evaluate", "geosynth"]
    for name, value in sorted(vars(args).items()):
        if name in ("run", "out", "sheet") or value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [_shown(value) if name == "data" else str(value)]
    return [*words, "--out", args.out.name]


def _shown(pattern: str) -> str:
    """Name files without the folder they lie in on this machine."""
    path = Path(pattern)
    return path.name if path.parent == Path() else f"DIR/{path.name}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m training.evaluate``; the same as ``terrascape evaluate``."""
    words = list(sys.argv[1:] if argv is None else argv)

    def work() -> int | None:
        parser = Parser(prog="training.evaluate", description=__doc__)
        _add_kinds(parser)
        args = parser.parse_args(words)
        code: int | None = args.run(args)
        return code

    return guarded("training.evaluate", work)


if __name__ == "__main__":
    sys.exit(main())
