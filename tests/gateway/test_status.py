"""The status page's JSON adds up, tells nobody more than he may see, and lets nobody do more than he may do."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import pytest_asyncio
import soundfile

from cache_tiers.device import DeviceTier
from cache_tiers.entry import CacheKey, Entry
from cache_tiers.memory import HostMemory
from cache_tiers.policy.lru import LruPolicy
from gateway import http
from gateway.admin import entry_key
from gateway.audio import Encoding, Output
from gateway.leaders import KEPT, Leaders
from gateway.notes import FUZZY as KEPT_FUZZY
from gateway.notes import Fuzzy, Notes
from gateway.observe import Observer, Outcome
from gateway.pulse import WINDOW, Pulse
from gateway.stats import COALESCED, HIT_EXACT, MISS
from gateway.wire import sound_of
from protos.refrain.v1 import cache_pb2, speech_pb2
from tests.cache_tiers.conftest import Server, until
from tests.gateway.hearers import tone
from tests.gateway.rig import Rig, Status, gateway, hear, noise, say

FUZZY = {"match": speech_pb2.CacheControl.FUZZY}
TOKENS = {"tenants": {"acme": {}, "beta": {}}, "tokens": {"acme-token": "acme", "beta-token": "beta"}}


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with gateway(tmp_path) as rig:
        yield rig


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(rig: Rig, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
    """One request, as a browser on this machine would send it where `headers` (with _ for -) say nothing else."""
    sent = {
        "host": f"localhost:{rig.running.http_port}",
        **{name.replace("_", "-"): it for name, it in headers.items()},
    }
    if method == "POST":
        sent = {"content-type": "application/json", "content-length": str(len(body)), **sent}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {it}" for name, it in sent.items() if it)]
    return await send(rig, "\r\n".join([*lines, "", ""]).encode() + body)


async def send(rig: Rig, data: bytes, *, end: bool = False) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.running.http_port)
    writer.write(data)
    if end:
        writer.write_eof()
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *fields = head.decode().split("\r\n")
    told = {name.lower(): it.strip() for name, _, it in (line.partition(":") for line in fields)}
    return Answer(int(first.split()[1]), told, body)


async def act(rig: Rig, action: str, entry_id: str, **headers: str) -> Answer:
    return await ask(rig, f"/status/{action}", "POST", json.dumps({"entry_id": entry_id}).encode(), **headers)


async def status(rig: Rig, **headers: str) -> Any:
    answer = await ask(rig, "/status.json", **headers)
    assert answer.status == 200, answer.body
    return answer.json


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def anna_like() -> speech_pb2.EmbedVoiceRequest:
    """A voice that is near anna's, and not hers."""
    pcm = np.round(tone(310.0) * 32_767).astype("<i2").tobytes()
    explicit = {"encoding": speech_pb2.LINEAR16, "sample_rate_hertz": 16_000}
    return speech_pb2.EmbedVoiceRequest(recording={"explicit_decoding_config": explicit, "content": pcm})


# ------------------------------------------------------------------------------------------------------ it adds up


async def test_what_it_counts_is_what_get_stats_counts(rig: Rig) -> None:
    bypass = {"mode": speech_pb2.CacheControl.BYPASS}
    rig.speaker.open.clear()
    together = [asyncio.ensure_future(rig.speech.Synthesize(say("At once."))) for _ in range(2)]
    await rig.speaker.started.wait()
    while (await status(rig))["work"]["flights"] != 1:
        pass
    rig.speaker.open.set()
    await asyncio.gather(*together)
    for request in (say(), say(), say(), say(cache_control=bypass)):
        await rig.speech.Synthesize(request)
    await rig.speech.Recognize(hear(noise()))
    await rig.running.tier.drain()  # or the two would be asked before and after the last answer reached Redis
    told = await status(rig)
    counted = await rig.admin.GetStats(cache_pb2.GetStatsRequest())
    totals = told["totals"]
    parts = [totals[name] for name in ("hits", "misses", "coalesced", "bypassed")]
    assert sum(parts) == totals["requests"] == sum(row.requests for row in counted.outcomes) == 7
    rows = {(row["task"], row["status"], row["tier"]): row for row in told["sources"]}
    for row in counted.outcomes:
        mine = rows.pop((row.task, Status.Status.Name(row.status), row.tier))
        assert (mine["requests"], mine["bytes"]) == (row.requests, row.bytes)
        assert mine["p99_s"] == pytest.approx(row.latency_p99.ToNanoseconds() / 1e9, abs=1e-6)
        assert mine["compute_s"] == pytest.approx(row.compute.ToNanoseconds() / 1e9, abs=1e-6)
        assert mine["p50_s"] <= mine["p95_s"] <= mine["p99_s"]
    assert not rows
    assert sum(row["share"] for row in told["sources"]) == pytest.approx(1.0)
    tiers = {tier["name"]: tier for tier in told["tiers"]}
    for tier in counted.tiers:
        assert (tiers[tier.name]["entries"], tiers[tier.name]["bytes"]) == (tier.entries, tier.bytes)
    assert sum(tier["hits"] or 0 for tier in told["tiers"]) == totals["hits"]
    assert {one["task"] for one in told["engines"]} >= {"recognize", "synthesize", "vocode"}
    assert (told["redis"]["private"], told["redis"]["breaker_open"]) == (True, False)


