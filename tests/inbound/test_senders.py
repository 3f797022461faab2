"""What is known of a sender by its address, and what one sender may take up."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
from collections import Counter
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from select import select

import pytest
from authority import Authority
from gates import Gate, ask, command, connect, head, token
from processes import wait
from vanished import asked_in_s

STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
# What no signature is right for.
WRONG = "0" * 64


def test_the_audit_names_the_sender_behind_a_proxy_that_is_trusted(open_gate: Gate):
    """Unit tests have all the forms; here the setting and the header come all the way."""
    cases = {
        "203.0.113.7": "203.0.113.7",
        "198.51.100.1, 203.0.113.7, 10.0.0.2": "203.0.113.7",
        "203.0.113.7, nobody": "127.0.0.1",
        "2001:db8::7": "2001:db8::7",
    }
    for forwarded in cases:
        answer = open_gate.send(command(), "auditor", x_forwarded_for=forwarded)
        assert answer.status == 403, answer.body
    events = open_gate.read("aion.audit.activity")
    peers = [e["context"]["peer"] for e in events if e["actor_id"] == "auditor"]
    assert peers[-len(cases) :] == list(cases.values())


def test_what_a_stranger_says_of_itself_is_not_believed(gate: Gate):
    gate.inbound = 'trusted_proxies = ["10.0.0.0/8"]\n'
    gate.start()
    assert gate.send(command(), "auditor", x_forwarded_for="10.1.1.1").status == 403
    events = gate.read("aion.audit.activity")
    (event,) = [event for event in events if event["actor_id"] == "auditor"]
    assert event["context"]["peer"] == "127.0.0.1"


def test_an_address_whose_requests_are_nothing_is_held_off_unseen(open_gate: Gate):
    """What is good isn't looked at either, in the middle of them; from another address it is."""

    def request(sender: str, *, is_good: bool) -> bytes:
        body = json.dumps(command()).encode()
        more = [f"Content-Length: {len(body)}", f"X-Forwarded-For: {sender}"]
        text = head(open_gate, body, *more)
        if not is_good:
            text = re.sub(rb"sha256=\w+", WRONG.encode(), text)
        return text + body

    def counted() -> float:
        name = "aion_inbound_unauthenticated_total"
        return open_gate.gateway.metric(name, cause="signature")

    before = counted()
    # In one go: a request on a connection of its own takes longer than the address waits for the next.
    sent = [False] * 200 + [False, False, False, False, True] * 20
    with connect(open_gate) as connection:
        parts = [request("203.0.113.50", is_good=is_good) for is_good in sent]
        connection.sendall(b"".join(parts))
        received = b""
        while len(STATUS.findall(received)) < len(sent):
            part = connection.recv(65_536)
            assert part, received[-1000:]
            received += part
    statuses = [int(status) for status in STATUS.findall(received)]
    bad = [status for status, good in zip(statuses, sent, strict=True) if not good]
    good = [status for status, is_good in zip(statuses, sent, strict=True) if is_good]
    assert set(bad) == {401, 429} and bad.count(401) >= 100
    assert bad[:100] == [401] * 100, "a second's worth is looked at"
    assert 429 in good and set(good) <= {202, 429}
    assert b"retry-after: 1\r\n" in received
    assert counted() - before == bad.count(401), "what isn't looked at isn't counted"
    assert open_gate.send(command(), x_forwarded_for="203.0.113.51").status == 202
    again = {"x_forwarded_for": "203.0.113.50"}
    wait(lambda: open_gate.send(command(), **again).status == 202, "it goes on", 10)


def test_bodies_of_one_address_take_so_much_room_and_no_more(open_gate: Gate):
    more = ["Content-Length: 262144", "X-Forwarded-For: 203.0.113.60"]
    text = head(open_gate, b"", *more) + b" " * (250 << 10)
    waiting = [connect(open_gate) for _ in range(17)]
    for connection in waiting:
        connection.sendall(text)
    answered, _, _ = select(waiting, [], [], 9)
    assert len(answered) == 1, "sixteen of them are 4 MB, the seventeenth is too much"
    received = answered[0].recv(65_536)
    assert received.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in received

    def long(sender: str) -> int:
        body = json.dumps(command()).encode() + b" " * (200 << 10)
        return open_gate.send(body, x_forwarded_for=sender).status

    assert long("203.0.113.60") == 503
    assert long("203.0.113.61") == 202, "another address has its own"
    for connection in waiting:
        connection.close()
    wait(lambda: long("203.0.113.60") == 202, "the room is free again", 10)


