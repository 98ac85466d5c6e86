"""The HTTP port answers Prometheus and orchestrators, and survives everyone else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from gateway.http import HttpServer
from gateway.metrics import MetricsPage
from gateway.observe import EngineReading, Observer, Outcome, TierReading
from gateway.stats import COALESCED, HIT_EXACT, MISS, AuditCount, LanguageAudits


def samples(page: MetricsPage) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by name and sorted label values."""
    body, _ = page.render()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_every_series_is_there_at_zero() -> None:
    found = samples(MetricsPage(Observer()))
    for task in ("recognize", "synthesize", "vocode"):
        for status, tier in (("hit_exact", "device"), ("hit_fuzzy", "redis"), ("miss", ""), ("bypass", "")):
            assert found["refrain_requests_total", (status, task, tier)] == 0
            assert found["refrain_request_duration_seconds_count", (status, task, tier)] == 0
        assert found["refrain_failed_requests_total", ("INTERNAL", task)] == 0
    assert found["refrain_tier_evictions_total", ("capacity", "redis")] == 0
    assert found["refrain_fuzzy_audits_total", ("wrong",)] == 0
    assert found["refrain_rejected_stores_total", ("empty",)] == 0
    assert found["refrain_model_reloads_total", ("refused",)] == 0
    assert found["refrain_bloom_false_negatives_total", ()] == 0


def test_outcomes_of_all_tenants_are_summed_and_no_tenant_is_named() -> None:
    observer = Observer(wall=lambda: 1000.0)
    for tenant in ("acme", "beta"):
        observer.record(
            Outcome("recognize", tenant, HIT_EXACT, "device", 0.002, 0.001, 10, 20, 0.0, 500.0, 1.0, voice="amy")
        )
    observer.record(Outcome("recognize", "acme", MISS, "", 0.3, bytes_in=10, bytes_out=20, compute_ms=250.0))
    observer.failed("recognize", "OUT_OF_RANGE", "acme")
    page = MetricsPage(observer, version="1.2")
    found = samples(page)
    place = ("hit_exact", "recognize", "device")
    assert found["refrain_requests_total", place] == 2
    assert found["refrain_response_bytes_total", place] == 40
    assert found["refrain_saved_compute_seconds_total", place] == 1.0
    assert found["refrain_compute_seconds_total", ("miss", "recognize", "")] == 0.25
    assert found["refrain_failed_requests_total", ("OUT_OF_RANGE", "recognize")] == 1
    assert found["refrain_lookup_duration_seconds_count", ("recognize", "device")] == 2
    assert found["refrain_first_response_seconds_count", ("hit_exact", "recognize")] == 2
    assert found["refrain_start_time_seconds", ()] == 1000.0
    assert any(name == "refrain_build_info" and "1.2" in labels for name, labels in found)
    text = page.render()[0].decode()
    assert "acme" not in text
    assert "amy" not in text


def test_engines_are_told_apart_by_version_for_as_long_as_they_serve() -> None:
    observer = Observer()
    serving = [EngineReading("vocode", "ab" * 32, "tiny@1", 0.95), EngineReading("vocode", "cd" * 32, "tiny@2", 0.05)]
    observer.watch_engines(lambda: serving)
    observer.record(Outcome("vocode", "acme", HIT_EXACT, "device", 0.002, engine="ab" * 32))
    observer.record(Outcome("vocode", "acme", MISS, "", 0.3, compute_ms=250.0, engine="cd" * 32))
    observer.engine_failed("cd" * 32)
    page = MetricsPage(observer)
    found = samples(page)
    active, canary = ("abababababab", "tiny@1", "vocode"), ("cdcdcdcdcdcd", "tiny@2", "vocode")
    for name, value in (("answers_total", 1), ("failures_total", 0), ("compute_seconds_count", 0), ("share", 0.95)):
        assert found[f"refrain_engine_{name}", active] == value
    for name, value in (("answers_total", 1), ("failures_total", 1), ("compute_seconds_sum", 0.25), ("share", 0.05)):
        assert found[f"refrain_engine_{name}", canary] == value
    serving.pop()
    assert ("refrain_engine_failures_total", canary) not in samples(page)


def test_histogram_buckets_are_cumulative_and_end_in_the_count() -> None:
    observer = Observer()
    for latency_s in (0.0001, 0.0002, 0.001, 0.0011, 500.0):
        observer.record(Outcome("vocode", "default", COALESCED, "", latency_s))
    page, _ = MetricsPage(observer).render()
    buckets = {
        sample.labels["le"]: sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.name == "refrain_request_duration_seconds_bucket"
        and (sample.labels["task"], sample.labels["status"]) == ("vocode", "coalesced")
    }
    assert (buckets["0.0001"], buckets["0.00025"], buckets["0.001"], buckets["0.0025"]) == (1, 2, 3, 4)
    assert (buckets["100"], buckets["+Inf"]) == (4, 5)
    assert list(buckets.values()) == sorted(buckets.values())