async def test_failures_are_told_beside_the_requests(rig: Rig) -> None:
    rig.speaker.fail = ValueError("no")
    with pytest.raises(Exception, match="INTERNAL"):
        await rig.speech.Synthesize(say())
    told = await status(rig)
    assert (told["totals"]["requests"], told["totals"]["failed"]) == (0, 1)
    assert [one["failures"] for one in told["engines"] if one["task"] == "synthesize"] == [1]


async def test_entries_are_the_tenants_own_that_are_hit_most(rig: Rig) -> None:
    voice = {"name": "bert"}
    for text, times in (("Often.", 4), ("Seldom.", 2), ("Once.", 1)):
        for _ in range(times):
            last = await rig.speech.Synthesize(say(text, voice=voice))
    entries = (await status(rig))["entries"]
    assert [(one["hits"], one["task"], one["voice"], one["text"]) for one in entries] == [
        (3, "synthesize", "bert", ""), (1, "synthesize", "bert", "")
    ]  # fmt: skip
    assert last.cache_info.entry_id not in {one["id"] for one in entries}
    assert entries[0]["saved_s"] == pytest.approx(3 * entries[0]["cost_s"])


# ------------------------------------------------------------------------------------------------------ who sees what


async def test_without_rights_there_are_counts_alone(tmp_path: Path) -> None:
    async with gateway(tmp_path, status={"show_text": True}, **TOKENS) as rig:
        for token in ("acme-token", "beta-token"):
            metadata = (("authorization", f"Bearer {token}"),)
            for _ in range(2):
                mine = await rig.speech.Synthesize(say("A secret."), metadata=metadata)
        anonymous = await ask(rig, "/status.json")
        assert anonymous.json["rights"] is None
        assert "entries" not in anonymous.json
        assert anonymous.json["totals"]["requests"] == 4
        for word in (b"acme", b"beta", b"secret", mine.cache_info.entry_id.encode()):
            assert word not in anonymous.body
        told = await status(rig, **bearer("beta-token"))
        assert [(one["id"], one["text"]) for one in told["entries"]] == [(mine.cache_info.entry_id, "A secret.")]
        assert told["rights"]["tenant"] == "beta"
        assert (await ask(rig, "/status.json", **bearer("gamma-token"))).status == 401
        # Another tenant's entry is none of his, whatever he does with its name.
        assert (await act(rig, "hear", mine.cache_info.entry_id, **bearer("acme-token"))).status == 404
        assert (await act(rig, "drop", mine.cache_info.entry_id, **bearer("acme-token"))).json == {"dropped": False}
        assert (await act(rig, "drop", mine.cache_info.entry_id)).status == 401
        assert (await act(rig, "drop", mine.cache_info.entry_id, **bearer("beta-token"))).json == {"dropped": True}


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example:9464"},
        {"host": ""},
        {"host": "[::1"},
        {"x_forwarded_for": "203.0.113.7"},
        {"forwarded": "for=203.0.113.7"},
        {"via": "1.1 proxy"},
    ],
)
async def test_who_is_not_surely_on_this_machine_gets_no_page(served: Rig, headers: dict[str, str]) -> None:
    for path in ("/", "/page.js", "/status.json"):
        answer = await ask(served, path, **headers)
        assert (answer.status, b"rights" in answer.body) == (403, False)
    assert (await act(served, "drop", "e" + 64 * "0", **headers)).status == 403
    assert (await ask(served, "/metrics", **headers)).status == 200


