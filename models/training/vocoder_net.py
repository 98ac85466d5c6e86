"""The vocoder's network: mel to wave by a filtered harmonic source and filtered noise, all in the STFT's frames.

A ConvNeXt backbone and an inverse-STFT head (Vocos, Siuzdak 2023) predict corrections of the magnitude that the mel
filterbank's pseudo-inverse gives (FreeV, Lv and others 2024). Phase is the hard part for a small model, so it starts
from a pulse train whose pitch a small network reads off the mel and integrates (as in HiFTNet, Li and others 2023);
the head adds a phase correction for each bin. What is not harmonic is a fixed table of noise: nothing here is random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from models.mel import LOG_FLOOR, N_FFT, mel_filterbank
from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE

BINS = N_FFT // 2 + 1
PITCH_BINS = 96
PITCH_LOW, PITCH_HIGH = 60.0, 520.0
NOISE_FRAMES = 128
"""The noise table's period in frames, 1.49 s."""
EDGE = 2
"""Frames beyond each end of the mel whose windows reach into the wave."""
SOURCE_EDGE = 2
PULSE_SCALE = 4.0 / N_FFT
"""A cosine of amplitude 1 under a Hann window peaks at N_FFT / 4."""
REFINEMENTS = 12
"""Steps of `refine` in the shipped graph."""
RELAXATION, MOMENTUM = 1.2, 0.7
"""Of those steps; chosen beside others by PESQ, on speakers of the training data."""
NOISE_SHARE = 0.7
"""Of the trained noise's magnitude in the shipped graph: refinement brings the energy back, and PESQ is 0.06 higher."""
_NOISE_SCALE = 1.0 / math.sqrt(0.375 * N_FFT)


@dataclass(frozen=True, slots=True)
class Size:
    """Widths and depths. The context of the whole is 3 + 3 * the deeper number of blocks, plus the edges."""

    dim: int = 256
    inner: int = 768
    blocks: int = 6
    pitch_dim: int = 128
    pitch_inner: int = 256
    pitch_blocks: int = 5


class Block(nn.Module):
    """ConvNeXt block over time: float32 [B, C, T] to the same."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.across = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, inner)
        self.down = nn.Linear(inner, dim)
        self.scale = nn.Parameter(torch.full((dim,), 0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.across(x).transpose(1, 2))
        y = self.down(functional.gelu(self.up(y))) * self.scale
        return x + y.transpose(1, 2)


class Backbone(nn.Module):
    """Mel to `out` values a frame: float32 [B, 80, T] to [B, T, out]."""

    def __init__(self, dim: int, inner: int, blocks: int, out: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(MEL_BANDS, dim, 7, padding=3)
        self.norm = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(Block(dim, inner) for _ in range(blocks))
        self.last = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, out)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = self.embed((mel + 5.0) / 3.0)
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.last(x.transpose(1, 2)))


def _spread(bank: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Each bin as a mean of the mel bands over it, [80, 513]; bins outside all bands go with the nearest one inside."""
    total = bank.sum(axis=0)
    inside = np.flatnonzero(total > 0)
    nearest = inside[np.abs(np.arange(BINS)[:, None] - inside[None, :]).argmin(axis=1)]
    return (bank / np.maximum(total, 1e-12))[:, nearest].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Filters:
    """Per frame and bin, float32 [B, T, 513]: magnitudes of harmonics and noise, and the harmonics' added phase."""

    harmonic: torch.Tensor
    noise: torch.Tensor
    turn: torch.Tensor


