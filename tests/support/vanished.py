"""What the system does about a connection whose other side may have vanished."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from processes import wait

# As the system writes that the next thing to come of a connection is to ask whether the other side is there.
ASKS = "02"


def place(address: tuple[str, int]) -> str:
    number = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"


def asked_in_s(client: socket.socket) -> float:
    """In how many seconds the server of a connection on this machine has its client asked, unless that says something."""
    theirs = [place(client.getpeername()), place(client.getsockname())]
    found: list[float] = []

    def is_to_be_asked() -> bool:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, *places, _, _, timer = line.split()[:6]
            what, _, ticks = timer.partition(":")
            if places == theirs and what == ASKS:
                found.append(int(ticks, 16) / os.sysconf("SC_CLK_TCK"))
        return bool(found)

    wait(is_to_be_asked, f"the client of {theirs[0]} is going to be asked", 20)
    return found[0]
