"""Time a model on this machine, beside what the machine could do at best.

    terrascape bench satellite [--json]
    terrascape bench panorama [--json]
    terrascape bench soundscape [--json]

Nothing heavy is imported before a measurement starts.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from generation.console import DONE, Parser, guarded, whole
from generation.errors import ConfigError


def command(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Declare ``bench`` among the commands of ``terrascape``."""
    parser = commands.add_parser(
        "bench",
        help="time a model on this machine",
        description="Time a model on this machine, beside what the machine could do at best.",
    )
    _add_names(parser)


def _add_names(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(title="what to time", metavar="NAME", required=True)
    satellite = names.add_parser(
        "satellite",
        help="one 256x256 image with 20 network evaluations",
        description="Time one 256x256 image with 20 network evaluations, after loading.",
    )
    add = satellite.add_argument
    add("--model", default="satellite-nano", help="see `terrascape models`")
    add("--untrained", action="store_true", help="time the nano networks with random weights")
    add("--pairs", type=whole, default=5, metavar="N", help="pairs of ours and the plain loop")
    add("--threads", type=whole, metavar="N", help="threads of torch; its own choice if absent")
    add("--json", action="store_true", help="print one JSON object")
    satellite.set_defaults(run=_satellite)
    panorama = names.add_parser(
        "panorama",
        help="one panorama from three others, 10 steps",
        description="Time one panorama from three others and a satellite image, after loading.",
    )
    add = panorama.add_argument
    add("--model", default="panorama-nano", help="see `terrascape models`")
    add("--weights", type=Path, metavar="DIR", help="a folder of weights, in place of a model")
    add("--pairs", type=whole, default=5, metavar="N", help="pairs of ours and the plain U-Net")
    add("--threads", type=whole, metavar="N", help="threads of torch; 1 and then 2 if absent")
    add("--json", action="store_true", help="print one JSON object")
    panorama.set_defaults(run=_panorama)
    soundscape = names.add_parser(
        "soundscape",
        help="ten seconds of sound, 10 steps",
        description="Time ten seconds of sound, after loading.",
    )
    add = soundscape.add_argument
    add("--model", default="soundscape-nano", help="see `terrascape models`")
    add("--weights", type=Path, metavar="DIR", help="a folder of weights, in place of a model")
    add("--rounds", type=whole, default=5, metavar="N", help="how often it is made")
    add("--threads", type=whole, metavar="N", help="threads of torch; 1 and then 2 if absent")
    add("--json", action="store_true", help="print one JSON object")
    soundscape.set_defaults(run=_soundscape)


def _check(args: argparse.Namespace, times: str = "pairs") -> None:
    if not 1 <= getattr(args, times) <= 100:
        raise ConfigError(f"--{times} {getattr(args, times)} is out of range (1 to 100)")
    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise ConfigError(f"--threads {args.threads} is out of range (1 to 1024)")


def _satellite(args: argparse.Namespace) -> int:
    _check(args)
    from training.bench_satellite import run, tell

    result = run(args.model, args.pairs, args.threads, untrained=args.untrained)
    print(json.dumps(result, indent=2, allow_nan=False) if args.json else tell(result))
    return DONE


def _panorama(args: argparse.Namespace) -> int:
    _check(args)
    from training.bench_panorama import run, tell

    threads = (1, 2) if args.threads is None else (args.threads,)
    result = run(args.model, args.pairs, threads, weights=args.weights)
    print(json.dumps(result, indent=2, allow_nan=False) if args.json else tell(result))
    return DONE


def _soundscape(args: argparse.Namespace) -> int:
    _check(args, "rounds")
    from training.bench_soundscape import run, tell

    threads = (1, 2) if args.threads is None else (args.threads,)
    result = run(args.model, args.rounds, threads, weights=args.weights)
    print(json.dumps(result, indent=2, allow_nan=False) if args.json else tell(result))
    return DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m training.bench``; the same as ``terrascape bench``."""
    words = list(sys.argv[1:] if argv is None else argv)

    def work() -> int | None:
        parser = Parser(prog="training.bench", description=__doc__)
        _add_names(parser)
        args = parser.parse_args(words)
        code: int | None = args.run(args)
        return code

    return guarded("training.bench", work)


if __name__ == "__main__":
    sys.exit(main())
