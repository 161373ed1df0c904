"""Bind satellite images, sounds and sentences in one space.

    python -m training.sound_pairs --help                # makes the pairs
    accelerate launch training/train_binding.py configs/geoclap_nano.yaml

Add --resume to go on; any field: key=value, for example loop.steps=2000. The run leaves snapshots,
metrics and in ``weights/`` the averaged weights of a ``SoundSpace``. Three published systems are
three settings: geoclap (pooled), psm (gaussian, metadata late), sat2sound (codebook, early).
GeoBind is two runs: ``geobind_nano_hub`` binds images and sentences, then ``geobind_nano`` binds
sounds to that hub, of which no weight moves. Sounds and sentences never meet in it.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # run as a script: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from generation.checkpoint import load_part, save_part
from generation.config import config, load_config
from generation.encoders.heads import Embedding
from generation.encoders.metadata import Metadata
from generation.encoders.sound_space import (
    AUDIO,
    IMAGE,
    MODALITIES,
    TEXT,
    Joined,
    Modality,
    SoundSpace,
)
from generation.encoders.text import TextEncoder
from generation.errors import ConfigError, MissingFileError
from generation.geo.mercator import Window
from training.data import TILE, counted_batches
from training.losses import (
    clamped_scale,
    codebook_loss,
    gaussian_loss,
    one_way_info_nce,
    pooled_loss,
)
from training.sound_pairs import SAID
from training.trainer import LoopConfig, run_recipe

SCALES_PX = (64, 128, 256)
"""Sides of the crops that are drawn at one size: a place from near and from afar."""


@config
class SpaceConfig:
    """Sizes of the space; see :class:`SoundSpace`."""

    kind: Literal["pooled", "gaussian", "codebook"] = "pooled"
    joined: Joined = "none"
    dim: int = 128
    width: int = 128
    image_px: int = 64
    patch: int = 8
    tower_dim: int = 96
    tower_depth: int = 3
    tower_heads: int = 4
    drop: float = 0.5
    codes: int = 256
    reference_gsd_m: float = 600.0


@config
class BindingConfig:
    """Everything that tells one run from another."""

    pairs: Path = Path("runs/sound_pairs")
    """What ``python -m training.sound_pairs`` built."""
    tiles: Path = Path("runs/tiles")
    """The tiles that it was built on."""
    out: Path = Path("runs/geoclap_nano")
    bind: tuple[Modality, ...] = MODALITIES
    """What is bound, pair by pair. With a hub: the one modality that is bound to its images."""
    hub: Path | None = None
    """The weights of an earlier run, whose space is gone on from and held still."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        told = ", ".join(self.bind)
        if self.hub is not None and (len(self.bind) != 1 or IMAGE in self.bind):
            raise ConfigError(f"bind={told} is not bound to a hub (give audio or text)")
        if self.hub is None and len(set(self.bind)) < 2:
            raise ConfigError(f"bind={told} is nothing to bind (give two of {MODALITIES} or more)")
        if self.bind != MODALITIES and self.space.kind != "pooled":
            raise ConfigError(
                f"bind={told} is for space.kind=pooled; {self.space.kind} binds all three"
            )
        if self.loop.batch_size < 2:
            raise ConfigError(
                f"loop.batch_size={self.loop.batch_size} leaves nothing to tell a pair from (give "
                "2 or more)"
            )


