"""Teach a satellite image model that has been trained to be steered by sounds.

    python -m training.sound_pairs --help                # makes the pairs
    accelerate launch training/train_steering.py configs/steering_nano.yaml

Only a conditioner learns: the model that draws, and the spaces in which clips, sentences and tiles
are embedded, do not move. Each sample is told an embedding of its clip, of what is said of it, or
of the tile itself, so that any of them can be given later. Add --resume to go on; any field:
key=value. The run leaves in ``weights/`` the averaged weights of a ``SoundConditioner``.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a script: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from generation.checkpoint import save_part
from generation.conditioning import Condition, Given, SoundConditioner
from generation.config import config, load_config
from generation.encoders.heads import Embedding, unit
from generation.encoders.sound_encoder import SoundEncoder
from generation.errors import ConfigError
from generation.geo.mercator import Window
from generation.pipelines.satellite import SatellitePipeline
from generation.pipelines.scene import Scene, SoundSteering
from training.data import TILE, TileDataset, counted_batches
from training.sound_pairs import SAID
from training.sound_samples import SoundPairs
from training.train_geosynth import GeoSynthConfig, GeoSynthModel
from training.trainer import LoopConfig, run_recipe

SOURCES = {"audio": 0.5, "text": 0.25, "image": 0.25}
"""What a sample's embedding is of, and how often."""
_BATCH = 64


@config
class SteeringConfig:
    """Everything that tells one run from another."""

    pairs: Path = Path("runs/sound_pairs")
    """What ``python -m training.sound_pairs`` built."""
    tiles: Path = Path("runs/tiles")
    """What ``python -m training.data`` built, with captions."""
    base: Path = Path("assets/satellite-nano")
    """The model that draws."""
    spaces: tuple[Path, ...] = (Path("assets/sat2sound-nano"),)
    """Spaces that it is to be steered by, each named by its folder."""
    out: Path = Path("runs/steering_nano")
    crop_px: int = TILE
    keep_sound: float = 0.9
    """Probability that a sample is told its sound; the same of the others below."""
    keep_text: float = 0.1
    keep_location: float = 0.2
    keep_layout: float = 0.1
    blur: float = 0.1
    """Length of the noise on the unit vectors: a clip and a sentence never quite agree."""
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        for name in ("keep_sound", "keep_text", "keep_location", "keep_layout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} is no probability (give 0 to 1)")
        if not self.spaces:
            raise ConfigError("spaces=() steers by nothing (give one folder of a space or more)")
        if self.blur < 0:
            raise ConfigError(f"blur={self.blur} is no length (give 0 or more)")


@dataclass(frozen=True, slots=True)
class Vectors:
    """Unit vectors of one space for all that a pair can be told by."""

    audio: Float[Tensor, "clips dim"]
    image: Mapping[int, Float[Tensor, " dim"]]
    """By the row of the tile."""
    text: Mapping[str, Float[Tensor, "sentences dim"]]
    """By the label of the clip."""

    @classmethod
    @torch.no_grad()
    def of(cls, encoder: SoundEncoder, pairs: SoundPairs) -> "Vectors":
        """Embed everything once."""
        tiles = sorted(pairs.images)
        edge = TILE // 4
        crops = np.stack([pairs.images[t][edge:-edge, edge:-edge] for t in tiles])
        metres = np.array([_gsd_m(pairs.rows[t]) for t in tiles], np.float32)
        found = [
            encoder.image(crops[k : k + _BATCH], metres[k : k + _BATCH])
            for k in range(0, len(tiles), _BATCH)
        ]
        mels = torch.from_numpy(pairs.mels).to(encoder.device)
        heard = [
            encoder.space.embed_audio(mels[k : k + _BATCH]) for k in range(0, len(mels), _BATCH)
        ]
        return cls(
            audio=unit(Embedding.cat(heard).vector).cpu(),
            image=dict(zip(tiles, unit(Embedding.cat(found).vector).cpu(), strict=True)),
            text={
                label: unit(encoder.text(list(said)).vector).cpu() for label, said in SAID.items()
            },
        )


class SteeringPairs(Dataset[dict[str, Tensor]]):
    """Crops of tiles, with an embedding of each space for a sound that could be heard there."""

    def __init__(
        self, pairs: SoundPairs, tiles: TileDataset, vectors: Mapping[str, Vectors]
    ) -> None:
        self.pairs, self.tiles, self.vectors = pairs, tiles, vectors

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        clip, tile = self.pairs.pairs[index].tolist()
        rng = np.random.default_rng([draw, index, 1])
        source = str(rng.choice(list(SOURCES), p=list(SOURCES.values())))
        sentence = int(rng.integers(1 << 16))
        item = self.tiles[tile, draw]
        for name, vectors in self.vectors.items():
            said = vectors.text[self.pairs.clips[clip]["label"]]
            options = {
                "audio": vectors.audio[clip],
                "image": vectors.image[tile],
                "text": said[sentence % len(said)],
            }
            item[name] = options[source]
        return item


