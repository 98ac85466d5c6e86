"""Speech to text: 16 kHz samples to log-mel features to CTC log-probabilities to words with times.

The network is convolutional and sees a bounded stretch of sound around each of its 40 ms steps. So a long recording is
read in overlapping windows, and a stream as it comes, and both give what one pass over the whole would give. Text is
searched phrase by phrase, between pauses, so that what was said before a pause is settled.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

import numpy as np

from models.bigrams import Bigrams
from models.ctc import Alphabet, Letter, LogProbs, align, beam_search, greedy, phrase_ends, score, words_of
from models.engine import EngineError, EngineInfo
from models.hearing import (
    BANDS,
    HOP,
    MARGIN,
    SILENCE,
    STEP_SECONDS,
    STRIDE,
    WINDOW,
    features,
    filterbank,
    log_bands,
    power_frames,
)
from models.onnx import ModelFileError, OnnxModel
from models.utterance import RECOGNIZER_RATE, Samples, Transcript, Utterance, Waveform, Word

T = TypeVar("T")

WINDOW_STEPS = 500
"""Steps read in one call of the network (20 s): bounds the memory that a long recording takes."""
LOOK_STEPS = 8
"""New steps (0.32 s) before a stream looks again: each look reads the open steps with all their context anew."""


class Recognizer:
    """A recognizer model folder, ready to hear 16 kHz speech. Calls block and are thread-safe.

    Options of the manifest: letters (columns 1 and up), bands, stride, context (feature frames a step depends on, each
    side). With an option `words_sha256` the folder also holds words.txt.gz (`models.bigrams`), and text is searched
    for with beam (its width), word_weight and word_bonus; without it the best path is read. Phrases less certain than
    an option least_confidence say nothing. Raises `models.onnx.ModelFileError` where the folder is not such a model.
    """

    def __init__(self, folder: Path, providers: Sequence[str] = (), threads: int = 1) -> None:
        self.model = OnnxModel(folder, providers=providers, threads=threads)
        options = self.model.options
        if options["bands"] != BANDS or options["stride"] != STRIDE:
            raise ModelFileError(f"{folder}: bands and stride must be {BANDS} and {STRIDE}")
        self.alphabet = Alphabet(options["letters"])
        self.context = int(options["context"])
        """Feature frames of context on each side: a whole number of steps."""
        self.identity = self.model.identity
        self.provider = self.model.provider
        self.bigrams = read_words(folder, options["words_sha256"]) if "words_sha256" in options else None
        self.beam = int(options.get("beam", 1))
        self.word_weight = float(options.get("word_weight", 0.0))
        self.least_confidence = float(options.get("least_confidence", 0.0))
        self.word_bonus = float(options.get("word_bonus", 0.0))

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
        last = min(last, -(-len(heard) // STRIDE))
        begin, end = first * STRIDE - self.context, last * STRIDE + self.context
        piece = heard[max(begin, 0) : min(end, len(heard))]
        before, after = max(-begin, 0), max(end - len(heard), 0)
        piece = np.pad(piece, ((before, after), (0, 0)), constant_values=SILENCE)
        rows = self.model.run({"features": piece[None]})[0][0]
        margin = self.context // STRIDE
        return np.asarray(rows[margin : margin + last - first], np.float32)

    def transcribe(self, samples: Samples) -> Transcript:
        """The words of a 16 kHz wave of any length, with times; silence and noise give an empty text."""
        return self.read(self.log_probs(samples))

    def read(self, rows: LogProbs) -> Transcript:
        """The words of a whole recording's log-probabilities."""
        ends = [*phrase_ends(rows.argmax(axis=1) == 0), len(rows)]
        phrases = [self.phrase(rows[a:b], a) for a, b in zip([0, *ends], ends, strict=False)]
        return transcript_of(phrases, final=True)

    def disbelief(self, samples: Samples, text: str) -> float:
        """How much less likely `text` is than the likelier of our own two readings, in nats a second; 0 and up.

        Read letter by letter and as words: what the words' bigrams favour may be the less likely by sound alone.
        """
        rows = self.log_probs(samples)
        best_path = "".join(letter.text for letter in greedy(rows, self.alphabet))
        free = max(score(rows, best_path, self.alphabet), score(rows, self.read(rows).text, self.alphabet))
        try:
            told = score(rows, text, self.alphabet)
        except ValueError:  # letters that no reading of ours has
            return math.inf
        seconds = max(len(rows) * STEP_SECONDS, STEP_SECONDS)
        return max(0.0, free - told) / seconds if math.isfinite(told) else math.inf

    def phrase(self, rows: LogProbs, first_step: int) -> list[Letter]:
        """The likeliest letters of one phrase's rows, which start at `first_step` of the recording.

        None where even the best path is less certain than the option least_confidence: noise, not speech.
        """
        best_path = greedy(rows, self.alphabet, first_step)
        if _certainty(best_path) < self.least_confidence:
            return []
        if self.bigrams is None or not best_path:
            return best_path
        text = beam_search(rows, self.alphabet, self.beam, word_score=self._word_score)[0][0]
        return align(rows, " ".join(text.split()), self.alphabet, first_step)

    def _word_score(self, before: str, word: str) -> float:
        assert self.bigrams is not None
        return self.word_weight * self.bigrams.score(before, word) + self.word_bonus


