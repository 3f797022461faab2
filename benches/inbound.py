"""Commands through a gateway, with acks=all: requests per second, and per second of the gateway's CPU time.

    python benches/inbound.py [--seconds 10] [--rounds 3] [--clients 2] [--connections 32]

Starts the embedded broker and one gateway. Each client process keeps its connections busy with commands of
several actors that are all new, signed, with an API key: first while the control plane takes none, so that they are
accepted only, then while it takes each. Needs AION_BIN or target/release/aion.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from gates import Gate, command, signature

ACTORS = [f"actor-{number}" for number in range(16)]


def client(address: str, keys: list[str], connections: int, until: float, counts):
    """Keeps connections busy until the time is up."""
    taken, lock = [0, 0], threading.Lock()

    def work(key: str) -> None:
        host, _, port = address.partition(":")
        connection = HTTPConnection(host, int(port), timeout=30)
        good = bad = 0
        while time.time() < until:
            body = json.dumps(command()).encode()
            headers = {
                "content-type": "application/json",
                "x-aion-signature": signature(body),
                "authorization": f"Bearer {key}",
            }
            connection.request("POST", "/webhooks/inbound", body, headers)
            answer = connection.getresponse()
            answer.read()
            good, bad = good + (answer.status == 202), bad + (answer.status != 202)
        with lock:
            taken[0] += good
            taken[1] += bad

    threads = [
        threading.Thread(target=work, args=(keys[number % len(keys)],))
        for number in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.put(taken)


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(answer: int, asked: argparse.Namespace) -> float:
    """One round with a control plane that answers so; commands per CPU-second."""
    with tempfile.TemporaryDirectory() as folder:
        gate = Gate(Path(folder))
        gate.jobs = ("aion.gaps",)
        gate.plane.answer = answer
        for actor in ACTORS:
            gate.principal(actor, "approve", rate=100_000)
        gate.write_policy()
        gate.start(log="warn")
        try:
            gate.send(command())
            process, counts = gate.gateway.process.pid, multiprocessing.Queue()
            before, began = cpu_s(process), time.time()
            keys = [gate.keys[actor] for actor in ACTORS]
            until = began + asked.seconds
            given = (gate.gateway.http, keys, asked.connections, until, counts)
            clients = [
                multiprocessing.Process(target=client, args=given)
                for _ in range(asked.clients)
            ]
            for one in clients:
                one.start()
            taken = [counts.get() for _ in clients]
            took, used = time.time() - began, cpu_s(process) - before
            good, bad = (sum(one[n] for one in taken) for n in range(2))
            print(
                f"control plane answers {answer}: {good} accepted, {bad} not, {good / took:.0f} a second, "
                f"{good / used:.0f} a CPU-second"
            )
            return good / used
        finally:
            gate.plane.failures.clear()
            gate.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--connections", type=int, default=32)
    asked = parser.parse_args()
    rounds = [(measure(503, asked), measure(200, asked)) for _ in range(asked.rounds)]
    accepted, carried_out = (statistics.median(rates) for rates in zip(*rounds))
    print(
        f"a CPU-second: {accepted:.0f} accepted, {carried_out:.0f} carried out too; medians"
    )


if __name__ == "__main__":
    main()
