"""Scores of real tiles and of trivial pictures: the scale on which a model's scores are read."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from training.evaluate_tiles import Tiles, partners
from training.faithfulness import (
    Masks,
    accuracy,
    agreement_counts,
    iou,
    layout_roads,
    layout_water,
    road_contrast,
    water_mask,
)
from training.metrics import (
    Images,
    LiteFeatures,
    blur,
    bootstrap,
    gradient_energy,
    kid,
    kid_interval,
    psnr,
    ratio,
    ssim,
)

CELL_DEGREES = 5
"""Side of the cells that the bootstrap draws: neighbouring tiles are no independent witnesses."""
BLOCK_DEGREES = 10
"""Side of the blocks by which the data were split; a shuffled condition comes from another."""
SUBSETS, SUBSET_SIZE = 100, 200


@dataclass(slots=True)
class Scores:
    """Named numbers, with 95 % intervals for those that have one."""

    values: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(
        self, name: str, value: float, low: float | None = None, high: float | None = None
    ) -> None:
        """Record a score; what is not finite is recorded as absent, never as a number."""
        self.values[name] = float(value) if np.isfinite(value) else None
        if low is not None and high is not None and np.isfinite([low, high]).all():
            self.intervals[name] = (float(low), float(high))

    def update(self, other: "Scores") -> None:
        """Take over all scores of another set."""
        self.values.update(other.values)
        self.intervals.update(other.intervals)


class Yardstick:
    """The real tiles, measured once, and every way to hold pictures of the same places to them."""

    def __init__(self, tiles: Tiles, ruler: LiteFeatures, *, seed: int = 0) -> None:
        self.tiles, self.ruler, self.seed = tiles, ruler, seed
        self.cells = tiles.cells(CELL_DEGREES)
        self.partner = partners(tiles.cells(BLOCK_DEGREES), seed)
        self.features = ruler(tiles.images)
        self.water, self.roads = layout_water(tiles.classes), layout_roads(tiles.classes)
        self.energy = gradient_energy(tiles.images).mean()

    def likeness(
        self, name: str, features: Float[np.ndarray, "n 1280"], suffix: str = ""
    ) -> Scores:
        """Return the lite-KID of pictures of the tiles' places to the real tiles.

        A picture is never compared with the real tile of its own place, so that the pairing of the
        two sets does not flatter it.
        """
        scores = Scores()
        result = kid(
            features,
            self.features,
            subsets=SUBSETS,
            subset_size=self.subset_size,
            seed=self.seed,
            paired=True,
        )
        interval = kid_interval(features, self.features, self.cells, seed=self.seed)
        scores.add(f"{name}{suffix}", result.mean, *interval)
        scores.add(f"{name}{suffix}_sd", result.sd)
        return scores

    @property
    def subset_size(self) -> int:
        """Tiles of each kind in one subset of the lite-KID."""
        return min(SUBSET_SIZE, len(self.tiles) // 2)

    def closeness(self, images: Images, real: Images, suffix: str = "") -> Scores:
        """Return the mean PSNR and SSIM of pairs; equal pairs count as 60 dB."""
        scores = Scores()
        rows = {"psnr_db": np.minimum(psnr(images, real), 60.0), "ssim": ssim(images, real)}
        for name, values in rows.items():
            scores.add(f"{name}{suffix}", *self._mean(values))
        return scores

    def texture(self, images: Images, suffix: str = "") -> Scores:
        """Return the gradient energy of pictures over that of the real tiles."""
        scores = Scores()
        point, low, high = self._mean(gradient_energy(images))
        scores.add(
            f"gradient_energy{suffix}", point / self.energy, low / self.energy, high / self.energy
        )
        return scores

    def keeping(self, images: Images, water: Masks, roads: Masks, suffix: str = "") -> Scores:
        """Return how far pictures keep to the water and the roads of layouts."""
        scores = Scores()
        counts = agreement_counts(water_mask(images), water)
        scores.add(f"water_iou{suffix}", *bootstrap(counts, self.cells, iou, seed=self.seed))
        scores.add(
            f"water_accuracy{suffix}", *bootstrap(counts, self.cells, accuracy, seed=self.seed)
        )
        contrast = road_contrast(images, roads, water)
        scores.add(
            f"road_contrast{suffix}", *bootstrap(contrast, self.cells, ratio, seed=self.seed)
        )
        return scores

    def _mean(self, values: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
        table = np.stack([values, np.ones_like(values)], 1)
        return bootstrap(table, self.cells, ratio, seed=self.seed)


def measure_controls(yardstick: Yardstick) -> Scores:
    """Return every control that needs no model: the floor, and what is trivially had."""
    tiles, scores = yardstick.tiles, Scores()
    real, count = tiles.images, len(tiles)
    scores.update(_floor(yardstick, tiles.cells(BLOCK_DEGREES)))
    soft = blur(real)
    mean = real.mean(0, dtype=np.float64).round().astype(np.uint8)[None]
    noise = np.random.default_rng(yardstick.seed).integers(0, 256, real.shape, dtype=np.uint8)
    features = {
        "_blurred": yardstick.ruler(soft),
        "_mean_tile": np.repeat(yardstick.ruler(mean), count, 0),
        "_noise": yardstick.ruler(noise),
    }
    for suffix, each in features.items():
        scores.update(yardstick.likeness("lite_kid", each, suffix))
    flat = np.repeat(mean, count, 0)
    other = real[yardstick.partner]
    for suffix, images in {"_blurred": soft, "_mean_tile": flat, "_real_shuffled": other}.items():
        scores.update(yardstick.closeness(images, real, suffix))
    for suffix, images in {"_blurred": soft, "_noise": noise}.items():
        scores.update(yardstick.texture(images, suffix))
    scores.update(yardstick.keeping(real, yardstick.water, yardstick.roads, "_real"))
    other_water, other_roads = (
        yardstick.water[yardstick.partner],
        yardstick.roads[yardstick.partner],
    )
    scores.update(yardstick.keeping(real, other_water, other_roads, "_real_shuffled"))
    scores.update(yardstick.keeping(flat, yardstick.water, yardstick.roads, "_mean_tile"))
    return scores


def _floor(yardstick: Yardstick, blocks: Int[np.ndarray, " n"]) -> Scores:
    """Return the lite-KID of real tiles to real tiles.

    ``real_floor`` halves the tiles at random, as every other score here does; ``real_blocks`` gives
    every second 10-degree block to either half and shows what another geography alone costs.
    """
    scores, features = Scores(), yardstick.features
    floor = kid(
        features,
        features,
        subsets=SUBSETS,
        subset_size=yardstick.subset_size,
        seed=yardstick.seed,
        paired=True,
    )
    scores.add("lite_kid_real_floor", floor.mean)
    scores.add("lite_kid_real_floor_sd", floor.sd)
    first = np.isin(blocks, np.unique(blocks)[::2])
    size = min(SUBSET_SIZE, int(first.sum()), int((~first).sum()))
    if size >= 2:
        apart = kid(
            features[first],
            features[~first],
            subsets=SUBSETS,
            subset_size=size,
            seed=yardstick.seed,
        )
        scores.add("lite_kid_real_blocks", apart.mean)
        scores.add("lite_kid_real_blocks_sd", apart.sd)
    return scores
