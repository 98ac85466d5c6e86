"""The control of a replay: the same things asked past the cache, so that memory's answers are held against the models'.

Transcripts are equal or not. Sounds are equal byte for byte, or near: of the same length within a hop, and their
log-mels, down to HEARD_DB below the loudest, differ by at most NEAR_DB on average; or else they differ.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import grpc
import numpy as np
from rich.progress import track

from bench.open_loop import answer_of
from bench.replay_inputs import METHODS, Item
from bench.replay_load import REPLIES
from models.mel import log_mel
from models.utterance import MEL_HOP
from protos.refrain.v1 import speech_pb2

NEAR_DB: Final = 1.0
HEARD_DB: Final = 60.0
_REQUESTS: Final[dict[str, Any]] = {
    "recognize": speech_pb2.RecognizeRequest,
    "synthesize": speech_pb2.SynthesizeRequest,
    "vocode": speech_pb2.VocodeRequest,
}


def control(target: str, token: str, items: Sequence[Item], requests: Sequence[bytes]) -> dict[str, Any]:
    """Asks for each of the items as the replay did and once past the cache. Raises `grpc.RpcError`.

    Returns how many answers were equal, near or different, and the time the models took, in milliseconds.
    """
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    found = {"equal": 0, "near": 0, "different": 0}
    different: list[str] = []
    times: list[float] = []
    with grpc.insecure_channel(target, options=(("grpc.max_receive_message_length", -1),)) as channel:
        for item, request in track(list(zip(items, requests, strict=True)), "past the cache", transient=True):
            call = channel.unary_unary(METHODS[item.task], None, None)
            fresh = _REQUESTS[item.task].FromString(request)
            fresh.cache_control.mode = speech_pb2.CacheControl.BYPASS
            begun = time.perf_counter()
            theirs = call(fresh.SerializeToString(), metadata=metadata, timeout=120)
            times.append(time.perf_counter() - begun)
            ours = call(request, metadata=metadata, timeout=120)
            verdict = compare(item.task, *(answer_of(REPLIES[item.task].FromString(reply)) for reply in (ours, theirs)))
            found[verdict] += 1
            if verdict == "different":
                different.append(item.text)
    p50, p99 = (float(np.quantile(times, share)) * 1e3 if times else 0.0 for share in (0.5, 0.99))
    return {"asked": len(times), **found, "examples": different[:10], "p50_ms": p50, "p99_ms": p99, "near_db": NEAR_DB}


def compare(task: str, ours: bytes, theirs: bytes) -> str:
    """equal, near or different."""
    if ours == theirs:
        return "equal"
    if task == "recognize" or abs(len(ours) - len(theirs)) > 2 * MEL_HOP:
        return "different"
    size = min(len(ours), len(theirs)) // 2 * 2
    waves = [np.frombuffer(sound[:size], "<i2").astype(np.float32) / np.float32(32768) for sound in (ours, theirs)]
    mels = [log_mel(np.asarray(wave, np.float32)) for wave in waves]
    floor = max(float(mel.max()) for mel in mels) - HEARD_DB * np.log(10) / 20  # below it, rounding is all there is
    apart_db = float(np.abs(np.maximum(mels[0], floor) - np.maximum(mels[1], floor)).mean()) * 20 / np.log(10)
    return "near" if apart_db <= NEAR_DB else "different"