async def test_a_page_for_all_has_no_rights_for_those_behind_a_proxy(tmp_path: Path) -> None:
    async with gateway(tmp_path, status={"page": "all"}) as rig:
        proxied = {"host": "status.example", "x_forwarded_for": "203.0.113.7"}
        assert (await ask(rig, "/", **proxied)).status == 200
        assert (await status(rig, **proxied))["rights"] is None
        assert (await act(rig, "drop", "e" + 64 * "0", **proxied)).status == 401
        assert (await status(rig))["rights"]["tenant"] == "default"


async def test_the_page_can_be_turned_off(tmp_path: Path) -> None:
    async with gateway(tmp_path, status={"page": "off"}) as rig:
        for path in ("/", "/page.js", "/status.json"):
            assert (await ask(rig, path)).status == 404
        assert (await act(rig, "drop", "e" + 64 * "0")).status == 405
        assert (await ask(rig, "/healthz")).status == 200


# ------------------------------------------------------------------------------------------------- what can be done


async def test_an_answer_is_heard_as_it_is_stored(rig: Rig) -> None:
    kinds = {"LINEAR16": "WAV", "WAV": "WAV", "MULAW": "WAV", "FLAC": "FLAC", "OGG_OPUS": "OGG"}
    for encoding, kind in kinds.items():
        answer = await rig.speech.Synthesize(say(audio_config={"audio_encoding": encoding}))
        heard = await act(rig, "hear", answer.cache_info.entry_id)
        assert heard.headers["content-type"] == f"audio/{kind.lower()}"
        sound = soundfile.info(io.BytesIO(heard.body))
        assert (sound.format, sound.samplerate) == (kind, answer.audio_config.sample_rate_hertz)
        assert sound.subtype == ("OPUS" if encoding == "OGG_OPUS" else "PCM_16")
        assert sound.duration == pytest.approx(1.0, abs=0.01)
    assert (await status(rig))["totals"]["hits"] == 0, "listening is no hit"


async def test_a_streamed_answer_is_heard_at_the_rate_it_was_asked_for(rig: Rig) -> None:
    config = {"audio_config": {"audio_encoding": "MULAW", "sample_rate_hertz": 16_000}}
    requests = [{"streaming_config": config}, {"input": {"text": "Hello there."}}]
    stream = rig.speech.StreamingSynthesize(iter([speech_pb2.StreamingSynthesizeRequest(**one) for one in requests]))
    last = [message async for message in stream][-1]
    heard = await act(rig, "hear", last.cache_info.entry_id)
    assert heard.status == 200
    samples, rate = soundfile.read(io.BytesIO(heard.body))
    assert (rate, len(samples)) == (16_000, 16_000)
    assert np.abs(samples).max() > 0.01


def test_what_holds_no_sound_gives_none() -> None:
    transcript = speech_pb2.RecognizeResponse(results=[{"alternatives": [{"transcript": "hello"}]}])
    embedding = speech_pb2.EmbedVoiceResponse(embedding={"values": [1.0] * 8}, nearest_voice={"name": "anna"})
    for message in (transcript, embedding):
        assert sound_of((message.SerializeToString(),)) is None
    assert sound_of((b"\xff\xff",)) is None
    assert sound_of((speech_pb2.StreamingSynthesizeResponse(audio_content=b"12").SerializeToString(),)) is None


@pytest.mark.parametrize("shown", [False, True])
async def test_words_are_shown_where_the_operator_allows_it(tmp_path: Path, shown: bool) -> None:
    async with gateway(tmp_path, status={"show_text": shown}) as rig:
        for _ in range(2):
            heard = await rig.speech.Recognize(hear(noise()))
            await rig.speech.Synthesize(say("A phrase."))
        answer = await act(rig, "hear", heard.cache_info.entry_id)
        words = heard.results[0].alternatives[0].transcript
        texts = {one["task"]: one["text"] for one in (await status(rig))["entries"]}
        if shown:
            assert answer.json == {"text": words}
            assert texts == {"recognize": words, "synthesize": "A phrase."}
        else:
            assert answer.status == 404
            assert "status.show_text" in answer.json["error"]
            assert texts == {"recognize": "", "synthesize": ""}


