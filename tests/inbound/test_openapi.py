"""Every answer is one that the served description has, to requests that are made up from it."""

from __future__ import annotations

import json
import time

import pytest
import schemathesis
from gates import Gate, signature
from hypothesis import HealthCheck, settings
from requests import PreparedRequest
from requests.auth import AuthBase


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


@pytest.fixture
def description(open_gate: Gate):
    return schemathesis.openapi.from_url(
        f"http://{open_gate.gateway.http}/webhooks/inbound/openapi.json"
    )


@schemathesis.pytest.from_fixture("description").parametrize()
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_described(case: schemathesis.Case, open_gate: Gate):
    signed = Signed(open_gate.keys["reviewer"])
    case.validate_response(case.call(auth=signed))
    case.validate_response(case.call())
