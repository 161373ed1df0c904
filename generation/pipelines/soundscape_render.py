"""Soundscapes: from a RunSpec to a finished mix with its sources and what they rest on."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from generation.cards import SIMULATED
from generation.encoders.heads import Embedding, likeness
from generation.encoders.sound_encoder import SoundEncoder, load_sound_encoder, unread_notes
from generation.errors import AudioError, InvalidSpecError, shown
from generation.layer_spec import LayerSpec
from generation.media.audio import Mel, Recording, log_mel, open_audio
from generation.media.mixing import level_db, mix
from generation.media.soundscape import SoundscapeRender
from generation.media.spectrogram import spectrogram_picture
from generation.pipelines.overhead import Overhead, overhead_of
from generation.pipelines.panorama import OnStep
from generation.pipelines.plausibility_kinds import of_soundscape
from generation.pipelines.sound_maker import SoundAsk, SoundMaker, sound_maker
from generation.pipelines.soundscape_plan import Plan, plan_of
from generation.pipelines.tagger import TAGGER, tagger_here, told
from generation.pipelines.whole import made_by
from generation.registry import GALLERY, SIMULATED_NOTE, find, places_are_simulated
from generation.spec import SILENT, RunSpec

SILENT_DB = -70.0
"""A recording below this level is silence, and like nothing."""
LEAST_S = 0.1
"""A recording shorter than this is no more than a click."""
_CLIPPED = 0.01
"""Share of samples at full scale from which a recording is called clipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The sound that was kept for a layer, and the scores of all that were made for it."""

    samples: Float[np.ndarray, " n"]
    kept: int
    scores: tuple[dict[str, float], ...]


def render(
    spec: RunSpec,
    *,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
    online: bool = False,
) -> SoundscapeRender:
    """Make the soundscape that a spec describes.

    Args:
        spec: What is to be heard.
        on_step: Told ``(step, steps, None)``; a satellite image that is drawn for it comes first.
        cancelled: Asked before each step.
        online: Whether the layout of a generated satellite image may be fetched from
            OpenStreetMap, and weights from the Hub.

    Raises:
        TerrascapeError: Whatever the person can mend.
    """
    _refuse_others(spec)
    maker, encoder = sound_maker(spec.model, online=online), load_sound_encoder(spec.sound_model)
    began = time.perf_counter()
    steps = _Steps(on_step, spec.steps)
    plan, ground = suggest(spec, on_step=steps.of_ground, cancelled=cancelled, online=online)
    recordings, notes = _recordings(plan.layers)
    asks = [
        SoundAsk(seed=seed_of(spec.seed, number, candidate), text=layer.text, recording=recording)
        for number, (layer, recording) in enumerate(zip(plan.layers, recordings, strict=True))
        for candidate in range(spec.candidates)
    ]
    made = maker.make(
        asks,
        seconds=spec.seconds,
        loop=spec.loop,
        month=spec.month,
        hour=spec.hour,
        steps=spec.steps,
        guidance=spec.sound_guidance,
        on_step=steps.of_sounds,
        cancelled=cancelled,
    )
    chosen = _choose(made, asks, plan, encoder, (maker.rate, spec.candidates))
    mixed, changed = mix([each.samples for each in chosen], plan.layers)
    notes += [
        f"{each.origin} for this place: {each.text!r} (likeness {each.score:.2f})"
        for each in plan.captions
        if each.origin != "given" and each.score is not None
    ]
    heard, opinion = _checked(mixed, chosen, maker.rate)
    notes += heard
    notes += [*ground.notes, *_unread(maker, encoder, spec, asks, plan), *changed]
    return SoundscapeRender(
        samples=mixed,
        rate=maker.rate,
        image=picture_of(mixed.mean(1), maker.rate),
        spec=spec,
        layers=plan.layers,
        satellite=ground.rgb,
        layout=ground.layout,
        provenance={
            **made_by(spec, maker, seconds=time.perf_counter() - began, online=online),
            "attribution": ground.attribution,
            "notes": [*_learnt(spec), *notes],
            "satellite": ground.about,
            "sound_space": {"model": encoder.name, "model_sha256": encoder.sha256},
            "captions": [dataclasses.asdict(caption) for caption in plan.captions],
            "tagger": opinion,
            "candidates": [{"kept": each.kept, "scores": list(each.scores)} for each in chosen],
            "plausibility": of_soundscape(mixed.mean(1), maker.rate, plan.place, encoder, GALLERY),
        },
    )


def suggest(
    spec: RunSpec,
    *,
    on_step: OnStep | None = None,
    cancelled: Callable[[], bool] | None = None,
    online: bool = False,
) -> tuple[Plan, Overhead]:
    """Find what a spec's soundscape would be made of, without making it.

    Args:
        spec: What is to be heard; its model of soundscapes need not be here.
        on_step: Told ``(step, steps, preview)`` of the satellite image, where one is drawn.
        cancelled: Asked before each of those steps.
        online: Whether that image's layout may be fetched from OpenStreetMap.

    Returns:
        Its sources with their captions, and the satellite image that they were found by.

    Raises:
        TerrascapeError: Whatever the person can mend.
    """
    _refuse_others(spec)
    encoder = load_sound_encoder(spec.sound_model)
    ground = ground_of(spec, on_step, cancelled, online=online)
    return plan_of(spec.pinned(), ground, encoder, online=online), ground


def ground_of(
    spec: RunSpec,
    on_step: OnStep | None,
    cancelled: Callable[[], bool] | None,
    *,
    online: bool,
) -> Overhead:
    """Give the satellite image, which ``auto`` draws only where it decides something.

    It does where nobody says what is heard, and where several sounds are compared with the place.
    """
    told = spec.layers or spec.sound != SILENT or spec.sound_text.strip()
    if spec.satellite == "auto" and told and spec.candidates == 1:
        return Overhead(about={"source": "none"})
    return overhead_of(spec, on_step=on_step, cancelled=cancelled, online=online)


def seed_of(seed: int, layer: int, candidate: int) -> int:
    """Give each sound of a soundscape noise of its own."""
    if layer == candidate == 0:
        return seed
    digest = hashlib.sha256(f"{seed}/{layer}/{candidate}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def picture_of(samples: Float[np.ndarray, " n"], rate: int) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the spectrogram of one channel."""
    mel = Mel(rate=rate, high_hz=rate / 2)
    filters = mel.filters()
    needed = max(0, mel.n_fft - len(samples))  # what is shorter than a window is shown with silence
    padded = np.pad(samples, (0, needed)).astype(np.float32)
    seen = log_mel(torch.from_numpy(padded)[None], mel, filters)[0].numpy()
    pitches = filters.numpy().argmax(0) * rate / mel.n_fft
    return spectrogram_picture(seen, pitches, len(padded) / rate)


