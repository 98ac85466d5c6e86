"""Trains the recognizer and writes it as ONNX: `python -m models.training recognizer --help`.

Stages: make extra short phrases (`--extra`), load everything into memory, train with CTC in length-bucketed batches
(checkpoint every few minutes, `--resume` goes on from the last), export the averaged weights, measure what was
exported. The same seed and steps give the same batches.
"""

from __future__ import annotations

import argparse
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional

from models.ctc import Alphabet
from models.hearing import SILENCE, STRIDE
from models.training.augment import Chances, hear
from models.training.recognizer_data import (
    Clip,
    Pool,
    count_words,
    drop_dev_texts,
    load_corpus,
    load_real,
    make_extra,
    phrases,
)
from models.training.recognizer_net import LETTERS, Network, export
from models.utterance import RECOGNIZER_RATE, Samples

EDGE = 24
"""Silent feature frames around every training example, as at run time."""
LICENCE = "Apache-2.0"
REAL = Chances()
TEACHERS = Chances(pace=0.4, room=0.12, noise=0.4, throat=0.5, colour=0.3, telephone=0.1, masks=0.5)
EASY = Chances(pace=0.2, room=0.0, noise=0.1, companding=0.0, throat=0.3, colour=0.2, telephone=0.0, masks=0.2)
"""There is far less real speech than spoken by machines, so it is altered more.

Training begins easy, with short clean clips of machines: on the whole mixture the loss was measured to stay at its
first plateau (only blanks) for 500 steps, on clips like these for 40.
"""
EASY_SECONDS = 4.0
GROUP = 40
"""Batches drawn at once, sorted by length."""


@dataclass(frozen=True)
class Batch:
    """features [B, T, 80], steps [B], targets (joined) and their lengths [B]."""

    features: Tensor
    steps: Tensor
    targets: Tensor
    lengths: Tensor


