"""Shows the whole of Refrain on real input: speaks, listens, remembers, restarts, and says what came from where.

    refrain demo [--out DIR] [--json OUT]

Starts a gateway on embedded defaults in a folder of its own and ends it afterwards. Every number shown was measured in
this run, as a client sees it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rich
import soxr
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.machine import machine
from bench.processes import Gateway, start_gateway
from gateway.client import Info, RefrainClient, Speech
from gateway.stats import as_table, human_seconds
from models.mel import log_mel
from models.utterance import MEL_RATE, RECOGNIZER_RATE

Samples = npt.NDArray[np.float32]

PHRASES = (
    "How can I help you?",
    "Your taxi is on its way.",
    "Please hold the line.",
    "I did not catch that. Could you say it again?",
    "Thank you for calling. Goodbye!",
    "Your order will arrive in twenty minutes.",
    "Would you like anything else with that?",
    "One moment, please.",
    "The front door is open.",
    "The front door is closed.",
    "I have turned on the kitchen light.",
    "I have turned off the kitchen light.",
    "Your table for four is booked at seven thirty.",
    "Please enter your account number.",
    "The meeting has moved to Thursday at 10 am.",
    "It is eighteen degrees and raining in London.",
    "Your balance is $42.50.",
    "Do you want to confirm this payment?",
    "The next train leaves from platform nine.",
    "Sorry, that item is sold out today.",
    "I have set an alarm for six fifteen.",
    "You have three new messages.",
    "The driver is two minutes away.",
    "Let me connect you with a colleague.",
)
ZIPF = 1.14
"""Exponent of the phrases' popularity; spoken logs show about this."""
SPOKEN = 260
"""Requests of the power-law mix."""
CALLERS = 4
SETTINGS_FILE = "demo.toml"
SETTINGS = "[tenants.default]\nrequire_proof = false\n"
"""Fuzzy answers from the first on: no demo is long enough for the audits that a gateway asks for by default."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request as the client saw it."""

    step: str
    task: str
    info: Info


@dataclass(slots=True)
class Log:
    rows: list[Row] = field(default_factory=list)
    right: int = 0
    wrong: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, step: str, task: str, info: Info | None) -> None:
        if info is not None:
            self.rows.append(Row(step, task, info))


def register(parser: argparse.ArgumentParser) -> None:
    """Speaks, listens, restarts and reports, on a gateway of its own."""
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for sounds and pictures")
    parser.add_argument("--json", type=Path, help="write what was measured here")
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(run=lambda arguments: run(arguments.out, arguments.json, arguments.seed))


def run(out: Path, json_out: Path | None, seed: int) -> int:
    """The demo from start to report. Returns the exit status."""
    out.mkdir(parents=True, exist_ok=True)
    log = Log()
    begun = time.monotonic()
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with tempfile.TemporaryDirectory(prefix="refrain-demo-") as folder, Progress(*columns) as progress:
        data_dir = Path(folder)
        (data_dir / SETTINGS_FILE).write_text(SETTINGS)
        gateway = start_gateway(data_dir, "--config", str(data_dir / SETTINGS_FILE))
        log.notes["first_start_s"] = round(gateway.start_s, 2)
        try:
            with RefrainClient(gateway.target) as client:
                voices = client.list_voices()
                speak(client, voices, log, random.Random(seed), progress)
                recordings = hear(client, voices, log, np.random.default_rng(seed), progress)
                vocode(client, log, recordings, progress)
                moods(client, voices, out)
                before = client.stats()
            gateway = restart(gateway, data_dir, log)
            with RefrainClient(gateway.target) as client:
                again(client, voices, log, recordings, np.random.default_rng(seed + 1), progress)
                after = client.stats()
        finally:
            gateway.stop()
    log.notes["seconds"] = round(time.monotonic() - begun, 1)
    rich.print(as_table(before))
    rich.print("\n[bold]After the restart[/bold]")
    rich.print(as_table(after))
    report(log, out)
    figures = summary(log)
    for path in [out / "demo.json", *([json_out] if json_out else [])]:
        path.write_text(json.dumps(figures, indent=2) + "\n")
    rich.print(f"Sounds, pictures and demo.json are in [bold]{out}[/bold].")
    return 0


# -------------------------------------------------------------------------------------------------------- the steps


def speak(client: RefrainClient, voices: list[Any], log: Log, rng: random.Random, progress: Progress) -> None:
    """A power-law mix of phrases in several voices and moods, from a few callers at once."""
    weights = [1 / rank**ZIPF for rank in range(1, len(PHRASES) + 1)]
    names = [voice.name for voice in voices]
    emotions = voices[0].emotions
    asked = [
        (text, rng.choices(names, [1 / n for n in range(1, len(names) + 1)])[0],
         rng.choices(emotions, [6, *[1] * (len(emotions) - 1)])[0])
        for text in rng.choices(PHRASES, weights, k=SPOKEN)
    ]  # fmt: skip
    task = progress.add_task("speaking a power-law mix", total=len(asked))

    def one(what: tuple[str, str, str]) -> None:
        log.add("speak", "synthesize", client.synthesize(*what).info)
        progress.advance(task)

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(one, asked))