class SoundPairs(Dataset[dict[str, Tensor]]):
    """Pairs of one side, learning or test.

    An item is asked for by ``(index, draw)``: which pair, and the number that decides its crop, its
    caption and where its sound begins. Of a test pair, ``draw`` 0 is always the same middle view.
    """

    def __init__(self, pairs: Path, tiles: Path, image_px: int, *, test: bool) -> None:
        names = ("pairs.npy", "mels.npy", "clips.json")
        absent = [pairs / n for n in names if not (pairs / n).is_file()]
        absent += [tiles / n for n in ("images.npy", "rows.npy") if not (tiles / n).is_file()]
        if absent:
            raise MissingFileError(
                f"{absent[0]} is not there (build it: python -m training.sound_pairs --help)"
            )
        self.clips = json.loads((pairs / "clips.json").read_text(encoding="utf-8"))
        every = np.load(pairs / "pairs.npy")
        side = np.array([clip["test"] for clip in self.clips])
        self.pairs = every[side[every[:, 0]] == test]
        self.mels = np.load(pairs / "mels.npy").astype(np.float32)
        self.rows = np.load(tiles / "rows.npy")
        if self.pairs[:, 1].max() >= len(self.rows):
            raise ConfigError(f"{pairs} was made on other tiles than {tiles} (build it again)")
        images = np.load(tiles / "images.npy", mmap_mode="r")
        used = np.unique(self.pairs[:, 1])
        self.images = {int(row): np.array(images[row]) for row in used}
        self.image_px, self.test = image_px, test
        encoder = TextEncoder()
        self.said = {label: encoder(list(texts)) for label, texts in SAID.items()}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        index, draw = key
        clip_row, tile = self.pairs[index].tolist()
        clip, rng = self.clips[clip_row], np.random.default_rng([draw, index])
        size = SCALES_PX[1] if self.test else int(rng.choice(SCALES_PX))
        slack = TILE - size
        top, left = (slack // 2,) * 2 if self.test else rng.integers(0, slack + 1, 2).tolist()
        view = torch.from_numpy(self.images[tile][top : top + size, left : left + size].copy())
        image = F.adaptive_avg_pool2d(view.permute(2, 0, 1).float() / 127.5 - 1, self.image_px)
        mel = torch.from_numpy(self.mels[clip_row])
        states, words = self.said[clip["label"]]
        which = 0
        if not self.test:
            image = image.flip(-1) if rng.random() < 0.5 else image
            mel = mel.roll(int(rng.integers(mel.shape[1])), 1)
            which = int(rng.integers(len(states)))
        zoom, col, row = (int(value) for value in self.rows[tile, :3])
        window = Window(zoom, col, row, TILE, TILE)
        return {
            "image": image,
            "gsd_m": torch.tensor(window.gsd_m * size / self.image_px),
            "mel": mel,
            "states": states[which],
            "words": words[which],
            "latlon": torch.tensor([window.center.lat, window.center.lon]),
            "month": torch.tensor(math.nan if clip["month"] is None else float(clip["month"])),
            "hour": torch.tensor(math.nan if clip["hour"] is None else float(clip["hour"])),
        }

    def sound_statistics(self) -> tuple[float, float]:
        """Return mean and standard deviation of the spectrograms of this side."""
        used = self.mels[np.unique(self.pairs[:, 0])]
        return float(used.mean()), float(used.std())


def new_space(cfg: SpaceConfig, *, frames: int) -> SoundSpace:
    """Make an untrained space of the sizes of a configuration."""
    tower = {"dim": cfg.tower_dim, "depth": cfg.tower_depth, "heads": cfg.tower_heads}
    place = {"image_px": cfg.image_px, "patch": cfg.patch, "reference_gsd_m": cfg.reference_gsd_m}
    towers: Mapping[str, Mapping[str, Any]] = {
        IMAGE: {**tower, **place},
        AUDIO: {**tower, "frames": frames},
        TEXT: {},
    }
    return SoundSpace(
        kind=cfg.kind,
        joined=cfg.joined,
        dim=cfg.dim,
        width=cfg.width,
        towers=towers,
        metadata={"drop": cfg.drop, "layers": 2, "heads": 4},
        codebook={"codes": cfg.codes, "temperature": 1.0},
    )


def embed(space: SoundSpace, batch: Mapping[str, Tensor]) -> tuple[Embedding, ...]:
    """Embed the places, the sounds and the sentences of a batch."""
    known = None
    if space.config["joined"] != "none":
        known = Metadata(batch["latlon"].float(), batch["month"], batch["hour"], {})
    return (
        space.embed_image(batch["image"], batch["gsd_m"].float(), known),
        space.embed_audio(batch["mel"]),
        space.embed_text(batch["states"], batch["words"]),
    )


class BindingModel(nn.Module):
    """A step as a forward pass, with the temperatures that it learns."""

    def __init__(self, space: SoundSpace, cfg: BindingConfig) -> None:
        super().__init__()
        self.space, self.cfg = space, cfg
        if cfg.hub is not None:
            # A part of a modality has its name: a tower, a projection, a layer of the head.
            for name, parameter in space.named_parameters():
                parameter.requires_grad_(cfg.bind[0] in name.split("."))
        self.log_scales = nn.Parameter(torch.full((5,), math.log(1 / 0.07)))
        self.slope, self.offset = (nn.Parameter(torch.tensor(5.0)) for _ in range(2))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Embed a batch and compare all with all."""
        image, audio, text = embed(self.space, batch)
        kind = self.space.config["kind"]
        if kind == "gaussian":
            # As published: half from image and sound, half from what has words.
            told = [
                gaussian_loss(a, b, self.slope, self.offset)
                for a, b in ((image, audio), (image, text), (audio, text))
            ]
            return {"loss": 0.5 * told[0] + 0.5 * (told[1] + told[2])}
        scales = [clamped_scale(each) for each in self.log_scales]
        if kind == "codebook":
            return {"loss": codebook_loss(image.vector, audio.vector, text.vector, None, scales)}
        vectors = {IMAGE: image.vector, AUDIO: audio.vector, TEXT: text.vector}
        bound = [vectors[name] for name in MODALITIES if name in self.cfg.bind]
        if self.cfg.hub is not None:
            return {"loss": one_way_info_nce(bound[0], image.vector, scales[0])}
        count = len(bound) * (len(bound) - 1) // 2
        return {"loss": pooled_loss(bound, scales[:count])}


class BindingTask:
    """Model and data of a run."""

    def __init__(self, cfg: BindingConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        self.dataset = SoundPairs(cfg.pairs, cfg.tiles, cfg.space.image_px, test=False)
        if cfg.hub is None:
            space = new_space(cfg.space, frames=self.dataset.mels.shape[2])
            mean, deviation = self.dataset.sound_statistics()
            space.audio.mean.fill_(mean)
            space.audio.deviation.fill_(deviation)
        else:
            space = load_part(SoundSpace, cfg.hub)
            image_px = space.image.config["image_px"]
            if space.config["kind"] != "pooled" or image_px != cfg.space.image_px:
                raise ConfigError(
                    f"{cfg.hub} is a {space.config['kind']} space of images of {image_px} px (give "
                    f"a pooled one of {cfg.space.image_px})"
                )
        self.model = BindingModel(space, cfg).train()

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    def panel(self, path: Path) -> None:
        """Draw nothing: an embedding is measured, not looked at."""

    def export(self, folder: Path) -> None:
        """Save the space, in full precision: a hub is compared bit by bit."""
        save_part(self.model.space, folder)


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_config, BindingConfig), BindingTask)


if __name__ == "__main__":
    main()
