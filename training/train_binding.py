"""Bind satellite images, sounds and sentences in one space.

    python -m training.sound_pairs --help                # makes the pairs
    accelerate launch training/train_binding.py configs/geoclap_nano.yaml

Add --resume to go on; any field: key=value, for example loop.steps=2000. The run leaves snapshots,
metrics and in ``weights/`` the averaged weights of a ``SoundSpace``. Three published systems are
three settings: geoclap (pooled), psm (gaussian, metadata late), sat2sound (codebook, early).
GeoBind is two runs: ``geobind_nano_hub`` binds images and sentences, then ``geobind_nano`` binds
sounds to that hub, of which no weight moves. Sounds and sentences never meet in it.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":  # run as a script: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generation.checkpoint import load_part, save_part
from generation.config import config, load_config
from generation.encoders.heads import Embedding
from generation.encoders.metadata import KNOWN_PARTS, Metadata
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_space import (
    AUDIO,
    IMAGE,
    JOINT,
    MODALITIES,
    TEXT,
    Joined,
    Modality,
    SoundSpace,
)
from generation.errors import ConfigError
from training.data import counted_batches, list_files
from training.gather import gathered, in_parts
from training.losses import (
    clamped_scale,
    codebook_loss,
    gaussian_loss,
    one_way_info_nce,
    pooled_loss,
)
from training.sound_pairs import Undated
from training.sound_rows import SoundRows
from training.sound_samples import SoundPairs
from training.trainer import LoopConfig, run_recipe


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
    temperature: float = 20.0
    """Of the codebook: at the start a good part of the codes should have a share."""
    reference_gsd_m: float = 600.0
    reads: tuple[str, ...] = KNOWN_PARTS
    """What of place, month and hour is told: what the data do not tell apart had better not be."""


@config
class BindingConfig:
    """Everything that tells one run from another."""

    pairs: Path = Path("runs/sound_pairs")
    """What ``python -m training.sound_pairs`` built."""
    tiles: Path = Path("runs/tiles")
    """The tiles that it was built on."""
    rows: str | None = None
    """Pattern of Parquet files of real pairs, in their stead: see ``training.sound_rows``."""
    towers_from: Path | None = None
    """A space whose towers a new space of any head begins with; of the same sizes."""
    start_from: Path | None = None
    """Weights to go on from, of an earlier run or from ``terrascape convert``; ``space`` is not
    read then."""
    out: Path = Path("runs/geoclap_nano")
    bind: tuple[Modality, ...] = MODALITIES
    """What is bound, pair by pair. With a hub: the one modality that is bound to its images."""
    hub: Path | None = None
    """The weights of an earlier run, whose space is gone on from and held still."""
    pseudo: float = 0.1
    """Weight of what fits as well as a partner does, in the losses of PSM and Sat2Sound. At the
    start that is half of a batch, so heads that begin from nothing learn from less of it."""
    same_sound: Literal["negative", "left out"] = "negative"
    """What a pair of the same kind of sound is to another: a negative, as published, or nothing.
    Where places are simulated, clips of one kind are interchangeable, and telling their places
    apart is learning by heart. Needs labels, which real pairs do not have."""
    undated: Undated = "unknown"
    """At what hour a sound without a date was heard. If only one place's sounds have an hour, that
    the hour is known at all says which place it is; any hour, drawn anew each time, does not."""
    learns: tuple[Modality, ...] = MODALITIES
    """Whose parts change; place, month and hour are parts of the image. Unless all do, what they
    share is held still, so the others' embeddings stay as they are to the bit."""
    part: int = 0
    """Samples whose activations are kept at once, 0 for the whole batch; the loss is the same."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        told = ", ".join(self.bind)
        if self.hub is not None and self.start_from is not None:
            raise ConfigError("hub and start_from both give weights (give one of the two)")
        if self.hub is not None and (len(self.bind) != 1 or IMAGE in self.bind):
            raise ConfigError(f"bind={told} is not bound to a hub (give audio or text)")
        if self.hub is None and len(set(self.bind)) < 2:
            raise ConfigError(f"bind={told} is nothing to bind (give two of {MODALITIES} or more)")
        if self.bind != MODALITIES and self.space.kind != "pooled":
            raise ConfigError(
                f"bind={told} is for space.kind=pooled; {self.space.kind} binds all three"
            )
        self._check_learns()
        if self.loop.batch_size < 2:
            raise ConfigError(
                f"loop.batch_size={self.loop.batch_size} leaves nothing to tell a pair from (give "
                "2 or more)"
            )
        if self.loop.accumulate != 1:
            raise ConfigError(
                f"loop.accumulate={self.loop.accumulate} would leave each batch to its own "
                "negatives (give 1, a larger loop.batch_size, and in part what fits the memory)"
            )
        if self.pseudo < 0:
            raise ConfigError(f"pseudo={self.pseudo} is no weight (give 0 or more)")
        if self.rows is not None and self.same_sound != "negative":
            raise ConfigError(
                f"same_sound={self.same_sound!r} needs kinds of sounds, which rows={self.rows} has "
                "not (give negative)"
            )
        if self.part < 0:
            raise ConfigError(f"part={self.part} is no number of samples (give 0 or more)")

    def _check_learns(self) -> None:
        if not self.learns or (set(self.learns) != set(MODALITIES) and self.start_from is None):
            raise ConfigError(
                f"learns={', '.join(self.learns) or 'nothing'} leaves parts as they are that no "
                f"weights were given for (give start_from, or all of {', '.join(MODALITIES)})"
            )


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
        metadata={"reads": list(cfg.reads), "drop": cfg.drop, "layers": 2, "heads": 4},
        codebook={"codes": cfg.codes, "temperature": cfg.temperature},
    )


def embed(
    space: SoundSpace, wanted: Sequence[Modality], batch: Mapping[str, Tensor]
) -> dict[Modality, Embedding]:
    """Embed the places, the sounds and the sentences of a batch, as far as they are wanted."""
    known = None
    if space.config["joined"] != "none":
        known = Metadata(batch["latlon"].float(), batch["month"], batch["hour"], {})
    ways: dict[Modality, Callable[[], Embedding]] = {
        IMAGE: lambda: space.embed_image(batch["image"], batch["gsd_m"].float(), known),
        AUDIO: lambda: space.embed_audio(batch["mel"]),
        TEXT: lambda: space.embed_text(batch["states"], batch["words"]),
    }
    return {name: ways[name]() for name in MODALITIES if name in wanted}


class BindingModel(nn.Module):
    """A step as a forward pass, with the temperatures that it learns."""

    def __init__(self, space: SoundSpace, cfg: BindingConfig) -> None:
        super().__init__()
        self.space, self.cfg = space, cfg
        learns = set(cfg.bind) & set(cfg.learns)
        for name, parameter in space.named_parameters():
            own = _owners(name)
            if cfg.hub is not None or own:
                parameter.requires_grad_(bool(own & learns))
            elif set(cfg.learns) != set(MODALITIES):
                parameter.requires_grad_(False)
        if space.config["kind"] == "gaussian":
            self.slope, self.offset = (nn.Parameter(torch.tensor(5.0)) for _ in range(2))
        else:
            self.log_scales = nn.Parameter(torch.full((5,), math.log(1 / 0.07)))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Embed a batch and compare all with all, those of the other processes too."""
        wanted = self.cfg.bind if self.cfg.hub is None else (IMAGE, *self.cfg.bind)
        parts = in_parts(partial(embed, self.space, wanted), batch, self.cfg.part)
        alike = None
        if self.cfg.same_sound == "left out":
            sounds = gathered(Embedding(batch["sound"][:, None].float())).vector[:, 0]
            alike = sounds[:, None] == sounds
        return {"loss": self.loss({name: gathered(part) for name, part in parts.items()}, alike)}

    def loss(
        self,
        parts: Mapping[Modality, Embedding],
        alike: Bool[Tensor, "batch batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Compare the modalities that are bound."""
        kind = self.space.config["kind"]
        if kind == "gaussian":
            # As published: half from image and sound, half from what has words.
            told = [
                gaussian_loss(
                    parts[a],
                    parts[b],
                    self.slope,
                    self.offset,
                    pseudo=self.cfg.pseudo,
                    alike=alike,
                )
                for a, b in combinations(MODALITIES, 2)
            ]
            return 0.5 * told[0] + 0.5 * (told[1] + told[2])
        scales = [clamped_scale(each) for each in self.log_scales]
        vectors = {name: part.vector for name, part in parts.items()}
        if kind == "codebook":
            three = (vectors[IMAGE], vectors[AUDIO], vectors[TEXT])
            return codebook_loss(*three, None, scales, pseudo=self.cfg.pseudo, alike=alike)
        if self.cfg.hub is not None:
            return one_way_info_nce(vectors[self.cfg.bind[0]], vectors[IMAGE], scales[0], alike)
        count = len(vectors) * (len(vectors) - 1) // 2
        return pooled_loss(list(vectors.values()), scales[:count], alike)


def _owners(parameter: str) -> set[str]:
    """Say which modalities a parameter belongs to; none, if all share it."""
    names = parameter.split(".")
    if names[0] in JOINT:
        return {IMAGE}
    # A part of a modality has its name: a tower, a projection, a layer of the head.
    return {name for name in MODALITIES if name in names}


class BindingTask:
    """Model and data of a run."""

    def __init__(self, cfg: BindingConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        given = cfg.hub or cfg.start_from
        space = _given(given, cfg) if given else None
        self.dataset: SoundPairs | SoundRows
        if cfg.rows is None:
            image_px = cfg.space.image_px if space is None else _image_px(space)
            self.dataset = SoundPairs(
                cfg.pairs, cfg.tiles, image_px, test=False, undated=cfg.undated
            )
            if space is None:
                space = new_space(cfg.space, frames=self.dataset.mels.shape[2])
                mean, deviation = self.dataset.sound_statistics()
                space.audio.get_buffer("mean").fill_(mean)
                space.audio.get_buffer("deviation").fill_(deviation)
                if cfg.towers_from is not None:
                    _take_towers(space, cfg.towers_from)
        elif space is None:
            raise ConfigError(
                "rows needs weights to go on from (give start_from or hub: an embedded space, or "
                "one from `terrascape convert`)"
            )
        else:
            encoder = SoundEncoder(space, folder=given)
            self.dataset = SoundRows(list_files(cfg.rows), encoder)
        self.model = BindingModel(space, cfg).train()

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    def panel(self, path: Path) -> None:
        """Draw nothing: an embedding is measured, not looked at."""

    def export(self, folder: Path) -> None:
        """Save the space, in full precision: a hub is compared bit by bit."""
        save_part(self.model.space, folder)


def _take_towers(space: SoundSpace, folder: Path) -> None:
    """Copy the towers and what projects their tokens from another space."""

    def towers(of: SoundSpace) -> dict[str, Tensor]:
        parts = (*MODALITIES, "project")
        return {n: v for n, v in of.state_dict().items() if n.split(".")[0] in parts}

    theirs, ours = towers(load_part(SoundSpace, folder)), towers(space)
    odd = [n for n in ours if n not in theirs or theirs[n].shape != ours[n].shape]
    if odd or theirs.keys() != ours.keys():
        raise ConfigError(
            f"towers_from={folder} has other towers ({', '.join(odd[:3]) or 'more of them'}; give "
            "the sizes of its config.json in space, or leave towers_from out)"
        )
    space.load_state_dict({**space.state_dict(), **theirs})


def _image_px(space: SoundSpace) -> int:
    tower: Any = space.image
    return int(tower.config["image_px"])


def _given(folder: Path, cfg: BindingConfig) -> SoundSpace:
    space: SoundSpace = load_part(SoundSpace, folder)
    kind = space.config["kind"]
    if (cfg.hub is not None or cfg.bind != MODALITIES) and kind != "pooled":
        raise ConfigError(f"{folder} is a {kind} space (to bind to a hub, give a pooled one)")
    return space


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_config, BindingConfig), BindingTask)


if __name__ == "__main__":
    main()
