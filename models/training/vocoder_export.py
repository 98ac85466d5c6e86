"""Writes the vocoder as one ONNX graph of plain operators, and the model folder around it.

onnxruntime's own DFT operators are missing on CUDA and slow elsewhere, so both transforms are matrix products; their
matrices are worked out from a cosine table inside the graph, which the runtime folds when it loads the file.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from models.mel import N_FFT
from models.training.vocoder_net import (
    BINS,
    EDGE,
    MOMENTUM,
    NOISE_FRAMES,
    PULSE_SCALE,
    REFINEMENTS,
    SOURCE_EDGE,
    VocoderNet,
    framed,
    noise_table,
    overlap_add,
    pulses,
)
from models.utterance import MEL_HOP, MEL_RATE

OPSET = 18
_HALF_FROM = 4096
"""Weights of at least this many values are stored in half precision."""


def context_of(net: VocoderNet) -> int:
    """Frames on each side of a stretch of mel that can change the wave under it."""
    size = net.size
    around = EDGE + 3 * REFINEMENTS
    return max(3 + 3 * size.blocks + around, 4 + 3 * size.pitch_blocks + around + SOURCE_EDGE) + 1


class Graph(nn.Module):
    """What is exported.

    In: `mel` float32 [B, 80, T]; `phase` float64 [B], the source's phase in cycles at frame `anchor` (int64 [1]) of
    this mel; `position` int64 [1], how many frames of the utterance lie before this mel. Whole utterances pass zeros.
    Out: `wave` float32 [B, T * 256] and `phases` float64 [B, T], the source's phase at each frame, within 0..1.
    """

    noise_real: torch.Tensor
    noise_imaginary: torch.Tensor
    steps: torch.Tensor
    cosines: torch.Tensor

    def __init__(self, net: VocoderNet) -> None:
        super().__init__()
        self.net = net
        table = noise_table(net.window)
        self.register_buffer("noise_real", table.real.contiguous())
        self.register_buffer("noise_imaginary", table.imag.contiguous())
        # Buffers, or the exporter would work the matrices out itself and write 8 MB of them into the file.
        self.register_buffer("steps", torch.arange(N_FFT))
        self.register_buffer("cosines", torch.cos(torch.arange(N_FFT).double() * (2 * math.pi / N_FFT)).float())

    def forward(
        self, mel: torch.Tensor, phase: torch.Tensor, anchor: torch.Tensor, position: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mel = torch.cat([mel[:, :, :1]] * EDGE + [mel] + [mel[:, :, -1:]] * EDGE, dim=2)
        filters = self.net.filters(mel)
        f0 = _median(self.net.pitch(self.net.pitch_logits(mel)))
        f0 = torch.cat([f0[:, :1]] * SOURCE_EDGE + [f0] + [f0[:, -1:]] * SOURCE_EDGE, dim=1)
        climb = (f0[:, :-1] + f0[:, 1:]) * (0.5 * MEL_HOP / MEL_RATE)
        passed = functional.pad(torch.cumsum(climb.double(), dim=1), (1, 0))
        phases = passed - passed.index_select(1, anchor + EDGE + SOURCE_EDGE) + phase[:, None]
        phases = phases - torch.floor(phases)
        rows = pulses(f0, phases[:, :-1].float(), climb)
        cosine, sine, window = self._turns()
        frames = framed(rows) * (window * PULSE_SCALE)
        real, imaginary = frames @ cosine.t(), -(frames @ sine.t())
        turn_cosine, turn_sine = filters.harmonic * torch.cos(filters.turn), filters.harmonic * torch.sin(filters.turn)
        count = torch.arange(mel.shape[2], device=mel.device)
        at = torch.remainder(count + position - EDGE + NOISE_FRAMES, NOISE_FRAMES)
        doubled = self._doubled()
        out_real = real * turn_cosine - imaginary * turn_sine + filters.noise * self.noise_real[at]
        out_imaginary = real * turn_sine + imaginary * turn_cosine + filters.noise * self.noise_imaginary[at]
        wave = overlap_add(((out_real * doubled) @ cosine - (out_imaginary * doubled) @ sine) * (window / N_FFT))
        before: tuple[torch.Tensor, torch.Tensor] | None = None
        for _ in range(REFINEMENTS):
            frames = framed(wave.reshape(wave.shape[0], -1, MEL_HOP)) * window
            real, imaginary = frames @ cosine.t(), -(frames @ sine.t())
            last, before = before, (real, imaginary)
            if last is not None:
                real, imaginary = real + MOMENTUM * (real - last[0]), imaginary + MOMENTUM * (imaginary - last[1])
            magnitude = torch.sqrt(real * real + imaginary * imaginary + 1e-9)
            gain = self.net.correction(magnitude, mel) * doubled
            wave = overlap_add(((real * gain) @ cosine - (imaginary * gain) @ sine) * (window / N_FFT))
        # The first mel frame's window starts 384 samples before the wave, and EDGE frames lie before that.
        skipped = EDGE * MEL_HOP + (N_FFT - MEL_HOP) // 2
        return wave[:, skipped:-skipped], phases[:, EDGE + SOURCE_EDGE : -(EDGE + SOURCE_EDGE)]

    def _turns(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cosines and sines [513, 1024] of the transform, and the Hann window [1024], out of one table."""
        turn = torch.remainder(self.steps[:BINS, None] * self.steps[None, :], N_FFT)
        quarter_back = torch.remainder(turn + 3 * N_FFT // 4, N_FFT)
        return self.cosines[turn], self.cosines[quarter_back], 0.5 - 0.5 * self.cosines

    def _doubled(self) -> torch.Tensor:
        """How often each bin of a real signal's half spectrum counts: 2, but for the first and last."""
        k = self.steps[:BINS]
        return 2.0 - (k == 0).float() - (k == BINS - 1).float()


def _median(f0: torch.Tensor) -> torch.Tensor:
    """Of three neighbours: a single frame's octave error does not reach the source. [B, T] to [B, T]."""
    before = torch.cat([f0[:, :1], f0[:, :-1]], dim=1)
    after = torch.cat([f0[:, 1:], f0[:, -1:]], dim=1)
    low, high = torch.minimum(before, after), torch.maximum(before, after)
    return torch.maximum(low, torch.minimum(high, f0))


def export(net: VocoderNet, folder: Path, name: str, licence: str) -> Path:
    """Writes model.onnx and model.toml into `folder`. Returns the graph's path."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = Graph(net.eval())
    example = (torch.zeros(1, 80, 20), torch.zeros(1, dtype=torch.float64), *(torch.zeros(1, dtype=torch.int64),) * 2)
    path = folder / "model.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            example,
            str(path),
            input_names=["mel", "phase", "anchor", "position"],
            output_names=["wave", "phases"],
            dynamic_axes={
                "mel": {0: "batch", 2: "frames"},
                "phase": {0: "batch"},
                "wave": {0: "batch", 1: "samples"},
                "phases": {0: "batch", 1: "frames"},
            },
            opset_version=OPSET,
            do_constant_folding=False,
            dynamo=False,
        )
    model = onnx.load(path)
    halve(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "model.toml").write_text(
        f'name = "{name}"\nfamily = "vocoder"\nlicence = "{licence}"\nsha256 = "{digest}"\n\n'
        f"[options]\n# Frames on each side that can change the wave under a stretch of mel.\n"
        f"context = {context_of(net)}\n",
        "utf-8",
    )
    return path


def halve(model: onnx.ModelProto) -> None:
    """Stores large float weights in half precision, cast back where they are used; the runtime folds the casts."""
    for tensor in list(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < _HALF_FROM or np.abs(values).max() > 6e4:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        cast = helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
