"""The recall index from a few thousand to a million recordings: time, memory, who is turned away, who is found.

    python -m bench.index --speech DIR [--noise DIR] --entries 10000,100000,1000000 [--json OUT] [--plot DIR]

Half of the clips of a folder (its index.csv tells speakers) are enrolled, at random moments while the index is filled
up with perturbed copies (`bench.fill`) of the other half's clips; distorted copies of the enrolled clips ask, and so do
some of the other half, strangers all, of which no copies are made. Times are of the processor, one thread. Memory is
what the process grows by, everything in it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from bench.clips import Choice, Clip, read_folder
from bench.distort import Surroundings, copy_of
from bench.figures import Figure, Figures
from bench.fill import BATCH, fill
from bench.index_curve import curve, plot
from bench.index_rivals import filters, fingerprinting, rivals
from gateway.arguments import folder, new_file, whole
from gateway.fingerprint.bits import Fingerprint, fingerprint
from gateway.fingerprint.flat import FlatTable
from gateway.fingerprint.index import CANDIDATES, Candidate, RecallIndex, best_of
from gateway.fingerprint.listen import listen

ASKED: Final = ("noise 20 dB", "noise 10 dB", "noise 5 dB", "telephone", "telephone + noise 10 dB", "simulated room")
SINGLE: Final = 3000
"""Entries enrolled one by one at each size, for the times of one insert."""
FLAT_ALL: Final = 100_000
"""Entries up to which a flat scan is asked all the same: at a million, where it takes seconds, every tenth."""


@dataclass(frozen=True, slots=True)
class Query:
    distortion: str
    id: bytes
    fp: Fingerprint


Entry = tuple[bytes, Fingerprint, tuple[str, ...]]


def cpu(work: Callable[[], object]) -> float:
    """Milliseconds of processor time."""
    start = time.process_time_ns()
    work()
    return (time.process_time_ns() - start) / 1e6


def resident() -> int:
    """Bytes of memory of this process, freed ones given back."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library gives back by itself, or not
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def id_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def queries(clips: list[Clip], prints: list[Fingerprint | None], noises: list[Clip], limit: int) -> list[Query]:
    rng = np.random.default_rng(2)
    around = Surroundings([noise.samples for noise in noises])
    found = []
    for name in ASKED:
        if "noise" in name and not noises:
            continue
        for number in rng.permutation(len(clips))[:limit].tolist():
            query = listen(copy_of(clips[number].samples, name, around, rng))
            if query is not None and prints[number] is not None:
                found.append(Query(name, id_of(number), query))
    return found


