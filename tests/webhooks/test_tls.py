"""Deliveries over TLS: whom we trust, what we show, and who gets nothing."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from authority import DAY, Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_tls_and_mutual_tls(hooks, authority):
    plain = hooks.receiver(tls=authority.server())
    context = authority.server()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca)
    mutual = hooks.receiver(tls=context)
    certificate, key = authority.certificate("aion")
    ours = {"certificate": str(certificate), "key": str(key)}
    trust = {"ca": str(authority.ca)}
    few = {
        "retry": {
            "initial_interval": "50ms",
            "max_interval": "50ms",
            "max_attempts": 2,
        }
    }
    hooks.policy(
        {"id": "plain", "url": plain.url, "tls": trust},
        {"id": "mutual", "url": mutual.url, "tls": trust | ours},
        {"id": "nobody", "url": mutual.url, "tls": trust} | few,
        {"id": "public", "url": plain.url} | few,
    )
    hooks.start()
    hooks.born("plain", "mutual", "nobody", "public")
    hooks.topic("test.a", 2)
    count = 20
    hooks.send("test.a", range(count))
    came = lambda: len(plain.taken) == len(mutual.taken) == count
    hooks.wait(came, "all are there")
    for receiver in (plain, mutual):
        assert receiver.failures == []
        assert receiver.values() == dict.fromkeys(range(count), 1)

    def refused() -> list[float]:
        name = "aion_webhook_dead_letters_total"
        return [hooks.metric(name, endpoint=one) for one in ("nobody", "public")]

    hooks.wait(lambda: refused() == [count, count], "the others get nothing")
    assert len(plain.deliveries) == len(mutual.deliveries) == count


def old_tls(authority: Authority) -> ssl.SSLContext:
    context = authority.server()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "shown",
    [
        lambda ours: ours.server("elsewhere.test"),
        lambda ours: ours.server(until=-DAY),
        lambda ours: Authority(ours.folder, "another").server(),
        old_tls,
        None,
    ],
    ids=["wrong name", "expired", "another authority", "TLS 1.1", "no TLS"],
)
def test_whoever_isnt_who_they_should_be_gets_nothing(hooks, authority, shown):
    receiver = hooks.receiver(tls=shown and shown(authority))
    url = f"https://localhost:{receiver.port}/"
    hooks.policy({"id": "all", "url": url, "tls": {"ca": str(authority.ca)}})
    said = hooks.webhooks("test", "all", code=1).stderr
    assert "tls" in said.lower() or "certificate" in said.lower(), said
    assert receiver.deliveries == []


def test_by_address(hooks, authority):
    """The control of the test above: nothing but the certificate is wrong there."""
    receiver = hooks.receiver(tls=authority.server("127.0.0.1"))
    url = f"https://127.0.0.1:{receiver.port}/"
    hooks.policy({"id": "all", "url": url, "tls": {"ca": str(authority.ca)}})
    hooks.webhooks("test", "all")
    assert len(receiver.deliveries) == 1 and receiver.failures == []
