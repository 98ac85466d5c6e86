"""What the vocoder is trained on: a spectral energy distance, the harmonics' phases, and the pitch.

The energy distance (Gritsenko and others, 2020) asks two waves made of the same mel with different noise to lie as far
from each other as from the recording. It is a proper score, so noise comes out as noise and not as its average, which
plain spectral losses give; and it needs no adversary, which this machine's minutes would not train.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from models.mel import LOG_FLOOR, N_FFT, mel_filterbank
from models.training.vocoder_data import Crops
from models.training.vocoder_net import (
    Filters,
    VocoderNet,
    framed,
    harmonic_spectra,
    noise_spectra,
    pulse_spectra,
    refine,
    to_wave,
)
from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE

SCALES = ((2048, 512), (1024, 256), (512, 128), (256, 128))
"""Windows and hops of the distance, in samples."""
_FLOOR = 1e-4
_MARGIN = 14
"""Label frames at each end of a crop that only give context."""
_RIM = 1536
"""Samples at each end of what is synthesized that lack windows, or were refined by frames that do."""


class Contract:
    """The shared mel, on batches."""

    def __init__(self) -> None:
        bank = mel_filterbank(MEL_RATE, N_FFT, MEL_BANDS, 0.0, 8000.0)
        self._bank = torch.from_numpy(np.ascontiguousarray(bank.T))
        self.window = torch.hann_window(N_FFT)

    def spectra(self, wave: torch.Tensor) -> torch.Tensor:
        """Complex [B, L, 513] of a wave [B, L * 256 + 768]."""
        return torch.fft.rfft(framed(wave.unflatten(1, (-1, MEL_HOP))) * self.window)

    def mel(self, spectra: torch.Tensor) -> torch.Tensor:
        """[B, L, 513] to [B, 80, L]."""
        magnitude = (spectra.real.square() + spectra.imag.square() + 1e-9).sqrt()
        return (magnitude @ self._bank).clamp_min(LOG_FLOOR).log().transpose(1, 2)


def roughen(mel: torch.Tensor, share: float) -> torch.Tensor:
    """Smooths and disturbs a share of the mels a little, as an acoustic model's would be: [B, 80, T] to the same."""
    kernel = torch.tensor([0.25, 0.5, 0.25]).view(1, 1, 3, 1)
    smooth = functional.conv2d(functional.pad(mel[:, None], (0, 0, 1, 1), mode="replicate"), kernel)[:, 0]
    smooth = smooth + 0.1 * torch.randn_like(mel)
    chosen = (torch.rand(mel.shape[0], 1, 1) < share).to(mel.dtype)
    return mel + chosen * (smooth - mel)


