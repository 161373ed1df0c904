"""Whether an hour that is asked for is heard: dawn beside night at the place of one microphone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from generation.console import Progress
from generation.encoders.heads import Embedding, unit
from generation.encoders.sound_space import AUDIO, TEXT
from generation.errors import ConfigError
from training.sound_pairs import SAID
from training.soundscape_cases import SoundscapeCases
from training.soundscape_data import Wave
from training.soundscape_findings import DEALS, Findings
from training.soundscape_metrics import INDICES, Sounds, difference, indices

DAWN_H, NIGHT_H, WITHIN_H = 5.0, 0.0, 1.0
"""Hours that are asked for, and how far from them the recordings beside them may lie."""
_SEEDS_FROM = 10_000
"""Other noise than that of the held-out recordings."""
Table = Float[np.ndarray, "n indices"]


def near(hour: float, wanted: float) -> bool:
    """Tell whether an hour lies near another; midnight is near both of its sides."""
    apart = abs(hour - wanted) % 24
    return min(apart, 24 - apart) <= WITHIN_H


class HourTest:
    """Recordings of the day near dawn and night, of both sides, and a model asked for such.

    The hour is learnt from the other recordings of the same day, and few of these hours are held
    out: the recordings say what is to be heard, not what the model has not seen.

    Raises:
        ConfigError: The day lacks recordings of these hours, or has some of several months.
    """

    def __init__(self, cases: SoundscapeCases, day: Sequence[Wave]) -> None:
        self.cases = cases
        known = [(wave, wave.clip.hour) for wave in day if wave.clip.hour is not None]
        dawn, night = (
            [wave for wave, hour in known if near(hour, wanted)] for wanted in (DAWN_H, NIGHT_H)
        )
        if len(dawn) < 2 or len(night) < 2:
            raise ConfigError(
                f"the day has {len(dawn)} recordings within {WITHIN_H:g} h of {DAWN_H:g}:00 and "
                f"{len(night)} of {NIGHT_H:g}:00 (give a day with two or more of each)"
            )
        months = {wave.clip.month for wave in (*dawn, *night)}
        if len(months) > 1:
            raise ConfigError(f"the day has recordings of {len(months)} months (give one day)")
        month = months.pop()
        self.month = None if month is None else int(month)
        self.recordings = cases.cut([*dawn, *night])
        self.is_dawn = np.arange(len(self.recordings)) < len(dawn)
        self.label = dawn[0].clip.label

    def asked(self) -> dict[str, tuple[Embedding, str]]:
        """Give the mean of the day's recordings that were learnt from, and a sentence."""
        cases = self.cases
        learnt = cases.cut([wave for wave in cases.learnt if wave.clip.label == self.label])
        mean = unit(cases.embed(learnt).vector).mean(0, keepdim=True)
        return {
            "from_recording": (Embedding(mean), AUDIO),
            "from_caption": (cases.encoder.text([SAID[self.label][0]]), TEXT),
        }

    def made(self, asked: Embedding, kind: str) -> Sounds:
        """Make sounds at dawn, then as many at night from the same noise."""
        settings = self.cases.settings
        first = settings.seed + _SEEDS_FROM
        seeds = list(range(first, first + settings.hour_seeds))
        every = Embedding(asked.vector.expand(len(seeds), -1))
        parts = [
            self.cases.ask(
                every,
                kind,
                seeds,
                month=self.month,
                hour=hour,
                progress=Progress(f"sounds at {hour:g}:00", every_s=30.0),
            )
            for hour in (DAWN_H, NIGHT_H)
        ]
        return np.concatenate(parts)

    def measure(self, found: Findings) -> None:
        """Compare dawn with night in recordings, through codec and vocoder, and as it is made."""
        rate, seed = self.cases.pipeline.rate, self.cases.settings.seed
        tables: dict[str, Table] = {
            "real": indices(self.recordings, rate),
            "vocoded": indices(self.cases.vocoded(self.recordings), rate),
        }
        for name, (asked, kind) in self.asked().items():
            tables[name] = indices(self.made(asked, kind), rate)
        pairs = np.tile(np.arange(self.cases.settings.hour_seeds), 2)
        made_dawn = np.arange(len(pairs)) < len(pairs) // 2
        for name, table in tables.items():
            real = name in ("real", "vocoded")
            dawn = self.is_dawn if real else made_dawn
            groups = np.arange(len(table)) if real else pairs
            for index, column in zip(INDICES, table.T, strict=True):
                told = difference(column, dawn, groups, seed=seed)
                found.add(f"dawn_less_night/{index}", name, *told)
                if not real:
                    score = f"{name}/dawn_less_night/{index}_hours_dealt"
                    found.controls.add(score, *dealt_hours(column, seed))
            found.tables.setdefault("hours", {})[name] = {
                "dawn": _means(table, dawn),
                "night": _means(table, ~dawn),
            }


def dealt_hours(values: Float[np.ndarray, " n"], seed: int) -> tuple[float, float, float]:
    """Give the difference with hours dealt anew within each seed: mean and 95 % of the deals.

    Args:
        values: Of sounds at dawn, then of those at night from the same seeds.
        seed: Decides the deals.
    """
    dawn, night = np.split(values, 2)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (DEALS, len(dawn)))
    deals = np.nanmean(signs * (dawn - night), axis=1)
    low, high = np.percentile(deals, [2.5, 97.5])
    return float(deals.mean()), float(low), float(high)


def _means(table: Table, rows: Bool[np.ndarray, " n"]) -> dict[str, float | None]:
    every = zip(INDICES, table[rows].mean(0).tolist(), strict=True)
    return {name: value if np.isfinite(value) else None for name, value in every}
