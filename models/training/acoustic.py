"""Trains phones to mel, and writes the model folder.

    python -m models.training acoustic features CORPUS CACHE/one       # once a corpus: mels, pitch, frames a phone
    python -m models.training acoustic train CACHE RUN --minutes 60    # continues from RUN/last.pt if that is there
    python -m models.training acoustic export RUN FOLDER               # RUN's averaged weights as an ONNX model folder
    python -m models.training acoustic embed FOLDER CORPUS CORPUS      # voices by the speaker encoder's embeddings
    python -m models.training acoustic report CORPUS OUT               # words heard, moods measured, pictures

`train --start-from FOLDER` begins with the weights of a shipped model; voices that it lacks begin as their speaker's.
The learning rate falls to its end by whichever comes first, `--steps` or `--minutes`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from models.training.acoustic_data import VOICES, Item, load, prepare
from models.training.acoustic_model import Acoustic, begin_as, model_of

SPEECH_LEVEL = 1.2
"""Mean log energy of voiced frames that every voice is brought to, so that none is louder than another and angry ones
do not clip: about -22 dB below full scale through the shipped vocoder."""


@dataclass(frozen=True)
class Batch:
    """Padded tensors of some utterances; masks are 1.0 where something is."""

    symbols: Tensor
    frames: Tensor
    phone_mask: Tensor
    mel: Tensor
    pitch: Tensor
    voiced: Tensor
    energy: Tensor
    frame_mask: Tensor
    voice: Tensor
    plain: Tensor


def level_of(items: Sequence[Item]) -> dict[int, float]:
    """By voice: what to add to its mels so that the mean energy of its voiced frames is SPEECH_LEVEL."""
    found: dict[int, list[float]] = {}
    for item in items:
        if item.plain and item.voiced.any() and len(found.setdefault(item.voice, [])) < 300:
            found[item.voice].append(float(item.energy[item.voiced].mean()))
    return {voice: SPEECH_LEVEL - float(np.mean(values)) for voice, values in found.items()}


def collate(items: Sequence[Item], levels: dict[int, float], scale: Tensor) -> Batch:
    """`scale`: mean and deviation of the energy."""
    phones = max(len(i.symbols) for i in items)
    frames = max(len(i.mel) for i in items)
    frames += frames % 2
    n = len(items)
    symbols, lasting = torch.zeros(n, phones, dtype=torch.long), torch.zeros(n, phones, dtype=torch.long)
    phone_mask, frame_mask = torch.zeros(n, phones, 1), torch.zeros(n, frames, 1)
    mel, pitch = torch.full((n, frames, 80), -11.0), torch.full((n, frames), 4.8)
    voiced, energy = torch.zeros(n, frames), torch.zeros(n, frames)
    for row, item in enumerate(items):
        t, p = len(item.mel), len(item.symbols)
        symbols[row, :p], lasting[row, :p] = torch.from_numpy(item.symbols), torch.from_numpy(item.frames)
        phone_mask[row, :p], frame_mask[row, :t] = 1.0, 1.0
        mel[row, :t] = torch.from_numpy(item.mel.astype(np.float32)) + levels[item.voice]
        pitch[row, :t] = torch.from_numpy(item.pitch)
        voiced[row, :t] = torch.from_numpy(item.voiced)
        energy[row, :t] = (torch.from_numpy(item.energy) + levels[item.voice] - scale[0]) / scale[1]
    voice = torch.tensor([i.voice for i in items])
    plain = torch.tensor([float(i.plain) for i in items])
    return Batch(symbols, lasting, phone_mask, mel, pitch, voiced, energy, frame_mask, voice, plain)


def batches(items: Sequence[Item], frames: int, rng: np.random.Generator) -> Iterator[list[Item]]:
    """Endless; utterances of like length together, about `frames` frames a batch."""
    while True:
        order = sorted(items, key=lambda i: len(i.mel) * rng.uniform(0.85, 1.15))
        groups: list[list[Item]] = [[]]
        for item in order:
            if groups[-1] and (len(groups[-1]) + 1) * len(item.mel) > frames:
                groups.append([])
            groups[-1].append(item)
        for n in rng.permutation(len(groups)):
            yield groups[n]


def mean_of(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def losses(model: Acoustic, batch: Batch) -> dict[str, Tensor]:
    """mel, slope: L1 of the mel and of its slopes in time and band. length, pitch, energy: of plain utterances only."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden, lasting = model.encode(batch.symbols, model.voice(batch.voice), batch.phone_mask)
        spread = model.stretch(hidden, batch.frames, torch.tensor(batch.mel.shape[1]))
        pair_mask = batch.frame_mask[:, ::2]
        spread = spread * batch.frame_mask
        pitch, energy = model.predict_prosody(spread, model.voice_pitch[batch.voice], pair_mask)
        mel = model.decode(spread, batch.pitch, batch.energy, pair_mask)
    mask, plain = batch.frame_mask, batch.plain[:, None]
    flat = mask.squeeze(-1)
    slope = functional.l1_loss(mel.diff(dim=1), batch.mel.diff(dim=1), reduction="none") * mask[:, 1:]
    across = functional.l1_loss(mel.diff(dim=2), batch.mel.diff(dim=2), reduction="none") * mask
    return {
        "mel": mean_of((mel - batch.mel).abs().mean(dim=2), flat),
        "slope": (slope.mean(dim=2).sum() + across.mean(dim=2).sum()) / flat.sum(),
        "length": mean_of(
            (lasting.float() - torch.log1p(batch.frames.float())).square(), batch.phone_mask.squeeze(-1) * plain
        ),
        "pitch": mean_of((pitch.float() - batch.pitch).abs(), batch.voiced * flat * plain),
        "energy": mean_of((energy.float() - batch.energy).square(), flat * plain),
    }