def _magnitudes(waves: torch.Tensor, size: int, hop: int) -> torch.Tensor:
    spectrum = torch.stft(waves, size, hop, window=torch.hann_window(size), center=False, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt() / size**0.5


def _apart(a: torch.Tensor, b: torch.Tensor, loudness: torch.Tensor) -> torch.Tensor:
    """Distance of magnitudes [B, F, T]: L1 in units of `loudness` [B], plus per frame the RMS in the log."""
    linear = ((a - b).abs().mean((1, 2)) / loudness).mean()
    ratio = (a + _FLOOR).log() - (b + _FLOOR).log()
    return linear + (ratio.square().mean(1) + 1e-6).sqrt().mean()


def energy_distance(target: torch.Tensor, one: torch.Tensor, two: torch.Tensor, repel: float) -> torch.Tensor:
    """Waves [B, n]: the mean distance of `one` and `two` to `target`, less `repel` halves of theirs to each other."""
    total = torch.zeros(())
    batch = target.shape[0]
    for size, hop in SCALES:
        with torch.no_grad():
            real = _magnitudes(target, size, hop)
            loudness = real.mean((1, 2)) + 1e-4
        first, second = _magnitudes(torch.cat([one, two]), size, hop).split(batch)
        pull = _apart(real, first, loudness) + _apart(real, second, loudness)
        total = total + 0.5 * pull - 0.5 * repel * _apart(first, second, loudness)
    return total / len(SCALES)


def phase_loss(harmonic: torch.Tensor, target: torch.Tensor, voiced: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos of the phase error over voiced frames, bins weighted by the root of the recorded magnitude."""
    product = harmonic * target.conj()
    cosine = product.real / (product.abs() + 1e-8)
    weight = target.abs().sqrt() * voiced[:, :, None]
    weight = weight / (weight.sum(2, keepdim=True) + 1e-6)
    return (weight * (1 - cosine)).sum() / voiced.sum().clamp_min(1.0)


def pitch_loss(logits: torch.Tensor, f0: torch.Tensor, voiced: torch.Tensor, hz: torch.Tensor) -> torch.Tensor:
    """Cross-entropy against a bump around the labelled pitch; unvoiced frames count a little, and pitch glides on."""
    step = torch.log(hz[1] / hz[0])
    away = (hz.log() - f0.clamp(hz[0].item(), hz[-1].item()).log()[:, :, None]) / step
    goal = torch.softmax(-0.5 * away.square(), dim=2)
    each = -(goal * logits.log_softmax(2)).sum(2)
    weight = voiced + 0.1 * (1 - voiced)
    return (each * weight).sum() / weight.sum()


@dataclass(frozen=True, slots=True)
class Losses:
    """Unweighted; `cents` is the median pitch error over voiced frames."""

    distance: torch.Tensor
    phase: torch.Tensor
    pitch: torch.Tensor
    cents: float

    @property
    def total(self) -> torch.Tensor:
        return self.distance + 0.3 * self.phase + 0.3 * self.pitch

    def values(self) -> dict[str, float]:
        """For the log."""
        parts = {"distance": self.distance, "phase": self.phase, "pitch": self.pitch}
        return {name: float(part.detach()) for name, part in parts.items()} | {"cents": self.cents}


def losses(net: VocoderNet, crops: Crops, contract: Contract, repel: float, rough: float, refinements: int) -> Losses:
    """One batch through the net, the source standing on the recorded fundamental's phase."""
    with torch.no_grad():
        recorded = contract.spectra(crops.wave)
        mel = roughen(contract.mel(recorded), rough)
        frames = recorded.shape[1]
        source = pulse_spectra(crops.f0, crops.phase, contract.window)[:, _MARGIN - 2 : frames - _MARGIN - 2]
        inner = slice(_MARGIN, frames - _MARGIN)
        target = crops.wave[:, _MARGIN * MEL_HOP + _RIM : (frames - _MARGIN + 3) * MEL_HOP - _RIM]
        batch, length = source.shape[:2]
        noises = noise_spectra(2 * batch, length, contract.window)
    with torch.autocast("cpu", torch.bfloat16):
        filters = net.filters(mel)
        logits = net.pitch_logits(mel)
    filters = Filters(*(part[:, inner].float() for part in (filters.harmonic, filters.noise, filters.turn)))
    harmonic = harmonic_spectra(filters, source)
    spectra = harmonic.repeat(2, 1, 1) + noises * filters.noise.repeat(2, 1, 1)
    spectra = refine(net, spectra, mel[:, :, inner].repeat(2, 1, 1), refinements)
    one, two = to_wave(spectra, contract.window)[:, _RIM:-_RIM].split(batch)
    voiced = crops.voiced
    with torch.no_grad():
        error = (net.pitch(logits) / crops.f0).log2().abs()[voiced > 0]
        cents = 1200 * float(error.median()) if len(error) else 0.0
    return Losses(
        energy_distance(target, one, two, repel),
        phase_loss(harmonic, recorded[:, inner], voiced[:, inner]),
        pitch_loss(logits, crops.f0, voiced, net.pitch_hz),
        cents,
    )
