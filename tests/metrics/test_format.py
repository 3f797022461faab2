"""The dashboards are held against a JSON Schema that is made from Grafana's own types."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from processes import ROOT

DASHBOARDS = ROOT / "dashboards"
FILES = sorted(DASHBOARDS.glob("*.json"))
SCHEMA = DASHBOARDS / "source" / "grafana.schema.json"


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    return Draft7Validator(json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_grafana_knows_every_member(validator: Draft7Validator, file: Path):
    validator.validate(json.loads(file.read_text()))


def test_the_schema_is_that_of_the_types():
    """`npm --prefix dashboards/source run schema` makes it anew."""
    command = json.loads((SCHEMA.parent / "package.json").read_text())["scripts"]
    arguments = command["schema"].rpartition(" --out ")[0].split()
    arguments[0] = f"node_modules/.bin/{arguments[0]}"
    made = subprocess.run(
        arguments, cwd=SCHEMA.parent, capture_output=True, check=True, text=True
    )
    assert json.loads(made.stdout) == json.loads(SCHEMA.read_text())


def of(kind: str) -> Callable[[dict], dict]:
    return lambda board: next(p for p in board["panels"] if p["type"] == kind)


# Negative controls: a board, the object in it, and the member that is put there.
WRONG = {
    "a number as text": ("sql", lambda board: board, {"schemaVersion": "42"}),
    "a board's member": ("sql", lambda board: board, {"refreshes": "30s"}),
    "a kind of panel": ("sql", of("stat"), {"type": "statt"}),
    "a panel's member": ("sql", of("table"), {"descriptions": "x"}),
    "an option": ("audit", lambda b: of("stat")(b)["options"], {"colourMode": "value"}),
    "its value": ("audit", lambda b: of("stat")(b)["options"], {"colorMode": "vaue"}),
    "a field's member": (
        "audit",
        lambda b: of("timeseries")(b)["fieldConfig"]["defaults"]["custom"],
        {"fillOpacity": "8"},
    ),
    "a question's member": (
        "audit",
        lambda b: of("stat")(b)["targets"][0],
        {"legendformat": "x"},
    ),
    "a form of rows": (
        "sql",
        lambda b: of("table")(b)["targets"][0],
        {"format": "rows"},
    ),
    "one source's question to another": (
        "clickhouse",
        lambda b: of("table")(b)["targets"][0]["datasource"],
        {"type": "grafana-postgresql-datasource"},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_grafana_does_not_know_is_found(validator: Draft7Validator, name: str):
    board, place, member = WRONG[name]
    whole = json.loads((DASHBOARDS / f"{board}.json").read_text())
    broken = copy.deepcopy(whole)
    place(broken).update(member)
    assert validator.is_valid(whole) and not validator.is_valid(broken)