def _refuse_others(spec: RunSpec) -> None:
    if spec.kind != "soundscape":
        raise InvalidSpecError(f"kind={shown(spec.kind)} is no soundscape (give kind='soundscape')")


def _recordings(layers: Sequence[LayerSpec]) -> tuple[list[Recording | None], list[str]]:
    """Open the recordings of layers, and say what to know of them.

    Raises:
        AudioError: One is silent, or no sound.
    """
    opened, notes = list[Recording | None](), list[str]()
    for layer in layers:
        if layer.file is None:
            opened.append(None)
            continue
        recording = open_audio(Path(layer.file))
        if recording.seconds < LEAST_S:
            raise AudioError(
                f"{layer.file} lasts {recording.seconds:.3f} s (give a recording of {LEAST_S:g} s "
                "or more)"
            )
        level = level_db(recording.samples)
        if level < SILENT_DB:
            raise AudioError(
                f"{layer.file} is silent ({level:.0f} dB; {SILENT_DB:.0f} dB is the least: give a "
                "recording with sound)"
            )
        clipped = float((np.abs(recording.samples) >= 1 - 2**-14).mean())
        if clipped > _CLIPPED:
            notes.append(f"{layer.file} is clipped in {clipped:.0%} of its samples")
        opened.append(recording)
    return opened, notes


