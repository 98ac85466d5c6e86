"""Trains the voice encoder and writes it as ONNX: `python -m models.training speaker --help`.

Stages: make features of every voice and speed (kept in `work`), train the nested margins (checkpoint every few
minutes, `--resume` goes on from the last), export the averaged weights with a threshold chosen on dev speakers, measure
what was exported on test speakers. The same seed and steps give the same batches.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.speaker import DIMENSIONS, SpeakerEncoder, voiced
from models.training.speaker_data import Mixer, Pool, machine_voices, real_voices
from models.training.speaker_net import NestedMargin, Network, export
from models.training.speaker_report import Part, cosines, embedded, equal_error_rate, report, sets, threshold_at, trials
from models.utterance import Samples

NAME = "refrain-speaker"
LICENCE = "Apache-2.0"
SCALE, FIRST_SCALE = 30.0, 8.0
"""Of cosines before the softmax. At 30 from the start, chance likenesses alone cost more than knowing nothing does."""
MARGIN = 0.2
CENTRES_FASTER = 4.0
"""Times the rate of the network: a centre sees an example of its own only every thirtieth step."""
FALSE_ACCEPTS = 0.01


def rate_at(step: int, done: float, peak: float, warm: int = 50) -> float:
    """Linear warm-up over the first steps, then cosine to a hundredth as `done` goes from 0 to 1."""
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def gather(options: argparse.Namespace) -> Pool:
    """The features of the run; kept as `work/pool.npz`, which is read instead when it is there."""
    kept: Path = options.work / "pool.npz"
    if kept.is_file():
        return Pool.load(kept)
    voices = list(real_voices(options.speech))
    if options.corpus:
        voices += machine_voices(options.corpus)
    pool = Pool.make(voices, options.speech)
    pool.save(kept)
    return pool


def train(pool: Pool, dev: dict[str, Part], options: argparse.Namespace) -> Network:
    """Trains until `options.steps`; returns the averaged network. Writes and reads `work/checkpoint.pt`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    network = Network().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    margins = NestedMargin(len(pool.sources)).to(device)
    averaged = copy.deepcopy(network).eval()
    groups = [
        {"params": list(network.parameters()), "times": 1.0},
        {"params": list(margins.parameters()), "times": CENTRES_FASTER},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=options.decay)
    parts = {"network": network, "margins": margins, "averaged": averaged, "optimizer": optimizer}
    step, saved = 0, options.work / "checkpoint.pt"
    if options.resume and saved.is_file():
        state = torch.load(saved, map_location=device)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        step = state["step"]
        print(json.dumps({"resumed_at": step}), flush=True)
    mixer = Mixer(pool, options.batch, options.seed)
    began, first, kept = time.monotonic(), step, time.monotonic()
    losses: list[float] = []
    rights: list[Samples] = []
    network.train()
    while step < options.steps:
        features, classes = mixer.batch(step)
        done = step / options.steps
        for group in optimizer.param_groups:
            group["lr"] = group["times"] * rate_at(step, done, options.rate)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            embedding = network(features.to(device))
        scale = FIRST_SCALE + (SCALE - FIRST_SCALE) * min(1.0, done / 0.3)
        loss, right = margins(embedding.float(), classes.to(device), scale, MARGIN * min(1.0, max(0.0, done / 0.3 - 1)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        step += 1
        average(averaged, network, min(0.99, step / (step + 20)))
        losses.append(loss.item())
        rights.append(right.cpu().numpy())
        if step % 50 == 0:
            spent = time.monotonic() - began
            line: dict[str, Any] = {"step": step, "loss": round(float(np.mean(losses)), 3)}
            line |= {"right": [round(float(x), 2) for x in np.mean(rights, axis=0)]}
            line |= {"eta_s": round(spent / (step - first) * (options.steps - step))}
            print(json.dumps(line), flush=True)
            losses.clear()
            rights.clear()
        if step % options.look_every == 0:
            print(json.dumps({"step": step, "dev": look(averaged, dev)}), flush=True)
        if time.monotonic() - kept > options.save_every or step == options.steps:
            kept = time.monotonic()
            keep(saved, step, parts)
    return averaged.cpu().float()


def average(averaged: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    """Moves the running mean of weights and of norms' statistics towards the network's."""
    with torch.no_grad():
        for mean, new in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - decay)
            else:
                mean.copy_(new)


def look(network: Network, dev: dict[str, Part]) -> dict[str, list[float]]:
    """Equal error rates of dev speakers by dimension, in percent."""
    device = next(network.parameters()).device

    def embed(samples: Samples) -> Samples:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(voiced(samples))[None].to(device))[0].cpu())

    rates = {}
    for kind, (names, cuts, sounds) in dev.items():
        vectors = embedded(embed, sounds)
        same, other = trials(names, cuts)
        close = [cosines(vectors, d) for d in DIMENSIONS]
        rates[kind] = [round(100 * equal_error_rate(c[same], c[other]), 2) for c in close]
    return rates


def keep(path: Path, step: int, parts: dict[str, Any]) -> None:
    """Writes the checkpoint whole or not at all."""
    torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def ship(network: Network, dev: dict[str, Part], out: Path) -> str:
    """Exports, chooses the thresholds on what was exported, and writes them into the manifest; returns the sha256."""
    manifest = {"name": NAME, "family": "speaker", "licence": LICENCE}
    export(network, out, manifest, [0.0] * len(DIMENSIONS))
    encoder = SpeakerEncoder(out)
    heard = [(embedded(encoder.embed, sounds), names, cuts) for names, cuts, sounds in (dev["read"], dev["line"])]
    highest = [max(threshold_at(*part, FALSE_ACCEPTS, dimensions) for part in heard) for dimensions in DIMENSIONS]
    return export(network, out, manifest, [math.ceil(cosine * 1000) / 1000 for cosine in highest])


def main(argv: list[str]) -> None:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(prog="models.training speaker", description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="real speech and noise: a folder with index.csv")
    parser.add_argument("--corpus", type=Path, help="teacher corpus: a folder with index.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="features and checkpoints go here")
    parser.add_argument("--out", type=Path, default=Path("models/embedded/speaker"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--decay", type=float, default=0.02, help="weight decay")
    parser.add_argument("--look-every", type=int, default=200, help="steps between measurements of dev speakers")
    parser.add_argument("--save-every", type=float, default=120.0, help="seconds between checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    parser.add_argument("--prepare-only", action="store_true")
    parser.add_argument("--report-only", action="store_true", help="measure --out, and draw --plot, without training")
    parser.add_argument("--plot", type=Path, help="draw the figures here, as PNG")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.report_only:
        pool = gather(options)
        if options.prepare_only:
            return
        dev = sets(options.speech, "dev")
        print("sha256", ship(train(pool, dev, options), dev, options.out))
    print(json.dumps(report(options.out, options.speech, options.plot), indent=1))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
