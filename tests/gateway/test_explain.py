"""Why memory answered or did not: what is told is what is done, nobody else is told, no trace is left; the picture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import grpc
import numpy as np
import pytest
import pytest_asyncio
import soundfile

from cache_tiers.entry import CacheKey
from gateway import explain
from gateway.cli import main
from gateway.client import Candidate, Explanation, RefrainClient, Timeline
from gateway.explain_picture import LANES, picture
from gateway.fingerprint.index import EXPLAINED
from models.utterance import Samples
from protos.refrain.v1 import cache_pb2, speech_pb2
from tests.cache_tiers.conftest import until
from tests.fingerprint.voice import RATE, hiss, say
from tests.gateway.rig import Rig, Status, gateway, hear, noise

Told = cache_pb2.ExplainRecallResponse
ORIGINAL = say(1)
COPY = hiss(ORIGINAL, snr_db=12, seed=2)
OTHER = say(7)
FUZZY = {"match": "FUZZY"}
SVG = "{http://www.w3.org/2000/svg}"


def asked(samples: Samples, **control: Any) -> speech_pb2.RecognizeRequest:
    return hear(samples, cache_control={**FUZZY, **control})


async def enrol(rig: Rig, samples: Samples, **call: Any) -> Any:
    """The answer to a recording that can then be recalled."""
    before = rig.running.recall.stats.enrolled
    answer = await rig.speech.Recognize(hear(samples), **call)
    await until(lambda: rig.running.recall.stats.enrolled > before)
    return answer


def as_tenant(name: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {name}-token"),)}


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with gateway(tmp_path) as rig:
        yield rig


# ----------------------------------------------------------------------------------------------- what is told is done


async def test_what_would_answer_is_what_answers(rig: Rig) -> None:
    original = await enrol(rig, ORIGINAL)
    await enrol(rig, OTHER)
    told = await rig.admin.ExplainRecall(asked(COPY))
    answer = await rig.speech.Recognize(asked(COPY))
    assert answer.cache_info.status == Status.HIT_FUZZY
    assert (told.outcome, told.fingerprint, told.serving) == (Told.ANSWERED, Told.MADE, Told.SERVED)
    assert told.recordings == 2
    first = told.candidates[0]
    assert (first.accepted, first.reason, first.remembered) == (True, "same", True)
    assert first.pair_id == answer.cache_info.entry_id
    assert first.entry_id == original.cache_info.entry_id
    assert first.transcript == original.results[0].alternatives[0].transcript
    assert first.similarity == answer.cache_info.similarity
    assert not any(other.pair_id for other in told.candidates[1:])


@pytest.mark.parametrize("samples", [ORIGINAL, COPY, OTHER], ids=["itself", "a copy", "a stranger"])
async def test_the_outcome_is_that_of_recognize(rig: Rig, samples: Samples) -> None:
    await enrol(rig, ORIGINAL)
    told = await rig.admin.ExplainRecall(asked(samples))
    status = (await rig.speech.Recognize(asked(samples))).cache_info.status
    expected = {Status.HIT_EXACT: Told.EXACT, Status.HIT_FUZZY: Told.ANSWERED, Status.MISS: Told.NOT_FOUND}
    assert told.outcome == expected[status]
    assert [one.itself for one in told.candidates] == [samples is ORIGINAL]


async def test_explaining_leaves_no_trace(rig: Rig) -> None:
    await enrol(rig, ORIGINAL)
    recall, cache = rig.running.recall, rig.running.cache

    async def counts() -> tuple[Any, ...]:
        stats = await rig.admin.GetStats(cache_pb2.GetStatsRequest())
        device = cache.device.stats
        rows = sorted(row.SerializeToString() for row in stats.outcomes)
        tiers = (device.hits, device.misses, device.stores, cache.stats.stored, cache.stats.loads)
        return (rows, stats.audits.SerializeToString(), recall.stats, recall.entries(), tiers, rig.ear.runs)

    before = await counts()
    for samples in (ORIGINAL, COPY, OTHER):
        await rig.admin.ExplainRecall(asked(samples))
    assert await counts() == before
    assert recall.audits.stats.audited == 0


async def test_the_timeline_holds_both_recordings_and_what_is_against(rig: Rig) -> None:
    await enrol(rig, ORIGINAL)
    late = np.concatenate([np.zeros(RATE // 4, np.float32), ORIGINAL])
    told = await rig.admin.ExplainRecall(asked(late))
    assert told.length.ToTimedelta().total_seconds() == pytest.approx(len(late) / RATE)
    assert len(told.level) == len(told.speech)
    (one,) = told.candidates
    line = one.timeline
    frames = {len(values) for values in (line.level, line.speech, line.evidence, line.known, line.against)}
    assert len(frames) == 1
    assert one.offset.ToTimedelta().total_seconds() == pytest.approx(0.25, abs=0.02)
    # By a quarter of a second the recording asked about begins before the earlier one does.
    assert line.start.ToTimedelta().total_seconds() == pytest.approx(-0.25, abs=0.05)
    assert line.level[0] == -1
    assert line.speech[0] >= 0
    assert max(line.level) == 3
    assert sum(line.evidence) > 0
    assert np.log(np.exp(np.array(line.against, np.float64)).sum()) == pytest.approx(-one.score, abs=1e-3)


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (noise(0.25), Told.TOO_SHORT),
        (np.tile(ORIGINAL, 31), Told.TOO_LONG),
        (np.where(np.arange(RATE) % 100 == 0, 5 / 32_767, 0).astype(np.float32), Told.SILENT),
    ],
    ids=["too short", "too long", "silent"],
)
async def test_what_has_no_fingerprint_says_why(rig: Rig, samples: Samples, why: int) -> None:
    told = await rig.admin.ExplainRecall(asked(samples))
    assert (told.outcome, told.fingerprint, list(told.candidates)) == (Told.NOT_COMPARED, why, [])


async def test_no_more_candidates_are_told_than_are_of_use(rig: Rig) -> None:
    for seed in range(EXPLAINED + 3):
        await enrol(rig, say(seed, syllables=2))
    told = await rig.admin.ExplainRecall(asked(say(99, syllables=2)))
    assert told.recordings == EXPLAINED + 3
    assert len(told.candidates) <= EXPLAINED
    distances = [one.distance for one in told.candidates if not one.pair_id]
    assert distances == sorted(distances)


# ------------------------------------------------------------------------------------------------------ why it is not


async def test_a_pair_that_was_reported_is_shown_as_kept_apart(rig: Rig) -> None:
    await enrol(rig, ORIGINAL)
    told = await rig.admin.ExplainRecall(asked(COPY))
    await rig.admin.ReportWrongHit(cache_pb2.ReportWrongHitRequest(entry_id=told.candidates[0].pair_id))
    told = await rig.admin.ExplainRecall(asked(COPY))
    (one,) = told.candidates
    assert (told.outcome, one.quarantined, one.pair_id) == (Told.NOT_FOUND, True, "")


async def test_a_recording_whose_answer_was_dropped_is_shown_without_words(rig: Rig) -> None:
    await enrol(rig, ORIGINAL)
    await rig.running.tier.drain()
    (one,) = (await rig.admin.ExplainRecall(asked(COPY))).candidates
    await rig.admin.Invalidate(cache_pb2.InvalidateRequest(entry_id=one.entry_id))
    told = await rig.admin.ExplainRecall(asked(COPY))
    (one,) = told.candidates
    assert (told.outcome, one.remembered, one.transcript) == (Told.FORGOTTEN, False, "")


async def test_similarity_that_is_asked_for_is_heeded(rig: Rig) -> None:
    await enrol(rig, ORIGINAL)
    told = await rig.admin.ExplainRecall(asked(COPY, min_similarity=1.0))
    assert (told.outcome, told.candidates[0].reason) == (Told.NOT_FOUND, "min_similarity")


async def test_why_fuzzy_answers_are_not_served_is_said(tmp_path: Path) -> None:
    policies: dict[str, tuple[dict[str, Any], int]] = {
        "never": ({"fuzzy": "never"}, Told.NEVER),
        "shadow": ({"fuzzy": "shadow"}, Told.SHADOW),
        "unproved": ({"require_proof": True}, Told.HELD_BACK),
        "served": ({}, Told.SERVED),
    }
    tokens = {f"{name}-token": name for name in policies}
    async with gateway(tmp_path, tokens=tokens, tenants={n: policy for n, (policy, _) in policies.items()}) as rig:
        for name, (_, serving) in policies.items():
            if name != "never":
                await enrol(rig, ORIGINAL, **as_tenant(name))
            told = await rig.admin.ExplainRecall(asked(COPY), **as_tenant(name))
            outcome = {"never": Told.NOT_FOUND, "served": Told.ANSWERED}.get(name, Told.WITHHELD)
            assert (told.serving, told.outcome) == (serving, outcome), name
        told = await rig.admin.ExplainRecall(hear(COPY), **as_tenant("served"))
        assert (told.serving, told.outcome) == (Told.NOT_ASKED, Told.WITHHELD)


async def test_another_tenants_recordings_are_not_shown(tmp_path: Path) -> None:
    async with gateway(tmp_path, tokens={"alpha-token": "alpha", "beta-token": "beta"}) as rig:
        await enrol(rig, ORIGINAL, **as_tenant("alpha"))
        for samples in (ORIGINAL, COPY):
            told = await rig.admin.ExplainRecall(asked(samples), **as_tenant("beta"))
            assert (told.outcome, told.recordings, len(told.candidates)) == (Told.NOT_FOUND, 0, 0)
        with pytest.raises(grpc.RpcError) as caught:
            await rig.admin.ExplainRecall(asked(COPY))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (speech_pb2.RecognizeRequest(), "content"),
        (asked(np.zeros(RATE, np.float32)), "content"),
        (asked(ORIGINAL, min_similarity=2.0), "cache_control.min_similarity"),
        (hear(ORIGINAL, config={"model": "whisper-9"}), "config.model"),
    ],
    ids=["empty", "digital silence", "a similarity above 1", "an unknown model"],
)
async def test_a_bad_request_is_refused_by_field(rig: Rig, request_: Any, field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await rig.admin.ExplainRecall(request_)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(f"{field} is ")


async def test_only_so_many_wait_for_an_explanation(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await enrol(rig, ORIGINAL)
    peek, go_on = rig.running.cache.peek, asyncio.Event()

    async def held(key: CacheKey) -> Any:
        await go_on.wait()
        return await peek(key)

    monkeypatch.setattr(rig.running.cache, "peek", held)
    refused: list[grpc.StatusCode] = []

    async def ask() -> None:
        try:
            await rig.admin.ExplainRecall(asked(COPY))
        except grpc.RpcError as error:
            refused.append(error.code())

    asking = [asyncio.ensure_future(ask()) for _ in range(explain.WAITING + 2)]
    await until(lambda: len(refused) == 2)  # nobody is done before
    go_on.set()
    await asyncio.gather(*asking)
    assert refused == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2


# ------------------------------------------------------------------------------------------- the command, the picture


def test_the_command_tells_and_draws(
    served: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFRAIN_TARGET", f"127.0.0.1:{served.running.port}")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    for name, samples in (("original", ORIGINAL), ("copy", COPY)):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
    before = served.running.recall.stats.enrolled
    assert main(["hear", "original.wav"]) == 0
    asyncio.run(until(lambda: served.running.recall.stats.enrolled > before))
    capsys.readouterr()
    assert main(["hear", "--fuzzy", "--explain", "copy.wav"]) == 0
    said = capsys.readouterr().out
    assert "answered from memory: the same recording, at the same time" in said
    assert "1 recording in memory; fuzzy answers are served" in said
    assert f"{len(ORIGINAL)} samples" in said
    root = ElementTree.parse(tmp_path / "copy.explain.svg").getroot()
    assert len(root.findall(f"{SVG}g[@class='lane']")) == 1
    assert main(["hear", "copy.wav", "--explain", "--picture", "x.gif"]) == 1
    assert "name a file that ends in .svg" in capsys.readouterr().err
    with RefrainClient(f"127.0.0.1:{served.running.port}") as client:
        told = client.explain(tmp_path / "copy.wav")
    assert told.describe().startswith("answered from memory: ")


def a_candidate(frames: int = 50, **fields: Any) -> Candidate:
    line = np.linspace(0, 3, frames, dtype=np.float32)
    timeline = Timeline(-0.08, line - 1, line, line - 1.5, line, line - 2)
    usual: dict[str, Any] = {
        "entry_id": "e0", "pair_id": "", "itself": False, "quarantined": False, "accepted": False,
        "reason": "another sound", "similarity": 0.5, "distance": 0.2, "score": -1.5, "offset_s": 0.1, "pace": 1.01,
        "worst_s": 0.4, "remembered": True, "transcript": "turn it on", "timeline": timeline,
    }  # fmt: skip
    return Candidate(**{**usual, **fields})


def told_of(*candidates: Candidate, **fields: Any) -> Explanation:
    line = np.ones(60, np.float32)
    usual: dict[str, Any] = {
        "outcome": "NOT_FOUND", "fingerprint": "MADE", "serving": "SERVED", "wrong_upper_bound": 0.01, "limit": 0.005,
        "from_similarity": 0.0, "recordings": 9, "length_s": 0.96, "frame_s": 0.016, "level": line, "speech": line,
    }  # fmt: skip
    return Explanation(**{**usual, **fields}, candidates=candidates)


@pytest.mark.parametrize("count", range(LANES + 3))
def test_the_picture_has_a_lane_for_each_of_the_best_and_lies_within_its_frame(count: int) -> None:
    root = ElementTree.fromstring(picture(told_of(*[a_candidate() for _ in range(count)]), "a.wav"))
    assert len(root.findall(f"{SVG}g[@class='lane']")) == min(count, LANES)
    height, width = (float(root.attrib[name]) for name in ("height", "width"))
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.attrib["x"]) <= width
        assert 0 <= float(text.attrib["y"]) <= height


def test_the_picture_holds_no_markup_of_anybodys_words() -> None:
    words = "<script>alert('x')</script> & \x00\ud800\x1b done"
    drawn = picture(told_of(a_candidate(transcript=words, reason="<b>")), "<i>.wav\x07")
    drawn.encode()
    root = ElementTree.fromstring(drawn)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "rect", "text", "path", "polyline", "g",
    }  # fmt: skip
    assert any("alert('x')" in (text.text or "") for text in root.iter(f"{SVG}text"))


def test_the_picture_takes_what_was_not_compared() -> None:
    nothing = np.zeros(0, np.float32)
    far = a_candidate(score=None, reason="distance", timeline=Timeline(0.0, *[nothing] * 5))
    ElementTree.fromstring(picture(told_of(far), "a.wav"))
    silent = told_of(outcome="NOT_COMPARED", fingerprint="SILENT", level=nothing, speech=nothing, recordings=0)
    ElementTree.fromstring(picture(silent, "a.wav"))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (told_of(a_candidate(reason="same"), outcome="ANSWERED"), "from memory: the same recording, 0.10 s later"),
        (told_of(a_candidate(reason="same", offset_s=0.0), outcome="ANSWERED"), "the same recording, at the same time"),
        (told_of(a_candidate()), "not answered: another sound at 0.50 s"),
        (told_of(a_candidate(reason="distance", score=None)), "not answered: no recording in memory is like it"),
        (told_of(), "not answered: no recording in memory is like it"),
        (told_of(a_candidate(quarantined=True)), "not answered: kept apart"),
        (
            told_of(a_candidate(reason="same"), outcome="WITHHELD", serving="HELD_BACK"),
            "held back, audits bound the wrong ones by 1.00%, and the limit is 0.50%",
        ),
        (told_of(a_candidate(reason="same"), outcome="WITHHELD", from_similarity=0.6), "from a similarity of 0.60 on"),
        (told_of(a_candidate(reason="same"), outcome="WITHHELD", serving="NOT_ASKED"), "does not ask for fuzzy"),
        (told_of(a_candidate(itself=True), outcome="EXACT"), "answered from memory: this very recording"),
        (told_of(outcome="NOT_COMPARED", fingerprint="TOO_SHORT"), "not compared: less than 0.3 s of speech"),
        (told_of(a_candidate(reason="same"), outcome="FORGOTTEN"), "its answer with these options is not stored"),
    ],
)
def test_the_decision_is_said_in_words(told: Explanation, said: str) -> None:
    assert said in told.describe()
