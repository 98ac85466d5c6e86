"""Device memory: a million inserts leave it as it was, pages beside other ways, and what a remembered mel saves.

    python -m bench.device --json OUT

Both forms of memory get a million inserts of 1 kB to 2 MB, each in a process of its own, because what fragments a heap
is what went before; growth is of the resident set, from when the tier had long been full. The rest is timed in turns,
on one core, and given as ratios. Where CUDA runs, tensors and models are on it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import statistics
import time
from array import array
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from bench.device_rivals import Allocator, InPages, InRuns, InSlabs, measure, trace
from bench.figures import Figure, Figures
from cache_tiers.device import DeviceTier, Lease
from cache_tiers.entry import CacheKey, Entry
from cache_tiers.epochs import LocalEpochs
from cache_tiers.memory import HostMemory
from cache_tiers.pages import PagedMemory
from cache_tiers.policy.lfu import LfuPolicy
from gateway import wire
from gateway.arguments import new_file, whole
from gateway.components import SPARE, ComponentCache
from gateway.keys import Keys
from models.engine import ERRAND, Components, Errand
from models.load import resolve_providers
from models.pages import PAGE_BYTES, DevicePages
from models.synthesizer import AcousticModel, SynthesizerEngine
from models.utterance import Audio, Text, Utterance
from models.vocoder import Vocoder

SMALLEST, LARGEST = 1 << 10, 2 << 20
MEDIAN, SPREAD = 54_000, 1.1
"""Of the sizes, which are log-normal: an answer of 1.2 s, and the standard deviation of the logarithm."""
KEYS = 200_000
ANSWERS, TENSORS = 256 << 20, 64 << 20
"""Bytes of the two tiers."""
TEXT = "The weather tomorrow will be cloudy with some rain in the evening, and it will be colder than it was today."


class Soaked(Protocol):
    """A tier, and entries for it that are told apart by their number and size."""

    tier: DeviceTier
    size: int

    def free(self) -> int: ...

    def placeable(self) -> bool:
        """Whether all that is free can be had in one block."""
        ...

    def store(self, number: int, size: int) -> None: ...

    def right(self, lease: Lease, number: int, size: int) -> bool:
        """Whether the lease holds that entry."""
        ...


class Answers:
    size = ANSWERS

    def __init__(self) -> None:
        self._memory = HostMemory(2 * ANSWERS)
        self.tier = DeviceTier(self._memory, LfuPolicy(ANSWERS), clock=time.time)
        self._sound = np.random.default_rng(1).bytes(LARGEST)

    def free(self) -> int:
        return self._memory.free_bytes

    def placeable(self) -> bool:
        block = self._memory.allocate(self._memory.free_bytes)
        if block is not None:
            self._memory.release(block)
        return block is not None

    def store(self, number: int, size: int) -> None:
        frame = number.to_bytes(8, "big") + self._sound[: size - 8]  # a copy, so that every byte of it is in memory
        self.tier.store(key(number), Entry((frame,), 1.0, 1.0))

    def right(self, lease: Lease, number: int, size: int) -> bool:
        frame = lease.entry.frames[0]
        return len(frame) == size and frame[:8] == number.to_bytes(8, "big")


class Tensors:
    size = TENSORS

    def __init__(self) -> None:
        pages = DevicePages(TENSORS, providers=resolve_providers(["auto"]))
        self.device = pages.device
        self._memory = PagedMemory(pages)
        self.tier = DeviceTier(self._memory, LfuPolicy(TENSORS - TENSORS // SPARE), clock=time.time)
        self._values = np.random.default_rng(1).normal(size=LARGEST // 4).astype(np.float32)

    def free(self) -> int:
        return self._memory.free_bytes

    def placeable(self) -> bool:
        block = self._memory.allocate(self._memory.free_bytes)
        if block is not None:
            self._memory.release(block)
        return block is not None

    def store(self, number: int, size: int) -> None:
        value = self._values[: size // 4].reshape(1, 1, -1)
        value[0, 0, 0] = value[0, 0, -1] = number
        block = self._memory.allocate(self._memory.footprint(size))
        if block is None:
            raise RuntimeError(f"{size} bytes find no room, though only {self.tier.stats.bytes} are taken")
        self._memory.copy_in(block, ort.OrtValue.ortvalue_from_numpy(value, self.device, 0))
        self.tier.store(key(number), Entry((), 1.0, 1.0), block)

    def right(self, lease: Lease, number: int, size: int) -> bool:
        value = self._memory.copy_out(lease.block).numpy()  # type: ignore[arg-type]
        return bool(value.size == size // 4 and value[0, 0, 0] == value[0, 0, -1] == number)


SOAKS: dict[str, Callable[[], Soaked]] = {"answers": Answers, "tensors": Tensors}


def key(number: int) -> CacheKey:
    return CacheKey("bench", number.to_bytes(32, "big"))


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def soak(kind: str, inserts: int) -> dict[str, float]:
    """Asks for entries by a power law, and stores what is missing until so many were stored."""
    made = SOAKS[kind]()
    tier, total = made.tier, made.free()
    rng = np.random.default_rng(7)
    sizes = np.clip(rng.lognormal(np.log(MEDIAN), SPREAD, KEYS), SMALLEST, LARGEST).astype(int) // 4 * 4
    requests = hits = wrong = unplaceable = stored = 0
    settled = peak = 0
    began = time.process_time()
    while stored < inserts:
        draws = rng.zipf(1.05, 10_000)
        for number in draws[draws < KEYS].tolist():
            requests += 1
            lease = tier.lookup(key(number))
            if lease is None:
                made.store(number, int(sizes[number]))
                stored += 1
            else:
                hits += 1
                with lease:
                    wrong += hits % 16 == 0 and not made.right(lease, number, int(sizes[number]))
        unplaceable += not made.placeable()
        if stored >= inserts // 20:
            settled = settled or resident()
            peak = max(peak, resident())
    took = time.process_time() - began
    gc.collect()
    grown = resident() - settled
    tier.drop_where(lambda _: True)
    return {
        "rate": stored / took,
        "hit rate": hits / requests,
        "grown": grown / made.size,
        "peak": (peak - settled) / made.size,
        "lost": total - made.free(),
        "unplaceable": unplaceable + (not made.placeable()),
        "wrong": wrong,
        "stored": stored,
        "mean bytes": float(sizes.mean()),
    }


def soaks(figures: Figures, inserts: int) -> None:
    for kind in SOAKS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
            found = alone.submit(soak, kind, inserts).result()
        figures.context[f"inserts, {kind}"] = int(found["stored"])
        figures.add(Figure(f"{kind}: inserts in a second of processor time, look-ups included", found["rate"], ""))
        figures.add(Figure(f"{kind}: hit rate", found["hit rate"], "share"))
        figures.add(Figure(f"{kind}: bytes lost after all were dropped", found["lost"], "bytes", None, 0))
        figures.add(Figure(f"{kind}: times that what was free was not one block", found["unplaceable"], "", None, 0))
        figures.add(Figure(f"{kind}: hits on what was not stored", found["wrong"], "", None, 0))
        figures.add(Figure(f"{kind}: resident memory, growth over the tier's size", found["grown"], "ratio", None, 0.1))
        figures.add(Figure(f"{kind}: the same at its highest", found["peak"], "ratio"))


def rivals(figures: Figures) -> None:
    """Pages beside slabs and runs. The mels get longer half-way, as with another customer."""
    memory = 32 << 20
    sizes = (4096, 16_384, 65_536)
    ways: dict[str, Callable[[], Allocator]] = {f"pages of {n >> 10} kB": _pages(memory, n) for n in sizes}
    ways["slabs"] = lambda: InSlabs(memory)
    ways["runs"] = lambda: InRuns(memory, 256)
    for name, make in ways.items():
        before, after, hits, refused = measure(make(), memory, list(trace(200_000, 5_000)))
        figures.add(Figure(f"{name}: share of the memory that is payload, before mels got longer", before, "share"))
        figures.add(Figure(f"{name}: share of the memory that is payload, after", after, "share"))
        figures.add(Figure(f"{name}: hit rate", hits, "share"))
        figures.add(Figure(f"{name}: requests that found no room", refused, ""))


def _pages(memory: int, page: int) -> Callable[[], Allocator]:
    return lambda: InPages(memory, page)


def timed(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of processor time of a call, the first left out."""
    work()
    took = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return statistics.median(took)


