"""Heard before, and never "yes" for "no": recall with real sounds, a real index and a real Redis, then through gRPC."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.epochs import LocalEpochs
from cache_tiers.events import tenant_tag
from cache_tiers.ledger import Ledger
from gateway.fingerprint.bits import fingerprint
from gateway.journal import AUDIT
from gateway.recall import Recall, _pack
from models.utterance import Samples
from protos.refrain.v1 import cache_pb2, speech_pb2
from tests.cache_tiers.conftest import Server, until
from tests.fingerprint.voice import RATE, hiss, say
from tests.gateway.listeners import Listener, alone, digest_of, listening, policy_of
from tests.gateway.rig import Rig, Status, gateway, hear

ORIGINAL = say(1)
COPY = hiss(ORIGINAL, snr_db=12, seed=2)
OTHER = say(7)
LATE_S = 0.25
LATE = hiss(np.concatenate([np.zeros(round(LATE_S * RATE), np.float32), ORIGINAL]), snr_db=15, seed=3)


@pytest_asyncio.fixture
async def listener() -> AsyncIterator[Listener]:
    async with alone() as listener:
        yield listener


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.client.flushall()
    return one_server


# ------------------------------------------------------------------------------------------------------- finding


async def test_a_noisy_copy_is_recalled_with_what_it_was_stored_under(listener: Listener) -> None:
    await listener.remember(ORIGINAL)
    found = await listener.find(COPY)
    assert found is not None
    assert (found.digest, found.query) == (digest_of(ORIGINAL), digest_of(COPY))
    assert 0 < found.similarity < 1
    assert found.offset_s == pytest.approx(0, abs=0.006)


async def test_how_much_later_the_copy_begins_is_told(listener: Listener) -> None:
    await listener.remember(ORIGINAL)
    found = await listener.find(LATE)
    assert found is not None
    assert found.offset_s == pytest.approx(LATE_S, abs=0.006)


async def test_another_utterance_is_not_recalled(listener: Listener) -> None:
    await listener.remember(ORIGINAL)
    assert await listener.find(OTHER) is None
    assert await listener.find(hiss(OTHER, snr_db=12, seed=2)) is None


async def test_the_nearest_of_several_is_recalled(listener: Listener) -> None:
    for seed in range(6):
        await listener.remember(say(seed))
    found = await listener.find(hiss(say(4), snr_db=12, seed=9))
    assert found is not None
    assert found.digest == digest_of(say(4))


async def test_a_recording_is_not_recalled_for_itself(listener: Listener) -> None:
    """Its own key was asked already."""
    await listener.remember(ORIGINAL)
    assert await listener.find(ORIGINAL) is None


async def test_too_short_a_recording_is_neither_enrolled_nor_recalled(listener: Listener) -> None:
    short = ORIGINAL[: RATE // 4]
    listener.begin_to_remember(short)
    await listener.remember(ORIGINAL)  # recall works in order
    assert listener.recall.entries() == 1
    assert await listener.find(hiss(short, snr_db=20, seed=1)) is None
    assert listener.recall.stats.too_short == 1


async def test_nothing_of_one_tenant_is_recalled_for_another(listener: Listener) -> None:
    await listener.remember(ORIGINAL, tenant="alpha")
    assert await listener.find(COPY, tenant="beta") is None
    assert await listener.find(COPY, tenant="alpha") is not None


async def test_a_request_may_only_tighten_what_similarity_is_needed() -> None:
    async with alone(min_similarity=0.999) as strict:
        await strict.remember(ORIGINAL)
        assert await strict.find(COPY, min_similarity=0.1) is None
    async with alone(min_similarity=0.1) as loose:
        await loose.remember(ORIGINAL)
        assert await loose.find(COPY, min_similarity=0.05) is not None
        assert await loose.find(COPY, min_similarity=0.999) is None
        assert await loose.find(OTHER, min_similarity=0.01) is None


async def test_nothing_is_recalled_before_the_index_is_built(reading: tuple[Reading, Listener]) -> None:
    journal, listener = reading
    await listener.remember(ORIGINAL)
    assert await listener.find(COPY) is None
    assert listener.recall.stats.lookups == 0
    journal.go_on.set()
    await listener.recall.rebuild()
    assert await listener.find(COPY) is not None


async def test_starting_over_is_silent_until_rebuilt(server: Server) -> None:
    async with listening(server) as listener:
        await listener.remember(ORIGINAL)
        listener.recall.start_over()
        assert await listener.find(COPY) is None
        assert listener.recall.entries() == 0
        assert await listener.recall.rebuild() == 1
        assert await listener.find(COPY) is not None


# -------------------------------------------------------------------------------------------------- rebuilding


class Reading:
    """A journal with one recording of tag "subject", whose reading stops behind it until it is let go on or ended."""

    def __init__(self) -> None:
        code = fingerprint(ORIGINAL)
        assert code is not None
        self.record = _pack(digest_of(ORIGINAL), ("subject",), code)
        self.begun = asyncio.Semaphore(0)
        self.go_on, self.end = asyncio.Event(), asyncio.Event()

    async def records(self) -> AsyncIterator[tuple[CacheKey, bytes]]:
        yield CacheKey("default", bytes(32)), self.record
        self.begun.release()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            await self.end.wait()  # as a connection that is put in order
            raise

    def keep_record(self, key: CacheKey, entry: Entry, record: bytes) -> None:
        pass

    async def keep_tally(self, tenant: str, tally: bytes, told: bytes) -> None:
        pass

    async def tell_quarantine(self, tenant: str, pair: tuple[bytes, bytes]) -> None:
        pass

    async def tallies(self) -> list[tuple[str, str, bytes]]:
        return []

    async def quarantined(self) -> list[tuple[str, tuple[bytes, bytes]]]:
        return []


@pytest_asyncio.fixture
async def reading() -> AsyncIterator[tuple[Reading, Listener]]:
    journal = Reading()
    recall = Recall(policy_of(), journal)
    yield journal, Listener(recall)
    await recall.close()


async def test_what_happens_while_the_index_is_rebuilt_is_in_the_new_one(reading: tuple[Reading, Listener]) -> None:
    journal, listener = reading
    rebuilding = asyncio.create_task(listener.recall.rebuild())
    await journal.begun.acquire()
    await listener.remember(OTHER)
    await listener.recall.forget("subject")
    journal.go_on.set()
    await rebuilding
    assert await listener.find(COPY) is None
    assert await listener.find(hiss(OTHER, snr_db=12, seed=2)) is not None


@pytest.mark.parametrize("erased", [False, True])
async def test_what_is_on_its_way_into_the_journal_when_a_rebuild_begins_is_in_the_new_index(
    reading: tuple[Reading, Listener], erased: bool
) -> None:
    """It is in the old index, or about to be; this journal never has it, as one that is written behind has it late."""
    journal, listener = reading
    journal.go_on.set()
    enrolled = listener.recall.stats.enrolled
    listener.begin_to_remember(OTHER, tags=("of a person",))
    await until(lambda: len(listener.recall._lately) > 0)
    forgetting = asyncio.create_task(listener.recall.forget("of a person")) if erased else None
    await listener.recall.rebuild()
    await until(lambda: listener.recall.stats.enrolled > enrolled)
    assert (await listener.find(hiss(OTHER, snr_db=12, seed=2)) is None) is erased
    assert await listener.find(COPY) is not None
    if forgetting is not None:
        assert await forgetting == 1


@pytest.mark.parametrize("what", ["subject", "tenant"])
@pytest.mark.parametrize("known", [True, False])
async def test_what_is_erased_while_the_index_is_rebuilt_is_not_in_the_new_one(
    reading: tuple[Reading, Listener], what: str, known: bool
) -> None:
    """`known`: whether the tenant was heard of before, which at the first rebuild it was not."""
    journal, listener = reading
    if known:
        await listener.remember(OTHER, tags=("subject",))
    rebuilding = asyncio.create_task(listener.recall.rebuild())
    await journal.begun.acquire()
    await (listener.recall.forget("subject") if what == "subject" else listener.recall.forget_tenant("default"))
    journal.go_on.set()
    assert await rebuilding == 0


async def test_answers_go_on_while_the_index_is_rebuilt(reading: tuple[Reading, Listener]) -> None:
    journal, listener = reading
    journal.go_on.set()
    await listener.recall.rebuild()
    journal.go_on.clear()
    await journal.begun.acquire()
    rebuilding = asyncio.create_task(listener.recall.rebuild())
    await journal.begun.acquire()
    assert await listener.find(COPY) is not None
    journal.go_on.set()
    await rebuilding


async def test_a_rebuild_that_was_given_up_does_not_make_the_next_one_miss_an_erasure(
    reading: tuple[Reading, Listener],
) -> None:
    journal, listener = reading
    first = asyncio.create_task(listener.recall.rebuild())
    await journal.begun.acquire()
    first.cancel()
    second = asyncio.create_task(listener.recall.rebuild())
    await journal.begun.acquire()
    journal.end.set()  # the first ends while the second is under way
    await asyncio.gather(first, return_exceptions=True)
    await listener.recall.forget("subject")
    journal.go_on.set()
    assert await second == 0


# --------------------------------------------------------------------------------------------------- forgetting


async def test_a_forgotten_tag_takes_its_recordings_of_every_tenant_and_no_others(listener: Listener) -> None:
    await listener.remember(ORIGINAL, "alpha", ("subject", "engine"))
    await listener.remember(ORIGINAL, "beta", ("engine",))
    assert await listener.recall.forget("subject") == 1
    assert await listener.find(COPY, "alpha") is None
    assert await listener.find(COPY, "beta") is not None
    assert await listener.recall.forget("engine") == 1
    assert listener.recall.entries() == 0


async def test_a_forgotten_tenant_loses_its_recordings_and_keeps_its_audits(listener: Listener) -> None:
    await listener.remember(ORIGINAL, "alpha")
    await listener.remember(ORIGINAL, "beta")
    await listener.quarantine(OTHER, ORIGINAL, "alpha")
    await listener.recall.forget_tenant("alpha")
    assert await listener.find(COPY, "alpha") is None
    assert await listener.find(COPY, "beta") is not None
    assert listener.recall.audits.count("alpha").wrong == 1


class Busy:
    """Recall's thread, held up, so that what is asked of it waits in line."""

    def __init__(self, recall: Recall) -> None:
        self._go, begun = threading.Event(), threading.Event()

        def hold() -> None:
            begun.set()
            self._go.wait()

        recall._thread.submit(hold)
        begun.wait()

    def release(self) -> None:
        self._go.set()