def hear(
    client: RefrainClient, voices: list[Any], log: Log, rng: np.random.Generator, progress: Progress
) -> list[tuple[str, Samples]]:
    """Hears what was said, then the same recordings through noise and codecs, asking for fuzzy answers."""
    recordings = []
    for index, text in enumerate(PHRASES):
        spoken = client.synthesize(text, voices[index % len(voices)].name)
        recordings.append((text, at_rate(spoken, RECOGNIZER_RATE)))
    task = progress.add_task("hearing it back", total=len(recordings))
    known = {}
    for text, samples in recordings:
        first = client.recognize(samples, rate=RECOGNIZER_RATE)
        again = client.recognize(samples, rate=RECOGNIZER_RATE)
        known[text] = first.transcript
        log.add("hear", "recognize", first.info)
        log.add("hear again", "recognize", again.info)
        progress.advance(task)
    copies = distortions(rng)
    task = progress.add_task("noisy and re-encoded copies", total=len(recordings) * len(copies))
    for text, samples in recordings:
        for name, distort in copies.items():
            fuzzily(client, log, f"copy: {name}", distort(samples), known[text])
            progress.advance(task)
    log.notes["transcripts"] = known
    return recordings


def fuzzily(client: RefrainClient, log: Log, step: str, samples: Samples, expected: str) -> None:
    """One fuzzy request; a fuzzy hit is right when it tells what the original recording told."""
    heard = client.recognize(samples, rate=RECOGNIZER_RATE, fuzzy=True)
    log.add(step, "recognize", heard.info)
    if heard.info is not None and heard.info.status == "HIT_FUZZY":
        if heard.transcript == expected:
            log.right += 1
        else:
            log.wrong += 1


def vocode(client: RefrainClient, log: Log, recordings: list[tuple[str, Samples]], progress: Progress) -> None:
    """Mels of the recordings to sound, twice."""
    task = progress.add_task("vocoding mels", total=2 * len(recordings))
    for _ in range(2):
        for _, samples in recordings:
            mel = log_mel(np.asarray(soxr.resample(samples, RECOGNIZER_RATE, MEL_RATE), np.float32))
            log.add("vocode", "vocode", client.vocode(mel).info)
            progress.advance(task)


def moods(client: RefrainClient, voices: list[Any], out: Path) -> None:
    """One sentence in every voice, and in every mood of the first, to listen to."""
    text = "Your taxi is on its way."
    for voice in voices:
        client.synthesize(text, voice.name).save(out / f"voice-{voice.name}.wav")
    for emotion in voices[0].emotions:
        client.synthesize(text, voices[0].name, emotion).save(out / f"mood-{emotion}.wav")


def restart(gateway: Gateway, data_dir: Path, log: Log) -> Gateway:
    """Stops the gateway and starts it on the same folder: device memory is gone, Redis is not."""
    gateway.stop()
    gateway = start_gateway(data_dir, "--config", str(data_dir / SETTINGS_FILE))
    log.notes["second_start_s"] = round(gateway.start_s, 2)
    return gateway


def again(
    client: RefrainClient,
    voices: list[Any],
    log: Log,
    recordings: list[tuple[str, Samples]],
    rng: np.random.Generator,
    progress: Progress,
) -> None:
    """What the restarted gateway still knows: sentences, recordings, and noisy copies of them."""
    task = progress.add_task("after a restart", total=2 * len(recordings))
    noisy = distortions(rng)["noise, 20 dB"]
    known = log.notes["transcripts"]
    for index, (text, samples) in enumerate(recordings):
        log.add("after restart", "synthesize", client.synthesize(text, voices[index % len(voices)].name).info)
        progress.advance(task)
        fuzzily(client, log, "after restart: noise, 20 dB", noisy(samples), known[text])
        progress.advance(task)


