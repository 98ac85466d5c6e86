"""How often a command said again in one session is answered from the first time, and how often wrongly.

    python -m bench.respoken --speech DIR [--noise DIR] [--kinds K,K] [--model DIR] [--plot PNG] [--json OUT]

For each speaker of a folder (index.csv says who says what, and which take it is) the first take of every second text is
remembered; then every later take of every text is asked, also of those that were not remembered and must be refused.
The rule and its threshold are those frozen in the model folder. A wrong answer is one of another text.

Reported by kind: the share of what could be answered that is answered rightly, and the wrong ones among all answers,
at the frozen threshold; the same share at the threshold that in hindsight leaves 0.5 % wrong; both with real noise on
the query alone. Baseline in the same run, also in hindsight: MFCC and dynamic time warping, by the better of the
nearest distance and its ratio to the next. A kind whose language the model was trained on is marked seen.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from scipy import fft
from tqdm import tqdm

from bench.bounds import bounds, share_interval
from bench.clips import Choice, Clip, read_folder
from bench.distort import add_noise
from bench.figures import Figure, Figures
from models.hearing import SPREAD
from models.respoken import EMBEDDED, Respoken, Take, spoken
from models.respoken_path import lay_by
from models.utterance import Samples

WRONG: Final = 0.005
"""Wrong answers among all answers that are allowed."""
TARGET: Final = 70.0
FEWEST_TEXTS: Final = 4
"""Different texts that somebody of a kind must say, and one of them twice, for the kind to be measured."""
SNRS: Final = (None, 20.0, 10.0)
COEFFICIENTS: Final = 13


@dataclass(frozen=True, slots=True)
class Asked:
    """One query and what came of it."""

    kind: str
    speaker: str
    snr: float | None
    """dB of the noise on the query; None without."""
    cached: bool
    """Whether the same text was remembered."""
    right: bool
    """Whether the likeliest take says the same."""
    score: float
    accepted: bool
    plain_right: bool
    plain_scores: tuple[float, float]
    """Of the baseline: the nearest distance, negated, and how many times as far the next is."""
    compared: int
    seconds: float
    """CPU time of hearing and comparing."""


@dataclass(frozen=True, slots=True)
class Session:
    """One speaker's clips: what is remembered, and what is asked afterwards."""

    remembered: tuple[Clip, ...]
    asked: tuple[Clip, ...]