class Mixer:
    """Draws clips from the sources in given shares of time, joins short ones, and makes batches of like length."""

    def __init__(self, pool: Pool, shares: dict[str, float], batch_seconds: float, seed: int, easy: int) -> None:
        self.pool = pool
        self.batch_seconds = batch_seconds
        self.seed = seed
        self.easy_groups = easy // GROUP
        self.alphabet = Alphabet(LETTERS)
        self.sources = {name: pool.of(name, "train") for name in shares}
        self.shares = {name: share for name, share in shares.items() if self.sources[name]}
        self.noise_clips = pool.of("noise", "train")
        odds = [share / np.mean([clip.seconds for clip in self.sources[name]]) for name, share in self.shares.items()]
        self.odds = np.array(odds) / sum(odds)
        self.weights: dict[str, np.ndarray | None] = dict.fromkeys(self.shares)
        if "command" in self.shares:
            counts: dict[str, int] = {}
            for clip in self.sources["command"]:
                counts[clip.text] = counts.get(clip.text, 0) + 1
            weight = np.array([counts[clip.text] ** -0.5 for clip in self.sources["command"]])
            self.weights["command"] = weight / weight.sum()

    def pick(self, source: str, rng: Generator) -> Clip:
        clips = self.sources[source]
        weights = self.weights.get(source)
        return clips[int(rng.choice(len(clips), p=weights) if weights is not None else rng.integers(len(clips)))]

    def draw(self, rng: Generator, easy: bool) -> list[Clip]:
        """The clips of one example. Shares are of seconds, so short sources are drawn more often."""
        names = list(self.shares)
        while easy:
            clip = self.pick("teacher" if rng.random() < 0.6 else "extra", rng)
            if clip.seconds < EASY_SECONDS:
                return [clip]
        source = names[int(rng.choice(len(names), p=self.odds))]
        clips = [self.pick(source, rng)]
        if source == "command" and rng.random() < 0.45:
            clips += [self.pick("command", rng) for _ in range(int(rng.integers(1, 4)))]
        elif source != "noise" and clips[0].seconds < 3.0 and rng.random() < 0.25:
            other = names[int(rng.integers(len(names)))]
            if other != "noise":
                clips.append(self.pick(other, rng))
        return clips

    def noise(self, count: int, rng: Generator) -> Samples:
        """Real noise, now and then synthetic or a second talker: float32 [count]."""
        kind = rng.random()
        if kind < 0.12:
            white = rng.standard_normal(count, np.float32)
            return white if kind < 0.06 else np.cumsum(white - 0.02 * white.mean(), dtype=np.float32) * 0.05
        if kind < 0.18 and "teacher" in self.shares:
            sound = self.pool.sound(self.pick("teacher", rng)) + 0.0
        else:
            sound = self.pool.sound(self.noise_clips[int(rng.integers(len(self.noise_clips)))])
        return np.asarray(np.resize(np.roll(sound, int(rng.integers(len(sound)))), count), np.float32)

    def example(self, clips: list[Clip], rng: Generator, chances: Chances) -> tuple[Samples, list[int]]:
        parts: list[Samples] = []
        for clip in clips:
            sound = self.pool.sound(clip)
            if clip.source == "noise":
                start = int(rng.integers(0, max(len(sound) - 16000, 1)))
                sound = sound[start : start + int(rng.integers(8000, 64000))]
            elif parts:
                # clips keep their own levels within an utterance to a factor of two
                sound = sound * (np.abs(parts[0]).max() / max(np.abs(sound).max(), 1e-4) * rng.uniform(0.7, 1.4))
            if parts or rng.random() < 0.5:
                parts.append(np.zeros(int(rng.uniform(0, 0.3) * RECOGNIZER_RATE), np.float32))
            parts.append(sound.astype(np.float32))
        text = " ".join(clip.text for clip in clips if clip.text)
        heard = hear(np.concatenate(parts), rng, lambda count: self.noise(count, rng), chances)
        return heard, self.alphabet.encode(text)

    def batches(self, first: int) -> Iterator[Batch]:
        """Endless batches from number `first` on; each group of 40 batches has its own random stream."""
        group = first // GROUP
        skip = first % GROUP
        while True:
            rng = np.random.default_rng((self.seed, group))
            easy = group < self.easy_groups
            drawn = [self.draw(rng, easy) for _ in range(int(self.batch_seconds * GROUP / (1.8 if easy else 2.5)))]
            drawn.sort(key=lambda clips: sum(clip.count for clip in clips))
            rows: list[list[list[Clip]]] = [[]]
            for clips in drawn:
                seconds = sum(clip.seconds for clip in clips) + 0.5
                if rows[-1] and seconds * (len(rows[-1]) + 1) > self.batch_seconds:
                    rows.append([])
                rows[-1].append(clips)
            order = rng.permutation(len(rows))[:GROUP]
            for number in order[skip:]:
                yield self.batch(rows[int(number)], np.random.default_rng((self.seed, group, int(number))), easy)
            group, skip = group + 1, max(0, skip - len(order))

    def batch(self, rows: list[list[Clip]], rng: Generator, easy: bool) -> Batch:
        pairs = []
        for clips in rows:
            real = any(clip.source == "command" for clip in clips)
            heard, target = self.example(clips, rng, EASY if easy else REAL if real else TEACHERS)
            if len(target) * STRIDE < len(heard) + 2 * EDGE:  # CTC needs a step a letter
                pairs.append((heard, target))
        longest = max(len(heard) for heard, _ in pairs) + 2 * EDGE
        longest += -longest % STRIDE
        features = np.full((len(pairs), longest, pairs[0][0].shape[1]), SILENCE, np.float32)
        for row, (heard, _) in zip(features, pairs, strict=True):
            row[EDGE : EDGE + len(heard)] = heard
        return Batch(
            torch.from_numpy(features),
            torch.full((len(pairs),), longest // STRIDE),
            torch.tensor([column for _, target in pairs for column in target], dtype=torch.long),
            torch.tensor([len(target) for _, target in pairs]),
        )


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made in a thread of its own while the network works on the one before.

    A new thread each time has the priority the process has by then; one long-lived thread was seen to starve.
    """
    made: list[Batch | Exception] = []

    def make() -> None:
        try:
            made.append(next(batches))
        except Exception as problem:
            made.append(problem)

    worker = threading.Thread(target=make)
    worker.start()
    while True:
        worker.join()
        item = made.pop()
        if isinstance(item, Exception):
            raise item
        worker = threading.Thread(target=make)
        worker.start()
        yield item


def rate_at(step: int, done: float, peak: float, warm: int = 200) -> float:
    """Linear warm-up over the first steps, then cosine to a hundredth as `done` goes from 0 to 1."""
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def train(pool: Pool, options: argparse.Namespace, shares: dict[str, float]) -> Network:
    """Trains until `options.steps`; returns the averaged network. Writes and reads `work/checkpoint.pt`."""
    work: Path = options.work
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    network = Network().to(device)
    averaged = Network().to(device)
    averaged.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    step = 0
    saved = work / "checkpoint.pt"
    if options.resume and saved.is_file():
        state = torch.load(saved, map_location=device)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
        print(f"resumed at step {step}", flush=True)
    begun = step / max(1, options.steps)
    mixer = Mixer(pool, shares, options.batch_seconds, options.seed, options.easy_steps)
    began, seconds, losses, kept = time.monotonic(), 0.0, [], time.monotonic()
    for batch in ahead(mixer.batches(step)):
        spent = time.monotonic() - began
        done = max(step / max(1, options.steps), spent / 60 / options.minutes if options.minutes else 0.0)
        if done >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, done, options.rate)
        network.train()
        with torch.autocast(device.type, torch.bfloat16) if options.bf16 else nullcontext():
            logits = network.logits(batch.features.to(device))
        scores = functional.log_softmax(logits.float(), -1).transpose(0, 1)
        loss = functional.ctc_loss(
            scores, batch.targets.to(device), batch.steps, batch.lengths, zero_infinity=True, reduction="sum"
        ) / max(1, int(batch.lengths.sum()))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (step + 1) / (step + 20))
        with torch.no_grad():
            for mean, new in zip(averaged.parameters(), network.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)
        step += 1
        losses.append(loss.item())
        seconds += batch.features.shape[0] * batch.features.shape[1] / 100
        if step % 50 == 0:
            line = {
                "step": step,
                "loss": round(float(np.mean(losses)), 4),
                "lr": round(optimizer.param_groups[0]["lr"], 6),
                "audio_hours": round(seconds / 3600, 2),
                "x_real_time": round(seconds / spent),
                "eta_s": round((1 - done) * spent / max(done - begun, 1e-9)),
            }
            print(json.dumps(line), flush=True)
            losses.clear()
        if time.monotonic() - kept > options.save_every:
            kept = time.monotonic()
            keep(saved, network, averaged, optimizer, step)
    keep(saved, network, averaged, optimizer, step)
    averaged.eval()
    return averaged.cpu()


def gather(options: argparse.Namespace) -> Pool:
    """All sound of the run; kept as `work/pool.npy`, which is read instead when it is there (delete it to renew)."""
    kept = options.work / "pool"
    if kept.with_suffix(".npy").is_file():
        return Pool.load(kept)
    pool = Pool()
    load_real(pool, options.speech)
    teacher = load_corpus(pool, options.corpus, "teacher")
    extra = load_corpus(pool, options.work / "extra", "extra")
    own = load_corpus(pool, options.own, "own") if options.own else 0
    dropped = drop_dev_texts(pool)
    hours = sum(clip.seconds for clip in pool.clips) / 3600
    print(
        f"{hours:.1f} h: {teacher} teacher, {extra} extra, {own} own clips; {dropped} repeat measured texts: left out"
    )
    pool.save(kept)
    return pool


def keep(path: Path, network: Network, averaged: Network, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes the checkpoint whole or not at all."""
    state = {"network": network.state_dict(), "averaged": averaged.state_dict(), "step": step}
    torch.save({**state, "optimizer": optimizer.state_dict()}, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def main(argv: list[str]) -> None:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(prog="models.training recognizer", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="teacher corpus: a folder with index.jsonl")
    parser.add_argument("--speech", type=Path, required=True, help="real speech and noise: a folder with index.csv")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and extra phrases go here")
    parser.add_argument("--own", type=Path, help="a corpus spoken by the embedded synthesizer, to be mixed in")
    parser.add_argument("--out", type=Path, default=Path("models/embedded/recognizer"))
    parser.add_argument("--extra", type=float, default=12.0, help="hours of extra phrases to have")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="end after so long if that is sooner; not repeatable"
    )
    parser.add_argument("--batch-seconds", type=float, default=40.0)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--easy-steps", type=int, default=800, help="first steps, on short clean clips alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=float, default=120.0, help="seconds between checkpoints")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--export-only", action="store_true", help="export and measure the last checkpoint")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.export_only:
        options.resume, options.steps = True, 0
    else:
        make_extra(options.work / "extra", options.speech, options.extra, options.seed)
    pool = gather(options)
    shares = {"teacher": 0.44, "extra": 0.28, "command": 0.26, "noise": 0.02}
    if pool.of("own", "train"):
        shares = {"teacher": 0.3, "extra": 0.17, "command": 0.26, "own": 0.25, "noise": 0.02}
    network = train(pool, options, shares)
    manifest = {"name": "refrain-recognizer-en", "family": "recognizer", "licence": LICENCE}
    print("sha256", export(network, options.out, manifest, count_words(pool, phrases(options.speech / "text"))))
    from models.training.recognizer_report import report

    print(json.dumps(report(options.out, pool, options.seed), indent=1))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
