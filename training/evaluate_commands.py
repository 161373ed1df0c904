"""More commands of ``terrascape evaluate``; nothing heavy is imported before they start."""

import argparse
from pathlib import Path

from generation.console import DONE, real, whole
from training.reports import refuse_old, tell, write_report


def add_soundscape(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the measurement of soundscapes."""
    soundscape = kinds.add_parser(
        "soundscape",
        help="sounds of held-out kinds and hours",
        description="Let an independent tagger, distances and retrieval judge a model's sounds.",
    )
    add = soundscape.add_argument
    add("--clips", required=True, metavar="PATTERN", help="Parquet files of labelled clips")
    add("--day", required=True, metavar="PATTERN", help="those of one microphone's day")
    add("--out", type=Path, required=True, metavar="FILE", help="the report, a new .json file")
    add("--model", default="soundscape-nano", help="a name, or a folder of weights")
    add("--tiles", type=Path, metavar="DIR", help="what training.data built: asks with images too")
    add("--pairs", type=Path, metavar="DIR", help="what training.sound_pairs built on the tiles")
    add("--limit", type=whole, metavar="N", help="held-out recordings of a kind; all if absent")
    add("--seconds", type=real, default=5.0, metavar="N", help="length of every sound")
    add("--steps", type=whole, default=10, metavar="N", help="steps of the sampler")
    add("--guidance", type=real, default=2.0, metavar="N", help="1 is as trained")
    add("--seed", type=whole, default=0, metavar="N", help="chooses noise, tagger and intervals")
    add("--tagger-steps", type=whole, default=400, metavar="N", help="batches the tagger learns")
    add("--hour-seeds", type=whole, default=16, metavar="N", help="sounds at dawn and at night")
    add("--loop-seeds", type=whole, default=6, metavar="N", help="loops of each kind")
    add("--sheet", type=Path, metavar="FILE", help="also write a contact sheet, a new .png file")
    soundscape.set_defaults(run=_soundscape)


def _soundscape(args: argparse.Namespace) -> int:
    refuse_old(args.out, args.sheet)
    from training.soundscape_cases import Settings
    from training.soundscape_report import command_of, lines, measured

    settings = Settings(**{k: v for k, v in vars(args).items() if k not in ("run", "out")})
    report, metrics, controls = measured(settings)
    tell("\n".join(lines(report)))
    report["command"] = command_of(settings, args.out)
    write_report(report, metrics, controls, args.out)
    print(args.out)
    return DONE


def add_ranges(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the measurement of ranges."""
    ranges = kinds.add_parser(
        "ranges",
        help="ranges of species and genera that no training saw",
        description="Compare predicted ranges with those of held-out species, beside their kin's.",
    )
    add = ranges.add_argument
    add("--ranges", type=Path, required=True, metavar="FILE", help="PHYLACINE's ranges.npz")
    add("--traits", type=Path, required=True, metavar="FILE", help="its traits.csv")
    add("--out", type=Path, required=True, metavar="FILE", help="the report, a new .json file")
    add("--model", default="ranges-nano", help="a name, or a folder of weights")
    add("--limit", type=whole, default=400, metavar="N", help="species of each side at most")
    add("--seed", type=whole, default=0, metavar="N", help="chooses intervals and partners")
    ranges.set_defaults(run=_ranges)


def _ranges(args: argparse.Namespace) -> int:
    refuse_old(args.out)
    from generation.registry import locate
    from training.evaluate_ranges import Settings, command_of, lines, measured

    folder = Path(args.model) if Path(args.model).is_dir() else locate(args.model)
    settings = Settings(
        ranges=args.ranges, traits=args.traits, model=folder, limit=args.limit, seed=args.seed
    )
    report, metrics, controls = measured(settings)
    tell("\n".join(lines(report, metrics, controls)))
    report["command"] = command_of(settings, args.model, args.out)
    write_report(report, metrics, controls, args.out)
    print(args.out)
    return DONE


def add_location(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the measurement of place encoders."""
    location = kinds.add_parser(
        "location",
        help="what place encoders are worth",
        description="Follow a published protocol on weather stations, and probe at unseen places.",
    )
    add = location.add_argument
    add("--data", type=Path, required=True, metavar="FILE", help="SatCLIP's stationDataAll.csv")
    add("--out", type=Path, required=True, metavar="FILE", help="the report, a new .json file")
    add("--train", metavar="PATTERN", help="Parquet files of tiles to probe with")
    add("--test", metavar="PATTERN", help="those of other blocks of 10 degrees")
    add(
        "--encoders",
        nargs="+",
        metavar="NAME",
        help="names or folders; all that are here if absent",
    )
    add("--seed", type=whole, default=0, metavar="N", help="chooses intervals and the shuffle")
    location.set_defaults(run=_location)


def _location(args: argparse.Namespace) -> int:
    refuse_old(args.out)
    from training.evaluate_location import ENCODERS, Settings, command_of, lines, measured

    settings = Settings(
        data=args.data,
        train=args.train,
        test=args.test,
        encoders=tuple(args.encoders or ENCODERS),
        seed=args.seed,
    )
    report, metrics, controls = measured(settings)
    tell("\n".join(lines(report, metrics)))
    report["command"] = command_of(settings, args.out)
    write_report(report, metrics, controls, args.out)
    print(args.out)
    return DONE


def add_style(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the measurement of styles."""
    style = kinds.add_parser(
        "style",
        help="whether pictures follow the look, the climate and the taxon that they are told",
        description="Tell pictures the style of another place and hold them to its real tiles.",
    )
    add = style.add_argument
    add("--data", required=True, metavar="PATTERN", help="Parquet files of real test tiles")
    add("--out", type=Path, required=True, metavar="FILE", help="the report, a new .json file")
    add("--ranges", type=Path, metavar="FILE", help="PHYLACINE's ranges.npz: habitats too")
    add("--traits", type=Path, metavar="FILE", help="its traits.csv")
    add("--model", default="satellite-nano", help="a name that takes styles")
    add("--limit", type=whole, default=64, metavar="N", help="pairs of places")
    add("--steps", type=whole, default=10, metavar="N", help="steps of the sampler")
    add("--guidance", type=real, default=2.0, metavar="N", help="1 is as trained")
    add("--sharpness", type=real, default=0.5, metavar="N", help="of looks, 0 to 1")
    add("--seed", type=whole, default=0, metavar="N", help="chooses noise, pairs and intervals")
    add("--floor", type=Path, metavar="DIR", help="also keep what real tiles get, in a database")
    style.set_defaults(run=_style)


def _style(args: argparse.Namespace) -> int:
    refuse_old(args.out)
    from training.evaluate_style import Settings, command_of, lines, measured
    from training.floors import write_floor

    told = {k: v for k, v in vars(args).items() if k not in ("run", "out", "floor")}
    settings = Settings(**told)
    report, metrics, controls = measured(settings)
    tell("\n".join(lines(metrics, controls)))
    report["command"] = command_of(settings, args.out)
    if args.floor is not None:
        write_floor(report["real"], args.floor)
    write_report(report, metrics, controls, args.out)
    print(args.out)
    return DONE


def add_taxabind(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the measurement of a space of life."""
    taxabind = kinds.add_parser(
        "taxabind",
        help="who lives at unseen places, and where unseen species live",
        description="Rank species by images, places and environments of held-out blocks.",
    )
    add = taxabind.add_argument
    add("--data", required=True, metavar="PATTERN", help="Parquet files of real test tiles")
    add("--ranges", type=Path, required=True, metavar="FILE", help="PHYLACINE's ranges.npz")
    add("--traits", type=Path, required=True, metavar="FILE", help="its traits.csv")
    add("--out", type=Path, required=True, metavar="FILE", help="the report, a new .json file")
    add("--model", default="taxabind-nano", help="a name, or a folder of weights")
    add("--seed", type=whole, default=0, metavar="N", help="chooses intervals and partners")
    taxabind.set_defaults(run=_taxabind)


def _taxabind(args: argparse.Namespace) -> int:
    refuse_old(args.out)
    from training.evaluate_taxabind import Settings, command_of, lines, measured

    settings = Settings(**{k: v for k, v in vars(args).items() if k not in ("run", "out")})
    report, metrics, controls = measured(settings)
    tell("\n".join(lines(metrics, controls)))
    report["command"] = command_of(settings, args.out)
    write_report(report, metrics, controls, args.out)
    print(args.out)
    return DONE


def add_birdsat(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the measurement of views from the ground and above."""
    birdsat = kinds.add_parser(
        "birdsat",
        help="views from the ground found for satellite images of unseen places",
        description="Find and match panoramas for satellite images of a held-out region.",
    )
    add = birdsat.add_argument
    add("--data", required=True, metavar="PATTERN", help="sets of panoramas: Parquet, or a .csv")
    add("--out", type=Path, required=True, metavar="FILE", help="the report, a new .json file")
    add("--model", default="birdsat-nano", help="a name, or a folder of weights")
    add("--limit", type=whole, metavar="N", help="sets at most; all if absent")
    add("--first", type=whole, default=50, metavar="N", help="how many of each are matched")
    add("--seed", type=whole, default=0, metavar="N", help="chooses intervals")
    add("--floor", type=Path, metavar="DIR", help="also keep what true pairs get, in a model")
    birdsat.set_defaults(run=_birdsat)


def _birdsat(args: argparse.Namespace) -> int:
    refuse_old(args.out)
    from training.evaluate_birdsat import Settings, command_of, lines, measured
    from training.floors import write_floor

    told = {k: v for k, v in vars(args).items() if k not in ("run", "out", "floor")}
    settings = Settings(**told)
    report, metrics, controls = measured(settings)
    tell("\n".join(lines(report, metrics, controls)))
    report["command"] = command_of(settings, args.out)
    if args.floor is not None:
        write_floor(report["rendered"], args.floor)
    write_report(report, metrics, controls, args.out)
    print(args.out)
    return DONE


KINDS = (add_soundscape, add_ranges, add_location, add_style, add_taxabind, add_birdsat)
"""What declares each measurement of this module."""
