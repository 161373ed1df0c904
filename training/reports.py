"""Reports on disk, and what is said while they are made."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from generation.errors import OutputError

if TYPE_CHECKING:
    from training.evaluate_controls import Scores


def refuse_old(*files: Path | None) -> None:
    """Refuse a report that is there already, before anything is measured.

    Raises:
        OutputError: See there.
    """
    for file in files:
        if file is None:
            continue
        if file.exists():
            raise OutputError(f"{file} exists and is not overwritten (remove it or choose another)")
        if not file.parent.is_dir():
            raise OutputError(f"there is no folder {file.parent} for {file.name} (make it first)")


def write_report(
    report: dict[str, object], metrics: "Scores | None", controls: "Scores", out: Path
) -> None:
    """Add scores and intervals to a report, and write it whole or not at all.

    Args:
        report: What else it tells.
        metrics: The model's, if there is one.
        controls: What stands beside them.
        out: The file.
    """
    from generation.atomic import atomic_path

    both = [controls] if metrics is None else [metrics, controls]
    report["metrics"] = {} if metrics is None else metrics.values
    report["controls"] = controls.values
    report["intervals"] = {k: v for scores in both for k, v in scores.intervals.items()}
    text = json.dumps(report, indent=2, sort_keys=True, allow_nan=False)
    with atomic_path(out) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def tell(text: str) -> None:
    """Say something that is no result."""
    print(text, file=sys.stderr, flush=True)
