"""How well the voice encoder tells voices apart: equal error rates by dimension on voices it never heard, and a plot.

Recordings are cut into disjoint segments of 2, 2.5, 3 and 4 s, and trials are all pairs of segments of equal length.
Where a speaker has one recording alone, its segments are the same voice in the same room, which flatters; so segments
are also measured each through a line and noise of its own, and voices with several recordings are measured across
these. Intervals are by bootstrap over speakers.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random import Generator, default_rng
from scipy import signal

from models.speaker import DIMENSIONS, SpeakerEncoder
from models.training.augment import add_noise, companded, in_a_room
from models.training.recognizer_data import share
from models.training.speaker_data import TEST, real_voices, rows_of, some, sound
from models.utterance import RECOGNIZER_RATE, Samples

Embed = Callable[[Samples], Samples]

LENGTHS = (2.0, 2.5, 3.0, 4.0)
"""Seconds."""
Part = tuple[list[str], list[str], list[Samples]]
"""Speakers, cuts and sounds; only pairs of one cut are trials."""

PUBLISHED = {8: 4.3, 16: 2.3, 32: 1.4, 64: 1.15, 128: 1.02, 256: 1.0}
"""Equal error rate relative to that at 256 that our targets take as M-Vec's (arXiv 2409.15782)."""


def segments(clip: Samples) -> list[tuple[str, Samples]]:
    """A clip cut into disjoint pieces, once of each of LENGTHS; each piece with the name of its cut."""
    pieces = []
    for seconds in LENGTHS:
        count = int(seconds * RECOGNIZER_RATE)
        pieces += [(str(seconds), clip[n : n + count]) for n in range(0, len(clip) - count + 1, count)]
    return pieces


def joined(clips: Iterable[Samples], seconds: float) -> list[Samples]:
    """Short clips put together until so many seconds are there; each clip is in one piece alone."""
    pieces: list[Samples] = []
    begun: list[Samples] = []
    for clip in clips:
        begun.append(clip)
        if sum(map(len, begun)) >= seconds * RECOGNIZER_RATE:
            pieces.append(np.concatenate(begun))
            begun = []
    return pieces


