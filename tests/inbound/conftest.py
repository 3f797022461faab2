"""A gateway for a test, or for all tests of a file that only ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from gates import Gate


@pytest.fixture
def gate(tmp_path: Path):
    gate = Gate(tmp_path)
    yield gate
    gate.end()


@pytest.fixture(scope="module")
def open_gate(tmp_path_factory):
    """A gateway that several tests share, since none of them harms it."""
    gate = Gate(tmp_path_factory.mktemp("gate"))
    gate.inbound = 'trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]\n'
    gate.start()
    yield gate
    gate.end()
