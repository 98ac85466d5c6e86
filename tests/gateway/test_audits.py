"""Which fuzzy answers audits let through: begun by proof, stopped by alarm, kept over restarts, summed by gateways."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.audits import Audits, Recalled, TenantPolicy, near_of
from gateway.errors import Overloaded
from gateway.fingerprint.audit import Judgement
from gateway.recall import Recall
from tests.cache_tiers.conftest import Server, until
from tests.gateway.listeners import Listener, alone, listening, policy_of


@pytest.fixture(scope="module")
def one_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.client.flushall()
    return one_server


@pytest_asyncio.fixture
async def listener() -> AsyncIterator[Listener]:
    async with alone() as listener:
        yield listener


def recalled(number: int, similarity: float = 0.9) -> Recalled:
    """A fuzzy answer of another pair for each number."""
    return Recalled(digest=number.to_bytes(32, "little"), query=bytes(32), similarity=similarity, offset_s=0.0)


class Judge:
    def __init__(self, verdict: Judgement | Exception) -> None:
        self.verdict = verdict
        self.asked = 0

    async def __call__(self) -> tuple[Judgement, float]:
        self.asked += 1
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict, 1.0


async def audit(
    listener: Listener,
    verdict: Judgement | Exception,
    times: int,
    start: int = 0,
    tenant: str = "default",
    language: str = "",
) -> None:
    """`times` fuzzy answers, each of another pair, all audited, one after the other, and judged so."""
    judge = Judge(verdict)
    for number in range(start, start + times):
        listener.recall.audits.maybe_audit(tenant, recalled(number), judge, language)
        await until(lambda: not listener.recall._tasks)
    assert judge.asked == times


def serves(listener: Listener, tenant: str = "default", similarity: float = 0.9) -> bool:
    return listener.recall.audits.may_serve(tenant, recalled(0, similarity))


@pytest.mark.parametrize(
    ("verdict", "counts"),
    [
        ("right", (1, 0, 0)),
        ("wrong", (1, 1, 0)),
        ("undecided", (1, 0, 1)),
        ("unjudged", (1, 0, 1)),
        (RuntimeError("a judge that fails"), (1, 0, 1)),
    ],
)
async def test_an_audit_counts_as_it_is_judged(
    listener: Listener, verdict: Judgement | Exception, counts: tuple[int, int, int]
) -> None:
    await audit(listener, verdict, 1)
    count = listener.recall.audits.count("default")
    assert (count.audited, count.wrong, count.undecided) == counts
    total = listener.recall.audits.total()
    assert (total.audited, total.wrong, total.undecided) == counts


async def test_a_pair_judged_wrong_is_shunned_and_one_judged_otherwise_is_not(listener: Listener) -> None:
    audits, found = listener.recall.audits, recalled(1)
    for verdict in ("right", "undecided", "wrong"):
        assert not audits.shunned("default")(found.query, found.digest), f"before {verdict}"
        await audit(listener, verdict, 1, start=1)
    assert audits.shunned("default")(found.query, found.digest)
    assert not audits.shunned("beta")(found.query, found.digest)


async def test_one_audit_at_a_time_takes_the_engine_from_callers(listener: Listener) -> None:
    gate, judged = asyncio.Event(), list[int]()

    def judge_of(number: int) -> Any:
        async def judge() -> tuple[Judgement, float]:
            judged.append(number)
            await gate.wait()
            return "right", 1.0

        return judge

    for number in range(5):
        listener.recall.audits.maybe_audit("default", recalled(number), judge_of(number))
    gate.set()
    await until(lambda: not listener.recall._tasks)
    assert judged == [0]
    listener.recall.audits.maybe_audit("default", recalled(9), judge_of(9))
    await until(lambda: not listener.recall._tasks)
    assert judged == [0, 9]


async def test_an_audit_for_which_there_is_no_room_tells_nothing(listener: Listener) -> None:
    await audit(listener, Overloaded(1.0), 1)
    assert listener.recall.audits.count("default").audited == 0
    await audit(listener, "right", 1)
    assert listener.recall.audits.count("default").audited == 1


async def test_an_answer_judged_right_is_not_judged_again_and_one_of_which_nobody_is_sure_is(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one recording, asked a thousand times, would prove what it says nothing of."""
    monkeypatch.setattr("gateway.audits.KNOWN", 3)

    async def judged(number: int, answer: bytes, verdict: Judgement = "right", tenant: str = "default") -> bool:
        judge = Judge(verdict)
        listener.recall.audits.maybe_audit(tenant, recalled(number), judge, "", answer)
        await until(lambda: not listener.recall._tasks)
        return judge.asked == 1

    for verdict in ("undecided", "unjudged", "right"):
        assert await judged(1, b"a", verdict)
    assert not await judged(1, b"a")
    assert listener.recall.audits.count("default").audited == 3
    assert await judged(1, b"b"), "another answer, as of another engine"
    assert await judged(1, b"a", tenant="beta")
    assert await judged(2, b"a")
    assert await judged(1, b"a"), "the oldest is forgotten"
    assert not await judged(2, b"a")


