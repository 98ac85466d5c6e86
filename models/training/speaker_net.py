"""The voice encoder's network and its loss.

A strided front, residual blocks of dilated convolutions whose outputs are all pooled together (as ECAPA-TDNN does,
arXiv 2005.07143), and means and deviations weighted by attention. The loss is the sum over prefixes of additive
angular margins (M-Vec, arXiv 2409.15782).
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.hearing import BANDS
from models.speaker import DIMENSIONS
from models.training.export import halve, hearing_graph, write_manifest

WIDTH = 192


class Block(nn.Module):
    """x + squeeze-and-excited mix(relu(dilated conv x)), over [B, C, 1, T]."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, (1, 3), padding=(0, dilation), dilation=(1, dilation))
        self.norm = nn.BatchNorm2d(width)
        self.mix = nn.Conv2d(width, width, 1)
        self.mixed = nn.BatchNorm2d(width)
        self.squeeze = nn.Linear(width, width // 4)
        self.excite = nn.Linear(width // 4, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mixed(self.mix(functional.relu(self.norm(self.conv(x)))))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(y.mean(dim=(2, 3))))))
        return functional.relu(x + y * gate[:, :, None, None])


class Network(nn.Module):
    """Features [B, T, 80] to embeddings [B, 256], not yet of unit norm. A step each 40 ms."""

    def __init__(self, width: int = WIDTH, dilations: tuple[int, ...] = (1, 2, 3), wide: int = 512) -> None:
        super().__init__()
        self.front = nn.Conv2d(BANDS, width, (1, 5), stride=(1, 2), padding=(0, 2))
        self.fronted = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, (1, 3), stride=(1, 2), padding=(0, 1))
        self.seconded = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList(Block(width, dilation) for dilation in dilations)
        self.gather = nn.Conv2d(width * len(dilations), wide, 1)
        self.look = nn.Conv2d(wide, 64, 1)
        self.attend = nn.Conv2d(64, wide, 1)
        self.pooled = nn.BatchNorm1d(2 * wide)
        self.head = nn.Linear(2 * wide, DIMENSIONS[-1])
        self.headed = nn.BatchNorm1d(DIMENSIONS[-1], affine=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.unsqueeze(1).permute(0, 3, 1, 2)
        y = self.fronted(functional.relu(self.front(y)))
        y = self.seconded(functional.relu(self.second(y)))
        seen = []
        for block in self.blocks:
            y = block(y)
            seen.append(y)
        y = functional.relu(self.gather(torch.cat(seen, dim=1)))
        weight = torch.softmax(self.attend(torch.tanh(self.look(y))).float(), dim=3)
        y = y.float()
        mean = (weight * y).sum(dim=(2, 3))
        spread = ((weight * y * y).sum(dim=(2, 3)) - mean * mean).clamp_min(1e-5).sqrt()
        return self.headed(self.head(self.pooled(torch.cat([mean, spread], dim=1))).float())


class NestedMargin(nn.Module):
    """Sum over d of c_d times what the first d dimensions alone cost: the additive-angular-margin softmax over centres
    of their own, and how well the one half of a batch finds its fellows in the other (angular prototypes, arXiv
    2003.11982), which teaches from the first step, when centres mean nothing yet."""

    def __init__(self, classes: int, weights: tuple[float, ...] = (1.0,) * len(DIMENSIONS)) -> None:
        super().__init__()
        self.weights = weights
        self.centres = nn.ParameterList(nn.Parameter(0.1 * torch.randn(classes, d)) for d in DIMENSIONS)

    def forward(self, embedding: Tensor, classes: Tensor, scale: float, margin: float) -> tuple[Tensor, Tensor]:
        """The loss, and the share of examples nearest to their own centre by dimension [6].

        Example i and example i + B / 2 are of one class, and no others are.
        """
        total, right = embedding.new_zeros(()), []
        half = torch.arange(len(classes) // 2, device=classes.device)
        for d, centres, weight in zip(DIMENSIONS, self.centres, self.weights, strict=True):
            head = functional.normalize(embedding[:, :d])
            cosine = functional.linear(head, functional.normalize(centres))
            own = cosine.gather(1, classes[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
            logits = scale * cosine.scatter(1, classes[:, None], torch.cos(torch.acos(own) + margin))
            fellows = scale / 2 * head[: len(half)] @ head[len(half) :].T
            pairs = (functional.cross_entropy(fellows, half) + functional.cross_entropy(fellows.T, half)) / 2
            total = total + weight * (functional.cross_entropy(logits, classes) + pairs)
            right.append((cosine.argmax(1) == classes).float().mean())
        return total / sum(self.weights), torch.stack(right)


def export(network: Network, folder: Path, manifest: dict[str, str], thresholds: list[float]) -> str:
    """Writes model.onnx (weights stored in half precision, computed in single) and model.toml; returns the sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    model = halve(hearing_graph(network, torch.randn(2, 300, BANDS), "embedding", {0: "batch"}))
    onnx.save(model, folder / "model.onnx")
    cosines = [round(cosine, 3) for cosine in thresholds]
    options = {"bands": BANDS, "dimensions": DIMENSIONS, "threshold": cosines[-1], "thresholds": cosines}
    return write_manifest(folder, **manifest, options=options)
