"""Commands said again: answered as before, to the same session alone, until forgotten; then through gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
import soxr

from gateway.audits import respoken_of
from gateway.keys import Keys
from gateway.respoken import Sessions, Spoken
from models.utterance import Samples
from protos.refrain.v1 import cache_pb2, speech_pb2
from tests.fingerprint.voice import RATE, hiss, say
from tests.gateway.rig import Rig, Status, gateway, hear

FIRST = say(1)


def again(samples: Samples, seed: int = 2) -> Samples:
    """The same said 5 % slower, in another moment's noise: beyond what recall takes for the same recording."""
    return hiss(np.asarray(soxr.resample(samples, RATE, round(RATE * 1.05)), np.float32), snr_db=40, seed=seed)


AGAIN = again(FIRST)
OTHER = say(7)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(clock=clock, ttl_s=60.0, max_takes=3)


def remember(
    sessions: Sessions,
    samples: Samples,
    digest: bytes,
    *,
    tenant: str = "a",
    session: bytes = b"s",
    words: str = "",
    tags: tuple[str, ...] = (),
) -> None:
    sessions.remember(sessions.hear(tenant, session, samples), digest, words or digest.decode(), tags)


def found(sessions: Sessions, samples: Samples, tenant: str = "a", session: bytes = b"s", **how: Any) -> bytes | None:
    return sessions.hear(tenant, session, samples, **how).said_before


def test_the_same_said_again_leads_to_the_first_take(sessions: Sessions) -> None:
    remember(sessions, OTHER, b"other")
    remember(sessions, FIRST, b"first")
    assert found(sessions, AGAIN) == b"first"
    assert found(sessions, again(OTHER)) == b"other"
    assert found(sessions, say(12)) is None


def test_sessions_and_tenants_do_not_hear_each_other(sessions: Sessions) -> None:
    remember(sessions, FIRST, b"first")
    assert found(sessions, AGAIN, session=b"t") is None
    assert found(sessions, AGAIN, tenant="b") is None


def test_a_take_that_is_refused_or_not_alike_enough_answers_nothing(sessions: Sessions) -> None:
    remember(sessions, FIRST, b"first")
    assert found(sessions, AGAIN, accept=lambda digest: digest != b"first") is None
    similarity = sessions.hear("a", b"s", AGAIN).similarity
    assert 0 < similarity < 1
    assert found(sessions, AGAIN, min_similarity=similarity + 0.01) is None


def test_what_has_no_words_or_no_speech_is_not_kept(sessions: Sessions) -> None:
    sessions.remember(sessions.hear("a", b"s", FIRST), b"first", "", ())
    sessions.remember(sessions.hear("a", b"s", np.zeros(RATE, np.float32)), b"silence", "words", ())
    assert len(sessions) == 0


def test_a_session_is_forgotten_some_time_after_its_last_use(sessions: Sessions, clock: Clock) -> None:
    remember(sessions, FIRST, b"first")
    clock.now += 50
    heard = sessions.hear("a", b"s", AGAIN)
    assert heard.said_before == b"first"
    sessions.used(heard)
    clock.now += 50
    assert found(sessions, AGAIN) == b"first"
    clock.now += 11
    assert found(sessions, AGAIN) is None
    sessions.expire()
    assert len(sessions) == 0


def test_the_oldest_takes_and_the_longest_unused_sessions_go_first(sessions: Sessions) -> None:
    for number in range(4):
        remember(sessions, say(number + 20), b"%d" % number)
    assert len(sessions) == 3
    assert found(sessions, again(say(20))) is None
    one = Sessions(max_bytes=1)
    remember(one, FIRST, b"first")
    assert len(one) == 0
    kept = sessions.hear("a", b"s", FIRST).take
    assert kept is not None
    two = Sessions(max_bytes=3 * kept.size)  # in half precision: one such take and a half
    remember(two, FIRST, b"first", session=b"s")
    remember(two, FIRST, b"first", session=b"t")
    assert found(two, AGAIN, session=b"s") is None
    assert found(two, AGAIN, session=b"t") == b"first"


def test_what_is_forgotten_by_tag_or_tenant_is_not_answered(sessions: Sessions) -> None:
    remember(sessions, FIRST, b"first", tags=("person",))
    remember(sessions, OTHER, b"other", tags=("else",))
    remember(sessions, FIRST, b"first", tenant="b")
    assert sessions.forget("person") == 1
    assert found(sessions, AGAIN) is None
    assert found(sessions, again(OTHER)) == b"other"
    assert sessions.forget_tenant("b") == 1
    assert found(sessions, AGAIN, tenant="b") is None
    sessions.forget_all()
    assert len(sessions) == 0


