"""Scores of sounds against sounds: the arithmetic, with no policy.

Sounds are ``float32 (n, samples)`` arrays in [-1, 1]. :mod:`training.evaluate_soundscape` decides
what is compared with what.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from generation.media.audio import Mel, log_mel
from training.metrics import bootstrap, group_codes, group_draws, kernel, kid_interval

Sounds = Float[np.ndarray, "n samples"]
Features = Float[np.ndarray, "n dim"]
Spectra = Float[np.ndarray, "n bands frames"]
Labels = Int[np.ndarray, " n"]
Groups = Int[np.ndarray, " n"]
INDICES = (
    "centroid_hz",
    "share_above_2khz",
    "level_above_2khz_db",
    "acoustic_complexity",
)
SPLIT_HZ = 2000.0
"""Most birdsong lies above, wind and engines below."""
_WINDOW, _HOP = 512, 256
_DB = 20 / math.log(10)
"""Decibels of a natural logarithm of magnitudes."""
_ROUNDS = 500
_AT_ONCE = 64


def standardised(features: Features, scale: Float[np.ndarray, "m dim"]) -> Features:
    """Bring features to the mean of others and, by one factor for all, to a mean variance of 1.

    A factor for each would blow up what hardly varies in recordings.
    """
    factor = np.sqrt(scale.var(0, dtype=np.float64).mean())
    return np.asarray((features - scale.mean(0, dtype=np.float64)) / factor)


def paired_mmd2(a: Features, b: Features) -> float:
    """Return the unbiased squared mean discrepancy of sets that belong together row by row.

    No row is compared with its own partner, so that a sound made after a recording is not flattered
    by that recording.

    Source:
        Bińkowski et al., "Demystifying MMD GANs" (ICLR 2018), Eq. 4 and § 4, without the pairs.
    """
    off = ~np.eye(len(a), dtype=bool)
    within = kernel(a, a)[off].mean() + kernel(b, b)[off].mean()
    return float(within - 2 * kernel(a, b)[off].mean())


def kad(
    features: Features, real: Features, groups: Groups, *, seed: int = 0
) -> tuple[float, float, float]:
    """Return the kernel audio distance of two such sets, with its 95 % interval over groups.

    It may be negative: its expectation is zero for sets that are drawn alike. The kernel is KID's
    cubic polynomial, not the paper's Gaussian.

    Source:
        Chung et al., "KAD: No more FAD!" (ICML 2025), for the use on sounds.
    """
    return paired_mmd2(features, real), *kid_interval(features, real, groups, seed=seed)


def kad_by_kind(features: Features, real: Features, labels: Labels) -> float:
    """Return the mean over kinds of the distance within each; one recording alone has none."""
    rows = [np.flatnonzero(labels == kind) for kind in np.unique(labels)]
    each = [paired_mmd2(features[own], real[own]) for own in rows if len(own) > 1]
    return float(np.mean(each)) if each else float("nan")


def frechet(a: Features, b: Float[np.ndarray, "m dim"]) -> float:
    """Return the Fréchet distance of the normal laws that two sets suggest.

    Few rows make it too large, by about as much for sets of one size: only such are comparable.

    Source:
        Dowson and Landau, "The Fréchet distance between multivariate normal distributions" (1982),
        Eq. 4; Kilgour et al., "Fréchet audio distance" (2019), Eq. 1.
    """
    first, second = (
        np.atleast_2d(np.cov(each.astype(np.float64), rowvar=False)) for each in (a, b)
    )
    apart = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * shared)


def frechet_interval(
    a: Features, b: Features, groups: Groups, *, rounds: int = 100, seed: int = 0
) -> tuple[float, float]:
    """Return a 95 % interval of the distance of sets that belong together, over groups of rows.

    Rows that are drawn twice make covariances poorer and distances larger, so the rounds are moved
    by what their mean lies above the distance of all rows.
    """
    draws = group_draws(groups, rounds, seed)[:, group_codes(groups)].astype(int)
    rows = [np.repeat(np.arange(len(a)), drawn) for drawn in draws]
    values = np.array([frechet(a[each], b[each]) for each in rows if len(each) > 1])
    low, high = np.percentile(values - values.mean() + frechet(a, b), [2.5, 97.5])
    return float(low), float(high)


def balanced(
    hits: Bool[np.ndarray, " n"], labels: Labels, groups: Groups, *, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean over kinds of the share of hits in each, with a 95 % interval over groups."""
    return bootstrap(_by_kind(hits, labels), groups, _balanced, seed=seed)