def sessions(clips: Sequence[Clip], takes: dict[str, float]) -> Iterator[Session]:
    """By speaker, texts in order of the alphabet, takes in order of their number."""
    said: dict[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        said[clip.speaker][clip.text].append(clip)
    for by_text in (said[speaker] for speaker in sorted(said)):
        in_order = [sorted(by_text[t], key=lambda clip: (takes[clip.path], clip.path)) for t in sorted(by_text)]
        remembered = tuple(clips[0] for clips in in_order[::2])
        asked = tuple(clip for clips in in_order for clip in clips[1:])
        if asked:
            yield Session(remembered, asked)


def take_numbers(folder: Path) -> dict[str, float]:
    """Path to number of take, of the folder's index.csv (or its parent's). Raises `ValueError` where there is none."""
    for root in (folder, folder.parent):
        if (root / "index.csv").exists():
            with (root / "index.csv").open(newline="", encoding="utf-8") as file:
                return {row["path"]: float(row.get("take") or 0) for row in csv.DictReader(file)}
    raise ValueError(f"{folder}: no index.csv, which must say who says what")


def measurable(clips: Sequence[Clip]) -> list[str]:
    """Kinds in which somebody says enough different texts, and one of them again."""
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for clip in clips:
        if clip.text != clip.path:
            counts[clip.kind, clip.speaker][clip.text] += 1
    found = {kind for (kind, _), texts in counts.items() if len(texts) >= FEWEST_TEXTS and max(texts.values()) > 1}
    return sorted(found)


def mfcc(samples: Samples) -> Take | None:
    """The baseline's frames: thirteen coefficients and their slopes, mean and spread taken out, float32 [n, 26]."""
    heard = spoken(samples, 0)
    if heard is None:
        return None
    cepstrum = np.asarray(fft.dct(heard * SPREAD, norm="ortho", axis=1)[:, :COEFFICIENTS])
    frames = np.concatenate([cepstrum, 2 * np.gradient(cepstrum, axis=0)], axis=1)
    return np.asarray((frames - frames.mean(axis=0)) / (frames.std(axis=0) + 1e-3), np.float32)


def euclidean(query: Take, takes: Sequence[Take]) -> Samples:
    """Of `query` to each of `takes`, as `models.respoken_path.Laid.mean`, by the length of frames' difference."""
    joined = np.concatenate(list(takes))
    squares = (query**2).sum(1)[:, None] + (joined**2).sum(1) - 2 * query @ joined.T
    return lay_by(np.sqrt(np.maximum(squares, 0.0)), takes, 1e3).mean


def ask(session: Session, snr: float | None, noises: Sequence[Clip], model: Respoken, seed: int) -> Iterator[Asked]:
    """Every query of a session."""
    rng = np.random.default_rng((seed, int(snr or 0)))
    kept = [(clip, take) for clip in session.remembered if (take := model.hear(clip.samples)) is not None]
    plain = [(clip, take) for clip in session.remembered if (take := mfcc(clip.samples)) is not None]
    for clip in session.asked:
        samples = clip.samples
        if snr is not None:
            samples = add_noise(samples, noises[int(rng.integers(len(noises)))].samples, snr, rng)
        began = time.process_time()
        query = model.hear(samples)
        takes = [take for _, take in kept]
        match = None if query is None else model.match(query, takes, [clip.text for clip, _ in kept])
        accepted = query is not None and match is not None and model.accepts(match, query, takes[match.number])
        spent = time.process_time() - began
        own, nearest, scores = mfcc(samples), -1, (-np.inf, 0.0)
        if own is not None and plain:
            apart = euclidean(own, [take for _, take in plain])
            nearest = int(apart.argmin())
            nextbest = float(np.sort(apart)[1]) if len(apart) > 1 else 2 * float(apart[nearest])
            scores = (-float(apart[nearest]), nextbest / max(float(apart[nearest]), 1e-6))
        yield Asked(
            kind=clip.kind,
            speaker=clip.speaker,
            snr=snr,
            cached=any(clip.text == other.text for other in session.remembered),
            right=match is not None and kept[match.number][0].text == clip.text,
            score=-np.inf if match is None else match.score,
            accepted=accepted,
            plain_right=nearest >= 0 and plain[nearest][0].text == clip.text,
            plain_scores=scores,
            compared=len(kept),
            seconds=spent,
        )


def curve(scores: Sequence[float], right: Sequence[bool], answerable: int) -> tuple[Samples, Samples, Samples]:
    """For each threshold, the highest first: the share answered rightly, the wrong ones among answers, the threshold.

    Equal scores pass together.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    ordered = np.asarray(scores)[order]
    good = np.cumsum(np.asarray(right, np.float64)[order])
    answers = np.arange(1, len(order) + 1)
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(order) else np.zeros(0, int)
    last = last[np.isfinite(ordered[last])]
    wrong = (answers - good) / answers
    return good[last] / max(answerable, 1), wrong[last], ordered[last]


def answered_at(scores: Sequence[float], right: Sequence[bool], answerable: int, wrong: float = WRONG) -> float:
    """The most that can be answered, in %, with at most `wrong` wrong ones among answers."""
    answered, share, _ = curve(scores, right, answerable)
    allowed = answered[share <= wrong]
    return 100.0 * float(allowed.max()) if len(allowed) else 0.0


def report(rows: Sequence[Asked], name: str, out: Figures, *, gate: bool) -> None:
    """Figures of one kind in one condition; `gate`: against the target."""
    answerable = sum(one.cached for one in rows)
    hits = [one for one in rows if one.accepted]
    good = [one.accepted and one.right for one in rows if one.cached]
    names = [one.speaker for one in rows if one.cached]
    baseline = max(
        answered_at([one.plain_scores[rule] for one in rows], [one.plain_right for one in rows], answerable)
        for rule in (0, 1)
    )
    hindsight = answered_at([one.score for one in rows], [one.right for one in rows], answerable)
    low, high = share_interval(good, names)
    errors = bounds([int(not one.right) for one in hits], [1] * len(hits), [one.speaker for one in hits])
    target = TARGET if gate else None
    out.add(Figure(f"{name}: answered at 0.5 % wrong", hindsight, "%", baseline, target, "higher"))
    out.add(Figure(f"{name}: answered, frozen threshold", 100 * float(np.mean(good)), "%", baseline, target, "higher"))
    out.add(Figure(f"{name}: answered, frozen, 95 % interval by speaker, from", low, "%"))
    out.add(Figure(f"{name}: answered, frozen, 95 % interval by speaker, to", high, "%"))
    share = 100 * errors.errors / max(errors.trials, 1)
    out.add(Figure(f"{name}: wrong among answers, frozen", share, "%", None, 100 * WRONG if gate else None))
    out.add(Figure(f"{name}: wrong among answers, 95 % bound", 100 * errors.plain, "%"))
    out.add(Figure(f"{name}: wrong among answers, 95 % bound by speaker", 100 * errors.resampled, "%"))
    counts = {"queries": len(rows), "of what is remembered": answerable, "answers": len(hits), "wrong": errors.errors}
    out.context[name] = counts | {"speakers": len({one.speaker for one in rows})}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the head of the file."""
    parser = argparse.ArgumentParser(prog="bench.respoken", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--speech", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--noise", type=Path, help="folder of noise; default: what --speech has of it")
    parser.add_argument("--kinds", help="comma-separated; default: all in which texts are said again")
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="model folder; default: the shipped one")
    parser.add_argument("--plot", type=Path, help="draw answered against wrong here, as PNG")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    model = Respoken(options.model)
    try:
        takes = take_numbers(options.speech)
        choice = Choice(kinds=tuple(options.kinds.split(",")) if options.kinds else ())
        clips = read_folder(options.speech, choice, noise=False)
        if not (kinds := measurable(clips)):
            raise ValueError(f"{options.speech}: nobody says {FEWEST_TEXTS} texts, and one of them again")
    except ValueError as problem:
        sys.exit(str(problem))
    try:
        noises = read_folder(options.noise or options.speech, Choice(), noise=True)
    except ValueError:
        noises = []
    seen = set(model.model.options.get("languages", ()))
    told = {"model": str(model.model.manifest["name"]), "threshold": model.threshold, "trained on": sorted(seen)}
    out = Figures(told)
    drawn = {}
    every: list[Asked] = []
    for kind in kinds:
        of_kind = [clip for clip in clips if clip.kind == kind]
        language = dict(of_kind[0].told).get("lang", "")
        title = f"{kind} ({'seen' if language in seen else 'unseen'} language)"
        for snr in SNRS if noises else SNRS[:1]:
            rows = [
                one
                for number, session in enumerate(tqdm(list(sessions(of_kind, takes)), desc=f"{kind} {snr or 'clean'}"))
                for one in ask(session, snr, noises, model, number)
            ]
            name = title if snr is None else f"{title}, noise {snr:.0f} dB"
            report(rows, name, out, gate=snr is None and language not in seen)
            every += rows
            if snr is None:
                drawn[title] = rows
    out.add(Figure("CPU time of a query", 1e3 * float(np.mean([one.seconds for one in every])), "ms"))
    out.add(Figure("takes compared with a query, mean", float(np.mean([one.compared for one in every])), "takes"))
    if options.plot:
        from bench.respoken_plot import draw  # matplotlib is needed for nothing else here

        draw(drawn, model.threshold, options.plot)
    out.write(options.json)


if __name__ == "__main__":
    main()