def test_while_the_first_of_a_key_is_worked_on_others_of_it_are_told_so(gate: Gate):
    gate.start()
    body = json.dumps(command()).encode()
    gate.broker.process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(gate.send, body) for _ in range(2)]
        # One of them waits for Kafka, so it is the other that is answered.
        done, waiting = futures.wait(sent, 9, futures.FIRST_COMPLETED)
        gate.broker.process.send_signal(signal.SIGCONT)
        (refused,), (accepted,) = done, waiting
        assert refused.result().status == 409
        assert refused.result().headers["retry-after"] == "1"
        assert accepted.result().status == 202
    assert gate.send(body).body == accepted.result().body


def test_what_has_no_event_of_its_own_is_summed_up(gate: Gate):
    """Once a minute, and as the process stops: no count is lost, and none is told twice."""
    gate.start()
    for _ in range(3):
        assert gate.send(command(), x_aion_signature=WRONG).status == 401
    bearer = f"Bearer {token(secret='y' * 32)}"
    for _ in range(2):
        assert gate.send(command(), authorization=bearer).status == 401
    assert gate.send(command(timestamp=1)).status == 401
    assert gate.send(b"{}").status == 400
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: gate.send(command(), "slow"), range(40)))
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) > 10

    def firsts() -> list[dict]:
        events = gate.read("aion.audit.activity")
        too_many = "too many requests"
        return [e for e in events if e.get("context", {}).get("reason") == too_many]

    wait(firsts, "the first has an event at once", 30)
    for event in firsts():
        assert event["actor_id"] == "slow" and event["result"] == "refused"
        assert event["action"] == "approve_kernel_proposal"
        assert event["context"]["peer"] == "127.0.0.1"
    # One, or two where the minute ended in between.
    assert 1 <= len(firsts()) <= 2
    assert gate.gateway.stop() == 0
    causes: Counter[str] = Counter()
    others = 0
    for event in gate.read("aion.audit.activity"):
        if event["action"] == "inbound.unauthenticated":
            assert (
                event["actor_id"] == "service:gateway" and event["result"] == "denied"
            )
            causes.update(event["context"]["requests"])
        if event["action"] == "inbound.too_many":
            assert event["actor_id"] == "slow" and event["result"] == "refused"
            others += event["context"]["requests"]
    assert causes == {"signature": 3, "credential": 2, "time": 1, "body": 1}
    assert len(firsts()) + others == len(refused)


def test_over_tls_and_with_metrics_for_whoever_may_see_them(gate: Gate, tmp_path: Path):
    authority = Authority(tmp_path)
    certificate, key = authority.certificate("127.0.0.1")
    gate.http = f'certificate = "{certificate}"\nkey = "{key}"\nguard_metrics = true\n'
    gate.start(gateways=0)
    address = gate.join().http
    trust = ssl.create_default_context(cafile=authority.ca)

    def status(path: str, bearer: str = "") -> int:
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        return ask(address, "GET", path, b"", headers, trust).status

    def is_ready() -> bool:
        try:
            return status("/readyz") == 200
        except OSError:
            return False

    gate.gateway.wait(is_ready, "it is ready", 60)
    body = json.dumps(command()).encode()
    answer = gate.send(body, tls=trust)
    assert answer.status == 202, answer.body
    assert gate.send(body, tls=trust, x_aion_signature=WRONG).status == 401
    gate.gateway.wait(lambda: answer.json["id"] in gate.plane.done, "it is done", 30)
    with pytest.raises(ssl.SSLCertVerificationError):
        gate.send(body, tls=ssl.create_default_context())
    with pytest.raises((OSError, HTTPException)):
        gate.send(body)
    for path in ("/metrics", "/metrics/platform"):
        keys = ["", "x", gate.keys["reviewer"], gate.keys["scraper"]]
        assert [status(path, key) for key in keys] == [401, 401, 403, 200], path
    assert status("/livez") == 200
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        trust.wrap_socket(plain, server_hostname=host) as idle,
    ):
        assert 0 < asked_in_s(idle) <= 240
