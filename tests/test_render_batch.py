import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from stand_in import draw, names
from tiny import make_pipeline

from generation import load
from generation.checkpoint import model_sha256
from generation.errors import InvalidSpecError, MissingFileError, OutputError
from generation.media.artifact import manifest_mistakes, read_artifact, read_spec, save_render
from generation.render_batch import (
    Row,
    main,
    read_rows,
    run_batch,
    run_workers,
    summary,
    weights_sha256,
)
from generation.spec import RunSpec

ROOT = Path(__file__).resolve().parents[1]
GOOD = [{"lat": 45.98, "lon": 7.66, "size": 64, "seed": seed} for seed in range(3)]


def fingerprint(_name):
    """What the stand-in says of its weights."""
    return "ab" * 32


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def requests(tmp_path):
    """Three good rows among five that are bad, each in its own way."""
    path = tmp_path / "requests.jsonl"
    rows = [json.dumps(row).encode() for row in GOOD]
    bad = [b'{"lat": 95, "lon": 7}', b"{", b'{"lat": 1, "lon": 2, "prompt": "\xff"}', b"[]"]
    rows[1:1] = [*bad, b"", json.dumps({"lat": 1, "lon": 2, "layout": "no.png"}).encode()]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(rows))
    return path


def test_bad_rows_are_noted_and_never_stop_the_run(requests, out, capsys):
    tally = run_batch(requests, out, renderer=draw)
    assert (tally.total, tally.done, tally.skipped, tally.failed) == (8, 3, 0, 5)
    assert tally.exit_code == 2
    failed = lines(out / "failed.jsonl")
    assert [row["row"] for row in failed] == [2, 3, 4, 5, 6]
    for row, said in zip(
        failed, ("lat=95", "no JSON", "UTF-8", "JSON list", "no.png"), strict=True
    ):
        assert said in row["error"]
    assert failed[0]["request"] == '{"lat": 95, "lon": 7}'
    manifests = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [read_spec(path).seed for path in manifests] == [0, 1, 2]
    assert all(manifest_mistakes(path) == [] for path in manifests)


def test_a_restart_skips_what_is_done_and_whole(requests, out, capsys):
    run_batch(requests, out, renderer=draw)
    first, *_ = capsys.readouterr().out.splitlines()
    Path(first).with_suffix(".tif").write_bytes(b"damaged")
    requests.write_text("\n".join(json.dumps(row) for row in GOOD))
    drawn = []

    def counting(spec, **options):
        drawn.append(spec.seed)
        return draw(spec, **options)

    tally = run_batch(requests, out, renderer=counting, fingerprint=fingerprint)
    assert (tally.done, tally.skipped, tally.failed, tally.exit_code) == (1, 2, 0, 0)
    assert drawn == [0]
    assert not (out / "failed.jsonl").exists()
    assert run_batch(requests, out, renderer=counting, fingerprint=fingerprint).skipped == 3
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.fixture
def good(tmp_path):
    """Three good rows."""
    path = tmp_path / "good.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in GOOD))
    return path


def test_a_restart_with_other_weights_draws_again_beside_and_says_so(good, out, capsys):
    run_batch(good, out, renderer=draw, fingerprint=fingerprint)
    old = [Path(line) for line in capsys.readouterr().out.splitlines()]
    kept = {path: path.read_bytes() for path in out.iterdir()}

    newer = {
        "renderer": partial(draw, model_sha256="cd" * 32),
        "fingerprint": lambda _: "cd" * 32,
    }
    tally = run_batch(good, out, **newer)
    assert (tally.done, tally.skipped, tally.beside) == (3, 0, 3)
    assert "3 rendered (3 of them beside an earlier picture, which is kept)" in summary(tally, out)
    told = capsys.readouterr()
    new = [Path(line) for line in told.out.splitlines()]
    assert [path.stem for path in new] == [f"{path.stem}-2" for path in old]
    for row, (was, now) in enumerate(zip(old, new, strict=True), start=1):
        said = f"row {row}: drawn as {now.name}, beside what is kept: {was.name}: other weights"
        assert said in told.err
    assert all(path.read_bytes() == content for path, content in kept.items())

    tally = run_batch(good, out, **newer)
    assert (tally.done, tally.skipped, tally.beside) == (0, 3, 0)
    assert "beside" not in summary(tally, out)
    assert [Path(line) for line in capsys.readouterr().out.splitlines()] == new


