"""Speech to text: 16 kHz samples to log-mel features to CTC log-probabilities to words with times.

The network is convolutional and sees a bounded stretch of sound around each of its 40 ms steps. So a long recording is
read in overlapping windows, and a stream as it comes, and both give what one pass over the whole would give. Text is
searched phrase by phrase, between pauses, so that what was said before a pause is settled.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

import numpy as np

from models.batching import Batcher
from models.ctc import Alphabet, Judge, Letter, LogProbs, align, beam_search, greedy, phrase_ends, words_of
from models.engine import Busy, EngineError, EngineInfo, TooLate
from models.hearing import (
    BANDS,
    HOP,
    MARGIN,
    SILENCE,
    STEP,
    STEP_SECONDS,
    STRIDE,
    WINDOW,
    features,
    filterbank,
    log_bands,
    power_frames,
)
from models.onnx import ModelFileError, OnnxModel
from models.trigrams import Trigrams
from models.utterance import RECOGNIZER_RATE, Samples, Transcript, Utterance, Waveform, Word
from models.witness import evidence

T = TypeVar("T")

WINDOW_STEPS = 500
"""Steps read in one call of the network (20 s): bounds the memory that a long recording takes."""
BATCH, BATCH_STEPS, CLASS_STEPS = 8, 200, 8
"""Recordings read in one call, the steps (8 s) above which one is read alone, and by how much those of a batch may
differ in length: what a batch saves a recording is some ten steps."""
LOOK_STEPS = 8
"""New steps (0.32 s) before a stream looks again: each look reads the open steps with all their context anew."""


class Recognizer:
    """A recognizer model folder, ready to hear 16 kHz speech. Calls block and are thread-safe.

    Options of the manifest: letters (columns 1 and up), bands, stride, context (feature frames a step depends on, each
    side), edges ("silence" where the graph takes silence for what surrounds its input, as
    `models.training.recognizer_edges` makes it). With an option `words_sha256` the folder also holds words.npz
    (`models.trigrams`), and text is searched for with beam (its width), word_weight and word_bonus; without it the
    best path is read. Phrases less certain than an option least_confidence say nothing; words begin an option lead (s)
    before their first letter is spelt. Raises `models.onnx.ModelFileError` where the folder is not such a model.
    """

    def __init__(self, folder: Path, providers: Sequence[str] = (), threads: int = 1) -> None:
        self.model = OnnxModel(folder, providers=providers, threads=threads)
        options = self.model.options
        if options["bands"] != BANDS or options["stride"] != STRIDE:
            raise ModelFileError(f"{folder}: bands and stride must be {BANDS} and {STRIDE}")
        self.alphabet = Alphabet(options["letters"])
        self.context = int(options["context"])
        """Feature frames of context on each side: a whole number of steps."""
        self.silence = 0 if options.get("edges") == "silence" else self.context
        """Feature frames of silence that the graph must be given around a recording."""
        self.batch = 1 if isinstance(self.model.session.get_inputs()[0].shape[0], int) else BATCH
        """Recordings that it reads in one call."""
        self.identity = self.model.identity
        self.provider = self.model.provider
        self.judge: Judge | None = None
        self.words: Sequence[str] = ()
        if "words_sha256" in options:
            words = read_words(folder, options["words_sha256"])
            self.words = words.words
            self.judge = WordJudge(words, float(options["word_weight"]), float(options["word_bonus"]))
        self.beam = int(options.get("beam", 1))
        self.least_confidence = float(options.get("least_confidence", 0.0))
        self.lead = float(options.get("lead", 0.0))

    def log_probs(self, samples: Samples) -> LogProbs:
        """Natural-log probabilities of a 16 kHz wave: float32 [ceil(n / 640), letters + 1], a row each 40 ms."""
        heard = features(samples)
        steps = -(-len(heard) // STRIDE)
        if steps == 0:
            return np.zeros((0, self.alphabet.size), np.float32)
        return np.concatenate(
            [self.steps(heard, first, first + WINDOW_STEPS) for first in range(0, steps, WINDOW_STEPS)]
        )

    def steps(self, heard: Samples, first: int, last: int) -> LogProbs:
        """Rows [first, last) of the log-probabilities of features [T, 80] that start at step 0; at most what is there.

        Beyond the features lies silence, which is what a recording is taken to be surrounded by.
        """
        whole = -(-len(heard) // STRIDE)
        last = min(last, whole)
        begin = max(first * STRIDE - self.context, -self.silence)
        end = min(last * STRIDE + self.context, whole * STRIDE + self.silence)
        piece = heard[max(begin, 0) : min(end, len(heard))]
        before, after = max(-begin, 0), max(end - len(heard), 0)
        piece = np.pad(piece, ((before, after), (0, 0)), constant_values=SILENCE)
        rows = self.model.run({"features": piece[None]})[0][0]
        skipped = first - begin // STRIDE
        return np.asarray(rows[skipped : skipped + last - first], np.float32)

    def log_probs_of(self, recordings: Sequence[Samples]) -> list[LogProbs]:
        """As `log_probs` of each, in one call of the network; the shorter ones are followed by silence."""
        heard = [features(samples) for samples in recordings]
        steps = [-(-len(one) // STRIDE) for one in heard]
        batch = np.full((len(heard), max(steps) * STRIDE + 2 * self.silence, BANDS), SILENCE, np.float32)
        for row, one in zip(batch, heard, strict=True):
            row[self.silence : self.silence + len(one)] = one
        rows = self.model.run({"features": batch})[0]
        begin = self.silence // STRIDE
        return [np.asarray(row[begin : begin + count], np.float32) for row, count in zip(rows, steps, strict=True)]

    def transcribe(self, samples: Samples) -> Transcript:
        """The words of a 16 kHz wave of any length, with times; silence and noise give an empty text."""
        return self.read(self.log_probs(samples))

    def read(self, rows: LogProbs) -> Transcript:
        """The words of a whole recording's log-probabilities."""
        ends = [*phrase_ends(rows.argmax(axis=1) == 0), len(rows)]
        phrases = [self.phrase(rows[a:b], a) for a, b in zip([0, *ends], ends, strict=False)]
        return transcript_of(phrases, final=True, lead=self.lead)

    def disbelief(self, samples: Samples, text: str) -> float:
        """`models.engine.Witness`: log-odds that the recording does not say `text`; infinite where it cannot.

        Held against our own readings, by letters and as words (what the word counts favour may be the less likely by
        sound alone), and against rivals: `models.witness`.
        """
        rows = self.log_probs(samples)
        found = evidence(rows, text, self.read(rows).text, self.alphabet, self.words)
        return math.inf if found is None else found.log_odds

    def phrase(self, rows: LogProbs, first_step: int) -> list[Letter]:
        """The likeliest letters of one phrase's rows, which start at `first_step` of the recording.

        None where even the best path is less certain than the option least_confidence: noise, not speech.
        """
        best_path = greedy(rows, self.alphabet, first_step)
        if _certainty(best_path) < self.least_confidence:
            return []
        if self.judge is None or not best_path:
            return best_path
        text = beam_search(rows, self.alphabet, self.beam, judge=self.judge)[0][0]
        return align(rows, " ".join(text.split()), self.alphabet, first_step)


