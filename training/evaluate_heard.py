"""Whether pictures that were steered by sounds look like places where they are heard.

A space that did not steer judges: does it find a picture drawn for a sound more like the words for
that sound than pictures drawn for other sounds? Real tiles on which the simulation puts the sound
are judged alike, and so are the same pictures with the sounds dealt out anew.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image

from generation.atomic import atomic_path
from generation.diffusion.guidance import GuidanceScales
from generation.encoders.heads import likeness, unit
from generation.encoders.sound_encoder import SoundEncoder, load_sound_encoder
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.pipelines.satellite import SatellitePipeline, load_pipeline
from generation.pipelines.scene import Scene, SoundSteering
from generation.pipelines.steering import open_steering
from generation.registry import find
from generation.spec import RunSpec
from training.evaluate_controls import Scores
from training.sound_pairs import HEARD, SAID
from training.sound_samples import SoundPairs

WINDOW = Window.around(Location(45.0, 8.0), 8, 256)
"""Decides the scale alone: no picture is told where it lies."""
DEFAULT = RunSpec(lat=WINDOW.center.lat, lon=WINDOW.center.lon)
"""Steps and guidance are those of a render."""
_SHUFFLES = 200
_BATCH = 8


def drawn_for_sounds(
    pipeline: SatellitePipeline,
    steering: SoundSteering,
    encoder: SoundEncoder,
    pairs: SoundPairs,
    *,
    per_sound: int,
) -> tuple[UInt8[np.ndarray, "n height width 3"], Int[np.ndarray, " n"]]:
    """Draw pictures for unseen clips of each sound, told nothing else.

    Returns:
        The pictures, and which sound each is for, in the order of :data:`HEARD`.
    """
    scenes, labels = [], []
    for label, name in enumerate(HEARD):
        clips = [
            row
            for row in dict.fromkeys(pairs.pairs[:, 0].tolist())
            if pairs.clips[row]["label"] == name
        ]
        for number in range(per_sound):
            mel = torch.from_numpy(pairs.mels[clips[number % len(clips)]])[None]
            with torch.no_grad():
                vector = unit(encoder.space.embed_audio(mel).vector)[0]
            scenes.append(Scene(WINDOW, use_location=False, seed=number, sound=vector))
            labels.append(label)
    scales = GuidanceScales(sound=DEFAULT.sound_guidance)
    images = [
        pipeline(
            scenes[start : start + _BATCH],
            num_inference_steps=DEFAULT.steps,
            guidance=scales,
            steering=steering,
        )
        for start in range(0, len(scenes), _BATCH)
    ]
    return np.concatenate(images), np.array(labels)


def real_for_sounds(
    pairs: SoundPairs, *, per_sound: int, seed: int
) -> tuple[UInt8[np.ndarray, "n height width 3"], Int[np.ndarray, " n"]]:
    """Take unseen real tiles on which each sound was put."""
    rng = np.random.default_rng(seed)
    rows = [
        rng.choice(np.flatnonzero(pairs.labels == label), per_sound, replace=False)
        for label in range(len(HEARD))
    ]
    images = [pairs.images[int(pairs.pairs[row, 1])] for each in rows for row in each]
    return np.stack(images), np.arange(len(HEARD)).repeat(per_sound)


def contrast(
    scores: Float[np.ndarray, "n sounds"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " sounds"]:
    """Say of each sound how often a picture for it is more like its words than one for another.

    One half is chance: the area under the curve of Mann and Whitney, ties counting half.
    """
    found = []
    for label in range(scores.shape[1]):
        own, other = scores[labels == label, label], scores[labels != label, label]
        apart = own[:, None] - other
        found.append((apart > 0).mean() + 0.5 * (apart == 0).mean())
    return np.array(found)


def judged(
    judge: SoundEncoder, images: UInt8[np.ndarray, "n height width 3"]
) -> Float[np.ndarray, "n sounds"]:
    """Compare pictures with the words for each sound, in another space than steered them."""
    words = judge.text([said[0] for said in SAID.values()])
    gsd_m = np.full(len(images), WINDOW.gsd_m, np.float32)
    return likeness(judge.image(images, gsd_m), words).numpy()


def measure_heard(
    judge: SoundEncoder,
    drawn: tuple[UInt8[np.ndarray, "n height width 3"], Int[np.ndarray, " n"]],
    real: tuple[UInt8[np.ndarray, "m height width 3"], Int[np.ndarray, " m"]],
    *,
    seed: int,
) -> tuple[Scores, Scores]:
    """Score pictures, and beside them real tiles and sounds that were dealt out anew."""
    metrics, controls = Scores(), Scores()
    scores, labels = judged(judge, drawn[0]), drawn[1]
    every = contrast(scores, labels)
    metrics.add("sound_contrast", float(every.mean()))
    for name, value in zip(HEARD, every, strict=True):
        metrics.add(f"sound_contrast/{name}", float(value))
    of_real = contrast(judged(judge, real[0]), real[1])
    controls.add("sound_contrast_real", float(of_real.mean()))
    for name, value in zip(HEARD, of_real, strict=True):
        controls.add(f"sound_contrast_real/{name}", float(value))
    rng = np.random.default_rng(seed)
    anew = [contrast(scores, rng.permutation(labels)).mean() for _ in range(_SHUFFLES)]
    low, high = np.quantile(anew, [0.025, 0.975]).tolist()
    controls.add("sound_contrast_shuffled", float(np.mean(anew)), low, high)
    controls.add("sound_contrast_chance", 0.5)
    return metrics, controls


def report_heard(
    data: Path,
    tiles: Path,
    *,
    sound_model: str,
    judge: str,
    per_sound: int,
    seed: int,
    sheet: Path | None = None,
) -> tuple[dict[str, object], Scores, Scores]:
    """Draw with the embedded model and measure; with ``sheet``, show a column for each sound.

    Raises:
        TerrascapeError: A model, the pairs or the tiles are not here, or do not go together.
    """
    spec = replace(DEFAULT, sound_text="surf", sound_model=sound_model)
    pipeline = load_pipeline(spec.model)
    steering = open_steering(spec, pipeline.sha256).steering
    encoder, other = load_sound_encoder(sound_model), load_sound_encoder(judge)
    pairs = SoundPairs(data, tiles, encoder.pixels.side, test=True)
    drawn = drawn_for_sounds(pipeline, steering, encoder, pairs, per_sound=per_sound)
    if sheet is not None:
        shown = drawn[0].reshape(len(HEARD), per_sound, *drawn[0].shape[1:])[:, :4]
        columns = [np.concatenate(list(column)) for column in shown]
        with atomic_path(sheet) as temporary:
            whole = Image.fromarray(np.concatenate(columns, axis=1))
            whole.reduce(2).save(temporary, format="PNG")
    real = real_for_sounds(pairs, per_sound=per_sound, seed=seed)
    metrics, controls = measure_heard(other, drawn, real, seed=seed)
    report: dict[str, object] = {
        "task": "steering",
        "model": pipeline.sha256,
        "sound_model": {"name": encoder.name, "sha256": encoder.sha256},
        "judge": {"name": other.name, "sha256": other.sha256},
        "data": {"pictures": len(drawn[0]), "location_source": find(sound_model).location_source},
        "settings": {"steps": spec.steps, "sound_guidance": spec.sound_guidance, "seed": seed},
    }
    return report, metrics, controls