async def test_once_many_were_served_only_a_share_is_audited() -> None:
    async with alone(wrong_hit_limit=0.1) as listener:
        judge = Judge("right")
        for number in range(400):
            assert serves(listener)
            listener.recall.audits.maybe_audit("default", recalled(number), judge)
            await until(lambda: not listener.recall._tasks)
        assert 40 < judge.asked < 200


# --------------------------------------------------------------------------------------------- begun and stopped


async def test_where_proof_is_required_answers_begin_with_the_proof(caplog: pytest.LogCaptureFixture) -> None:
    async with alone(require_proof=True, wrong_hit_limit=0.1) as listener:
        assert not serves(listener)
        assert listener.recall.audits.count("default").withheld == 1
        with caplog.at_level(logging.WARNING, "refrain.recall"):
            await audit(listener, "right", 64)
        assert serves(listener)
        count = listener.recall.audits.count("default")
        assert count.serving
        assert count.wrong_upper_bound <= 0.1
        assert [record.getMessage() for record in caplog.records] == ["fuzzy answers have begun"]


async def test_undecided_audits_neither_stop_answers_nor_prove_them_right() -> None:
    async with alone() as listener:
        await audit(listener, "undecided", 40)
        assert serves(listener)
    async with alone(require_proof=True, wrong_hit_limit=0.1) as listener:
        await audit(listener, "undecided", 80)
        assert not serves(listener)
        assert listener.recall.audits.count("default").doubted_upper_bound == 1.0


async def test_answers_stop_when_wrong_ones_become_frequent_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async with alone() as listener:
        with caplog.at_level(logging.WARNING, "refrain.recall"):
            await audit(listener, "wrong", 8)
        assert not serves(listener)
        assert listener.recall.audits.stats.withheld == 1
        count = listener.recall.audits.count("default")
        assert (count.serving, count.alarms > 0) == (False, True)
        assert serves(listener, "beta")
        assert [record.getMessage() for record in caplog.records] == ["fuzzy answers have stopped"]


async def test_after_an_alarm_every_answer_is_audited_and_a_proof_brings_them_back() -> None:
    async with alone(wrong_hit_limit=0.2) as listener:
        await audit(listener, "wrong", 12)
        assert not serves(listener)
        right = 0
        while not serves(listener):
            await audit(listener, "right", 10, start=1000 + right)  # asserts that none is left out
            right += 10
            assert right < 200
        assert right > 8


async def test_in_shadow_mode_all_is_audited_and_nothing_served() -> None:
    async with alone(fuzzy="shadow") as listener:
        assert not serves(listener)
        await audit(listener, "right", 3)
        count = listener.recall.audits.count("default")
        assert (count.shadow, count.serving, count.would_serve, count.audited) == (True, False, 1, 3)


@pytest.mark.parametrize(
    ("fuzzy", "served", "looked"),
    [("never", "", ""), ("shadow", "", "DF"), ("on_request", "F", "F"), ("always", "DF", "DF")],
)
def test_what_a_policy_looks_for_and_what_it_serves(fuzzy: Any, served: str, looked: str) -> None:
    policy = TenantPolicy(fuzzy=fuzzy)
    matches = {"D": 0, "E": 1, "F": 2}  # Match.UNSPECIFIED, EXACT, FUZZY
    assert "".join(name for name, match in matches.items() if policy.allows_fuzzy(match)) == served
    assert "".join(name for name, match in matches.items() if policy.looks(match)) == looked
    assert policy.enrols == (fuzzy != "never")


async def test_near_voices_are_served_until_audits_alarm_and_recordings_wait_for_a_proof() -> None:
    async with alone(require_proof=True) as listener:
        assert not serves(listener)
        assert serves(listener, near_of("default"))
        await audit(listener, "unjudged", 50, tenant=near_of("default"))
        assert serves(listener, near_of("default"))
        await audit(listener, "wrong", 8, tenant=near_of("default"), start=100)
        assert not serves(listener, near_of("default"))


# ------------------------------------------------------------------------------------------ kept, summed, shared


async def test_what_audits_found_survives_a_restart(server: Server) -> None:
    async with listening(server) as listener:
        await audit(listener, "wrong", 8)
        await audit(listener, "right", 2, start=100)
        await audit(listener, "undecided", 1, start=200)
    for _ in range(2):
        async with listening(server) as listener:
            count = listener.recall.audits.count("default")
            assert (count.audited, count.wrong, count.undecided) == (11, 8, 1)
            assert not serves(listener)


