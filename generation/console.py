"""What every command shares: how mistakes are told, exit codes, and progress on stderr."""

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from generation.errors import CancelledError, TerrascapeError

DONE, OURS, THEIRS, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done, our mistake, the person's mistake, Ctrl-C."""
_NEGATIVE = re.compile(
    r"-(?:(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:e[-+]?[\d_]*)?|inf(?:inity)?|nan)(?:,[^,\s]*)*$",
    re.IGNORECASE,
)
"""Words that are numbers below zero, as ``float`` reads them, or meant to be; or lists of them."""


class _Formatter(argparse.HelpFormatter):
    """Tell a default where there is something to tell."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.default not in (None, "", argparse.SUPPRESS) and action.nargs != 0
        return f"{action.help} (default: %(default)s)" if told else action.help


class Parser(argparse.ArgumentParser):
    """An argument parser that tells a mistake in one sentence.

    Any negative number is the value of the option before it, also ``-1e-3``, ``-inf`` and the box
    ``-10,35,5,44``, which argparse by itself takes for the name of an option.
    """

    def __init__(self, **options: object) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", _Formatter)
        super().__init__(**options)  # type: ignore[arg-type]  # handed on as they came
        self._negative_number_matcher = _NEGATIVE

    def error(self, message: str) -> NoReturn:
        """Print the mistake and leave with exit code 2."""
        line = " ".join(message.split())
        self.exit(THEIRS, f"{self.prog}: {line} (see {self.prog} --help)\n")


def whole(text: str) -> int:
    """Read a whole number of the command line."""
    try:
        return int(text)
    except ValueError:
        if text.strip().lstrip("+-").isdecimal():  # Python reads 4300 digits and no more
            raise argparse.ArgumentTypeError(
                f"{text[:20]}… has {len(text)} digits (give a whole number like 7)"
            ) from None
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no whole number (give one like 7)"
        ) from None


def real(text: str) -> float:
    """Read a number of the command line."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no number (give one like 45.98)"
        ) from None


def guarded(program: str, work: Callable[[], int | None]) -> int:
    """Run a command and turn how it ends into an exit code.

    A person's mistake becomes one sentence on stderr; ours shows its traceback, to be reported.
    """
    try:
        return work() or DONE
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else DONE
    except (KeyboardInterrupt, CancelledError):
        print(f"\n{program}: stopped; nothing unfinished was kept", file=sys.stderr)
        return INTERRUPTED
    except TerrascapeError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return THEIRS
    except BrokenPipeError:  # the reader of our output has had enough, as `| head` does
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        return DONE
    except Exception:  # noqa: BLE001  # the last resort of a command
        traceback.print_exc()
        print(
            f"{program}: this is a mistake of ours; please report the lines above", file=sys.stderr
        )
        return OURS


def print_json(value: object) -> None:
    """Print a value as JSON, for another program."""
    print(json.dumps(value, indent=2))


def tell_notes(notes: object) -> None:
    """Tell what to know of a result, a line each, on stderr."""
    if isinstance(notes, list | tuple):
        for note in notes:
            print(f"note: {note}", file=sys.stderr)


class Progress:
    """A line on stderr: what, how far, how long still. On a terminal it is drawn over itself."""

    def __init__(self, what: str, every_s: float = 2.0) -> None:
        self.what = what
        self.live = sys.stderr.isatty()
        self.every_s = 0.1 if self.live else every_s
        self.started = time.monotonic()
        self.shown = self.started if not self.live else 0.0

    def __call__(self, step: int, total: int, _preview: object = None) -> None:
        """Report that ``step`` of ``total`` steps are done."""
        now = time.monotonic()
        if step < total and now - self.shown < self.every_s:
            return
        self.shown = now
        left_s = (now - self.started) / max(1, step) * (total - step)
        line = f"{self.what} {step}/{total}, {_duration(left_s)} left"
        if step >= total:
            line = f"{self.what} {step}/{total}, {_duration(now - self.started)}"
        start, end = ("\r\x1b[K", "" if step < total else "\n") if self.live else ("", "\n")
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
