import json
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from stand_in import draw

from generation.cli import main
from generation.errors import WeightsError
from generation.media.artifact import read_spec, save_render
from generation.spec import RunSpec

ROOT = Path(__file__).resolve().parents[1]
PLACE = ["--lat", "45.98", "--lon", "7.66"]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def pipeline(monkeypatch):
    """Let the commands draw with the stand-in; the real pipeline has its own tests."""
    module = types.ModuleType("generation.pipelines.satellite")
    module.render = draw
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def render(*words, out):
    return main(["render", "satellite", *words, "--out", str(out)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lat", "95", "--lon", "7"], ["lat=95", "[-90, 90]"]),
        (["--lat", "-122.4", "--lon", "37.8"], ["lat=-122.4", "swapped", "lat=37.8, lon=-122.4"]),
        (["--lat", "nan", "--lon", "7"], ["lat=nan", "[-90, 90]"]),
        (["--lat", "-nan", "--lon", "7"], ["lat=nan", "[-90, 90]"]),
        (["--lat", "-inf", "--lon", "7"], ["lat=-inf", "[-90, 90]"]),
        (["--lat", "5", "--lon", "-1E+400"], ["lon=-inf", "[-180, 180]"]),
        (["--lat", "-95e0", "--lon", "-1.8e3"], ["lat=-95, lon=-1800", "[-90, 90]"]),
        (["--lat", "-1e", "--lon", "7"], ["--lat", "'-1e' is no number", "45.98"]),
        (["--lat", "north", "--lon", "7"], ["--lat", "'north' is no number", "45.98"]),
        (["--lat", "5"], ["--lon", "required"]),
        ([*PLACE, "--seed", "-5"], ["seed=-5", "0 to 2^63 - 1"]),
        ([*PLACE, "--seed", str(2**64)], [f"seed={2**64}", "0 to 2^63 - 1"]),
        ([*PLACE, "--seed", "1.5"], ["--seed", "'1.5' is no whole number"]),
        ([*PLACE, "--seed", "-1e3"], ["--seed", "'-1e3' is no whole number", "like 7"]),
        ([*PLACE, "--seed", "9" * 5000], ["--seed", "9999… has 5000 digits", "like 7"]),
        ([*PLACE, "--steps", "0"], ["steps=0", "1 to 200"]),
        ([*PLACE, "--steps", "1000000"], ["steps=1000000", "1 to 200"]),
        ([*PLACE, "--text-guidance", "nan"], ["text_guidance=nan", "0 to 20"]),
        ([*PLACE, "--layout-guidance", "inf"], ["layout_guidance=inf", "0 to 20"]),
        ([*PLACE, "--text-guidance", "-1e-9"], ["text_guidance=-1e-09", "0 to 20"]),
        ([*PLACE, "--location-guidance", "-Infinity"], ["location_guidance=-inf", "0 to 20"]),
        ([*PLACE, "--size", f"1{'0' * 400}"], ["size=1000", "…(401 digits)", "64 to 1024"]),
        ([*PLACE, "--size", "100000"], ["size=100000", "64 to 1024"]),
        ([*PLACE, "--size", "250"], ["size=250", "multiple of 8", "248"]),
        ([*PLACE, "--zoom", "99"], ["zoom=99", "0 to 22"]),
        ([*PLACE, "--prompt", "x" * 10_000], ["10000 characters", "2000 are allowed", "cut it"]),
        ([*PLACE, "--prompt", "a\0b"], ["prompt='a\\x00b'", "NUL at character 2", "take it out"]),
        ([*PLACE, "--layout", "none.geojson"], ["none.geojson", "auto, none or the path"]),
        ([*PLACE, "--layout", "x" * 5000], ["layout='xxx", "xxx…'", "too long", "its name"]),
        ([*PLACE, "--two\nlines"], ["--two lines", "--help"]),
        ([*PLACE, "--stepps", "5"], ["--stepps", "--help"]),
        ([*PLACE, "--step", "5"], ["--step", "--help"]),
    ],
)
def test_each_mistake_is_one_sentence_and_leaves_nothing(words, said, out, capsys):
    assert render(*words, out=out) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    for part in said:
        assert part in told.err
    assert not out.exists()


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("prompt", ["", "🏔️ snow"])
def test_paths_go_to_stdout_and_progress_to_stderr(prompt, out, capsys):
    words = [*PLACE, "--prompt", prompt, "--size", "64", "--steps", "3", "--seed", "7"]
    assert render(*words, "--no-location", out=out) == 0
    told = capsys.readouterr()
    paths = [Path(line) for line in told.out.splitlines()]
    assert [path.suffix for path in paths] == [".png", ".tif", ".png", ".json"]
    assert read_spec(paths[0]) == RunSpec(
        lat=45.98, lon=7.66, prompt=prompt, size=64, steps=3, seed=7, use_location=False
    )
    assert "step 3/3" in told.err


