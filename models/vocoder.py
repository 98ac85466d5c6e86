"""Mel to wave at run time: the shipped vocoder graph, whole or in a stream that equals the whole.

The graph integrates the pitch it reads off the mel, so a stream carries that phase from chunk to chunk, and gives each
chunk the frames around it that can change its samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models.engine import ERRAND, EngineError, EngineInfo, Errand
from models.onnx import OnnxModel
from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE, Audio, Mel, Samples, Utterance

EMBEDDED = Path(__file__).parent / "embedded" / "vocoder"
CHUNK_FRAMES = 43
"""Frames of a streamed chunk: 0.50 s."""
EARLY_FRAMES, GROWTH = 36, 8
"""Where the first sound is waited for: a chunk of 0.42 s, then each so many times the last. Each is computed with its
context anew, 0.65 s, so few are cheaper; and while one is heard, the next is made many times as fast."""
SHORTEST_RUN = 64
"""Frames. In shorter runs onnxruntime adds up in another order, and the wave differs from the whole's by more than
1e-4, so a short last chunk is given more of what came before it than it depends on."""
MOST_FRAMES = 1024
"""No chunk is longer (12 s), which bounds the memory that a run takes and how soon it can be broken off."""


class Vocoder:
    """The vocoder in `folder` (`models.onnx.OnnxModel`). Thread-safe; every call blocks."""

    def __init__(self, folder: Path = EMBEDDED, *, providers: Sequence[str] = (), threads: int = 1) -> None:
        """Raises `models.onnx.ModelFileError` when the folder is not a sound model folder."""
        self.model = OnnxModel(folder, providers=providers, threads=threads)
        self._context = int(self.model.options["context"])
        self.identity = self.model.identity
        self.provider = self.model.provider
        self.device = self.model.device
        """Where it makes its waves; "cpu" is the host."""
        self.info = EngineInfo(
            name=str(self.model.manifest["name"]),
            family=str(self.model.manifest["family"]),
            identity=self.identity,
            provider=self.provider,
            licence=str(self.model.manifest["licence"]),
            sample_rate=MEL_RATE,
        )

    def wave(self, mel: Samples) -> Samples:
        """The wave of a log-mel float32 [80, T]: float32 [T * 256] within -1..1 at 22,050 Hz, frame t's hop at 256 t.

        Raises `ValueError` for another shape or for values that are not finite.
        """
        checked(mel)
        if mel.shape[1] == 0:
            return np.zeros(0, np.float32)
        return self._run(mel, 0.0, 0, 0)[0]

    def wave_of(self, mel: ort.OrtValue) -> Samples:
        """As `wave`, of a mel float32 [1, 80, T] that lies where this model runs; only the wave comes to the host."""
        zero = np.zeros(1, np.int64)
        feeds = {"mel": mel, "phase": np.zeros(1, np.float64), "anchor": zero, "position": zero}
        wave: Samples = self.model.on_device(feeds, to_host=("wave",))[0].numpy()[0]
        return np.clip(wave, -1.0, 1.0, out=wave)

    def stream(self, mels: Iterable[Samples], chunk_frames: int = CHUNK_FRAMES, growth: int = 1) -> Iterator[Samples]:
        """Waves of an utterance whose mel arrives in pieces float32 [80, t]; together they are `wave` of the whole.

        The first is of `chunk_frames` frames, each but the last `growth` times the one before, MOST_FRAMES at most.
        It comes when the frames after it that can change it (`context`, 0.33 s in the shipped model) are there. Raises
        `ValueError` as `wave` does.
        """
        held = np.zeros((MEL_BANDS, 0), np.float32)
        dropped = 0
        done = 0
        phase = 0.0
        pieces = iter(mels)
        ended = False
        while True:
            while not ended and dropped + held.shape[1] < done + chunk_frames + self._context:
                piece = next(pieces, None)
                if piece is None:
                    ended = True
                else:
                    held = np.concatenate([held, checked(piece)], axis=1)
            fresh = dropped + held.shape[1] - done
            if fresh == 0:
                return
            # Unless the mel has ended, at least a chunk and its context are held by now, so a chunk leaves some over.
            # The last chunk may be longer by the context, rather than be followed by a crumb.
            take = fresh if ended and fresh <= chunk_frames + self._context else chunk_frames
            end = min(done - dropped + take + self._context, held.shape[1])
            begin = max(min(done - dropped - self._context, end - SHORTEST_RUN), 0)
            anchor = done - dropped - begin
            wave, phases = self._run(held[:, begin:end], phase, anchor, dropped + begin)
            yield wave[anchor * MEL_HOP : (anchor + take) * MEL_HOP]
            done += take
            if take == fresh:
                return
            phase = float(phases[anchor + take])
            kept = max(done - max(self._context, SHORTEST_RUN), dropped)
            held = held[:, kept - dropped :]
            dropped = kept
            chunk_frames = min(chunk_frames * growth, max(MOST_FRAMES, chunk_frames))

    def _run(self, mel: Samples, phase: float, anchor: int, position: int) -> tuple[Samples, npt.NDArray[np.float64]]:
        """One call of the graph, as `models.training.vocoder_export.Graph` describes it: wave [T * 256], phases [T]."""
        wave, phases = self.model.run(
            {
                "mel": np.ascontiguousarray(mel[None]),
                "phase": np.array([phase], np.float64),
                "anchor": np.array([anchor], np.int64),
                "position": np.array([position], np.int64),
            }
        )
        return np.clip(wave[0], -1.0, 1.0), phases[0].astype(np.float64)


def checked(mel: Samples) -> Samples:
    """The mel itself. Raises `ValueError` unless it is [80, T] and finite."""
    if mel.ndim != 2 or mel.shape[0] != MEL_BANDS:
        raise ValueError(f"mel: shape is {list(mel.shape)}, but must be [80, T]")
    if not np.isfinite(mel).all():
        raise ValueError("mel: holds values that are not finite")
    return mel.astype(np.float32, copy=False)


class VocoderEngine:
    """`models.engine.Engine` for mels: chunks, each made in `executor` when it is asked for. A caller who hears them as
    they come gets a small one first."""

    def __init__(self, vocoder: Vocoder, executor: Executor) -> None:
        self._vocoder = vocoder
        self._executor = executor

    @property
    def info(self) -> EngineInfo:
        return self._vocoder.info

    async def run(self, utterance: Utterance) -> AsyncGenerator[Audio, None]:
        """Yields `Audio`. Raises `EngineError` for other contents, for a wrong mel, and when the graph fails."""
        if not isinstance(utterance.content, Mel):
            raise EngineError(f"content: is {type(utterance.content).__name__}, but a vocoder takes a Mel")
        first = EARLY_FRAMES if (ERRAND.get(None) or Errand()).early else MOST_FRAMES
        frames = utterance.content.frames
        waves, left = self._vocoder.stream([frames], first, GROWTH), frames.size // MEL_BANDS * MEL_HOP
        loop = asyncio.get_running_loop()
        while True:
            try:
                wave = await loop.run_in_executor(self._executor, next, waves, None)
            except Exception as error:
                raise EngineError(f"vocoder {self.info.name}: {error}") from error
            if wave is None:
                return
            yield Audio(wave)
            left -= len(wave)
            if not left:  # rather than ask the thread once more, which takes a third of a millisecond
                return
