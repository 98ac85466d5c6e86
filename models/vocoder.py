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

from models.engine import EngineError, EngineInfo
from models.onnx import OnnxModel
from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE, Audio, Mel, Samples, Utterance

EMBEDDED = Path(__file__).parent / "embedded" / "vocoder"
CHUNK_FRAMES = 43
"""Frames of a streamed chunk: 0.50 s."""


class Vocoder:
    """The vocoder in `folder` (`models.onnx.OnnxModel`). Thread-safe; every call blocks."""

    def __init__(self, folder: Path = EMBEDDED, *, providers: Sequence[str] = (), threads: int = 1) -> None:
        """Raises `models.onnx.ModelFileError` when the folder is not a sound model folder."""
        self._model = OnnxModel(folder, providers=providers, threads=threads)
        self._context = int(self._model.options["context"])
        self.identity = self._model.identity
        self.provider = self._model.provider
        self.info = EngineInfo(
            name=str(self._model.manifest["name"]),
            family=str(self._model.manifest["family"]),
            identity=self.identity,
            provider=self.provider,
            licence=str(self._model.manifest["licence"]),
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

    def stream(self, mels: Iterable[Samples], chunk_frames: int = CHUNK_FRAMES) -> Iterator[Samples]:
        """Waves of an utterance whose mel arrives in pieces float32 [80, t]; together they are `wave` of the whole.

        Each wave but the last is of `chunk_frames` frames, and comes when the frames after it that can change it
        (`context`, 0.33 s in the shipped model) are there. Raises `ValueError` as `wave` does.
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
            anchor = done - dropped
            wave, phases = self._run(held[:, : anchor + take + self._context], phase, anchor, dropped)
            yield wave[anchor * MEL_HOP : (anchor + take) * MEL_HOP]
            done += take
            if take == fresh:
                return
            phase = float(phases[anchor + take])
            kept = max(done - self._context, dropped)
            held = held[:, kept - dropped :]
            dropped = kept

    def _run(self, mel: Samples, phase: float, anchor: int, position: int) -> tuple[Samples, npt.NDArray[np.float64]]:
        """One call of the graph, as `models.training.vocoder_export.Graph` describes it: wave [T * 256], phases [T]."""
        wave, phases = self._model.run(
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
    """`models.engine.Engine` for mels: chunks of half a second, each made in `executor` when it is asked for."""

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
        waves = self._vocoder.stream([utterance.content.frames])
        loop = asyncio.get_running_loop()
        while True:
            try:
                wave = await loop.run_in_executor(self._executor, next, waves, None)
            except Exception as error:
                raise EngineError(f"vocoder {self.info.name}: {error}") from error
            if wave is None:
                return
            yield Audio(wave)