def test_what_others_own_is_read_when_asked() -> None:
    observer = Observer()
    observer.watch_tier("device", lambda: TierReading(3, 900, 1000, {"capacity": 7, "tag": 2}, 1, True))
    audits = AuditCount(100, 2, 5, 0.04, 0.05, True, 0.09, from_similarity=0.6, alarms=3, would_serve=1, withheld=9)
    observer.watch_audits(lambda: audits, lambda: [LanguageAudits("en-US", 10, 1, 2, 0.3)])
    observer.record(Outcome("recognize", "default", HIT_EXACT, "device", language="en-US"))
    observer.record(Outcome("recognize", "default", COALESCED, language="en-US"))
    observer.watch("flights", lambda: 4)
    observer.watch("rejected_stores", lambda: {"erased": 6})
    observer.watch("bloom_false_negatives", lambda: 8)
    found = samples(MetricsPage(observer))
    assert found["refrain_tier_entries", ("device",)] == 3
    assert found["refrain_tier_breaker_open", ("device",)] == 1
    assert found["refrain_tier_evictions_total", ("tag", "device")] == 2  # labels in alphabetical order: reason, tier
    judged = {verdict: found["refrain_fuzzy_audits_total", (verdict,)] for verdict in ("right", "wrong", "undecided")}
    assert judged == {"right": 93, "wrong": 2, "undecided": 5}
    assert found["refrain_fuzzy_wrong_upper_bound", ()] == 0.04
    assert found["refrain_fuzzy_wrong_upper_bound_doubted", ()] == 0.09
    assert found["refrain_fuzzy_serving_from_similarity", ()] == 0.6
    assert found["refrain_fuzzy_alarms_total", ()] == 3
    assert [found["refrain_fuzzy_unserved_total", (why,)] for why in ("withheld", "shadow")] == [9, 1]
    statuses = ("hit_exact", "hit_fuzzy", "other")
    requests = {name: found["refrain_language_requests_total", ("en-US", name, "recognize")] for name in statuses}
    assert requests == {"hit_exact": 1, "hit_fuzzy": 0, "other": 1}
    judged = {name: found["refrain_language_fuzzy_audits_total", ("en-US", name)] for name in ("right", "wrong")}
    assert judged == {"right": 7, "wrong": 1}
    assert found["refrain_flights", ()] == 4
    assert found["refrain_rejected_stores_total", ("erased",)] == 6
    assert found["refrain_bloom_false_negatives_total", ()] == 8


def test_where_an_engine_really_runs_is_told() -> None:
    observer = Observer()
    observer.watch_engines(
        lambda: [EngineReading("vocode", "ab" * 32, "v@1", 1.0, name="singer", provider="CUDAExecutionProvider")]
    )
    found = samples(MetricsPage(observer))
    # Labels in alphabetical order: engine, model, provider, task.
    assert found["refrain_engine_info", ("abababababab", "singer", "CUDAExecutionProvider", "vocode")] == 1


def test_a_part_that_cannot_be_read_does_not_hide_the_others() -> None:
    observer = Observer()
    observer.watch_tier("redis", lambda: TierReading(entries=1 // 0))
    observer.watch("flights", lambda: 4)
    found = samples(MetricsPage(observer))
    assert (found["refrain_flights", ()], found["refrain_tier_entries", ("redis",)]) == (4, 0)
    assert found["refrain_scrape_errors_total", ()] == 1


def test_openmetrics_is_spoken_to_those_who_ask() -> None:
    body, content_type = MetricsPage(Observer()).render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


class Site:
    def __init__(self) -> None:
        self.ready = False
        about = ["vocode singer abababababab CPUExecutionProvider"]
        self.server = HttpServer(MetricsPage(Observer()).render, lambda: self.ready, lambda: about)
        self.port = 0

    async def send(self, data: bytes, *, end: bool = False) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer to raw bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        if end:
            writer.write_eof()
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), head, body

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes, bytes]:
        return await self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    site.port = await site.server.start(port=0)
    yield site
    await site.server.close()


async def test_liveness_and_readiness(site: Site) -> None:
    assert (await site.get("/healthz"))[0] == 200
    assert (await site.get("/readyz"))[0] == 503
    site.ready = True
    page = (await site.get("/readyz?verbose=1"))[2]
    assert page == b"serving\nvocode singer abababababab CPUExecutionProvider\n"
    assert (await site.get("/readyz?verbose=1"))[0] == 200


async def test_metrics_page(site: Site) -> None:
    status, head, body = await site.get("/metrics")
    assert status == 200
    assert b"text/plain; version=0.0.4" in head
    assert b"refrain_requests_total" in body
    status, head, body = await site.get("/metrics", "HEAD")
    assert (status, body) == (200, b"")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"\x16\x03\x01 hello\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nAccept: " + b"a" * 100_000 + b"\r\n\r\n", 431),
    ],
)
async def test_bad_requests_get_a_status_and_harm_nobody(site: Site, data: bytes, status: int) -> None:
    assert (await site.send(data))[0] == status
    assert (await site.get("/healthz"))[0] == 200


async def test_a_request_cut_short(site: Site) -> None:
    assert (await site.send(b"GET /healthz HT", end=True))[0] == 400


async def test_a_caller_that_never_asks_does_not_hold_up_the_end(site: Site) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    assert (await site.get("/healthz"))[0] == 200
    await site.server.close()
    writer.close()


async def test_a_page_that_fails_is_500() -> None:
    def broken(accept: str) -> tuple[bytes, str]:
        raise RuntimeError("no page")

    site = Site()
    site.server = HttpServer(broken, lambda: True)
    site.port = await site.server.start(port=0)
    assert (await site.get("/metrics"))[0] == 500
    await site.server.close()
