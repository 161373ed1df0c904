import numpy as np
import pytest
import torch

from generation.diffusion.codec import to_signal
from training.metrics import blur, psnr, ssim
from training.panorama_metrics import (
    METRICS,
    MOST_DB,
    PanoramaRuler,
    higher_is_better,
    masked_psnr,
    masked_ssim,
    seam_ratio,
    stage_distance,
)
from training.perception import StageFeatures, unlikeness

SHAPE = (2, 32, 128)


@pytest.fixture(scope="module")
def ruler():
    return PanoramaRuler()


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (2, 8, 32, 3)).repeat(4, 1).repeat(4, 2)
    return (coarse + rng.normal(0, 6, coarse.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def ground():
    mask = np.zeros(SHAPE, bool)
    mask[:, 16:] = True
    return mask


def column(table, name):
    return table[:, METRICS.index(name)]


def test_a_perfect_panorama_has_the_best_of_all_scores(ruler, images, ground):
    table = ruler(images, images, ground)
    for part in ("", "_ground"):
        np.testing.assert_array_equal(column(table, f"psnr_db{part}"), MOST_DB)
        np.testing.assert_allclose(column(table, f"ssim{part}"), 1, atol=1e-6)
        np.testing.assert_allclose(column(table, f"lite0_distance{part}"), 0, atol=1e-6)
    assert np.isinf(masked_psnr(images, images, ground)).all()


def test_a_mask_of_everything_gives_the_scores_of_whole_pictures(images):
    soft, everything = blur(images), np.ones(SHAPE, bool)
    np.testing.assert_allclose(masked_psnr(images, soft, everything), psnr(images, soft))
    np.testing.assert_allclose(masked_ssim(images, soft, everything), ssim(images, soft), atol=1e-6)


def test_what_is_wrong_in_the_sky_does_not_count_on_the_ground(ruler, images, ground):
    spoilt = images.copy()
    spoilt[:, :8] = 255 - spoilt[:, :8]
    table = ruler(spoilt, images, ground)
    assert (column(table, "psnr_db") < 20).all()
    np.testing.assert_array_equal(column(table, "psnr_db_ground"), MOST_DB)
    assert (column(table, "ssim_ground") > column(table, "ssim")).all()
    assert (column(table, "lite0_distance_ground") < column(table, "lite0_distance")).all()


def test_a_panorama_without_ground_has_no_scores_of_it(ruler, images):
    table = ruler(blur(images), images, np.zeros(SHAPE, bool))
    whole = [i for i, name in enumerate(METRICS) if not name.endswith("_ground")]
    assert np.isfinite(table[:, whole]).all()
    assert np.isnan(np.delete(table, whole, 1)).all()


def test_equal_weights_give_the_unlikeness_of_stages(images):
    stages = StageFeatures().eval()
    with torch.no_grad():
        a, b = stages(to_signal(images)), stages(to_signal(blur(images)))
    assert len(a) == 4
    alike = stage_distance(a, b, torch.full((2, 1, 32, 128), 0.3))
    torch.testing.assert_close(alike, unlikeness(a, b))


def test_the_ruler_looks_with_lite0_and_not_with_what_taught(ruler):
    assert "lite0" in ruler.weights.name
    assert sum(p.numel() for p in ruler._stages.parameters()) < 5e6  # Lite2 has more


def test_the_distance_grows_with_the_damage(ruler, images, ground):
    soft, noise = blur(images), np.random.default_rng(1).integers(0, 256, images.shape, np.uint8)
    near, far = (ruler(x, images, ground) for x in (soft, noise))
    assert (column(near, "lite0_distance") > 0.01).all()
    assert (column(far, "lite0_distance") > column(near, "lite0_distance")).all()


def test_a_picture_whose_edges_do_not_meet_has_a_large_seam():
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint8)[:, None], (1, 32, 128, 3))
    assert seam_ratio(ramp)[0] == pytest.approx(127)
    assert seam_ratio(np.concatenate([ramp, ramp[:, :, ::-1]], 2))[0] == pytest.approx(0, abs=1e-6)


def test_a_seam_does_not_depend_on_where_a_periodic_picture_is_cut():
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, (1, 64, 512, 3), np.uint8)
    for shift in (0, 100, 256):
        assert seam_ratio(np.roll(noise, shift, 2))[0] == pytest.approx(1, abs=0.1)


def test_equal_columns_have_no_seam():
    rows = np.arange(32, dtype=np.uint8)[None, :, None, None]
    striped = np.broadcast_to(rows, (1, 32, 128, 3)).copy()
    for every in (1, 8):
        assert seam_ratio(striped, every=every)[0] == 1
    assert seam_ratio(np.full((1, 32, 128, 3), 7, np.uint8))[0] == 1


def test_borders_of_patches_are_compared_with_borders():
    rng = np.random.default_rng(3)
    patches = rng.integers(0, 256, (1, 32, 32, 3), np.uint8).repeat(8, 2)
    assert seam_ratio(patches)[0] == pytest.approx(8, rel=0.4)  # one step in eight is none of 0
    assert seam_ratio(patches, every=8)[0] == pytest.approx(1, abs=0.3)


def test_a_seam_in_the_sky_is_none_on_the_ground():
    rng = np.random.default_rng(4)
    image = rng.integers(100, 110, (1, 32, 128, 3), np.uint8)
    image[:, :16, 0] = 255
    ground = np.zeros((1, 32, 128), bool)
    ground[:, 16:] = True
    assert seam_ratio(image)[0] > 5
    assert seam_ratio(image, ground)[0] == pytest.approx(1, abs=0.5)
    ground[:, :, 0] = False
    assert np.isnan(seam_ratio(image, ground)[0])


def test_scores_know_which_way_they_are_read():
    assert higher_is_better("psnr_db_ground")
    assert not higher_is_better("lite0_distance")
    with pytest.raises(KeyError):
        higher_is_better("loudness")