async def test_what_gateways_find_at_once_adds_up_at_each_of_them_and_after_a_restart(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        await asyncio.gather(audit(a, "right", 30), audit(b, "right", 20))
        await audit(b, "wrong", 1, start=500)
        await a.settle()
        for listener in (a, b):
            count = listener.recall.audits.count("default")
            assert (count.audited, count.wrong) == (51, 1)
        bounds = [listener.recall.audits.count("default").wrong_upper_bound for listener in (a, b)]
        assert bounds[0] == bounds[1]
        a.recall.start_over()
        await a.recall.rebuild()
        assert a.recall.audits.count("default").audited == 51, "reading it again counts nothing twice"
    async with listening(server, "a") as a:
        count = a.recall.audits.count("default")
        assert (count.audited, count.wrong) == (51, 1)


async def test_an_alarm_at_one_gateway_stops_answers_at_all(server: Server) -> None:
    async with listening(server, "a") as a, listening(server, "b") as b:
        await audit(b, "right", 30)
        await audit(a, "wrong", 8, start=100)
        await b.settle()
        assert not serves(a)
        assert not serves(b)


async def test_tenants_of_which_both_allow_it_prove_together() -> None:
    async with sharing("alpha", "beta") as listener:
        await audit(listener, "right", 32, tenant="alpha")
        assert [serves(listener, tenant) for tenant in ("alpha", "beta", "gamma")] == [False] * 3
        await audit(listener, "right", 32, tenant="beta")
        assert [serves(listener, tenant) for tenant in ("alpha", "beta", "gamma")] == [True, True, False]
        assert listener.recall.audits.count("beta").audited == 32, "counts told are its own"


async def test_who_has_raised_an_alarm_has_to_prove_alone() -> None:
    async with sharing("alpha", "beta") as listener:
        await audit(listener, "right", 100, tenant="alpha")
        assert serves(listener, "beta")
        await audit(listener, "wrong", 10, tenant="beta", start=200)
        assert not serves(listener, "beta")
        assert serves(listener, "alpha"), "what has alarmed is no longer shared"
        await audit(listener, "right", 100, tenant="alpha", start=1000)
        assert not serves(listener, "beta")


@contextlib.asynccontextmanager
async def sharing(*tenants: str) -> AsyncIterator[Listener]:
    """At a limit of 0.1, to be proved; only these tenants share what they know."""

    def policy(tenant: str) -> TenantPolicy:
        return TenantPolicy(wrong_hit_limit=0.1, pool_audits=tenant in tenants)

    recall = Recall(policy, seed=1, keep_s=0.0)
    await recall.rebuild()
    yield Listener(recall)
    await recall.close()


async def test_what_is_found_is_told_by_language(listener: Listener) -> None:
    await audit(listener, "right", 3, language="en-US")
    await audit(listener, "wrong", 1, start=10, language="ar-EG")
    await audit(listener, "right", 1, start=20)
    found = {row.language: (row.audited, row.wrong) for row in listener.recall.audits.by_language()}
    assert found == {"en-US": (3, 0), "ar-EG": (1, 1)}
    assert listener.recall.audits.by_language(["beta"]) == []


async def test_what_is_found_of_voices_is_told_by_the_voice_that_answered(listener: Listener) -> None:
    await audit(listener, "wrong", 1, tenant=near_of("default"), language="anna")
    (row,) = listener.recall.audits.by_voice("default")
    assert (row.voice, row.audited, row.wrong) == ("anna", 1, 1)
    assert listener.recall.audits.by_voice("beta") == []
    assert listener.recall.audits.by_language() == [], "a voice is no language"


async def test_judged_pairs_are_listed_the_worst_first_and_told_by_tenant(listener: Listener) -> None:
    await audit(listener, "right", 1)
    await audit(listener, "wrong", 1, start=1, language="en-US")
    await audit(listener, RuntimeError("a judge that fails"), 1, start=2)
    wrong, unjudged, right = listener.recall.audits.judged("default")
    assert (wrong.judgement, wrong.label, wrong.recalled) == ("wrong", "en-US", recalled(1).digest[:16])
    assert (unjudged.judgement, right.judgement, right.similarity) == ("unjudged", "right", 0.9)
    assert listener.recall.audits.judged("beta") == []


async def test_a_report_makes_a_judged_pair_a_wrong_one(listener: Listener) -> None:
    audits, found = listener.recall.audits, recalled(0)
    await audit(listener, "right", 1, language="en-US")
    assert await audits.report_wrong("default", found.query, found.digest)
    (known,) = audits.judged("default")
    assert (known.judgement, known.similarity, known.label) == ("wrong", 0.9, "en-US")
    assert await audits.report_wrong("default", found.query, recalled(7).digest)
    assert {(pair.judgement, pair.similarity) for pair in audits.judged("default")} == {("wrong", 0.9), ("wrong", 0.0)}


async def test_judged_pairs_outlive_a_restart_and_are_told_to_other_gateways(server: Server) -> None:
    async with listening(server, "a") as a:
        async with listening(server, "b") as b:
            await audit(a, "wrong", 1)
            await b.settle()
            await audit(b, "undecided", 1, start=1)
            assert [pair.judgement for pair in b.recall.audits.judged("default")] == ["wrong", "undecided"]
        await a.settle()
        assert [pair.judgement for pair in a.recall.audits.judged("default")] == ["wrong", "undecided"]
    async with listening(server, "a") as again:
        assert [pair.judgement for pair in again.recall.audits.judged("default")] == ["wrong", "undecided"]


async def test_asking_for_counts_keeps_no_books() -> None:
    audits = Audits(policy_of(), None, lambda work: work.close())
    assert audits.count("nobody").audited == 0
    assert audits.total().audited == 0
