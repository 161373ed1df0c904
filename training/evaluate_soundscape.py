"""What a model's sounds are worth, beside real ones, codec and vocoder, copies and wrong asks.

A tagger that had no part in making them says what they are; distances compare them with recordings
that the model has not heard, the shared space says whether they are what was asked for, and figures
that no network has learnt tell dawn from night. The shared space conditions the model: what it
finds again is faithful to it, which is not to say that it sounds real.

Dealing the kinds anew takes no other sounds: a sound is asked for one kind and held against
another. Intervals are 95 %, by bootstrap over uploads, or over seeds where there is no recording.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from generation.console import Progress
from generation.diffusion.soundscape import KINDS
from generation.encoders.heads import Embedding, likeness, unit
from generation.encoders.sound_space import IMAGE
from generation.errors import ConfigError
from training.evaluate_sound import embed_all
from training.metrics import bootstrap, ratio
from training.sound_pairs import SAID
from training.sound_samples import SoundPairs
from training.sound_tagger import Opinion, ask, train_tagger
from training.soundscape_cases import MADE, SoundscapeCases
from training.soundscape_data import Wave
from training.soundscape_findings import Findings, Order, Way, dealt, ranked
from training.soundscape_hours import HourTest
from training.soundscape_loops import measure_loops
from training.soundscape_metrics import (
    Features,
    Labels,
    balanced,
    balanced_mean,
    balanced_ratio,
    frechet,
    frechet_interval,
    kad,
    kad_by_kind,
    median_ratio,
    shifted_distances,
    spectra,
    standardised,
)
from training.soundscape_places import measure_places, save_places

SPACES = ("tagger", "shared")
"""Features that distances are taken over."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95)
TILES = 80
"""Images that are asked with, at most."""


def measure(cases: SoundscapeCases, day: Sequence[Wave]) -> Findings:
    """Make everything and score it.

    Args:
        cases: What is measured.
        day: All recordings of one microphone's day, of both sides.
    """
    hours = HourTest(cases, day)  # refuses a day without these hours before anything is made
    found = Findings()
    tagger = train_tagger(
        [wave.samples for wave in cases.learnt],
        cases.learnt_labels,
        cases.count,
        seed=cases.settings.seed,
        steps=cases.settings.tagger_steps,
    )
    sounds = found.sounds = cases.sets()
    opinions = {name: ask(tagger, each) for name, each in sounds.items()}
    embeddings = {name: cases.embed(each) for name, each in sounds.items()}
    learnt = cases.cut(cases.learnt)
    scales = {
        "tagger": ask(tagger, learnt).features,
        "shared": unit(cases.embed(learnt).vector).numpy(),
    }
    features = {
        "tagger": {name: each.features for name, each in opinions.items()},
        "shared": {name: unit(each.vector).numpy() for name, each in embeddings.items()},
    }
    measure_accuracy(cases, opinions, found)
    for space in SPACES:
        scaled = {n: standardised(f, scales[space]) for n, f in features[space].items()}
        measure_distance(cases, space, scaled, found)
    measure_retrieval(cases, embeddings, found)
    tiles, pairs = cases.settings.tiles, cases.settings.pairs
    if tiles is not None and pairs is not None:
        measure_tiles(cases, tiles, pairs, found)
        heard = measure_places(cases, tagger, tiles, found)
        if (sheet := cases.settings.sheet) is not None:
            save_places(cases, heard, sheet.with_stem(f"{sheet.stem}_places"))
    measure_memory(cases, embeddings, found)
    hours.measure(found)
    measure_loops(cases, found)
    return found


def measure_accuracy(
    cases: SoundscapeCases, opinions: Mapping[str, Opinion], found: Findings
) -> None:
    """Ask the tagger of what kind the sounds are; each kind counts alike."""
    labels, groups, seed = cases.labels, cases.groups, cases.settings.seed
    hits = {name: opinion.said == labels for name, opinion in opinions.items()}
    hits["learnt"] = opinions["learnt"].said == cases.learnt_labels[cases.matched()]
    for name, each in hits.items():
        found.add("accuracy", name, *balanced(each, labels, groups, seed=seed))
    for number, kind in enumerate(cases.kinds):
        for name in (*MADE, "real", "vocoded"):
            found.add(f"accuracy/{kind}", name, float(hits[name][labels == number].mean()))
    for name in MADE:
        ratio = balanced_ratio(hits[name], hits["real"], labels, groups, seed=seed)
        found.add("accuracy_over_real", name, *ratio)
        said = opinions[name].said
        anew = dealt(len(labels), _agreement(said, labels), seed)
        found.beside("accuracy", name, anew)
    found.controls.add("accuracy_chance", 1 / len(cases.kinds))


def _agreement(said: Labels, labels: Labels) -> Callable[[Order], float]:
    """Score an order of labels by how far what is said agrees with it."""

    def score(order: Order) -> float:
        return balanced_mean(said == labels[order], labels[order])

    return score


def measure_distance(
    cases: SoundscapeCases, space: str, features: Mapping[str, Features], found: Findings
) -> None:
    """Compare each set with the held-out recordings, as a whole and kind by kind."""
    labels, groups, seed = cases.labels, cases.groups, cases.settings.seed
    real = features["real"]
    for name, each in features.items():
        if name == "real":
            continue
        found.add(f"kad_{space}", name, *kad(each, real, groups, seed=seed))
        ends = frechet_interval(each, real, groups, seed=seed)
        found.add(f"fad_{space}", name, frechet(each, real), *ends)
        within = kad_by_kind(each, real, labels)
        found.add(f"kad_by_kind_{space}", name, within)
    for name in MADE:
        anew = dealt(len(labels), _within(features[name], real, labels), seed, 50)
        if np.isfinite(anew).all():
            found.beside(f"kad_by_kind_{space}", name, anew)