def test_a_restart_with_the_network_draws_again_what_was_made_without(good, out):
    run_batch(good, out, renderer=draw, fingerprint=fingerprint)
    for counts in ((3, 0), (0, 3)):
        again = run_batch(good, out, renderer=draw, fingerprint=fingerprint, online=True)
        assert (again.done, again.skipped) == counts


def test_files_without_a_manifest_that_hold_the_name_are_told(good, out, capsys):
    run_batch(good, out, renderer=draw, fingerprint=fingerprint)
    first = Path(capsys.readouterr().out.splitlines()[0])
    first.unlink()
    first.with_suffix(".png").write_bytes(b"mine")
    tally = run_batch(good, out, renderer=draw, fingerprint=fingerprint)
    assert (tally.done, tally.skipped, tally.beside) == (1, 2, 1)
    assert f"beside what is kept: other files named {first.stem}" in capsys.readouterr().err
    assert first.with_suffix(".png").read_bytes() == b"mine"


def test_the_weights_are_hashed_once_a_batch_and_only_for_a_restart(good, out):
    asked = []

    def counting(name):
        asked.append(name)
        return fingerprint(name)

    run_batch(good, out, renderer=draw, fingerprint=counting)
    assert asked == []
    assert run_batch(good, out, renderer=draw, fingerprint=counting).skipped == 3
    assert asked == ["satellite-nano"]


def test_weights_that_are_gone_prove_nothing(good, out, tmp_path, monkeypatch):
    run_batch(good, out, renderer=draw)
    monkeypatch.setattr("generation.registry.ASSETS", tmp_path / "none")
    tally = run_batch(good, out, renderer=draw)
    assert (tally.skipped, tally.failed, tally.exit_code) == (0, 3, 2)
    assert "no weights of satellite-nano" in lines(out / "failed.jsonl")[0]["error"]


def test_the_pipeline_writes_the_fingerprint_that_a_restart_looks_for(
    good, out, tmp_path, monkeypatch
):
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    make_pipeline().save_pretrained(tmp_path / "satellite-nano")
    good.write_text(json.dumps({**GOOD[0], "steps": 1}))
    assert run_batch(good, out).done == 1
    assert run_batch(good, out).skipped == 1
    (manifest,) = out.glob("*.json")
    recorded = read_artifact(manifest).record["provenance"]["model_sha256"]
    assert recorded == weights_sha256("satellite-nano", online=False)


def test_a_full_size_pipeline_has_the_fingerprint_that_a_restart_looks_for(tmp_path, monkeypatch):
    from training.tiny_sd import write_base

    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path))
    write_base(tmp_path / "geosynth")
    expected = load("geosynth").sha256
    assert weights_sha256("geosynth", online=False) == expected
    assert weights_sha256("MVRL/GeoSynth", online=False) == expected


def test_a_restart_of_what_is_done_does_not_load_torch(tmp_path, out):
    (tmp_path / "satellite-nano").mkdir()
    (tmp_path / "satellite-nano" / "a.safetensors").write_bytes(b"weights")
    requests = tmp_path / "r.jsonl"
    requests.write_text(json.dumps(GOOD[0]))
    known = model_sha256(tmp_path / "satellite-nano")
    save_render(draw(RunSpec(**GOOD[0]), model_sha256=known), out)
    code = (
        "import sys\nfrom generation.render_batch import main\n"
        f"code = main([{str(requests)!r}, '--out', {str(out)!r}])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TERRASCAPE_HOME": str(tmp_path)},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "1 there already" in ran.stderr


def test_a_row_that_fails_through_us_is_noted_and_the_run_goes_on(tmp_path, out):
    requests = tmp_path / "r.jsonl"
    requests.write_text("\n".join(json.dumps(row) for row in GOOD))

    def breaking(spec, **options):
        if spec.seed == 1:
            raise RuntimeError("tensor has no elements")
        return draw(spec, **options)

    tally = run_batch(requests, out, renderer=breaking)
    assert (tally.done, tally.failed, tally.exit_code) == (2, 1, 1)
    assert lines(out / "failed.jsonl")[0]["error"] == "RuntimeError: tensor has no elements"


def test_a_full_disk_stops_the_run_and_keeps_what_is_finished(tmp_path, out):
    requests = tmp_path / "r.jsonl"
    requests.write_text("\n".join(json.dumps(row) for row in GOOD))

    def filling(spec, **options):
        if spec.seed == 1:
            raise OutputError("No space left on device")
        return draw(spec, **options)

    with pytest.raises(OutputError, match="No space"):
        run_batch(requests, out, renderer=filling)
    assert len(list(out.glob("*.json"))) == 1


