"""Train a model of soundscapes: first the vocoder with its codec, then the denoiser.

    accelerate launch training/train_soundscape.py configs/soundscape_nano_vocoder.yaml
    accelerate launch training/train_soundscape.py configs/soundscape_nano.yaml

Add --resume to go on; any field: key=value, for example loop.steps=2000. The run leaves snapshots,
metrics, spectrograms of fixed recordings and seeds, and in ``weights/`` the averaged weights as a
folder. The rows of a panel: recordings, what the vocoder makes of them by way of the codec, and
what is drawn from their embeddings.
"""

import sys
from collections.abc import Iterator
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # run as a script: import from the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from generation.checkpoint import load_part
from generation.config import config, load_config
from generation.diffusion.codec import PatchCodec
from generation.diffusion.flow import noised, shares
from generation.diffusion.soundscape import KINDS, TIMES, SoundscapeConditioner
from generation.diffusion.trunk import build_unet
from generation.encoders.heads import Embedding, unit
from generation.encoders.sound_encoder import load_sound_encoder
from generation.encoders.sound_space import AUDIO, IMAGE, TEXT
from generation.errors import ConfigError
from generation.media.audio import Mel, log_mel, mel_signal, signal_mel
from generation.media.vocoder import Vocoder
from generation.pipelines.soundscape import PARTS, SoundscapePipeline
from training.data import counted_batches
from training.losses import energy_distance
from training.network import UNetConfig
from training.sound_pairs import SAID, Undated
from training.soundscape_data import HeardPieces, Pieces, hear, read_waves, tiles_seen
from training.trainer import LoopConfig, run_recipe


@config
class SoundscapeNetworkConfig(UNetConfig):
    """Sizes of the denoiser, the vocoder and the codec."""

    vocoder_width: int = 192
    vocoder_hidden: int = 512
    vocoder_blocks: int = 6
    patch: int = 8
    latent_channels: int = 16
    whitening: float = 0.5


