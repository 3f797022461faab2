"""What `aion dev` says where it can't start, and that nothing is harmed by it."""

from __future__ import annotations

import socket

import pytest
from processes import Dev


@pytest.mark.parametrize("what", ["kafka", "registry", "http", "postgres"])
def test_an_address_in_use_is_named(dev: Dev, what: str):
    address = getattr(dev, what)
    host, port = address.split(":")
    with socket.create_server((host, int(port))):
        dev.begin()
        code, last = dev.refused()
    assert code == 4, dev.output()
    assert address in last and f"--{what}" in last, last
    dev.start("--no-generator")
    assert dev.stop() == 0
