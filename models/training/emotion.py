"""Trains the emotion encoder on prosody with known arousal, and ships it as ONNX.

    python -m models.training emotion train --data DIR --work WORK      # make the data, train, export, find the moods
    python -m models.training emotion centroids                         # moods again, after another synthesizer
    python -m models.training emotion report --speech DIR --out OUT     # measure on acted emotion; see emotion_report

The network is small (a few thousand weights) because what it learned from is not what it will hear: the fewer ways it
has to fit the altered speech, the more it keeps to what arousal does to anybody's voice. From its unit-norm embedding
it tells the arousal and, so that the embedding holds more than that, each cue that was changed.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import trange

from models.emotion import EMBEDDED
from models.prosody import FEATURES
from models.training.emotion_alter import CUES
from models.training.emotion_data import Examples, prepare
from models.training.emotion_moods import Moods, find
from models.training.export import write_manifest
from models.training.measures import area

WIDTH, SIZE = 64, 16
SLOPE = 2.0
"""Of the logistic that brings a score of -1 to 1 into 0.12 to 0.88."""


class Encoder(nn.Module):
    """Prosody [B, 41] -> embedding [B, 16] of unit norm, score [B], cues [B, 8]."""

    centre: Tensor
    spread: Tensor

    def __init__(self, centre: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)
        self.body = nn.Sequential(
            nn.Linear(len(FEATURES), WIDTH), nn.SiLU(), nn.Dropout(0.1), nn.Linear(WIDTH, WIDTH), nn.SiLU()
        )
        self.narrow = nn.Linear(WIDTH, SIZE)
        self.arousal = nn.Linear(SIZE, 1)
        self.cues = nn.Linear(SIZE, len(CUES))

    def forward(self, prosody: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Measures far outside of what was trained on count as just outside it.
        seen = torch.clamp((prosody - self.centre) / self.spread, -4.0, 4.0)
        if self.training:
            seen = seen * (torch.rand_like(seen) > 0.15)
        wide = self.narrow(self.body(seen))
        embedding = wide / torch.sqrt(torch.square(wide).sum(dim=1, keepdim=True) + 1e-8)
        return embedding, self.arousal(embedding)[:, 0], self.cues(embedding)


class Graph(nn.Module):
    """What ships: prosody [B, 41] -> embedding [B, 16], arousal [B] in 0 to 1."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, prosody: Tensor) -> tuple[Tensor, Tensor]:
        embedding, score, _ = self.encoder(prosody)
        return embedding, torch.sigmoid(SLOPE * score)


def ranking(score: Tensor, arousal: Tensor) -> Tensor:
    """Versions of one stretch [S, V] in their right order: logistic loss on all pairs, weighed by their distance."""
    apart = arousal[:, :, None] - arousal[:, None, :]
    margin = (score[:, :, None] - score[:, None, :]) * torch.sign(apart)
    return (nn.functional.softplus(-4.0 * margin) * apart.abs()).sum() / (apart.abs().sum() + 1e-6)