@pytest.mark.usefixtures("pipeline")
def test_a_negative_number_may_be_written_with_an_exponent(out, capsys):
    assert render("--lat", "-1e-3", "--lon", "-7.5E1", "--size", "64", "--json", out=out) == 0
    spec = json.loads(capsys.readouterr().out)["spec"]
    assert (spec["lat"], spec["lon"]) == (-0.001, -75.0)


@pytest.mark.usefixtures("pipeline")
def test_json_names_the_files_and_the_spec(out, capsys):
    assert render(*PLACE, "--size", "64", "--json", out=out) == 0
    told = json.loads(capsys.readouterr().out)
    assert all(Path(path).is_file() for path in told["files"])
    assert told["spec"]["lat"] == 45.98
    assert told["seconds"] > 0


def test_notes_of_the_pipeline_reach_the_person(pipeline, out, capsys):
    def noting(spec, **options):
        result = draw(spec, **options)
        result.provenance["notes"] = ["the prompt was read up to '…'"]
        return result

    pipeline.render = noting
    assert render(*PLACE, "--size", "64", out=out) == 0
    assert "note: the prompt was read up to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(WeightsError("bad\nweights"), 2), (KeyboardInterrupt(), 130), (RuntimeError("oops"), 1)],
)
def test_a_render_that_ends_badly_leaves_nothing(error, code, pipeline, out, capsys):
    def failing(spec, **options):
        raise error

    pipeline.render = failing
    assert render(*PLACE, out=out) == code
    assert not out.exists()
    told = capsys.readouterr()
    assert told.out == ""
    if code == 2:
        assert told.err == "terrascape: bad weights\n"


def test_a_folder_that_is_a_file_is_refused_before_the_render(pipeline, tmp_path, capsys):
    pipeline.render = None
    (tmp_path / "file").touch()
    assert render(*PLACE, out=tmp_path / "file") == 2
    assert "is a file (give a folder)" in capsys.readouterr().err
    assert (tmp_path / "file").stat().st_size == 0


@pytest.fixture
def saved(tmp_path):
    spec = RunSpec(lat=45.98, lon=7.66, seed=7, size=64, steps=2)
    return save_render(draw(spec), tmp_path / "saved")


@pytest.mark.usefixtures("pipeline")
def test_replay_says_equal_and_may_save(saved, out, capsys):
    for path in (saved[0], saved[1], saved[3]):
        assert main(["replay", str(path)]) == 0
        assert capsys.readouterr().out == "equal\n"
    assert main(["replay", str(saved[0]), "--out", str(out)]) == 0
    verdict, *paths = capsys.readouterr().out.splitlines()
    assert verdict == "equal"
    for again, path in zip(paths[:3], saved[:3], strict=True):
        assert Path(again).read_bytes() == path.read_bytes()


def test_replay_that_differs_says_why_and_fails(pipeline, saved, capsys):
    pipeline.render = lambda spec, **_: draw(spec, model_sha256="cd" * 32)
    assert main(["replay", str(saved[0]), "--json"]) == 1
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["equal"] is False
    assert "model_sha256" in verdict["text"]


