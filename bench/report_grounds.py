"""The report's sections on what it rests on: sums that must be equal, and where its figures come from."""

from __future__ import annotations

from collections.abc import Iterator

from bench.report_parts import Document, Part, Table, number, utc
from gateway.stats import human_bytes, human_seconds


def sums(told: Document) -> Iterator[Part]:
    wrong = [row for row in told["checks"] if not row["equal"]]
    yield Table(
        ("what must be equal", "", "", "holds"),
        [
            [row["what"], number(row["one"]), number(row["other"]), "yes" if row["equal"] else "NO"]
            for row in told["checks"]
        ],
    )
    if wrong:
        yield (
            "Where trace and gateway differ, requests ended between looking at the two, or records were dropped "
            "(refrain_trace_dropped_total) or deleted with an old file."
        )
    if "trace" in told and "gateway" in told and told["tenants"] > 1:
        yield "The trace holds several tenants and the gateway counts for one, so the two are not compared."


def provenance(told: Document) -> Iterator[Part]:
    rows = []
    trace = told.get("trace")
    if trace:
        rows += [
            ["trace", f"{trace['name']}, {number(trace['requests'])} records in {trace['files']} file(s)"],
            ["digest of its records", f"blake2b {trace['blake2b']}"],
            ["from, to (UTC)", f"{utc(trace['first_us'] / 1e6)}, {utc(trace['last_us'] / 1e6)}"],
        ]
        if trace.get("synthesized"):
            made = ", ".join(f"{name} {value}" for name, value in trace["synthesized"].items())
            rows.append(["synthesized, of nobody's requests", made])
        if trace["hashed_under"]:
            rows.append(["hashed under key", ", ".join(trace["hashed_under"])])
    gateway = told.get("gateway")
    if gateway:
        rows.append(
            ["gateway", f"up {human_seconds(gateway['uptime_s'])}, {number(gateway['failed'])} requests failed"]
        )
        for tier in gateway["tiers"]:
            room = f" of {human_bytes(tier['capacity_bytes'])}" if tier["capacity_bytes"] else ""
            rows.append(
                [
                    f"tier {tier['name']}",
                    f"{number(tier['entries'])} entries, {human_bytes(tier['bytes'])}{room}, "
                    f"{number(tier['evictions'])} "
                    f"evictions, {number(tier['errors'])} errors",
                ]
            )
    rows += [
        [f"engine {model['name']}", f"{model['family']}, {model['provider']}, identity {model['identity']}"]
        for model in told.get("engines", ())
    ]
    if told.get("replay"):
        replay = told["replay"]
        rows.append(
            ["replay", f"of {replay['trace']['name']}, blake2b {replay['trace']['blake2b']}, seed {replay['seed']}"]
        )
    assumed = told["assumed"]
    rows.append(
        [
            "assumed",
            f"policy {assumed['policy']}, answers live {human_seconds(assumed['ttl_s'])}, "
            f"{assumed['price_per_gpu_hour']:g} a GPU hour, seed of the sample {assumed['seed']}",
        ]
    )
    machine = told.get("machine")
    if machine:
        packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
        where = machine.get("processor") or "processor not known"
        rows.append(["report made on", f"{where}, {machine['cores']} cores, Python {machine['python']}, {packages}"])
    yield Table(("", ""), rows, text_columns=2)