async def test_a_dropped_entry_is_computed_again(rig: Rig) -> None:
    entry_id = (await rig.speech.Synthesize(say())).cache_info.entry_id
    assert (await act(rig, "drop", entry_id)).json == {"dropped": True}
    assert (await act(rig, "drop", entry_id)).json == {"dropped": False}
    assert (await rig.speech.Synthesize(say())).cache_info.status == Status.MISS


async def test_an_entry_is_pinned_and_let_go(rig: Rig) -> None:
    for _ in range(2):
        entry_id = (await rig.speech.Synthesize(say())).cache_info.entry_id
    for action, pinned in (("pin", True), ("pin", True), ("unpin", False)):
        assert (await act(rig, action, entry_id)).json == {"pinned": pinned}
        assert [one["pinned"] for one in (await status(rig))["entries"]] == [pinned]
    await act(rig, "pin", entry_id)
    assert (await act(rig, "drop", entry_id)).json == {"dropped": True}
    assert (await act(rig, "pin", entry_id)).status == 404
    await act(rig, "unpin", entry_id)  # the pin goes with its entry, if perhaps not yet
    assert (await act(rig, "unpin", entry_id)).status == 404


async def test_a_pin_outlives_the_gateway(tmp_path: Path) -> None:
    """And its entry comes up from Redis by itself."""
    async with gateway(tmp_path) as rig:
        entry_id = (await rig.speech.Synthesize(say())).cache_info.entry_id
        assert (await act(rig, "pin", entry_id)).json == {"pinned": True}
    async with gateway(tmp_path) as rig:
        key = entry_key("default", entry_id)
        await until(lambda: rig.running.cache.device.is_pinned(key))


async def test_pins_have_room_and_are_not_offered_where_the_policy_has_none(tmp_path: Path) -> None:
    async with gateway(tmp_path / "small", device={"size": 100_000}) as rig:
        entry_id = (await rig.speech.Synthesize(say())).cache_info.entry_id
        refused = await act(rig, "pin", entry_id)
        assert refused.status == 400
        assert "pinned keys take 0 bytes" in refused.json["error"]
    async with gateway(tmp_path / "plain", device={"policy": "lru"}) as rig:
        assert (await status(rig))["rights"]["actions"] == ["hear", "drop", "report"]
        assert (await act(rig, "pin", entry_id)).status == 405


async def test_a_wrong_fuzzy_answer_is_reported_once(rig: Rig) -> None:
    values = list((await rig.speech.EmbedVoice(anna_like())).embedding.values)
    for _ in range(2):
        near = await rig.speech.Synthesize(say(voice={"embedding": {"values": values}}, cache_control=FUZZY))
    assert near.cache_info.status == Status.HIT_FUZZY
    (latest,) = (await status(rig))["fuzzy"]
    assert (latest["id"], latest["task"], latest["tier"]) == (near.cache_info.entry_id, "synthesize", "device")
    assert latest["similarity"] == pytest.approx(near.cache_info.similarity)
    assert (await act(rig, "report", near.cache_info.entry_id)).json == {"quarantined": True}
    assert (await act(rig, "report", near.cache_info.entry_id)).json == {"quarantined": False}
    told = await status(rig)
    books = {book["what"]: book["wrong"] for book in told["audits"]}
    assert books["voices and moods"] == 1
    worst = told["pairs"][0]
    assert (worst["id"], worst["kind"], worst["verdict"]) == (near.cache_info.entry_id, "voice and mood", "wrong")
    (pair, *_) = (await rig.admin.ListAuditedPairs(cache_pb2.ListAuditedPairsRequest())).pairs
    assert (pair.entry_id, pair.verdict, pair.kind) == (worst["id"], pair.WRONG, pair.VOICE_AND_MOOD)
    assert pair.entry_id[1:65] == pair.asked + pair.recalled
    exact = (await rig.speech.Synthesize(say())).cache_info.entry_id
    refused = await act(rig, "report", exact)
    assert refused.status == 400
    assert "drop it" in refused.json["error"]


# --------------------------------------------------------------------------------------------------------- bad input


