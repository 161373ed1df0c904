"""From spectrograms back to sound: by search (Griffin-Lim), and by a network that has learnt to.

A log-mel spectrogram has lost the phases and the fine lines of a spectrum. A search finds a sound
whose spectrogram comes near; the network adds two parts: tones, whose phases it predicts, and white
noise that it colours. Surf, rain and wind are noise, and a search or a network that must give one
sound for each spectrogram turns them into a metallic hum.
"""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from generation.errors import AudioError
from generation.media.audio import Mel

_MOMENTUM = 0.99
_LOUDEST = 7.0
"""The largest logarithm of a magnitude that the network may give."""
_TINY = 1e-8


def magnitudes(
    log_mel: Float[Tensor, "batch bands frames"],
    filters: Float[Tensor, "bins bands"],
    *,
    updates: int = 20,
) -> Float[Tensor, "batch bins frames"]:
    """Find magnitudes, none below zero, whose mel bands are those of a spectrogram.

    Args:
        log_mel: What :func:`generation.media.audio.log_mel` gives.
        filters: Those that it was taken with.
        updates: Steps of the search.

    Source:
        Lee and Seung, "Algorithms for non-negative matrix factorization" (2000), Eq. 4, with one
        of the two factors given.
    """
    bands = log_mel.exp()
    spread = filters @ bands
    found = spread / (filters @ filters.sum(0)[:, None]).clamp_min(_TINY)
    for _ in range(updates):
        found = found * spread / (filters @ (filters.T @ found)).clamp_min(_TINY)
    return found


def griffin_lim(
    log_mel: Float[Tensor, "batch bands frames"],
    mel: Mel,
    noise: Float[Tensor, "batch samples"],
    *,
    iterations: int = 32,
) -> Float[Tensor, "batch samples"]:
    """Search a sound with this spectrogram.

    Args:
        log_mel: At ``mel``'s settings.
        mel: Those.
        noise: White noise, whose phases the search begins with: ``(frames - 1) * hop`` samples.
        iterations: Steps.

    Source:
        Perraudin, Balazs and Søndergaard, "A fast Griffin-Lim algorithm" (2013), Alg. 2.
    """
    _check_noise(log_mel, mel.hop, noise)
    size = magnitudes(log_mel, mel.filters().to(log_mel))
    window = torch.hann_window(mel.n_fft).to(log_mel)
    spectrum = _stft(noise, window, mel.hop)
    before = torch.zeros_like(spectrum)
    for _ in range(iterations):
        spectrum = size * spectrum / spectrum.abs().clamp_min(_TINY)
        now = _stft(_istft(spectrum, window, mel.hop, noise.shape[1]), window, mel.hop)
        spectrum, before = now + _MOMENTUM * (now - before), now
    spectrum = size * spectrum / spectrum.abs().clamp_min(_TINY)
    return _istft(spectrum, window, mel.hop, noise.shape[1])


class _Block(nn.Module):
    """A wide look along time, then each moment for itself, beside the identity.

    Source:
        Liu et al., "A ConvNet for the 2020s" (2022), Fig. 4, in one dimension.
    """

    def __init__(self, width: int, hidden: int, start: float) -> None:
        super().__init__()
        self.along = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), start))

    def forward(
        self, x: Float[Tensor, "batch width frames"]
    ) -> Float[Tensor, "batch width frames"]:
        """Return the sum."""
        each = self.norm(self.along(x).transpose(1, 2))
        each = self.narrow(F.gelu(self.widen(each))) * self.scale
        return x + each.transpose(1, 2)


