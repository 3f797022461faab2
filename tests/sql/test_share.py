"""What jobs keep of a processor beside a question that takes all that it gets: the rows that they store in a second."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from brokers import Embedded
from confluent_kafka import Producer
from events import decision, text
from processes import Process, free_port

TOPIC = "aion.router.decisions"
EVENTS = 3_000_000
PAIRS = 3
# As many each time: all of them are less than there are, however fast the machine is.
ROWS = 250_000
# Of the CPU time that the process gets: by their niceness, the threads of questions take a tenth of what one thread that is
# always busy has. As impolite as all others they would take a third at least.
LEAST_CPU = 0.75
# Of the rows: how much of a processor there is changes from second to second on a machine that has other work.
LEAST_ROWS = 0.4
TICKS = os.sysconf("SC_CLK_TCK")
MULTIPLY = (
    "with some as (select size from decisions limit 2000) select count(*) from "
    + ", ".join(f"some t{n}" for n in range(10))
    + " where t0.size + t9.size = 1"
)


@contextmanager
def one_processor() -> Iterator[None]:
    """What is started meanwhile has no more than that."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(ours)})
    yield
    os.sched_setaffinity(0, ours)


class Behind(Process):
    """An `aion run` that has one processor, and more to read than it can store: what a question takes, jobs miss."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "run.log")
        self.broker, self.lake = Embedded(folder / "broker"), folder / "lake"
        self.config, self.port = folder / "aion.toml", free_port()

    def start(self) -> None:
        self.broker.start()
        done = self.broker.bootstrap()
        assert done.returncode == 0, done.stdout + done.stderr
        self.produce()
        # A flush takes what is read of a partition at once, and there are some in the time that is measured.
        self.config.write_text(
            f'[kafka]\nbrokers = "{self.broker.brokers()}"\n'
            f'[lake]\nurl = "{self.lake}"\nflush_mib = 8\nflush_age_s = 1\n'
            f'[http]\nlisten = "{self.http}"\n'
            f'[sql.postgres]\nlisten = "127.0.0.1:{self.port}"\n'
            f'[[job]]\ntopic = "{TOPIC}"\nsinks = ["lake"]\n'
        )
        with one_processor():
            self.launch("run", "--config", self.config)
        self.wait_ready()

    def produce(self) -> None:
        """Sends a thousand events again and again, which takes less time than to make as many."""
        now, rng = datetime.now(UTC), random.Random(1)
        events = [decision(n, now, rng) for n in range(1000)]
        made = [(text(event), event["task_id"]) for event in events]
        settings = {"compression.type": "lz4", "linger.ms": 20}
        producer = Producer(self.broker.client("router") | settings)
        for _ in range(EVENTS // len(made)):
            for value, key in made:
                producer.produce(TOPIC, value, key)
            while len(producer) > 50_000:
                producer.poll(0.01)
        assert producer.flush(60) == 0

    def stored(self) -> int:
        return int(self.metric("aion_rows_stored_total"))

    def stores(self) -> tuple[int, float]:
        """Waits for so many rows more: how many it was, and how many seconds it took."""
        first, begun = self.stored(), time.monotonic()
        self.wait(lambda: self.stored() >= first + ROWS, f"{ROWS} rows are stored")
        return self.stored() - first, time.monotonic() - begun

    def cpu_s(self) -> tuple[float, float]:
        """CPU time until now: of the threads of questions, and of all others."""
        asking = others = 0
        for name, stat in self.threads().values():
            ticks = int(stat[11]) + int(stat[12])
            if name == "aion-sql":
                asking += ticks
            else:
                others += ticks
        return asking / TICKS, others / TICKS

    @contextmanager
    def multiplied(self) -> Iterator[None]:
        """Beside a ten-way cross join, which ends when it is cancelled."""
        where = f"host=127.0.0.1 port={self.port} user=me dbname=aion"
        with psycopg.connect(where) as connection, ThreadPoolExecutor(1) as client:
            join = client.submit(connection.execute, MULTIPLY)
            try:
                yield
            finally:
                connection.cancel()
            # Neither answered nor refused: it was at work all the while.
            with pytest.raises(psycopg.errors.QueryCanceled):
                join.result(60)

    def end(self) -> None:
        super().end()
        self.broker.stop()


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    behind = Behind(tmp_path)
    try:
        behind.start()
        yield behind
    finally:
        behind.end()


def rate(stored: list[tuple[int, float]]) -> float:
    """Rows a second."""
    return sum(rows for rows, _ in stored) / sum(seconds for _, seconds in stored)


@pytest.mark.skipif(
    os.getpriority(os.PRIO_PROCESS, 0) > 0,
    reason="in a run that is polite itself the threads of questions are hardly more so",
)
def test_rows_are_stored_beside_a_ten_way_cross_join_as_without_it(behind: Behind):
    behind.wait(behind.stored, "the first rows are stored")
    alone, beside, kept = [], [], []
    for _ in range(PAIRS):
        alone.append(behind.stores())
        with behind.multiplied():
            before = behind.cpu_s()
            beside.append(behind.stores())
            after = behind.cpu_s()
        asking, others = (b - a for a, b in zip(before, after, strict=True))
        kept.append(others / (asking + others))
    assert behind.stored() < EVENTS, "there was work to the end"
    told = f"{rate(alone):,.0f} rows a second alone and {rate(beside):,.0f} beside the join;"
    told += f" of the CPU time jobs kept {', '.join(f'{share:.2f}' for share in kept)}"
    print(told)
    assert statistics.median(kept) > LEAST_CPU, told
    assert rate(beside) > LEAST_ROWS * rate(alone), told
