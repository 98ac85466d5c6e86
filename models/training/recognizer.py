"""Trains the recognizer and writes it as ONNX: `python -m models.training recognizer --help`.

Stages: make extra short phrases (`--extra`), load everything into memory, train with CTC in length-bucketed batches
(checkpoint every few minutes, `--resume` goes on from the last), export the averaged weights, measure what was
exported. The same seed and steps give the same batches.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from models.training.recognizer_batches import Mixer, ahead
from models.training.recognizer_data import (
    Pool,
    count_words,
    drop_dev_texts,
    load_corpus,
    load_real,
    make_extra,
    phrases,
)
from models.training.recognizer_net import Network, export, shipped_weights
from models.training.recognizer_own import make_own

LICENCE = "Apache-2.0"


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
    if options.start_from:
        network.load_state_dict(shipped_weights(options.start_from))
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
    if options.own and options.own_sentences:
        make_own(options.own, phrases(options.speech / "text"), options.own_sentences, options.seed)
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
    parser.add_argument("--words", type=Path, help="a plain word list that widens the search's vocabulary")
    parser.add_argument("--own", type=Path, help="a corpus spoken by the embedded synthesizer, to be mixed in")
    parser.add_argument("--own-sentences", type=int, default=0, help="have so many sentences of that corpus made first")
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
    parser.add_argument("--start-from", type=Path, help="weights to begin with: a model.onnx that was exported before")
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
    shares = {"teacher": 0.52, "extra": 0.3, "command": 0.16, "noise": 0.02}
    if pool.of("own", "train"):
        shares = {"teacher": 0.52, "extra": 0.2, "command": 0.13, "own": 0.13, "noise": 0.02}
    network = train(pool, options, shares)
    manifest = {"name": "refrain-recognizer-en", "family": "recognizer", "licence": LICENCE}
    words = count_words(pool, phrases(options.speech / "text"), options.words)
    print("sha256", export(network, options.out, manifest, words))
    from models.training.recognizer_report import report

    print(json.dumps(report(options.out, pool, options.seed), indent=1))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
