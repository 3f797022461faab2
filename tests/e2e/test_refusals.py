"""What `aion dev` says where it can't start, and that nothing is harmed by it."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from processes import ROOT, Dev, binary


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


def test_a_policy_of_webhooks_is_checked_before_a_start(tmp_path: Path):
    config, policy = tmp_path / "aion.toml", tmp_path / "webhooks.yaml"
    config.write_text(
        f'[kafka]\nbrokers = "127.0.0.1:1"\n[lake]\nurl = "{tmp_path / "lake"}"\n'
        f'[webhooks]\npolicy = "{policy}"\n'
    )

    def validated() -> tuple[int, str]:
        done = subprocess.run(
            [binary(), "validate", "--config", config],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.returncode, done.stdout + done.stderr

    shipped = (ROOT / "policies" / "webhooks.yaml").read_text()
    policy.write_text(shipped)
    code, said = validated()
    assert code == 0, said
    policy.write_text(shipped + '    tls: {ca: "/nowhere/ca.pem"}\n')
    code, said = validated()
    assert code == 2 and "webhook proposals: tls: /nowhere/ca.pem" in said, said
    policy.write_text(shipped + "    colour: red\n")
    code, said = validated()
    assert code == 2 and f"{policy}:" in said and "colour" in said, said
