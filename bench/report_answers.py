"""The report's sections on what became of requests: by task, source, hour, reason, voice and language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bench import replay_quality as quality
from bench import report_plots as plots
from bench.report_parts import Document, Part, Plot, Table, number, share
from gateway.stats import human_seconds

_QUANTILES: Final = ("p50", "p95", "p99", "max")
_COUNTED: Final = ("requests", "hits_exact", "hits_fuzzy", "coalesced", "misses", "bypassed")


def answers(told: Document) -> Iterator[Part]:
    total = told["total"]
    if total["unrecorded"] == total["requests"]:
        yield "The trace holds no outcomes; what follows is what a cache could do with its requests."
        return
    rows = told["tasks"] | ({"all": total} if len(told["tasks"]) > 1 else {})
    yield Table(
        ("task", "requests", "exact hits", "fuzzy hits", "coalesced", "misses", "bypassed", "hits", "of bytes",
         "of compute"),
        [
            [name, *(number(row[key]) for key in _COUNTED),
             share(row["hit_rate"]), share(row["byte_hit_rate"]), share(row["compute_hit_rate"])]
            for name, row in rows.items()
        ],
        "Hits as a share of requests, of bytes in and out, and of compute",
    )  # fmt: skip
    warmth = told.get("cold_and_warm")
    if warmth:
        names = {"cold": "first of its key in the trace", "warm": "come again"}
        yield Table(
            ("requests that", "requests", "hits", "coalesced", "hit rate", "of compute"),
            [
                [names[name], number(row["requests"]), number(row["hits"]), number(row["coalesced"]),
                 share(row["hit_rate"]), share(row["compute_hit_rate"])]
                for name, row in warmth.items()
            ],
            "Cold and warm",
        )  # fmt: skip
    yield from _sources(told["sources"], total["requests"])
    rate = told.get("rate")
    if rate and rate["span_s"]:
        busiest = plots.span_name(rate["busiest_of_s"])
        yield (
            f"{_per_second(rate['mean_per_s'])} requests a second over {human_seconds(rate['span_s'])}; "
            f"{_per_second(rate['busiest_per_s'])} in the busiest {busiest}."
        )


def _per_second(rate: float) -> str:
    return number(rate) if rate >= 100 else f"{rate:.3g}"


def _sources(rows: Sequence[Mapping[str, Any]], requests: int) -> Iterator[Part]:
    quantiles = [name for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms") if name in rows[0]] if rows else []
    yield Table(
        ("answered by", "requests", "share", "spent", "saved", *(name.removesuffix("_ms") for name in quantiles)),
        [
            [source_name(row), number(row["requests"]), share(row["requests"] / max(requests, 1)),
             human_seconds(row.get("compute_s", 0.0)), human_seconds(row.get("saved_s", 0.0)),
             *(human_seconds(row[name] / 1e3) for name in quantiles)]
            for row in rows
        ],
        "By source, with the time from request to the end of its answer",
    )  # fmt: skip
    if any(row.get("p99_ms") for row in rows):
        yield Plot(plots.latency(rows), "Time to answer, by source")


def source_name(row: Mapping[str, Any]) -> str:
    words = {"HIT_EXACT": "exact hit", "HIT_FUZZY": "fuzzy hit", "STATUS_UNSPECIFIED": "not recorded"}
    status = words.get(row["status"], row["status"].lower())
    return " ".join(filter(None, (row["task"], status, row["tier"] and f"({row['tier']})")))


def over_time(told: Document) -> Iterator[Part]:
    hours = told.get("hours")
    if not hours or len(hours["rows"]) < 2:
        return
    yield Plot(plots.requests_by_hour(hours), "Requests over time")
    if told["total"]["unrecorded"] < told["total"]["requests"]:
        yield Plot(plots.rates_by_hour(hours), "Hit rate over time")


def misses(told: Document) -> Iterator[Part]:
    if not told.get("misses"):
        return
    requests, misses = told["total"]["requests"], max(1, told["total"]["misses"])
    yield Table(
        ("reason", "what it means", "misses", "of misses", "of requests", "compute"),
        [
            [row["reason"], row["meaning"], number(row["requests"]), share(row["requests"] / misses),
             share(row["requests"] / requests), human_seconds(row["compute_s"])]
            for row in told["misses"]
        ],
        text_columns=2,
    )  # fmt: skip
    yield (
        f"Answers are taken to live {human_seconds(told['assumed']['ttl_s'])}. What a trace cannot know: what "
        "was stored before it begins, and whether something was erased or dropped by hand."
    )


def names(told: Document) -> Iterator[Part]:
    named = told.get("languages_named")
    if named:
        yield Table(
            ("task, language", "requests", "exact hits", "fuzzy hits", "hit rate"),
            [
                [f"{row['task']}, {row['language']}", number(row["requests"]), number(row["hits_exact"]),
                 number(row["hits_fuzzy"]), share((row["hits_exact"] + row["hits_fuzzy"]) / max(row["requests"], 1))]
                for row in named
            ],
        )  # fmt: skip
    for field, title in (("voices", "voice"), ("languages", "language"), ("engines_seen", "model")):
        rows = told.get(field) or []
        if not rows or all(row["name"] == "none" for row in rows):
            continue
        yield Table(
            (title, "requests", "exact hits", "fuzzy hits", "misses", "hit rate"),
            [
                [row["name"], *(number(row[key]) for key in ("requests", "hits_exact", "hits_fuzzy", "misses")),
                 share(row["hit_rate"])]
                for row in rows
            ],
        )  # fmt: skip
    if told.get("voices") or told.get("languages"):
        yield (
            "Names are hashed in a trace. Which hits were wrong is judged by language, and by voice where a voice or "
            "mood by likeness was asked for (see the audits): a recording does not say who speaks, and hits that "
            "name their voice are exact."
        )


def replayed(told: Document) -> Iterator[Part]:
    found = told.get("replay")
    if not found:
        return
    yield (
        f"{number(found['requests'])} requests over {human_seconds(found['span_s'])}: offered "
        f"{found['offered_per_s']:,.1f} a second, "
        f"achieved {found['achieved_per_s']:,.1f}; {number(found['errors'])} errors. Times count from when a "
        "request was due. "
        f"The sender was itself late by {human_seconds(found['late']['p50_ms'] / 1e3)} at the median and "
        f"{human_seconds(found['late']['p99_ms'] / 1e3)} at the 99th percentile; the times between its requests were "
        f"off by {human_seconds(found['gaps']['p50_ms'] / 1e3)} and {human_seconds(found['gaps']['p99_ms'] / 1e3)}."
    )
    if "trace" in told or "gateway" in told:  # else they have been shown
        yield from _sources(found["sources"], found["requests"])
    if found["sender_is_the_limit"]:
        yield found["sender_is_the_limit"]
    for trait in ("kind", "voice", "mood"):
        rows = found[f"{trait}s"]
        if len(rows) > 1 or any(row["fuzzy_judged"] for row in rows):
            columns = (trait, *quality.KIND_COLUMNS[1:])
            title = f"By {trait} of what was sent; the last column is the upper 95 % bound of wrong fuzzy answers"
            yield Table(columns, list(quality.kind_rows(rows, trait)), title)
    yield from _controlled(found.get("control"))


def _controlled(control: Mapping[str, Any] | None) -> Iterator[Part]:
    if not control:
        return
    yield quality.control_says(control)
    yield Table(
        quality.CONTROL_COLUMNS, list(quality.control_rows(control)),
        "The same requests with the cache and past it: mean time from when each was due, how the answers compared "
        f"(near: log-mels within {control['near_db']:g} dB), and the upper 95 % bound of different ones", 2,
    )  # fmt: skip
    yield Table(
        ("sent past the cache", "answered", "requests", *_QUANTILES),
        [
            [row["task"], row["status"] if not row["tier"] else f"{row['status']} {row['tier']}",
             number(row["requests"]), *(human_seconds(row[f"{name}_ms"] / 1e3) for name in _QUANTILES)]
            for row in control["sources"]
        ],
        "", 2,
    )  # fmt: skip
    if control["unequal"]:
        yield Table(
            quality.UNEQUAL_COLUMNS, list(quality.unequal_rows(control)),
            "Answers that were not the same, the worst first, by the digest that the trace has", 5,
        )  # fmt: skip
