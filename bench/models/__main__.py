"""Measures every embedded model on a folder of recordings, beside what is asked of it, with pictures.

    python -m bench.models --speech DIR --noise DIR [--json OUT] [--docs DIR] [--all]

DIR holds index.csv (path, kind, speaker, text, emotion, lang; more where it is known) and recordings of any kinds; what
is missing is reported as no data. Of recordings that a shipped model was trained with, only those that its training
held out are measured, unless --all asks for them. Sentences are spoken by the system's own voices (flite, festival,
espeak-ng), from DIR/text/*.csv and our own generator.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import rich
from tqdm import tqdm

from bench.models import feelings, page, plots, recognizer, spoken, synthesizer, vocoder, voices
from bench.models.folder import FolderError, Row, is_reading, read_rows, sound, spread
from bench.models.targets import Report
from models.emotion import EmotionEncoder
from models.onnx import ModelFileError
from models.recognizer import Recognizer
from models.speaker import SpeakerEncoder
from models.synthesizer import AcousticModel
from models.vocoder import Vocoder

EMBEDDED = Path(__file__).parents[2] / "models" / "embedded"
LIMIT = 120
PARTS = ("synthesizer", "vocoder", "recognizer", "voice encoder", "emotion encoder", "all models")


class Bench:
    """One run: rows, options, and what has been found so far. A part that lacks its model leaves its figures out."""

    def __init__(self, rows: Sequence[Row], noises: Sequence[Row], options: argparse.Namespace, scratch: Path) -> None:
        self.rows, self.noises = rows, noises
        self.options = options
        self.scratch = scratch
        self.limit: int = options.limit
        self.report = Report()
        self.docs: Path | None = options.docs
        self.seconds: dict[str, float] = {}
        self.texts = spoken.unseen_sentences(options.speech, self.limit, options.seed)
        self.generated = spoken.generated_sentences(max(1, self.limit // 2), options.seed)

    def run(self, part: str) -> None:
        do: dict[str, Callable[[], None]] = {
            "synthesizer": self.synthesizer,
            "vocoder": self.vocoder,
            "recognizer": self.recognizer,
            "voice encoder": self.voices,
            "emotion encoder": self.feelings,
            "all models": self.size,
        }
        began = time.monotonic()
        try:
            do[part]()
        except ModelFileError as missing:
            self.report.lacks(f"{part}:", str(missing).replace(str(EMBEDDED), "models/embedded"))
        self.seconds[part] = round(time.monotonic() - began, 1)

    def synthesizer(self) -> None:
        model, to_wave = AcousticModel(EMBEDDED / "acoustic", EMBEDDED / "g2p"), Vocoder(EMBEDDED / "vocoder")
        texts = (self.texts or self.generated)[: min(self.limit, 100)]
        pairs = synthesizer.pairs_of(model, to_wave, texts, self.options.jobs)
        synthesizer.measure_hearing(pairs, self.options.jobs, self.report)
        synthesizer.measure_likeness(pairs, self.report)
        if (EMBEDDED / "speaker" / "model.toml").is_file():
            encoder = SpeakerEncoder(EMBEDDED / "speaker")
            synthesizer.measure_voices(pairs, model.embeddings, encoder, self.report)
        sentences = 3 if self.limit >= 100 else 1
        moods = synthesizer.measure_moods(model, to_wave, model.voices[: self.limit], sentences, self.report)
        if self.docs:
            plots.draw_moods(moods, self.docs / "moods.png")
            longest = sorted(pairs, key=lambda pair: -min(len(pair.teacher), 50_000))[:1]
            for pair in longest:
                plots.draw_synthesizer(pair, self.docs / "spectrogram-synthesizer.png")

    def vocoder(self) -> None:
        model = Vocoder(EMBEDDED / "vocoder")
        count = max(1, self.limit // 6)
        waves = vocoder.measure_vocoder(model, self.rows, self.options.all, count, self.report)
        if waves and self.docs:
            plots.draw_vocoder(waves, self.docs / "spectrogram-vocoder.png")

    def recognizer(self) -> None:
        model = Recognizer(EMBEDDED / "recognizer")
        here = spoken.voices_here()
        by_folder, by_generator = (self._spoken(texts, list(here)) for texts in (self.texts, self.generated))
        recognizer.measure_sentences(model, by_folder, by_generator, self.report)
        limit = 4 * self.limit
        confusion = recognizer.measure_commands(model, self.rows, self.noises, self.options.all, limit, self.report)
        recognizer.measure_real_speech(model, self.rows, max(1, self.limit // 3), self.report)
        count = max(1, self.limit // 12)
        speech = [sound(row) for row in spread([row for row in self.rows if is_reading(row)], count)]
        recognizer.measure_streams(model, speech or [one.samples for one in by_folder[:count]], self.report)
        if confusion and self.docs:
            plots.draw_confusion(confusion, self.docs / "word-confusion.png")

    def _spoken(self, texts: Sequence[str], here: Sequence[str]) -> list[spoken.Said]:
        """Every sentence by a voice of flite's and, one in two, by one of espeak-ng's, all voices in turn."""
        flite = [voice for voice in spoken.FLITE if voice in here]
        espeak = [voice for voice in here if voice.startswith("espeak:")]
        asked = [(text, flite[n % len(flite)]) for n, text in enumerate(texts) if flite]
        asked += [(text, espeak[n // 2 % len(espeak)]) for n, text in enumerate(texts) if espeak and n % 2]
        said = spoken.say_all(asked, self.scratch, "recognizer", self.options.jobs)
        return [one for one in said if one is not None and one.words]

    def voices(self) -> None:
        encoder = SpeakerEncoder(EMBEDDED / "speaker")
        errors = voices.measure_voices(encoder, self.rows, self.options.all, 4 * self.limit, self.report)
        if errors and self.docs:
            plots.draw_errors(errors, self.docs / "eer-by-dimension.png")

    def feelings(self) -> None:
        feelings.measure_feelings(EmotionEncoder(EMBEDDED / "emotion"), self.rows, 4 * self.limit, self.report)

    def size(self) -> None:
        sizes = {
            folder.name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
            for folder in sorted(EMBEDDED.iterdir())
            if folder.is_dir()
        }
        self.report.measured("all models: size", sum(sizes.values()))
        self.report.context("all models", MB={name: round(size, 2) for name, size in sizes.items()})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.models", description=__doc__.splitlines()[0])
    parser.add_argument("--speech", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--noise", type=Path, required=True, help="the same, or another one; its rows of kind noise")
    parser.add_argument("--json", type=Path, help="write figures, targets, intervals and context here")
    parser.add_argument("--docs", type=Path, help="write README.md and pictures into this folder")
    parser.add_argument(
        "--all", action="store_true", help="measure also what the models were trained with, and mark it"
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part; may be given again")
    parser.add_argument("--limit", type=int, default=LIMIT, help="sentences; other counts go with it (%(default)s)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="threads where time is not taken")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    if options.limit < 1 or options.jobs < 1:
        parser.error(f"--limit and --jobs must be 1 or more, not {options.limit} and {options.jobs}")
    try:
        rows = [row for row in read_rows(options.speech) if not row.is_a("noise")]
        noises = [row for row in read_rows(options.noise) if row.is_a("noise")]
        if options.docs:
            options.docs.mkdir(parents=True, exist_ok=True)
            for name, _ in (picture for part in options.only or PARTS for picture in page.PICTURES[part]):
                (options.docs / name).unlink(missing_ok=True)  # or an earlier run's would pass for this one's
        with tempfile.TemporaryDirectory(prefix="refrain-bench-") as scratch:
            bench = Bench(rows, noises, options, Path(scratch))
            for part in tqdm(options.only or PARTS, desc="models"):
                bench.run(part)
    except FolderError as problem:
        parser.error(str(problem))
    write(bench, options)
    return 0


def write(bench: Bench, options: argparse.Namespace) -> None:
    report = bench.report
    for name, why in report.missing.items():
        rich.print(f"[yellow]{name}[/yellow]: {why}")
    report.figures.context |= {
        "intervals": report.intervals,
        "missing": report.missing,
        "figures on clips that were trained on": report.trained_on,
        "held out only": not options.all,
        "voices of the system": sorted(set(spoken.voices_here().values())),
        "seconds by part": bench.seconds,
        "seed": options.seed,
        "limit": options.limit,
    }
    report.figures.write(options.json)
    if options.docs:
        usual = {"--limit": (options.limit, LIMIT), "--seed": (options.seed, 1)}
        others = [f" {name} {given}" for name, (given, by_default) in usual.items() if given != by_default]
        others += [" --all"] * options.all + [f" --only '{part}'" for part in options.only or ()]
        page.write_page(report, options.docs, EMBEDDED, "".join(others))


if __name__ == "__main__":
    raise SystemExit(main())
