"""The dashboards: generated from their source, whole, and with every metric on them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from boards import ALL, DASHBOARDS, FILES, NAMED
from pages import DOCUMENTED
from processes import ROOT, binary

# Shown and on no panel and in no alert, each with the reason.
UNUSED: dict[str, str] = {}
VARIABLES = {
    "prometheus": "${prometheus}",
    "grafana-clickhouse-datasource": "${clickhouse}",
    "grafana-postgresql-datasource": "${sql}",
}


def test_they_are_what_their_source_says(tmp_path: Path):
    """`npm --prefix dashboards/source run generate` writes them anew."""
    source = DASHBOARDS / "source"
    assert (source / "node_modules").is_dir(), "scripts/setup test installs the source"
    for command in (
        ["node_modules/.bin/tsc", "-p", ".", "--outDir", tmp_path / "out"],
    ):
        subprocess.run(command, cwd=source, check=True)
    (tmp_path / "node_modules").symlink_to(source / "node_modules")
    subprocess.run(["node", tmp_path / "out" / "generate.js", tmp_path], check=True)
    made = {file.name: file.read_text() for file in tmp_path.glob("*.json")}
    assert made == {file.name: file.read_text() for file in FILES}
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_board_is_whole(file: Path):
    board = json.loads(file.read_text())
    assert 39 <= board["schemaVersion"] <= 42 and board["editable"] is False
    assert board["uid"].startswith("aion-") and board["tags"] == ["aion"]
    assert board["description"]
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("board", "panel"), NAMED)
def test_a_panel_says_what_it_is(board: str, panel: dict):
    assert panel["title"] and panel["description"].endswith("."), panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    (link,) = panel["links"]
    page, _, anchor = link["url"].rpartition("/docs/")[2].partition("#")
    text = (ROOT / "docs" / page).read_text()
    assert not anchor or re.search(
        rf"^## {anchor}$", text, re.MULTILINE | re.IGNORECASE
    )
    types = panel["datasource"]["type"]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["datasource"]["uid"] == VARIABLES[types]
        if types != "prometheus":
            # Whoever looks at an hour is not to wait for a year.
            assert "$__timeFilter(" in target["rawSql"] or is_now(target["rawSql"])
            continue
        assert target["legendFormat"]
        query = target["expr"]
        # A counter is looked at by its rate; a window that is fixed is one on purpose.
        for inner in re.findall(r"(?:rate|increase)\(([^()]*)\)", query):
            assert re.search(r"\[(\$__rate_interval|5m|10m|15m|1h)\]$", inner), query


def is_now(text: str) -> bool:
    """Questions that aren't about a time: what is stored, how far it is."""
    return bool(
        re.search(r" (from lag|FROM system\.parts)\b|max\(_append_time\)", text)
    )


def test_every_metric_is_looked_at():
    """What is shown to Prometheus is on a panel, in a rule, or unused for a reason; and the reverse."""
    rules = "".join(f.read_text() for f in (DASHBOARDS / "rules").glob("aion.*.yml"))
    targets = [target for _, panel in ALL for target in panel["targets"]]
    used = "".join(target.get("expr", "") for target in targets) + rules
    shown = DOCUMENTED
    assert len(shown) > 30
    idle = {
        name
        for name in shown
        if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", used)
    }
    assert idle == set(UNUSED), idle ^ set(UNUSED)
    asked = set(re.findall(r"\b(aion_(?!runtime_)\w+)", used))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert families <= shown, families - shown


def test_what_components_report_is_looked_at():
    """Each metric that the generator has them write to aion.metrics.runtime is on a panel; and the reverse."""
    made = subprocess.run(
        [binary(), "generate", "--topic", "metrics", "--count", "2000", "--seed", "1"],
        capture_output=True,
        check=True,
    )
    reported = {
        f"aion_runtime_{json.loads(line)['metric']}"
        for line in made.stdout.splitlines()
    }
    targets = [target for _, panel in ALL for target in panel["targets"]]
    used = " ".join(target.get("expr", "") for target in targets)
    asked = set(re.findall(r"\b(aion_runtime_\w+?)(?:_bucket|_sum|_count)?\b", used))
    assert len(reported) > 10 and asked == reported, asked ^ reported


def test_topics_without_events_are_those_that_the_alert_means():
    alerts = (DASHBOARDS / "rules" / "aion.alerts.yml").read_text()
    rule = alerts.split("- alert: AionNoEvents\n        expr: >-\n")[1]
    meant = " ".join(rule.split("        for:")[0].split())
    (panel,) = [one for _, one in ALL if one["title"] == "Topics without events"]
    shown = panel["targets"][0]["expr"]
    for selector in ('{instance=~"$instance"}', 'instance=~"$instance",'):
        shown = shown.replace(selector, "")
    assert shown == f"count({meant}) or vector(0)"