FOREIGN = (
    {"content_type": "text/plain"},
    {"content_type": ""},
    {"content_type": "application/x-www-form-urlencoded"},
    {"origin": "https://elsewhere.example"},
    {"origin": "null"},
    {"origin": "http://localhost"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
)


async def test_another_sites_page_can_do_nothing(rig: Rig) -> None:
    entry_id = (await rig.speech.Synthesize(say())).cache_info.entry_id
    for headers in FOREIGN:
        assert (await act(rig, "drop", entry_id, **headers)).status == 403, headers
    assert (await rig.speech.Synthesize(say())).cache_info.status == Status.HIT_EXACT


async def test_its_own_page_can(rig: Rig) -> None:
    entry_id = (await rig.speech.Synthesize(say())).cache_info.entry_id
    own = f"http://localhost:{rig.running.http_port}"
    done = await act(rig, "drop", entry_id, origin=own, sec_fetch_site="same-origin")
    assert done.json == {"dropped": True}
    assert not {"access-control-allow-origin"} & done.headers.keys()


@pytest.mark.parametrize(
    "body",
    [b"", b"nothing", b"[]", b"{}", b'{"entry_id": 3}', b'{"entry_id": ""}', b"[" * 4000, b"\xff" * 10,
     b'{"entry_id": "e12"}', b'{"entry_id": "f' + b"0" * 80 + b'"}', b'{"entry_id": "\xc3\xa9"}'],
)  # fmt: skip
@pytest.mark.parametrize("action", ["hear", "drop", "report"])
async def test_a_body_that_names_no_entry_is_refused_by_field(served: Rig, action: str, body: bytes) -> None:
    answer = await ask(served, f"/status/{action}", "POST", body)
    assert answer.status == 400
    assert answer.json["error"].startswith("entry_id is ")


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("POST /status/drop HTTP/1.1\r\nContent-Length: 4097\r\n", 413),
        ("POST /status/drop HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n", 411),
        ("POST /status/drop HTTP/1.1\r\nContent-Length: -1\r\n", 411),
        ("POST /status/drop HTTP/1.1\r\nContent-Length: \u0663\r\n", 411),
        ("POST /status/drop HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n", 411),
        ("POST /status/drop HTTP/1.1\r\n", 411),
        ("POST /status/drop HTTP/1.1\r\nContent-Length: 9\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 0\r\n", 405),
        ("POST /status/other HTTP/1.1\r\nContent-Length: 0\r\n", 405),
        ("GET /status/drop HTTP/1.1\r\n", 405),
        ("OPTIONS /status/drop HTTP/1.1\r\n", 405),
        ("GET /../settings.py HTTP/1.1\r\nHost: localhost\r\n", 404),
        ("GET /page/page.js HTTP/1.1\r\nHost: localhost\r\n", 404),
    ],
)
async def test_bad_requests_get_a_status_and_harm_nobody(served: Rig, head: str, code: int) -> None:
    assert (await send(served, f"{head}\r\n".encode(), end=True)).status == code
    assert (await ask(served, "/healthz")).status == 200


async def test_a_body_that_never_comes_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_REQUEST_S", 0.05)
    assert (await send(rig, b"POST /status/drop HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")).status == 408


async def test_the_page_allows_nothing_but_itself(served: Rig) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        answer = await ask(served, path)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert b"http://" not in answer.body.replace(b"http://www.w3.org/", b"")
        assert b"https://" not in answer.body
        assert (await ask(served, path, "HEAD")).body == b""
    assert b"<script>" not in (await ask(served, "/")).body
    assert b"style=" not in (await ask(served, "/")).body


async def test_while_redis_is_down_the_page_says_so_and_a_drop_is_not_certain(
    tmp_path: Path, redis_server: Server
) -> None:
    async with gateway(tmp_path, redis={"url": redis_server.url}) as rig:
        entry_id = (await rig.speech.Synthesize(say())).cache_info.entry_id
        redis_server.kill()
        assert (await act(rig, "drop", entry_id)).status == 503
        told = (await status(rig))["redis"]
        assert (told["private"], told["failures"] > 0) == (False, True)
        redis_server.run()


# ----------------------------------------------------------------------------------------------------------- the parts