WEIGHTS = {"mel": 1.0, "slope": 0.5, "length": 1.0, "pitch": 2.0, "energy": 0.2}


class Average:
    """Exponential moving average of the weights: what is measured and shipped."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.steps = 0

    def update(self, model: nn.Module) -> None:
        self.steps += 1
        keep = min(0.995, (1 + self.steps) / (10 + self.steps))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value.detach(), 1 - keep)


def measure(weights: dict[str, Tensor], items: Sequence[Item], levels: dict[int, float]) -> dict[str, float]:
    """Mean losses over dev utterances."""
    model = model_of(weights)
    groups = [items[start : start + 16] for start in range(0, len(items), 16)]
    with torch.no_grad():
        found = [losses(model, collate(group, levels, model.energy_scale)) for group in groups]
    return {name: float(torch.stack([f[name] for f in found]).mean()) for name in WEIGHTS}


def train(
    items: Sequence[Item],
    run: Path,
    *,
    steps: int,
    minutes: float,
    frames: int,
    rate: float,
    seed: int,
    sizes: Sequence[int] = (192, 224, 128),
    start_from: Path | None = None,
) -> None:
    """Writes RUN/last.pt (to continue), RUN/average.pt (to export) and RUN/log.jsonl every 200 steps and at the end."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    training, dev = [i for i in items if not i.dev], [i for i in items if i.dev][:160]
    levels = level_of(training)
    model = Acoustic(len(VOICES), *sizes)
    set_scales(model, training, levels)
    if start_from:
        begin_as(model, start_from)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    average, first = Average(model), 0
    if (run / "last.pt").exists():
        state = torch.load(run / "last.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average.weights, average.steps, first = state["average"], state["step"] // 4, state["step"]
    started, warm = time.monotonic(), 50 if start_from else 150
    sums: dict[str, float] = {}
    source = batches(training, frames, rng)
    bar = tqdm(range(first + 1, steps + 1), initial=first, total=steps, desc="phones to mel", mininterval=10.0)
    for step in bar:
        passed = (time.monotonic() - started) / 60
        progress = min(1.0, max(passed / minutes, (step - first) / max(1, steps - first)))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, step / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        found = losses(model, collate(next(source), levels, model.energy_scale))
        loss = torch.stack([WEIGHTS[name] * value for name, value in found.items()]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 4 == 0:
            average.update(model)
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if step % 50 == 0:
            bar.set_postfix({k: f"{v / 50:.3f}" for k, v in sums.items()} | {"min": f"{passed:.1f}/{minutes:.0f}"})
            sums = {}
        if step % 200 == 0 or step == steps or progress >= 1.0:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average.weights}
            torch.save({**state, "step": step}, run / "last.part")
            (run / "last.part").replace(run / "last.pt")
            torch.save(average.weights, run / "average.pt")
            report = measure(average.weights, dev, levels) if dev else {}
            with (run / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "minutes": round(passed, 2), **report}) + "\n")
        if progress >= 1.0:
            break


