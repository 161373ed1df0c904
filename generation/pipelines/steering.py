"""What a picture should sound like: a clip, a sentence or a tile, as a denoiser is told it."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from generation.cards import ModelCard
from generation.checkpoint import load_part
from generation.conditioning import SoundConditioner
from generation.encoders.heads import Embedding, unit
from generation.encoders.sound_encoder import load_sound_encoder
from generation.errors import InvalidSpecError, WeightsError
from generation.media.audio import open_audio
from generation.media.geotiff import TIFF_MAGICS, geotiff_image
from generation.media.image import read_bytes
from generation.pipelines.scene import SoundSteering
from generation.registry import find, list_models, locate
from generation.spec import RunSpec

SUFFIX = "-sound"
"""A model's conditioner for sounds has its name with this behind it."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a render is told of its sound, and what is told of that to people."""

    steering: SoundSteering
    vector: Float[Tensor, " embed"]
    about: dict[str, str]


def listen(spec: RunSpec) -> Embedding:
    """Embed what a spec says that it should sound like.

    Raises:
        AudioError: Its file is no sound, or another one than when the spec was made.
        InvalidSpecError: It is a picture of no place, or the spec has no sound.
        MissingFileError: The file, or the weights of the space, are not here.
    """
    encoder = load_sound_encoder(spec.sound_model)
    path = spec.pinned().sound_path
    if path is None:
        return encoder.text([spec.sound_text])
    if read_bytes(path)[:4] in TIFF_MAGICS:
        return encoder.placed(geotiff_image(read_bytes(path)))
    return encoder.audio([open_audio(path)])


def open_steering(spec: RunSpec, model_sha256: str) -> Heard:
    """Give the conditioner that goes with a spec's model, and the sound as a vector.

    Args:
        spec: With a sound.
        model_sha256: Of the pipeline that draws.

    Raises:
        InvalidSpecError: Nothing was trained to steer this model by sounds, or not by this space.
        WeightsError: The conditioner was trained with other weights than those here.
    """
    card = _card(spec.model)
    conditioner = _conditioner(*_stamped(locate(card.name)))
    encoder = load_sound_encoder(spec.sound_model)
    made_for = conditioner.config["made_for"] or {}
    if encoder.name not in made_for:
        ways = ", ".join(name for name in made_for if name != spec.model)
        raise InvalidSpecError(
            f"sound_model={spec.sound_model!r} does not steer {spec.model} (give one of {ways})"
        )
    for name, here in ((spec.model, model_sha256), (encoder.name, encoder.sha256)):
        if made_for.get(name) != here:
            raise WeightsError(
                f"{card.name} was trained with {name} of sha256 {made_for.get(name)}, here is "
                f"{here} (restore the two together, or train it anew)"
            )
    about = {
        "model": encoder.name,
        "model_sha256": encoder.sha256,
        "conditioner": card.name,
        "location_source": card.location_source,
    }
    steering = SoundSteering(conditioner, encoder.name)
    return Heard(steering, unit(listen(spec).vector)[0], about)


def _card(model: str) -> ModelCard:
    steered = {name.removesuffix(SUFFIX): name for name in list_models("steering")}
    name = find(model).name
    if name not in steered:
        raise InvalidSpecError(
            f"model={model!r} cannot be steered by sounds (leave sound and sound_text out, or "
            f"give a model that can: {', '.join(steered)})"
        )
    return find(steered[name])


def _stamped(folder: Path) -> tuple[Path, tuple[float, ...]]:
    return folder, tuple(p.stat().st_mtime for p in sorted(folder.rglob("*.safetensors")))


@lru_cache(maxsize=2)
def _conditioner(folder: Path, stamp: tuple[float, ...]) -> SoundConditioner:
    conditioner: SoundConditioner = load_part(SoundConditioner, folder).eval()
    return conditioner.requires_grad_(False)
