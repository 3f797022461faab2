"""Every answer is one that the served description has, to requests that are made up from it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import schemathesis
from gates import Gate, signature
from hypothesis import HealthCheck, given, settings
from requests import PreparedRequest, Session
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    positive_data_acceptance,
)

# What stands in the headers of one way to sign is missing in the body of the other, which no schema says; and it
# takes our own key for one that it made up.
NOT_FOR_US = [positive_data_acceptance, ignored_auth]


class Signed(AuthBase):
    """Signs what is made up, with a time that holds where there is room for one."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        try:
            command = json.loads(body)
            command["timestamp"] = int(time.time())
            body = json.dumps(command).encode()
        except (ValueError, TypeError):
            pass
        request.prepare_body(body, None)
        request.headers["x-aion-signature"] = signature(body)
        request.headers["authorization"] = f"Bearer {self.key}"
        return request


def addresses() -> Iterator[Session]:
    """Senders, each with an address of its own."""
    for last in range(2, 255):
        session = Session()
        adapter = HTTPAdapter()
        adapter.init_poolmanager(1, 1, source_address=(f"127.0.0.{last}", 0))
        session.mount("http://", adapter)
        yield session


def test_answers_are_as_described(open_gate: Gate):
    url = f"http://{open_gate.gateway.http}/webhooks/inbound/openapi.json"
    description = schemathesis.openapi.from_url(url)
    signed = Signed(open_gate.keys["reviewer"])
    senders = addresses()
    sender = next(senders)
    statuses: set[tuple[str, int]] = set()

    for found in description.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=150,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        def answers(case: schemathesis.Case) -> None:
            nonlocal sender
            for auth in (signed, None):
                answer = case.call(auth=auth, session=sender)
                if answer.status_code == 429:
                    # The address sent too much that wasn't authenticated: another one learns the answer.
                    case.validate_response(answer, excluded_checks=NOT_FOR_US)
                    sender = next(senders)
                    answer = case.call(auth=auth, session=sender)
                case.validate_response(answer, excluded_checks=NOT_FOR_US)
                statuses.add((case.method, answer.status_code))

        answers()
    # Made-up requests come as far as this.
    assert {("POST", 401), ("POST", 202), ("POST", 403), ("GET", 404)} <= statuses