@pytest.mark.parametrize("erased", ["subject", tenant_tag("default")])
async def test_what_is_erased_while_it_is_being_enrolled_is_not_remembered(erased: str) -> None:
    epochs = LocalEpochs()
    recall = Recall(policy_of(), epochs=epochs)
    await recall.rebuild()
    listener = Listener(recall)
    busy = Busy(recall)
    listener.begin_to_remember(ORIGINAL, tags=("subject",))
    epochs.bump(erased)
    busy.release()
    await recall.close()
    assert (recall.stats.enrolled, recall.entries()) == (0, 0)


async def test_what_is_erased_between_the_index_and_the_journal_is_taken_back() -> None:
    epochs = LocalEpochs()
    recall = Recall(policy_of(), epochs=epochs)
    await recall.rebuild()
    listener = Listener(recall)
    index = recall._of("default").index
    adding, go = threading.Event(), threading.Event()
    add = index.add

    def slow_add(*arguments: Any) -> None:
        add(*arguments)
        adding.set()
        go.wait()

    index.add = slow_add  # type: ignore[method-assign, assignment]
    listener.begin_to_remember(ORIGINAL, tags=("subject",))
    await asyncio.to_thread(adding.wait)
    assert recall.entries() == 1
    epochs.bump("subject")
    go.set()
    await recall.close()
    assert (recall.stats.enrolled, recall.entries()) == (0, 0)


