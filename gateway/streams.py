"""The three streaming calls: what arrives is gathered, and answered as soon as its key exists.

Text is answered sentence by sentence. Sound and mels are answered when the caller half-closes, but for interim results,
for which the recognizer starts at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Final, TypeVar, cast

from google.protobuf.message import Message

from gateway import wire
from gateway.audio import AudioCollector, waveform
from gateway.budget import Budget, Share
from gateway.call import Call
from gateway.errors import BadField, DeadlineExceeded
from gateway.path import RequestPath
from gateway.tasks import RECOGNIZE, SYNTHESIZE, VOCODE
from gateway.tenants import CallContext
from gateway.wire.messages import parse
from models.engine import Engine, EngineError, StreamingRecognizer
from models.utterance import RECOGNIZER_RATE, Samples, Transcript
from protos.refrain.v1 import speech_pb2 as pb

M = TypeVar("M", bound=Message)

INLINE_BYTES: Final = 64 << 10
"""A larger message is parsed and taken in in a thread."""
EXAMPLE_BYTES: Final = 12 << 20
"""Of a config with an example of the mood: a minute of 48 kHz stereo WAV fits."""
LEAST_EXAMPLE: Final = 1 << 10
"""A config that is longer holds sound, and is decoded in a thread."""
SECOND: Final = 2 * RECOGNIZER_RATE
"""Bytes of canonical PCM."""
LEAST_PIECE: Final = SECOND // 10
"""What the recognizer is given while more is to come: each piece costs a run of the network, however short it is."""


class Streams:
    def __init__(self, path: RequestPath, limits: wire.Limits, budget: Budget, patience_s: float = 0.0) -> None:
        """`patience_s`: how long to wait for a caller's next message; 0 for ever."""
        self._path, self._limits, self._budget, self._patience_s = path, limits, budget, patience_s

    async def synthesize(self, requests: AsyncIterator[bytes], context: CallContext) -> AsyncGenerator[bytes, None]:
        """Each sentence has an answer of its own, with its own cache_info in its last message."""
        path = self._path
        tenant = path.tenant(context)
        begun = path.now()
        messages = self._messages(requests)
        config = await path.hear_example(tenant, await self._synthesis(await _first(messages, EXAMPLE_BYTES)))
        text = wire.sentences(self._limits)
        async for data in messages:
            message = _parsed(pb.StreamingSynthesizeRequest, data, "input")
            for sentence in text.push(message.input.text):
                async for frame in self._speak(config, tenant, sentence, begun):
                    yield frame
                begun = path.now()
        for sentence in text.finish():
            async for frame in self._speak(config, tenant, sentence, begun):
                yield frame

    async def _synthesis(self, data: bytes) -> wire.Decoded:
        """The config of a stream to be spoken, which may carry an example of the mood."""

        def decoded() -> wire.Decoded:
            first = parse(pb.StreamingSynthesizeRequest, data)
            _expect_config(first.WhichOneof("streaming_request"))
            return wire.decode_streaming_synthesize_config(first.streaming_config, self._limits)

        return await self._path.in_thread(decoded) if len(data) > LEAST_EXAMPLE else decoded()

    def _speak(self, config: wire.Decoded, tenant: str, sentence: str, begun: float) -> AsyncIterator[bytes]:
        canonical = sentence.encode()
        decoded = wire.completed(config, "synthesize", canonical)
        return self._path.streamed(SYNTHESIZE, tenant, decoded, begun, len(canonical))

    async def vocode(self, requests: AsyncIterator[bytes], context: CallContext) -> AsyncGenerator[bytes, None]:
        path = self._path
        tenant = path.tenant(context)
        begun = path.now()
        messages = self._messages(requests)
        first = parse(pb.StreamingVocodeRequest, await _first(messages))
        _expect_config(first.WhichOneof("streaming_request"))
        config = wire.decode_streaming_vocode_config(first.streaming_config, self._limits)
        mels = wire.mel_collector()

        def take(data: bytes) -> None:
            mels.push(_parsed(pb.StreamingVocodeRequest, data, "mel").mel)

        with self._budget.share() as share:
            async for data in messages:
                share.keeps(mels.held + len(data))
                if len(data) > INLINE_BYTES:
                    await path.in_thread(take, data)
                else:
                    take(data)
            decoded = wire.completed(config, "vocode", await path.in_thread(mels.finish))
            async for frame in path.streamed(VOCODE, tenant, decoded, begun, len(decoded.canonical)):
                yield frame

    async def recognize(self, requests: AsyncIterator[bytes], context: CallContext) -> AsyncGenerator[bytes, None]:
        path = self._path
        tenant = path.tenant(context)
        begun = path.now()
        messages = self._messages(requests)
        first = parse(pb.StreamingRecognizeRequest, await _first(messages))
        _expect_config(first.WhichOneof("streaming_request"))
        config = wire.decode_streaming_recognize_config(first.streaming_config, self._limits)
        with self._budget.share() as share:
            sound = _Sound(messages, wire.audio_collector(first.streaming_config, self._limits), path, share)
            # No engine may run for a caller who wants what is cached only, and a container is sound when it is whole.
            early = config.control.mode != wire.Mode.ONLY_IF_CACHED and sound.comes_in_pieces
            if first.streaming_config.interim_results and early:
                frames = self._while_speaking(config, tenant, sound, begun)
            else:
                frames = self._final(config, tenant, await sound.whole(), begun)
            async with aclosing(frames):
                async for frame in frames:
                    yield frame

    async def _while_speaking(
        self, config: wire.Decoded, tenant: str, sound: _Sound, begun: float
    ) -> AsyncGenerator[bytes, None]:
        """Interim results as they come; the final one from the cache, if it knows the whole, else from the engine."""
        path = self._path
        chosen = path.engine(RECOGNIZE, config.model, tenant)
        engine = cast(StreamingRecognizer, chosen)
        if not hasattr(engine, "stream"):
            raise BadField("streaming_config.interim_results", True, "false: this model has no interim results")
        final: Transcript | None = None
        ear = _Ear(path)
        try:
            async with aclosing(engine.stream(ear.fed(sound.pieces()))) as transcripts:
                async for transcript in transcripts:
                    await ear.rest()
                    if transcript.final:
                        final = transcript
                        continue
                    end_s = ear.samples / RECOGNIZER_RATE
                    frame = wire.streaming_recognize_frame(transcript, config.features, config.language, end_s)
                    if frame:
                        yield frame
        except EngineError:
            path.engine_failed(chosen)
            raise
        finally:
            await ear.rest()
        pcm = await sound.whole()
        known = final if 2 * ear.samples == len(pcm) else None  # words are known of nothing but what was heard
        async with aclosing(self._final(config, tenant, pcm, begun, known, ear.compute_ms, chosen)) as frames:
            async for frame in frames:
                yield frame

    async def _final(
        self,
        config: wire.Decoded,
        tenant: str,
        pcm: bytes,
        begun: float,
        known: Transcript | None = None,
        compute_ms: float = 0.0,
        engine: Engine | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """One stored answer serves Recognize and StreamingRecognize; here it is told as the latter.

        `known` and `compute_ms`: what `engine` has already made of it, and in what time.
        """
        decoded = wire.completed(config, "recognize", pcm)

        def prepared(call: Call) -> None:
            call.known, call.compute_ms = known, compute_ms

        frames = self._path.streamed(RECOGNIZE, tenant, decoded, begun, len(pcm), prepared, wire.to_streaming, engine)
        async for frame in frames:
            yield frame

    async def _messages(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """`requests`, waited for no longer than a caller may take between two of them."""
        while True:
            try:
                async with asyncio.timeout(self._patience_s or None):
                    data = await anext(requests, None)
            except TimeoutError:
                raise DeadlineExceeded(
                    f"no message for {self._patience_s:g} s; half-close the stream when all is sent"
                ) from None
            if data is None:
                return
            yield data
            del data  # else it would stay, of each open stream, until its next message comes


class _Sound:
    """The sound messages of a stream, decoded as they come and gathered."""

    def __init__(
        self, messages: AsyncIterator[bytes], collector: AudioCollector, path: RequestPath, share: Share
    ) -> None:
        self._messages, self._collector, self._path, self._share = messages, collector, path, share
        self._whole: bytes | None = None

    @property
    def comes_in_pieces(self) -> bool:
        return self._collector.headerless

    async def whole(self) -> bytes:
        """Canonical PCM of all of it, once the caller has half-closed. Raises `BadField`."""
        if self._whole is None:
            async for pcm in self._taken():
                del pcm
            self._whole = await self._path.in_thread(self._collector.finish)
            self._share.keeps(len(self._whole))
        return self._whole

    async def pieces(self) -> AsyncGenerator[Samples, None]:
        """float32 at 16 kHz, 0.1 to 1 s each however the messages were cut; the last may be shorter. All of it."""
        held, given = b"", 0
        async for pcm in self._taken():
            held += pcm
            at = 0
            while len(held) - at >= LEAST_PIECE:
                piece = held[at : at + SECOND]
                at += len(piece)
                yield waveform(piece).samples
            held = held[at:]
            given += at
        whole = await self.whole()
        for start in range(given, len(whole), SECOND):  # with what the resampler had held back
            yield waveform(whole[start : start + SECOND]).samples

    async def _taken(self) -> AsyncIterator[bytes]:
        """Canonical PCM that each message completes; none of a recording in a container."""
        async for data in self._messages:
            self._share.keeps(self._collector.held + len(data))
            pcm = await self._path.in_thread(self._take, data) if len(data) > INLINE_BYTES else self._take(data)
            del data
            self._share.keeps(self._collector.held)
            yield pcm
            del pcm

    def _take(self, data: bytes) -> bytes:
        return self._collector.push(_parsed(pb.StreamingRecognizeRequest, data, "audio").audio)


class _Ear:
    """Gives a streaming recognizer its sound, counts what it has heard and the time it has computed.

    It has a slot from each piece until it says something or asks for more: none while the caller speaks or reads.
    """

    def __init__(self, path: RequestPath) -> None:
        self._path = path
        self._slot = AsyncExitStack()
        self._admitted = False
        self._since: float | None = None
        self.samples = 0
        self.compute_ms = 0.0

    async def fed(self, pieces: AsyncIterator[Samples]) -> AsyncIterator[Samples]:
        async for piece in pieces:
            await self._work()
            self.samples += len(piece)
            yield piece
            await self.rest()
        await self._work()  # on what it makes of the whole

    async def _work(self) -> None:
        await self._slot.enter_async_context(self._path.slot(admitted=self._admitted))
        self._admitted = True
        self._since = self._path.now()

    async def rest(self) -> None:
        if self._since is not None:
            self.compute_ms += (self._path.now() - self._since) * 1e3
            self._since = None
            await self._slot.aclose()


async def _first(messages: AsyncIterator[bytes], most: int = INLINE_BYTES) -> bytes:
    async for data in messages:
        if len(data) > most:
            raise BadField("streaming_request", data, "streaming_config, which is small, in the first message")
        return data
    raise BadField("streaming_request", "no message", "first a message with streaming_config")


def _expect_config(which: str | None) -> None:
    if which != "streaming_config":
        raise BadField("streaming_request", which or "nothing", "streaming_config in the first message of a stream")


def _parsed(kind: type[M], data: bytes, wanted: str) -> M:
    message = parse(kind, data)
    which = message.WhichOneof("streaming_request")
    if which != wanted:
        raise BadField("streaming_request", which or "nothing", f"{wanted} in every message after the first")
    return message