def _gsd_m(row: Float[np.ndarray, " figures"]) -> float:
    zoom, col, top = (int(value) for value in row[:3])
    return Window(zoom, col, top, TILE, TILE).gsd_m


class SteeringModel(GeoSynthModel):
    """A step of a denoiser that does not move, told a sound by a conditioner that learns."""

    def __init__(
        self, pipeline: SatellitePipeline, sounds: SoundConditioner, cfg: SteeringConfig
    ) -> None:
        super().__init__(pipeline, GeoSynthConfig())
        self.requires_grad_(False)
        self.sounds, self.told = sounds, cfg

    def condition(self, batch: dict[str, Tensor]) -> Condition:
        """Say what a batch is told: its sound in one of the spaces, and some of the rest."""
        names = list(self.sounds.config["spaces"])
        space = names[int(torch.randint(len(names), ()))]
        vectors = batch[space]
        noise = self.told.blur * torch.randn_like(vectors) / vectors.shape[1] ** 0.5
        condition: Condition = self.sounds(
            self.conditioner(self.given(batch)),
            space,
            unit(vectors + noise),
            self._keep(batch, self.told.keep_sound),
        )
        return condition

    def given(self, batch: dict[str, Tensor]) -> Given:
        """Drop inputs of a batch at random, most of them."""
        return Given(
            states=batch["states"],
            words=batch["mask"],
            latlon=batch["latlon"],
            gsd_m=batch["gsd_m"],
            classes=batch["classes"],
            has_text=self._keep(batch, self.told.keep_text),
            has_location=self._keep(batch, self.told.keep_location),
            has_layout=self._keep(batch, self.told.keep_layout),
        )

    def _keep(self, batch: dict[str, Tensor], share: float) -> Tensor:
        return torch.rand(len(batch["image"]), device=batch["image"].device) < share


class SteeringTask:
    """Model, data and panels of a run."""

    def __init__(self, cfg: SteeringConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        self.pipeline = SatellitePipeline.from_pretrained(cfg.base)
        encoders = {folder.name: SoundEncoder.from_pretrained(folder) for folder in cfg.spaces}
        dims = {name: int(each.space.config["dim"]) for name, each in encoders.items()}
        told = self.pipeline.conditioner.config
        self.sounds = SoundConditioner(
            spaces=dims,
            token_dim=told["token_dim"],
            vector_dim=told["vector_dim"],
            made_for={cfg.base.name: self.pipeline.sha256}
            | {name: each.sha256 for name, each in encoders.items()},
        )
        sizes = {each.space.image.config["image_px"] for each in encoders.values()}
        pairs = SoundPairs(cfg.pairs, cfg.tiles, max(sizes), test=False)
        tiles = TileDataset(cfg.tiles, crop_px=cfg.crop_px)
        vectors = {name: Vectors.of(encoder, pairs) for name, encoder in encoders.items()}
        for name, each in vectors.items():
            every = [each.audio, *each.text.values(), torch.stack(list(each.image.values()))]
            self.sounds.read[name].fit(torch.cat(every))
        self.dataset = SteeringPairs(pairs, tiles, vectors)
        self.model = SteeringModel(self.pipeline, self.sounds, cfg)

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    def panel(self, path: Path) -> None:
        """Draw each label from a clip of it, with two seeds and at no place."""
        space, vectors = next(iter(self.dataset.vectors.items()))
        labels = [clip["label"] for clip in self.dataset.pairs.clips]
        window = Window(8, 0, 24_576, TILE, TILE)
        columns = []
        for label in dict.fromkeys(labels):
            sound = vectors.audio[labels.index(label)]
            scenes = [Scene(window, use_location=False, seed=seed, sound=sound) for seed in (0, 1)]
            drawn = self.pipeline(
                scenes, num_inference_steps=10, steering=SoundSteering(self.sounds, space)
            )
            columns.append(np.concatenate(list(drawn)))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(columns, axis=1)).save(path)

    def export(self, folder: Path) -> None:
        """Save the conditioner."""
        save_part(self.sounds, folder)


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_config, SteeringConfig), SteeringTask)


if __name__ == "__main__":
    main()
