"""Write the measured figures into the pages that show them, so that none is copied by hand.

    python -m training.tables docs/results README.md assets/satellite-nano/card.md

A page has marks: what stands between ``<!-- NAME -->`` and ``<!-- end -->`` is replaced by the
table made of ``NAME.json``, or of all files in a folder ``NAME``. Names: geosynth, bench, codec,
location, prediction, sound, steering, panorama, soundscape, ranges, taxabind,
style, birdsat.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from generation.atomic import atomic_path
from generation.console import Parser, guarded
from generation.errors import ConfigError, MissingFileError
from training.tables_life import birdsat, location, ranges, style, taxabind
from training.tables_sound import rows_of, sound, soundscape, steering

_MARKED = re.compile(r"(<!-- ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SCORES: tuple[tuple[str, str, int, tuple[tuple[str, str], ...]], ...] = (
    (
        "lite-KID (lower is better)",
        "lite_kid",
        3,
        (
            ("real tiles", "real_floor"),
            ("other blocks", "real_blocks"),
            ("real through the latents", "reconstructed"),
            ("blurred 4x", "blurred"),
            ("mean tile", "mean_tile"),
            ("shuffled layout", "shuffled_layout"),
        ),
    ),
    (
        "water agreement with the layout (IoU)",
        "water_iou",
        3,
        (("real tiles", "real"), ("shuffled", "shuffled"), ("mean tile", "mean_tile")),
    ),
    (
        "road contrast",
        "road_contrast",
        2,
        (("real tiles", "real"), ("shuffled", "shuffled"), ("mean tile", "mean_tile")),
    ),
    (
        "PSNR to the real tile, dB",
        "psnr_db",
        1,
        (
            ("real through the latents", "reconstructed"),
            ("blurred 4x", "blurred"),
            ("mean tile", "mean_tile"),
            ("another place's", "shuffled"),
        ),
    ),
    (
        "SSIM",
        "ssim",
        3,
        (
            ("real through the latents", "reconstructed"),
            ("blurred 4x", "blurred"),
            ("mean tile", "mean_tile"),
            ("another place's", "shuffled"),
        ),
    ),
    (
        "gradient energy over that of real tiles",
        "gradient_energy",
        2,
        (
            ("real through the latents", "reconstructed"),
            ("shuffled layout", "shuffled_layout"),
            ("blurred 4x", "blurred"),
            ("noise", "noise"),
        ),
    ),
    (
        "location alone: nearer the right place than another climate's",
        "location_pairs",
        3,
        (("real neighbour", "real_neighbour"), ("shuffled", "shuffled"), ("chance", "chance")),
    ),
    (
        "prompt against its opposite, no other input",
        "text_pairs",
        3,
        (("real tiles", "real"), ("same prompt", "same_prompt"), ("chance", "chance")),
    ),
)


def geosynth(report: Mapping[str, Any]) -> str:
    """Make the table of ``terrascape evaluate geosynth``, and read it."""
    metrics, controls = report["metrics"], report["controls"]

    def shown(value: float | None, digits: int) -> str:
        return "none" if value is None else f"{value:.{digits}f}"

    rows = [
        (
            label,
            shown(metrics.get(name), digits),
            "; ".join(
                f"{what} {shown(controls[f'{name}_{suffix}'], digits)}"
                for what, suffix in beside
                if f"{name}_{suffix}" in controls
            ),
        )
        for label, name, digits, beside in _SCORES
    ]
    table = rows_of((f"score, {report['data']['tiles']} unseen tiles", "model", "controls"), rows)
    floor, soft = controls["lite_kid_real_floor"], controls["lite_kid_blurred"]
    latents = (controls["lite_kid_reconstructed"] - floor) / (soft - floor)
    judged = sum(name.startswith("text_pairs/") for name in metrics)
    return table + (
        f"\nlite-KID lies {metrics['lite_kid_of_blurred']:.0%} of the way from real tiles to real "
        f"tiles blurred four\ntimes; the latents and the decoder alone account for {latents:.0%}. "
        f"Water agrees with the layout at\n{metrics['water_iou_of_real']:.0%} of what real tiles "
        f"reach. The prompt score rests on {judged} pairs of opposites.\n"
    )


def bench(result: Mapping[str, Any]) -> str:
    """Put the timing of a picture in one sentence."""
    image, machine = result["image"], result["machine"]
    rate = result["gemm_flops_per_s"][result["dtype"]] / 1e9
    return (
        f"One {image['size_px']}x{image['size_px']} picture with {image['network_evaluations']} "
        f"network evaluations takes {result['seconds']:.2f} s on {machine['threads']} threads "
        f"after\nloading, {result['efficiency']:.0%} of what the machine's own matrix product "
        f"({rate:.0f} GFLOP/s in {result['dtype']}) would allow;\na plain diffusers loop over the "
        f"same weights takes {result['plain_diffusers_s']:.2f} s (`terrascape bench satellite`).\n"
    )


def _table(head: Sequence[str], keys: Sequence[tuple[str, int]]) -> Callable[[Any], str]:
    def make(table: Mapping[str, Mapping[str, float]]) -> str:
        rows = [
            (name, *(f"{values[key]:.{digits}f}" for key, digits in keys))
            for name, values in table.items()
        ]
        return rows_of(head, rows)

    return make


_BESIDE_PANORAMAS = (
    ("copy", "copy of the nearest"),
    ("blend", "blend of three"),
    ("views_only", "panoramas only"),
    ("wrong_satellite", "wrong satellite"),
    ("wrong_views", "wrong panoramas"),
    ("nothing", "nothing given"),
    ("draft", "looked up, not drawn"),
    ("codec", "real through the codec"),
)
_PANORAMA_SCORES = (
    ("PSNR, dB", "psnr_db", 2),
    ("SSIM", "ssim", 3),
    ("lite0 distance (lower is better)", "lite0_distance", 3),
)


def panorama(report: Mapping[str, Any]) -> str:
    """Make the tables of ``terrascape evaluate panorama``: inputs, and over the distance."""

    def shown(value: float | None, digits: int) -> str:
        return "none" if value is None else f"{value:.{digits}f}"

    names = [
        (label, key + part, digits)
        for label, key, digits in _PANORAMA_SCORES
        for part in ("", "_ground")
    ]
    heads = [f"{label}{', ground' if key.endswith('_ground') else ''}" for label, key, _ in names]
    rows = [
        (
            f"model, {of}{number} panorama{'s' if number != '1' else ''}",
            *(shown(told[key]["mean"], digits) for _, key, digits in names),
        )
        for of, curve in (("", "views"), ("any ", "drawn_views"))
        for number, told in sorted(report["curves"][curve].items())
        if not (of and number == "0")
    ]
    rows += [
        (
            label,
            *(shown(report["controls"].get(f"{key}_{name}"), digits) for _, key, digits in names),
        )
        for name, label in _BESIDE_PANORAMAS
    ]
    text = rows_of(("given", *heads), rows) + "\n"
    far = []
    for bin_km, told in report["curves"]["distance"].items():
        cells = [
            " / ".join(
                shown(told[kind][key]["mean"], digits)
                for kind in ("one_view", "three_views", "copy", "blend")
            )
            for _, key, digits in _PANORAMA_SCORES
        ]
        far.append((f"{bin_km} km", str(told["one_view"]["psnr_db"]["panoramas"]), *cells))
    far.sort(key=lambda row: float(row[0].partition("-")[0]))
    head = ("nearest given", "targets", *(label for label, _, _ in _PANORAMA_SCORES))
    data = report["data"]
    seam, border = (
        f"{shown(report['metrics'][key], 2)} (real {shown(report['controls'][f'{key}_real'], 2)})"
        for key in ("seam_ratio", "border_ratio")
    )
    apart = report["heading_equivariance"]["max_abs_latents"]
    return (
        text
        + rows_of(head, far)
        + "\nThe nearest panoramas are given, unless it says any. In the second table: model from"
        f"\none / from three panoramas / copy / blend. {data['targets']} targets in "
        f"{data['sets']} sets, {data['label']}, of a\nblock where nothing learnt from stood. "
        f"Step over the edge: {seam} of all other steps,\n{border} of those over borders of "
        f"patches. Another heading changes latents by at most {apart:.1e}.\n"
    )


MAKERS: dict[str, Callable[[Any], str]] = {
    "geosynth": geosynth,
    "bench": bench,
    "codec": _table(
        ("way there and back", "lite-KID", "gradient energy", "PSNR, dB"),
        (("lite_kid", 4), ("gradient_energy", 2), ("psnr_db", 1)),
    ),
    "location": location,
    "prediction": _table(
        ("predicts", *(f"noise {share}" for share in (0.1, 0.3, 0.5, 0.7, 0.9))),
        tuple((f"share_{share}", 3) for share in (0.1, 0.3, 0.5, 0.7, 0.9)),
    ),
    "sound": sound,
    "steering": steering,
    "panorama": panorama,
    "ranges": ranges,
    "taxabind": taxabind,
    "style": style,
    "birdsat": birdsat,
    "soundscape": soundscape,
}


def filled(page: str, results: Path) -> str:
    """Replace what stands between the marks of a page.

    Raises:
        ConfigError: A mark has a name of no table.
        MissingFileError: The figures of a table are not there.
    """

    def fill(found: re.Match[str]) -> str:
        start, name, end = found.groups()
        if name not in MAKERS:
            raise ConfigError(f"<!-- {name} --> names no table (one of {', '.join(MAKERS)})")
        return f"{start}{MAKERS[name](_figures(results, name))}{end}"

    return _MARKED.sub(fill, page)


def _figures(results: Path, name: str) -> Any:  # noqa: ANN401 - what the file holds
    """Read a file of figures, or all of a folder by their names."""
    folder = results / name
    files = sorted(folder.glob("*.json")) if folder.is_dir() else [results / f"{name}.json"]
    absent = [file for file in files if not file.is_file()]
    if absent or not files:
        raise MissingFileError(f"{results / name}.json is not there (measure it first)")
    read = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    return read if folder.is_dir() else read[name]


def main(argv: Sequence[str] | None = None) -> None:
    """Fill the pages."""
    code = guarded("training.tables", lambda: _run(argv))
    if code:
        raise SystemExit(code)


def _run(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="training.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, help="the folder of figures, docs/results")
    parser.add_argument("pages", type=Path, nargs="+", help="Markdown files with marks")
    args = parser.parse_args(argv)
    for page in args.pages:
        if not page.is_file():
            raise MissingFileError(f"{page} is no page (check the name)")
        text = filled(page.read_text(encoding="utf-8"), args.results)
        with atomic_path(page) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
