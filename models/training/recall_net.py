"""The two recall networks, what each is trained by, and how they become ONNX.

The ear is a handful of dilated convolutions over band energies: from what is heard in 0.6 s around a frame to the
log-odds of each sign bit of the undistorted recording. The judge reads two recordings laid over each other, frame by
frame, and adds up in the log domain what speaks against their being the same: one bad moment is enough.
"""

from __future__ import annotations

import io
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.added import FILE, Additions
from models.bands import BANDS
from models.evidence import BITS, FEATURES
from models.training.export import halve, write_manifest
from models.training.recall_front import FLOOR, LOWEST_PEAK

LICENCE = "Apache-2.0"
LAG = 4
"""Frames between the two differences a bit is the sign of."""
LEVELS_COUNT = 0.3
"""What the levels count beside the bits."""
ACCEPTING = 2.0
"""What it costs to take one recording for another, in refusals."""
SHARPNESS = 4.0
"""Of the sum in the log domain: how nearly only the worst frame counts."""


class Ear(nn.Module):
    """Log energies [B, 66, T] to log-odds of the 32 bits on both grids and of the three levels, [B, 67, T].

    It is also given what the bits are made of, the root of each change as a share of the largest on its grid, and
    starts from its sign.
    """

    def __init__(self, width: int = 80, dilations: tuple[int, ...] = (1, 2, 4, 8, 1)) -> None:
        super().__init__()
        self.front = nn.Conv1d(2 * BANDS + 2 * BITS, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in dilations)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in dilations)
        self.head = nn.Conv1d(width, 2 * BITS + 3, 1)
        self.gain = nn.Parameter(torch.full((1, 2 * BITS, 1), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        power = torch.pow(10.0, x)
        grids = (power[:, :BANDS], power[:, BANDS:])
        own = torch.cat([relative_changes(grid) for grid in grids], dim=1)
        y = self.front(torch.cat([(x + 3.5) / 2, own], dim=1))
        for norm, block in zip(self.norms, self.blocks, strict=True):
            y = y + block(functional.relu(norm(y)))
        y = self.head(functional.relu(y))
        return torch.cat([y[:, : 2 * BITS] + self.gain * own, y[:, 2 * BITS :]], dim=1)


def relative_changes(power: Tensor) -> Tensor:
    """Band power [B, 33, T] to roots of the changes whose signs are the bits, -1 to 1, [B, 32, T]."""
    slope = power[:, :-1] - power[:, 1:]
    change = torch.cat([slope[:, :, :LAG], slope[:, :, LAG:] - slope[:, :, :-LAG]], dim=2)
    size = change.abs()
    return torch.sign(change) * torch.sqrt(size / (size.amax(dim=1, keepdim=True) + 1e-9))


def ear_loss(told: Tensor, bits: Tensor, counts: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats of the bits, each by what it counts, and of the levels; shapes as in `Pool.batch`."""
    of_bits = functional.binary_cross_entropy_with_logits(told[:, : 2 * BITS], bits, weight=counts, reduction="sum")
    of_levels = functional.binary_cross_entropy_with_logits(told[:, 2 * BITS :], levels)
    return of_bits / counts.sum().clamp_min(1.0), of_levels


class Judge(nn.Module):
    """Timelines [B, 15, T], and which frames they have [B, T], to log-odds of being the same recording [B].

    What the whole path is like goes to every frame: a moment of little evidence means another sound in a clean copy,
    and nothing in a noisy one.
    """

    def __init__(self, width: int = 32, drop: float = 0.2, whole: int = 16) -> None:
        super().__init__()
        self.drop = nn.Dropout1d(drop)
        self.front = nn.Conv1d(FEATURES, width, 5, padding=2)
        self.blocks = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2 * d, dilation=d) for d in (2, 4))
        self.head = nn.Conv1d(width, 1, 1)
        self.bias = nn.Parameter(torch.full((1,), 2.0))
        self.whole = nn.Linear(FEATURES + 2, whole)
        self.to_frames, self.to_score = nn.Linear(whole, width), nn.Linear(whole, 1)
        for layer in (self.to_frames, self.to_score):  # begins as if there were none
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def weigh(self, x: Tensor, there: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """How much each frame speaks against it, [B, T], and the whole for it, [B]. Beyond a timeline's end are zeros,
        in a batch as alone."""
        kept = 1.0 if there is None else there[:, None].float()
        whole = functional.relu(self.whole(overall(x)))
        y = functional.relu(self.front(x) + self.to_frames(whole)[:, :, None]) * kept
        for block in self.blocks:
            y = (functional.relu(block(self.drop(y))) + y) * kept
        return self.head(y)[:, 0], self.bias + self.to_score(whole)[:, 0]

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        against, favour = (told.float() for told in self.weigh(x, there))
        return favour - torch.logsumexp(SHARPNESS * against.masked_fill(~there, -1e4), dim=1) / SHARPNESS


def overall(x: Tensor) -> Tensor:
    """Of timelines [B, 15, T], over the stored speech: the mean of every row, how long it is, and which share of what
    the query is sure of agrees (`gateway.fingerprint.verify.agreement`). [B, 17]."""
    active = x[:, 2:3]
    frames = active.sum(dim=2).clamp_min(1.0)
    means = (x * active).sum(dim=2) / frames
    agrees = (x[:, :1].sum(dim=2) / (x[:, 1:2].sum(dim=2) + 10)).clamp(-1.0, 1.2)
    return torch.cat([means, torch.log(frames) - 4.0, agrees], dim=1)


def judge_loss(told: Tensor, same: Tensor, counts: Tensor) -> Tensor:
    """Cross-entropy in nats of log-odds [B]; `counts` is what a kind of pair does."""
    losses = functional.binary_cross_entropy_with_logits(told, same, reduction="none")
    return (losses * counts * torch.where(same > 0, 1.0, ACCEPTING)).mean()


class ShippedEar(nn.Module):
    """Linear energies [T, 2, 33] to log-odds [T, 2, 32] and chances of the levels [T, 3]."""

    def __init__(self, ear: Ear) -> None:
        super().__init__()
        self.ear = ear

    def forward(self, energies: Tensor) -> tuple[Tensor, Tensor]:
        peak = energies[:, 0].sum(dim=1).max().clamp_min(LOWEST_PEAK)
        told = self.ear(torch.log10(energies / peak + FLOOR).reshape(-1, 2 * BANDS).T[None])[0].T
        return told[:, : 2 * BITS].reshape(-1, 2, BITS), torch.sigmoid(told[:, 2 * BITS :])


class ShippedJudge(nn.Module):
    """One timeline [1, 15, T] to its score [1] and what each frame has against it [1, T], both SHARPNESS times the
    judge's, so that the score is a plain sum in the log domain."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, timeline: Tensor) -> tuple[Tensor, Tensor]:
        frames, favour = self.judge.weigh(timeline)
        against = SHARPNESS * frames
        return SHARPNESS * favour - torch.logsumexp(against, dim=1), against


def export(ear: Ear, judge: Judge, threshold: float, out: Path) -> None:
    """Writes `out`/ear and `out`/judge as `models.recall.RecallNets` reads them; large weights in half precision. What
    judges silence is kept, or begins untaught."""
    hears, judges = ShippedEar(ear).eval(), ShippedJudge(judge).eval()
    ways = {"log_odds": {0: "frames"}, "speech": {0: "frames"}}
    _write(hears, torch.rand(60, 2, BANDS), {"energies": {0: "frames"}}, ways, out / "ear", {"bands": BANDS})
    if not (out / FILE).is_file():
        Additions.untaught().write(out)  # `recall_added` comes after, and needs both networks
    options = {"features": FEATURES, "threshold": threshold}
    ways = {"score": {}, "against": {1: "frames"}}
    _write(judges, torch.rand(1, FEATURES, 60), {"timeline": {2: "frames"}}, ways, out / "judge", options)


def _write(
    network: nn.Module,
    example: Tensor,
    takes: dict[str, dict[int, str]],
    gives: dict[str, dict[int, str]],
    folder: Path,
    options: dict[str, float],
) -> None:
    buffer = io.BytesIO()
    torch.onnx.export(
        network,
        (example,),
        buffer,  # type: ignore[arg-type]
        input_names=list(takes),
        output_names=list(gives),
        dynamic_axes=takes | gives,
        opset_version=17,
        dynamo=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(halve(onnx.load_from_string(buffer.getvalue())), folder / "model.onnx")
    write_manifest(folder, f"refrain-recall-{folder.name}", "recall", LICENCE, options)