def copies(figures: Figures, vocoder: Vocoder, seconds: int, rounds: int) -> None:
    """Onto pages and back, beside the run of the vocoder that needs the mel."""
    pages = DevicePages(32 << 20, providers=[vocoder.provider])
    mel = np.random.default_rng(2).normal(-5.0, 1.0, (1, 80, seconds * 86)).astype(np.float32)
    value = ort.OrtValue.ortvalue_from_numpy(mel, pages.device, 0)
    count = -(-mel.nbytes // PAGE_BYTES)
    scattered = array("q", np.random.default_rng(3).permutation(pages.count)[:count].tolist())
    write = timed(lambda: pages.write(scattered, value), 20 * rounds)
    read = timed(lambda: pages.read(scattered, mel.shape), 20 * rounds)
    speak = timed(lambda: vocoder.wave_of(value), rounds)
    figures.add(Figure(f"mel of {seconds} s: onto pages", write * 1e6, "us"))
    figures.add(Figure(f"mel of {seconds} s: gathered", read * 1e6, "us"))
    figures.add(Figure(f"mel of {seconds} s: gathering over the vocoder's run", read / speak, "ratio", None, 0.02))


async def answers(figures: Figures, acoustic: AcousticModel, vocoder: Vocoder, rounds: int) -> None:
    """A text spoken without memory, with its mels to be kept, and with its mels there; in turns."""
    with ThreadPoolExecutor(1) as pool:
        engine = SynthesizerEngine(acoustic, vocoder, pool)
        memory = PagedMemory(DevicePages(32 << 20, providers=[vocoder.provider]))
        cache = ComponentCache(memory, acoustic.device, LfuPolicy, LocalEpochs(), pool, clock=time.time)
        keys = Keys(bytes(32)).of("bench")

        def of_call(mode: wire.Mode) -> Components | None:
            return cache.of_call(keys, engine.info.component, (), wire.Control(mode=mode))

        async def spoken(mode: wire.Mode) -> tuple[float, bytes]:
            ERRAND.set(Errand(components=of_call(mode)))
            began = time.process_time()
            chunks = [chunk async for chunk in engine.run(Utterance(Text(TEXT)))]
            took = time.process_time() - began
            return took, b"".join(chunk.samples.tobytes() for chunk in chunks if isinstance(chunk, Audio))

        ways = {"none": wire.Mode.BYPASS, "kept": wire.Mode.REFRESH, "found": wire.Mode.DEFAULT}
        took: dict[str, list[float]] = {name: [] for name in ways}
        sounds = set()
        for number in range(rounds + 1):
            for name, mode in ways.items():
                seconds, sound = await spoken(mode)
                sounds.add(sound)
                if number:
                    took[name].append(seconds)
    if len(sounds) != 1:
        raise RuntimeError("memory changes what is heard")
    for name in ("kept", "found"):
        ratio = statistics.median(a / b for a, b in zip(took[name], took["none"], strict=True))
        target = 1.03 if name == "kept" else 1.0
        figures.add(Figure(f"processor time of an answer, mels {name}, over none", ratio, "ratio", 1.0, target))
    whole = statistics.median(took["none"])
    figures.add(Figure("processor time of an answer without memory", whole * 1e3, "ms"))
    plan = acoustic.plan(TEXT)
    mels = timed(lambda: [acoustic.clause_on_device(clause) for clause, _ in plan], rounds)
    figures.add(Figure("acoustic model and its front end, over such an answer", mels / whole, "ratio"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=new_file, help="write the figures here")
    parser.add_argument("--inserts", type=whole(1), default=1_000_000)
    parser.add_argument("--rounds", type=whole(1), default=15)
    args = parser.parse_args()
    figures = Figures()
    soaks(figures, args.inserts)
    rivals(figures)
    providers = resolve_providers(["auto"])
    acoustic, vocoder = AcousticModel(providers=providers), Vocoder(providers=providers)
    figures.context |= {"rounds": args.rounds, "provider": vocoder.provider}
    for seconds in (1, 3, 10):
        copies(figures, vocoder, seconds, args.rounds)
    asyncio.run(answers(figures, acoustic, vocoder, args.rounds))
    figures.write(args.json)


if __name__ == "__main__":
    main()
