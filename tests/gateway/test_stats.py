"""Reports add up, in the table and in the JSON, and say nothing they do not know."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from gateway.stats import (
    BYPASS,
    COALESCED,
    HIT_EXACT,
    HIT_FUZZY,
    MISS,
    AuditCount,
    LanguageAudits,
    LanguageCount,
    OutcomeCount,
    Stats,
    TierCount,
    as_json,
    as_table,
    audit_line,
    human_bytes,
    human_seconds,
)  # fmt: skip

STATS = Stats(
    outcomes=[
        OutcomeCount("synthesize", HIT_EXACT, "device", 60, 6_000, 0.0, 9.0, 0.0004, 0.002),
        OutcomeCount("synthesize", HIT_EXACT, "redis", 20, 2_000, 0.0, 3.0, 0.002, 0.005),
        OutcomeCount("synthesize", MISS, "", 15, 1_500, 2.0, 0.0, 0.15, 0.4),
        OutcomeCount("synthesize", COALESCED, "", 3, 300, 0.0, 0.5, 0.1, 0.2),
        OutcomeCount("recognize", HIT_FUZZY, "device", 1, 100, 0.0, 0.1, 0.004, 0.004),
        OutcomeCount("recognize", BYPASS, "", 1, 100, 0.4, 0.0, 0.2, 0.2),
    ],
    tiers=[TierCount("device", 10, 1 << 20, 4 << 20, 5, 0), TierCount("redis", 12, 3_000_000, 0, 0, 2)],
    audits=AuditCount(200, 1, 3, 0.0234, 0.05, True),
    uptime_s=3600.0,
    failed=7,
)


def shown(stats: Stats, price: float = 0.0) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(as_table(stats, price_per_gpu_hour=price))
    return out.getvalue()


def test_the_total_adds_up() -> None:
    total = STATS.total
    assert total.requests == 100 == total.hits + total.misses + total.coalesced + total.bypassed
    assert (total.hit_rate, total.byte_hit_rate) == (0.81, 0.81)
    assert total.compute_hit_rate == pytest.approx(12.6 / 15.0)
    assert {task: tally.requests for task, tally in STATS.by_task().items()} == {"recognize": 2, "synthesize": 98}


def test_languages_are_told_where_there_are_several() -> None:
    english, arabic = LanguageCount("recognize", "en-US", 9, 3, 2), LanguageCount("recognize", "ar-EG", 5, 1, 1)
    audits = [LanguageAudits("en-US", 40, 1, 2, 0.123)]
    assert "By language" not in shown(replace(STATS, languages=[english], audits_by_language=audits))
    stats = replace(STATS, languages=[english, arabic], audits_by_language=audits)
    row = next(line for line in shown(stats).splitlines() if "en-US" in line)
    assert row.split() == ["recognize,", "en-US", "9", "3", "2", "40", "1", "12.30", "%"]
    document = as_json(stats)
    assert document["languages"][1] == {**asdict(arabic)}
    assert document["audits_by_language"][0]["wrong_upper_bound"] == 0.123


def test_the_line_on_audits_says_what_is_held_back_and_why() -> None:
    proving = AuditCount(200, 0, 3, 0.0134, 0.005, False, 0.06, from_similarity=1.01, withheld=150)
    assert "fuzzy answers are not served, 150 were held back" in audit_line(proving)
    assert "(95 % bound, limit 0.50 %; 6.00 % were all undecided ones wrong)" in audit_line(proving)
    shadow = AuditCount(9, 0, 0, 0.3, 0.005, False, 0.3, shadow=True, would_serve=4)
    assert "(shadow mode: 4 would have been)" in audit_line(shadow)
    assert "from a similarity of 0.6" in audit_line(replace(proving, serving=True, from_similarity=0.6))


def test_the_table_says_so_in_words() -> None:
    text = shown(STATS)
    assert "100 requests in 60.0 min = 81 hits + 15 misses + 3 coalesced + 1 bypassed; 7 more failed." in text
    assert "HIT_EXACT from redis" in text
    assert "25.0 %" in text  # of the device tier is full
    assert "not bounded" in text
    assert "1 wrong of 200 judged (3 undecided); at most 2.34 % of fuzzy hits are wrong" in " ".join(text.split())
    assert "GPU hour" not in text
    assert "At 2.5 per GPU hour that is 0.0088" in shown(STATS, 2.5)


def test_the_table_fits_into_a_pipe() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(as_table(STATS))
    assert "…" not in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_json_holds_the_same() -> None:
    document = json.loads(json.dumps(as_json(STATS, price_per_gpu_hour=2.0)))
    assert document["total"]["requests"] == 100
    assert document["total"]["hit_rate"] == 0.81
    assert document["tasks"]["recognize"]["hits_fuzzy"] == 1
    assert document["outcomes"][0]["status"] == "HIT_EXACT"
    assert document["saved_money"] == pytest.approx(12.6 / 3600 * 2)
    assert "saved_money" not in as_json(STATS)


def test_nothing_seen_is_nothing_claimed() -> None:
    assert "No request has been answered yet" in shown(Stats())
    assert as_json(Stats())["total"]["hit_rate"] == 0.0
    assert audit_line(AuditCount()) == "Audits: none yet; fuzzy answers are not served."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (0.0000123, "12.3 µs"), (0.0012, "1.20 ms"), (0.143, "143 ms"), (12, "12.0 s"), (754, "12.6 min"),
     (10_000, "2.78 h"), (1e6, "11.6 d")],
)  # fmt: skip
def test_times_for_people(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (5 << 40, "5.00 TiB")])
def test_sizes_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text