def read_words(folder: Path, digest: str) -> Bigrams:
    """The folder's words.txt.gz. Raises `ModelFileError` where it is missing or not what the manifest says."""
    path = folder / "words.txt.gz"
    if not path.is_file():
        raise ModelFileError(f"{path}: missing; model.toml names it by words_sha256")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ModelFileError(f"{path}: sha256 is {found}, but model.toml says {digest}")
    return Bigrams.load(data)


def transcript_of(phrases: Sequence[Sequence[Letter]], *, final: bool) -> Transcript:
    """Words with times in seconds; phrases hold whole words.

    A word's confidence is the geometric mean of its letters' probabilities, each at its most certain step; the
    transcript's is the same over all letters, and 0 where there are none.
    """
    words = []
    for word in [word for letters in phrases for word in words_of(letters)]:
        text = "".join(letter.text for letter in word)
        start, end = word[0].start * STEP_SECONDS, word[-1].end * STEP_SECONDS
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
        self._interim = transcript_of([*self._phrases, rest], final=False)
        return self._interim

    def finish(self) -> Transcript:
        """No more samples: the transcript of the whole, equal to `Recognizer.transcribe` of it."""
        self._take(np.zeros(MARGIN, np.float32))
        self._settle(self._open_rows())
        return transcript_of([*self._phrases, self._recognizer.phrase(self._pending, self._begin)], final=True)

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
    """`models.engine.Engine` for recordings: the waveform of an utterance in, one final transcript out."""

    def __init__(self, recognizer: Recognizer, executor: Executor) -> None:
        self._recognizer = recognizer
        self._executor = executor
        manifest = recognizer.model.manifest
        self._info = EngineInfo(
            name=manifest["name"],
            family="recognizer",
            identity=recognizer.identity,
            provider=recognizer.provider,
            licence=manifest["licence"],
            sample_rate=RECOGNIZER_RATE,
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def run(self, utterance: Utterance) -> AsyncGenerator[Transcript, None]:
        """Yields the transcript. Raises `EngineError` for anything but speech at 16 kHz, and when the model fails."""
        content = utterance.content
        if not isinstance(content, Waveform):
            raise EngineError(f"a recognizer needs a waveform, not {type(content).__name__}")
        if content.rate != RECOGNIZER_RATE:
            raise EngineError(f"a recognizer needs {RECOGNIZER_RATE} Hz, not {content.rate} Hz")
        yield await self._call(self._recognizer.transcribe, content.samples)

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
        if not np.isfinite(samples).all():
            raise EngineError("the recording holds samples that are not numbers")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work, samples)
        except Exception as problem:
            raise EngineError(f"recognition failed: {problem}") from problem
