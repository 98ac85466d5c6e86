"""Speech to text: 16 kHz samples to log-mel features to CTC log-probabilities to words with times.

The network is convolutional and sees a bounded stretch of sound around each of its 40 ms steps. So a long recording is
read in overlapping windows, and a stream as it comes, and both give what one pass over the whole would give.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from scipy import fft

from models.ctc import Alphabet, Letter, LogProbs, greedy, words_of
from models.engine import EngineError, EngineInfo
from models.mel import frames_of, hann, mel_filterbank
from models.onnx import ModelFileError, OnnxModel
from models.utterance import RECOGNIZER_RATE, Samples, Transcript, Utterance, Waveform, Word

BANDS = 80
WINDOW = 400
HOP = 160
N_FFT = 512
MARGIN = (WINDOW - HOP) // 2
"""Samples a feature frame reads on each side of its own 10 ms."""
FLOOR = 1e-7
CENTRE, SPREAD = -9.0, 4.0
"""Fixed, not measured per recording, so that a frame's features do not depend on what is said a minute later."""

SILENCE = (math.log(FLOOR) - CENTRE) / SPREAD
"""The feature of no sound at all."""

STRIDE = 4
"""Feature frames a step of the network: its first layers halve the rate twice."""
STEP = STRIDE * HOP
STEP_SECONDS = STEP / RECOGNIZER_RATE
WINDOW_STEPS = 500
"""Steps read in one call of the network (20 s): bounds the memory that a long recording takes."""


def power_frames(samples: Samples) -> Samples:
    """Power spectra of a 16 kHz wave with `MARGIN` samples of context already on each side: float32 [T, 257]."""
    spectrum = fft.rfft(frames_of(samples, WINDOW, HOP) * hann(WINDOW), n=N_FFT, axis=1)
    return np.asarray(np.square(spectrum.real) + np.square(spectrum.imag), np.float32)


def log_bands(power: Samples, bank: Samples) -> Samples:
    """Scaled log energies of power spectra under a filterbank [80, 257]: float32 [T, 80], about -1 to 2."""
    return np.asarray((np.log(power @ bank.T + FLOOR) - CENTRE) / SPREAD, np.float32)


def filterbank() -> Samples:
    """The recognizer's mel bands, 20 Hz to 7600 Hz: float32 [80, 257]."""
    return mel_filterbank(RECOGNIZER_RATE, N_FFT, BANDS, 20.0, 7600.0)


def features(samples: Samples) -> Samples:
    """What the network hears of a whole 16 kHz wave: float32 [n // 160, 80]; silence is taken to surround it."""
    if len(samples) < HOP:
        return np.zeros((0, BANDS), np.float32)
    padded = np.pad(samples.astype(np.float32, copy=False), MARGIN)
    return log_bands(power_frames(padded), filterbank())


