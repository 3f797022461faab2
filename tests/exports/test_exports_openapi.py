"""Every answer of the job API is one that its description has, to requests that are made up from it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from processes import ROOT, Dev
from schemathesis.specs.openapi.checks import positive_data_acceptance

# Made-up datasets, intervals and tiers are in their form and not in the contract.
NOT_FOR_US = [positive_data_acceptance]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory):
    dev = Dev(tmp_path_factory.mktemp("openapi"))
    dev.start("--no-generator")
    yield dev
    dev.end()


def test_answers_are_as_described(dev: Dev):
    url = f"http://{dev.http}/v1/exports/openapi.json"
    with urllib.request.urlopen(url, timeout=10) as answer:
        committed = Path(ROOT / "docs" / "exports.openapi.json").read_text()
        assert answer.read().decode() == committed
    description = schemathesis.openapi.from_url(url)
    known = made(dev)
    statuses: set[tuple[str, int]] = set()

    for found in description.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        def answers(case: schemathesis.Case) -> None:
            if "wait" in case.query or "follow" in case.query:
                case.query = {}  # it would wait
            for id_ in (None, known):
                if id_ and case.path_parameters and case.method != "DELETE":
                    case.path_parameters["id"] = id_
                answer = case.call()
                case.validate_response(answer, excluded_checks=NOT_FOR_US)
                statuses.add((case.operation.label, answer.status_code))

        answers()
    # Made-up requests come as far as this.
    assert {
        ("POST /v1/exports", 422),
        ("POST /v1/exports/plan", 422),
        ("GET /v1/exports", 200),
        ("GET /v1/exports/{id}", 200),
        ("GET /v1/exports/{id}", 404),
        ("GET /v1/exports/{id}/done", 200),
        ("GET /v1/exports/{id}/manifest", 200),
        ("DELETE /v1/exports/{id}", 404),
    } <= statuses


def made(dev: Dev) -> str:
    """The id of an export that is there, without rows."""
    interval = {"start": "2026-03-01T00:00:00Z", "end": "2026-03-02T00:00:00Z"}
    body = {"dataset": "metrics", "interval": interval, "wait_for_close": True}
    call = urllib.request.Request(
        f"http://{dev.http}/v1/exports", json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(call, timeout=30) as answer:
        id_ = json.load(answer)["id"]
    wait = f"http://{dev.http}/v1/exports/{id_}?wait=60"
    with urllib.request.urlopen(wait, timeout=70) as answer:
        assert json.load(answer)["state"] == "succeeded"
    return id_
