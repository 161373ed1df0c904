"""TaxaBind's losses, patching, a run at tiny size, and its report."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import write_tiles
from tiny_ranges import write_ranges
from torch.nn import functional as F

from generation.cli import main as terrascape
from generation.encoders.life_encoder import load_life
from generation.errors import ConfigError
from training.evaluate_taxabind import area
from training.life_losses import random_places, supervised, with_random_places
from training.patching import ALPHAS, interpolated, parallel, patched, sequential
from training.train_taxabind import learnt_blocks
from training.train_taxabind import main as train

CONFIG = Path(__file__).resolve().parents[2] / "configs/taxabind_nano.yaml"
TINY = ["dim=8", "width=12", "degree=2", "loop.steps=2", "loop.batch_size=4",
        "loop.warmup_steps=1", "loop.snapshot_every=1", "loop.panel_every=2",
        "loop.log_every=1"]  # fmt: skip
DIAGONAL = torch.eye(3, dtype=torch.bool)


def vectors(count, seed):
    return F.normalize(torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_names_are_asked_among_random_places_and_places_among_names():
    names, places, away = vectors(3, 0), vectors(3, 1), vectors(4, 2)
    scale = torch.tensor(7.0)
    forth = F.cross_entropy(7 * names @ torch.cat([places, away]).T, torch.arange(3))
    back = F.cross_entropy(7 * places @ names.T, torch.arange(3))
    found = with_random_places(names, places, away, scale, DIAGONAL)
    torch.testing.assert_close(found, 0.4 * forth + 0.6 * back)


def test_rows_of_one_taxon_are_no_negatives():
    names, places, away = vectors(3, 0), vectors(3, 1), vectors(4, 2)
    same = DIAGONAL.clone()
    same[0, 1] = same[1, 0] = True
    scale = torch.tensor(7.0)
    logits = 7 * torch.cat([names @ places.T, names @ away.T], 1)
    logits[0, 1] = logits[1, 0] = -torch.inf
    forth = F.cross_entropy(logits, torch.arange(3))
    back = F.cross_entropy(logits[:, :3].T, torch.arange(3))
    found = with_random_places(names, places, away, scale, same)
    torch.testing.assert_close(found, 0.4 * forth + 0.6 * back)


def test_all_images_of_a_taxon_are_asked_for():
    names, images = vectors(3, 0), vectors(3, 1)
    same = DIAGONAL.clone()
    same[0, 1] = same[1, 0] = True
    total = 0.0
    for logits in (7 * names @ images.T, 7 * images @ names.T):
        for row in range(3):
            shares = logits[row].exp() / logits[row].exp().sum()
            total -= sum(shares[col].log().item() for col in range(3) if same[row, col])
    found = supervised(names, images, torch.tensor(7.0), same)
    assert found.item() == pytest.approx(total / 6, rel=1e-5)


def test_random_places_are_even_on_the_sphere_or_in_degrees():
    count, seed = 40_000, torch.Generator().manual_seed(0)
    sphere = random_places(count, seed)
    assert sphere[:, 0].abs().mean() == pytest.approx(32.70, abs=0.3)  # half within 30 degrees
    assert (sphere[:, 0].abs() < 30).float().mean() == pytest.approx(0.5, abs=0.01)
    assert random_places(count, seed, compat="mvrl")[:, 0].abs().mean() == pytest.approx(45, abs=1)
    assert (sphere.abs() <= torch.tensor([90.0, 180.0])).all()
    assert sphere[:, 1].mean() == pytest.approx(0, abs=2)


def weights(value, count=3):
    return {"w": torch.full((2,), float(value)), "count": torch.tensor(count)}


def test_between_two_networks_the_best_alpha_is_taken():
    before, tuned = weights(0), weights(9, count=8)
    middle = interpolated(before, tuned, 1 / 3)
    torch.testing.assert_close(middle["w"], torch.full((2,), 3.0))
    assert middle["count"] == 3
    found = patched(before, tuned, lambda w: -abs(w["w"][0].item() - 3))
    assert found.alpha == pytest.approx(1 / 3)
    assert len(found.scores) == len(ALPHAS) == 10
    torch.testing.assert_close(found.weights["w"], torch.full((2,), 3.0))
    assert patched(before, tuned, lambda _: 1.0).alpha == 0  # what does not help changes nothing


def test_modalities_are_patched_in_one_by_one_or_all_at_once():
    before = weights(0)
    steps = {
        "location": lambda w: {**w, "w": w["w"] + 9},
        "audio": lambda w: {**w, "w": w["w"] - 18},
    }
    found = sequential(before, steps, lambda w: -abs(w["w"][0].item() - 5))
    assert [round(each.alpha * 9) for each in found.values()] == [5, 0]
    both = parallel(before, [weights(9), weights(-18)], lambda w: -w["w"][0].item())
    assert both.alpha == 1
    torch.testing.assert_close(both.weights["w"], torch.full((2,), -9.0))
    with pytest.raises(ConfigError, match="different networks: other"):
        parallel(before, [{**before, "other": torch.ones(1)}], lambda _: 0.0)
    with pytest.raises(ConfigError, match="nothing was tuned"):
        parallel(before, [], lambda _: 0.0)


def test_places_are_drawn_where_tiles_stand():
    tiles = torch.tensor([[12.0, -3.0], [-0.5, 179.0]])
    cells = torch.tensor([[19.9, -9.9], [20.1, -9.9], [19.9, 0.1], [-9.0, 171.0], [9.0, 171.0]])
    assert learnt_blocks(cells, tiles).tolist() == [True, False, False, True, False]


def test_right_order_of_pairs_is_counted():
    truth = np.array([True, False, True, False])
    assert area(np.array([3.0, 1.0, 2.0, 0.0]), truth) == 1
    assert area(np.array([3.0, 2.5, 2.0, 0.0]), truth) == 0.75
    assert area(np.zeros(4), truth) == 0.5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps on made-up ranges and the embedded database of looks."""
    home = tmp_path_factory.mktemp("taxabind")
    write_ranges(home)
    given = [f"ranges={home}/ranges.npz", f"traits={home}/traits.csv", f"out={home}/run"]
    looks = CONFIG.parents[1] / "assets/range-nano"
    train([str(CONFIG), *given, f"looks={looks}", *TINY])
    return home


def test_a_run_leaves_a_centred_space_that_the_report_measures(trained, capsys):
    folder = trained / "run/weights"
    life = load_life(str(folder))
    assert life.dim == 8
    assert all(getattr(life.space, f"{name}_mean").any() for name in life.modalities)
    assert life.text(["Carnivora Felidae"]).shape == (1, 8)
    tiles = write_tiles(trained / "test-0.parquet")
    out = trained / "report.json"
    assert terrascape([
        "evaluate", "taxabind", "--data", str(tiles), "--ranges", f"{trained}/ranges.npz",
        "--traits", f"{trained}/traits.csv", "--model", str(folder), "--out", str(out),
    ]) == 0  # fmt: skip
    report = json.loads(out.read_text())
    assert report["model"] == life.sha256
    ways = {name for name in report["metrics"] if name.startswith("who/")}
    assert len(ways) == 5
    assert {f"{way}_shuffled" for way in ways} < report["controls"].keys()
    assert {"who/prior", "who/neighbour"} < report["controls"].keys()
    assert all(0 <= value <= 1 for value in report["metrics"].values())
    assert str(out) in capsys.readouterr().out