class WordJudge:
    """`models.ctc.Judge` by word counts: their natural logs times a weight, and a bonus for each word.

    The bonus makes up for what long words lose against short ones; both were chosen by measurement.
    """

    def __init__(self, words: Trigrams, weight: float, bonus: float) -> None:
        self._words, self._weight, self._bonus = words, weight, bonus

    def word(self, earlier: str, before: str, word: str) -> float:
        return self._weight * self._words.score(earlier, before, word) + self._bonus

    def ahead(self, part: str) -> float:
        return self._weight * self._words.ahead(part) + self._bonus


def read_words(folder: Path, digest: str) -> Trigrams:
    """The folder's words.npz. Raises `ModelFileError` where it is missing or not what the manifest says."""
    path = folder / "words.npz"
    if not path.is_file():
        raise ModelFileError(f"{path}: missing; model.toml names it by words_sha256")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ModelFileError(f"{path}: sha256 is {found}, but model.toml says {digest}")
    try:
        return Trigrams.load(data)
    except ValueError as problem:
        raise ModelFileError(f"{path}: {problem}") from problem


def transcript_of(phrases: Sequence[Sequence[Letter]], *, final: bool, lead: float = 0.0) -> Transcript:
    """Words with times in seconds; phrases hold whole words. A word begins `lead` s before its first letter's step,
    but not before the last word ended: CTC spells a letter when it is sure of it, and that is late.

    A word's confidence is the geometric mean of its letters' probabilities, each at its most certain step; the
    transcript's is the same over all letters, and 0 where there are none.
    """
    words: list[Word] = []
    for word in [word for letters in phrases for word in words_of(letters)]:
        text = "".join(letter.text for letter in word)
        ended = words[-1].end if words else 0.0
        start, end = max(word[0].start * STEP_SECONDS - lead, ended), word[-1].end * STEP_SECONDS
        words.append(Word(text, round(start, 3), round(end, 3), _certainty(word)))
    certainty = _certainty([letter for letters in phrases for letter in letters])
    return Transcript(" ".join(word.text for word in words), certainty, tuple(words), final)