def set_scales(model: Acoustic, items: Sequence[Item], levels: dict[int, float]) -> None:
    """Mean log pitch of each voice, mean and deviation of the energy: fixed figures inside the graph."""
    for voice in range(len(VOICES)):
        own = [i.pitch[i.voiced] for i in items if i.voice == voice and i.plain and i.voiced.any()]
        if own:
            model.voice_pitch[voice] = float(np.concatenate(own).mean())
    energies = np.concatenate([i.energy + levels[i.voice] for i in items[:1000]])
    model.energy_scale[:] = torch.tensor([float(energies.mean()), float(energies.std())])


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="models.training acoustic")
    parts = parser.add_subparsers(dest="part", required=True)
    features = parts.add_parser("features")
    features.add_argument("corpus", type=Path)
    features.add_argument("cache", type=Path)
    features.add_argument("--processes", type=int, default=2)
    features.add_argument("--limit", type=int, help="only the first so many utterances")
    training = parts.add_parser("train")
    training.add_argument("cache", type=Path)
    training.add_argument("run", type=Path)
    training.add_argument("--steps", type=int, default=12_000)
    training.add_argument("--minutes", type=float, default=math.inf)
    training.add_argument("--frames", type=int, default=3000, help="mel frames a batch")
    training.add_argument("--rate", type=float, default=1.5e-3)
    training.add_argument("--seed", type=int, default=1)
    training.add_argument("--threads", type=int, default=1)
    training.add_argument("--start-from", type=Path, metavar="FOLDER", help="a shipped model's folder")
    shipping = parts.add_parser("export")
    shipping.add_argument("run", type=Path)
    shipping.add_argument("folder", type=Path)
    embedding = parts.add_parser("embed")
    embedding.add_argument("folder", type=Path)
    embedding.add_argument("corpora", type=Path, nargs="+", metavar="CORPUS")
    embedding.add_argument("--encoder", type=Path, help="a speaker encoder's folder other than the embedded one")
    judging = parts.add_parser("report")
    judging.add_argument("corpus", type=Path)
    judging.add_argument("out", type=Path)
    judging.add_argument("--folder", type=Path, help="a model folder other than the embedded one")
    judging.add_argument("--vocoder", type=Path, help="a vocoder's model folder; Griffin-Lim without it")
    judging.add_argument("--sentences", type=int, default=100)
    judging.add_argument("--voices-each", type=int, default=1, help="how many voices say each sentence")
    options = parser.parse_args(argv)
    if options.part == "features":
        prepare(options.corpus, options.cache, options.processes, options.limit)
    elif options.part == "train":
        torch.set_num_threads(options.threads)
        o = options
        items = list(load(o.cache))
        train(
            items, o.run, steps=o.steps, minutes=o.minutes, frames=o.frames, rate=o.rate, seed=o.seed,
            start_from=o.start_from,
        )  # fmt: skip
    elif options.part == "export":
        from models.training.acoustic_export import export

        export(options.run, options.folder)
    elif options.part == "embed":
        from models.training.acoustic_export import embed

        embed(options.folder, options.corpora, options.encoder)
    else:
        from models.training.acoustic_report import report

        o = options
        report(o.corpus, o.out, o.folder, o.vocoder, o.sentences, o.voices_each)
