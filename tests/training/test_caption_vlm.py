"""The captioner, with a LLaVA of random weights and a vocabulary of letters."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_llava import save_llava

from generation.errors import ConfigError, MissingFileError, OutputError
from training.caption_vlm import (
    already_told,
    caption_all,
    main,
    read_requests,
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    save_llava(folder)
    return folder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png"):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / name)
    return folder


def told(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_the_command_describes_a_folder_and_asks_nothing_twice(
    llava, images, tmp_path, monkeypatch
):
    out = tmp_path / "captions.jsonl"
    words = ["--images", str(images), "--out", str(out), "--model", str(llava)]
    assert main([*words, "--limit", "1"]) == 0
    assert [row["image"] for row in told(out)] == ["a.png"]
    assert main(words) == 0
    rows = told(out)
    assert [row["image"] for row in rows] == ["a.png", "b.png"]
    assert all(isinstance(row["prompt"], str) for row in rows)
    monkeypatch.setattr("training.caption_vlm.load_captioner", None)  # not even loaded
    assert main(words) == 0
    assert told(out) == rows


def describe(rgb):
    return f"{rgb.shape[1]}x{rgb.shape[0]}"


def test_a_line_that_a_crash_cut_off_is_told_again(images, tmp_path):
    out = tmp_path / "captions.jsonl"
    whole = json.dumps({"image": "a.png", "prompt": "a harbour"}) + "\n"
    out.write_text(whole + '{"image": "b.png", "pro')
    assert already_told(out) == {"a.png"}
    assert out.read_text() == whole
    assert caption_all(describe, read_requests(images), images, out) == 0
    assert told(out) == [
        {"image": "a.png", "prompt": "a harbour"},
        {"image": "b.png", "prompt": "40x30"},
    ]


def test_a_manifest_keeps_what_it_had(images, tmp_path):
    manifest = images / "pairs.jsonl"
    row = {"image": "b.png", "layout": "map.png", "lat": 1.5, "lon": 2}
    manifest.write_text(json.dumps(row) + "\n")
    out = tmp_path / "out.jsonl"
    caption_all(describe, read_requests(manifest), manifest, out)
    assert told(out) == [{**row, "prompt": "40x30"}]


def test_a_picture_that_cannot_be_read_stops_nothing(images, tmp_path, capsys):
    (images / "a.png").write_bytes(b"no picture")
    out = tmp_path / "out.jsonl"
    assert caption_all(describe, read_requests(images), images, out) == 1
    assert [row["image"] for row in told(out)] == ["b.png"]
    assert "a.png is no readable image" in capsys.readouterr().err


def test_odd_inputs_and_outputs_are_refused(images, tmp_path, capsys):
    with pytest.raises(MissingFileError, match="neither a folder nor a manifest"):
        read_requests(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="has no pictures"):
        read_requests(tmp_path / "empty")
    out = tmp_path / "notes.txt"
    for notes, reason in (("my notes", "ends in no caption"), ("my notes\n", "line 1")):
        out.write_text(notes)
        with pytest.raises(OutputError, match=reason):
            already_told(out)
        assert out.read_text() == notes
    assert main(["--images", str(images), "--out", str(out)]) == 2
    assert "name another file" in capsys.readouterr().err