def grow(
    index: RecallIndex, size: int, real: list[Entry], prints: list[Fingerprint], rng: np.random.Generator, out: Figures
) -> None:
    """Fill `index` up to `size`, `real` ones among it; how fast many at once, and how fast one by one, are enrolled."""
    spent = 0.0
    many = size - min(SINGLE, size // 4)
    filled = many - len(real)
    batches = -(-filled // BATCH)
    moments = np.array_split(rng.permutation(len(real)), batches)
    batch: list[Entry]
    for number, batch in enumerate(fill(prints, filled, rng)):
        batch += [real[one] for one in moments[number]]
        records = [(id, fp.to_bytes(), tags) for id, fp, tags in batch]
        spent += cpu(
            lambda records=records: index.add_many(  # type: ignore[misc]
                [(id, Fingerprint.from_bytes(data), tags) for id, data, tags in records]
            )
        )
    speed = 1000 * many / spent
    out.add(Figure(f"{size}: rebuild, recordings a second of processor time", speed, "1/s", None, 20_000, "higher"))
    times = [cpu(lambda one=one: index.add(*one)) for batch in fill(prints, size - len(index), rng) for one in batch]  # type: ignore[misc]
    out.add(Figure(f"{size}: insert, median", float(np.median(times)), "ms CPU", None, 1.0))
    out.add(Figure(f"{size}: insert, p99.9", float(np.quantile(times, 0.999)), "ms CPU", None, 1.0))
    out.add(Figure(f"{size}: insert, longest of {len(times)}", max(times), "ms CPU"))


def ask(index: RecallIndex, known: list[Query], strangers: list[Fingerprint], size: int, out: Figures) -> float:
    """Lookups at one size: p99, who is found and who is turned away. Returns the mean time of a lookup."""
    times, found, among = [], defaultdict(list), defaultdict(list)
    for query in known:
        start = time.process_time_ns()
        hit = index.lookup(query.fp)
        times.append((time.process_time_ns() - start) / 1e6)
        found[query.distortion].append(hit is not None and hit.id == query.id)
        among[query.distortion].append(any(one.id == query.id for one in index.candidates(query.fp)))
    finding = [cpu(lambda one=one: index.candidates(one.fp)) for one in known]  # type: ignore[misc]
    stranger_times = [cpu(lambda one=one: index.lookup(one)) for one in strangers]  # type: ignore[misc]
    filter_times, away = [], []
    for one in strangers:
        start = time.process_time_ns()
        away.append(index.turns_away(one))
        filter_times.append((time.process_time_ns() - start) / 1e6)
    every = times + stranger_times
    out.add(Figure(f"{size}: lookup of what is there, median", float(np.median(times)), "ms CPU"))
    out.add(Figure(f"{size}: lookup of what is there, p99", float(np.quantile(times, 0.99)), "ms CPU", None, 5.0))
    out.add(Figure(f"{size}: of that finding candidates, median", float(np.median(finding)), "ms CPU"))
    out.add(Figure(f"{size}: of that finding candidates, p99", float(np.quantile(finding, 0.99)), "ms CPU"))
    out.add(Figure(f"{size}: lookup of a stranger, median", float(np.median(stranger_times)), "ms CPU"))
    out.add(Figure(f"{size}: lookup of a stranger, p99", float(np.quantile(stranger_times, 0.99)), "ms CPU", None, 5.0))
    out.add(
        Figure(
            f"{size}: strangers turned away by the Bloom filter", 100 * float(np.mean(away)), "%", None, 90, "higher"
        )
    )
    out.add(Figure(f"{size}: keys and Bloom filter, median", float(np.median(filter_times)), "ms CPU", None, 0.3))
    out.add(Figure(f"{size}: keys and Bloom filter, p99", float(np.quantile(filter_times, 0.99)), "ms CPU"))
    for name in among:
        out.add(Figure(f"{size}: {name}: among the candidates", 100 * float(np.mean(among[name])), "%"))
        out.add(Figure(f"{size}: {name}: recalled", 100 * float(np.mean(found[name])), "%"))
    return float(np.mean(every))


def against_flat(index: RecallIndex, known: list[Query], size: int, out: Figures) -> None:
    """The same lookups by a scan of everything: what the keys lose."""
    flat, store = FlatTable(), index._store
    for slot, id in enumerate(store.ids):
        if id is not None:
            flat.add(slot, store.fingerprint(slot).bits)
    asked = known[:: max(1, size // FLAT_ALL)]
    lost = {"recalled": [0, 0], "among the candidates": [0, 0]}
    spent = []

    def scanned(query: Query) -> list[Candidate]:
        slots, distances = flat.nearest(query.fp, CANDIDATES)
        ids = [store.ids[slot] for slot in slots.tolist()]
        near = zip(ids, slots.tolist(), distances.tolist(), strict=True)
        return [Candidate(id, store.fingerprint(slot), 1 - far) for id, slot, far in near if id is not None]

    for query in asked:
        start = time.process_time_ns()
        by_scan = scanned(query)
        spent.append((time.process_time_ns() - start) / 1e6)
        for number, candidates in enumerate((by_scan, index.candidates(query.fp))):
            hit = best_of(query.fp, candidates)
            lost["recalled"][number] += hit is not None and hit.id == query.id
            lost["among the candidates"][number] += any(one.id == query.id for one in candidates)
    for name, (scan, keys) in lost.items():
        label = f"{size}: {name}, of {len(asked)}"
        out.add(Figure(f"{label}: flat scan", 100 * scan / len(asked), "%"))
        target = 2.0 if name == "recalled" else None
        out.add(Figure(f"{label}: lost by keys", 100 * (scan - keys) / len(asked), "points", None, target))
    out.add(Figure(f"{size}: flat scan, median", float(np.median(spent)), "ms CPU"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--speech", type=folder, required=True, help="folder with index.csv, or of FLAC and WAV files")
    parser.add_argument("--noise", type=folder)
    parser.add_argument("--entries", default="10000,100000,1000000", help="sizes, ascending, by comma")
    parser.add_argument("--limit", type=whole(1), default=120, help="queries a distortion")
    parser.add_argument("--strangers", type=whole(1), default=500)
    parser.add_argument(
        "--curve", type=whole(), default=20_000, help="entries that the curve is measured at; 0: no curve"
    )
    parser.add_argument("--json", type=new_file)
    parser.add_argument("--plot", type=Path, help="folder for index-curve.png")
    options = parser.parse_args()
    parts = options.entries.split(",")
    sizes = [int(part) for part in parts if part.isdecimal()]
    if len(sizes) < len(parts) or sizes != sorted(sizes) or sizes[0] < 1:
        parser.error(f"--entries {options.entries}: sizes must be at least 1 and ascend")
    try:
        clips, others = (read_folder(options.speech, Choice(half), noise=False) for half in (0, 1))
        noises = read_folder(options.noise, Choice(), noise=True) if options.noise else []
    except ValueError as problem:
        parser.error(str(problem))
    if sizes[0] < 2 * len(clips):
        parser.error(f"--entries {options.entries}: must be at least twice the {len(clips)} clips that are enrolled")
    enrolled = [fingerprint(clip.samples) for clip in clips]
    prints = [fp for fp in enrolled if fp is not None]
    known = queries(clips, enrolled, noises, options.limit)
    order = np.random.default_rng(1).permutation(len(others)).tolist()
    strangers = [q for n in order[: options.strangers] if (q := listen(others[n].samples)) is not None]
    if not known or not strangers:
        parser.error(f"--speech {options.speech}: neither half may be without 0.3 s of speech, up to 30 s")
    rest = [fp for n in order[options.strangers :] if (fp := fingerprint(others[n].samples)) is not None] or prints
    out = Figures(
        {
            "clips": len(prints),
            "filled up with copies of": len(rest),
            "strangers": len(strangers),
            "seconds a clip": float(np.mean([fp.seconds for fp in prints])),
        }
    )
    fingerprinting([clip.samples for clip in clips[:300]], out)
    filters(out)
    rivals(prints, known, out)
    real: list[Entry] = [
        (id_of(number), fp, ("speaker:" + clips[number].speaker, "engine:1"))
        for number, fp in enumerate(enrolled)
        if fp is not None
    ]
    if options.curve:
        points = curve(real, rest, [(q.distortion, q.id, q.fp) for q in known], strangers, options.curve, out)
        if options.plot:
            plot(points, options.plot / "index-curve.png")
    means = {}
    for size in sizes:
        before = resident()
        # By keys at every size, also where `RecallIndex` would scan.
        index = RecallIndex(size, flat_frames=0)
        grow(index, size, real, rest, np.random.default_rng(3), out)
        used = resident() - before
        seconds = index.frames * 0.016 / len(index)
        allowed = 1000 + 700 * seconds
        out.add(Figure(f"{size}: memory an utterance of {seconds:.2f} s", used / len(index), "B", None, allowed))
        means[size] = ask(index, known, strangers, size, out)
        against_flat(index, known, size, out)
        out.write(options.json)
    for small, large in itertools.pairwise(sizes):
        out.add(Figure(f"cost of a lookup, {small} to {large}", means[large] / means[small], "times", None, 4.0))
    out.add(Figure("forgetting a tag of a thousandth", cpu(lambda: index.remove_tag("speaker:7")), "ms CPU"))
    out.write(options.json)


if __name__ == "__main__":
    main()
