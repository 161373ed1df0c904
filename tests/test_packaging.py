import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "torch",
    "diffusers",
    "transformers",
    "gradio",
    "rasterio",
    "geopandas",
    "osmnx",
    "lancedb",
)
# Third-party names that could change under us, and their homes.
HOMES = {
    "osmnx": ("generation.geo.osm",),
    "gradio": ("generation.studio",),
    "lancedb": ("generation.encoders.gallery",),
    "ray": ("generation.jobs.engine",),
    # It draws polygons and it reads and writes GeoTIFF: one home for each; the last makes an asset.
    "rasterio": (
        *("generation.geo.layout", "generation.geo.imagery"),
        *("generation.media.geotiff", "training.world_layers"),
    ),
    "soundfile": ("generation.media.audio", "generation.media.sound_files"),
    "safetensors": ("generation.checkpoint",),
}


def modules():
    for package in ("generation", "training"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def heavy_after(code):
    """Names of the heavy packages that some Python code has imported."""
    probe = f"{code}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", probe],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return ast.literal_eval(done.stdout.splitlines()[-1])


def test_the_public_face_imports_nothing_heavy():
    code = "import generation, training; generation.Location(0.0, 0.0); generation.list_models()"
    assert heavy_after(code) == []


def test_weights_are_counted_and_settings_read_without_torch():
    code = (
        "import generation.config, generation.checkpoint as c, generation.convert\n"
        "from generation.registry import locate\n"
        "folder = locate('geoclip-location')\n"
        "c.model_sha256(folder); c.read_shapes(folder / 'diffusion_pytorch_model.safetensors')"
    )
    assert heavy_after(code) == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["render", "--help"], ["search", "--help"], ["info"], ["models"]]
)
def test_light_commands_import_nothing_heavy(arguments):
    code = (
        "import contextlib, generation.cli\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    generation.cli.main({arguments!r})"
    )
    assert heavy_after(code) == []


@pytest.mark.parametrize(("package", "homes"), HOMES.items())
def test_a_package_that_may_change_is_imported_at_home_only(package, homes):
    users = {
        module
        for module, path in modules()
        if any(name.split(".")[0] == package for name in imported(path))
    }
    strangers = {user for user in users if not f"{user}.".startswith(tuple(f"{h}." for h in homes))}
    assert not strangers


def test_files_stay_short_enough_to_be_read():
    long = {
        module: lines
        for module, path in modules()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_every_dependency_has_a_lower_bound_and_a_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    assert set(extras) == {"gpu", "preprocess", "train", "ray", "dev"}
    for requirement in [*project["dependencies"], *(r for e in extras.values() for r in e)]:
        assert ">=" in requirement, requirement
    for requirement in project["dependencies"]:
        assert re.search(rf'"{re.escape(requirement)}",\s+# \S', text), requirement


def test_every_imported_package_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(r for e in extras.values() for r in e)]
    declared = {re.split(r"[\[<>=]", r)[0].replace("-", "_").lower() for r in requirements}
    declared |= {"pil", "yaml", "sklearn"}  # pillow, pyyaml and scikit-learn by their modules
    declared |= {"generation", "training"}
    names = {name.split(".")[0].lower() for _, path in modules() for name in imported(path)}
    assert not names - declared - {name.lower() for name in sys.stdlib_module_names}


def test_the_project_asks_for_no_torch_newer_than_it_installs():
    torch = next(
        requirement
        for requirement in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
            "dependencies"
        ]
        if requirement.startswith("torch>=")
    )
    wanted = tuple(int(part) for part in torch.removeprefix("torch>=").split("."))
    pinned = re.search(r"^TORCH \?= torch==(\d+)\.(\d+)", (ROOT / "Makefile").read_text(), re.M)
    assert wanted <= (int(pinned[1]), int(pinned[2])) < (2, 15)


def test_the_version_is_told_in_one_way():
    import generation

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == generation.__version__
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_licence_is_the_whole_apache_text():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
