"""The recognizer's network: a strided front, then residual blocks of dense and dilated 1-D convolutions, then CTC.

Dense convolutions rather than depthwise ones: on CPUs with matrix units they are the cheaper way to the same accuracy
(measured in this training), and the receptive field stays bounded, which windows and streams rely on.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.hearing import BANDS, STRIDE
from models.training.export import halve, hearing_graph, write_manifest
from models.training.recognizer_edges import silent_edges
from models.training.shipped import weights
from models.trigrams import Trigrams

LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
WIDTH = 256
KERNEL = 7
SEARCH = {"beam": 64, "word_weight": 1.0, "word_bonus": 2.5, "least_confidence": 0.5, "lead": 0.12}
"""Width of the search, weight of the word counts, bonus per word: as measured best on dev sentences. Below
least_confidence there was noise, and none of the clean dev sentences. lead: by how much words were late, in median."""
DILATIONS = (1, 1, 1, 1, 2, 1, 2, 1, 2, 1)


class Block(nn.Module):
    """x + W silu(conv(norm x)), over [B, T, C] (channels last, so that nothing is copied between the layers)."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv2d(width, width, (1, KERNEL), padding=(0, KERNEL // 2 * dilation), dilation=(1, dilation))
        self.mix = nn.Linear(width, width)
        nn.init.normal_(self.mix.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # autocast would widen it to float32 and back
            weight, bias = self.norm.weight.to(x.dtype), self.norm.bias.to(x.dtype)
            y = functional.layer_norm(x, self.norm.normalized_shape, weight, bias)
        return x + self.mix(functional.silu(over_time(self.conv, y)))


def over_time(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A (1, k) convolution over [B, T, C]; as 2-D because its channels-last form is the fast one on CPUs."""
    return conv(x.unsqueeze(1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).squeeze(1)


class Network(nn.Module):
    """Features [B, T, 80] to log-probabilities [B, ceil(T / 4), 29]."""

    def __init__(self, width: int = WIDTH, dilations: tuple[int, ...] = DILATIONS) -> None:
        super().__init__()
        self.front = nn.Conv2d(BANDS, width, (1, 5), stride=(1, 2), padding=(0, 2))
        self.second = nn.Conv2d(width, width, (1, 5), stride=(1, 2), padding=(0, 2))
        self.blocks = nn.Sequential(*[Block(width, dilation) for dilation in dilations])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(LETTERS) + 1)

    def logits(self, x: Tensor) -> Tensor:
        y = functional.silu(over_time(self.second, functional.silu(over_time(self.front, x))))
        return self.head(self.norm(self.blocks(y)))

    def forward(self, x: Tensor) -> Tensor:
        return functional.log_softmax(self.logits(x).float(), dim=-1)


def shipped_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a model.onnx that `export` wrote."""
    order = []
    for block in range(len(DILATIONS)):
        order += [f"blocks.{block}.norm.weight", f"blocks.{block}.norm.bias", f"blocks.{block}.mix.weight"]
    return weights(path, Network().state_dict(), [*order, "head.weight"])


def context_frames(dilations: tuple[int, ...] = DILATIONS) -> int:
    """Feature frames on each side that a step depends on, rounded up to whole steps."""
    steps = sum(KERNEL // 2 * dilation for dilation in dilations) + 2
    return STRIDE * steps


def export(network: Network, folder: Path, manifest: dict[str, str], words: Trigrams) -> str:
    """Writes model.onnx (weights stored in half precision, computed in single), words.npz and model.toml.

    Returns the sha256 of model.onnx.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = silent_edges(
        halve(hearing_graph(network, torch.zeros(2, 400, BANDS), "log_probs", {0: "batch", 1: "steps"}))
    )
    onnx.save(model, folder / "model.onnx")
    words.save(folder / "words.npz")
    options = {
        "letters": LETTERS,
        "bands": BANDS,
        "stride": STRIDE,
        "context": context_frames(),
        "edges": "silence",
        "words_sha256": hashlib.sha256((folder / "words.npz").read_bytes()).hexdigest(),
        **SEARCH,
    }
    return write_manifest(folder, **manifest, options=options)
