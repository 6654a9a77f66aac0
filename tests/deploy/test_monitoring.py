"""Alerts, rules and dashboard ask for metrics and labels that exist; alerts fire when they should, and say why."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.errors import PROBLEMS
from server.executors.messages import DeviceMemory, OutOfMemory, Pong
from server.store.record import TERMINAL

REPOSITORY = Path(__file__).parents[2]
PROMETHEUS = REPOSITORY / "deploy" / "prometheus"
DASHBOARD = json.loads((REPOSITORY / "deploy" / "grafana" / "semantic-bit.json").read_text())
RULES = (PROMETHEUS / "rules.yml").read_text()
ALERTS = (PROMETHEUS / "alerts.yml").read_text()
ALERT_NAMES = re.findall(r"- alert: (\w+)", ALERTS)
RECORDED = set(re.findall(r"- record: (\S+)", RULES))

METRIC = re.compile(r"\b((?:semantic_bit|process)[_:][a-z0-9_:]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|=|!=|!~)\s*"([^"]*)"')
SCRAPED_LABELS = {"instance", "job"}
"""What Prometheus itself adds."""

PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(Path(sys.executable).parent))

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus has it)"
)


def expressions() -> dict[str, str]:
    """Everything that Prometheus is asked: where it is written -> PromQL."""
    asked = {}
    for page, text in (("rules.yml", RULES), ("alerts.yml", ALERTS)):
        pattern = r"- (?:record|alert): (\S+)\n +expr: (?:\|\n((?: {10,}.*\n)+)|(.*)\n)"
        for name, block, line in re.findall(pattern, text):
            asked[f"{page}: {name}"] = block or line
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            asked[f"{panel['title']} ({target['refId']})"] = target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        asked[annotation["name"]] = annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            asked[f"${variable['name']}"] = variable["query"]["query"]
    return asked


EXPRESSIONS = expressions()


@pytest.fixture(scope="module")
def metrics(server) -> str:
    """What a server with a GPU tells when it has drawn a picture and refused another."""
    server.executor.process_id = os.getpid()
    server.executor.say(OutOfMemory("step"))
    server.executor.say(Pong(1, DeviceMemory(1000, 400, 500, 300)))
    wish = {"prompt": "a cat", "num_inference_steps": 3}
    assert httpx2.post(f"{server.url}/generate", json=wish).status_code == 200
    assert httpx2.post(f"{server.url}/generate", json={}).status_code == 422
    return httpx2.get(f"{server.url}/metrics").text


@pytest.fixture(scope="module")
def told(metrics) -> dict[str, set[str]]:
    """Metric -> its labels."""
    labels: dict[str, set[str]] = {"semantic_bit_job_failures_total": {"code"}}  # told when the first has failed
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def test_every_expression_is_found():
    assert len(ALERT_NAMES) == ALERTS.count("expr:")
    assert len(RECORDED) == RULES.count("expr:")
    assert len(EXPRESSIONS) > len(ALERT_NAMES) + len(RECORDED) + 40


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_whatever_is_asked_for_exists(where, told):
    expression = EXPRESSIONS[where]
    known = set(SCRAPED_LABELS)
    for name, selector in METRIC.findall(expression):
        if name in RECORDED:
            known |= {"route"} if "http" in name else set()
            continue
        assert name in told, f"{name} is not told"
        labels = told[name] | SCRAPED_LABELS
        known |= labels
        for label, operator, value in MATCHER.findall(selector):
            assert label in labels, f"{name} has no label {label}"
            if operator == "=" and label == "code":
                assert value in {kind.code for kind in PROBLEMS.values()}
            if label == "status" and not name.startswith("semantic_bit_http"):
                assert set(value.split("|")) <= TERMINAL
    for grouping in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(grouping.replace(" ", "").split(",")) <= known, grouping


def test_every_recording_rule_is_asked_for_by_somebody():
    asked = "\n".join(text for where, text in EXPRESSIONS.items() if not where.startswith("rules.yml"))
    assert {name for name in RECORDED if name not in asked} == set()


def test_every_panel_says_what_it_shows_and_none_overlaps():
    panels = DASHBOARD["panels"]
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == [
        "Overview", "Queue", "Engine", "HTTP", "Store and machine",
    ]  # fmt: skip
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"]


@pytest.mark.parametrize("name", ALERT_NAMES)
def test_every_alert_says_what_is_wrong_how_bad_it_is_and_where_the_remedy_is(name):
    text = ALERTS.split(f"- alert: {name}\n")[1].split("- alert: ")[0]
    assert re.search(r"labels: \{severity: (critical|warning)\}", text)
    assert "summary: " in text
    assert "description: " in text
    assert f"runbook_url: docs/operations.md#{name.lower()}\n" in text
    operations = (REPOSITORY / "docs" / "operations.md").read_text()
    assert re.search(rf"^#+ {name}$", operations, flags=re.MULTILINE), f"docs/operations.md has no paragraph {name}"


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules.yml", "alerts.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments):
    finished = subprocess.run(
        [PROMTOOL, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=120
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@needs_promtool
def test_promtool_finds_the_metrics_well_named(metrics):
    command = [PROMTOOL, "check", "metrics"]
    finished = subprocess.run(command, input=metrics.encode(), capture_output=True, check=False, timeout=60)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"", b"")