def train(examples: Examples, work: Path, epochs: int, seed: int) -> Encoder:
    """Trains, or goes on from `work`/checkpoint.pt; prints what the dev speakers say every tenth epoch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    features, arousal, cues = (torch.from_numpy(x) for x in (examples.features, examples.arousal, examples.cues))
    chosen = np.flatnonzero(~examples.dev)
    flat = features[chosen].reshape(-1, len(FEATURES))
    encoder = Encoder(flat.mean(dim=0), flat.std(dim=0) + 1e-3)
    optimizer = torch.optim.AdamW(encoder.parameters(), 2e-3, weight_decay=0.02)
    begun = 0
    saved = work / "checkpoint.pt"
    if saved.is_file():
        state = torch.load(saved)
        encoder.load_state_dict(state["encoder"])
        optimizer.load_state_dict(state["optimizer"])
        begun = state["epoch"]
    for epoch in trange(begun, epochs, desc="epochs", mininterval=10.0):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        encoder.train()
        for batch in np.array_split(rng.permutation(chosen), max(1, len(chosen) // 48)):
            _, score, told = encoder(features[batch].reshape(-1, len(FEATURES)))
            wanted = arousal[batch]
            loss = (
                nn.functional.mse_loss(score, wanted.reshape(-1))
                + 0.3 * ranking(score.reshape(wanted.shape), wanted)
                + 0.2 * nn.functional.smooth_l1_loss(told, cues[batch].reshape(-1, len(CUES)))
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if (epoch + 1) % 10 == 0 or epoch + 1 == epochs:
            line = {"epoch": epoch + 1, "loss": round(loss.item(), 4), **judged(encoder, examples)}
            print(json.dumps(line), flush=True)
            state = {"encoder": encoder.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
            torch.save(state, saved.with_suffix(".new"))
            saved.with_suffix(".new").replace(saved)
    return encoder.eval()


def judged(encoder: Encoder, examples: Examples) -> dict[str, float]:
    """On dev speakers' altered speech: AUC of arousal above 0.3 against below -0.3; R2 of arousal and of each cue."""
    encoder.eval()
    dev = examples.dev
    with torch.no_grad():
        _, score, told = encoder(torch.from_numpy(examples.features[dev].reshape(-1, len(FEATURES))))
    arousal = examples.arousal[dev].reshape(-1)
    cues = examples.cues[dev].reshape(-1, len(CUES))
    left = np.square(told.numpy() - cues).mean(axis=0) / cues.var(axis=0)
    result = {
        "dev_auc": area(score.numpy()[arousal > 0.3], score.numpy()[arousal < -0.3]),
        "arousal_r2": 1.0 - float(np.square(score.numpy() - arousal).mean() / arousal.var()),
    }
    result |= {f"{name}_r2": 1.0 - float(value) for name, value in zip(CUES, left, strict=True)}
    return {name: round(value, 3) for name, value in result.items()}


def export(encoder: Encoder, folder: Path) -> None:
    """Writes the graph and its manifest (without moods), and proves that onnxruntime gives what torch gives."""
    import onnxruntime as ort

    folder.mkdir(parents=True, exist_ok=True)
    graph = Graph(encoder).eval()
    example = encoder.centre[None] + torch.zeros(2, 1)
    path = folder / "model.onnx"
    torch.onnx.export(
        graph,
        (example,),
        str(path),
        input_names=["prosody"],
        output_names=["embedding", "arousal"],
        dynamic_axes={"prosody": {0: "B"}, "embedding": {0: "B"}, "arousal": {0: "B"}},
        opset_version=18,
        dynamo=False,
    )
    tried = encoder.centre + encoder.spread * torch.randn(64, len(FEATURES))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(None, {"prosody": tried.numpy()})
    with torch.no_grad():
        for mine, theirs in zip(graph(tried), got, strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-5)
    ship(folder, Moods())


def ship(folder: Path, moods: Moods) -> None:
    """Writes model.toml with these moods."""
    options = {"features": list(FEATURES), "moods": moods.names, "mood_axes": moods.axes, "centroids": moods.centroids}
    write_manifest(folder, "refrain-emotion-1", "emotion", "Apache-2.0", options)


def main(argv: list[str]) -> None:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(prog="models.training emotion", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    training = parts.add_parser("train", help="make the data, train, export, find the moods")
    training.add_argument("--data", type=Path, required=True, help="real speech and noise: a folder with index.csv")
    training.add_argument("--work", type=Path, required=True, help="prepared data and the checkpoint go here")
    training.add_argument("--epochs", type=int, default=60)
    training.add_argument("--seed", type=int, default=1)
    moods = parts.add_parser("centroids", help="measure the moods of the embedded synthesizer again")
    report = parts.add_parser("report", help="measure on acted emotion (kind emotion_en)")
    report.add_argument("--speech", type=Path, required=True, help="a folder with index.csv")
    report.add_argument("--out", type=Path, required=True, help="report.json and emotion-roc.png go here")
    for part in (training, moods, report):
        part.add_argument("--folder", type=Path, default=EMBEDDED, help="the model folder")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.part == "report":
        from models.training.emotion_report import report as measure

        measure(options.speech, options.folder, options.out)
        return
    if options.part == "train":
        encoder = train(prepare(options.data, options.work, options.seed), options.work, options.epochs, options.seed)
        print(f"{sum(p.numel() for p in encoder.parameters())} parameters")
        export(encoder, options.folder)
    ship(options.folder, Moods())  # whatever moods another version measured are not to be read
    found, figures = find(options.folder)
    ship(options.folder, found)
    print(json.dumps(figures, indent=1))
