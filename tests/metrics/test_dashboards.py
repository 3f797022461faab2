"""The dashboards: generated from their source, whole, and with data in every panel when a Prometheus scrapes a pipeline."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from monitoring import Prometheus
from processes import ROOT

DASHBOARDS = ROOT / "dashboards"
FILES = sorted(DASHBOARDS.glob("*.json"))
DOCS = (ROOT / "docs" / "metrics.md").read_text()
# Shown and on no panel and in no alert, each with the reason.
UNUSED: dict[str, str] = {}


def panels(file: Path) -> list[dict]:
    board = json.loads(file.read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


ALL = [(file.stem, panel) for file in FILES for panel in panels(file)]
NAMED = [pytest.param(*one, id=f"{one[0]}: {one[1]['title']}") for one in ALL]


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
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${prometheus}"
        assert target["legendFormat"]
        query = target["expr"]
        # A counter is looked at by its rate; a window that is fixed is one on purpose.
        for inner in re.findall(r"(?:rate|increase)\(([^()]*)\)", query):
            assert re.search(r"\[(\$__rate_interval|5m|10m|15m|1h)\]$", inner), query


def test_every_metric_is_looked_at():
    """What is shown to Prometheus is on a panel, in a rule, or unused for a reason; and the reverse."""
    rules = "".join(f.read_text() for f in (DASHBOARDS / "rules").glob("aion.*.yml"))
    used = "".join(t["expr"] for _, panel in ALL for t in panel["targets"]) + rules
    shown = set(re.findall(r"^\| `(aion_\w+)`", DOCS, re.MULTILINE))
    assert len(shown) > 30
    idle = {
        name
        for name in shown
        if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", used)
    }
    assert idle == set(UNUSED), idle ^ set(UNUSED)
    asked = set(re.findall(r"\b(aion_\w+)", used))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert families <= shown, families - shown


def expanded(query: str) -> str:
    return query.replace("$__rate_interval", "10s").replace("$instance", ".*")


def values(prometheus: Prometheus, target: dict) -> list[float]:
    query, now = expanded(target["expr"]), time.time()
    if target.get("instant"):
        answer = prometheus.get("/api/v1/query", query=query)
    else:
        span = {"start": now - 10, "end": now, "step": 2}
        answer = prometheus.get("/api/v1/query_range", query=query, **span)
    assert answer["status"] == "success", (query, answer)
    found = []
    for series in answer["data"]["result"]:
        pairs = series.get("values") or [series["value"]]
        found += [float(value) for _, value in pairs]
    return [value for value in found if not math.isnan(value)]


@pytest.mark.parametrize(("board", "panel"), NAMED)
def test_a_panel_has_data(watched: Prometheus, board: str, panel: dict):
    for target in panel["targets"]:
        assert values(watched, target), f"nothing for {target['expr']}"


def test_a_misspelt_metric_is_found(watched: Prometheus):
    """Negative control: to Prometheus a metric that isn't there is no error."""
    target = {"expr": "sum(rate(aion_rows_storde_total[$__rate_interval]))"}
    assert not values(watched, target)