def distortions(rng: np.random.Generator) -> dict[str, Callable[[Samples], Samples]]:
    """Ways in which a recording comes again: other loudness, noise, telephone, low rate."""

    def noise(snr_db: float) -> Callable[[Samples], Samples]:
        def add(samples: Samples) -> Samples:
            white = rng.normal(size=len(samples))
            pink = np.cumsum(white) * 0.02 + white  # some weight below, as rooms have
            pink -= pink.mean()
            scale = np.sqrt(np.mean(samples**2) / np.mean(pink**2)) * 10 ** (-snr_db / 20)
            return np.asarray(np.clip(samples + scale * pink, -1, 1), np.float32)

        return add

    def telephone(samples: Samples) -> Samples:
        narrow = soxr.resample(samples, RECOGNIZER_RATE, 8_000)
        compressed = np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)
        coded = np.round(compressed * 127) / 127
        expanded = np.sign(coded) * ((1 + 255) ** np.abs(coded) - 1) / 255
        return np.asarray(soxr.resample(expanded, 8_000, RECOGNIZER_RATE), np.float32)

    return {
        "12 dB quieter": lambda samples: np.asarray(samples * 10 ** (-12 / 20), np.float32),
        "0.2 s later": lambda samples: np.concatenate([np.zeros(3200, np.float32), samples]),
        "noise, 20 dB": noise(20),
        "noise, 10 dB": noise(10),
        "telephone, mu-law": telephone,
    }


def at_rate(speech: Speech, rate: int) -> Samples:
    return np.asarray(soxr.resample(speech.samples(), speech.rate or MEL_RATE, rate), np.float32)


# ------------------------------------------------------------------------------------------------------- the report


def by_source(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Info]]:
    """Task, status and tier to what came from there."""
    groups: dict[tuple[str, str, str], list[Info]] = defaultdict(list)
    for row in rows:
        groups[row.task, row.info.status, row.info.tier].append(row.info)
    return dict(sorted(groups.items()))


def report(log: Log, out: Path) -> None:
    """What came from where, as a table and as pictures."""
    table = Table(title="What came from where, as the client saw it")
    for column in ("task", "answer", "from", "requests", "median", "99 %", "compute saved"):
        table.add_column(column, justify="left" if column in ("task", "answer", "from") else "right")
    for (task, status, tier), infos in by_source(log.rows).items():
        times = sorted(info.elapsed_s for info in infos)
        saved = sum(info.saved_ms for info in infos) / 1e3
        table.add_row(
            task, status, tier, str(len(infos)), human_seconds(statistics.median(times)),
            human_seconds(times[math.ceil(0.99 * (len(times) - 1))]), human_seconds(saved) if saved else "",
        )  # fmt: skip
    rich.print(table)
    copies = Table(title="Copies of known recordings, asked for with --fuzzy")
    for column in ("copy", "recalled", "of"):
        copies.add_column(column, justify="left" if column == "copy" else "right")
    steps: Counter[str] = Counter(row.step for row in log.rows if "copy" in row.step or "restart:" in row.step)
    for step, count in steps.items():
        hits = sum(row.step == step and row.info.status == "HIT_FUZZY" for row in log.rows)
        copies.add_row(step.removeprefix("copy: "), str(hits), str(count))
    rich.print(copies)
    rich.print(
        "Fuzzy answers were served from the first, and audited, because this demo sets require_proof = false;"
        " by default they begin by themselves once audits have shown that at most 0.5 % of them are wrong."
    )
    rich.print(f"Fuzzy answers that told what the original told: {log.right} of {log.right + log.wrong}.")
    starts = f"first {log.notes['first_start_s']} s, second {log.notes['second_start_s']} s"
    rich.print(f"Start to SERVING: {starts}. The demo took {log.notes['seconds']} s.")
    try:
        from bench.pictures import draw_demo
    except ImportError:
        rich.print("matplotlib is not installed, so no pictures were drawn.")
        return
    draw_demo(log.rows, out)


def summary(log: Log) -> dict[str, Any]:
    """The measured numbers, in the form of all benchmarks."""
    figures: list[dict[str, Any]] = []

    def add(name: str, value: float, unit: str, target: float | None = None, holds: bool | None = None) -> None:
        figures.append({"name": name, "value": value, "unit": unit, "baseline": None, "target": target, "holds": holds})

    hits = sum(row.info.status.startswith("HIT") for row in log.rows)
    add("requests", len(log.rows), "requests")
    add("hit rate", hits / len(log.rows), "share")
    add("compute saved", sum(row.info.saved_ms for row in log.rows) / 1e3, "s")
    add("fuzzy answers", log.right + log.wrong, "answers")
    add("wrong fuzzy answers", log.wrong, "answers", 0, log.wrong == 0)
    restarted = [row for row in log.rows if row.step == "after restart"]
    kept = sum(row.info.status == "HIT_EXACT" for row in restarted)
    add("sentences remembered over a restart", kept / len(restarted), "share", 1.0, kept == len(restarted))
    add("duration", log.notes["seconds"], "s", 120.0, log.notes["seconds"] <= 120)
    for (task, status, tier), infos in by_source(log.rows).items():
        name = " ".join(part for part in (task, status, tier) if part)
        add(f"{name}: median latency", statistics.median(info.elapsed_s for info in infos) * 1e3, "ms")
        add(f"{name}: requests", len(infos), "requests")
    return {"figures": figures, "context": {**machine(), **log.notes}}
