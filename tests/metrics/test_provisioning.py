"""The files that Grafana reads at its start: they hold together with the dashboards, Prometheus' file and the README."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from processes import ROOT

DASHBOARDS = ROOT / "dashboards"
PROVISIONING = DASHBOARDS / "provisioning"
BOARDS = sorted(DASHBOARDS.glob("*.json"))
FILES = sorted(PROVISIONING.glob("*/*.yaml"))


def sources() -> dict[str, dict]:
    """The provisioned sources by their type, of which there is one each."""
    files = (PROVISIONING / "datasources").glob("*.yaml")
    found = [one for f in files for one in yaml.safe_load(f.read_text())["datasources"]]
    by_type = {one["type"]: one for one in found}
    assert len(by_type) == len(found) == len({one["uid"] for one in found})
    return by_type


def references(part: object) -> list[dict]:
    """Every `datasource` in a dashboard, however deep."""
    if isinstance(part, list):
        return [found for one in part for found in references(one)]
    if not isinstance(part, dict):
        return []
    own = [part["datasource"]] if "datasource" in part else []
    return own + references(list(part.values()))


@pytest.mark.parametrize("file", BOARDS, ids=lambda file: file.stem)
def test_a_board_asks_sources_that_are_provisioned(file: Path):
    """A panel names a variable of its board; Grafana sets that to a source of its type."""
    board = json.loads(file.read_text())
    variables = {
        "${" + one["name"] + "}": one["query"]
        for one in board["templating"]["list"]
        if one["type"] == "datasource"
    }
    asked = references(board)
    assert asked and {one["uid"] for one in asked} == set(variables)
    for one in asked:
        assert variables[one["uid"]] == one["type"]
    assert set(variables.values()) <= set(sources())


def test_no_source_is_idle():
    boards = [json.loads(file.read_text()) for file in BOARDS]
    assert {one["type"] for one in references(boards)} == set(sources())


@pytest.mark.parametrize(
    "file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}"
)
def test_a_file_is_one_that_grafana_reads(file: Path):
    """The members that its documentation wants, and the version that it knows."""
    whole = yaml.safe_load(file.read_text())
    wanted = {
        "datasources": ("name", "type"),
        "dashboards": ("name", "type", "options"),
    }
    kind = {"datasources": "datasources", "dashboards": "providers"}[file.parent.name]
    assert set(whole) == {"apiVersion", kind} and whole["apiVersion"] == 1
    for one in whole[kind]:
        assert all(one.get(member) for member in wanted[file.parent.name]), one


def test_what_they_want_of_the_environment_is_in_the_readme():
    """Those and no others."""
    values = [yaml.safe_load(file.read_text()) for file in FILES]
    wanted = re.findall(r"\$\{?([A-Z][A-Z_]+)", json.dumps(values))
    table = (DASHBOARDS / "README.md").read_text()
    told = re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE)
    assert len(told) > 3 and sorted(told) == sorted(wanted)


def test_the_interval_of_rates_is_that_of_scrapes():
    """`$__rate_interval` is made of it."""
    scrapes = yaml.safe_load((DASHBOARDS / "prometheus.yml").read_text())["global"]
    interval = sources()["prometheus"]["jsonData"]["timeInterval"]
    assert interval == scrapes["scrape_interval"]
