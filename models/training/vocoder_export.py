"""Writes the vocoder as one ONNX graph of plain operators, and the model folder around it.

The arithmetic is that of `vocoder_net`, in real numbers: ONNX has no complex ones.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from models.mel import N_FFT
from models.training.vocoder_dft import Transform
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
_REFINED = 4
_HALF_FROM = 4096
"""Weights of at least this many values are stored in half precision."""


def context_of(net: VocoderNet) -> int:
    """Frames on each side of a stretch of mel that can change the wave under it.

    The networks and the windows reach exactly so far. Each refinement reaches `EDGE + 1` frames further in principle;
    in fact what passes from frame to frame fades so fast that `_REFINED` frames are enough for all of them (on 32 s
    of speech: 2e-6 of full scale lost; with none, 4e-5).
    """
    size = net.size
    networks = max(3 + 3 * size.blocks, 4 + 3 * size.pitch_blocks + SOURCE_EDGE)
    return networks + EDGE + 1 + _REFINED


class Graph(nn.Module):
    """What is exported.

    In: `mel` float32 [B, 80, T]; `phase` float64 [B], the source's phase in cycles at frame `anchor` (int64 [1]) of
    this mel; `position` int64 [1], how many frames of the utterance lie before this mel. Whole utterances pass zeros.
    Out: `wave` float32 [B, T * 256] and `phases` float64 [B, T], the source's phase at each frame, within 0..1.
    """

    noise_real: torch.Tensor
    noise_imaginary: torch.Tensor
    doubled: torch.Tensor

    def __init__(self, net: VocoderNet, refinements: int = REFINEMENTS) -> None:
        super().__init__()
        self.net = net
        self.transform = Transform()
        self.refinements = refinements
        table = noise_table(net.window)
        self.register_buffer("noise_real", table.real.contiguous())
        self.register_buffer("noise_imaginary", table.imag.contiguous())
        doubled = torch.full((BINS,), 2.0)
        doubled[0] = doubled[-1] = 1.0
        self.register_buffer("doubled", doubled)

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
        real, imaginary = self.transform(framed(rows) * (self.net.window * PULSE_SCALE))
        turn_real, turn_imaginary = filters.harmonic * filters.turn.cos(), filters.harmonic * filters.turn.sin()
        count = torch.arange(mel.shape[2], device=mel.device)
        at = torch.remainder(count + position - EDGE + NOISE_FRAMES, NOISE_FRAMES)
        wave = self._wave(
            real * turn_real - imaginary * turn_imaginary + filters.noise * self.noise_real[at],
            real * turn_imaginary + imaginary * turn_real + filters.noise * self.noise_imaginary[at],
        )
        wave = self._refine(wave, mel)
        # The first mel frame's window starts 384 samples before the wave, and EDGE frames lie before that.
        skipped = EDGE * MEL_HOP + (N_FFT - MEL_HOP) // 2
        return wave.flatten(1)[:, skipped:-skipped], phases[:, EDGE + SOURCE_EDGE : -(EDGE + SOURCE_EDGE)]

    def _wave(self, real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
        """As `vocoder_net.to_wave`, in rows: [B, L, 513] twice to [B, L + 3, 256]."""
        frames = self.transform.inverse(real * self.doubled, imaginary * self.doubled)
        return overlap_add(frames * self.net.window)

    def _refine(self, wave: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
        """As `vocoder_net.refine`, on rows."""
        before: tuple[torch.Tensor, torch.Tensor] | None = None
        for _ in range(self.refinements):
            real, imaginary = self.transform(framed(wave) * self.net.window)
            last, before = before, (real, imaginary)
            if last is not None:
                real, imaginary = real + MOMENTUM * (real - last[0]), imaginary + MOMENTUM * (imaginary - last[1])
            gain = self.net.correction(torch.sqrt(real * real + imaginary * imaginary + 1e-9), mel)
            wave = self._wave(real * gain, imaginary * gain)
        return wave


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
    model = simplified(path)
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


def simplified(path: Path) -> onnx.ModelProto:
    """The graph after onnxruntime's provider-independent rewrites: a third of the nodes, and so a quicker start."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    unused = [opset for opset in model.opset_import if opset.domain]
    for opset in unused:
        model.opset_import.remove(opset)
    return model


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
