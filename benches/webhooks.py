"""Webhooks from Kafka to a receiver on this machine: deliveries per second of the process's CPU time, plain and with TLS;
how late they come at a tenth of that load, with the broker's log on disk and in memory; memory with many endpoints.

    python benches/webhooks.py [--events 200000] [--rounds 3] [--rate 2000] [--endpoints 1000] [speed|tls|lateness|memory ...]

Starts the embedded broker, one `aion run` that does nothing but send, and a receiver in Go that only counts; each is a process
of its own, and only the CPU time of `aion run` is counted. Cursors and the records of all attempts are written as always.
Needs AION_BIN or target/release/aion, and the example `broker` beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from authority import Authority
from brokers import Embedded
from counters import Receiver
from processes import Process, wait
from receivers import policy

PARTITIONS = 4
# What is written here is on no disk.
MEMORY = Path("/dev/shm")


class Bench:
    """A broker, and `aion run` processes on it, one after the other."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.broker = folder, Embedded(folder / "broker")
        self.broker.start()
        assert self.broker.bootstrap().returncode == 0
        self.run = Process(folder / "run.log")
        self.policy = folder / "webhooks.yaml"
        self.config = folder / "aion.toml"
        self.config.write_text(
            f'[kafka]\nbrokers = "{self.broker.address}"\n[lake]\nurl = "{folder}/lake"\n'
            f'[http]\nlisten = "{self.run.http}"\n[webhooks]\npolicy = "{self.policy}"\n'
            '[[job]]\ntopic = "aion.gaps"\nsinks = ["lake"]\nname = "other"\n'
        )

    def start(self, entries: list[dict]) -> None:
        """Starts to send, by a policy whose endpoints get all of `bench.*`."""
        usual = {"topics": ["bench.*"], "max_in_flight": 64}
        policy(self.policy, *({**usual, **entry} for entry in entries))
        self.run.launch("run", "--config", self.config)
        self.run.wait_ready()

        def is_born() -> bool:
            text = self.run.get("/metrics")[1]
            lines = [one for one in text.splitlines() if 'state="waiting"' in one]
            return len(lines) == len(entries) and all(one[-2:] == " 0" for one in lines)

        self.run.wait(is_born, "the endpoints are born")

    def topic(self, name: str) -> None:
        config = {"message.timestamp.type": "LogAppendTime"}
        new = NewTopic(name, PARTITIONS, 1, config=config)
        self.broker.admin.create_topics([new])[name].result(30)

    def producer(self, **more: object) -> Producer:
        return Producer({"bootstrap.servers": self.broker.address, **more})

    def fill(self, topic: str, count: int) -> None:
        self.topic(topic)
        producer = self.producer(**{"linger.ms": 20})
        for n in range(count):
            while True:
                try:
                    producer.produce(topic, event(n), f"task-{n}")
                    break
                except BufferError:
                    producer.poll(0.05)
        assert producer.flush(120) == 0

    def cpu_s(self) -> float:
        stat = Path(f"/proc/{self.run.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self, which: str) -> float:
        status = Path(f"/proc/{self.run.process.pid}/status").read_text()
        (line,) = [one for one in status.splitlines() if one.startswith(which)]
        return int(line.split()[1]) / 1024

    def end(self) -> None:
        self.run.end()
        self.broker.stop()


def event(n: int) -> str:
    """About as long as a decision of the router is."""
    return json.dumps(
        {
            "event_id": f"0198a5e2-7c1b-7d3e-9a51-{n:012d}",
            "task_id": f"task-{n}",
            "tenant_id": "acme",
            "intent": "code.review",
            "route": "cloud",
            "reason": "input above the local limit",
            "tier": "internal",
            "timestamp": "2026-03-14T09:26:54.001Z",
            "size": 48200,
            "latency_budget_ms": 20000,
            "engine_model": "aion-large",
            "engine_version": "2026.03.1",
        }
    )


@contextmanager
def running(folder: Path, tls: Authority | None = None) -> Iterator[tuple]:
    """A bench and its receiver, which end with it."""
    bench = Bench(folder)
    receiver = Receiver(folder.parent, tls.certificate() if tls else None)
    try:
        yield bench, receiver
    finally:
        bench.end()
        receiver.close()


def speed(
    folder: Path, asked: argparse.Namespace, tls: Authority | None = None
) -> None:
    with running(folder, tls) as (bench, receiver):
        entry = {"id": "one", "url": f"{receiver.url}/one"}
        if tls:
            entry["tls"] = {"ca": str(tls.ca)}
        bench.start([entry])
        bench.run.stop()
        rates, done = [], 0

        def wait_for(count: int) -> None:
            has = lambda: receiver.counts().get("one", 0) >= count
            wait(has, f"{count} deliveries", 300, bench.run.output)

        for number in range(asked.rounds):
            bench.fill(f"bench.{number}", asked.events)
            bench.start([entry])
            # Not the start of the process.
            wait_for(done + asked.events // 10)
            began, used = time.monotonic(), bench.cpu_s()
            count = receiver.counts()["one"]
            done += asked.events
            wait_for(done)
            took, used = time.monotonic() - began, bench.cpu_s() - used
            count = done - count
            rates.append(count / used)
            print(
                f"  {count / used:,.0f} per CPU-second, {count / took:,.0f} per second"
            )
            bench.run.stop()
        how = "with TLS" if tls else "plain"
        print(f"{how}: {statistics.median(rates):,.0f} per CPU-second (median)")


def lateness(folder: Path, asked: argparse.Namespace, where: str) -> None:
    with running(folder) as (bench, receiver):
        bench.start([{"id": "one", "url": f"{receiver.url}/one"}])
        bench.topic("bench.paced")
        producer = bench.producer(**{"linger.ms": 0})
        warm, end = time.monotonic() + 10, time.monotonic() + 10 + asked.seconds
        start, sent, is_warm = time.monotonic(), 0, False
        while (now := time.monotonic()) < end:
            if not is_warm and now > warm:
                is_warm = True
                receiver.ages()
            while sent < (now - start) * asked.rate:
                producer.produce("bench.paced", event(sent), f"task-{sent}")
                sent += 1
            producer.poll(0.001)
        assert producer.flush(60) == 0
        time.sleep(2)
        ages = receiver.ages()
        told = ", ".join(
            f"{name} {ages[name]:.1f} ms" for name in ("p50", "p99", "max")
        )
        print(
            f"append to arrival at {asked.rate:,}/s, the log {where}: {told}, of {ages['count']:,.0f}"
        )


def memory(folder: Path, asked: argparse.Namespace) -> None:
    with running(folder) as (bench, receiver):
        bench.start([{"id": "none", "url": receiver.url, "topics": ["none"]}])
        bare = bench.memory_mib("VmRSS")
        bench.run.stop()
        bench.start(
            [
                {"id": f"e{n}", "url": f"{receiver.url}/m/{n}"}
                for n in range(asked.endpoints)
            ]
        )
        born = bench.memory_mib("VmRSS")
        bench.fill("bench.memory", 200)
        wanted = 200 * asked.endpoints
        wait(lambda: receiver.counts().get("m", 0) >= wanted, "all is delivered", 600)
        peak, now = bench.memory_mib("VmHWM"), bench.memory_mib("VmRSS")
        print(
            f"{asked.endpoints:,} endpoints: {bare:.0f} MiB without them, {born:.0f} MiB with them, "
            f"{now:.0f} MiB after {wanted:,} deliveries; {peak:.0f} MiB at most"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", help="all of it, if nothing is said")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--endpoints", type=int, default=1_000)
    asked = parser.parse_args()
    what = asked.what or ["speed", "tls", "lateness", "memory"]
    with tempfile.TemporaryDirectory(prefix="aion-bench-") as name:
        folder = Path(name)
        if "speed" in what:
            speed(folder / "speed", asked)
        if "tls" in what:
            speed(folder / "tls", asked, Authority(folder))
        if "lateness" in what:
            lateness(folder / "lateness", asked, "on disk")
        if "memory" in what:
            memory(folder / "memory", asked)
    if "lateness" in what and MEMORY.exists():
        with tempfile.TemporaryDirectory(prefix="aion-bench-", dir=MEMORY) as name:
            lateness(Path(name) / "lateness", asked, "in memory")


if __name__ == "__main__":
    main()
