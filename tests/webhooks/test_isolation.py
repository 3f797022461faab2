"""What one endpoint does is no other's affair, and what a receiver asks for holds for its endpoint."""

from __future__ import annotations

import email.utils
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from counters import Receiver
from hooks import Hooks
from processes import free_port

GOOD = 97


class Silent:
    """Takes connections, and never says anything on them."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"
        self.connections: list[socket.socket] = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                self.connections.append(self.socket.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self.socket.close()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def pair(tmp_path: Path):
    """Two processes that know nothing of each other."""
    pair = []
    for name in ("alone", "beside"):
        (tmp_path / name).mkdir()
        pair.append(Hooks(tmp_path / name))
    yield pair
    for hooks in pair:
        hooks.end()


def used_cpu_s(hooks: Hooks) -> float:
    """What a process has used of the processors so far, however long it waited for them."""
    assert hooks.process
    stat = Path(f"/proc/{hooks.process.pid}/stat").read_text()
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_a_dead_and_two_hung_ones_of_100_hold_up_nobody(pair, tmp_path):
    """97 endpoints get the same events from two processes at the same time on the same machine: from one of them
    beside a dead and two hung endpoints. The clock would tell how the machine shares itself out, so it isn't asked.

    Nobody waits: one hung endpoint is given two minutes for its answers, and all is delivered to the others before
    any of its attempts has ended. Of endpoints that shared a queue, or its room, all behind those attempts would.
    Nobody pays: a delivery costs no more of the processors beside the bad ones, retries to them included."""
    receiver, hung = Receiver(tmp_path), Silent()
    alone, beside = pair
    retry = {"initial_interval": "50ms", "max_interval": "400ms", "max_attempts": 1000}
    bad = [
        {"id": "dead", "url": f"http://127.0.0.1:{free_port()}/", "retry": retry},
        {"id": "hung", "url": hung.url, "timeout": "2s", "retry": retry},
        {"id": "hung-long", "url": hung.url, "timeout": "120s", "retry": retry},
    ]

    def counts() -> list[int]:
        found = receiver.counts()
        return [found.get(hooks.folder.name, 0) for hooks in pair]

    def round_of(events: int) -> float:
        """Delivers so many events to all; what a delivery of `alone` costs, as a part of what one of `beside` does."""
        goals = [count + events * GOOD for count in counts()]
        used = [-used_cpu_s(hooks) for hooks in pair]
        with ThreadPoolExecutor() as senders:
            send = lambda hooks: hooks.send("test.a", range(events))
            list(senders.map(send, pair))
        going = {0, 1}

        def is_over() -> bool:
            # Each until its own last delivery: who is over first uses something still.
            now = counts()
            for n in [n for n in going if now[n] >= goals[n]]:
                used[n] += used_cpu_s(pair[n])
                going.remove(n)
            return not going

        beside.wait(is_over, f"{events} events are delivered to all", 100)
        return used[0] / used[1]

    try:
        for hooks, more in ((alone, []), (beside, bad)):
            name = hooks.folder.name
            good = [
                {"id": f"good-{n}", "url": f"{receiver.url}/{name}/{n}"}
                for n in range(GOOD)
            ]
            hooks.policy(*more, *good)
            hooks.start()
        for hooks in pair:
            hooks.born("good-0", f"good-{GOOD - 1}")
            hooks.topic("test.a", 4)
        begun = time.monotonic()
        round_of(20)
        failing = lambda one: beside.metric(
            "aion_webhook_state", endpoint=one, state="failing"
        )
        beside.wait(lambda: failing("dead") and failing("hung"), "two are bad")
        shares = [round_of(60) for _ in range(3)]
        shown = ", ".join(f"{share:.2f}" for share in shares)
        print(f"{shown} of the cost in {time.monotonic() - begun:.0f} s")
        ended = beside.metric("aion_webhook_attempts_total", endpoint="hung-long")
        waiting = beside.metric("aion_webhook_in_flight", endpoint="hung-long")
        # None of its attempts has ended, of which there are so many at a time, but those that had their time.
        had_time = waiting * int((time.monotonic() - begun) / 120)
        assert waiting > 0 and ended <= had_time
        # Of several, since what a delivery costs also depends on who else is at work.
        assert max(shares) >= 0.9
        assert failing("dead") and failing("hung")
        assert hung.connections, "it was tried"
    finally:
        receiver.close()
        hung.close()


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_what_a_receiver_asks_for_by_retry_after_holds_for_its_endpoint(hooks, kind):
    receiver, other = hooks.receiver(), hooks.receiver()
    times: list[float] = []

    def answer(_) -> object:
        times.append(time.time())
        if len(times) > 1:
            return 204
        # A date has no fractions.
        date = email.utils.formatdate(times[0] + 4, usegmt=True)
        return 429, {"retry-after": "3" if kind == "seconds" else date}

    receiver.answer = answer
    retry = {"initial_interval": "10ms", "max_interval": "30s", "max_attempts": 5}
    hooks.policy(
        {"id": "asks", "url": receiver.url, "retry": retry},
        {"id": "other", "url": other.url, "retry": retry},
    )
    hooks.start()
    hooks.born("asks", "other")
    hooks.topic("test.a", 2)
    hooks.send("test.a", [0])
    hooks.wait(lambda: times, "the first comes")
    hooks.send("test.a", range(1, 20))
    hooks.wait(lambda: len(other.taken) == 20, "another endpoint goes on")
    hooks.wait(lambda: len(receiver.taken) == 20, "then all are delivered")
    assert times[1] - times[0] >= 2.9, "nothing came meanwhile, not others either"
    assert sorted(receiver.values()) == list(range(20))
