"""Receivers that mean harm, or are only broken: an attempt fails, in time, and nothing else happens."""

from __future__ import annotations

import gzip
import socket
import threading
import time

import pytest

RETRY = {"initial_interval": "50ms", "max_interval": "200ms", "max_attempts": 2}
TIMEOUT_S = 1
OK = b"HTTP/1.1 200 OK\r\n"


class Raw:
    """Answers with bytes, however they come."""

    def __init__(self, answer) -> None:
        self.answer, self.requests = answer, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                self.requests += 1
                self.answer(connection)
            except OSError:
                pass


def slow_head(connection) -> None:
    for byte in OK + b"x: y\r\n" * 100:
        connection.send(bytes([byte]))
        time.sleep(0.2)


def slow_body(connection) -> None:
    connection.sendall(OK + b"content-length: 1000\r\n\r\n")
    for _ in range(1000):
        connection.send(b"x")
        time.sleep(0.2)


def endless_body(connection) -> None:
    connection.sendall(OK + b"transfer-encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


BOMB = gzip.compress(bytes(100 << 20))


def bomb(connection) -> None:
    body = BOMB
    head = b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    connection.sendall(OK + head + body)


def endless_head(connection) -> None:
    connection.sendall(OK)
    while True:
        connection.sendall(b"x: " + b"y" * 60000 + b"\r\n")


def flood_of_1xx(connection) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)


def reset(connection) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def said(head: bytes):
    def answer(connection) -> None:
        connection.sendall(b"HTTP/1.1 " + head + b"\r\ncontent-length: 0\r\n\r\n")

    return answer


def after(seconds: float):
    """The head comes so late."""

    def answer(connection) -> None:
        time.sleep(seconds)
        connection.sendall(OK + b"content-length: 0\r\n\r\n")

    return answer


# What is answered, and whether the receiver has the event by that.
ANSWERS = {
    "slow head": (slow_head, False),
    "slow body": (slow_body, True),
    "endless body": (endless_body, True),
    "gzip bomb": (bomb, True),
    "endless head": (endless_head, False),
    "flood of 1xx": (flood_of_1xx, False),
    "reset": (reset, False),
    "nothing": (lambda connection: None, False),
    "no HTTP": (lambda connection: connection.sendall(b"\0\1\2\3\r\n\r\n"), False),
    "301": (said(b"301 Moved\r\nlocation: http://127.0.0.1:1/"), False),
    "304": (said(b"304 Not Modified"), False),
    "101": (
        said(b"101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade"),
        False,
    ),
    "204 with body": (
        lambda c: c.sendall(b"HTTP/1.1 204 No Content\r\n\r\nbody that isn't"),
        True,
    ),
    "just under the time-out": (after(TIMEOUT_S * 0.8), True),
    "just over the time-out": (after(TIMEOUT_S * 1.2), False),
    "Retry-After 0": (said(b"503 No\r\nretry-after: 0"), False),
    "odd Retry-After": (said(b"503 No\r\nretry-after: -1"), False),
    "huge Retry-After": (said(b"503 No\r\nretry-after: 1000000000000"), False),
    "Retry-After in the past": (
        said(b"429 No\r\nretry-after: Sun, 06 Nov 1994 08:49:37 GMT"),
        False,
    ),
}


def test_hostile_receivers(hooks):
    """All at once: each ends as it should, within the time-out, in bounded memory, and a good receiver beside
    them gets its events meanwhile."""
    servers = {name: Raw(answer) for name, (answer, _) in ANSWERS.items()}
    good = hooks.receiver()

    def name_of(name: str) -> str:
        return name.lower().replace(" ", "-")

    entries = [
        {
            "id": name_of(name),
            "url": f"http://127.0.0.1:{servers[name].port}/",
            "timeout": f"{TIMEOUT_S}s",
            # On a machine that is busy, just under the time-out is over it now and then.
            "retry": RETRY | ({"max_attempts": 50} if has_it else {}),
        }
        for name, (_, has_it) in ANSWERS.items()
    ]
    hooks.policy({"id": "good", "url": good.url}, *entries)
    hooks.start()
    hooks.born("good", *(entry["id"] for entry in entries))
    hooks.topic("test.a")
    hooks.send("test.a", range(3))
    hooks.wait(lambda: len(good.values()) == 3, "the good one gets its events", 20)

    def settled() -> bool:
        return all(
            hooks.metric(
                "aion_webhook_attempts_total",
                endpoint=name_of(name),
                outcome="delivered",
            )
            + hooks.metric("aion_webhook_dead_letters_total", endpoint=name_of(name))
            >= 3
            for name in ANSWERS
        )

    hooks.wait(settled, "each event is delivered or a dead letter", 60)
    for name, (_, has_it) in ANSWERS.items():
        delivered = hooks.metric(
            "aion_webhook_attempts_total", endpoint=name_of(name), outcome="delivered"
        )
        assert delivered == (3 if has_it else 0), name
    asked = servers["Retry-After 0"].requests
    assert asked == 3 * RETRY["max_attempts"], "at once isn't more often"
    pid = hooks.process.pid
    with open(f"/proc/{pid}/status") as status:
        (peak,) = [line for line in status if line.startswith("VmHWM")]
    assert int(peak.split()[1]) < 1_500_000, peak


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://127.1:{port}/",
        "http://0x7f000001:{port}/",
        "http://2130706433:{port}/",
        "http://0177.0.0.1:{port}/",
        "http://0.0.0.0:{port}/",
        "http://[::1]:{port}/",
        "http://[::]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::127.0.0.1]:{port}/",
        "http://localhost:{port}/",
        "http://localhost.:{port}/",
    ],
)
def test_addresses_of_this_machine_arent_dialled(hooks, url):
    receiver = hooks.receiver()
    hooks.policy(
        {"id": "all", "url": url.format(port=receiver.port), "allow_private": []}
    )
    done = hooks.webhooks("test", "all", code=1)
    # Not every resolver knows a name with a dot behind it.
    assert "no address that may be dialled" in done.stderr or "resolve" in done.stderr
    assert receiver.server and receiver.deliveries == []


def test_a_proxy_of_the_environment_isnt_asked(hooks, monkeypatch):
    proxy, receiver = hooks.receiver(), hooks.receiver()
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"]:
        monkeypatch.setenv(name, proxy.url)
    hooks.policy({"id": "all", "url": receiver.url})
    hooks.webhooks("test", "all")
    assert len(receiver.deliveries) == 1 and proxy.deliveries == []


REST = """    secret: a-secret-for-tests-only
    topics: [a]
    retry: {initial_interval: 1s, max_interval: 1s, max_attempts: 1}
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("webhooks:\n  - url: https://x.example\n    colour: red\n", "3: "),
        ("webhooks:\n- {}\n", "url"),
        ("", "webhooks"),
        ("webhooks: [\n", ": "),
        ("webhooks:\n  - url: 'https://[example.com]/'\n" + REST, "2: url"),
        ("webhooks:\n  - url: 'https://[::1'\n" + REST, "2: url"),
    ],
)
def test_a_bad_policy_is_refused_with_its_line(hooks, text, says):
    hooks.policy_file.write_text(text)
    done = hooks.webhooks("list", code=2)
    assert says in done.stderr and str(hooks.policy_file) in done.stderr, done.stderr
