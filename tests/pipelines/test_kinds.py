import ast
import json
import subprocess
import sys

import pytest
from stand_in import draw
from stand_in_panorama import draw_panorama

from generation.errors import InvalidSpecError
from generation.media.artifact import read_spec
from generation.pipelines.kinds import renderer_for
from generation.render_batch import run_batch
from generation.spec import DEFAULT_MODELS, KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_renderer_and_a_model(kind):
    assert callable(renderer_for(kind))
    assert DEFAULT_MODELS[kind].startswith(kind)


def test_another_kind_is_refused():
    with pytest.raises(InvalidSpecError, match=r"kind='sonnet' is unknown.*satellite or panorama"):
        renderer_for("sonnet")


def test_choosing_costs_nothing_until_it_is_done():
    code = (
        "import sys, generation.pipelines.kinds, generation.media.artifact, generation.replay\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) is False


def test_a_table_may_mix_kinds_and_name_views_between_semicolons(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    a, b = tmp_path / "a.jpg", tmp_path / "b.jpg"
    rows = f'panorama,1,2,90,"{a}@1.1,2.1,45;{b}@1.2,2.2",64\nsatellite,1,2,,,64\n'
    rows += f'panorama,1,2,400,"{a}@95,2",64\n'
    table = tmp_path / "rows.csv"
    table.write_text(f"kind,lat,lon,heading,views,size\n{rows}")

    def either(spec, **options):
        return (draw_panorama if spec.kind == "panorama" else draw)(spec, **options)

    tally = run_batch(table, tmp_path / "out", renderer=either)
    assert (tally.done, tally.failed) == (2, 1)
    specs = {spec.kind: spec for spec in map(read_spec, (tmp_path / "out").glob("*_*N_*E_*.json"))}
    assert [view.heading for view in specs["panorama"].views] == [45.0, 0.0]
    assert specs["panorama"].model == "panorama-nano"
    assert specs["satellite"].model == "satellite-nano"
    failed = json.loads((tmp_path / "out/failed.jsonl").read_text())
    assert "heading=400" in failed["error"]
    assert "lat=95" in failed["error"]
    again = run_batch(table, tmp_path / "out", renderer=either, fingerprint=lambda _: "ab" * 32)
    assert (again.done, again.skipped) == (0, 2)
