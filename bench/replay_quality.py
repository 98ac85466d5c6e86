"""What a replay says of answers' worth: hits and wrong hits by kind, voice and mood, and the load beside its control.

A fuzzy answer to a recording is right if its words are those that were spoken, or those that the model made of a
recording of the same words to which no noise was added; else it is wrong, or, where the model was asked for none,
not judged. Reports hold sums of whole numbers, from which everything else here is derived, so that parts add up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from bench.bounds import upper
from bench.replay_compare import DIFFERENT, EQUAL, NEAR, NEAR_DB
from bench.replay_judge import WORST, Judged, Pairs, Unequal, words_digest, worst
from bench.replay_things import Things
from gateway.stats import human_seconds

HITS: Final = ("HIT_EXACT", "HIT_FUZZY")
_NAMES: Final = {
    "HIT_EXACT": "hits_exact", "HIT_FUZZY": "hits_fuzzy", "COALESCED": "coalesced", "MISS": "misses",
    "BYPASS": "bypassed",
}  # fmt: skip
Report = Mapping[str, Any]


def quality(things: Things, requests: Sequence[bytes], found: Sequence[Judged]) -> dict[str, Any]:
    """Of all processes: `answers_by`, `lent` and `made`, as JSON holds them."""
    by: Counter[tuple[str, ...]] = Counter()
    lent: Counter[tuple[Any, ...]] = Counter()
    made: dict[int, set[str]] = defaultdict(set)
    borrowing = {lead for lead, item in zip(things.lead, things.items, strict=True) if item.fuzzy}
    for judged in found:
        for (ask, status), count in judged.outcomes.items():
            by[(*_traits(things, ask), status)] += count
        for (ask, digest), count in judged.lent.items():
            lead = things.lead[ask]
            spoken = digest == words_digest(things.items[ask].text, requests[lead])
            lent[(*_traits(things, ask), lead, digest, spoken)] += count
        for lead, digest in judged.made:
            if lead in borrowing:
                made[lead].add(digest)
    return {
        "answers_by": _rows(("task", "kind", "voice", "mood", "status"), by, "requests"),
        "lent": _rows(("task", "kind", "voice", "mood", "lead", "digest", "spoken"), lent, "times"),
        "made": {str(lead): sorted(digests) for lead, digests in sorted(made.items())},
    }


def _traits(things: Things, ask: int) -> tuple[str, str, str, str]:
    item = things.items[ask]
    return item.task, things.kinds[ask], item.voice, item.emotion


def _rows(names: Sequence[str], counts: Counter[Any], counted: str) -> list[dict[str, Any]]:
    return [dict(zip(names, key, strict=True)) | {counted: count} for key, count in sorted(counts.items())]


def added_quality(reports: Sequence[Report]) -> dict[str, Any]:
    """The sum of `quality` over parts of one replay."""
    made: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        for lead, digests in report["made"].items():
            made[lead] |= set(digests)
    return {
        "answers_by": _added(reports, "answers_by", "requests"),
        "lent": _added(reports, "lent", "times"),
        "made": {lead: sorted(digests) for lead, digests in sorted(made.items(), key=lambda pair: int(pair[0]))},
    }


def _added(reports: Sequence[Report], name: str, counted: str) -> list[dict[str, Any]]:
    sums: Counter[tuple[Any, ...]] = Counter()
    names: Sequence[str] = ()
    for report in reports:
        for row in report[name]:
            names = [key for key in row if key != counted]
            sums[tuple(row[key] for key in names)] += row[counted]
    return _rows(names, sums, counted)


def breakdown(report: Report) -> dict[str, Any]:
    """`kinds`, `voices` and `moods`: how each was answered, and how many of its fuzzy answers were wrong."""
    return {f"{trait}s": list(_by(report, trait)) for trait in ("kind", "voice", "mood")}


def _by(report: Report, trait: str) -> Iterator[dict[str, Any]]:
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    judged: dict[str, Counter[str]] = defaultdict(Counter)
    for row in report["answers_by"]:
        outcomes[row[trait]][row["status"]] += row["requests"]
    for row in report["lent"]:
        known = report["made"].get(str(row["lead"]), ())
        right = row["spoken"] or row["digest"] in known
        judged[row[trait]]["right" if right else "wrong" if known else "unjudged"] += row["times"]
    for name, counts in sorted(outcomes.items()):
        requests, fuzzy = sum(counts.values()), judged[name]
        tried = fuzzy["right"] + fuzzy["wrong"]
        yield {
            trait: name,
            "requests": requests,
            **{told: counts[status] for status, told in _NAMES.items()},
            "hit_rate": sum(counts[status] for status in HITS) / requests,
            "fuzzy_judged": tried,
            "fuzzy_wrong": fuzzy["wrong"],
            "fuzzy_wrong_upper_bound": upper(fuzzy["wrong"], tried),
        }


def pairs_json(things: Things, found: Sequence[Judged]) -> dict[str, Any]:
    """Of all processes: `pairs`, `unequal`, `unpaired` and `spilled`."""
    sums: dict[tuple[str, str], Pairs] = defaultdict(Pairs)
    for judged in found:
        for key, pairs in judged.pairs.items():
            sums[key].add(pairs)
    unequal = worst([pair for judged in found for pair in judged.unequal])
    return {
        "pairs": [
            {"task": task, "status": status, "pairs": one.pairs, "with_us": one.with_us, "past_us": one.past_us,
             **{verdict: one.verdicts[verdict] for verdict in (EQUAL, NEAR, DIFFERENT)}}
            for (task, status), one in sorted(sums.items())
        ],
        "unequal": [_unequal(things, pair) for pair in unequal],
        "unpaired": sum(judged.unpaired for judged in found),
        "spilled": sum(judged.spilled for judged in found),
    }  # fmt: skip


def _unequal(things: Things, pair: Unequal) -> dict[str, Any]:
    return {
        "ask": pair.ask, "digest": f"{things.digests[pair.ask]:016x}", "task": things.items[pair.ask].task,
        "kind": things.kinds[pair.ask], "status": pair.status, "verdict": pair.verdict, "distance": pair.distance,
    }  # fmt: skip


def added_pairs(controls: Sequence[Report]) -> dict[str, Any]:
    """The sum of `pairs_json` over parts of one replay."""
    sums: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    told: dict[tuple[int, str], dict[str, Any]] = {}
    for control in controls:
        for row in control["pairs"]:
            sums[row["task"], row["status"]].update({key: row[key] for key in row if key not in ("task", "status")})
        told.update({(row["ask"], row["status"]): row for row in control["unequal"]})
    ranked = worst([Unequal(row["ask"], row["status"], row["verdict"], row["distance"]) for row in told.values()])
    names = ("pairs", "with_us", "past_us", EQUAL, NEAR, DIFFERENT)
    return {
        "pairs": [
            {"task": task, "status": status, **{name: counts[name] for name in names}}
            for (task, status), counts in sorted(sums.items())
        ],
        "unequal": [told[pair.ask, pair.status] for pair in ranked],
        "unpaired": sum(control["unpaired"] for control in controls),
        "spilled": sum(control["spilled"] for control in controls),
    }


def worth(control: Report) -> dict[str, Any]:
    """What the cache was worth, from `pairs`: all times past the cache over all with it, and what it could be.

    Each request's time past the cache stands for the compute of its answer. None where there are no pairs.
    """
    ours, theirs = (sum(row[name] for row in control["pairs"]) for name in ("with_us", "past_us"))
    spared = sum(row["past_us"] for row in control["pairs"] if row["status"] in HITS)
    rate = spared / theirs if theirs else None
    return {
        "near_db": NEAR_DB,
        "compute_hit_rate": rate,
        "speed_up": theirs / ours if ours else None,
        "speed_up_allowed": 1 / (1 - rate) if rate is not None and rate < 1 else None,
        "speed_up_reached": theirs / ours * (1 - rate) if ours and rate is not None and rate < 1 else None,
        "hits_different": sum(row[DIFFERENT] for row in control["pairs"] if row["status"] in HITS),
        "hits_different_upper_bound": upper(
            sum(row[DIFFERENT] for row in control["pairs"] if row["status"] in HITS),
            sum(row["pairs"] for row in control["pairs"] if row["status"] in HITS),
        ),
    }


# For people.


def control_says(control: Report) -> str:
    """Some sentences."""
    told = (
        f"Past the cache, in rounds in turn with the load, {control['share']:.0%} of it was sent again: "
        f"{control['requests']:,} requests, {control['offered_per_s']:,.1f} a second. "
    )
    if control["spilled"]:
        told += (
            f"{control['spilled']:,} of them were answered after their round and the rest behind it: the engines did "
            "not bear this rate, and times hold waiting on both sides, so no speed-up can be told; give a smaller "
            "share, or a lower rate. "
        )
    elif control["speed_up"] is not None:
        told += f"Answers came {control['speed_up']:.2f} times sooner with it"
        allowed = control["speed_up_allowed"]
        told += f"; a hit rate of {control['compute_hit_rate']:.1%}, weighed by time past the cache, "
        told += (
            f"allows {allowed:.2f}, so {control['speed_up_reached']:.0%} of that was reached. "
            if allowed
            else "sets no limit. "
        )
    if control["unpaired"]:
        told += f"{control['unpaired']:,} answers had no other half to be compared with."
    return told.strip()


def control_rows(control: Report) -> Iterator[list[str]]:
    """As CONTROL_COLUMNS."""
    for row in control["pairs"]:
        count = max(1, row["pairs"])
        yield [
            row["task"], row["status"], f"{row['pairs']:,}", human_seconds(row["with_us"] / count / 1e6),
            human_seconds(row["past_us"] / count / 1e6), f"{row[EQUAL]:,}", f"{row[NEAR]:,}", f"{row[DIFFERENT]:,}",
            f"{upper(row[DIFFERENT], row['pairs']):.2%}",
        ]  # fmt: skip


CONTROL_COLUMNS: Final = (
    "task", "with cache", "pairs", "mean", "past it", "equal", "near", "different", "at most",
)  # fmt: skip
UNEQUAL_COLUMNS: Final = ("task", "outcome", "kind", "digest", "verdict", "apart")


def unequal_rows(control: Report) -> Iterator[list[str]]:
    """As UNEQUAL_COLUMNS, the worst first."""
    for row in control["unequal"][:WORST]:
        distance, words = row["distance"], row["task"] == "recognize"
        apart = "other length" if distance is None else f"{distance:.0%} of words" if words else f"{distance:.1f} dB"
        yield [row["task"], row["status"], row["kind"], row["digest"], row["verdict"], apart]


KIND_COLUMNS: Final = (
    "kind", "requests", "exact", "fuzzy", "coalesced", "misses", "hits", "judged", "wrong", "at most",
)  # fmt: skip


def kind_rows(rows: Iterable[Report], trait: str) -> Iterator[list[str]]:
    """As KIND_COLUMNS; the last is the upper 95 % bound of wrong fuzzy answers."""
    for row in rows:
        counts = [f"{row[name]:,}" for name in ("requests", "hits_exact", "hits_fuzzy", "coalesced", "misses")]
        bound = f"{row['fuzzy_wrong_upper_bound']:.2%}" if row["fuzzy_judged"] else ""
        yield [
            row[trait] or "none", *counts, f"{row['hit_rate']:.1%}", f"{row['fuzzy_judged']:,}",
            f"{row['fuzzy_wrong']:,}", bound,
        ]  # fmt: skip


def quality_tables(report: Report) -> Iterator[Table | str]:
    """For the terminal: kinds, where there are several, and the control."""
    if len(report["kinds"]) > 1 or any(row["fuzzy_judged"] for row in report["kinds"]):
        yield _table(KIND_COLUMNS, kind_rows(report["kinds"], "kind"), 1)
    control = report.get("control")
    if control:
        yield control_says(control)
        yield _table(CONTROL_COLUMNS, control_rows(control), 2)
    if control and control["unequal"]:
        yield _table(UNEQUAL_COLUMNS, unequal_rows(control), 5)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> Table:
    table = Table(*columns)
    for column in table.columns[words:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    return table
