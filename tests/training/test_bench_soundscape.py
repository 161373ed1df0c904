import json

import pytest
import torch
from tiny_soundscape import make_soundscape_pipeline

from training import bench, bench_satellite, bench_soundscape


@pytest.fixture
def _small_products(monkeypatch):
    monkeypatch.setattr(bench_satellite, "_GEMM_SIDES", (64, 128))


@pytest.mark.usefixtures("_small_products")
def test_a_sound_is_timed_beside_the_rate_of_products():
    before = torch.get_num_threads()
    result = bench_soundscape.measure(make_soundscape_pipeline(), 1, (1,), seconds=0.25)
    assert torch.get_num_threads() == before
    assert set(result["threads"]) == {"1"}
    assert result["sound"]["window_evaluations"] % 20 == 0  # ten steps, with and without the sound
    for part in result["threads"].values():
        assert part["bound_s"] == pytest.approx(
            result["flops"] / part["gemm_flops_per_s"], abs=1e-4
        )
        assert part["real_time_factor"] == pytest.approx(part["seconds"] / 0.25, abs=1e-3)
        assert 0 < part["voicing_s"] < part["seconds"]
        assert 0 < part["efficiency"] < 1.5
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    told = bench_soundscape.tell({"model": "tiny", "load_s": 0.1, **result})
    assert "real-time factor" in told
    assert "1 thread: " in told


def test_a_model_of_another_kind_is_not_timed_as_one_of_sounds(capsys):
    assert bench.main(["soundscape", "--model", "satellite-nano"]) == 2
    assert "makes no sounds" in capsys.readouterr().err


def test_a_number_of_rounds_out_of_range_is_refused(capsys):
    assert bench.main(["soundscape", "--rounds", "0"]) == 2
    assert "--rounds 0" in capsys.readouterr().err
