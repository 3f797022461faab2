"""How soon an event is seen by SQL: by the metric that the process exports, and by the clock of a client.

    python benches/freshness.py [--rate 1000] [--seconds 60]

`aion dev` takes so many events a second from `aion generate`. Beside them a client sends ten a second and asks over
PostgreSQL's protocol, without a pause, how far each partition can be seen. From before it sends until after an answer
has the event is one measurement: sending, acknowledging and the question itself are in it. The metric begins at the
append instead, and has each batch's oldest row.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from confluent_kafka import Producer

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from events import text
from monitoring import samples
from processes import Dev, binary

TOPIC = "aion.router.decisions"
METRIC = "aion_sql_visible_after_seconds"
SEEN = """select _partition, max(_offset) from decisions
    where timestamp > now() - interval '30 seconds' group by 1"""


class Client:
    """Sends events and looks for them."""

    def __init__(self, dev: Dev) -> None:
        self.producer = Producer({"bootstrap.servers": dev.kafka, "linger.ms": 0})
        self.postgres = f"postgresql://bench@{dev.postgres}/aion"
        # By place: when it was about to be sent.
        self.waiting: dict[tuple[int, int], float] = {}
        self.took: list[float] = []
        self.asked: list[float] = []
        self.lock, self.over = threading.Lock(), threading.Event()

    def send(self) -> None:
        number = 0
        while not self.over.wait(0.1):
            number += 1
            task = f"probe-{number}"
            event = {"task_id": task, "intent": "chat", "route": "local"}
            event |= {"tier": "public", "timestamp": datetime.now(UTC).isoformat()}
            begun = time.monotonic()

            def acknowledged(error, message, begun=begun) -> None:
                assert not error, error
                with self.lock:
                    self.waiting[message.partition(), message.offset()] = begun

            self.producer.produce(TOPIC, text(event), task, on_delivery=acknowledged)
            self.producer.flush(10)

    def look(self) -> None:
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            while not self.over.is_set():
                begun = time.monotonic()
                seen = dict(connection.execute(SEEN).fetchall())
                now = time.monotonic()
                self.asked.append(now - begun)
                with self.lock:
                    found = [p for p in self.waiting if p[1] <= seen.get(p[0], -1)]
                    self.took += [now - self.waiting.pop(place) for place in found]


def buckets(dev: Dev) -> dict[float, float]:
    """The histogram of table `decisions`, by upper bound."""
    name = f'{METRIC}_bucket{{table="decisions"'
    page = samples(dev.get("/metrics")[1])
    return {
        float(series.split(',le="')[1].split('"')[0].replace("+Inf", "inf")): count
        for series, count in page.items()
        if series.startswith(name)
    }


def quantile(before: dict, after: dict, wanted: float) -> str:
    """Between which bounds it lies."""
    counts = {bound: after[bound] - before.get(bound, 0) for bound in sorted(after)}
    total, low = counts[float("inf")], 0.0
    for bound, count in counts.items():
        if count >= wanted * total:
            return f"{1000 * low:.0f} to {1000 * bound:.0f} ms"
        low = bound
    return "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        dev = Dev(Path(name))
        dev.start("--no-generator")
        events = subprocess.Popen(
            [binary(), "generate", "--to", dev.kafka, "--rate", str(asked.rate)]
            + ["--count", str(asked.rate * (asked.seconds + 60))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        client = Client(dev)
        threads = [threading.Thread(target=t) for t in (client.send, client.look)]
        try:
            time.sleep(10)
            before = buckets(dev)
            for thread in threads:
                thread.start()
            time.sleep(asked.seconds)
            client.over.set()
            for thread in threads:
                thread.join()
            tell(asked, client, before, buckets(dev), dev)
        finally:
            client.over.set()
            events.kill()
            dev.end()


def tell(asked, client: Client, before: dict, after: dict, dev: Dev) -> None:
    counted = after[float("inf")] - before.get(float("inf"), 0)
    print(f"{asked.rate} events a second for {asked.seconds} s, load {os.getloadavg()}")
    rows = dev.metric("aion_rows_stored_total", topic=TOPIC)
    print(f"metric, {counted:.0f} batches of decisions ({rows:.0f} rows stored):")
    for part in (0.5, 0.95, 0.99):
        print(f"  p{100 * part:.0f}: {quantile(before, after, part)}")
    whole = sorted(client.took)
    print(f"client, {len(whole)} events, {len(client.waiting)} not seen yet:")
    for part in (0.5, 0.95, 0.99):
        print(f"  p{100 * part:.0f}: {1000 * whole[int(part * len(whole))]:.0f} ms")
    print(f"  a question takes {1000 * statistics.median(client.asked):.0f} ms")


if __name__ == "__main__":
    main()
