"""Pages show the figures that were measured, and nothing that was typed."""

import json
from pathlib import Path

import pytest

from generation.errors import ConfigError, MissingFileError
from training.tables import filled, main

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "assets/satellite-nano/card.md",
    "docs/results/choices.md",
    "assets/sat2sound-nano/card.md",
    "assets/satellite-nano-sound/card.md",
    "assets/panorama-nano/card.md",
    "assets/soundscape-nano/card.md",
    "assets/ranges-nano/card.md",
    "assets/taxabind-nano/card.md",
    "assets/range-nano/card.md",
    "assets/satellite-nano-style/card.md",
    "assets/birdsat-nano/card.md",
)


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_show_the_figures_beside_them(name):
    page = (ROOT / name).read_text(encoding="utf-8")
    assert "<!-- end -->" in page
    assert filled(page, ROOT / "docs/results") == page


def test_the_figures_are_of_the_weights_that_ship():
    from generation.checkpoint import model_sha256

    shipped = model_sha256(ROOT / "assets/satellite-nano")
    for name, key in (("geosynth", "model"), ("bench", "model_sha256")):
        assert json.loads((ROOT / f"docs/results/{name}.json").read_text())[key] == shipped
    reports = sorted((ROOT / "docs/results/sound").glob("*.json"))
    assert len(reports) == 4
    for report in reports:
        told = json.loads(report.read_text())
        assert told["model"] == model_sha256(ROOT / f"assets/{report.stem}")
        assert told["data"]["location_source"] == "simulated"
    steered = json.loads((ROOT / "docs/results/steering.json").read_text())
    for part in (steered["sound_model"], steered["judge"]):
        assert part["sha256"] == model_sha256(ROOT / f"assets/{part['name']}")
    assert steered["model"] == shipped
    styled = json.loads((ROOT / "docs/results/style.json").read_text())
    assert styled["model"] == shipped
    assert styled["conditioner"] == model_sha256(ROOT / "assets/satellite-nano-style")
    for name in ("panorama", "soundscape", "ranges", "taxabind", "birdsat"):
        told = json.loads((ROOT / f"docs/results/{name}.json").read_text())
        assert told["model"] == model_sha256(ROOT / f"assets/{name}-nano")


def test_what_stands_between_the_marks_is_replaced_and_nothing_else(tmp_path):
    table = {"real tiles": {"lite_kid": 0.00012, "gradient_energy": 1.0, "psnr_db": 60.0}}
    (tmp_path / "codec.json").write_text(json.dumps(table))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- codec -->\nold\n<!-- end -->\nafter <!-- end -->\n")
    for _ in range(2):
        main([str(tmp_path), str(page)])
        assert page.read_text() == (
            "before\n<!-- codec -->\n"
            "| way there and back | lite-KID | gradient energy | PSNR, dB |\n"
            "| --- | --- | --- | --- |\n"
            "| real tiles | 0.0001 | 1.00 | 60.0 |\n"
            "<!-- end -->\nafter <!-- end -->\n"
        )


def test_a_mark_without_figures_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"bench\.json is not there"):
        filled("<!-- bench -->\n<!-- end -->", tmp_path)
    with pytest.raises(ConfigError, match="<!-- taste --> names no table"):
        filled("<!-- taste -->\n<!-- end -->", tmp_path)


def test_an_absent_page_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), str(tmp_path / "none.md")])
    assert stopped.value.code == 2
    assert "none.md is no page" in capsys.readouterr().err
