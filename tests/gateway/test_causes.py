"""Why an answer was no hit, as the access trace has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.trace import Record, read_trace
from protos.refrain.v1 import speech_pb2
from tests.cache_tiers.conftest import until
from tests.fingerprint.voice import hiss
from tests.fingerprint.voice import say as voice
from tests.gateway.rig import gateway, hear, say

CONTROL = speech_pb2.CacheControl
OLD = {"max_age": {"seconds": 0, "nanos": 1}}


async def traced(folder: Path, *requests: Any, **tables: Any) -> list[Record]:
    """What the trace says of these requests, one after the other."""
    async with gateway(folder, **tables) as rig:
        for request in requests:
            ask = rig.speech.Recognize if isinstance(request, speech_pb2.RecognizeRequest) else rig.speech.Synthesize
            await ask(request)
    return list(read_trace(folder / "trace"))


async def test_each_kind_of_miss_has_its_cause(tmp_path: Path) -> None:
    records = await traced(
        tmp_path,
        say(),
        say(),
        say(cache_control={"mode": CONTROL.REFRESH}),
        say(cache_control={"mode": CONTROL.BYPASS}),
        say(cache_control=OLD),
        hear(voice(1)),
        hear(voice(7), cache_control={"match": CONTROL.FUZZY}),
    )
    assert [(record.status, record.cause) for record in records] == [
        ("MISS", "spared"),
        ("HIT_EXACT", ""),
        ("MISS", "not looked"),
        ("BYPASS", "not looked"),
        ("MISS", "too old"),
        ("MISS", "spared"),
        ("MISS", "unlike"),
    ]


async def test_an_answer_that_audits_hold_back_says_so(tmp_path: Path) -> None:
    original = voice(1)
    strict = {"tenants": {"default": {"require_proof": True}}}
    fuzzy = {"cache_control": {"match": CONTROL.FUZZY}}
    async with gateway(tmp_path, **strict) as rig:
        await rig.speech.Recognize(hear(original))
        await until(rig.running.recall.entries)
        await rig.speech.Recognize(hear(hiss(original, snr_db=20, seed=3), **fuzzy))
    assert [record.cause for record in read_trace(tmp_path / "trace")] == ["spared", "withheld"]


async def test_the_input_of_what_was_computed_is_named_and_nothing_else(tmp_path: Path) -> None:
    first, again, louder, other = await traced(
        tmp_path, say(), say(), say(audio_config={"sample_rate_hertz": 16_000}), say("Goodbye.")
    )
    assert first.input == louder.input != other.input
    assert again.input == ""
    assert len({record.digest for record in (first, louder, other)}) == 3
