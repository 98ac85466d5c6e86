"""The three streaming calls: what arrives is gathered, and answered as soon as its key exists.

Text is answered sentence by sentence. Sound and mels are answered when the caller half-closes, but for interim results,
for which the recognizer starts at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from gateway import wire
from gateway.audio import AudioCollector, waveform
from gateway.errors import BadField
from gateway.path import Call, RequestPath
from gateway.tasks import RECOGNIZE, SYNTHESIZE, VOCODE
from gateway.tenants import CallContext
from gateway.wire.messages import parse
from models.engine import StreamingRecognizer
from models.utterance import RECOGNIZER_RATE, Samples, Transcript
from protos.refrain.v1 import speech_pb2 as pb


class Streams:
    def __init__(self, path: RequestPath, limits: wire.Limits) -> None:
        self._path, self._limits = path, limits

    async def synthesize(self, requests: AsyncIterator[bytes], context: CallContext) -> AsyncIterator[bytes]:
        """Each sentence has an answer of its own, with its own cache_info in its last message."""
        path = self._path
        tenant = path.tenant(context)
        begun = path.now()
        first = parse(pb.StreamingSynthesizeRequest, await _first(requests))
        _expect_config(first.WhichOneof("streaming_request"))
        config = wire.decode_streaming_synthesize_config(first.streaming_config, self._limits)
        text = wire.sentences(self._limits)
        async for data in requests:
            message = parse(pb.StreamingSynthesizeRequest, data)
            _expect(message.WhichOneof("streaming_request"), "input")
            for sentence in text.push(message.input.text):
                async for frame in self._speak(config, tenant, sentence, begun):
                    yield frame
                begun = path.now()
        for sentence in text.finish():
            async for frame in self._speak(config, tenant, sentence, begun):
                yield frame

    def _speak(self, config: wire.Decoded, tenant: str, sentence: str, begun: float) -> AsyncIterator[bytes]:
        canonical = sentence.encode()
        decoded = wire.completed(config, "synthesize", canonical)
        return self._path.streamed(SYNTHESIZE, tenant, decoded, begun, len(canonical))

    async def vocode(self, requests: AsyncIterator[bytes], context: CallContext) -> AsyncIterator[bytes]:
        path = self._path
        tenant = path.tenant(context)
        begun = path.now()
        first = parse(pb.StreamingVocodeRequest, await _first(requests))
        _expect_config(first.WhichOneof("streaming_request"))
        config = wire.decode_streaming_vocode_config(first.streaming_config, self._limits)
        mels = wire.mel_collector()
        async for data in requests:
            message = parse(pb.StreamingVocodeRequest, data)
            _expect(message.WhichOneof("streaming_request"), "mel")
            mels.push(message.mel)
        decoded = wire.completed(config, "vocode", mels.finish())
        async for frame in path.streamed(VOCODE, tenant, decoded, begun, len(decoded.canonical)):
            yield frame

    async def recognize(self, requests: AsyncIterator[bytes], context: CallContext) -> AsyncIterator[bytes]:
        path = self._path
        tenant = path.tenant(context)
        begun = path.now()
        first = parse(pb.StreamingRecognizeRequest, await _first(requests))
        _expect_config(first.WhichOneof("streaming_request"))
        config = wire.decode_streaming_recognize_config(first.streaming_config, self._limits)
        sound = _Sound(requests, wire.audio_collector(first.streaming_config, self._limits))
        if first.streaming_config.interim_results:
            async with aclosing(self._while_speaking(config, tenant, sound, begun)) as frames:
                async for frame in frames:
                    yield frame
            return
        async for _ in sound.pieces():
            pass
        async for frame in self._final(config, tenant, await path.in_thread(sound.collector.finish), begun, None):
            yield frame

    async def _while_speaking(
        self, config: wire.Decoded, tenant: str, sound: _Sound, begun: float
    ) -> AsyncGenerator[bytes, None]:
        """Interim results as they come; the final one from the cache, if it knows the whole, else from the engine."""
        engine = cast(StreamingRecognizer, self._path.engine(RECOGNIZE, config.model))
        if not hasattr(engine, "stream"):
            raise BadField("streaming_config.interim_results", True, "false: this model has no interim results")
        final: Transcript | None = None
        heard = _Heard()
        # No slot is held: a speaker takes seconds, and the engine's threads bound what runs at any moment.
        async with aclosing(engine.stream(heard.count(sound.pieces()))) as transcripts:
            async for transcript in transcripts:
                if transcript.final:
                    final = transcript
                    continue
                frame = wire.streaming_recognize_frame(transcript, config.features, config.language, heard.seconds)
                if frame:
                    yield frame
        pcm = await self._path.in_thread(sound.collector.finish)
        async for frame in self._final(config, tenant, pcm, begun, final):
            yield frame

    async def _final(
        self, config: wire.Decoded, tenant: str, pcm: bytes, begun: float, known: Transcript | None
    ) -> AsyncIterator[bytes]:
        """One stored answer serves Recognize and StreamingRecognize; here it is told as the latter."""
        decoded = wire.completed(config, "recognize", pcm)

        def prepared(call: Call) -> None:
            call.known = known

        async for frame in self._path.streamed(RECOGNIZE, tenant, decoded, begun, len(pcm), prepared, wire.to_streaming):
            yield frame


class _Sound:
    """The sound messages of a stream, decoded as they come and gathered."""

    def __init__(self, requests: AsyncIterator[bytes], collector: AudioCollector) -> None:
        self._requests = requests
        self.collector = collector

    async def pieces(self) -> AsyncIterator[Samples]:
        """float32 pieces at 16 kHz; none of a recording in a container, which is decoded when it is whole."""
        async for data in self._requests:
            message = parse(pb.StreamingRecognizeRequest, data)
            _expect(message.WhichOneof("streaming_request"), "audio")
            pcm = self.collector.push(message.audio)
            if pcm:
                yield waveform(pcm).samples


@dataclass(slots=True)
class _Heard:
    """How far the recognizer has been given the sound."""

    seconds: float = 0.0

    async def count(self, pieces: AsyncIterator[Samples]) -> AsyncIterator[Samples]:
        async for piece in pieces:
            self.seconds += len(piece) / RECOGNIZER_RATE
            yield piece


async def _first(requests: AsyncIterator[bytes]) -> bytes:
    async for data in requests:
        return data
    raise BadField("streaming_request", "no message", "first a message with streaming_config")


def _expect_config(which: str | None) -> None:
    if which != "streaming_config":
        raise BadField("streaming_request", which or "nothing", "streaming_config in the first message of a stream")


def _expect(which: str | None, wanted: str) -> None:
    if which != wanted:
        raise BadField("streaming_request", which or "nothing", f"{wanted} in every message after the first")
