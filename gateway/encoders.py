"""What voice and mood encoders are to the gateway: EmbedVoice's engine, the ear for examples, the judge of likeness.

A voice given by embedding and a mood given by example are near to what answers, never it: such answers are fuzzy. What
the encoders hear in the answer itself says afterwards whether it was right to give it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

import numpy as np

from gateway.audio import waveform
from gateway.pcm import Resampler
from gateway.voices import NoNearVoice, VoiceBook, unit
from models.engine import Encoder, EngineError, EngineInfo, MoodEncoder, Unfit, VoiceEncoder
from models.synthesizer import digest_of
from models.utterance import RECOGNIZER_RATE, Audio, Chunk, Samples, Utterance, VoicePrint, Waveform

T = TypeVar("T")

EXAMPLES_KEPT: Final = 4096
"""Examples whose mood is remembered: a digest of 32 bytes and a word each."""
STRANGE: Final = 0.0
"""Cosine below which an answer's voice is surely not the one that was asked for, by all 256 numbers."""


class VoiceEngine:
    """`models.engine.Engine` for EmbedVoice: a recording to its voice's embedding and the registered voice near it.

    Registered voices and threshold are options of the answer, so they are part of the identity.
    """

    def __init__(self, encoder: VoiceEncoder, voices: VoiceBook, executor: Executor) -> None:
        self._encoder, self._voices, self._executor = encoder, voices, executor
        self.info = encoder_info(encoder, "speaker", digest_of(encoder.identity, voices.identity))

    async def run(self, utterance: Utterance) -> AsyncGenerator[Chunk, None]:
        """Yields one `VoicePrint`. Raises `Unfit` for a recording without a voice, `EngineError` if the model fails."""
        if not isinstance(utterance.content, Waveform):
            raise EngineError(f"content: is {type(utterance.content).__name__}, but a voice encoder takes a Waveform")
        embedding = await _heard(self._encoder.embed, utterance.content.samples, self._executor)
        try:
            near = self._voices.resolve(embedding.tolist())
        except NoNearVoice:
            yield VoicePrint(embedding)
        else:
            yield VoicePrint(embedding, near.handle, near.cosine)


class Listener:
    """Hears which mood an example is in, once for each example, and how an answer sounds."""

    def __init__(
        self,
        voice: VoiceEncoder | None,
        mood: MoodEncoder | None,
        voices: VoiceBook,
        executor: Executor,
        slot: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """`slot`: a place among the engine runs. Where an encoder is None, what it would hear is not known."""
        self._voice, self._mood, self.voices = voice, mood, voices
        self._executor, self._slot = executor, slot
        self._examples: dict[bytes, asyncio.Task[tuple[str, float]]] = {}

    @property
    def hears_moods(self) -> bool:
        return self._mood is not None

    def has_heard(self, digest: bytes) -> bool:
        """Whether the mood of an example is known, or being heard, so that asking for it costs no run."""
        return digest in self._examples

    async def mood(self, digest: bytes, pcm: bytes) -> tuple[str, float]:
        """The mood of canonical PCM with that digest, and how near it is, 0 to 1.

        Callers with one example share one run, and outlive each other. Raises `Unfit`, `EngineError`, `Overloaded`.
        """
        known = self._examples.get(digest)
        if known is None:
            if len(self._examples) >= EXAMPLES_KEPT:
                del self._examples[next(iter(self._examples))]
            known = self._examples[digest] = asyncio.create_task(self._hear(pcm), name="mood")
            known.add_done_callback(lambda done: self._forget_failed(digest, done))
        return await asyncio.shield(known)

    async def _hear(self, pcm: bytes) -> tuple[str, float]:
        assert self._mood is not None, "whoever asks for a mood has looked whether moods are heard"
        async with self._slot():
            return await _heard(self._mood.mood, waveform(pcm).samples, self._executor)

    def _forget_failed(self, digest: bytes, done: asyncio.Task[tuple[str, float]]) -> None:
        if (done.cancelled() or done.exception() is not None) and self._examples.get(digest) is done:
            del self._examples[digest]

    async def judge(
        self, chunks: Sequence[Chunk], handle: str, embedding: Sequence[float] | None, mood: str | None
    ) -> bool | None:
        """Whether an answer sounds as was asked: by a voice like `embedding` and in `mood`, where these are given.

        The voice is right if the answer is as near to the embedding as one voice's recordings are to each other, and
        wrong if it is a stranger's to it and besides sounds more like another registered voice than like `handle`. The
        mood is right if it is heard in the answer. None where nothing is sure: a judge must not accuse for mishearing.
        """
        verdicts: list[bool | None] = []
        try:
            sound = await asyncio.get_running_loop().run_in_executor(self._executor, _at_recognizer_rate, chunks)
            if embedding is not None:
                verdicts.append(await self._judge_voice(sound, handle, embedding))
            if mood is not None:
                verdicts.append(await self._judge_mood(sound, mood))
        except Unfit:
            return None
        return False if False in verdicts else None if None in verdicts else True

    async def _judge_voice(self, sound: Samples, handle: str, asked: Sequence[float]) -> bool | None:
        if self._voice is None:
            return None
        heard = await _heard(self._voice.embed, sound, self._executor)
        wanted = np.asarray(asked, np.float32)
        cosine = float(unit(heard[: len(wanted)]) @ unit(wanted))
        if cosine >= self.voices.threshold(len(wanted)):
            return True
        strange = len(wanted) == len(heard) and cosine < STRANGE
        return False if strange and self.voices.nearest(heard.tolist()).handle != handle else None

    async def _judge_mood(self, sound: Samples, mood: str) -> bool | None:
        if self._mood is None:
            return None
        heard, _ = await _heard(self._mood.mood, sound, self._executor)
        return True if heard == mood else None


def encoder_info(encoder: Encoder, family: str, identity: str = "") -> EngineInfo:
    """What ListModels says of an encoder; `identity` where that is not the encoder's own."""
    return EngineInfo(
        encoder.name, family, identity or encoder.identity, encoder.provider, encoder.licence,
        sample_rate=RECOGNIZER_RATE,
    )  # fmt: skip


async def _heard(hear: Callable[[Samples], T], samples: Samples, executor: Executor) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, hear, samples)
    except ValueError as error:
        raise Unfit(str(error)) from error
    except Exception as error:
        raise EngineError(f"encoder: {error}") from error


def _at_recognizer_rate(chunks: Sequence[Chunk]) -> Samples:
    """The answer's sound, float32 [n] at 16 kHz."""
    pieces = [chunk for chunk in chunks if isinstance(chunk, Audio) and len(chunk.samples)]
    if not pieces:
        return np.zeros(0, np.float32)
    resampler = Resampler(pieces[0].rate, RECOGNIZER_RATE)
    return np.concatenate([*(resampler.push(piece.samples) for piece in pieces), resampler.finish()])