@pytest.mark.parametrize("everything", [False, True])
async def test_an_erasure_during_enrolment_leaves_nothing_in_redis(server: Server, everything: bool) -> None:
    async with listening(server) as listener:
        busy = Busy(listener.recall)
        key = listener.begin_to_remember(ORIGINAL, tags=("subject",))
        gateways = listener.shared.gateways
        erasing = asyncio.create_task(gateways.erase_tenant("default") if everything else gateways.erase("subject"))
        moved = tenant_tag("default") if everything else "subject"
        await until(lambda: listener.shared.epochs.of([moved]).of[0][1] > 0)
        busy.release()
        assert (await erasing).complete
        await until(lambda: not listener.recall._tasks)
        await listener.shared.tier.drain()
        assert await listener.shared.tier.get(key) is None
        assert await listener.shared.tier.get_record(key) is None
        listener.recall.start_over()
        assert await listener.recall.rebuild() == 0


# -------------------------------------------------------------------------------------------------- quarantine


async def test_a_pair_reported_wrong_is_never_recalled_again_and_others_are(listener: Listener) -> None:
    await listener.remember(ORIGINAL)
    await listener.quarantine(COPY, ORIGINAL)
    assert await listener.find(COPY) is None
    assert await listener.find(hiss(ORIGINAL, snr_db=12, seed=5)) is not None
    assert await listener.find(LATE) is not None


