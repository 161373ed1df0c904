import numpy as np
import pytest
import torch

from generation.errors import ConfigError
from training import metrics
from training.metrics import (
    LiteFeatures,
    blur,
    bootstrap,
    colour_profile,
    gradient_energy,
    kid,
    kid_interval,
    mmd2,
    psnr,
    ratio,
    ssim,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def images(rng):
    """Six smooth pictures with some texture."""
    coarse = rng.integers(30, 220, (6, 12, 12, 3))
    fine = np.kron(coarse, np.ones((1, 8, 8, 1))) + rng.normal(0, 6, (6, 96, 96, 3))
    return fine.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def ruler():
    return LiteFeatures()


def test_the_feature_network_knows_its_1280_features(ruler, images):
    features = ruler(images)
    assert features.shape == (6, 1280)
    assert features.dtype == np.float32
    assert (features >= 0).all()  # they are means of ReLU6
    assert (features <= 6).all()
    assert features.std() > 0.05


def test_features_do_not_depend_on_the_batch(ruler, images):
    np.testing.assert_allclose(ruler(images, 1), ruler(images, 6), atol=1e-4)


def test_features_of_no_image_are_an_empty_table(ruler):
    assert ruler(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, 1280)


def test_images_of_odd_size_are_refused(ruler):
    with pytest.raises(ConfigError, match="multiples of 32"):
        ruler(np.zeros((1, 60, 64, 3), np.uint8))


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_mmd_is_the_one_of_torchmetrics(rng):
    from torchmetrics.image.kid import KernelInceptionDistance

    a = rng.normal(size=(40, 16)).astype(np.float32)
    b = (rng.normal(size=(40, 16)) + 0.3).astype(np.float32)
    judge = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=40)
    judge.update(torch.from_numpy(a), real=True)
    judge.update(torch.from_numpy(b), real=False)
    assert mmd2(a, b) == pytest.approx(float(judge.compute()[0]), rel=1e-4)
    assert kid(a, b, subsets=3, subset_size=40).mean == pytest.approx(mmd2(a, b), rel=1e-9)


class Given(torch.nn.Module):
    """Takes features for images."""

    num_features = 16

    def forward(self, x):
        return x


def test_kid_is_nothing_for_one_distribution_and_grows_with_distance(rng):
    a, b = rng.normal(size=(2, 400, 8)).astype(np.float32)
    near = kid(a, b, subset_size=100)
    far = kid(a, b + np.float32(0.5), subset_size=100)
    assert abs(near.mean) < near.sd
    assert far.mean > 0.3


def test_paired_kid_does_not_reward_copies(rng):
    a = rng.normal(size=(200, 8)).astype(np.float32)
    assert kid(a, a, subset_size=100).mean < -0.005  # every picture meets its own copy
    assert abs(kid(a, a, subset_size=100, paired=True).mean) < 0.005


def test_kid_repeats_itself_for_one_seed(rng):
    a, b = rng.normal(size=(2, 60, 8)).astype(np.float32)
    assert kid(a, b, subset_size=20, seed=3) == kid(a, b, subset_size=20, seed=3)
    assert kid(a, b, subset_size=20, seed=3) != kid(a, b, subset_size=20, seed=4)


@pytest.mark.parametrize(("size", "paired"), [(1, False), (61, False), (31, True)])
def test_kid_refuses_a_subset_that_does_not_fit(rng, size, paired):
    a = rng.normal(size=(60, 8)).astype(np.float32)
    with pytest.raises(ConfigError, match="subset_size"):
        kid(a, a, subset_size=size, paired=paired)


def test_kid_refuses_pairs_without_partners(rng):
    a = rng.normal(size=(60, 8)).astype(np.float32)
    with pytest.raises(ConfigError, match="one length"):
        kid(a, a[:50], subset_size=10, paired=True)


def test_the_interval_of_kid_holds_its_value(rng):
    a = rng.normal(size=(120, 8)).astype(np.float32)
    b = (rng.normal(size=(120, 8)) + 0.4).astype(np.float32)
    low, high = kid_interval(a, b, np.arange(120) // 4, rounds=300)
    assert low < kid(a, b, subset_size=50, paired=True).mean < high
    assert low > 0


def test_the_bootstrap_of_a_mean_has_the_width_of_its_standard_error(rng):
    values = rng.normal(5, 2, 400)
    table = np.stack([values, np.ones(400)], 1)
    point, low, high = bootstrap(table, np.arange(400), ratio)
    assert point == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)


def test_the_bootstrap_draws_whole_groups(rng):
    values = np.repeat(rng.normal(0, 1, 20), 20)  # 20 groups of equal rows
    table = np.stack([values, np.ones(400)], 1)
    _, low, high = bootstrap(table, np.repeat(np.arange(20), 20), ratio)
    _, naive_low, naive_high = bootstrap(table, np.arange(400), ratio)
    assert high - low > 3 * (naive_high - naive_low)


def test_psnr_and_ssim_are_those_of_torchmetrics(images):
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    other = blur(images)
    a, b = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 for x in (images, other))
    for mine, theirs in zip(psnr(images, other), zip(a, b, strict=True), strict=True):
        assert mine == pytest.approx(float(peak_signal_noise_ratio(*theirs, 1.0)), rel=1e-4)
    _, full = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    interior = full[..., 5:-5, 5:-5].mean((1, 2, 3))  # theirs counts reflected borders, too
    np.testing.assert_allclose(ssim(images, other), interior.numpy(), atol=1e-4)


def test_equal_images_are_infinitely_close(images):
    assert np.isinf(psnr(images, images)).all()
    np.testing.assert_allclose(ssim(images, images), 1, atol=1e-6)


def test_a_blur_keeps_the_mean_and_takes_texture(images):
    soft = blur(images)
    assert soft.shape == images.shape
    np.testing.assert_allclose(soft.mean((1, 2)), images.mean((1, 2)), atol=1)
    assert gradient_energy(soft).mean() < 0.7 * gradient_energy(images).mean()


def test_the_gradient_energy_of_a_ramp_is_its_squared_step():
    ramp = np.repeat((np.arange(32, dtype=np.uint8) * 3)[None, None, :, None], 3, -1)
    ramp = np.repeat(ramp, 32, 1)
    assert gradient_energy(ramp)[0] == pytest.approx(9 / 2, rel=1e-5)


def test_colour_profiles_tell_colours_and_not_places(images):
    profile = colour_profile(images)
    assert profile.shape == (6, 48)
    turned = np.ascontiguousarray(images[:, ::-1, ::-1])
    np.testing.assert_array_equal(profile, colour_profile(turned))
    brighter = (images * 0.5 + 100).astype(np.uint8)
    assert np.abs(profile - colour_profile(brighter)).mean() > 0.02


@pytest.mark.shared
def test_on_real_tiles_the_controls_come_in_order(ruler, shared_data):
    from training.data import list_files, read_rows

    files = [str(file) for file in list_files(str(shared_data / "bluemarble" / "test-*.parquet"))]
    rows = (row.image for row, _ in zip(read_rows(files), range(32), strict=False))
    real = np.stack(list(rows))[:, :128, :128]
    features = ruler(real)
    scores = [
        kid(ruler(each), features, subset_size=16, subsets=20, paired=True).mean
        for each in (real, blur(real), 255 - real)
    ]
    assert scores == sorted(scores)


def test_the_weights_of_the_ruler_are_the_published_ones(ruler):
    from generation.checkpoint import sha256_file

    assert sha256_file(ruler.weights).startswith("579344248a93e230")
    assert metrics.IMAGENET_MEAN == (0.485, 0.456, 0.406)
