"""Shows the whole of Refrain on real input: speaks, listens, remembers, restarts, and reports what that was worth.

    refrain demo [--out DIR] [--json OUT] [--stay]

Starts a gateway on embedded defaults in a folder of its own, ends with `refrain report` on it, and then ends it; with
--stay not before Ctrl-C, so that its status page can be looked at. Every number shown was measured in this run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rich
import soxr
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.demo_report import report_on, summary, tell_copies
from bench.processes import Gateway, start_gateway
from gateway.arguments import new_file, whole
from gateway.client import Info, RefrainClient, Speech
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
COLUMNS = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), help="folder for sounds and pictures; default %(default)s"
    )
    parser.add_argument("--json", type=new_file, help="write what was measured here")
    parser.add_argument("--seed", type=whole(), default=1)
    parser.add_argument("--stay", action="store_true", help="keep the gateway and its page until Ctrl-C")
    parser.set_defaults(run=lambda arguments: run(arguments.out, arguments.json, arguments.seed, arguments.stay))


def run(out: Path, json_out: Path | None, seed: int, stay: bool = False) -> int:
    """The demo from start to report. Returns the exit status."""
    out.mkdir(parents=True, exist_ok=True)
    log = Log()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="refrain-demo-") as folder:
        data_dir = Path(folder)
        (data_dir / SETTINGS_FILE).write_text(SETTINGS)
        gateway = start_gateway(data_dir, "--config", str(data_dir / SETTINGS_FILE))
        log.notes["first_start_s"] = round(gateway.start_s, 2)
        try:
            with Progress(*COLUMNS) as progress, RefrainClient(gateway.target) as client:
                voices = client.list_voices()
                speak(client, voices, log, random.Random(seed), progress)
                recordings = hear(client, voices, log, np.random.default_rng(seed), progress)
                vocode(client, log, recordings, progress)
                moods(client, voices, out)
                answered = client.stats().total.requests
            gateway = restart(gateway, data_dir, log)
            with Progress(*COLUMNS) as progress, RefrainClient(gateway.target) as client:
                again(client, voices, log, recordings, np.random.default_rng(seed + 1), progress)
                answered += client.stats().total.requests
            told = report_on(data_dir / "trace", gateway.target, answered, out)
            log.notes["seconds"] = round(time.monotonic() - begun, 1)
            tell_copies(log)
            pictures(log, out)
            figures = summary(log, told)
            for path in [out / "demo.json", *([json_out] if json_out else [])]:
                path.write_text(json.dumps(figures, indent=2) + "\n")
            rich.print(f"The whole report is [bold]{out / 'report.html'}[/bold]; sounds and pictures are beside it.")
            tell_page(gateway, stay)
        finally:
            gateway.stop()
    return 0


def pictures(log: Log, out: Path) -> None:
    try:
        from bench.pictures import draw_demo
    except ImportError:
        rich.print("matplotlib is not installed, so no pictures were drawn.")
        return
    draw_demo(log.rows, out)


def tell_page(gateway: Gateway, stay: bool) -> None:
    """Says where the status page is, having looked whether it is; with `stay` until Ctrl-C or the gateway's end."""
    address = f"http://127.0.0.1:{gateway.http_port}/"
    with urllib.request.urlopen(address, timeout=10) as page:
        size = len(page.read())
    if not stay:
        rich.print(
            f"The gateway's status page was {address} ({size:,} bytes just now); it ends with the demo. "
            "[bold]refrain demo --stay[/bold] keeps it, and `refrain serve` has one at http://127.0.0.1:9464/."
        )
        return
    rich.print(f"The gateway's status page is [bold]{address}[/bold], and its gRPC {gateway.target}, until Ctrl-C.")
    with contextlib.suppress(KeyboardInterrupt):
        gateway.process.wait()


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