def test_a_table_is_read_by_the_names_in_its_header(tmp_path, out):
    requests = tmp_path / "r.csv"
    requests.write_text(
        "lat,lon,prompt,seed,size,use_location,layout_guidance\n"
        '45.98,7.66,"snow, ice",7,64,no,\n'
        "45.98,7.66,,x,64,maybe\n"
        "1,2,,3,64,,1.5,8\n"
        "\n"
        "-1.5,2,,,64\n",
        encoding="utf-8",
    )
    rows = list(read_rows(requests))
    assert rows[0].spec() == RunSpec(
        lat=45.98, lon=7.66, prompt="snow, ice", seed=7, size=64, use_location=False
    )
    assert rows[3].spec() == RunSpec(lat=-1.5, lon=2.0, size=64)
    tally = run_batch(requests, out, renderer=draw)
    assert (tally.done, tally.failed) == (2, 2)
    odd, wide = lines(out / "failed.jsonl")
    assert "seed='x' is no whole number" in odd["error"]
    assert "use_location='maybe'" in odd["error"]
    assert "8 cells under 7 names" in wide["error"]


def test_shares_are_disjoint_and_complete(tmp_path):
    requests = tmp_path / "r.jsonl"
    requests.write_text("\n".join(json.dumps({"row": i}) for i in range(10)))
    shares = [list(read_rows(requests, (i, 3))) for i in (1, 2, 3)]
    assert [row.number for row in shares[1]] == [2, 5, 8]
    assert sorted(row.number for share in shares for row in share) == list(range(1, 11))
    assert shares[0][0] == Row(1, '{"row": 0}')


def test_a_share_notes_its_own_failures(requests, out):
    run_batch(requests, out, shard=(2, 2), renderer=draw)
    run_batch(requests, out, shard=(1, 2), renderer=draw)
    assert sorted(path.name for path in out.glob("failed*")) == [
        "failed.1of2.jsonl",
        "failed.2of2.jsonl",
    ]
    run_batch(requests, out, renderer=draw)
    assert [path.name for path in out.glob("failed*")] == ["failed.jsonl"]


def test_a_damaged_row_of_a_table_is_one_bad_row(tmp_path, out):
    requests = tmp_path / "r.csv"
    requests.write_text(f"lat,lon,size,prompt\n1,2,64,{'x' * 200_000}\n1,2,64,\n")
    tally = run_batch(requests, out, renderer=draw)
    assert (tally.done, tally.failed) == (1, 1)
    assert "is no CSV" in lines(out / "failed.jsonl")[0]["error"]


def test_no_file_of_requests_no_folder(tmp_path, out, capsys):
    with pytest.raises(MissingFileError, match=r"none\.jsonl"):
        run_batch(tmp_path / "none.jsonl", out)
    assert main([str(tmp_path / "none.jsonl"), "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "a/b", "1/0"])
def test_a_share_that_is_none_is_refused(shard, tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path), "--shard", shard]) == 2
    assert f"'{shard}' is no share (give 1/4 to 4/4" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 65])
def test_an_impossible_number_of_workers_is_refused(workers, requests, out):
    with pytest.raises(InvalidSpecError, match=rf"workers={workers}.*1 to 64"):
        run_workers(requests, out, workers=workers)


def test_workers_share_the_rows_and_gather_the_failures(tmp_path, out):
    requests = tmp_path / "r.jsonl"
    requests.write_text("\n".join(json.dumps({"lat": 95 + i, "lon": 2}) for i in range(5)))
    tally = run_workers(requests, out, workers=2)
    assert (tally.total, tally.failed) == (5, 5)
    assert [row["row"] for row in lines(out / "failed.jsonl")] == [1, 2, 3, 4, 5]
    assert names(out) == ["failed.jsonl"]


@pytest.mark.parametrize("how", [["generation/render_batch.py"], ["-m", "generation.render_batch"]])
def test_it_runs_as_a_script_and_as_a_module(how, tmp_path, out):
    requests = tmp_path / "r.jsonl"
    requests.write_text('{"lat": 95, "lon": 2}\n')
    ran = subprocess.run(
        [sys.executable, *how, requests, "--out", out, "--shard", "1/1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "1 failed" in ran.stderr.splitlines()[-1]
    assert lines(out / "failed.jsonl")[0]["row"] == 1