class Vocoder(ModelMixin, ConfigMixin):
    """Log-mel spectrograms and white noise -> sound, one spectrum for each frame.

    Source:
        Siuzdak, "Vocos: closing the gap between time-domain and Fourier-based neural vocoders"
        (ICLR 2024), for spectra that an inverse transform joins; Engel et al., "DDSP" (ICLR 2020),
        §3.4, for noise through a filter that changes with time.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913 - the sizes of a network, as its configuration lists them
        self,
        rate: int = 16_000,
        n_fft: int = 1024,
        hop: int = 160,
        bands: int = 64,
        low_hz: float = 0.0,
        high_hz: float = 8_000.0,
        width: int = 192,
        hidden: int = 512,
        num_blocks: int = 6,
    ) -> None:
        super().__init__()
        self.mel = Mel(rate, n_fft, hop, bands, low_hz, high_hz)
        bins = n_fft // 2 + 1
        self.enter = nn.Conv1d(bands, width, 7, padding=3)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            _Block(width, hidden, 1 / num_blocks) for _ in range(num_blocks)
        )
        self.last = nn.LayerNorm(width)
        self.leave = nn.Linear(width, 4 * bins)
        nn.init.normal_(self.leave.weight, std=0.02)
        nn.init.zeros_(self.leave.bias)
        self.filters: Tensor
        self.register_buffer("filters", self.mel.filters(), persistent=False)
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(
        self, log_mel: Float[Tensor, "batch bands frames"], noise: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, "batch samples"]:
        """Give a sound.

        Args:
            log_mel: At the settings of ``mel``.
            noise: White, of unit variance, ``(frames - 1) * hop`` samples.

        Raises:
            AudioError: The noise is of another length.
        """
        return self.several(log_mel, [noise])[0]

    def several(
        self,
        log_mel: Float[Tensor, "batch bands frames"],
        noises: list[Float[Tensor, "batch samples"]],
    ) -> list[Float[Tensor, "batch samples"]]:
        """Give a sound for each of several noises, the network being asked once."""
        for noise in noises:
            _check_noise(log_mel, self.mel.hop, noise)
        tones, colour = self._spectra(log_mel)
        return [self._sound(tones, colour, noise) for noise in noises]

    def _spectra(
        self, log_mel: Float[Tensor, "batch bands frames"]
    ) -> tuple[Complex[Tensor, "batch bins frames"], Float[Tensor, "batch bins frames"]]:
        """Give the tones, and what white noise is multiplied by."""
        # What lies between the bands is interpolated; the network changes that.
        plain = magnitudes(log_mel, self.filters, updates=2).clamp_min(1e-6).log()
        x = self.norm(self.enter(log_mel / 4).transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        x = self.leave(self.last(x.transpose(1, 2))).transpose(1, 2)
        tone, cos, sin, colour = x.chunk(4, 1)
        size = (plain + tone - 1).clamp(max=_LOUDEST).exp()
        angle = torch.complex(cos, sin)
        angle = angle / angle.abs().clamp_min(1e-3)
        # White noise has a mean squared magnitude of the window's energy at each bin.
        level = (plain + colour).clamp(max=_LOUDEST).exp() / self.window.square().sum().sqrt()
        return size * angle, level

    def _sound(
        self,
        tones: Complex[Tensor, "batch bins frames"],
        colour: Float[Tensor, "batch bins frames"],
        noise: Float[Tensor, "batch samples"],
    ) -> Float[Tensor, "batch samples"]:
        spectrum = tones + colour * _stft(noise, self.window, self.mel.hop)
        return _istft(spectrum, self.window, self.mel.hop, noise.shape[1])


def _stft(
    samples: Float[Tensor, "batch n"], window: Float[Tensor, " n_fft"], hop: int
) -> Complex[Tensor, "batch bins frames"]:
    return torch.stft(
        samples, len(window), hop, window=window, pad_mode="reflect", return_complex=True
    )


def _istft(
    spectrum: Complex[Tensor, "batch bins frames"],
    window: Float[Tensor, " n_fft"],
    hop: int,
    count: int,
) -> Float[Tensor, "batch count"]:
    return torch.istft(spectrum, len(window), hop, window=window, length=count)


def _check_noise(log_mel: Tensor, hop: int, noise: Tensor) -> None:
    wanted = (log_mel.shape[2] - 1) * hop
    if noise.shape[1] != wanted:
        raise AudioError(
            f"{noise.shape[1]} samples of noise for {log_mel.shape[2]} frames (give {wanted})"
        )
