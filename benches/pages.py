"""What /metrics/platform costs with 100,000 series, over HTTP: milliseconds and CPU time of a scrape, plain and compressed,
and what scrapes take from a process that reads a backlog at the same time.

    python benches/pages.py [--series 100000] [--events 3000000] [--scrapes 30] [--rounds 3]

Starts the embedded broker and one `aion run` that has the events of aion.metrics.runtime in the lake and in series: each
event first makes a series of its own. The page is asked for while nothing else happens. Then more events follow, and the log
is read anew by a process that nobody scrapes, one that is scraped once a second, and one that is scraped without a pause;
only the CPU time of `aion run` is counted. Needs AION_BIN or target/release/aion, and the example `broker` beside it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Producer

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from brokers import Embedded
from monitoring import samples
from processes import Process, wait

TOPIC, PAGE = "aion.metrics.runtime", "/metrics/platform"
METRICS = 50
SINKS = ["lake", "prometheus"]
# What a backlog is read with: nobody who scrapes, or somebody who rests so long between two scrapes.
PAUSES_S = {"unscraped": None, "once a second": 1.0, "without a pause": 0.0}


class Bench:
    """A broker, and `aion run` processes on it, one after the other."""

    def __init__(self, folder: Path, series: int) -> None:
        self.folder, self.series, self.sent, self.lakes = folder, series, 0, 0
        self.broker, self.run = Embedded(folder / "broker"), Process(folder / "run.log")
        self.broker.start()
        assert self.broker.bootstrap().returncode == 0
        self.events = [event(number) for number in range(series)]

    def start(self) -> None:
        """A process without a lake, which has all to read."""
        self.lakes += 1
        config = self.folder / "aion.toml"
        config.write_text(
            f'[kafka]\nbrokers = "{self.broker.address}"\n'
            f'[lake]\nurl = "{self.folder}/lake-{self.lakes}"\nflush_age_s = 1\n'
            f'[http]\nlisten = "{self.run.http}"\n[metrics]\nflush_age_s = 1\n'
            f"max_series_per_metric = {self.series}\nmax_series = {self.series}\n"
            f'[[job]]\ntopic = "{TOPIC}"\nsinks = {json.dumps(SINKS)}\n'
        )
        self.run.launch("run", "--config", config)
        self.run.wait_ready()

    def send(self, count: int) -> None:
        """Events of one series after the other."""
        producer = Producer({"bootstrap.servers": self.broker.address, "linger.ms": 20})
        for number in range(self.sent, self.sent + count):
            key = str(number % self.series)
            while True:
                try:
                    producer.produce(TOPIC, self.events[number % self.series], key)
                    break
                except BufferError:
                    producer.poll(0.05)
        assert producer.flush(120) == 0
        self.sent += count

    def scrape(self, is_compressed: bool = True) -> tuple[float, bytes]:
        """How many seconds a page took until its last byte, and the page."""
        headers = {"Accept-Encoding": "gzip"} if is_compressed else {}
        request = urllib.request.Request(f"http://{self.run.http}{PAGE}", None, headers)
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        return time.perf_counter() - began, body

    def shown(self) -> dict[str, float]:
        return samples(gzip.decompress(self.scrape()[1]).decode())

    def check(self) -> None:
        """Whoever is fast because it leaves some out isn't: all series, and all events in them."""
        of_events = "aion_runtime_requests_"

        def is_there() -> bool:
            page = self.shown()
            values = [v for name, v in page.items() if name.startswith(of_events)]
            return len(values) == self.series and sum(values) == self.sent

        wait(is_there, "every event is in its series", 60, self.run.output)

    def cpu_s(self) -> float:
        stat = Path(f"/proc/{self.run.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def scraped(self, pause_s: float | None):
        """The seconds of each scrape that was made meanwhile."""
        took: list[float] = []
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                took.append(self.scrape()[0])
                over.wait(pause_s)

        scraper = threading.Thread(target=work, daemon=True)
        if pause_s is not None:
            scraper.start()
        yield took
        over.set()
        if pause_s is not None:
            scraper.join()

    def end(self) -> None:
        self.run.end()
        self.broker.stop()


def event(number: int) -> str:
    """A counter of one user; no two of the same."""
    labels = {"code": number % 7, "user": f"user-{number}"}
    return json.dumps(
        {
            "component": f"router-{number % 5}",
            "metric": f"requests_{number % METRICS}_total",
            "kind": "counter",
            "value": 1,
            "labels": labels,
            "timestamp": datetime.now(UTC).isoformat(),
        }
    )


def told(took: list[float]) -> str:
    if not took:
        return "no scrape"
    middle, most = statistics.median(took) * 1e3, max(took) * 1e3
    return f"{len(took)} scrapes of {middle:.0f} ms (median), {most:.0f} ms (worst)"


def at_rest(bench: Bench, scrapes: int) -> None:
    """Pages of a process that has nothing else to do."""
    for is_compressed in (False, True):
        bench.scrape(is_compressed)
        used = bench.cpu_s()
        pages = [bench.scrape(is_compressed) for _ in range(scrapes)]
        used = (bench.cpu_s() - used) / scrapes * 1e3
        how = "gzip" if is_compressed else "plain"
        size = len(pages[-1][1]) / 1e6
        took = told([seconds for seconds, _ in pages])
        print(f"{how}: {took}, {used:.0f} ms of CPU each, {size:.2f} MB", flush=True)


def backlog(bench: Bench, pause_s: float | None) -> tuple[float, str]:
    """Events a second while the log is read anew, once all series are there: starting isn't in it."""
    stored = "aion_rows_stored_total"
    assert bench.run.stop() == 0
    bench.start()

    def reached(wanted: int) -> float:
        while (count := bench.run.metric(stored) / len(SINKS)) < wanted:
            time.sleep(0.02)
        return count

    first = reached(bench.series + 1)
    began, used = time.monotonic(), bench.cpu_s()
    with bench.scraped(pause_s) as took:
        count = reached(bench.sent) - first
        seconds, used = time.monotonic() - began, bench.cpu_s() - used
    bench.check()
    rate = count / seconds
    cost = used / count * 1e9
    return rate, f"{rate:,.0f} events/s, {cost:,.0f} ns of CPU an event, {told(took)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--scrapes", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    rates: dict[str, list[float]] = {how: [] for how in PAUSES_S}
    with tempfile.TemporaryDirectory(prefix="aion-pages-") as name:
        bench = Bench(Path(name), asked.series)
        try:
            bench.start()
            bench.send(asked.series)
            bench.check()
            at_rest(bench, asked.scrapes)
            bench.send(asked.events)
            for _ in range(asked.rounds):
                for how, pause_s in PAUSES_S.items():
                    rate, what = backlog(bench, pause_s)
                    rates[how].append(rate)
                    print(f"{how}: {what}", flush=True)
        finally:
            bench.end()
    medians = {how: statistics.median(all_of_it) for how, all_of_it in rates.items()}
    most = medians["unscraped"]
    shares = (f"{how} {rate / most:.2f}" for how, rate in medians.items())
    print(f"medians, to that of the unscraped: {', '.join(shares)}")


if __name__ == "__main__":
    main()