def _certainty(letters: Sequence[Letter]) -> float:
    """Geometric mean of the probabilities of all letters but spaces; 0 where there are none."""
    spoken = [letter.log_prob for letter in letters if letter.text != " "]
    return math.exp(math.fsum(spoken) / len(spoken)) if spoken else 0.0


class RecognizerStream:
    """One recording as it comes. Steps whose whole context has been heard never change, and phrases before a pause are
    settled: of an interim transcript only the phrase being spoken may change, which is read by its best path.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._tail = np.zeros(MARGIN, np.float32)
        """Samples the next feature frame still needs, from MARGIN before it on."""
        self._heard = np.zeros((0, BANDS), np.float32)
        """Features from step `_base` on: what open steps, and their context, read."""
        self._base = 0
        self._closed = 0
        """Steps read for good."""
        self._phrases: list[list[Letter]] = []
        self._pending = np.zeros((0, recognizer.alphabet.size), np.float32)
        """Closed rows of the phrase being spoken."""
        self._looked = 0
        self._interim = Transcript("", 0.0, final=False)

    def accept(self, samples: Samples) -> Transcript:
        """Takes the next 16 kHz samples, any number; returns what has been said so far (`final` False)."""
        self._take(samples)
        context = self._recognizer.context // STRIDE
        whole = len(self._heard) // STRIDE + self._base
        if whole - self._looked < LOOK_STEPS:
            return self._interim
        self._looked = whole
        self._close(whole - context)
        rest = greedy(np.concatenate([self._pending, self._open_rows()]), self._recognizer.alphabet, self._begin)
        self._interim = transcript_of([*self._phrases, rest], final=False, lead=self._recognizer.lead)
        return self._interim

    def finish(self) -> Transcript:
        """No more samples: the transcript of the whole, equal to `Recognizer.transcribe` of it."""
        self._take(np.zeros(MARGIN, np.float32))
        self._settle(self._open_rows())
        phrases = [*self._phrases, self._recognizer.phrase(self._pending, self._begin)]
        return transcript_of(phrases, final=True, lead=self._recognizer.lead)

    @property
    def _begin(self) -> int:
        return self._closed - len(self._pending)

    def _take(self, samples: Samples) -> None:
        tail = np.concatenate([self._tail, samples.astype(np.float32, copy=False)])
        frames = max(0, (len(tail) - WINDOW) // HOP + 1)
        if frames:
            self._heard = np.concatenate([self._heard, log_bands(power_frames(tail), filterbank())])
        self._tail = tail[frames * HOP :]

    def _close(self, last: int) -> None:
        """Reads steps up to `last` for good and lets go of features no later step depends on."""
        if last <= self._closed:
            return
        self._settle(self._rows(self._closed, last))
        keep = max(0, last - self._recognizer.context // STRIDE)
        self._heard = self._heard[(keep - self._base) * STRIDE :]
        self._base = keep

    def _settle(self, rows: LogProbs) -> None:
        """Searches the phrases that these closed rows end."""
        self._pending = np.concatenate([self._pending, rows])
        self._closed += len(rows)
        begin, done = self._begin, 0
        for end in phrase_ends(self._pending.argmax(axis=1) == 0):
            self._phrases.append(self._recognizer.phrase(self._pending[done:end], begin + done))
            done = end
        self._pending = self._pending[done:]

    def _open_rows(self) -> LogProbs:
        return self._rows(self._closed, self._base + -(-len(self._heard) // STRIDE))

    def _rows(self, first: int, last: int) -> LogProbs:
        if last <= first:
            return np.zeros((0, self._recognizer.alphabet.size), np.float32)
        return self._recognizer.steps(self._heard, first - self._base, last - self._base)


class RecognizerEngine:
    """`models.engine.Engine` for recordings: the waveform of an utterance in, one final transcript out.

    Recordings that come together go through the network together; each is searched for words by itself, and answered
    as soon as it has been.
    """

    def __init__(
        self, recognizer: Recognizer, executor: Executor, *, runners: int = os.cpu_count() or 1, waiting: int = 1024
    ) -> None:
        """`runners`: calls of the network at once; `waiting`: recordings that may wait for one."""
        self._recognizer = recognizer
        self._executor = executor
        self._batcher = Batcher[Samples, LogProbs](
            recognizer.log_probs_of,
            executor,
            runners=runners,
            most=recognizer.batch,
            waiting=waiting,
            bucket=lambda steps: steps // CLASS_STEPS,
        )
        manifest = recognizer.model.manifest
        self._info = EngineInfo(
            name=manifest["name"],
            family="recognizer",
            identity=recognizer.identity,
            provider=recognizer.provider,
            licence=manifest["licence"],
            sample_rate=RECOGNIZER_RATE,
            at_once=recognizer.batch,
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def run(self, utterance: Utterance) -> AsyncGenerator[Transcript, None]:
        """Yields the transcript. Raises `EngineError` for anything but speech at 16 kHz and when the model fails,
        `Busy` and `TooLate` as `models.batching.Batcher` does."""
        content = utterance.content
        if not isinstance(content, Waveform):
            raise EngineError(f"a recognizer needs a waveform, not {type(content).__name__}")
        if content.rate != RECOGNIZER_RATE:
            raise EngineError(f"a recognizer needs {RECOGNIZER_RATE} Hz, not {content.rate} Hz")
        samples = content.samples
        steps = -(-len(samples) // STEP)
        if len(samples) < HOP or steps > BATCH_STEPS:
            yield await self._call(self._recognizer.transcribe, samples)
            return
        _check(samples)
        try:
            rows = await self._batcher.run(samples, steps)
        except (Busy, TooLate):
            raise
        except Exception as problem:
            raise EngineError(f"recognition failed: {problem}") from problem
        yield await self._in_thread(self._recognizer.read, rows)

    async def stream(self, chunks: AsyncIterator[Samples]) -> AsyncGenerator[Transcript, None]:
        """Interim transcripts of 16 kHz chunks whenever the text has changed, then the final one."""
        listening = RecognizerStream(self._recognizer)
        said = ""
        async for chunk in chunks:
            interim = await self._call(listening.accept, chunk)
            if interim.text != said:
                said = interim.text
                yield interim
        yield await self._call(lambda _: listening.finish(), np.zeros(0, np.float32))

    async def disbelief(self, waveform: Waveform, text: str) -> float:
        """`models.engine.Witness`: see `Recognizer.disbelief`. Raises `EngineError`."""
        return await self._call(lambda samples: self._recognizer.disbelief(samples, text), waveform.samples)

    async def _call(self, work: Callable[[Samples], T], samples: Samples) -> T:
        _check(samples)
        return await self._in_thread(work, samples)

    async def _in_thread(self, work: Callable[[Samples], T], of: Samples) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work, of)
        except Exception as problem:
            raise EngineError(f"recognition failed: {problem}") from problem


def _check(samples: Samples) -> None:
    if not np.isfinite(samples).all():
        raise EngineError("the recording holds samples that are not numbers")
