"""Events that count something, processes of `aion run` that add them up and die, and a scraper that watches them."""

from __future__ import annotations

import json
import random
import re
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from brokers import Brokers
from confluent_kafka import Producer
from monitoring import samples
from processes import Process, wait

TOPIC = "aion.metrics.runtime"
# What a histogram's events measure: below, between and above some of its bounds.
WAITS = (0.125, 4)
WAIT = "aion_runtime_wait_seconds"
# The crash points around a checkpoint: within it, and between it and the page.
POINTS = (
    "prometheus.before_put",
    "prometheus.after_put",
    "lake.within_write",
    "lake.after_stage",
    "lake.after_link",
    "job.before_offset_commit",
    "job.assigned",
)
# So many of them are met in each run.
LEAST_POINTS = 3


class Counting:
    """A load of counters and histograms, and the processes that share it."""

    def __init__(
        self, folder: Path, broker: Brokers, seed: int, seats: int = 2
    ) -> None:
        self.folder, self.broker = folder, broker
        self.rng = random.Random(seed)
        self.seats = [Process(folder / f"seat-{n}.log") for n in range(seats)]
        # What was acknowledged, by the series it belongs to; and observations by component and value.
        self.wanted: Counter[str] = Counter()
        self.observed: Counter[tuple[str, float]] = Counter()
        # Kills by how, and how often a partition was seen with another process than before.
        self.kills: Counter[str] = Counter()
        self.owners: dict[str, int] = {}
        self.moves = 0
        self.sent = 0
        self.falls: list[str] = []
        self.scrapes = 0
        self.over = threading.Event()
        self.threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self.produce, self.scrape)
        ]
        self.errors: list[BaseException] = []

    def start(self) -> None:
        done = self.broker.bootstrap()
        assert done.returncode == 0, done.stdout + done.stderr
        for seat in self.seats:
            self.launch(seat)
        for thread in self.threads:
            thread.start()

    def launch(self, seat: Process, **plan: str) -> None:
        number = self.seats.index(seat)
        file = self.folder / f"seat-{number}.toml"
        file.write_text(
            f'[kafka]\nbrokers = "{self.broker.brokers()}"\n'
            '[kafka.properties]\n"session.timeout.ms" = 2000\n"heartbeat.interval.ms" = 400\n'
            f'[lake]\nurl = "{self.folder / "lake"}"\n'
            f'[http]\nlisten = "{seat.http}"\n'
            "[metrics]\nflush_age_s = 0\n"
            f'[[job]]\ntopic = "{TOPIC}"\nsinks = ["prometheus"]\n'
        )
        seat.launch("run", "--config", file, **plan)

    def points(self) -> Counter[str]:
        """The crash points that processes died at, and how often."""
        logs = "".join(seat.output() for seat in self.seats)
        return Counter(re.findall(r"^crashed at (\S+)", logs, re.MULTILINE))

    def summary(self) -> str:
        """What was done to the processes, in words."""
        kills = ", ".join(f"{count} {how}" for how, count in sorted(self.kills.items()))
        points = self.points()
        return (
            f"kills: {kills}; {points.total()} visits of {len(points)} points: {dict(points)}; "
            f"{self.moves} moves of partitions"
        )

    def kill_one(self) -> None:
        """Kills a process at a moment that nobody chose, or has it die at a point around a checkpoint: until some
        points have been met, always that."""
        seat = self.rng.choice(self.seats)
        if self.rng.random() < 0.3 or len(self.points()) < LEAST_POINTS:
            self.kill(seat)
            point = self.rng.choice(POINTS)
            self.launch(seat, crash_at=f"{point}:{self.rng.choice((1, 2, 5, 9))}")
            self.await_death(seat, self.rng.uniform(1.5, 3))
        else:
            self.rest(0.3, 2)
        has_died = seat.process.poll() is not None
        self.kills["dead at a point before" if has_died else "kill -9"] += 1
        self.kill(seat)
        self.launch(seat)

    def kill(self, seat: Process) -> None:
        code = seat.process.poll()
        assert code in (None, -6), f"ended with {code}\n{seat.output()[-3000:]}"
        seat.kill()

    def await_death(self, seat: Process, most_s: float) -> None:
        """Until it has met its point, or that has become unlikely."""
        assert not self.errors, self.errors
        with suppress(subprocess.TimeoutExpired):
            seat.process.wait(most_s)

    def rest(self, least_s: float, most_s: float) -> None:
        assert not self.errors, self.errors
        time.sleep(self.rng.uniform(least_s, most_s))

    def produce(self) -> None:
        rng = random.Random(7)
        producer = Producer(
            self.broker.client("router", enable__idempotence=True, log_level=2)
        )
        try:
            while not self.over.wait(0.05):
                for _ in range(40):
                    self.send(producer, rng)
                assert producer.flush(60) == 0
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.errors.append(error)

    def send(self, producer: Producer, rng: random.Random) -> None:
        component = f"router-{rng.randrange(6)}"
        if rng.random() < 0.2:
            kind, metric, value = "histogram", "wait_seconds", rng.choice(WAITS)
            labels = {}
            series = f'{WAIT}_sum{{component="{component}"}}'
        else:
            kind, metric, value = "counter", "requests_total", rng.randrange(10)
            labels = {"code": rng.choice([200, 500])}
            inner = f'code="{labels["code"]}",component="{component}"'
            series = f"aion_runtime_requests_total{{{inner}}}"
        event = {
            "component": component,
            "metric": metric,
            "kind": kind,
            "value": value,
            "labels": labels,
            "timestamp": datetime.now(UTC).isoformat(),
        }

        def acknowledged(error, _message) -> None:
            if error:
                self.errors.append(AssertionError(error))
            self.wanted[series] += value
            self.sent += 1
            if kind == "histogram":
                self.observed[component, value] += 1

        text = json.dumps(event)
        producer.produce(TOPIC, text, component, on_delivery=acknowledged)
        producer.poll(0)

    def pages(self) -> list[dict[str, float]]:
        """What each process shows; nothing of those that are down."""
        pages = []
        for seat in self.seats:
            try:
                url = f"http://{seat.http}/metrics/platform"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    pages.append(samples(answer.read().decode()))
            except OSError:
                pages.append({})
        return pages

    def scrape(self) -> None:
        """What a Prometheus does, only more often: a series of a process must never be less than it was."""
        seen: list[dict[str, float]] = [{} for _ in self.seats]
        try:
            while not self.over.wait(0.05):
                pages = self.pages()
                self.look_who_owns(pages)
                for before, page in zip(seen, pages):
                    self.scrapes += bool(page)
                    for series, value in page.items():
                        name = series.split("{")[0]
                        if not name.endswith(("_total", "_bucket", "_sum", "_count")):
                            continue
                        if value < before.get(series, 0):
                            was = before[series]
                            self.falls.append(f"{series}: {was} then {value}")
                        before[series] = value
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self.errors.append(error)

    def look_who_owns(self, pages: list[dict[str, float]]) -> None:
        """A partition is on the page of the process that has it."""
        for series in {series for page in pages for series in page}:
            seats = [seat for seat, page in enumerate(pages) if series in page]
            if series.startswith("aion_metrics_next_offset{") and len(seats) == 1:
                self.moves += self.owners.get(series, seats[0]) != seats[0]
                self.owners[series] = seats[0]

    def shown(self) -> Counter[str]:
        """What all processes show together, over the partitions."""
        total: Counter[str] = Counter()
        for page in self.pages():
            for series, value in page.items():
                whole, count = re.subn(r',partition="[^"]*"', "", series)
                if count and series.startswith("aion_runtime_"):
                    total[whole] += value
        return total

    def wrong_histograms(self, shown: Counter[str]) -> list[str]:
        """Where a count or a bucket isn't the number of observations that belong in it."""
        pattern = re.compile(
            rf'{WAIT}_(count|bucket){{component="([^"]*)"(?:,le="([^"]*)")?}}'
        )
        found = [(pattern.fullmatch(series), value) for series, value in shown.items()]
        wrong, bounds = [], Counter()
        for match, value in found:
            if not match:
                continue
            _, component, le = match.groups()
            bounds[component] += le is not None
            bound = float(le or "inf")
            below = [self.observed[component, wait] for wait in WAITS if wait <= bound]
            if value != sum(below):
                wrong.append(f"{match[0]}: {value}, of {sum(below)}")
        components = {component for component, _ in self.observed}
        assert components and min(bounds[one] for one in components) > 5, bounds
        return wrong

    def settle(self, seconds: float = 60) -> None:
        """Stops the load, waits until all of it is shown, and holds it against what was acknowledged."""
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        assert not self.errors, self.errors

        # One look for all that follows: a partition that moves is for a moment on no page.
        shown: Counter[str] = Counter()

        def is_there() -> bool:
            nonlocal shown
            shown = self.shown()
            return all(shown[series] >= value for series, value in self.wanted.items())

        wait(is_there, "every event is in the series", seconds, self.seats[0].output)
        wrong = {
            series: (value, shown[series])
            for series, value in self.wanted.items()
            if shown[series] != value
        }
        assert not wrong, f"wanted, shown: {wrong}"
        wrong_histograms = self.wrong_histograms(shown)
        assert not wrong_histograms, wrong_histograms
        assert not self.falls, self.falls[:5]

    def end(self) -> None:
        self.over.set()
        for seat in self.seats:
            seat.end()
