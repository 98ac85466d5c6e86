"""Trains the two recall networks and writes them as ONNX: `python -m models.training recall --help`.

Stages, most of which find what an earlier run left in OUT/work: the pool of distorted recordings, the ear, the pairs,
the judge (whose timelines the ear makes, so that they are not kept), the judge of silence (`recall_added`). A training
that was broken off goes on from its last checkpoint. Rates fall to nothing at the end of the minutes, or of the steps
where these are given, which any machine repeats.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.random import Generator, default_rng
from torch import Tensor, nn

from models.training import recall_added, recall_pairs, recall_pool, shipped
from models.training.recall_data import Sources
from models.training.recall_lines import Batches, lines_of
from models.training.recall_net import LEVELS_COUNT, Ear, Judge, ear_loss, export, judge_loss
from models.training.speaker import average, rate_at

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a network is trained, and how fast it moves."""

    minutes: float
    steps: int | None
    """Instead of the minutes."""
    peak: float
    """Highest rate."""
    warm: int
    """Steps to it."""
    slowest: float
    """Share of the running mean that stays at each step, at most."""
    print_every: int
    decay: float = 1e-3
    """Of the weights."""
    save_every: float = 120.0
    """Seconds between checkpoints."""


class Training(Generic[Net]):
    """A network on its way: its weights, their running mean, which is what ships, and the optimizer."""

    def __init__(self, name: str, network: Net, plan: Plan, work: Path) -> None:
        self.network, self.averaged, self.name, self.plan = network, copy.deepcopy(network).eval(), name, plan
        self.optimizer = torch.optim.AdamW(network.parameters(), plan.peak, weight_decay=plan.decay)
        self.step, self.spent, self._saved = 0, 0.0, work / f"{name}.pt"
        self._losses: list[tuple[float, ...]] = []
        if self._saved.is_file():
            state = torch.load(self._saved)
            for part, kept in zip(self._parts, state["parts"], strict=True):
                part.load_state_dict(kept)
            self.step, self.spent = state["step"], state["spent"]
            print(json.dumps({name: "goes on", "step": self.step, "min": round(self.spent / 60, 1)}), flush=True)

    @property
    def _parts(self) -> tuple[Any, ...]:
        return self.network, self.averaged, self.optimizer

    def steps(self, seed: int) -> Iterator[Generator]:
        """Random numbers for each step that is left; those of a step are always the same."""
        began, before, kept = time.monotonic(), self.spent, time.monotonic()
        self.network.train()
        while (done := self.done) < 1.0:
            for group in self.optimizer.param_groups:
                group["lr"] = rate_at(self.step, done, self.plan.peak, self.plan.warm)
            yield default_rng((seed, self.step))
            self.spent = before + time.monotonic() - began
            if time.monotonic() - kept > self.plan.save_every:
                kept = time.monotonic()
                self.keep()
        if self._losses:
            self._tell()
        self.keep()

    @property
    def done(self) -> float:
        """Of 0 to 1; 1 too where nothing was to be done."""
        if self.plan.steps is not None:
            return self.step / self.plan.steps if self.plan.steps else 1.0
        return self.spent / (60 * self.plan.minutes) if self.plan.minutes else 1.0

    def learn(self, loss: Tensor, *told: Tensor) -> None:
        """One step down; prints the mean of what is `told` now and then."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        average(self.averaged, self.network, min(self.plan.slowest, self.step / (self.step + 9)))
        self._losses.append(tuple(value.item() for value in told))
        if self.step % self.plan.print_every == 0:
            self._tell()

    def _tell(self) -> None:
        means = [round(float(value), 4) for value in np.mean(self._losses, axis=0)]
        print(json.dumps({self.name: self.step, "loss": means, "done": round(self.done, 3)}), flush=True)
        self._losses.clear()

    def keep(self) -> None:
        """Writes the checkpoint whole or not at all."""
        fresh = self._saved.with_suffix(".new")
        parts = [part.state_dict() for part in self._parts]
        torch.save({"parts": parts, "step": self.step, "spent": self.spent}, fresh)
        fresh.replace(self._saved)


def train_ear(training: Training[Ear], pool: recall_pool.Pool, seed: int, half: bool = False) -> None:
    """Bits and levels of undistorted recordings from distorted ones. `half`: convolutions in bfloat16, in half the
    time where a processor has it."""
    for rng in training.steps(seed):
        energies, bits, counts, levels = pool.batch(rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            told = training.network(energies)
        of_bits, of_levels = ear_loss(told.float(), bits, counts, levels)
        training.learn(of_bits + LEVELS_COUNT * of_levels, of_bits, of_levels)


def train_judge(training: Training[Judge], batches: Batches, seed: int, half: bool = False) -> None:
    """Whether two recordings are the same, from their timeline. `half` as for the ear."""
    for rng in training.steps(seed):
        rows, there, same, counts = batches.batch(rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            told = training.network(rows, there)
        loss = judge_loss(told.float(), same, counts)
        training.learn(loss, loss)


def started(network: Net, folder: Path | None, name: str) -> Net:
    """`network`, with the weights of a recall folder that `export` wrote, if any."""
    if folder is not None:
        state = network.state_dict()
        for key in [key for key in state if key.endswith("num_batches_tracked")]:
            del state[key]
        found = shipped.weights(folder / name / "model.onnx", state, (), prefix=f"{name}.")
        network.load_state_dict(found, strict=False)
    return network


def main(argv: list[str]) -> None:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(prog="models.training recall", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folders ear and judge are written here")
    parser.add_argument("--data", type=Path, required=True, help="real speech and noise: a folder with index.csv")
    parser.add_argument("--corpus", type=Path, required=True, help="machine voices: a folder with index.jsonl")
    parser.add_argument("--seconds", type=float, default=80_000.0, help="of distorted sound for the ear")
    parser.add_argument("--minutes-ear", type=float, default=55.0)
    parser.add_argument("--steps-ear", type=int, help="instead of minutes; 0 keeps the ear it starts from")
    parser.add_argument("--pairs", type=int, default=6_000, help="of recordings for the judge")
    parser.add_argument("--light", type=int, default=7_000, help="pairs over lighter lines, most of them strangers")
    parser.add_argument("--usual", type=int, default=22_500, help="pairs over lines as callers have them")
    parser.add_argument("--words", type=int, default=3_600, help="for which the nearest others are found")
    parser.add_argument("--minutes-judge", type=float, default=27.0)
    parser.add_argument("--steps-judge", type=int, help="instead of minutes")
    parser.add_argument("--threshold", type=float, default=0.0, help="score from which two recordings are the same")
    parser.add_argument("--additions", type=int, default=recall_added.EXAMPLES, help="of speech added; 0: as they were")
    parser.add_argument("--threshold-added", type=float, default=0.0, help="log-odds from which speech was added")
    parser.add_argument("--start-from", type=Path, help="a recall folder whose weights both networks start from")
    parser.add_argument("--work", type=Path, help="pool, pairs and checkpoints go here; OUT/work if not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true", help="convolutions in half precision while training")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    work: Path = options.work or options.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    sources = Sources.open(options.data, options.corpus)
    plan = Plan(options.minutes_ear, options.steps_ear, peak=2e-3, warm=200, slowest=0.9995, print_every=200)
    ear = Training("ear", started(Ear(), options.start_from, "ear"), plan, work)
    if ear.done < 1.0:
        train_ear(ear, recall_pool.gather(sources, options.seconds, options.seed, work), options.seed, options.bfloat16)
    pairs = recall_pairs.gather(sources, options.pairs, options.light, options.usual, options.words, options.seed, work)
    plan = Plan(
        options.minutes_judge, options.steps_judge, peak=3e-3, warm=100, slowest=0.999, print_every=500, decay=5e-2
    )
    judge = Training("judge", started(Judge(), options.start_from, "judge"), plan, work)
    train_judge(judge, Batches(lines_of(pairs, ear.averaged, sources, options.seed)), options.seed, options.bfloat16)
    export(ear.averaged, judge.averaged, options.threshold, options.out)
    if options.additions:
        recall_added.learn(sources, options.out, options.additions, options.threshold_added, options.seed)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
