"""What could have been used in the index's place, on the same keys: Bloom filters, LSH tables, binary search, and other
ways to a fingerprint. Each is told by time and memory; what is not installed is left out."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import soundfile

from bench.figures import Figure, Figures
from gateway.fingerprint.bits import Fingerprint, fingerprint
from gateway.fingerprint.keys import PROBES, probes, stored_keys
from gateway.fingerprint.listen import listen
from gateway.fingerprint.sieve import BITS_A_KEY, Sieve
from gateway.fingerprint.table import KeyTable
from models.bands import BANDS, FMAX, FMIN, HOP, RATE, WINDOW, band_energies, to_telephone_rate
from models.utterance import Samples

if TYPE_CHECKING:
    from bench.index import Query

KEYS: Final = 200_000
ERROR: Final = 1e-4


def cpu(work: Callable[[], object], times: int = 1) -> float:
    """Milliseconds of processor time, the least of `times`."""
    spent = []
    for _ in range(times):
        start = time.process_time_ns()
        work()
        spent.append((time.process_time_ns() - start) / 1e6)
    return min(spent)


def filters(out: Figures) -> None:
    """Bloom filters of 200,000 keys: time to add one, time to ask for a query's, bytes a key."""
    rng = np.random.default_rng(4)
    hashes, asked = (rng.integers(0, 1 << 42, n).astype(np.uint64) for n in (KEYS, PROBES))
    sieve = Sieve(KEYS)
    table = KeyTable(KEYS)
    alive = np.ones(1, np.bool_)
    parts = np.array_split(hashes, KEYS // 40)

    def each(add: Callable[[Any], object], items: list[Any]) -> float:
        def work() -> None:
            for item in items:
                add(item)

        return cpu(work)

    def tell(name: str, add: float, ask: float, size: float) -> None:
        out.add(Figure(f"{name}: add a key", 1000 * add / KEYS, "us CPU"))
        out.add(Figure(f"{name}: ask for {PROBES} keys", ask, "ms CPU"))
        out.add(Figure(f"{name}: a key", size, "B"))

    added = each(sieve.add, parts)
    tell("blocked Bloom filter", added, cpu(lambda: sieve.has(asked), 50), BITS_A_KEY / 8)
    zeros = np.zeros(41, np.int64)
    added = each(lambda part: table.add(part, zeros[: len(part)], zeros[: len(part)], alive), parts)
    tell("key table behind it, with its filter", added, cpu(lambda: table.find(asked), 50), table.memory / KEYS)
    items = [key.to_bytes(8, "little").decode("latin-1") for key in hashes.tolist()]
    sought = [key.to_bytes(8, "little").decode("latin-1") for key in asked.tolist()]
    from pybloom_live import BloomFilter

    bloom = BloomFilter(KEYS, ERROR)
    tell(
        "pybloom-live",
        each(bloom.add, items),
        cpu(lambda: [i in bloom for i in sought], 5),
        bloom.num_bits / 8 / KEYS,
    )
    if importlib.util.find_spec("rbloom"):
        from rbloom import Bloom

        rust = Bloom(KEYS, ERROR)
        tell(
            "rbloom",
            each(rust.add, items),
            cpu(lambda: [i in rust for i in sought], 20),
            rust.size_in_bits / 8 / KEYS,
        )


def rivals(prints: list[Fingerprint], known: list[Query], out: Figures) -> None:
    """datasketch's and FAISS's tables over the keys of the clips."""
    prints = prints[:1000]
    bits, mask = np.concatenate([fp.bits for fp in prints]), np.concatenate([fp.mask for fp in prints])
    active = np.concatenate([fp.active for fp in prints])
    hashes, which, _ = stored_keys(bits, mask, active, np.array([len(fp) for fp in prints]))
    asked = [probes(query.fp)[0] for query in known[:20]]
    _datasketch(hashes, which, len(prints), asked, out)
    if importlib.util.find_spec("faiss"):
        _faiss(hashes, asked, out)


def _datasketch(hashes: Any, which: Any, utterances: int, asked: list[Any], out: Figures) -> None:
    """MinHashLSH, whose bands find equal parts of a signature. A key may stand anywhere in an utterance, so each is a
    signature of its own: of two numbers, twice, because there must be two bands."""
    from datasketch import MinHash, MinHashLSH

    def signature(key: int) -> MinHash:
        return MinHash(num_perm=4, scheme="affine32", hashvalues=np.array([key >> 21, key & 0x1FFFFF] * 2, np.uint64))

    lsh = MinHashLSH(num_perm=4, params=(2, 2))
    names = [f"{number}:{owner}" for number, owner in enumerate(which.tolist())]
    spent = cpu(
        lambda: [
            lsh.insert(n, signature(k), check_duplication=False) for n, k in zip(names, hashes.tolist(), strict=True)
        ]
    )
    out.add(Figure("datasketch LSH: insert an utterance", spent / utterances, "ms CPU"))
    spent = cpu(lambda: [lsh.query(signature(k)) for keys in asked for k in keys.tolist()])
    out.add(Figure(f"datasketch LSH: look for {PROBES} keys", spent / len(asked), "ms CPU"))


def _faiss(hashes: Any, asked: list[Any], out: Figures) -> None:
    """FAISS's binary indexes, which find codes within a Hamming distance: 40 codes of 64 bits an utterance."""
    import faiss

    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(5)
    codes = np.concatenate([hashes, rng.integers(0, 1 << 42, 4_000_000 - len(hashes)).astype(np.uint64)])
    stored = codes.view(np.uint8).reshape(-1, 8)
    sought = [keys[:32].view(np.uint8).reshape(-1, 8) for keys in asked]
    flat = faiss.IndexBinaryFlat(64)
    flat.add(stored)
    spent = cpu(lambda: [flat.search(codes, 8) for codes in sought[:3]])
    out.add(Figure("FAISS flat, 4 million codes (100,000 utterances): 32 codes", spent / 3, "ms CPU"))
    table = faiss.IndexBinaryHash(64, 42)
    out.add(Figure("FAISS hash: add an utterance of 40 codes", cpu(lambda: table.add(stored)) / 1e5, "ms CPU"))
    table.nflip = 0
    sought = [keys.view(np.uint8).reshape(-1, 8) for keys in asked]
    spent = cpu(lambda: [table.range_search(codes, 1) for codes in sought])
    out.add(Figure(f"FAISS hash, 100,000 utterances: look for {PROBES} keys", spent / len(sought), "ms CPU"))


def fingerprinting(clips: list[Samples], out: Figures) -> None:
    """Time of a fingerprint a second of 16 kHz sound beside librosa's mel and Chromaprint; equality with librosa."""
    seconds = sum(map(len, clips)) / (2 * RATE)
    ways = {"for storing": fingerprint, "for asking, network and all": listen}
    for name, way in ways.items():
        spent = cpu(lambda way=way: [way(samples) for samples in clips], 3)  # type: ignore[misc]
        out.add(Figure(f"fingerprint {name}", spent / seconds, "ms CPU a second", None, 0.6))
    if importlib.util.find_spec("librosa"):
        from librosa.feature import melspectrogram

        def theirs(samples: Samples) -> Any:
            return melspectrogram(
                y=samples,
                sr=RATE,
                n_fft=WINDOW,
                hop_length=HOP,
                n_mels=BANDS,
                fmin=FMIN,
                fmax=FMAX,
                pad_mode="constant",
            ).T

        narrow = [to_telephone_rate(samples) for samples in clips]
        theirs(narrow[0])
        out.add(
            Figure(
                "librosa's mel alone, of 8 kHz",
                cpu(lambda: [theirs(n) for n in narrow], 3) / seconds,
                "ms CPU a second",
            )
        )
        out.add(
            Figure(
                "our mel alone, of 8 kHz",
                cpu(lambda: [band_energies(n) for n in narrow], 3) / seconds,
                "ms CPU a second",
            )
        )
        apart = max(float(np.abs(band_energies(n) - theirs(n)).max() / theirs(n).max()) for n in narrow)
        out.add(Figure("our mel from librosa's, largest difference to the peak", apart, "share", None, 1e-4))
    _chromaprint(clips, out)


def _chromaprint(clips: list[Samples], out: Figures) -> None:
    """fpcalc on one file of all clips, less the same on a tenth of it: starting and opening cost nothing then."""
    fpcalc = shutil.which("fpcalc")
    if fpcalc is None:
        return
    import resource

    joined = np.concatenate(clips)
    spent, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for part in (joined[: len(joined) // 10], joined):
            path = Path(folder) / "clips.wav"
            soundfile.write(path, part, 2 * RATE)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run([fpcalc, "-length", "100000", str(path)], capture_output=True, check=False)
            if b"FINGERPRINT=" not in done.stdout:  # its status is an error at the end of every WAV file
                return
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
            seconds.append(len(part) / (2 * RATE))
    out.add(Figure("Chromaprint (fpcalc)", (spent[1] - spent[0]) / (seconds[1] - seconds[0]), "ms CPU a second"))