async def test_a_report_counts_as_one_wrong_audit_however_often_it_is_made(listener: Listener) -> None:
    await listener.quarantine(COPY, ORIGINAL)
    assert not await listener.recall.audits.report_wrong("default", digest_of(COPY), digest_of(ORIGINAL))
    count = listener.recall.audits.count("default")
    assert (count.audited, count.wrong) == (1, 1)
    assert listener.recall.audits.count("beta").audited == 0, "only the tenant's own"


async def test_the_next_best_is_recalled_where_the_best_is_quarantined(listener: Listener) -> None:
    twin = hiss(ORIGINAL, snr_db=20, seed=11)
    await listener.remember(ORIGINAL)
    await listener.remember(twin)
    best = await listener.find(COPY)
    assert best is not None
    first, second = (ORIGINAL, twin) if best.digest == digest_of(ORIGINAL) else (twin, ORIGINAL)
    await listener.quarantine(COPY, first)
    found = await listener.find(COPY)
    assert found is not None
    assert found.digest == digest_of(second)


async def test_a_quarantined_pair_survives_a_restart(server: Server) -> None:
    async with listening(server) as listener:
        await listener.remember(ORIGINAL)
        await listener.quarantine(COPY, ORIGINAL)
    async with listening(server) as listener:
        assert await listener.find(COPY) is None
        assert await listener.find(LATE) is not None
        assert listener.recall.audits.count("default").wrong == 1