def test_a_take_heard_before_the_session_was_forgotten_may_still_be_kept(sessions: Sessions) -> None:
    """Its own answer was stored after the erasure."""
    heard = sessions.hear("a", b"s", FIRST)
    assert isinstance(heard, Spoken)
    sessions.forget_all()
    sessions.remember(heard, b"first", "words", ())
    assert found(sessions, AGAIN) == b"first"


def test_the_seal_of_a_pair_tells_what_kind_it_is() -> None:
    keys = Keys(bytes(32)).of("a")
    pair = keys.pair_id(b"q" * 32, b"d" * 32, "r")
    assert pair[0] == "r"
    assert keys.open_pair(pair) == (b"q" * 16, b"d" * 16)
    assert keys.open_pair("f" + pair[1:]) is None


# --------------------------------------------------------------------------------------------------------- by gRPC


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    tenants = {"default": {"wrong_hit_limit": 0.9}}
    async with gateway(tmp_path, tenants=tenants) as rig:
        yield rig


def asked(samples: Samples, session: str = "kitchen", **fields: Any) -> speech_pb2.RecognizeRequest:
    control = {"match": speech_pb2.CacheControl.FUZZY, "session_id": session, **fields.pop("cache_control", {})}
    return hear(samples, cache_control=control, **fields)


def text_of(answer: speech_pb2.RecognizeResponse) -> str:
    return answer.results[0].alternatives[0].transcript


async def test_a_command_said_again_is_answered_as_the_first_time(rig: Rig) -> None:
    first = await rig.speech.Recognize(asked(FIRST))
    assert first.cache_info.status == Status.MISS
    again = await rig.speech.Recognize(asked(AGAIN))
    assert again.cache_info.status == Status.HIT_FUZZY
    assert again.cache_info.entry_id[0] == "r"
    assert 0 < again.cache_info.similarity < 1
    assert text_of(again) == text_of(first)
    other = await rig.speech.Recognize(asked(OTHER))
    assert other.cache_info.status == Status.MISS


@pytest.mark.parametrize(
    "fields",
    [
        {"session": ""},
        {"session": "bathroom"},
        {"cache_control": {"match": speech_pb2.CacheControl.EXACT}},
        {"config": {"features": {"enable_word_time_offsets": True}}},
    ],
    ids=["no session", "another session", "exact only", "word times"],
)
async def test_who_did_not_ask_for_it_is_answered_anew(rig: Rig, fields: dict[str, Any]) -> None:
    config = {"config": fields["config"]} if "config" in fields else {}
    await rig.speech.Recognize(asked(FIRST, **config))
    again = await rig.speech.Recognize(asked(AGAIN, **fields))
    assert again.cache_info.status == Status.MISS


async def test_a_tenant_may_be_kept_from_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants={"default": {"respoken": "never"}}) as rig:
        await rig.speech.Recognize(asked(FIRST))
        assert (await rig.speech.Recognize(asked(AGAIN))).cache_info.status == Status.MISS
        assert len(rig.running.recall.sessions) == 0


async def test_an_answer_from_an_earlier_take_is_neither_stored_nor_kept(rig: Rig) -> None:
    await rig.speech.Recognize(asked(FIRST))
    await rig.speech.Recognize(asked(AGAIN))
    assert len(rig.running.recall.sessions) == 1
    only = asked(AGAIN, session="", cache_control={"mode": speech_pb2.CacheControl.ONLY_IF_CACHED})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rig.speech.Recognize(only)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_pair_that_was_reported_is_not_answered_again(rig: Rig) -> None:
    await rig.speech.Recognize(asked(FIRST))
    wrong = await rig.speech.Recognize(asked(AGAIN))
    report = cache_pb2.ReportWrongHitRequest(entry_id=wrong.cache_info.entry_id)
    assert (await rig.admin.ReportWrongHit(report)).quarantined
    assert (await rig.speech.Recognize(asked(AGAIN))).cache_info.status == Status.MISS
    audits = rig.running.recall.audits
    assert audits.count(respoken_of("default")).wrong == 1
    assert audits.count("default").wrong == 0


async def test_an_erased_person_is_not_heard_again(rig: Rig) -> None:
    await rig.speech.Recognize(asked(FIRST, cache_control={"subject_id": "somebody"}))
    assert len(rig.running.recall.sessions) == 1
    await rig.admin.Erase(cache_pb2.EraseRequest(subject_id="somebody"))
    assert len(rig.running.recall.sessions) == 0
    assert (await rig.speech.Recognize(asked(AGAIN))).cache_info.status == Status.MISS