def sentence_ranks(
    scores: Float[np.ndarray, "n sentences"],
) -> Float[np.ndarray, "n sentences"]:
    """Rank the sentences for each sound, 1 the best; what scores the same shares its ranks."""
    better = (scores[:, None] > scores[:, :, None]).sum(2)
    equal = (scores[:, None] == scores[:, :, None]).sum(2)
    return better + (equal + 1) / 2


def _within(features: Features, real: Features, labels: Labels) -> Callable[[Order], float]:
    """Score an order of features by their distance to recordings, kind by kind."""

    def score(order: Order) -> float:
        return kad_by_kind(features[order], real, labels)

    return score


def measure_retrieval(
    cases: SoundscapeCases, embeddings: Mapping[str, Embedding], found: Findings
) -> None:
    """Look whether kinds, sentences and recordings that sounds were asked with are found again."""
    said = [(kind, text) for kind, name in enumerate(cases.kinds) for text in SAID[name]]
    kinds, texts = np.array([kind for kind, _ in said]), [text for _, text in said]
    asked, words = np.array([texts.index(text) for text in cases.said]), cases.encoder.text(texts)
    for name, each in embeddings.items():
        scores = likeness(each, words).numpy()
        best = np.stack([scores[:, kinds == k].max(1) for k in range(len(cases.kinds))], 1)
        ways = {"kind_recall_at_1": Way(ranked(best), cases.labels, 1.0)}
        if not name.startswith("from_recording"):
            ways["caption_recall_at_10_percent"] = Way.tenth(ranked(scores), asked)
        if name == "from_recording":
            alike = likeness(each, embeddings["real"]).numpy()
            ways["recording_recall_at_10_percent"] = Way.tenth(ranked(alike))
        for score, way in ways.items():
            own = balanced(way.hits(), cases.labels, cases.groups, seed=cases.settings.seed)
            found.add(score, name, *own)
            if name in MADE:
                found.beside(score, name, way.dealt(cases.labels, cases.settings.seed))
                found.controls.add(f"{name}/{score}_chance", way.chance)


def measure_tiles(cases: SoundscapeCases, tiles: Path, pairs: Path, found: Findings) -> None:
    """Ask with images of held-out tiles, and look whether each is among the best tenth again.

    Raises:
        ConfigError: The model has no mean of images, so it cannot be asked with any.
    """
    encoder, seed = cases.encoder, cases.settings.seed
    if not bool(cases.pipeline.conditioner.means[KINDS.index(IMAGE)].any()):
        raise ConfigError("the model has no mean of images to ask from (leave out --tiles)")
    held = SoundPairs(pairs, tiles, encoder.space.image.config["image_px"], test=True)
    _, rows = np.unique(held.pairs[:, 1], return_index=True)
    rows = rows[np.linspace(0, len(rows) - 1, min(TILES, len(rows))).round().astype(int)]
    held.pairs, held.labels = held.pairs[rows], held.labels[rows]
    parts = embed_all(encoder.space, held, "none")
    seeds = [seed + row for row in range(len(rows))]
    bar = Progress("sounds from tiles", every_s=30.0)
    made = cases.embed(cases.ask(parts["image"], IMAGE, seeds, progress=bar))
    alike, groups = np.zeros(len(rows), int), np.arange(len(rows))
    name = "tile_recall_at_10_percent"
    for suffix, each in (("", made), ("_real", parts["audio"])):
        way = Way.tenth(ranked(likeness(each, parts["image"]).numpy()))
        scores = found.controls if suffix else found.metrics
        scores.add(f"from_tile/{name}{suffix}", *balanced(way.hits(), alike, groups, seed=seed))
        if not suffix:
            found.beside(name, "from_tile", way.dealt(alike, seed))
            found.controls.add(f"from_tile/{name}_chance", way.chance)


def measure_memory(
    cases: SoundscapeCases, embeddings: Mapping[str, Embedding], found: Findings
) -> None:
    """Measure how far sounds lie from the nearest piece of what was learnt from.

    Held-out recordings tell how far what is new lies; recordings of the learning side through codec
    and vocoder tell whether a copy would be found out.
    """
    pieces, mel = cases.pieces(), cases.pipeline.vocoder.mel
    copies = cases.vocoded(found.sounds["learnt"])
    heard = {name: embeddings[name] for name in (*MADE, "real", "vocoded")}
    heard["copied"] = cases.embed(copies)
    known, seen = unit(cases.embed(pieces).vector), spectra(pieces, mel)
    far: dict[str, dict[str, Float[np.ndarray, " n"]]] = {"embedding": {}, "spectrogram": {}}
    for name, each in heard.items():
        near = (unit(each.vector) @ known.T).amax(1)
        far["embedding"][name] = (1 - near.double()).numpy()
        own = spectra(copies if name == "copied" else found.sounds[name], mel)
        far["spectrogram"][name] = shifted_distances(own, seen).min(1)
    for space, by_name in far.items():
        real = by_name["real"]
        limit = float(np.quantile(real, QUANTILES[0]))
        found.tables[f"nearest_{space}"] = {
            name: {f"{q:g}": float(np.quantile(values, q)) for q in QUANTILES}
            for name, values in by_name.items()
        }
        for name, values in by_name.items():
            hits = np.stack([values < limit, np.ones(len(values))], 1)
            share = bootstrap(hits, cases.groups, ratio, seed=cases.settings.seed)
            found.add(f"nearer_share_{space}", name, *share)
            apart = median_ratio(values, real, cases.groups, seed=cases.settings.seed)
            found.add(f"nearest_ratio_{space}", name, *apart)