def test_a_pulse_counts_seconds_and_forgets_none() -> None:
    now = [0.0]
    observer = Observer()
    pulse = Pulse(observer, clock=lambda: now[0])

    def second(*outcomes: Outcome) -> Any:
        for outcome in outcomes:
            observer.record(outcome)
        now[0] += 1.0
        return pulse.beat()

    def answered(kind: int, latency_s: float, tenant: str = "a") -> Outcome:
        return Outcome("vocode", tenant, kind, "device" if kind == HIT_EXACT else "", latency_s, bytes_in=1)

    assert second() == (0.0, None, None)
    beat = second(answered(HIT_EXACT, 0.001), answered(MISS, 0.5), answered(HIT_EXACT, 0.001, "b"))
    assert (beat.rate, beat.hit_rate) == (1.5, pytest.approx(2 / 3))
    assert beat.p99_s == pytest.approx(0.5, rel=0.12)
    observer.record(answered(COALESCED, 0.2))
    pulse.look()
    assert sum(sum(source.latency) for source in pulse.sources.values()) == 4
    assert sum(pulse.sources["vocode", HIT_EXACT, "device"].latency) == 2
    assert second().rate == pytest.approx(4 / 3)
    for _ in range(WINDOW):
        last = second()
    assert last == (0.0, None, None)


def tier_of(keys: list[CacheKey]) -> DeviceTier:
    tier = DeviceTier(HostMemory(1 << 20), LruPolicy(1 << 20), clock=lambda: 0.0)
    for key in keys:
        assert tier.store(key, Entry((b"x",), 1.0, 0.0))
    return tier


def hit(tier: DeviceTier, key: CacheKey, times: int) -> None:
    for _ in range(times):
        lease = tier.lookup(key)
        assert lease is not None
        lease.release()


def test_leaders_are_found_whether_they_were_hit_lately_or_led_before() -> None:
    keys = [CacheKey(tenant, bytes([n])) for tenant in "ab" for n in range(KEPT + 10)]
    tier = tier_of(keys)
    leaders = Leaders(tier)
    assert leaders.of("a", 3) == []
    for n, key in enumerate(keys):
        hit(tier, key, n % (KEPT + 10))
    best = [key for key in reversed(keys) if key.tenant == "a"]
    assert leaders.of("a", 3) == best[:3]
    leaders.note(tier.resident_keys(1000))
    assert tier.recently_hit(10) == []
    assert leaders.of("a", 3) == best[:3]
    hit(tier, best[20], 100)
    assert leaders.of("a", 3) == [best[20], *best[:2]]
    tier.drop(best[0])
    leaders.note(tier.resident_keys(1000))
    assert leaders.of("a", 3) == [best[20], *best[1:3]]
    tier.drop_where(lambda key: key.tenant == "a")
    leaders.note([])
    assert leaders.of("a", 3) == []
    assert len(leaders.of("b", 100)) == KEPT


def test_phrases_are_kept_where_allowed_and_go_with_their_entries() -> None:
    key, other = CacheKey("a", b"1"), CacheKey("a", b"2")
    for allowed in (False, True):
        notes = Notes(phrases=allowed)
        notes.spoken(key, "Grüße".encode())
        assert notes.phrase_of(key, lambda key: True) == ("Grüße" if allowed else "")
        assert notes.phrase_of(key, lambda key: False) == ""
        notes.forget_all_but(lambda key: key == other)
        assert notes.phrase_of(key, lambda key: True) == ""


def test_fuzzy_answers_are_remembered_by_tenant_the_latest_first() -> None:
    notes = Notes(phrases=False)
    for n in range(KEPT_FUZZY + 10):
        notes.fuzzy(f"f{n}", Fuzzy("ab"[n % 2], "recognize", 0.9, "device", float(n)))
    notes.fuzzy("f200", Fuzzy("a", "recognize", 0.9, "redis", 1000.0))
    assert [entry_id for entry_id, _ in notes.fuzzy_of("a", 3)] == ["f200", "f264", "f262"]
    assert [entry_id for entry_id, _ in notes.fuzzy_of("b", 1)] == ["f265"]
    assert notes.fuzzy_of("c", 9) == []
    assert len(notes.fuzzy_of("a", 1000)) + len(notes.fuzzy_of("b", 1000)) == KEPT_FUZZY


def test_the_encoding_of_a_stream_is_remembered() -> None:
    notes, key, other = Notes(phrases=False), CacheKey("a", b"1"), CacheKey("a", b"2")
    notes.streamed(key, Output(Encoding.MULAW, 8_000))
    assert notes.format_of(key) == Output(Encoding.MULAW, 8_000)
    assert notes.format_of(other) is None
