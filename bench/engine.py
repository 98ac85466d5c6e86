"""What the engine saves: many callers at once, the first sound early, a GPU that answers as the CPU does.

    python -m bench.engine --json OUT

Recordings are made here, by the synthesizer. Ways that are compared take turns, round by round, on the same sessions;
a figure is the median of the rounds' ratios, once by the clock and once by the processor time that the work took, which
other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import soxr

from bench.figures import Figure, Figures
from gateway.arguments import new_file, whole
from models.engine import ERRAND, Engine, Errand
from models.hearing import STRIDE
from models.load import model_folders, resolve_providers
from models.onnx import CUDA, ModelFileError, Providers
from models.recognizer import Recognizer, RecognizerEngine
from models.synthesizer import AcousticModel, SynthesizerEngine
from models.utterance import MEL_RATE, RECOGNIZER_RATE, Audio, Mel, Samples, Text, Transcript, Utterance, Waveform
from models.vocoder import Vocoder, VocoderEngine

CALLERS = 16
SAYINGS = (
    "Yes.", "Stop.", "Turn the lights off.", "How can I help you?", "What is the weather like?", "Play some music.",
    "Your taxi is on its way.", "Set a timer for ten minutes.", "No, thank you.", "Call my mother.",
    "Please turn on the heating in the kitchen.", "The next train leaves at noon.", "Good morning.", "Next.",
    "Where is the nearest station?", "I would like a table for two this evening.",
)  # fmt: skip
LONG = "The weather tomorrow will be cloudy with some rain in the evening, and it will be colder than it was today."
ONE_CLAUSE = (
    "The quick brown fox jumps over the lazy dog and runs away into the dark green forest behind the old house."
)
TOLERANCE = {"recognizer": 5e-2, "acoustic": 5e-2, "vocoder": 2e-2}
"""On CUDA, the largest difference to the CPU: log-probabilities, log-mel, samples of -1..1."""

EDGE_STEPS = 10
"""What the recognizer's graph computes by itself beyond each end, on average over its layers."""

Way = Callable[[], Awaitable[list[Any]]]


class Models:
    """One session each, and the engines on them."""

    def __init__(self, providers: Sequence[str], pool: ThreadPoolExecutor) -> None:
        folders, wanted = model_folders(None), resolve_providers(providers)
        self.recognizer = Recognizer(folders["recognizer"], providers=wanted)
        self.acoustic = AcousticModel(folders["acoustic"], folders["g2p"], providers=wanted)
        self.vocoder = Vocoder(folders["vocoder"], providers=wanted)
        self.hearing = RecognizerEngine(self.recognizer, pool)
        self.speaking = SynthesizerEngine(self.acoustic, self.vocoder, pool)
        self.vocoding = VocoderEngine(self.vocoder, pool)

    def recordings(self) -> list[Samples]:
        waves = [self.vocoder.wave(self.acoustic.mel(saying)) for saying in SAYINGS]
        return [soxr.resample(wave, MEL_RATE, RECOGNIZER_RATE).astype(np.float32) for wave in waves]


