"""Phones to mel as a PyTorch module: durations, pitch and loudness are predicted, then drawn into a mel.

FastSpeech 2's plan (arXiv 2006.04558) with two changes that a small model on a small machine gains from. The decoder
runs on pairs of frames. And harmonics are not left to it: a table holds the log-mel of a pulse train at every pitch,
the decoder draws an envelope and says how strongly the table's row shows in each band. A mood that moves the pitch
thus moves the harmonics exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.mel import LOG_FLOOR, log_mel
from models.onnx import read_manifest
from models.pronounce import PHONES
from models.training import shipped
from models.training.acoustic_data import VOICES
from models.training.corpus import TEACHERS
from models.utterance import MEL_BANDS, MEL_RATE

COMB_LOW, COMB_HIGH, COMB_ROWS = 55.0, 520.0, 240
"""Hz of the first and last row of the table of pulse trains, and how many rows, evenly in log pitch."""
MAX_FRAMES = 400
"""The most frames one phone may last."""
VOICE_SIZE = 256
"""Numbers in a voice's embedding."""


@dataclass(frozen=True)
class Mood:
    """What a mood does to the neutral reading."""

    name: str
    pitch: float
    """Factor on the mean fundamental."""
    span: float
    """Factor on the excursions of log pitch around the voice's mean."""
    rate: float
    """Factor on the speaking rate."""
    decibel: float
    tilt: float
    """Decibels added at the top band and taken at the lowest: strained voices are brighter."""

    @property
    def vector(self) -> list[float]:
        """What the graph takes: log pitch, span, rate, decibels of level, decibels of tilt."""
        return [round(float(np.log(self.pitch)), 6), self.span, self.rate, self.decibel, self.tilt]


MOODS = (
    Mood("neutral", 1.0, 1.0, 1.0, 0.0, 0.0),
    Mood("cheerful", 1.16, 1.5, 1.08, 2.0, 1.0),
    Mood("sad", 0.9, 0.6, 0.84, -4.0, -2.0),
    Mood("angry", 1.1, 1.6, 1.12, 4.0, 2.0),
    Mood("calm", 0.96, 0.8, 0.92, -2.0, -1.0),
)
"""Directions after Scherer 2003 (Speech Communication 40) and Burkhardt and Sendlmeier 2000;
amounts are ours, set so that the measured order is clear and the voice stays itself."""


@lru_cache(maxsize=1)
def comb_table() -> Tensor:
    """float32 [240, 80]: log-mel of pulse trains, each row less its own smooth course, clamped to -3..2.5."""
    time = (np.arange(MEL_RATE // 2) + 0.5) / MEL_RATE
    rows = []
    for pitch in np.geomspace(COMB_LOW, COMB_HIGH, COMB_ROWS):
        # The sum of cosines up to 8 kHz in closed form, Dirichlet's kernel.
        count, phase = int(8000 / pitch), np.pi * pitch * time
        wave = (np.sin((2 * count + 1) * phase) / (2 * np.sin(phase) + 1e-9) - 0.5) / count
        row = np.log(np.exp(2 * log_mel(wave.astype(np.float32))[:, 4:-4]).mean(axis=1)) / 2
        smooth = np.convolve(np.pad(row, 8, mode="edge"), np.hanning(19)[1:-1] / np.hanning(19).sum(), mode="valid")
        rows.append(np.clip(row - smooth, -3.0, 2.5))
    return torch.tensor(np.array(rows), dtype=torch.float32)


class Block(nn.Module):
    """[B, T, D] -> [B, T, D]: a residual convolution over five steps."""

    def __init__(self, width: int, dilation: int = 1, dropout: float = 0.05) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        step = (self.norm(hidden) * mask).transpose(1, 2)
        return hidden + self.dropout(self.out(torch.relu(self.conv(step).transpose(1, 2))))


class Stack(nn.Module):
    """Blocks in a row."""

    def __init__(self, width: int, dilations: tuple[int, ...], dropout: float = 0.05) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, dilation, dropout) for dilation in dilations)
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden, mask)
        return self.norm(hidden)


