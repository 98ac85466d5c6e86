"""How often a recording heard before is known again, and how often something else is taken for it.

    python -m bench.recall --speech DIR --noise DIR [--half 0|1] [--json OUT]

Enrols every clip of a folder (its index.csv says who speaks what), asks with distorted copies, and compares them with
everything else. Thresholds are those frozen in gateway.fingerprint.verify. A false hit is one of another transcript.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import soxr
from scipy.stats import beta
from tqdm import tqdm

from bench.distort import DISTORTIONS, RATE, Random
from bench.exhaustive import Everything, classic_distance
from bench.figures import Figure, Figures
from bench.swaps import containments, nothings, swaps
from gateway.fingerprint.bits import Fingerprint, fingerprint
from gateway.fingerprint.index import RecallIndex
from gateway.fingerprint.verify import verify
from models.utterance import Samples

WORD_S: Final = 1.6
"""Seconds up to which a clip counts as a word."""
HK_THRESHOLD: Final = 0.35
FLOORS: Final = {
    "clean": (93, 99),
    "gain -20 to +6 dB": (93, 99),
    "clip 6 dB": (93, 99),
    "shift 0-300 ms": (93, 99),
    "noise 20 dB": (90, 99),
    "noise 10 dB": (72, 93),
    "noise 5 dB": (50, 70),
    "telephone": (92, 99),
    "opus 16k": (92, 99),
    "telephone + noise 10 dB": (68, 86),
    "room 0.3-0.6 s": (35, 50),
    "speed +-1 %": (70, 80),
}
"""Recall in % that is asked for, of words and of longer speech."""


@dataclass(frozen=True, slots=True)
class Clip:
    speaker: str
    text: str
    samples: Samples


def read_folder(folder: Path, half: int | None, noise: bool) -> list[Clip]:
    """Clips of `folder` by its index.csv (or its parent's), or every FLAC and WAV in it where there is none.

    `half` takes every second speaker, or clip where speakers are not told; a clip without text is its own text.
    """
    root = folder if (folder / "index.csv").exists() else folder.parent
    rows: list[dict[str, str]] = []
    if (root / "index.csv").exists():
        with (root / "index.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if (root / row["path"]).is_relative_to(folder)]
        rows = [row for row in rows if (row["kind"] == "noise") == noise]
    else:
        root = folder
        paths = sorted(path for path in folder.rglob("*") if path.suffix in (".flac", ".wav"))
        rows = [{"path": str(path.relative_to(root)), "kind": "", "speaker": "", "text": ""} for path in paths]
    kinds: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        kinds[row["kind"]].append(row)
    chosen = []
    for kind in kinds.values():
        speakers = {name: number for number, name in enumerate(sorted({row["speaker"] for row in kind}))}
        for number, row in enumerate(kind):
            order = speakers[row["speaker"]] if len(speakers) > 1 else number
            if half is None or order % 2 == half:
                chosen.append(row)
    return [
        Clip(row["speaker"], f"{row.get('lang', '')}:{row['text']}" if row["text"] else row["path"], read(root, row))
        for row in chosen
    ]


def read(root: Path, row: dict[str, str]) -> Samples:
    samples, rate = soundfile.read(root / row["path"], dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return np.asarray(mono if rate == RATE else soxr.resample(mono, rate, RATE), dtype=np.float32)


def upper(hits: int, trials: int) -> float:
    """95 % Clopper-Pearson upper bound."""
    return 1.0 if hits >= trials else float(beta.ppf(0.95, hits + 1, trials - hits))


def digest(samples: Samples) -> bytes:
    """What an exact cache knows a recording by: its 16-bit samples."""
    return hashlib.blake2b((samples * 32767).astype("<i2").tobytes(), digest_size=16).digest()


def measure(name: str, clips: list[Clip], noises: list[Clip], limit: int, rng: Random, out: Figures) -> None:
    """One group of clips against itself: recall by distortion, false hits against all others, baselines."""
    prints = [fingerprint(clip.samples) for clip in clips]
    index = RecallIndex(len(clips))
    for number, fp in enumerate(prints):
        if fp is not None:
            index.add(number.to_bytes(4, "big"), fp)
    everything = Everything([(number, fp) for number, fp in enumerate(prints) if fp is not None])
    exact = {digest(clip.samples) for clip in clips}
    asked = rng.permutation(len(clips))[:limit]
    column = 0 if name == "words" else 1
    compared = wrong = wrong_lookups = classic_wrong = 0
    hit_all: list[bool] = []
    for distortion, change in DISTORTIONS.items():
        hit, candidate, judged, same_bytes, classic = 0, 0, 0, 0, 0
        for number in tqdm(asked, desc=f"{name}: {distortion}", leave=False):
            clip = clips[number]
            copy = np.asarray(change(clip.samples, noises[rng.integers(len(noises))].samples, rng), np.float32)
            same_bytes += digest(copy) in exact
            query, source = fingerprint(copy), prints[number]
            if query is None or source is None:
                hit_all.append(False)
                continue
            found = index.lookup(query)
            known = found is not None and clips[int.from_bytes(found.id, "big")].text == clip.text
            wrong_lookups += found is not None and not known
            hit += known
            hit_all.append(known)
            candidate += any(c.id == int(number).to_bytes(4, "big") for c in index.candidates(query))
            judged += verify(query, source).accepted
            classic += classic_distance(query, source) < HK_THRESHOLD
            others = [i for i, fp in enumerate(prints) if fp is not None and clips[i].text != clip.text]
            compared += len(others)
            wrong += sum(clips[i].text != clip.text for i in everything.accepted(query))
            classic_wrong += sum(clips[i].text != clip.text for i in everything.classic(query, HK_THRESHOLD))
        n, floor = len(asked), FLOORS[distortion][column]
        out.add(Figure(f"{name}, {distortion}: recall", 100 * hit / n, "%", 100 * same_bytes / n, floor, "higher"))
        out.add(Figure(f"{name}, {distortion}: among the candidates", 100 * candidate / n, "%"))
        out.add(Figure(f"{name}, {distortion}: passes the verifier", 100 * judged / n, "%", 100 * classic / n))
    out.add(Figure(f"{name}: mean recall", 100 * float(np.mean(hit_all)), "%"))
    out.add(Figure(f"{name}: false hits, lookups", wrong_lookups, f"of {len(hit_all)}", None, 0))
    out.add(Figure(f"{name}: false hits, all pairs", wrong, f"of {compared} pairs", classic_wrong, 0))
    out.add(Figure(f"{name}: false hits a pair, 95 % upper bound", upper(wrong, max(compared, 1)), "rate"))
    out.add(
        Figure(f"{name}: refused for under 0.3 s of speech", 100 * sum(p is None for p in prints) / len(prints), "%")
    )
    lookup_time(name, index, [fp for fp in prints[:200] if fp is not None], out)


def lookup_time(name: str, index: RecallIndex, queries: list[Fingerprint], out: Figures) -> None:
    times = []
    for query in queries:
        start = time.process_time()
        index.lookup(query)
        times.append(1000 * (time.process_time() - start))
    out.add(Figure(f"{name}: lookup among {len(index)}, p50", float(np.median(times)), "ms CPU"))
    out.add(Figure(f"{name}: lookup among {len(index)}, p99", float(np.quantile(times, 0.99)), "ms CPU"))


def measure_pairs(
    words: list[Clip], speech: list[Clip], noises: list[Clip], count: int, rng: Random, out: Figures
) -> None:
    """Pairs made to be confused: one word swapped, one utterance inside another, and sounds that say nothing."""
    noise = [clip.samples for clip in noises]
    kinds = {
        "one-word swaps": swaps(words, speech, noise, count, rng),
        "containment": containments(words, count // 2, rng),
        "silence, tones, noise": nothings(words, noise, count // 2, rng),
    }
    for kind, pairs in kinds.items():
        trials = hits = classic = 0
        for stored, heard in tqdm(pairs, desc=kind, total=count, leave=False):
            source, query = fingerprint(stored), fingerprint(heard)
            trials += 1
            if source is not None and query is not None:
                hits += verify(query, Fingerprint.from_bytes(source.to_bytes())).accepted
                classic += classic_distance(query, source) < HK_THRESHOLD
        if not trials:
            continue
        out.add(Figure(f"{kind}: false hits", hits, f"of {trials}", classic, None if kind == "one-word swaps" else 0))
        out.add(Figure(f"{kind}: 95 % upper bound", 100 * upper(hits, trials), "%", 100 * upper(classic, trials), 0.3))


def fingerprint_time(clips: list[Clip], out: Figures) -> None:
    seconds = spent = 0.0
    for clip in clips[:300]:
        start = time.process_time()
        fingerprint(clip.samples)
        spent += time.process_time() - start
        seconds += len(clip.samples) / RATE
    out.add(Figure("fingerprinting", 1000 * spent / seconds, "ms CPU a second of speech", None, 0.6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--speech", type=Path, required=True, help="folder with index.csv, or of FLAC and WAV files")
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--half", type=int, choices=(0, 1), help="only every second speaker: 0 was developed on")
    parser.add_argument("--limit", type=int, default=400, help="queries a distortion")
    parser.add_argument("--swaps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    clips = read_folder(options.speech, options.half, noise=False)
    noises = read_folder(options.noise, options.half, noise=True)
    words = [clip for clip in clips if len(clip.samples) <= WORD_S * RATE]
    speech = [clip for clip in clips if len(clip.samples) > WORD_S * RATE]
    out = Figures(
        {"clips": len(clips), "noises": len(noises), "half": options.half, "seed": options.seed, "limit": options.limit}
    )
    for name, group in (("words", words), ("speech", speech)):
        if group:
            measure(name, group, noises, options.limit, rng, out)
    measure_pairs(words, speech, noises, options.swaps, rng, out)
    fingerprint_time(clips, out)
    out.write(options.json)


if __name__ == "__main__":
    main()
