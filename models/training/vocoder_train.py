"""The vocoder's training loop: a budget of minutes, checkpoints, resume, and an average of the weights to ship."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from models.training.vocoder_data import Tapes
from models.training.vocoder_loss import Contract, losses
from models.training.vocoder_net import Size, VocoderNet

FRAMES = 96
_AVERAGE = 0.998
_LOG_STEPS = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how: `minutes` are the process's own CPU minutes over all resumed runs; `rate` is AdamW's peak."""

    minutes: float
    batch: int = 8
    rate: float = 1e-3
    repel: float = 1.0
    rough: float = 0.1
    refinements: int = 2
    seed: int = 1
    save_minutes: float = 3.0


def train(tapes: Tapes, out: Path, plan: Plan, size: Size) -> None:
    """Trains until the budget is spent, from `out`/checkpoint.pt where there is one; saves there."""
    torch.manual_seed(plan.seed)
    net, average = VocoderNet(size), VocoderNet(size)
    optimizer = torch.optim.AdamW(net.parameters(), plan.rate, betas=(0.9, 0.98), weight_decay=0.01)
    average.load_state_dict(net.state_dict())
    step, spent = 0, 0.0
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    # A run that goes on must not see the first one's crops and noise again.
    torch.manual_seed(plan.seed + step)
    tapes.reseed(plan.seed + step)
    contract = Contract()
    began, wall, resumed = time.process_time() - spent, time.perf_counter(), (step, spent)
    saved = spent
    sums: dict[str, float] = {}
    summed = 0
    while spent < 60 * plan.minutes:
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * _shape(step, spent / (60 * plan.minutes))
        parts = losses(net, tapes.draw(plan.batch, FRAMES), contract, plan.repel, plan.rough, plan.refinements)
        optimizer.zero_grad()
        parts.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        if torch.isfinite(norm):
            optimizer.step()
        step += 1
        _follow(average, net, min(_AVERAGE, step / (step + 20)))
        spent = time.process_time() - began
        for name, value in parts.values().items():
            sums[name] = sums.get(name, 0.0) + value
        summed += 1
        if step % _LOG_STEPS == 0:
            passed = time.perf_counter() - wall
            ahead = (60 * plan.minutes - spent) * passed / (spent - resumed[1])
            print(
                f"step {step}  {spent / 60:.1f} of {plan.minutes:g} CPU min  "
                f"{(step - resumed[0]) / passed:.2f} steps/s  ETA {ahead / 60:.0f} min  "
                + "  ".join(f"{name} {value / summed:.3f}" for name, value in sums.items()),
                flush=True,
            )
            sums, summed = {}, 0
        if spent - saved > 60 * plan.save_minutes or spent >= 60 * plan.minutes:
            saved = spent
            state = {"net": net.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            _save(checkpoint, {**state, "step": step, "spent": spent, "size": asdict(size)})


def load_average(checkpoint: Path) -> VocoderNet:
    """The averaged weights of a checkpoint, in evaluation mode."""
    state = torch.load(checkpoint, weights_only=True)
    net = VocoderNet(Size(**state["size"]))
    net.load_state_dict(state["average"])
    return net.eval()


def _shape(step: int, progress: float) -> float:
    """Learning rate over its peak: 200 steps of warm-up, then a cosine over the budget down to a fiftieth."""
    return min(1.0, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


@torch.no_grad()
def _follow(average: VocoderNet, net: VocoderNet, keep: float) -> None:
    for mean, now in zip(average.parameters(), net.parameters(), strict=True):
        mean.lerp_(now, 1 - keep)


def _save(path: Path, state: dict[str, Any]) -> None:
    """Whole or not at all: a run ended while it writes leaves the checkpoint before."""
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
