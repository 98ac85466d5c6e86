"""The report's sections on what memory is worth: sizes, restarts, fuzzy answers, money, drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from bench import report_plots as plots
from bench.report_parts import Document, Part, Plot, Table, duration, number, share, utc
from gateway.stats import AuditCount, audit_line, human_bytes, human_seconds

PAIRS: Final = 12
SHORT: Final = 12
"""Characters of a digest that are shown."""


def memory(told: Document) -> Iterator[Part]:
    curve = told.get("curve")
    if not curve:
        return
    keys = told["keys"]
    yield (
        f"{number(keys['distinct'])} distinct keys, {share(keys['once'])} of them asked for once; the ten commonest "
        f"are {share(keys['head_10'])} of requests, the hundred commonest {share(keys['head_100'])}"
        + (f", Zipf exponent {keys['zipf']:.2f}." if keys["zipf"] else ".")
    )
    yield Plot(plots.miss_ratio(curve), "Miss ratio by size")
    names = list(dict.fromkeys(("lru", curve["policy"])))
    best = ("belady",) if curve["even"] else ("belady", "bound")
    yield Table(
        ("size", "of all", *names, *(_BEST[name] for name in best), "of bytes", "of compute"),
        [
            [human_bytes(row["bytes"]), share(row["share"]),
             *(share(row[name]["requests"]) for name in (*names, *best)),
             share(row[curve["policy"]]["bytes"]), share(row[curve["policy"]]["compute"])]
            for row in curve["sizes"]
        ],
        f"Hit rate of one tier by its size, simulated; the last two columns are those of {curve['policy']}",
    )  # fmt: skip
    yield Table(
        ("first tier", "size", "of requests", "of bytes", "of compute"),
        [
            [f"{row['times']} times", human_bytes(row["size_bytes"]),
             *(share(row[of]) for of in ("requests", "bytes", "compute"))]
            for row in told["larger"]
        ],
        "What if the first tier were larger",
    )  # fmt: skip
    sampled = curve["sample_rate"] < 1
    ceiling, guess = curve["ceiling"]["requests"], curve["sample_ceiling"]["requests"]
    yield (
        (
            f"Simulated on {number(curve['sample_requests'])} requests: {share(curve['sample_rate'], 2)} of the keys, "
            "with all that was asked of each. Of an endless cache the sample says "
            f"{share(guess)}, the whole trace {share(ceiling)}. "
            if sampled
            else f"Simulated on all {number(curve['sample_requests'])} requests that exact keys can answer. "
        )
        + "Belady's MIN knows the future. "
        + (
            ""
            if curve["even"]
            else "With answers of different sizes it is not the best there is; the bound (PFOO-L) is above it."
        )
    )


_BEST = {"belady": "Belady", "bound": "bound"}


def restart(told: Document) -> Iterator[Part]:
    found = told.get("restart")
    if not found or not found["requests"]:
        return
    yield Table(
        ("the first tier begins", "its hit rate", "compute or lookups behind it"),
        [[row["begins"], share(row["hit_rate"]), human_seconds(row["missed_s"])] for row in found["rows"]],
        f"The {number(found['requests'])} requests after a restart in the middle of the trace, simulated",
    )
    yield (
        f"Fetching the head means the commonest answers until then, {human_bytes(found['fetched_bytes'])}. "
        "Where the second "
        "tier has survived, what is missed is fetched from there and costs a lookup; where not, it is computed."
    )


def fuzzy(told: Document) -> Iterator[Part]:
    for what, count in told.get("audits", {}).items():
        if count["audited"] or count["serving"] or count["would_serve"]:
            yield f"{what.capitalize()}. {audit_line(AuditCount(**count))}"
    for label, what in (("language", "recordings, by language"), ("voice", "voices and moods, by voice")):
        rows = [row for row in told.get(f"audits_by_{label}", ()) if row["audited"]]
        if rows:
            yield Table(
                (label, "judged", "wrong", "undecided", "wrong at most (95 %)"),
                [
                    [row[label], number(row["audited"]), number(row["wrong"]), number(row["undecided"]),
                     share(row["wrong_upper_bound"], 2)]
                    for row in rows
                ],
                f"Audits of {what}",
            )  # fmt: skip
    yield from _pairs(told.get("audited_pairs", ()))
    similarity = told.get("similarity")
    if similarity and any(similarity["hits"]):
        yield Plot(plots.similarity(similarity), "Similarity of fuzzy hits")
        yield Table(
            ("digest", "similarity", "answered at (UTC)"),
            [[row["digest"], f"{row['similarity']:.3f}", utc(row["time_us"] / 1e6)] for row in told["least_alike"]],
            "The hits that were least alike: the first to be listened to",
        )
        if "audits" not in told:
            yield "What audits found is not in a trace: give --target for it."


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Iterator[Part]:
    if not pairs:
        return
    yield Table(
        ("verdict", "of a", "asked", "answered by", "similarity", "judged at (UTC)"),
        [
            [row["verdict"], ", ".join(filter(None, (row["kind"], row["language"], row["voice"]))),
             row["asked"][:SHORT], row["recalled"][:SHORT],
             f"{row['similarity']:.3f}" if row["similarity"] else "not known", utc(row["at_s"])]
            for row in pairs[:PAIRS]
        ],
        "Judged pairs, the worst first, by the keyed digests of what was asked and of what answered",
        text_columns=4,
    )  # fmt: skip
    yield "`refrain stats --pairs` tells their whole names; `refrain wrong NAME` reports one."


def savings(told: Document) -> Iterator[Part]:
    found = told["savings"]
    if not found["saved_s"] and not found["spent_s"]:
        return
    rows = [
        ["spent on answers that were computed", human_seconds(found["spent_s"])],
        ["saved by hits, at what their answers took once", human_seconds(found["saved_s"])],
        ["less looking up", human_seconds(found["lookup_s"]) if found["lookup_known"] else "not known without a trace"],
        [
            "less audits, estimated",
            human_seconds(found["audits_s"]) if found["audits_known"] else "not known without --target",
        ],
        ["saved, net", duration(found["net_s"])],
    ]
    if found["coalesced_s"]:
        rows.append(["besides, by coalescing", human_seconds(found["coalesced_s"])])
    yield Table(("compute", "time"), rows)
    price = found["price_per_gpu_hour"]
    text = (
        "Every second of a lookup and of an audit counts as one of compute, though lookups mostly wait for a network."
    )
    if price:
        varies = (
            f", ± {found['net_varies_s'] / 3600 * price:,.4f} for how it varied over the trace"
            if found["net_varies_s"]
            else ""
        )
        text += f" At {price:g} a GPU hour, net: {found['money']:,.4f}{varies} (95 %), if compute is GPU time."
    yield text


def drift(told: Document) -> Iterator[Part]:
    found = told.get("drift")
    rows = [row for row in found["rows"] if "kept" in row] if found else []
    if not rows or found is None:
        return
    span = plots.span_name(found["seconds"]) if found["seconds"] else "eighth"
    yield Plot(plots.drift(found), f"How the {found['head']} commonest keys change from {span} to {span}")
    kept = sum(row["kept"] for row in rows) / len(rows)
    yield (
        f"On average {share(kept, 0)} of the {found['head']} commonest keys of one {span} are among those of "
        "the next. Where a "
        "model is replaced, all its keys are new."
    )
