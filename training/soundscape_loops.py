"""Whether the point where a loop begins anew can be told from any other of its moments.

A loop is heard around and around, so its steps are counted around it: the change of the spectrum,
and of the level, from each window to the next that has no sample in common with it. The step over
the loop point is one of them. Were the loop point like any other moment, it would be above 95 % of
the steps in one loop of twenty.
"""

import numpy as np
import torch
from jaxtyping import Float

from generation.console import Progress
from generation.encoders.heads import Embedding
from generation.encoders.sound_space import TEXT
from generation.media.audio import Mel, log_mel
from training.metrics import bootstrap, ratio
from training.soundscape_cases import SoundscapeCases
from training.soundscape_findings import Findings
from training.soundscape_metrics import Sounds

OWN = 0.95
"""Share of a loop's own steps that the one over its loop point should not lie above."""
WITHIN = {"spectrum": "loop_spectrum_within", "level": "loop_level_within"}
_SEEDS_FROM = 20_000
_LEAST_DB = -100.0


def measure_loops(cases: SoundscapeCases, found: Findings) -> None:
    """Make loops of every kind; beside them, the same asks without a loop, and recordings."""
    kinds, each = len(cases.kinds), cases.settings.loop_seeds
    first = [cases.labels.tolist().index(kind) for kind in range(kinds)]
    words = cases.encoder.text([cases.said[row] for row in first])
    asked = Embedding(words.vector.repeat_interleave(each, 0))
    seeds = [cases.settings.seed + _SEEDS_FROM + row for row in range(len(asked))]
    bar = Progress("loops", every_s=30.0)
    sets = {
        "from_caption": cases.ask(asked, TEXT, seeds, loop=True, progress=bar),
        "unlooped": cases.ask(asked, TEXT, seeds, progress=bar),
        "real": cases.cut(cases.held),
    }
    for name, sounds in sets.items():
        shares = seam_shares(sounds, cases.pipeline.vocoder.mel)
        for part, values in shares.items():
            hits = np.stack([values <= OWN, np.ones(len(values))], 1)
            groups = cases.groups if name == "real" else np.arange(len(values))
            within = bootstrap(hits, groups, ratio, seed=cases.settings.seed)
            found.add(WITHIN[part], name, *within)


def seam_shares(sounds: Sounds, mel: Mel) -> dict[str, Float[np.ndarray, " n"]]:
    """Return what share of its own steps the one over each loop point lies above, 0 to below 1.

    Args:
        sounds: Loops of whole columns of a spectrogram.
        mel: How spectrograms are taken.
    """
    lag, filters = -(-mel.n_fft // mel.hop), mel.filters()
    beside = 2 * lag * mel.hop
    around = np.concatenate([sounds[:, -beside:], sounds, sounds[:, :beside]], 1)
    frames = sounds.shape[1] // mel.hop
    shares: dict[str, list[float]] = {part: [] for part in WITHIN}
    for sound in around:
        whole = log_mel(torch.from_numpy(sound)[None], mel, filters)[0].numpy()
        seen = whole[:, 2 * lag : 2 * lag + frames]
        steps = np.sqrt(np.square(np.roll(seen, -lag, 1) - seen).mean(0))
        shares["spectrum"].append(_share_below(steps, lag))
        power = np.square(sound.astype(np.float64)).cumsum()
        starts = beside + np.arange(frames) * mel.hop - mel.n_fft // 2
        energy = (power[starts + mel.n_fft] - power[starts]) / mel.n_fft
        level = 10 * np.log10(energy.clip(10 ** (_LEAST_DB / 10)))
        shares["level"].append(_share_below(np.abs(np.roll(level, -lag) - level), lag))
    return {part: np.array(values) for part, values in shares.items()}


def _share_below(steps: Float[np.ndarray, " frames"], lag: int) -> float:
    """Say what share of all steps is below the one over the loop point."""
    return float((steps < steps[len(steps) - (lag + 1) // 2]).mean())
