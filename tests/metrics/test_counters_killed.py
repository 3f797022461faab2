"""Processes that are killed while counters rise: nobody who scrapes sees one fall, and in the end each is the exact sum."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from brokers import Embedded
from counting import LEAST_POINTS, Counting
from monitoring import Prometheus, scrape_config
from processes import wait

KILLS = 20


@pytest.fixture
def seed() -> int:
    seed = int(os.environ.get("AION_SEED") or random.randrange(2**31))
    print(f"AION_SEED={seed}")
    return seed


@pytest.fixture
def counting(tmp_path: Path, seed: int):
    broker = Embedded(tmp_path / "broker")
    broker.start()
    counting = Counting(tmp_path, broker, seed)
    yield counting
    counting.end()
    broker.stop()


@pytest.fixture
def prometheus(tmp_path: Path):
    prometheus = Prometheus(tmp_path / "prometheus")
    yield prometheus
    prometheus.stop()


def test_no_counter_falls_and_the_sum_is_exact(
    counting: Counting, prometheus: Prometheus
):
    counting.start()
    prometheus.start(scrape_config([seat.http for seat in counting.seats]))
    for _ in range(KILLS):
        counting.kill_one()
    counting.settle()
    print(counting.summary())
    assert counting.kills.total() == KILLS
    assert len(counting.points()) >= LEAST_POINTS, "few died around a checkpoint"
    assert counting.moves >= 1, "no partition moved"
    assert counting.sent > 1_000 and counting.scrapes > 20

    # The same as Prometheus has it: the dead show nothing any more, and what the living show adds up.
    wanted = sum(v for series, v in counting.wanted.items() if "requests" in series)
    total = "sum(aion_runtime_requests_total)"
    wait(lambda: prometheus.value(total) == wanted, "Prometheus has the sum", 30)
    everything = '{__name__=~"aion_runtime_.*(_total|_bucket|_count)"}'
    resets = f"sum(resets({everything}[1h]))"
    assert prometheus.value(resets) == 0
