"""A whole gateway in this process: real gRPC, real private Redis, real tiers; only the models are small functions.

The engines here compute something trivial from their input, count their runs and can be held at a gate, so that tests
can say what ran how often. Tests of the shipped models start `refrain serve` instead (tests/test_end_to_end.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import numpy as np

from gateway import app
from gateway.settings import Settings, load
from models.engine import EngineError, EngineInfo
from models.load import Encoders, Served
from models.utterance import MEL_RATE, Audio, Chunk, Mel, Samples, Text, Transcript, Utterance, Waveform, Word
from protos.refrain.v1 import cache_pb2_grpc, speech_pb2, speech_pb2_grpc
from tests.gateway.hearers import encoders, tone

Status = speech_pb2.CacheInfo
VOICES = {"anna": 300.0, "bert": 1_500.0}
"""Hz of the tone that each voice speaks on."""


class Counting:
    """What the test engines share: a count of runs, a gate, and a way to fail."""

    family = ""
    name = ""

    def __init__(self) -> None:
        self.runs = 0
        self.open = asyncio.Event()
        self.open.set()
        self.started = asyncio.Event()
        self.fail: Exception | None = None
        self.info = EngineInfo(
            name=self.name,
            family=self.family,
            identity=hashlib.sha256(self.name.encode()).hexdigest(),
            provider="CPUExecutionProvider",
            licence="Apache-2.0",
            voices=("anna", "bert") if self.family == "synthesizer" else (),
            emotions=("neutral", "cheerful") if self.family == "synthesizer" else (),
            sample_rate=MEL_RATE,
        )

    async def begin(self) -> None:
        self.runs += 1
        self.started.set()
        await self.open.wait()
        if self.fail is not None:
            raise self.fail


class Speaker(Counting):
    """Text to the tone of its voice, and one whose pitch is the text's, in two chunks; bright where cheerful."""

    family, name = "synthesizer", "tone-speaker"

    async def run(self, utterance: Utterance) -> AsyncGenerator[Chunk, None]:
        await self.begin()
        assert isinstance(utterance.content, Text)
        seed = int.from_bytes(hashlib.sha256(utterance.content.text.encode()).digest()[:2], "big")
        time = np.arange(MEL_RATE // 2) / MEL_RATE
        said = (0.03 * np.sin(2 * np.pi * (100 + seed % 900) * time)).astype(np.float32)
        said += tone(VOICES[utterance.voice], 0.5, MEL_RATE, bright=utterance.emotion == "cheerful")
        yield Audio(said)
        yield Audio(said * np.float32(0.5))


class Ear(Counting):
    """Speech to words that name its length and loudness; silence in its first half is nothing heard."""

    family, name = "recognizer", "length-ear"

    async def run(self, utterance: Utterance) -> AsyncGenerator[Chunk, None]:
        await self.begin()
        assert isinstance(utterance.content, Waveform)
        yield self.heard(utterance.content.samples)

    async def stream(self, chunks: AsyncIterator[Samples]) -> AsyncGenerator[Transcript, None]:
        heard: list[Samples] = []
        async for chunk in chunks:
            heard.append(chunk)
            yield Transcript(f"piece {len(heard)}", 0.5, final=False)
        await self.begin()
        yield self.heard(np.concatenate(heard))

    def heard(self, samples: Samples) -> Transcript:
        if not samples[: len(samples) // 2].any():
            return Transcript("", 0.0)
        seconds = len(samples) / 16_000
        return Transcript(f"{len(samples)} samples", 0.9, (Word("samples", 0.1, min(0.4, seconds), 0.9),))


class Singer(Counting):
    """A mel to noise as long as the mel."""

    family, name = "vocoder", "noise-singer"

    async def run(self, utterance: Utterance) -> AsyncGenerator[Chunk, None]:
        await self.begin()
        assert isinstance(utterance.content, Mel)
        frames = utterance.content.frames
        loudness = np.repeat(np.exp(frames.mean(axis=0)), 256)
        yield Audio((np.tanh(loudness) * 0.1).astype(np.float32))


class Rig:
    """The gateway under test, and stubs that call it."""

    def __init__(
        self, running: app.Running, engines: Mapping[str, Counting], encoders: Any, channel: grpc.aio.Channel
    ) -> None:
        self.running = running
        self.speaker: Any = engines["synthesize"]
        self.ear: Any = engines["recognize"]
        self.singer: Any = engines["vocode"]
        self.voices, self.moods = encoders.speaker, encoders.emotion
        self.channel = channel
        self.speech: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
        self.admin: Any = cache_pb2_grpc.CacheAdminStub(channel)  # type: ignore[no-untyped-call]


def settings(folder: Path, **tables: Any) -> Settings:
    """Small tiers, free ports, everything under `folder`; fuzzy answers from the first on, where not said otherwise."""
    base: dict[str, Any] = {
        "data_dir": folder,
        "listen": {"port": 0, "http_port": 0, "grace": 1.0},
        "redis": {"maxmemory": 64 << 20, "get_deadline": 1.0},
        "device": {"size": 32 << 20},
    }
    tenants = {"default": {}, **tables.pop("tenants", {})}
    base["tenants"] = {name: {"require_proof": False, **policy} for name, policy in tenants.items()}
    for name, table in tables.items():
        base[name] = {**base[name], **table} if isinstance(base.get(name), dict) else table
    return load(None, base)


@contextlib.asynccontextmanager
async def gateway(folder: Path, *, deaf: bool = False, **tables: Any) -> AsyncIterator[Rig]:
    """A gateway on `folder`; a second one on the same folder, after the first, finds what that one left in Redis.

    `deaf`: without voice and mood encoders.
    """
    engines: dict[str, Counting] = {"recognize": Ear(), "synthesize": Speaker(), "vocode": Singer()}
    heard: Any = encoders(folder / "encoders")
    embeddings = {name: tuple(heard.speaker.embed(tone(pitch)).tolist()) for name, pitch in VOICES.items()}
    heard.speaker.runs = 0
    speaker = engines["synthesize"]
    speaker.info = dataclasses.replace(speaker.info, voice_embeddings=embeddings)

    def load_engines(*_: Any) -> Served:
        return Served({task: {engine.info.name: engine} for task, engine in engines.items()})  # type: ignore[dict-item]

    with (
        mock.patch.object(app, "load_engines", load_engines),
        mock.patch.object(app, "load_encoders", return_value=Encoders() if deaf else heard),
    ):
        async with app.running(settings(folder, **tables)) as running:
            await running.recall.ready.wait()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
                yield Rig(running, engines, heard, channel)


def say(text: str = "Hello there.", **fields: Any) -> speech_pb2.SynthesizeRequest:
    return speech_pb2.SynthesizeRequest(input={"text": text}, **fields)


def hear(samples: Samples, **fields: Any) -> speech_pb2.RecognizeRequest:
    pcm = np.round(np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()
    explicit = {"encoding": speech_pb2.LINEAR16, "sample_rate_hertz": 16_000}
    config = speech_pb2.RecognitionConfig(explicit_decoding_config=explicit, **fields.pop("config", {}))
    return speech_pb2.RecognizeRequest(config=config, content=pcm, **fields)


def noise(seconds: float = 0.5, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)


__all__ = ["Counting", "EngineError", "Rig", "Status", "gateway", "hear", "noise", "say", "settings"]