class Recognizer:
    """A recognizer model folder, ready to hear 16 kHz speech. Calls block and are thread-safe.

    Options of the manifest: letters (columns 1 and up), bands, stride, context (feature frames a step depends on, each
    side). Raises `models.onnx.ModelFileError` where the folder is not a model.
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
        return transcript_of(greedy(self.log_probs(samples), self.alphabet), final=True)


def transcript_of(letters: Sequence[Letter], *, final: bool) -> Transcript:
    """Words with times in seconds.

    A word's confidence is the geometric mean of its letters' probabilities, each at its most certain step; the
    transcript's is the same over all letters, and 0 where there are none.
    """
    words = []
    for word in words_of(letters):
        text = "".join(letter.text for letter in word)
        start, end = word[0].start * STEP_SECONDS, word[-1].end * STEP_SECONDS
        words.append(Word(text, round(start, 3), round(end, 3), _certainty(word)))
    kept = [letter for letter in letters if letter.text != " "]
    return Transcript(" ".join(word.text for word in words), _certainty(kept), tuple(words), final)


def _certainty(letters: Sequence[Letter]) -> float:
    if not letters:
        return 0.0
    return math.exp(math.fsum(letter.log_prob for letter in letters) / len(letters))


class RecognizerStream:
    """One recording as it comes. Steps whose whole context has been heard never change, so partial results are stable:
    only the last words of an interim transcript, heard with silence in place of what is to come, may.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._tail = np.zeros(MARGIN, np.float32)
        """Samples the next feature frame still needs, from MARGIN before it on."""
        self._heard = np.zeros((0, BANDS), np.float32)
        """Features from `_base` steps on: what open steps, and their context, read."""
        self._base = 0
        self._closed = 0
        """Steps read for good."""
        self._letters: list[Letter] = []
        """Letters no later step can change."""
        self._pending = np.zeros((0, recognizer.alphabet.size), np.float32)
        """Closed rows since the last blank: the letter they spell may still go on."""

    def accept(self, samples: Samples) -> Transcript:
        """Takes the next 16 kHz samples, any number; returns what has been said so far (`final` False)."""
        self._take(samples)
        context = self._recognizer.context // STRIDE
        whole = len(self._heard) // STRIDE + self._base
        self._close(whole - context)
        return self._read(self._open_rows(), final=False)

    def finish(self) -> Transcript:
        """No more samples: the transcript of the whole, equal to `Recognizer.transcribe` of it."""
        self._take(np.zeros(MARGIN, np.float32))
        return self._read(self._open_rows(), final=True)

    def _take(self, samples: Samples) -> None:
        tail = np.concatenate([self._tail, samples.astype(np.float32, copy=False)])
        frames = max(0, (len(tail) - WINDOW) // HOP + 1)
        if frames:
            heard = log_bands(power_frames(tail), filterbank())
            self._heard = np.concatenate([self._heard, heard[:frames]])
        self._tail = tail[frames * HOP :]

    def _close(self, last: int) -> None:
        """Reads steps up to `last` for good and lets go of features no later step depends on."""
        if last <= self._closed:
            return
        self._pending = np.concatenate([self._pending, self._rows(self._closed, last)])
        self._closed = last
        blanks = np.flatnonzero(self._pending.argmax(axis=1) == 0)
        if len(blanks):
            begin = self._closed - len(self._pending)
            self._letters += greedy(self._pending[: blanks[-1]], self._recognizer.alphabet, begin)
            self._pending = self._pending[blanks[-1] :]
        keep = max(0, last - self._recognizer.context // STRIDE)
        self._heard = self._heard[(keep - self._base) * STRIDE :]
        self._base = keep

    def _open_rows(self) -> LogProbs:
        return self._rows(self._closed, self._base + -(-len(self._heard) // STRIDE))

    def _rows(self, first: int, last: int) -> LogProbs:
        if last <= first:
            return np.zeros((0, self._recognizer.alphabet.size), np.float32)
        return self._recognizer.steps(self._heard, first - self._base, last - self._base)

    def _read(self, open_rows: LogProbs, *, final: bool) -> Transcript:
        begin = self._closed - len(self._pending)
        rows = np.concatenate([self._pending, open_rows])
        return transcript_of([*self._letters, *greedy(rows, self._recognizer.alphabet, begin)], final=final)


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

    async def run(self, utterance: Utterance) -> AsyncIterator[Transcript]:
        """Yields the transcript. Raises `EngineError` for anything but speech at 16 kHz, and when the model fails."""
        content = utterance.content
        if not isinstance(content, Waveform):
            raise EngineError(f"a recognizer needs a waveform, not {type(content).__name__}")
        if content.rate != RECOGNIZER_RATE:
            raise EngineError(f"a recognizer needs {RECOGNIZER_RATE} Hz, not {content.rate} Hz")
        yield await self._call(self._recognizer.transcribe, content.samples)

    async def stream(self, chunks: AsyncIterator[Samples]) -> AsyncIterator[Transcript]:
        """Interim transcripts of 16 kHz chunks whenever the text has changed, then the final one."""
        listening = RecognizerStream(self._recognizer)
        said = ""
        async for chunk in chunks:
            interim = await self._call(listening.accept, chunk)
            if interim.text != said:
                said = interim.text
                yield interim
        yield await self._call(lambda _: listening.finish(), np.zeros(0, np.float32))

    async def _call(self, work: Callable[[Samples], Transcript], samples: Samples) -> Transcript:
        if not np.isfinite(samples).all():
            raise EngineError("the recording holds samples that are not numbers")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work, samples)
        except Exception as problem:
            raise EngineError(f"recognition failed: {problem}") from problem
