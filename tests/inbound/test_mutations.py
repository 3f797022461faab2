"""Requests that are changed at random, as bytes on a connection: each is answered or given up, and only what was signed
is taken in. AION_SEED brings them back."""

from __future__ import annotations

import json
import os
import random
import re
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from gates import Gate, command, connect, head

SEED = int(os.environ.get("AION_SEED") or random.randrange(2**31))
ROUNDS = 1_500
PIECES = ["{", "}", '"', ":", "\\u0000", "\\ud800", "1e999", "-0", "null", "\ufeff"]
PIECES += ["é", "sha256=", "\r\n", "\0", "chunked"]


def mutated(text: bytes, rng: random.Random) -> bytes:
    """One to four changes: a byte changed, taken out or doubled, the rest cut off, or a piece put in."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(text))
        before, here, after = text[:at], text[at : at + 1], text[at + 1 :]
        match rng.randrange(8):
            case 0 | 1 if here:
                text = before + bytes([here[0] ^ 1 << rng.randrange(8)]) + after
            case 2 | 3:
                text = before + after
            case 4 | 5:
                text = before + here + here + after
            case 6:
                text = before
            case _:
                text = before + rng.choice(PIECES).encode() + here + after
    return text


def content(action: object, key: object, parameters: object) -> str:
    return json.dumps([action, key, parameters], sort_keys=True)


def signed_content(body: bytes) -> str | None:
    """What a body commands, where it can be read so."""
    try:
        read = json.loads(body)
        return content(read["action"], read["idempotency_key"], read["parameters"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def exchange(gate: Gate, kind: str, text: bytes) -> int:
    """The status of the answer; 0 where the connection is closed without one, as a changed head may have it."""
    received = b""
    with connect(gate) as connection:
        try:
            connection.sendall(text)
            if kind == "head":
                connection.settimeout(0.2)
            try:
                received = connection.recv(65_536)
            except TimeoutError:
                # It waits for more: nothing comes.
                assert kind == "head", text
                connection.settimeout(20)
                connection.shutdown(socket.SHUT_WR)
                received = connection.recv(65_536)
        except ConnectionError:
            pass
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", received)
    assert found or not received, (text, received)
    return int(found[1]) if found else 0


def test_whatever_comes_is_answered_and_only_what_is_signed_is_taken_in(
    open_gate: Gate,
):
    print(f"AION_SEED={SEED}")
    rng = random.Random(SEED)
    requests: list[tuple[str, bytes]] = []
    signed: set[str | None] = set()
    for number in range(ROUNDS):
        key = f"mutated-{SEED}-{number}"
        body = json.dumps(command(idempotency_key=key)).encode()
        kind = ("unsigned", "signed", "head")[number % 3]
        changed = body if kind == "head" else mutated(body, rng)
        by = changed if kind == "signed" else body
        signed.add(signed_content(by))
        # Each of an address of its own, so that none is held off for what those before it were.
        sender = f"X-Forwarded-For: 203.0.{number // 250}.{number % 250}"
        lines = [sender, f"Content-Length: {len(changed)}", "Connection: close"]
        first = head(open_gate, by, *lines)
        if kind == "head":
            first = mutated(first, rng)
        if kind != "unsigned" or changed != body:
            requests.append((kind, first + changed))
    with ThreadPoolExecutor(16) as pool:
        sent = pool.map(lambda one: exchange(open_gate, *one), requests)
        answers = list(zip(requests, sent, strict=True))
    statuses = {kind: Counter[int]() for kind, _ in requests}
    for (kind, text), status in answers:
        statuses[kind][status] += 1
        # 501 and 505 are about the method and the version of HTTP.
        assert status < 500 or status in (501, 505), (status, text)
    assert statuses["unsigned"].keys() == {401}, statuses
    # They come as far as this.
    assert {202, 400, 422} <= statuses["signed"].keys(), statuses
    assert {0, 202, 400, 401} <= statuses["head"].keys(), statuses
    taken = [
        content(record["action"], record["idempotency_key"], record["parameters"])
        for record in open_gate.read("aion.commands")
        if record["stage"] == "accepted"
    ]
    assert len(taken) >= statuses["signed"][202] + statuses["head"][202]
    assert set(taken) <= signed
    assert "panicked" not in open_gate.gateway.output()
    assert open_gate.send(command()).status == 202
