"""A topic into a Delta lake, by `aion run` and by Spark Structured Streaming: CPU time per event, side by side.

    python benches/peers.py [--events 2000000] [--warm-up 500000] [--rounds 3]

Starts Apache Kafka, and fills one topic with few events and one with those and as many more as are asked for. Each
contender reads each topic from its beginning to its end, all its processes counted (user and system); the cost of an
event is the difference between the two, so what starting takes, and a virtual machine's warming up, isn't in it.
Needs AION_BIN or target/release/aion.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "support"))

from cluster import Cluster, catalog
from deltalake import DeltaTable
from processes import Process, binary

TOPIC = "aion.router.decisions"


class Kafka:
    """One broker with one topic of so many events."""

    def __init__(self, folder: Path, events: int) -> None:
        self.folder, self.events = folder, events
        self.cluster = Cluster(folder / "kafka", nodes=1, is_open=True)
        self.cluster.start()
        own = catalog(folder / "catalog", TOPIC, "decisions")
        self.catalog = own
        done = self.cluster.bootstrap("--catalog", own, "--replication", "1")
        assert done.returncode == 0, done.stdout + done.stderr
        command = [binary(), "generate", "--topic", TOPIC, "--count", str(events)]
        command += ["--to", self.cluster.brokers()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def cpu_s(process: subprocess.Popen) -> float:
    """What it and those that it waited for have used, once it ends."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.args
    return usage.ru_utime + usage.ru_stime


def by_aion(kafka: Kafka, folder: Path) -> float:
    run = Process(folder / "run.log")
    config = folder / "aion.toml"
    config.write_text(
        f'catalog = "{kafka.catalog}"\n[kafka]\nbrokers = "{kafka.cluster.brokers()}"\n'
        f'[lake]\nurl = "{folder / "lake"}"\n[http]\nlisten = "{run.http}"\n'
        f'[[job]]\ntopic = "{TOPIC}"\nsinks = ["lake"]\n'
    )
    run.launch("run", "--config", config)
    run.wait_ready()
    stored = "aion_rows_stored_total"
    while run.metric(stored) < kafka.events:
        time.sleep(0.5)
    run.process.send_signal(signal.SIGTERM)
    used = cpu_s(run.process)
    check(folder / "lake" / "decisions", kafka.events)
    return used


def by_spark(kafka: Kafka, folder: Path) -> float:
    job = ["topic_to_delta.py", "--brokers", kafka.cluster.brokers(), "--topic", TOPIC]
    command = [ROOT / "scripts" / "spark", *job, "--to", folder]
    with (folder / "spark.log").open("wb") as log:
        used = cpu_s(subprocess.Popen(command, stdout=log, stderr=log))
    check(folder / "table", kafka.events)
    return used


def check(table: Path, events: int) -> None:
    """Whoever is fast because it loses some isn't."""
    found = DeltaTable(table).to_pyarrow_dataset().count_rows()
    assert found == events, (table, found, events)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--warm-up", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    contenders = {"aion": by_aion, "spark": by_spark}
    costs: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory(prefix="aion-peers-") as name:
        logs = []
        try:
            for events in (asked.warm_up, asked.warm_up + asked.events):
                folder = Path(name) / str(events)
                folder.mkdir()
                logs.append(Kafka(folder, events))
            for number in range(asked.rounds):
                for contender, read in contenders.items():
                    used = []
                    for kafka in logs:
                        folder = kafka.folder / f"{contender}-{number}"
                        folder.mkdir()
                        used.append(read(kafka, folder))
                    cost = (used[1] - used[0]) / asked.events * 1e9
                    costs[contender].append(cost)
                    print(
                        f"{contender}: {used[0]:.1f} and {used[1]:.1f} s of CPU, {cost:,.0f} ns an event",
                        flush=True,
                    )
        finally:
            for kafka in logs:
                kafka.cluster.stop()
    medians = {name: statistics.median(values) for name, values in costs.items()}
    ratio = medians["spark"] / medians["aion"]
    print(
        ", ".join(f"{name} {cost:,.0f} ns" for name, cost in medians.items()),
        f"an event; medians: {ratio:.1f} times",
    )


if __name__ == "__main__":
    main()
