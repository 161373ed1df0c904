"""Where the parts of a full-size pipeline lie, and whether they belong together."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL

from generation.checkpoint import PART_WEIGHTS, sha256_file
from generation.diffusion.coordnet import Networks, residual_widths
from generation.encoders.clip_text import ClipTextEncoder
from generation.encoders.location import LocationEncoder
from generation.errors import MissingFileError, WeightsError
from generation.hub import fetch
from generation.pipelines.parts import TEXT_WEIGHTS
from generation.registry import find

BASE = "sd21-base"
LOCATION_ENCODER = "satclip-location"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where the parts of a pipeline lie."""

    base: Path
    """Folder with unet, vae, text_encoder, tokenizer and scheduler."""
    controlnet: Path | None = None
    coordnet: Path | None = None
    nulls: Path | None = None
    location_encoder: Path | None = None
    """Needed with a CoordNet: ``terrascape convert satclip``."""

    @classmethod
    def inside(cls, folder: Path, *, online: bool = False) -> "Folders":
        """Find the parts in a model's folder, in any of the forms in which they are published.

        A ControlNet lies in the folder itself or in ``controlnet/``; a whole pipeline is its own
        base; what it lacks is looked up by its registered name.
        """
        own = (folder / "model_index.json").is_file()
        at_root = not own and (folder / "config.json").is_file()
        coordnet = _existing(folder / "coordnet")
        return cls(
            base=folder if own else fetch(BASE, online=online),
            controlnet=folder if at_root else _existing(folder / "controlnet"),
            coordnet=coordnet,
            nulls=_existing(folder / "nulls"),
            location_encoder=None if coordnet is None else fetch(LOCATION_ENCODER, online=online),
        )

    def weights(self) -> list[Path]:
        """Every weight file that is read, as far as it is there."""
        parts = [self.controlnet, self.coordnet, self.nulls, self.location_encoder]
        folders = [self.base / "unet", self.base / "vae", *filter(None, parts)]
        files = [self.base / "text_encoder" / TEXT_WEIGHTS, *(f / PART_WEIGHTS for f in folders)]
        return [file for file in files if file.is_file()]

    def sha256(self) -> str:
        """One hexadecimal SHA-256 for all weights, by the parts' names and not their folders."""
        digest = hashlib.sha256()
        for file in self.weights():
            digest.update(f"{file.name}\0{sha256_file(file)}\n".encode())
        return digest.hexdigest()


def find_folders(name: str, *, online: bool = False) -> Folders:
    """Find the parts of a registered model, and refuse what is not all of it.

    Raises:
        MissingFileError: Something is missing; the message says what to get and where to put it.
        NetworkError: The Hub was asked and did not answer.
    """
    card = find(name)
    folder = fetch(card.name, online=online)
    folders = Folders.inside(folder, online=online)
    placed = "location" in card.name
    steered = any(word in card.name for word in ("osm", "canny", "sam"))
    absent = ["ControlNet"] * (steered and folders.controlnet is None)
    absent += ["CoordNet"] * (placed and folders.coordnet is None)
    if absent:
        raise MissingFileError(
            f"{folder} holds no {' and no '.join(absent)} of {card.name} (convert its checkpoint: "
            f"`terrascape convert {absent[0].lower()} FILE.ckpt --out` a folder {card.local} below "
            "the one that TERRASCAPE_HOME names)"
        )
    return folders


def check_fit(
    networks: Networks,
    vae: AutoencoderKL,
    text_encoder: ClipTextEncoder,
    location_encoder: LocationEncoder | None,
) -> None:
    """Refuse parts of different models, before their shapes meet in the middle of a render.

    Raises:
        WeightsError: Names every pair that does not fit.
    """
    unet, controlnet, coordnet = networks.unet, networks.controlnet, networks.coordnet
    context = unet.config["cross_attention_dim"]
    pairs = [
        ("the text encoder's width", text_encoder.model.config.hidden_size, context),
        ("the autoencoder's channels", vae.config["latent_channels"], unet.config["in_channels"]),
    ]
    if controlnet is not None:
        shared = ("cross_attention_dim", "block_out_channels", "layers_per_block")
        pairs += [(f"the ControlNet's {n}", controlnet.config[n], unet.config[n]) for n in shared]
    if coordnet is not None:
        width = unet.time_embedding.linear_2.out_features
        pairs += [
            ("the CoordNet's channels", coordnet.config["channels"], residual_widths(unet)),
            ("the CoordNet's time_embed_dim", coordnet.config["time_embed_dim"], width),
        ]
        if location_encoder is not None:
            wanted = coordnet.config["embed_dim"]
            pairs.append(
                ("the location encoder's size", location_encoder.config["embed_dim"], wanted)
            )
    wrong = [f"{what} is {a} and not {b}" for what, a, b in pairs if _plain(a) != _plain(b)]
    if wrong:
        raise WeightsError(
            f"the parts are of different models: {'; '.join(wrong)} (GeoSynth stands on Stable "
            "Diffusion 2.1-base; give all parts of one model)"
        )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value


def _existing(folder: Path) -> Path | None:
    return folder if (folder / "config.json").is_file() else None
