"""Commands through a gateway, with acks=all: requests per second, and per second of the gateway's CPU time.

    python benches/inbound.py [--seconds 10] [--clients 2] [--connections 32]

Starts the embedded broker and one gateway. Each client process keeps its connections busy with commands that are
all new, signed, with an API key; the control plane takes each. Needs AION_BIN or target/release/aion.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from gates import Gate, command, signature


def client(address: str, key: str, connections: int, until: float, counts) -> None:
    """Keeps connections busy until the time is up."""
    taken, lock = [0, 0], threading.Lock()

    def work() -> None:
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

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.put(taken)


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--connections", type=int, default=32)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gate = Gate(Path(folder))
        gate.start(log="warn")
        try:
            gate.send(command())
            counts = multiprocessing.Queue()
            process, before = gate.gateway.process.pid, 0.0
            before, began = cpu_s(process), time.time()
            until = began + asked.seconds
            given = (
                gate.gateway.http,
                gate.keys["reviewer"],
                asked.connections,
                until,
                counts,
            )
            clients = [
                multiprocessing.Process(target=client, args=given)
                for _ in range(asked.clients)
            ]
            for one in clients:
                one.start()
            taken = [counts.get() for _ in clients]
            took, used = time.time() - began, cpu_s(process) - before
            good, bad = (sum(one[n] for one in taken) for n in range(2))
            print(f"{good} accepted, {bad} not, in {took:.1f} s: {good / took:.0f}/s")
            print(
                f"{used:.1f} s of CPU: {good / used:.0f} per CPU-second, carrying out included"
            )
        finally:
            gate.plane.failures.clear()
            gate.end()


if __name__ == "__main__":
    main()
