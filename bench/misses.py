"""Inputs that nobody has asked for, through a gateway and by an engine of this process, in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import grpc
import numpy as np
from tqdm import tqdm

from bench.engine import SAYINGS
from bench.own_speech import Voice, noisy, to_hear
from bench.processes import Gateway
from gateway.audio import waveform
from models.engine import Engine
from models.utterance import Mel, Text, Utterance
from protos.refrain.v1 import speech_pb2

SERVICE = "/refrain.v1.Speech"
PAUSE_S = 0.03
"""Before each measured run, so that what the gateway does behind a response is not in the next one's way."""
WARM_UP = 3
Input = tuple[str, bytes, Utterance]
"""Method, serialised request, and the same for an engine."""


def distinct_inputs(count: int, voice: Voice, rng: np.random.Generator) -> dict[str, list[Input]]:
    """Of each task, `count` inputs that are alike in length and nowhere the same."""
    heard, mel = voice.recording(SAYINGS[3]), voice.mel(SAYINGS[3])
    inputs: dict[str, list[Input]] = {"recognize": [], "synthesize": [], "vocode": []}
    for number in range(count):
        hear = to_hear(noisy(heard, rng))
        wave = Utterance(waveform(hear.content), language="en-US")
        inputs["recognize"].append(("Recognize", hear.SerializeToString(), wave))
        text = f"How can I help you {number}?"
        say = speech_pb2.SynthesizeRequest(input={"text": text}, voice={"name": "slt", "emotion": "neutral"})
        utterance = Utterance(Text(text), voice="slt", emotion="neutral", language="en-US")
        inputs["synthesize"].append(("Synthesize", say.SerializeToString(), utterance))
        other = np.ascontiguousarray(mel - np.float32(0.001 * number)).clip(-11.5, 2.0)
        vocode = speech_pb2.VocodeRequest(mel={"data": other.astype("<f4").tobytes(), "bands": 80})
        inputs["vocode"].append(("Vocode", vocode.SerializeToString(), Utterance(Mel(other))))
    return inputs


def in_turn(
    gateway: Gateway, bare: int, task: str, engine: Engine, inputs: list[Input]
) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of each input by the engine, through the gateway, and for a bare server at port `bare` to answer
    with no engine, which is what a call over the network costs at least; the first ones warm up and are left out."""

    async def run(utterance: Utterance) -> int:
        return len([chunk async for chunk in engine.run(utterance)])

    direct: list[float] = []
    through: list[float] = []
    call: list[float] = []
    loop = asyncio.new_event_loop()
    with grpc.insecure_channel(gateway.target) as channel, grpc.insecure_channel(f"127.0.0.1:{bare}") as other:
        for number, (method, request, utterance) in enumerate(tqdm(inputs, desc=f"{task} misses", unit="request")):
            ask, ask_bare = (one.unary_unary(f"{SERVICE}/{method}", None, None) for one in (channel, other))
            turns: list[tuple[list[float], Callable[[], object]]] = [
                (direct, lambda utterance=utterance: loop.run_until_complete(run(utterance))),  # type: ignore[misc]
                (through, lambda ask=ask, request=request: ask(request)),  # type: ignore[misc]
                (call, lambda ask=ask_bare, request=request: ask(request)),  # type: ignore[misc]
            ]
            first = number % len(turns)
            for times, work in turns[first:] + turns[:first]:
                time.sleep(PAUSE_S)
                began = time.perf_counter()
                work()
                times.append((time.perf_counter() - began) * 1e3)
    loop.close()
    spare = min(WARM_UP, len(inputs) - 1)
    return direct[spare:], through[spare:], call[spare:]