class VocoderNet(nn.Module):
    """Filters and pitch from a mel; see `synthesize` for how they become a wave."""

    inverse_mel: torch.Tensor
    mel_bank: torch.Tensor
    spread: torch.Tensor
    window: torch.Tensor
    pitch_hz: torch.Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.filter_net = Backbone(size.dim, size.inner, size.blocks, 3 * BINS)
        self.pitch_net = Backbone(size.pitch_dim, size.pitch_inner, size.pitch_blocks, PITCH_BINS)
        with torch.no_grad():
            self.filter_net.head.weight.mul_(0.1)
            self.filter_net.head.bias.zero_()
            self.filter_net.head.bias[: 2 * BINS] = -0.7
        bank = mel_filterbank(MEL_RATE, N_FFT, MEL_BANDS, 0.0, 8000.0).astype(np.float64)
        self.register_buffer("mel_bank", torch.from_numpy(np.ascontiguousarray(bank.T.astype(np.float32))))
        self.register_buffer("spread", torch.from_numpy(_spread(bank)))
        self.register_buffer("inverse_mel", torch.from_numpy(np.linalg.pinv(bank).T.astype(np.float32)))
        self.register_buffer("window", torch.hann_window(N_FFT))
        hz = PITCH_LOW * (PITCH_HIGH / PITCH_LOW) ** (np.arange(PITCH_BINS) / (PITCH_BINS - 1))
        self.register_buffer("pitch_hz", torch.from_numpy(hz.astype(np.float32)))

    def prior(self, mel: torch.Tensor) -> torch.Tensor:
        """The magnitude that the mel alone tells: [B, 80, T] to [B, T, 513] (FreeV, equation 5)."""
        return (mel.transpose(1, 2).exp() @ self.inverse_mel).abs().clamp_min(LOG_FLOOR)

    def filters(self, mel: torch.Tensor) -> Filters:
        harmonic, noise, turn = self.filter_net(mel).float().split(BINS, dim=2)
        prior = self.prior(mel)
        return Filters(prior * harmonic.clamp_max(5.0).exp(), prior * noise.clamp_max(5.0).exp(), turn)

    def correction(self, magnitude: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
        """Gains that bring magnitudes [B, T, 513] nearer to the mel [B, 80, T]: [B, T, 513]; see `refine`."""
        heard = (magnitude @ self.mel_bank).clamp_min(LOG_FLOOR).log()
        missed = (mel.transpose(1, 2) - heard).clamp(-3.0, 3.0)
        return (RELAXATION * (missed @ self.spread)).exp()

    def pitch_logits(self, mel: torch.Tensor) -> torch.Tensor:
        """Scores of the 96 pitches: [B, T, 96]."""
        return self.pitch_net(mel).float()

    def pitch(self, logits: torch.Tensor) -> torch.Tensor:
        """Hz: the mean in the log over the neighbourhood of the best bin (as in CREPE), [B, T, 96] to [B, T]."""
        best = logits.argmax(dim=2, keepdim=True)
        near = (torch.arange(PITCH_BINS, device=logits.device) - best).abs() <= 4
        weight = logits.softmax(dim=2) * near.to(logits.dtype)
        return ((weight * self.pitch_hz.log()).sum(2) / weight.sum(2)).exp()


def pulses(f0: torch.Tensor, phase: torch.Tensor, climb: torch.Tensor) -> torch.Tensor:
    """Band-limited pulse train, all harmonics below 11 kHz at amplitude 1.

    `f0` [B, L] in Hz, `phase` [B, L - 1] in cycles at the frames' centres, `climb` [B, L - 1] in cycles from each
    centre to the next. Returns [B, L - 1, 256]: row t starts at frame t's centre. Within a row the phase is the cubic
    that meets both ends' phases and pitches.
    """
    u = torch.arange(MEL_HOP, device=f0.device, dtype=f0.dtype) / MEL_HOP
    first, last = f0[:, :-1, None], f0[:, 1:, None]
    start, end = first * (MEL_HOP / MEL_RATE), last * (MEL_HOP / MEL_RATE)
    cubic, square = start + end - 2 * climb[:, :, None], 3 * climb[:, :, None] - 2 * start - end
    cycles = phase[:, :, None] + u * (start + u * (square + u * cubic))
    half = math.pi * (cycles - torch.floor(cycles + 0.5))
    count = torch.floor(11_000.0 / (first + u * (last - first)))
    below = torch.sin(half)
    near = below.abs() < 1e-4
    safe = torch.where(near, torch.ones_like(below), below)
    return torch.where(near, count, 0.5 * torch.sin((2 * count + 1) * half) / safe - 0.5)


def framed(rows: torch.Tensor) -> torch.Tensor:
    """Windows of four rows each, one row apart: [B, L, 256] to [B, L - 3, 1024]."""
    return torch.cat([rows[:, :-3], rows[:, 1:-2], rows[:, 2:-1], rows[:, 3:]], dim=2)


def overlap_add(frames: torch.Tensor) -> torch.Tensor:
    """Adds windowed frames up: [B, L, 1024] to [B, L + 3, 256]. Hann squared at a hop of N/4 sums to 1.5."""
    total = sum(functional.pad(frames[:, :, i * 256 : (i + 1) * 256], (0, 0, i, 3 - i)) for i in range(4))
    assert isinstance(total, torch.Tensor)
    return total / 1.5


def pulse_spectra(f0: torch.Tensor, phase: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Complex spectra of the pulse train at frames 2..L-3 of the [B, L] labels: [B, L - 4, 513], peaks about 1."""
    rows = pulses(f0, phase[:, :-1], phase.diff(dim=1))
    return torch.fft.rfft(framed(rows) * window) * PULSE_SCALE


def noise_spectra(batch: int, frames: int, window: torch.Tensor, random: torch.Generator | None = None) -> torch.Tensor:
    """Complex spectra of white noise, [batch, frames, 513], mean square 1."""
    rows = torch.randn(batch, frames + 3, MEL_HOP, generator=random)
    return torch.fft.rfft(framed(rows) * window) * _NOISE_SCALE


def noise_table(window: torch.Tensor) -> torch.Tensor:
    """The shipped model's noise, at its share: complex spectra [128, 513] of a stretch that repeats without a seam."""
    rows = torch.randn(1, NOISE_FRAMES, MEL_HOP, generator=torch.Generator().manual_seed(22_050))
    rows = torch.cat([rows, rows[:, :3]], dim=1)
    return (torch.fft.rfft(framed(rows) * window) * (NOISE_SHARE * _NOISE_SCALE))[0]


def harmonic_spectra(filters: Filters, source: torch.Tensor) -> torch.Tensor:
    return source * torch.polar(filters.harmonic, filters.turn)


def to_wave(spectra: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """[B, L, 513] to [B, (L + 3) * 256]; the first and last 768 samples lack some of their windows."""
    return overlap_add(torch.fft.irfft(spectra, N_FFT) * window).flatten(1)


def refine(net: VocoderNet, spectra: torch.Tensor, mel: torch.Tensor, steps: int) -> torch.Tensor:
    """Brings frames' spectra into agreement with each other and with the mel: complex [B, L, 513] to the same.

    Each step adds the frames up, analyses the sum again, and scales every bin by what its mel bands lack: Griffin and
    Lim's iteration (1984), but towards the mel itself, which is known, and not towards a magnitude that is guessed
    from it; momentum as in Perraudin and others (2013). The harmonics inside a band keep their shape.
    """
    before = None
    for _ in range(steps):
        wave = to_wave(spectra, net.window)
        now = torch.fft.rfft(framed(wave.unflatten(1, (-1, MEL_HOP))) * net.window)
        ahead = now if before is None else now + MOMENTUM * (now - before)
        before = now
        magnitude = (ahead.real.square() + ahead.imag.square() + 1e-9).sqrt()
        spectra = ahead * net.correction(magnitude, mel)
    return spectra
