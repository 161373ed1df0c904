import json

import pytest
import torch
from tiny_panorama import make_panorama_pipeline

from training import bench, bench_panorama, bench_satellite
from training.metrics import psnr


@pytest.fixture
def _small_products(monkeypatch):
    monkeypatch.setattr(bench_satellite, "_GEMM_SIDES", (64, 128))


@pytest.mark.usefixtures("_small_products")
def test_a_measurement_holds_together(tiny_pipeline):
    result = bench_satellite.measure(tiny_pipeline, 1)
    assert result["image"]["network_evaluations"] == 20
    rate = result["gemm_flops_per_s"][result["dtype"]]
    assert result["dtype"] == "float32"
    assert result["bound_s"] == pytest.approx(result["flops"] / rate, abs=1e-4)
    assert 0 < result["efficiency"] < 1.5
    assert result["peak_rss_bytes"] > 50 * 2**20
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    told = bench_satellite.tell({"model": "tiny", "load_s": 0.1, **result})
    assert "20 network evaluations" in told
    assert "GFLOP/s" in told


def test_the_plain_loop_draws_the_same_picture(tiny_pipeline):
    sides = bench_satellite.Bench(tiny_pipeline)
    assert psnr(sides.ours(3), sides.plain(3))[0] > 45
    assert psnr(sides.ours(3), sides.ours(4))[0] < 30


def test_the_work_of_a_picture_is_counted_and_the_hook_taken_away(tiny_pipeline):
    linear = torch.nn.Linear(8, 4, bias=False)
    hooks = len(tiny_pipeline.denoiser._forward_hooks)
    flops, evaluations = bench_satellite.count_work(
        tiny_pipeline.denoiser, lambda: linear(torch.ones(2, 8))
    )
    assert (flops, evaluations) == (2 * 2 * 8 * 4, 0)
    assert len(tiny_pipeline.denoiser._forward_hooks) == hooks


def test_the_rate_of_products_is_a_rate(monkeypatch):
    monkeypatch.setattr(bench_satellite, "_GEMM_SIDES", (64,))
    assert 1e7 < bench_satellite.gemm_rate(torch.float32) < 1e14


@pytest.mark.usefixtures("_small_products")
def test_a_panorama_is_timed_beside_a_plain_network():
    before = torch.get_num_threads()
    result = bench_panorama.measure(make_panorama_pipeline(), 1, (1,))
    assert torch.get_num_threads() == before
    assert result["panorama"]["network_evaluations"] == 10
    assert 0 < result["plain_unet_flops"] < result["flops"]
    assert set(result["threads"]) == {"1"}
    for part in result["threads"].values():
        assert part["bound_s"] == pytest.approx(
            result["flops"] / part["gemm_flops_per_s"], abs=1e-4
        )
        assert 0 < part["efficiency"] < 1.5
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    told = bench_panorama.tell({"model": "tiny", "load_s": 0.1, **result})
    assert "10 network evaluations" in told
    assert "1 thread: " in told


def test_the_plain_network_has_our_weights_and_does_not_wrap():
    pipeline = make_panorama_pipeline()
    sides = bench_panorama.PanoramaBench(pipeline)
    assert type(sides.unet.conv_in) is torch.nn.Conv2d
    assert type(pipeline.unet.conv_in) is not torch.nn.Conv2d
    assert torch.equal(sides.unet.conv_in.weight, pipeline.unet.conv_in.weight)
    assert not torch.equal(sides.plain(1), sides.plain(2))


def test_a_model_of_another_kind_is_not_timed_as_one_of_panoramas(capsys):
    assert bench.main(["panorama", "--model", "satellite-nano"]) == 2
    assert "draws no panoramas" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--pairs", "0"], "--pairs 0"),
        (["--threads", "0"], "--threads 0"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_impossible_requests_are_refused_in_one_sentence(words, hint, capsys):
    assert bench.main(["satellite", *words]) == 2
    told = capsys.readouterr().err
    assert hint in told
    assert told.count("\n") == 1