@config
class SoundscapeConfig:
    """Everything that tells one run from another."""

    clips: str | None = None
    """Pattern of Parquet files of labelled clips."""
    day: str | None = None
    """Pattern of those of one microphone's day."""
    space: str = "sat2sound-nano"
    """The shared space that is listened with."""
    tiles: Path | None = None
    """A folder of ``training.data``: images may be asked with once their mean is known."""
    out: Path = Path("runs/soundscape_nano")
    start_from: Path | None = None
    """A weights folder of an earlier run to go on from."""
    vocoder_from: Path | None = None
    """A weights folder whose codec and vocoder a new denoiser draws for."""
    stage: Literal["vocoder", "denoiser"] = "denoiser"
    """``vocoder`` fits the codec and learns to turn spectrograms into sound; ``denoiser`` learns to
    draw spectrograms, and leaves the rest as it is."""
    frames: int = 512
    """Columns of a piece."""
    pieces: int = 6
    """Pieces of a recording that the denoiser learns from."""
    through_codec: float = 0.5
    """Probability that the vocoder is given a spectrogram as the codec brings it back."""
    codec_errors: float = 0.1
    """Largest error of the latents in that case."""
    drop_sound: float = 0.1
    """Probability that the denoiser is not told the sound."""
    drop_time: float = 0.3
    """Probability that it is not told the time."""
    reads: tuple[str, ...] = TIMES
    """What it is told of the time: what no recording tells apart had better not be."""
    undated: Undated = "unknown"
    """At what hour a recording without a date was made: see ``BindingConfig``."""
    blur: float = 0.2
    """Size of the noise on embeddings of unit length: one stands for its neighbourhood."""
    time_mean: float = 0.0
    """Centre of the normal law whose sigmoid is the share of noise."""
    time_sd: float = 1.4
    pure_noise: float = 0.05
    sampler_shift: float = 1.0
    network: SoundscapeNetworkConfig = field(default_factory=SoundscapeNetworkConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        for name in ("through_codec", "drop_sound", "drop_time", "pure_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} is no probability (give 0 to 1)")
        for name in ("codec_errors", "blur"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} is no size (give 0 or more)")
        if self.frames < 16 or self.frames % self.network.patch:
            raise ConfigError(
                f"frames={self.frames} is no length of a piece (give a multiple of "
                f"network.patch={self.network.patch}, 16 or more)"
            )
        if self.start_from is not None and self.vocoder_from is not None:
            raise ConfigError("start_from and vocoder_from both give weights (give one of the two)")
        if self.stage == "denoiser" and not (self.start_from or self.vocoder_from):
            raise ConfigError(
                "the denoiser needs a codec and a vocoder (give vocoder_from: the weights of a run "
                "with stage=vocoder)"
            )


class SoundscapeModel(nn.Module):
    """A training step as a forward pass."""

    def __init__(self, pipeline: SoundscapePipeline, cfg: SoundscapeConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.denoiser, self.conditioner = pipeline.denoiser, pipeline.conditioner
        self.codec, self.vocoder = pipeline.codec, pipeline.vocoder

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take a step of the stage."""
        if self.cfg.stage == "vocoder":
            return self._voiced(batch["samples"])
        return self._drawn(batch)

    def _voiced(self, real: Tensor) -> dict[str, Tensor]:
        """Make two sounds of each spectrogram; compare them with the real one and each other."""
        cfg, vocoder = self.cfg, self.vocoder
        with torch.no_grad():
            seen = log_mel(real, vocoder.mel, vocoder.filters)
            latents = self.codec.encode(mel_signal(seen)[:, None])
            size = cfg.codec_errors * torch.rand(len(real), 1, 1, 1, device=real.device)
            latents = latents + size * torch.randn_like(latents)
            coded = signal_mel(self.codec.decode(latents)[:, 0])
            codes = torch.rand(len(real), 1, 1, device=real.device) < cfg.through_codec
            seen = torch.where(codes, coded, seen)
        one, other = vocoder.several(seen, [torch.randn_like(real) for _ in range(2)])
        attracted, repelled = energy_distance(real, one, other)
        return {"loss": attracted - repelled, "apart": attracted / 2, "varied": repelled}

    def _drawn(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Noise a batch, predict its velocity, compare."""
        cfg, mel = self.cfg, batch["mel"]
        with torch.no_grad():
            x0 = self.codec.encode(mel_signal(mel)[:, None])
            told = self.conditioner.centred(Embedding(batch["embedding"]), AUDIO)
            told = unit(told + cfg.blur * torch.randn_like(told) / told.shape[1] ** 0.5)
            keep = torch.rand(len(x0), device=x0.device) >= cfg.drop_sound
            silent = torch.rand(len(x0), device=x0.device) < cfg.drop_time
            month, hour = (batch[n].masked_fill(silent, torch.nan) for n in ("month", "hour"))
        noise = torch.randn_like(x0)
        share = shares(
            len(x0),
            mean=cfg.time_mean,
            deviation=cfg.time_sd,
            pure=cfg.pure_noise,
            device=x0.device,
        )
        condition = self.conditioner(told, keep, month, hour)
        predicted = self.denoiser(noised(x0, noise, share), 1000 * share, condition)
        return {"loss": F.mse_loss(predicted.float(), noise - x0)}


class SoundscapeTask:
    """Model, data and panels of a run."""

    def __init__(self, cfg: SoundscapeConfig) -> None:
        torch.manual_seed(cfg.loop.seed)
        self.cfg = cfg
        self.encoder = load_sound_encoder(cfg.space)
        self.waves = read_waves(cfg.clips, cfg.day, rate=Mel().rate, test=False)
        self.pipeline = self._build()
        mel = self.pipeline.vocoder.mel
        self.dataset: Pieces | HeardPieces
        if cfg.stage == "vocoder":
            self.dataset = Pieces(self.waves, (cfg.frames - 1) * mel.hop)
        else:
            heard = hear(self.waves, self.encoder, mel, cfg.frames, cfg.pieces)
            self.dataset = HeardPieces(heard, cfg.undated)
            self._centre(heard.embeddings)
        self.model = SoundscapeModel(self.pipeline, cfg).train()
        for name in ("vocoder", "denoiser", "conditioner"):
            learns = (name == "vocoder") == (cfg.stage == "vocoder")
            getattr(self.model, name).requires_grad_(learns)

    def _build(self) -> SoundscapePipeline:
        cfg, net = self.cfg, self.cfg.network
        scheduler = FlowMatchEulerDiscreteScheduler(shift=cfg.sampler_shift)
        vocoder = Vocoder(
            width=net.vocoder_width, hidden=net.vocoder_hidden, num_blocks=net.vocoder_blocks
        )
        unet = build_unet(
            latent_channels=net.latent_channels,
            latent_size=(vocoder.mel.bands // net.patch, cfg.frames // net.patch),
            sizes=net.sizes(),
        )
        conditioner = SoundscapeConditioner(
            embed_dim=self.encoder.space.config["dim"],
            token_dim=net.token_dim,
            vector_dim=net.vector_dim,
            reads=list(cfg.reads),
            space=cfg.space,
            space_sha256=self.encoder.sha256,
        )
        if cfg.vocoder_from is not None:
            codec = load_part(PatchCodec, cfg.vocoder_from / "codec")
            vocoder = load_part(Vocoder, cfg.vocoder_from / "vocoder")
            return SoundscapePipeline(unet, conditioner, codec, vocoder, scheduler)
        if cfg.start_from is None:
            return SoundscapePipeline(unet, conditioner, self._fitted(), vocoder, scheduler)
        parts = {name: load_part(part, cfg.start_from / name) for name, part in PARTS.items()}
        if parts["conditioner"].config["space_sha256"] != self.encoder.sha256:
            raise ConfigError(
                f"start_from={cfg.start_from} listened with other weights of "
                f"{parts['conditioner'].config['space']} (begin anew with these)"
            )
        return SoundscapePipeline(**parts, scheduler=scheduler)

    def _fitted(self) -> PatchCodec:
        """Fit the codec on all that is learnt from."""
        net, mel = self.cfg.network, Mel()
        codec = PatchCodec(net.patch, net.latent_channels, net.whitening, channels=1)
        filters = mel.filters()

        def chunks() -> Iterator[Tensor]:
            for wave in self.waves:
                seen = log_mel(torch.from_numpy(wave.samples)[None], mel, filters)
                whole = seen.shape[2] // net.patch * net.patch
                if whole:
                    yield mel_signal(seen[:, None, :, :whole])

        codec.adapt(chunks())
        return codec

    @torch.no_grad()
    def _centre(self, heard: Tensor) -> None:
        """Find the mean direction of each kind of embedding."""
        sentences = [sentence for texts in SAID.values() for sentence in texts]
        parts = {AUDIO: heard, TEXT: self.encoder.text(sentences).vector}
        if self.cfg.tiles is not None:
            parts[IMAGE] = tiles_seen(self.encoder, self.cfg.tiles).vector
        for kind, vectors in parts.items():
            self.pipeline.conditioner.means[KINDS.index(kind)] = unit(vectors).mean(0)

    def batches(self, start: int, rank: int, world_size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches; the order depends on the seed and the position alone."""
        return counted_batches(self.dataset, self.cfg.loop, start, rank, world_size)

    @torch.no_grad()
    def panel(self, path: Path) -> None:
        """Draw spectrograms: recordings, through codec and vocoder, and drawn."""
        mel = self.pipeline.vocoder.mel
        chosen = np.linspace(0, len(self.waves) - 1, 8).astype(int)
        heard = hear([self.waves[i] for i in chosen], self.encoder, mel, self.cfg.frames, 1)
        real = torch.from_numpy(heard.mels).float()
        seeds = list(range(len(real)))
        latents = self.pipeline.codec.encode(mel_signal(real)[:, None])
        rows = [real.numpy(), self._seen(self.pipeline.sounds(latents, seeds))]
        if self.cfg.stage == "denoiser":
            asked = Embedding(heard.embeddings)
            seconds = (self.cfg.frames - 1) * mel.hop / mel.rate
            rows.append(self._seen(self.pipeline(asked, AUDIO, seconds=seconds, seeds=seeds)))
        sheet = np.concatenate([np.concatenate(list(row[:, ::-1]), 1) for row in rows])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(((sheet + 11.6) / 14 * 255).clip(0, 255).astype(np.uint8)).save(path)
        self.model.train()

    def _seen(self, samples: np.ndarray) -> np.ndarray:
        vocoder = self.pipeline.vocoder
        seen = log_mel(torch.from_numpy(samples), vocoder.mel, vocoder.filters)
        return seen[:, :, : self.cfg.frames].numpy()

    def export(self, folder: Path) -> None:
        """Save the weights as a pipeline folder."""
        self.pipeline.save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    """Read the configuration, build the task, train."""
    run_recipe(argv, __doc__, partial(load_config, SoundscapeConfig), SoundscapeTask)


if __name__ == "__main__":
    main()
