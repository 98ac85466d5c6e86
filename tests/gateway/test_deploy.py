"""The dashboard and the alert rules name nothing but what a gateway exports, and send people where there is help."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from protos.refrain.v1 import speech_pb2_grpc
from tests.gateway.rig import Rig, hear, noise, say

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "refrain.json"
OF_PROMETHEUS = {"up": {}}
"""What Prometheus makes itself."""
TARGET = {"job", "instance"}
"""Labels that scraping adds."""
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*"}
SELECTOR = re.compile(r"\b(up|(?:refrain|process)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


class Expression(NamedTuple):
    where: str
    text: str
    legend: str = ""


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[Expression]:
    for rule in rules():
        yield Expression(rule["alert"], rule["expr"], rule["annotations"]["summary"])
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for variable, value in VARIABLES.items():
                text = text.replace(variable, value)
            yield Expression(panel["title"], text, target["legendFormat"])


@pytest.fixture(scope="module")
def exported(served: Rig) -> dict[str, dict[str, set[str]]]:
    """The label values of every series of a gateway that has answered, and failed, by metric and label."""
    with grpc.insecure_channel(f"127.0.0.1:{served.running.port}") as channel:
        speech: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(2):
            speech.Synthesize(say())
            speech.Recognize(hear(noise()))
        with pytest.raises(grpc.RpcError):
            speech.Synthesize(say(""))
    found: dict[str, dict[str, set[str]]] = {name: dict(labels) for name, labels in OF_PROMETHEUS.items()}
    with urllib.request.urlopen(f"http://127.0.0.1:{served.running.http_port}/metrics", timeout=10) as page:
        for family in text_string_to_metric_families(page.read().decode()):
            for sample in family.samples:
                values = found.setdefault(sample.name, defaultdict(set))
                for label, value in sample.labels.items():
                    values[label].add(value)
    return found


ALL = list(expressions())


@pytest.mark.parametrize("one", ALL, ids=[one.where for one in ALL])
def test_it_asks_for_what_is_exported(one: Expression, exported: dict[str, dict[str, set[str]]]) -> None:
    known = set(TARGET)
    named = SELECTOR.findall(one.text)
    assert named, one.text
    for metric, matchers in named:
        assert metric in exported, f"no gateway exports {metric}"
        labels = exported[metric]
        known |= labels.keys()
        for label, how, wanted in MATCHER.findall(matchers):
            assert label in labels.keys() | TARGET, f"{metric} has no label {label}"
            if label in TARGET:
                continue
            matches = [
                value for value in labels[label] if re.fullmatch(wanted if "~" in how else re.escape(wanted), value)
            ]
            assert matches, f"{metric}: {label} is never {wanted!r}, but {sorted(labels[label])}"
            for alternative in wanted.split("|"):
                assert any(re.fullmatch(alternative, value) for value in labels[label]), (
                    f"{label} is never {alternative}"
                )
    for names in GROUPING.findall(one.text):
        assert {name.strip() for name in names.split(",") if name.strip()} <= known, f"{names}: no such label"
    legend = set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", one.legend))
    assert legend <= known, f"{one.legend}: no such label"


def test_every_alert_says_how_bad_it_is_and_where_there_is_help() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "warn", "info"), rule["alert"]
        document, _, anchor = rule["annotations"]["runbook"].partition("#")
        text = (ROOT / document).read_text("utf-8")
        headings = {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
        assert anchor in headings, f"{document} has no heading {anchor}"
        assert re.search(rf"^\| {rule['alert']} \|", text, re.MULTILINE), f"{document} does not explain {rule['alert']}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    told = json.loads(DASHBOARD.read_text("utf-8"))
    assert told["uid"] == "refrain"
    ids = [panel["id"] for panel in told["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in told["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another"
        taken |= cells
    for panel in panels():
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert {variable["name"] for variable in told["templating"]["list"]} == {"datasource", "instance"}


def test_the_alerts_are_raised_when_they_should_be() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool; on Debian: apt-get install prometheus")
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        done = subprocess.run(
            [promtool, *words], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