class Acoustic(nn.Module):
    """N phones, T frames (even), H = T / 2 pairs of frames. Masks are 1.0 where something is, [B, ., 1]."""

    comb: Tensor
    voice_pitch: Tensor
    energy_scale: Tensor

    def __init__(self, voices: int, width: int = 192, decoder: int = 224, prosody: int = 128) -> None:
        super().__init__()
        self.phone = nn.Embedding(len(PHONES), width)
        self.start = nn.Embedding(2, width)
        self.voice = nn.Embedding(voices, width)
        self.encoder = Stack(width, (1, 2, 4, 1), 0.1)
        self.duration_in = nn.Linear(width, prosody)
        self.duration = Stack(prosody, (1, 2), 0.2)
        self.duration_out = nn.Linear(prosody, 1)
        self.prosody_in = nn.Linear(2 * (width + 4), prosody)
        self.prosody = Stack(prosody, (1, 2, 4), 0.2)
        self.prosody_out = nn.Linear(prosody, 4)
        self.decoder_in = nn.Linear(2 * (width + 4 + MEL_BANDS + 2), decoder)
        self.decoder = Stack(decoder, (1, 1, 2, 1, 1, 1), 0.0)
        self.decoder_out = nn.Linear(decoder, 4 * MEL_BANDS)
        self.register_buffer("comb", comb_table().clone())
        self.register_buffer("voice_pitch", torch.full((voices,), float(np.log(130.0))))
        self.register_buffer("energy_scale", torch.tensor([0.0, 1.0]))

    def encode(self, symbols: Tensor, voice: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """symbols [B, N], voice [B, W] -> phones in context [B, N, W], log(1 + frames) [B, N]."""
        starts = (symbols >= len(PHONES)).long()
        hidden = self.phone(symbols - starts * len(PHONES)) + self.start(starts)
        hidden = self.encoder(hidden + voice.unsqueeze(1), mask)
        lasting = self.duration(self.duration_in(hidden), mask)
        return hidden, self.duration_out(lasting).squeeze(-1)

    def stretch(self, hidden: Tensor, frames: Tensor, count: Tensor) -> Tensor:
        """Phones laid out in time: [B, N, W] by frames [B, N] -> [B, T, W + 4], T = `count`.

        The four are the place within the phone: from its start, to its end, the share gone by, and its length.
        """
        ends = torch.cumsum(frames, dim=1)
        time = torch.arange(count)  # type: ignore[call-overload]  # a tensor stays a variable in the exported graph
        at = (time[None, :, None] >= ends[:, None, :]).long().sum(dim=2)
        last = torch.ones_like(frames).sum(dim=1, keepdim=True) - 1  # not from the shape: that would be traced as fixed
        at = torch.minimum(at, last)
        spread = torch.gather(hidden, 1, at.unsqueeze(-1).expand(-1, -1, hidden.shape[2]))
        length = torch.gather(frames, 1, at).float()
        before = time.float() + 0.5 - torch.gather(ends - frames, 1, at).float()
        share = torch.clamp(before / length.clamp(min=1.0), 0.0, 1.0)
        after = (length - before).clamp(min=0.0)
        place = torch.stack([torch.log1p(before.clamp(min=0.0)), torch.log1p(after), share, torch.log1p(length)], dim=2)
        return torch.cat([spread, place], dim=2)

    def predict_prosody(self, spread: Tensor, centre: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, W + 4] -> log pitch [B, T] and energy in units of its deviation [B, T]; mask [B, H, 1].

        centre [B]: the voice's mean log pitch.
        """
        pairs = spread.reshape(spread.shape[0], -1, 2 * spread.shape[2])
        out = self.prosody_out(self.prosody(self.prosody_in(pairs), mask))
        pitch, energy = out[..., :2].flatten(1), out[..., 2:].flatten(1)
        return centre.unsqueeze(1) + pitch, energy

    def comb_of(self, pitch: Tensor) -> Tensor:
        """Rows of the table between which this log pitch [B, T] lies, blended: [B, T, 80]."""
        low, high = float(np.log(COMB_LOW)), float(np.log(COMB_HIGH))
        place = ((pitch - low) * ((COMB_ROWS - 1) / (high - low))).clamp(0.0, COMB_ROWS - 1.001)
        row = place.floor()
        part = (place - row).unsqueeze(-1)
        return self.comb[row.long()] * (1 - part) + self.comb[row.long() + 1] * part

    def decode(self, spread: Tensor, pitch: Tensor, energy: Tensor, mask: Tensor) -> Tensor:
        """-> mel [B, T, 80]."""
        comb = self.comb_of(pitch)
        seen = torch.cat([spread, comb, (pitch - 5.0).unsqueeze(-1), energy.unsqueeze(-1)], dim=2)
        hidden = self.decoder(self.decoder_in(seen.reshape(seen.shape[0], -1, 2 * seen.shape[2])), mask)
        out = self.decoder_out(hidden).float().reshape(seen.shape[0], -1, 2 * MEL_BANDS)
        return out[..., :MEL_BANDS] - 5.0 + out[..., MEL_BANDS:] * comb


def model_of(weights: Mapping[str, Tensor]) -> Acoustic:
    """The model that these weights are of, its sizes read off them; ready to be used, not trained."""
    width, voices = weights["phone.weight"].shape[1], weights["voice.weight"].shape[0]
    model = Acoustic(voices, width, weights["decoder_in.weight"].shape[0], weights["prosody_in.weight"].shape[0])
    model.load_state_dict(weights)
    return model.eval()


def begin_as(model: Acoustic, folder: Path) -> None:
    """Gives `model`, whose voices are `VOICES`, the weights of a shipped one of the same sizes.

    A voice that the shipped one lacks begins as its speaker's, or as the last; mean pitches and the scale of the
    energy stay as they are. Raises `ValueError` where the sizes differ.
    """
    known = [str(name) for name in read_manifest(folder)["options"]["voices"]]
    speakers = [teacher.speaker.replace("kal16", "kal") for teacher in TEACHERS.values()]
    begun = [
        known.index(next(name for name in (own, speaker, known[-1]) if name in known))
        for own, speaker in zip(VOICES, speakers, strict=True)
    ]
    own_scales = {"voice_pitch": model.voice_pitch.clone(), "energy_scale": model.energy_scale.clone()}
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name not in own_scales}
    wanted["voice.weight"] = wanted["voice.weight"][:1].expand(len(known), -1)
    in_order = [f"encoder.blocks.{n}.out.weight" for n in range(len(model.encoder.blocks))]
    for name, stack in (("duration", model.duration), ("prosody", model.prosody), ("decoder", model.decoder)):
        blocks = [f"{name}.blocks.{n}.out.weight" for n in range(len(stack.blocks))]
        in_order += [f"{name}_in.weight", *blocks, f"{name}_out.weight"]
    found = shipped.weights(folder / "model.onnx", wanted, in_order, "model.")
    found["voice.weight"] = found["voice.weight"][begun]
    model.load_state_dict({**found, **own_scales})


class Speaking(nn.Module):
    """The graph that ships: one utterance in, its mel out, with voice, mood and speed.

    symbols int64 [1, N], voice float32 [1, 256], emotion float32 [1, 5] (`Mood.vector`), speed float32 [1] -> mel
    float32 [1, 80, T], frames int64 [1, N] (frames a phone; T is their sum).

    `centre` [256] and `sharing` [256, V] turn an embedding into shares of the trained voices, see
    `acoustic_export.sharing`. Shares are held within 0 to 1 and sum to one, so any embedding gives a voice between
    the trained ones.
    """

    centre: Tensor
    sharing: Tensor
    tilt: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, model: Acoustic, centre: Tensor, sharing: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("centre", centre)
        self.register_buffer("sharing", sharing)
        self.register_buffer("tilt", torch.linspace(-1.0, 1.0, MEL_BANDS))
        self.register_buffer("lowest", torch.tensor([-0.7, 0.0, 0.4, -12.0, -6.0]))
        self.register_buffer("highest", torch.tensor([0.7, 3.0, 2.5, 12.0, 6.0]))

    def shares(self, voice: Tensor) -> Tensor:
        """[1, 256] -> [1, V]. Before clamping they sum to one, so what is left after it is at least one."""
        found = ((voice - self.centre) @ self.sharing + 1.0 / self.sharing.shape[1]).clamp(0.0, 1.0)
        return found / found.sum(dim=1, keepdim=True)

    def forward(self, symbols: Tensor, voice: Tensor, emotion: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
        model, neper = self.model, float(np.log(10.0) / 20.0)
        shift, span, rate, gain, tilt = torch.minimum(torch.maximum(emotion, self.lowest), self.highest).unbind(dim=1)
        shares = self.shares(voice)
        centre = shares @ model.voice_pitch
        hidden, lasting = model.encode(
            symbols, shares @ model.voice.weight, torch.ones_like(symbols).float().unsqueeze(-1)
        )
        exact = (torch.exp(lasting) - 1.0).clamp(0.6, float(MAX_FRAMES)) / (rate * speed).unsqueeze(1)
        # Not quite half: the shortest phones would fall on ties, which runtimes round either way.
        ends = torch.floor(torch.cumsum(exact, dim=1) + 0.493).long()
        frames = ends - functional.pad(ends[:, :-1], (1, 0))
        total = ends[0, -1]
        spread = model.stretch(hidden, frames, total + total % 2)
        mask = torch.ones_like(spread[:, ::2, :1])
        pitch, energy = model.predict_prosody(spread, centre, mask)
        pitch = centre.unsqueeze(1) + (pitch - centre.unsqueeze(1)) * span.unsqueeze(1) + shift.unsqueeze(1)
        mel = model.decode(spread, pitch, energy, mask)[:, :total]
        mel = mel + neper * (gain.reshape(1, 1, 1) + tilt.reshape(1, 1, 1) * self.tilt)
        return mel.clamp(min=float(np.log(LOG_FLOOR))).transpose(1, 2), frames