def test_replay_of_what_is_no_render_is_refused(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"hello")
    assert main(["replay", str(tmp_path / "a.png")]) == 2
    assert main(["replay", str(tmp_path / "b.png")]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_batch_renders_a_file_of_requests(pipeline, tmp_path, out, capsys):
    requests = tmp_path / "plan.jsonl"
    requests.write_text('{"lat": 1, "lon": 2, "size": 64}\n{"lat": 99, "lon": 2}\n')
    assert main(["batch", str(requests), "--out", str(out), "--engine", "local"]) == 2
    told = capsys.readouterr()
    assert read_spec(Path(told.out.strip())).lat == 1
    assert "1 rendered, 0 there already, 1 failed" in told.err
    assert main(["batch", str(requests), "--out", str(out), "--engine", "ray"]) == 2


def test_models_and_info_list_what_is_there(capsys):
    assert main(["models", "--json"]) == 0
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert models["satellite-nano"]["kind"] == "satellite"
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["models"]["satellite-nano"] == models["satellite-nano"]["here"]
    assert info["packages"]["numpy"] is not None
    assert info["cpus"]["usable"] >= 1
    assert main(["info"]) == 0
    assert main(["models"]) == 0
    assert "satellite-nano" in capsys.readouterr().out


def test_convert_refuses_what_it_cannot_read(tmp_path, out, capsys):
    assert main(["convert", "sonnet", str(tmp_path / "a.ckpt"), "--out", str(out)]) == 2
    assert main(["convert", "controlnet", str(tmp_path / "a.ckpt"), "--out", str(out)]) == 2
    unknown, absent = capsys.readouterr().err.splitlines()
    assert "kind='sonnet'" in unknown
    assert "controlnet, coordnet, geoclap, geoclip, psm, range, sat2sound, satclip" in unknown
    assert "a.ckpt" in absent
    assert not out.exists()


def test_no_command_shows_the_help_and_is_a_mistake(capsys):
    assert main([]) == 2
    assert "render" in capsys.readouterr().err
    assert main(["paint"]) == 2
    assert "'paint'" in capsys.readouterr().err


def run(*words, code="import sys; from generation.cli import main; sys.exit(main())", **options):
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        **options,
    )


WITHOUT_TORCH = """
import sys
from generation.cli import main
code = main()
heavy = {"torch", "diffusers", "transformers", "gradio", "geopandas", "osmnx"} & set(sys.modules)
print(heavy, file=sys.stderr)
sys.exit(1 if heavy else code)
"""


@pytest.mark.parametrize(
    "words", [["--help"], ["info"], ["info", "--json"], ["models"], ["render", "satellite", "-h"]]
)
def test_light_commands_do_not_pay_for_torch(words):
    ran = run(*words, code=WITHOUT_TORCH)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


def test_show_does_not_pay_for_torch(saved):
    for path in (saved[0], saved[1], saved[3]):
        ran = run("replay", str(path), "--show", code=WITHOUT_TORCH)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["spec"]["seed"] == 7


SLOW_RENDER = """
import sys, time, types
from generation.cli import main
module = types.ModuleType("generation.pipelines.satellite")
def render(spec, **options):
    print("drawing", file=sys.stderr, flush=True)
    time.sleep(30)
module.render = render
sys.modules[module.__name__] = module
sys.exit(main())
"""


def test_ctrl_c_leaves_nothing_and_says_so(out):
    words = ["render", "satellite", *PLACE, "--out", str(out)]
    command = [sys.executable, "-c", SLOW_RENDER, *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr.readline() == "drawing\n"
        assert out.is_dir()
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not out.exists()


def test_a_reader_that_leaves_early_is_no_mistake():
    code = "import sys; from generation.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "models", "--json"]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **piped) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_command_of_another_package_is_loaded_only_when_it_is_asked_for(monkeypatch, capsys):
    from importlib import metadata

    loaded = []

    class Entry:
        def __init__(self, name):
            self.name = name

        def load(self):
            loaded.append(self.name)

            if self.name == "broken":
                raise ImportError("no module named 'paint'")

            def command(commands):
                parser = commands.add_parser("measure", help="measure something")
                parser.set_defaults(run=lambda _: sys.stdout.write("42\n") and 0)

            return command

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Entry("measure"), Entry("broken")])
    assert main(["models"]) == 0
    assert loaded == []
    assert main(["measure"]) == 0
    assert capsys.readouterr().out.endswith("42\n")
    assert main(["--help"]) == 0
    told = capsys.readouterr()
    assert "measure something" in told.out
    assert "no command 'broken' here (no module named 'paint')" in told.err
    assert loaded == ["measure", "broken", "measure"]


@pytest.mark.slow
def test_help_and_info_are_quick():
    for words in (["--help"], ["info", "--json"]):
        took = []
        for _ in range(3):
            start = time.perf_counter()
            run(*words)
            took.append(time.perf_counter() - start)
        assert min(took) < 0.5