def _choose(
    made: Float[np.ndarray, "asks n"],
    asks: Sequence[SoundAsk],
    plan: Plan,
    encoder: SoundEncoder,
    sizes: tuple[int, int],
) -> list[_Chosen]:
    """Keep, for each layer, the sound that is most like what was asked for and the place."""
    rate, candidates = sizes
    heard = encoder.audio([Recording(sound, rate) for sound in made])
    chosen = []
    for number in range(len(plan.layers)):
        rows = slice(number * candidates, (number + 1) * candidates)
        ask = asks[rows.start]
        if ask.recording is None:
            wanted = encoder.text([ask.text])
        else:
            wanted = encoder.audio([ask.recording])
        scores = {"asked": _alike(wanted, heard[rows])}
        if plan.place is not None:
            scores["place"] = _alike(plan.place, heard[rows])
        total = sum(scores.values(), start=np.zeros(candidates))
        kept = int(total.argmax())
        chosen.append(
            _Chosen(
                samples=made[rows][kept],
                kept=kept,
                scores=tuple(
                    {name: round(float(value[each]), 4) for name, value in scores.items()}
                    for each in range(candidates)
                ),
            )
        )
    return chosen


def _unread(
    maker: SoundMaker, encoder: SoundEncoder, spec: RunSpec, asks: Sequence[SoundAsk], plan: Plan
) -> list[str]:
    """Say what changed nothing: first in what the sounds are, then in what fits the place."""
    notes = maker.unread(asks, spec.month, spec.hour)
    space = encoder.unread(spec.month, spec.hour) if plan.place is not None else []
    new = [part for part in space if not any(note.startswith(f"the {part} ") for note in notes)]
    return [*notes, *unread_notes(encoder.name, new)]


def _checked(
    mixed: Float[np.ndarray, "n channels"], chosen: Sequence[_Chosen], rate: int
) -> tuple[list[str], dict[str, Any] | None]:
    """Let a tagger that had no part in it say what is heard, if one is here."""
    tagger = tagger_here()
    if tagger is None:
        return [], None
    whole = tagger(Recording(mixed.mean(1), rate))
    layers = [tagger(Recording(each.samples, rate)) for each in chosen]
    opinion = {
        "model": TAGGER,
        "model_sha256": tagger.sha256,
        "mix": [dataclasses.asdict(tag) for tag in whole],
        "layers": [[dataclasses.asdict(tag) for tag in tags] for tags in layers],
    }
    return [told(TAGGER, whole)], opinion


def _alike(one: Embedding, others: Embedding) -> Float[np.ndarray, " others"]:
    found: np.ndarray = likeness(one, others)[0].numpy()
    return found


def _learnt(spec: RunSpec) -> list[str]:
    card = find(spec.model)
    simulated = card.location_source == SIMULATED or places_are_simulated(spec.sound_model)
    return [*([card.learnt] if card.learnt else []), *([SIMULATED_NOTE] if simulated else [])]


class _Steps:
    """Counts the steps of a satellite image and of the sounds after it as those of one work."""

    def __init__(self, on_step: OnStep | None, sounds: int) -> None:
        self.on_step, self.sounds, self.before = on_step, sounds, 0

    def of_ground(self, step: int, steps: int, _preview: Any) -> None:  # noqa: ANN401 - not shown
        """Tell a step of the satellite image."""
        self.before = steps
        self._tell(step, steps + self.sounds)

    def of_sounds(self, step: int, steps: int) -> None:
        """Tell a step of the sounds."""
        self._tell(self.before + step, self.before + steps)

    def _tell(self, step: int, steps: int) -> None:
        if self.on_step is not None:
            self.on_step(step, steps, None)