def balanced_ratio(
    hits: Bool[np.ndarray, " n"],
    others: Bool[np.ndarray, " n"],
    labels: Labels,
    groups: Groups,
    *,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return one such mean over another of the same rows, with a 95 % interval over groups."""
    table = np.concatenate([_by_kind(hits, labels), _by_kind(others, labels)], 1)

    def statistic(sums: Float[np.ndarray, "r columns"]) -> Float[np.ndarray, " r"]:
        above, below = (_balanced(part) for part in np.split(sums, 2, axis=1))
        none = np.full_like(above, np.nan)  # nothing to compare with
        return np.divide(above, below, out=none, where=below > 0)

    return bootstrap(table, groups, statistic, seed=seed)


def balanced_mean(hits: Bool[np.ndarray, " n"], labels: Labels) -> float:
    """Return the mean over kinds of the share of hits in each."""
    return float(_balanced(_by_kind(hits, labels).sum(0, keepdims=True))[0])


def _by_kind(hits: Bool[np.ndarray, " n"], labels: Labels) -> Float[np.ndarray, "n columns"]:
    kinds = (labels[:, None] == np.unique(labels)).astype(np.float64)
    return np.concatenate([kinds * hits[:, None], kinds], 1)


def _balanced(sums: Float[np.ndarray, "r columns"]) -> Float[np.ndarray, " r"]:
    hits, counts = np.split(sums, 2, axis=1)
    there = counts > 0  # a round may have drawn no recording of a kind
    shares = np.divide(hits, counts, out=np.zeros_like(hits), where=there)
    return np.asarray(shares.sum(1) / there.sum(1))


def median_ratio(
    values: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " n"],
    groups: Groups,
    *,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return a median over another of the same rows, with a 95 % interval over groups."""
    draws = group_draws(groups, _ROUNDS, seed)[:, group_codes(groups)].astype(int)
    rows = [np.repeat(np.arange(len(values)), drawn) for drawn in draws]
    ratios = [np.median(values[each]) / np.median(others[each]) for each in rows]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(values) / np.median(others)), float(low), float(high)


def difference(
    values: Float[np.ndarray, " n"],
    first: Bool[np.ndarray, " n"],
    groups: Groups,
    *,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return the mean of some rows less that of the others, with a 95 % interval over groups.

    A group that has rows of both is drawn with both, so that pairs stay pairs. NaN does not count.
    """
    known = np.isfinite(values)
    value = np.where(known, values, 0.0)
    table = np.stack(
        [value * first, known & first, value * ~first, known & ~first], 1, dtype=np.float64
    )

    def statistic(sums: Float[np.ndarray, "r 4"]) -> Float[np.ndarray, " r"]:
        return sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3]

    return bootstrap(table, groups, statistic, seed=seed)


def indices(sounds: Sounds, rate: int) -> Float[np.ndarray, "n indices"]:
    """Return figures of each sound that no network has learnt, in the order of ``INDICES``.

    The centre of the power over frequency, the share and the level of the power above
    ``SPLIT_HZ`` (dB, 0 for a variance of one), and how much magnitudes change from moment to
    moment, mean over frequencies. What silence has no value for is NaN.

    Source:
        Pieretti, Farina and Morri, "A new methodology to infer the singing activity of an avian
        community: the acoustic complexity index" (2011), Eq. 1 to 3, as a mean.
    """
    from scipy.signal import spectrogram

    rows = []
    for sound in sounds.astype(np.float64):
        hz, _, power = spectrogram(
            sound, rate, nperseg=_WINDOW, noverlap=_WINDOW - _HOP, scaling="density"
        )
        mean, high = power.mean(1), hz >= SPLIT_HZ
        size = np.sqrt(power)
        with np.errstate(divide="ignore", invalid="ignore"):
            changes = np.abs(np.diff(size, axis=1)).sum(1) / size.sum(1)
            rows.append(
                (
                    (hz * mean).sum() / mean.sum(),
                    mean[high].sum() / mean.sum(),
                    10 * np.log10(mean[high].sum() * hz[1]),
                    changes.mean(),
                )
            )
    table = np.array(rows).reshape(-1, len(INDICES))
    return np.where(np.isfinite(table), table, np.nan)


def spectra(sounds: Sounds, mel: Mel) -> Spectra:
    """Return spectrograms in dB without the mean of each: a louder copy is a copy too."""
    filters = mel.filters()
    parts = [
        log_mel(torch.from_numpy(sounds[start : start + _AT_ONCE]), mel, filters).numpy()
        for start in range(0, len(sounds), _AT_ONCE)
    ]
    seen = _DB * np.concatenate(parts)
    return np.asarray(seen - seen.mean((1, 2), keepdims=True), np.float32)


def shifted_distances(
    seen: Spectra, others: Float[np.ndarray, "m bands frames"]
) -> Float[np.ndarray, "n m"]:
    """Return the root mean square difference of spectrograms after the best shift in time, dB.

    Shifts go around, what leaves at the end comes in at the beginning; all are tried at once by the
    circular correlation theorem.
    """
    frames = seen.shape[2]
    there = np.fft.rfft(others, axis=2).conj().astype(np.complex64)
    energy = np.square(others, dtype=np.float64).sum((1, 2))
    rows = []
    for one in seen:
        spectrum = np.fft.rfft(one, axis=1).astype(np.complex64)
        alike = np.fft.irfft((there * spectrum).sum(1), frames, axis=1).max(1)
        squared = np.square(one, dtype=np.float64).sum() + energy - 2 * alike
        rows.append(np.sqrt(squared.clip(0) / one.size))
    return np.array(rows).reshape(len(seen), len(others))
