"""PostgreSQL's protocol by hand: what no driver sends."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Self

CANCEL = 80877102


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def parse(query: str, name: str = "") -> bytes:
    words = name.encode() + b"\0" + query.encode() + b"\0"
    return message(b"P", words + struct.pack("!h", 0))


def bind(portal: str = "", given: tuple[bytes, ...] = ()) -> bytes:
    """The unnamed statement with parameters in text and columns in binary."""
    values = b"".join(struct.pack("!i", len(value)) + value for value in given)
    head = portal.encode() + b"\0\0" + struct.pack("!hh", 0, len(given))
    return message(b"B", head + values + struct.pack("!hh", 1, 1))


def execute(most: int) -> bytes:
    return message(b"E", b"\0" + struct.pack("!i", most))


FLUSH, SYNC = message(b"H", b""), message(b"S", b"")


class Frontend:
    """One connection. Closes when the block ends that it is opened for."""

    def __init__(self, port: int, seconds: float = 60) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        self.got = self.key = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *messages: bytes) -> None:
        self.socket.sendall(b"".join(messages))

    def hello(self, user: bytes = b"me") -> None:
        """Says who it is."""
        hello = struct.pack("!i", 196608) + b"user\0%s\0database\0aion\0\0" % user
        self.send(struct.pack("!i", len(hello) + 4) + hello)

    def start(self) -> list[tuple[bytes, bytes]]:
        """What is answered to that until the server is ready, or refuses."""
        self.hello()
        told = list(self.until(b"ZE"))
        self.key = dict(told).get(b"K", b"")
        return told

    def cancel(self, key: bytes) -> None:
        """Asks to stop what the connection with this key asked."""
        self.send(struct.pack("!ii", 8 + len(key), CANCEL) + key)

    def until(self, kinds: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Messages, to the first of one of these kinds."""
        kind = b""
        while not kind or kind not in kinds:
            head = self.exactly(5)
            kind = head[:1]
            yield kind, self.exactly(struct.unpack("!i", head[1:])[0] - 4)

    def numbers(self, last: bytes) -> list[int]:
        """Rows of one number each, before this kind of message."""
        rows = [body for kind, body in self.until(last + b"E") if kind == b"D"]
        return [struct.unpack("!q", body[6:])[0] for body in rows]

    def exactly(self, count: int) -> bytes:
        while len(self.got) < count:
            more = self.socket.recv(1 << 16)
            if not more:
                raise ConnectionError("the server closed the connection")
            self.got += more
        taken, self.got = self.got[:count], self.got[count:]
        return taken


def code(body: bytes) -> str:
    """The SQLSTATE of an error."""
    fields = {field[:1]: field[1:] for field in body.split(b"\0")}
    return fields[b"C"].decode()