async def test_a_quarantined_pair_reaches_another_gateway(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        await a.remember(ORIGINAL)
        await b.settle()
        assert await b.find(COPY) is not None
        await a.quarantine(COPY, ORIGINAL)
        await b.settle()
        assert await b.find(COPY) is None
        assert await b.find(LATE) is not None


async def test_pairs_that_two_gateways_quarantine_at_once_both_survive(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        await a.remember(ORIGINAL)
        await asyncio.gather(a.quarantine(COPY, ORIGINAL), b.quarantine(LATE, ORIGINAL))
    async with listening(server, "c") as c:
        assert await c.find(COPY) is None
        assert await c.find(LATE) is None
        assert c.recall.audits.count("default").wrong == 2


@pytest.mark.parametrize("known", [False, True])
async def test_what_was_found_while_redis_was_away_or_lost_there_is_kept_there_once_it_is_back(
    server: Server, known: bool
) -> None:
    """`known`: whether Redis had it before."""
    async with listening(server, "a") as a:
        await a.remember(ORIGINAL)
        journal = a.recall.audits._journal
        a.recall.audits._journal = journal if known else None
        await a.quarantine(COPY, ORIGINAL)
        a.recall.audits._journal = journal
        server.client.delete("", *server.client.keys("*ledger*"))
        await a.recall.rebuild()
        async with listening(server, "b") as b:
            assert await b.find(COPY) is None
            assert await b.find(LATE) is not None
    async with listening(server, "a") as a:
        assert await a.find(COPY) is None
        count = a.recall.audits.count("default")
        assert (count.audited, count.wrong) == (1, 1)
        kept = server.client.hgetall(server.client.keys("*ledger:tally")[0])
        await a.recall.rebuild()
        assert server.client.hgetall(server.client.keys("*ledger:tally")[0]) == kept


async def test_what_redis_lost_of_the_audits_is_not_forgotten_by_rebuilding(server: Server) -> None:
    async with listening(server) as listener:
        await listener.remember(ORIGINAL)
        await listener.quarantine(COPY, ORIGINAL)
        server.client.delete(*server.client.keys("*ledger*"))
        await Ledger(listener.shared.link).put(
            AUDIT, "default", b'{"version":1,"right":1,"wrong":0,"undecided":0,"quarantined":[]}'
        )
        listener.recall.start_over()
        await listener.recall.rebuild()
        assert await listener.find(COPY) is None
        assert await listener.find(LATE) is not None
        count = listener.recall.audits.count("default")
        assert (count.audited, count.wrong) == (2, 1)


# -------------------------------------------------------------------------------------------- a whole gateway


FUZZY = {"match": "FUZZY"}
EXACT = {"match": "EXACT"}
ONLY_CACHED = {"mode": "ONLY_IF_CACHED"}
WORDS = {"features": {"enable_word_time_offsets": True}}


def fuzzy(samples: Samples, config: dict[str, Any] | None = None, **control: Any) -> speech_pb2.RecognizeRequest:
    return hear(samples, cache_control={**FUZZY, **control}, config=config or {})


async def enrolled(rig: Rig, samples: Samples, **fields: Any) -> Any:
    """The answer to a recording that is then remembered, here and in Redis."""
    before = rig.running.recall.stats.enrolled
    answer = await rig.speech.Recognize(hear(samples, **fields))
    assert answer.cache_info.status == Status.MISS
    await until(lambda: rig.running.recall.stats.enrolled > before)
    await rig.running.tier.drain()
    return answer


def words(answer: Any) -> str:
    return str(answer.results[0].alternatives[0].transcript)


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with gateway(tmp_path) as rig:
        yield rig


async def test_a_noisy_copy_gets_the_originals_words_and_leaves_no_trace(rig: Rig) -> None:
    original = await enrolled(rig, ORIGINAL)
    answer = await rig.speech.Recognize(fuzzy(LATE))
    assert answer.cache_info.status == Status.HIT_FUZZY
    assert answer.cache_info.tier == "device"
    assert 0 < answer.cache_info.similarity < 1
    assert answer.cache_info.entry_id.startswith("f")
    assert words(answer) == words(original)
    await until(lambda: rig.running.recall.audits.stats.audited == 1)  # the engine has run for that
    assert rig.running.recall.entries() == 1, "nothing is enrolled from a fuzzy answer"
    assert rig.running.cache.stats.stored == 1, "nothing is stored under the copy's own key"
    exact = await rig.speech.Recognize(hear(LATE, cache_control=EXACT))
    assert exact.cache_info.status == Status.MISS
    assert words(exact) == f"{len(LATE)} samples"
    assert (await rig.speech.Recognize(fuzzy(LATE))).cache_info.status == Status.HIT_EXACT


async def test_words_are_told_at_their_times_in_the_copy(rig: Rig) -> None:
    original = await enrolled(rig, ORIGINAL, config=WORDS)
    answer = await rig.speech.Recognize(fuzzy(LATE, WORDS))
    assert answer.cache_info.status == Status.HIT_FUZZY
    (before,), (after,) = (one.results[0].alternatives[0].words for one in (original, answer))
    for name in ("start_offset", "end_offset"):
        moved = getattr(after, name).ToTimedelta() - getattr(before, name).ToTimedelta()
        assert moved.total_seconds() == pytest.approx(LATE_S, abs=0.006)
    end = answer.results[0].result_end_offset.ToTimedelta().total_seconds()
    assert end == pytest.approx(len(LATE) / RATE, abs=1e-3)


async def test_a_streamed_copy_is_recalled_too(rig: Rig) -> None:
    original = await enrolled(rig, ORIGINAL)

    async def requests() -> AsyncIterator[Any]:
        request = fuzzy(COPY)
        config = {"config": request.config, "cache_control": request.cache_control}
        yield speech_pb2.StreamingRecognizeRequest(streaming_config=config)
        yield speech_pb2.StreamingRecognizeRequest(audio=request.content)

    answers = [answer async for answer in rig.speech.StreamingRecognize(requests())]
    assert answers[-1].cache_info.status == Status.HIT_FUZZY
    assert answers[0].results[0].alternatives[0].transcript == words(original)


async def test_only_who_asks_for_it_gets_a_fuzzy_answer_and_only_as_near_as_asked(rig: Rig) -> None:
    await enrolled(rig, ORIGINAL)
    near = (await rig.speech.Recognize(fuzzy(COPY))).cache_info.similarity
    asked: list[tuple[dict[str, Any], bool]] = [
        (EXACT, False),
        ({}, False),
        ({**FUZZY, "min_similarity": near - 0.01}, True),
        ({**FUZZY, "min_similarity": near + 0.01}, False),
        ({**FUZZY, "min_similarity": 1.0}, False),
    ]
    for control, hit in asked:
        # no_store: so that no case answers the next one.
        answer = await rig.speech.Recognize(hear(COPY, cache_control={**control, "no_store": True}))
        assert (answer.cache_info.status == Status.HIT_FUZZY) == hit, control
    assert (await rig.speech.Recognize(fuzzy(OTHER, min_similarity=0.01))).cache_info.status == Status.MISS


async def test_another_recognition_of_the_same_recording_is_not_answered_by_recall(rig: Rig) -> None:
    """The words of another setting: the key of the recalled recording is the request's own but for the recording."""
    await enrolled(rig, ORIGINAL)
    answer = await rig.speech.Recognize(fuzzy(COPY, WORDS))
    assert answer.cache_info.status == Status.MISS


async def test_what_a_tenant_may_have_is_decided_by_its_policy(tmp_path: Path) -> None:
    tokens = {f"{name}-token": name for name in ("never", "always", "strict")}
    tenants = {"never": {"fuzzy": "never"}, "always": {"fuzzy": "always"}, "strict": {"min_similarity": 1.0}}
    async with gateway(tmp_path, tokens=tokens, tenants=tenants) as rig:

        async def status(tenant: str, samples: Samples, **control: Any) -> int:
            request = hear(samples, cache_control={**control, "no_store": samples is not ORIGINAL})
            answer = await rig.speech.Recognize(request, metadata=(("authorization", f"Bearer {tenant}-token"),))
            return int(answer.cache_info.status)

        for tenant in ("never", "always", "strict"):
            assert await status(tenant, ORIGINAL) == Status.MISS
        await until(lambda: rig.running.recall.stats.enrolled == 2)
        assert rig.running.recall.entries() == 2, "who never recalls enrols nothing"
        assert await status("never", COPY, **FUZZY) == Status.MISS
        assert await status("always", COPY) == Status.HIT_FUZZY
        assert await status("always", COPY, **EXACT) == Status.MISS
        assert await status("strict", COPY, **FUZZY, min_similarity=0.1) == Status.MISS


async def test_a_wrong_hit_that_is_reported_is_not_given_again_and_others_are(tmp_path: Path) -> None:
    tolerant = {"default": {"wrong_hit_limit": 0.5}}  # one wrong answer of two is no reason to stop
    async with gateway(tmp_path, tenants=tolerant) as rig:
        await enrolled(rig, ORIGINAL)
        entry_id = (await rig.speech.Recognize(fuzzy(COPY))).cache_info.entry_id
        report = cache_pb2.ReportWrongHitRequest(entry_id=entry_id)
        assert (await rig.admin.ReportWrongHit(report)).quarantined
        assert not (await rig.admin.ReportWrongHit(report)).quarantined
        assert (await rig.speech.Recognize(fuzzy(COPY, no_store=True))).cache_info.status == Status.MISS
        assert (await rig.speech.Recognize(fuzzy(LATE))).cache_info.status == Status.HIT_FUZZY
        stats = await rig.admin.GetStats(cache_pb2.GetStatsRequest())
        assert stats.audits.wrong == 1


async def test_a_withheld_copy_is_computed_stored_and_audited(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants={"default": {"require_proof": True}}) as rig:
        await enrolled(rig, ORIGINAL)
        answer = await rig.speech.Recognize(fuzzy(LATE))
        assert answer.cache_info.status == Status.MISS
        assert words(answer) == f"{len(LATE)} samples"
        await until(lambda: rig.running.recall.audits.stats.audited == 1)
        assert rig.running.recall.audits.stats.withheld == 1
        assert (await rig.speech.Recognize(fuzzy(LATE))).cache_info.status == Status.HIT_EXACT
        stats = await rig.admin.GetStats(cache_pb2.GetStatsRequest())
        assert (stats.audits.audited, stats.audits.serving) == (1, False)


async def test_in_shadow_mode_copies_are_found_and_audited_and_computed_all_the_same(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants={"default": {"fuzzy": "shadow"}}) as rig:
        await enrolled(rig, ORIGINAL)
        for control in ({}, FUZZY):
            answer = await rig.speech.Recognize(hear(LATE, cache_control={**control, "no_store": True}))
            assert answer.cache_info.status == Status.MISS
        await until(lambda: rig.running.recall.audits.stats.audited > 0)
        exact = await rig.speech.Recognize(hear(COPY, cache_control={**EXACT, "no_store": True}))
        assert exact.cache_info.status == Status.MISS
        audits = (await rig.admin.GetStats(cache_pb2.GetStatsRequest())).audits
        assert (audits.shadow, audits.serving, audits.would_serve) == (True, False, 2)


async def test_hits_and_audits_are_told_by_language(rig: Rig) -> None:
    await enrolled(rig, ORIGINAL)
    await rig.speech.Recognize(fuzzy(LATE))
    await until(lambda: rig.running.recall.audits.stats.audited == 1)
    stats = await rig.admin.GetStats(cache_pb2.GetStatsRequest())
    (row,), (found,) = stats.languages, stats.audits_by_language
    assert (row.task, row.language, row.requests, row.hits_fuzzy) == ("recognize", "en-US", 2, 1)
    assert (found.language, found.audited) == ("en-US", 1)


async def test_judged_pairs_are_told_by_names_that_can_be_acted_on(rig: Rig) -> None:
    original = await enrolled(rig, ORIGINAL)
    answer = await rig.speech.Recognize(fuzzy(LATE))
    await until(lambda: rig.running.recall.audits.stats.audited == 1)
    (pair,) = (await rig.admin.ListAuditedPairs(cache_pb2.ListAuditedPairsRequest())).pairs
    assert (pair.kind, pair.verdict, pair.language, pair.voice) == (pair.RECORDING, pair.UNJUDGED, "en-US", "")
    assert pair.entry_id == answer.cache_info.entry_id
    assert pair.answer_id == original.cache_info.entry_id
    assert pair.similarity == pytest.approx(answer.cache_info.similarity, abs=1e-4)
    assert abs(pair.judged_at - time.time()) < 60
    assert (await rig.admin.ReportWrongHit(cache_pb2.ReportWrongHitRequest(entry_id=pair.entry_id))).quarantined
    (now,) = (await rig.admin.ListAuditedPairs(cache_pb2.ListAuditedPairsRequest())).pairs
    assert (now.verdict, now.entry_id, now.answer_id) == (now.WRONG, pair.entry_id, pair.answer_id)


async def test_after_a_restart_recordings_are_recalled_from_redis_until_their_subject_is_erased(tmp_path: Path) -> None:
    async with gateway(tmp_path) as rig:
        original = await enrolled(rig, ORIGINAL, cache_control={"subject_id": "caller 7"})
    async with gateway(tmp_path) as rig:
        answer = await rig.speech.Recognize(fuzzy(COPY))
        assert (answer.cache_info.status, answer.cache_info.tier) == (Status.HIT_FUZZY, "redis")
        assert words(answer) == words(original)
        await rig.admin.Erase(cache_pb2.EraseRequest(subject_id="caller 7"))
        assert rig.running.recall.entries() == 0
        assert (await rig.speech.Recognize(fuzzy(COPY, no_store=True))).cache_info.status == Status.MISS
    async with gateway(tmp_path) as rig:
        assert rig.running.recall.entries() == 0
        assert (await rig.speech.Recognize(fuzzy(COPY))).cache_info.status == Status.MISS


async def test_what_is_being_enrolled_when_the_gateway_stops_is_recalled_after_the_restart(tmp_path: Path) -> None:
    async with AsyncExitStack() as callers:
        async with gateway(tmp_path) as rig:
            address = f"127.0.0.1:{rig.running.port}"
            channel = await callers.enter_async_context(grpc.aio.insecure_channel(address))
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            busy = Busy(rig.running.recall)
            original = await rig.speech.Recognize(hear(ORIGINAL))

            async def let_it_end() -> None:
                await watch.read()  # not serving any more
                watch.cancel()
                busy.release()

            ending = asyncio.create_task(let_it_end())
        await ending
    async with gateway(tmp_path) as rig:
        answer = await rig.speech.Recognize(fuzzy(COPY))
        assert answer.cache_info.status == Status.HIT_FUZZY
        assert words(answer) == words(original)


async def test_an_answer_that_is_gone_is_computed_though_its_recording_is_recalled(rig: Rig) -> None:
    entry_id = (await enrolled(rig, ORIGINAL)).cache_info.entry_id
    await rig.admin.Invalidate(cache_pb2.InvalidateRequest(entry_id=entry_id))
    answer = await rig.speech.Recognize(fuzzy(COPY))
    assert answer.cache_info.status == Status.MISS
    assert rig.running.recall.stats.recalled == 1
    assert words(answer) == f"{len(COPY)} samples"


async def test_a_fuzzy_request_does_not_join_the_flight_of_the_recording_it_resembles(rig: Rig) -> None:
    rig.ear.open.clear()
    first = asyncio.ensure_future(rig.speech.Recognize(hear(ORIGINAL)))
    await rig.ear.started.wait()
    rig.ear.started.clear()
    second = asyncio.ensure_future(rig.speech.Recognize(fuzzy(COPY)))
    await rig.ear.started.wait()
    rig.ear.open.set()
    statuses = [(await call).cache_info.status for call in (first, second)]
    assert statuses == [Status.MISS, Status.MISS]
    assert rig.ear.runs == 2
