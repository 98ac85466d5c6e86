"""The document as sections that people read, in their order. HTML, Markdown and the terminal show the same."""

from __future__ import annotations

from collections.abc import Iterator

from bench.report_answers import answers, misses, names, over_time, replayed
from bench.report_grounds import provenance, sums
from bench.report_parts import Document, Part, Points, Section, Tile, duration, number, share
from bench.report_worth import drift, fuzzy, memory, restart, savings


def tiles(told: Document) -> list[Tile]:
    total, savings = told["total"], told["savings"]
    found = [Tile(number(total["requests"]), "requests")]
    if total["unrecorded"] < total["requests"]:
        found += [
            Tile(share(total["hit_rate"]), "of requests answered from memory"),
            Tile(share(total["byte_hit_rate"]), "of bytes"),
            Tile(share(total["compute_hit_rate"]), "of compute not spent"),
            Tile(duration(savings["net_s"]), "of compute saved, net"),
        ]
        if savings["price_per_gpu_hour"]:
            found.append(Tile(f"{savings['money']:,.2f}", f"saved at {savings['price_per_gpu_hour']:g} a GPU hour"))
    if "curve" in told:
        found.append(Tile(share(told["curve"]["ceiling"]["requests"]), "an endless cache could answer by exact keys"))
    audits = told.get("audits", {}).get("recordings")
    if audits and audits["wrong_upper_bound"] < 1:
        found.append(Tile(f"≤ {share(audits['wrong_upper_bound'], 2)}", "of fuzzy hits wrong (95 %)"))
    return found


def sections(told: Document) -> list[Section]:
    """Those that there is something to say in."""
    made = (
        Section("What to do next", list(_next(told))),
        Section("Over time", list(over_time(told))),
        Section("Where answers came from", list(answers(told))),
        Section("Why answers were not in memory", list(misses(told))),
        Section("What more memory would bring", list(memory(told))),
        Section("After a restart", list(restart(told))),
        Section("Fuzzy answers and their audits", list(fuzzy(told))),
        Section("What it saved", list(savings(told))),
        Section("By voice, language and model", list(names(told))),
        Section("Drift", list(drift(told))),
        Section("As clients saw it", list(replayed(told))),
        Section("Sums", list(sums(told))),
        Section("Where this comes from", list(provenance(told))),
    )
    return [section for section in made if section.parts]


def _next(told: Document) -> Iterator[Part]:
    if told["advice"]:
        yield Points(told["advice"])