def through_a_line(samples: Samples, noise: list[Samples], rng: Generator) -> Samples:
    """As another recording of it might be: equalised by a random filter, in a room, with noise at 10 to 25 dB."""
    taps = signal.firwin2(129, np.linspace(0, 1, 7), 10 ** (rng.normal(0.0, 5.0, 7) / 20))
    samples = signal.fftconvolve(samples, taps)[: len(samples)].astype(np.float32)
    if rng.random() < 0.4:
        samples = in_a_room(samples, rng)
    sounds = np.tile(noise[rng.integers(len(noise))], -(-len(samples) // (3 * RECOGNIZER_RATE)))[: len(samples)]
    samples = add_noise(samples, sounds, rng.uniform(10.0, 25.0))
    return companded(samples * 0.3 / np.abs(samples).max()) if rng.random() < 0.2 else samples


def equal_error_rate(same: Samples, other: Samples) -> float:
    """Where as many of one voice are refused as of two are accepted, by cosine; 0 to 1."""
    scores = np.concatenate([same, other])
    order = np.argsort(scores, kind="stable")
    is_same = (np.arange(len(scores)) < len(same))[order]
    refused = np.cumsum(is_same) / len(same)
    accepted = 1 - np.cumsum(~is_same) / len(other)
    place = int(np.argmin(np.abs(refused - accepted)))
    return float((refused[place] + accepted[place]) / 2)


def cosines(vectors: Samples, d: int) -> Samples:
    """Of all pairs, by the first d dimensions: [n, n]."""
    heads = vectors[:, :d] / np.linalg.norm(vectors[:, :d], axis=1, keepdims=True)
    return np.asarray(heads @ heads.T, np.float32)


def trials(names: list[str], cuts: list[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Masks [n, n] of pairs of one voice and of two, both of one cut."""
    voices, parts = np.array(names), np.array(cuts)
    pairs = np.triu(parts[:, None] == parts[None], 1)
    same = voices[:, None] == voices[None]
    return same & pairs, ~same & pairs


def measured(vectors: Samples, names: list[str], cuts: list[str], draws: int = 200) -> dict[str, Any]:
    """Equal error rates at each dimension, in percent, with 95 % intervals unless `draws` is 0, and ratios to 256."""
    speakers = np.array(names)
    same, other = trials(names, cuts)
    by_name = {name: np.flatnonzero(speakers == name) for name in dict.fromkeys(names)}
    rng = default_rng(0)
    drawn = [rng.choice(list(by_name), len(by_name)) for _ in range(draws)]
    rates: dict[str, Any] = {}
    for d in DIMENSIONS:
        close = cosines(vectors, d)
        rate = equal_error_rate(close[same], close[other])
        again = []
        for names_drawn in drawn:  # a speaker drawn twice must not be its own stranger: weights, not copies
            count = np.zeros(len(speakers), np.float32)
            for name in names_drawn:
                count[by_name[name]] += 1
            again.append(weighted(close, same, other, count))
        span = np.nanquantile(again, [0.025, 0.975]) if again else ()
        rates[str(d)] = [round(100 * float(value), 2) for value in (rate, *span)]
    ratios = {d: round(rate[0] / max(rates["256"][0], 1e-9), 2) for d, rate in rates.items()}
    return {
        "speakers": len(by_name), "segments": len(names), "same": int(same.sum()), "other": int(other.sum()),
        "eer": rates, "ratio": ratios,
    }  # fmt: skip


def weighted(close: Samples, same: npt.NDArray[Any], other: npt.NDArray[Any], count: Samples) -> float:
    """The equal error rate where segment i stands `count[i]` times."""
    pairs = np.outer(count, count)
    own = np.maximum(count[:, None], count[None])  # pairs within a speaker are drawn with the speaker
    repeat = lambda mask, weight: np.repeat(close[mask], weight[mask].astype(int))  # noqa: E731
    one, two = repeat(same, own), repeat(other, pairs)
    return equal_error_rate(one, two) if len(one) and len(two) else float("nan")


def sets(folder: Path, split: str) -> dict[str, Part]:
    """What is measured of a data folder's speakers of a split: read speech as it is and over lines, commands joined."""
    noise = [sound(folder / r["path"])[: 3 * RECOGNIZER_RATE] for r in rows_of(folder)
             if r["kind"] == "noise" and share(r["path"]) < TEST]  # fmt: skip
    noise = [clip for clip in noise if len(clip) == 3 * RECOGNIZER_RATE and np.abs(clip).max() > 1e-3]
    found: dict[str, Part] = {name: ([], [], []) for name in ("read", "line", "command")}
    rng = default_rng(7)

    def add(kind: str, name: str, cut: str, samples: Samples) -> None:
        names, cuts, sounds = found[kind]
        names.append(name)
        cuts.append(cut)
        sounds.append(samples)

    for voice in real_voices(folder):
        if voice.split != split:
            continue
        if voice.source == "read":
            for cut, piece in segments(voice.clips[0]):
                add("read", voice.name, cut, piece)
                add("line", voice.name, cut, through_a_line(piece, noise, rng))
        else:
            for piece in joined(voice.clips, 2.5):
                add("command", voice.name, "", piece)
    return found


def embedded(embed: Embed, sounds: list[Samples]) -> Samples:
    return np.stack([embed(samples) for samples in sounds])


def other_recordings(folder: Path) -> dict[str, Part]:
    """Rows that may only be measured with: acted speech, a clip each, and digits joined."""
    found: dict[str, Part] = {"emotion": ([], [], []), "calm": ([], [], []), "digits": ([], [], [])}
    digits: dict[str, list[str]] = defaultdict(list)
    for row in rows_of(folder, "evaluate"):
        if row["kind"] == "emotion_en":
            for kind in ("emotion", "calm") if row["emotion"] in ("neutral", "calm") else ("emotion",):
                found[kind][0].append(row["speaker"])
                found[kind][2].append(sound(folder / row["path"]))
        elif row["kind"] == "digits_en":
            digits[row["speaker"]].append(row["path"])
    for speaker, paths in digits.items():
        pieces = joined([sound(folder / path) for path in some(paths)], 2.5)
        found["digits"][0].extend([speaker] * len(pieces))
        found["digits"][2].extend(pieces)
    return {kind: (names, [""] * len(names), sounds) for kind, (names, _, sounds) in found.items() if sounds}


def threshold_at(vectors: Samples, names: list[str], cuts: list[str], accepted: float, dimensions: int) -> float:
    """The least cosine of prefixes that at most a share `accepted` of two voices' pairs reaches."""
    _, other = trials(names, cuts)
    return float(np.quantile(cosines(vectors, dimensions)[other], 1 - accepted))


def report(model: Path, folder: Path, plot: Path | None) -> dict[str, Any]:
    """Measures a model folder on test speakers and on what may only be measured with; writes the plot."""
    encoder = SpeakerEncoder(model)
    found: dict[str, Any] = {}
    for kind, (names, cuts, sounds) in {**sets(folder, "test"), **other_recordings(folder)}.items():
        vectors = embedded(encoder.embed, sounds)
        many = len(set(names)) >= 10  # of fewer speakers a bootstrap says nothing
        found[kind] = measured(vectors, names, cuts, draws=200 if many else 0)
        same, other = trials(names, cuts)
        close = cosines(vectors, DIMENSIONS[-1])
        found[kind]["at_threshold"] = {
            "false_accept": round(100 * float((close[other] >= encoder.threshold).mean()), 2),
            "false_refuse": round(100 * float((close[same] < encoder.threshold).mean()), 2),
        }
        print(json.dumps({kind: found[kind]}), flush=True)
    if plot is not None:
        draw(found, plot)
    return found


def draw(found: dict[str, Any], path: Path) -> None:
    """Equal error rate by dimension, and relative to 256 beside M-Vec's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    labels = {"read": "read speech", "line": "read speech over random lines", "command": "command words"}
    for kind, label in labels.items():
        rates = np.array([found[kind]["eer"][str(d)] for d in DIMENSIONS])  # rate, or rate, low and high
        left.plot(DIMENSIONS, rates[:, 0], marker="o", label=f"{label}, {found[kind]['speakers']} unseen voices")
        if rates.shape[1] == 3:
            left.fill_between(DIMENSIONS, rates[:, 1], rates[:, 2], alpha=0.12)
        right.plot(DIMENSIONS, [found[kind]["ratio"][str(d)] for d in DIMENSIONS], marker="o", label=label)
    right.plot(DIMENSIONS, [PUBLISHED[d] for d in DIMENSIONS], "k--", marker="x", label="M-Vec (VoxCeleb)")
    left.set(title="Equal error rate, %", xlabel="dimensions", xscale="log", ylim=(0, None))
    right.set(title="Relative to 256 dimensions", xlabel="dimensions", xscale="log", ylim=(0, None))
    for axis in (left, right):
        axis.set_xticks(DIMENSIONS, [str(d) for d in DIMENSIONS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