async def compare(
    figures: Figures, what: str, ways: dict[str, Way], rounds: int, over: Sequence[str], target: float | None = None
) -> list[list[Any]]:
    """Runs every way in every round and adds the first way's rate over those of `over`, the first of which has the
    target. Returns what each way gave in the last round."""
    wall: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[Any]] = {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            answers[name] = await way()
            if number:  # the first round warms up
                wall[name].append(time.perf_counter() - began)
                busy[name].append(time.process_time() - began_cpu)
    ours = next(iter(ways))
    for place, name in enumerate(over):
        by_clock = statistics.median(b / a for a, b in zip(wall[ours], wall[name], strict=True))
        by_work = statistics.median(b / a for a, b in zip(busy[ours], busy[name], strict=True))
        figures.add(Figure(f"{what}, {ours} over {name}", by_clock, "ratio", 1.0, None if place else target, "higher"))
        figures.add(Figure(f"{what}, {ours} over {name}, by processor time", by_work, "ratio", 1.0, None, "higher"))
    figures.context[what] = {name: statistics.median(times) for name, times in wall.items()}
    return [answers[name] for name in ways]


async def answer(engine: Engine, utterance: Utterance) -> list[Any]:
    return [chunk async for chunk in engine.run(utterance)]


async def recognizer(models: Models, figures: Figures, pool: ThreadPoolExecutor, rounds: int) -> None:
    """Callers at once: through the engine, and each for itself in the same threads, with as much silence computed round
    a recording as its context is long, and with what silent edges leave of that."""
    recordings = models.recordings()
    padded = copy.copy(models.recognizer)
    padded.silence = padded.context - EDGE_STEPS * STRIDE
    loop = asyncio.get_running_loop()

    def alone(model: Recognizer) -> Way:
        return lambda: asyncio.gather(*(loop.run_in_executor(pool, model.transcribe, one) for one in recordings))

    async def batched() -> list[Any]:
        utterances = [Utterance(Waveform(one, RECOGNIZER_RATE)) for one in recordings]
        chunks = await asyncio.gather(*(answer(models.hearing, one) for one in utterances))
        return [one[0] for one in chunks]

    ways = {
        "batched": batched,
        "one by one": alone(padded),
        "one by one without silence": alone(models.recognizer),
    }
    over = ("one by one", "one by one without silence")
    given = await compare(figures, f"recognizer throughput, {CALLERS} callers", ways, rounds, over, 1.5)
    check_same(given)
    figures.context["recordings_s"] = round(sum(map(len, recordings)) / RECOGNIZER_RATE, 2)


def check_same(ways: Sequence[Sequence[Transcript]]) -> None:
    for one, *others in zip(*ways, strict=True):
        if any((other.text, len(other.words)) != (one.text, len(one.words)) for other in others):
            raise RuntimeError(f"heard '{one.text}' in a batch, but otherwise {[other.text for other in others]}")


async def synthesizer(models: Models, figures: Figures, rounds: int) -> None:
    """Callers at once against one after another: nothing is batched, only the threads are shared."""

    async def at_once() -> list[Any]:
        return list(await asyncio.gather(*(answer(models.speaking, Utterance(Text(one))) for one in SAYINGS)))

    async def in_turn() -> list[Any]:
        return [await answer(models.speaking, Utterance(Text(one))) for one in SAYINGS]

    ways: dict[str, Way] = {"at once": at_once, "one after another": in_turn}
    await compare(figures, f"synthesizer throughput, {CALLERS} callers", ways, rounds, ("one after another",))


async def vocoder(models: Models, figures: Figures, rounds: int) -> None:
    """Mels of one length, which is the best case for a batch: in one call of the graph, and one by one."""
    mel = models.acoustic.mel(SAYINGS[3])
    mels = [mel + np.float32(0.01 * number) for number in range(CALLERS // 2)]
    graph = models.vocoder.model

    def feeds(batch: Sequence[Samples]) -> dict[str, Any]:
        zero = np.zeros(1, np.int64)
        return {"mel": np.stack(batch), "phase": np.zeros(len(batch)), "anchor": zero, "position": zero}

    async def batched() -> list[Any]:
        return list(graph.run(feeds(mels))[0])

    async def alone() -> list[Any]:
        return [graph.run(feeds([one]))[0][0] for one in mels]

    ways: dict[str, Way] = {"batched": batched, "one by one": alone}
    one, other = await compare(figures, f"vocoder throughput, {len(mels)} equal mels", ways, rounds, ("one by one",))
    apart = max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))
    figures.add(Figure("vocoder, batched against one by one, largest difference", apart, "of full scale", None, 1e-4))

    async def large() -> list[Any]:
        return await answer(models.vocoding, Utterance(Mel(np.concatenate([mel] * 4, axis=1))))

    async def small() -> list[Any]:
        return list(models.vocoder.stream([np.concatenate([mel] * 4, axis=1)]))

    ways = {"whole": large, "chunks of half a second": small}
    await compare(figures, "vocoder throughput, one caller", ways, rounds, ("chunks of half a second",))


async def first_audio(models: Models, figures: Figures, rounds: int) -> None:
    """From the call to the first chunk and to the last, for one long clause and for a text of two."""
    for name, text in (("one clause", ONE_CLAUSE), ("two clauses", LONG)):
        first: list[float] = []
        whole: list[float] = []
        whole_early: list[float] = []
        sounds: dict[bool, Samples] = {}
        for number in range(rounds + 1):
            for early in (True, False):
                ERRAND.set(Errand(early=early))
                began, heard, chunks = time.perf_counter(), 0.0, []
                async for chunk in models.speaking.run(Utterance(Text(text))):
                    heard = heard or time.perf_counter() - began
                    assert isinstance(chunk, Audio)
                    chunks.append(chunk.samples)
                took = time.perf_counter() - began
                sounds[early] = np.concatenate(chunks)
                if number:
                    (whole_early if early else whole).append(took)
                    if early:
                        first.append(heard)
        ratio = statistics.median(a / b for a, b in zip(first, whole, strict=True))
        figures.add(Figure(f"time to first audio, {name}", statistics.median(first) * 1e3, "ms"))
        figures.add(Figure(f"whole synthesis, {name}", statistics.median(whole) * 1e3, "ms"))
        figures.add(Figure(f"time to first audio over whole synthesis, {name}", ratio, "ratio", 1.0))
        cost = statistics.median(a / b for a, b in zip(whole_early, whole, strict=True))
        figures.add(Figure(f"price of the early start, {name}", cost, "ratio", 1.0))
        apart = float(np.abs(sounds[True] - sounds[False]).max())
        figures.add(Figure(f"early against whole, largest difference, {name}", apart, "of full scale", None, 1e-4))
        figures.context[f"seconds of speech, {name}"] = round(len(sounds[False]) / MEL_RATE, 2)


def against_cpu(models: Models, figures: Figures) -> None:
    """Where CUDA runs: the largest difference of each model to its answer on the CPU, on the same input."""
    with ThreadPoolExecutor(1) as pool:
        cpu = Models(["CPUExecutionProvider"], pool)
        plan = cpu.acoustic.plan(LONG)
        ours = [models.acoustic.clause_mel(clause) for clause, _ in plan]
        theirs = [cpu.acoustic.clause_mel(clause) for clause, _ in plan]
        waves = [models.vocoder.wave(mel) for mel in theirs], [cpu.vocoder.wave(mel) for mel in theirs]
        heard = [cpu.recordings()[6]]
        rows = [models.recognizer.log_probs(one) for one in heard], [cpu.recognizer.log_probs(one) for one in heard]
    for name, pairs in (("recognizer", rows), ("acoustic", (ours, theirs)), ("vocoder", waves)):
        if any(one.shape != other.shape for one, other in zip(*pairs, strict=True)):
            raise RuntimeError(f"{name}: CUDA and the CPU give different lengths")
        apart = max(float(np.abs(one - other).max()) for one, other in zip(*pairs, strict=True))
        figures.add(Figure(f"{name}, CUDA against CPU, largest difference", apart, "", None, TOLERANCE[name]))


async def measure(figures: Figures, providers: Sequence[str], rounds: int) -> None:
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        models = Models(providers, pool)
        providers_of = {
            "recognizer": models.recognizer.provider,
            "acoustic": models.acoustic.provider,
            "vocoder": models.vocoder.provider,
        }
        figures.context |= {"workers": workers, "rounds": rounds, "callers": CALLERS}
        figures.context["providers"] = providers_of
        await recognizer(models, figures, pool, rounds)
        await synthesizer(models, figures, rounds)
        await vocoder(models, figures, rounds)
        await first_audio(models, figures, rounds)
        if CUDA in providers_of.values():
            against_cpu(models, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=new_file, help="write the figures here")
    parser.add_argument("--rounds", type=whole(1), default=9)
    parser.add_argument("--provider", action="append", help="ONNX Runtime execution provider; default: the best here")
    args = parser.parse_args()
    figures = Figures()
    try:
        asyncio.run(measure(figures, Providers(args.provider or ["auto"], strict=bool(args.provider)), args.rounds))
    except ModelFileError as error:
        parser.error(str(error))
    figures.write(args.json)


if __name__ == "__main__":
    main()
