"""Processes killed with -9 at moments that nobody chose, while events flow: nothing is lost, nothing is doubled."""

from __future__ import annotations

import random
import time
from pathlib import Path

from brokers import Brokers
from cluster import Place, Producing
from kills import Plan
from processes import Dev


def test_one_process_killed_at_random(place: Place, rng: random.Random):
    with Producing(place, count=200):
        for _ in range(6):
            run = place.run(group__instance__id="the-one")
            # Also while it starts, and before it has joined its group.
            time.sleep(rng.uniform(0, 2.5))
            run.kill()
    place.run(group__instance__id="the-one").wait_ready()
    place.wait_and_check()


def test_three_processes_and_every_way_to_die(place: Place, seed: int):
    """What `scripts/soak kills` does hundreds of times."""
    plan = Plan(place, seed)
    plan.round(kills=9)
    assert plan.kills() == 9


def test_dev_killed_whole(tmp_path: Path, rng: random.Random):
    """Broker, jobs and all in one process: the log is killed with those who read it."""
    dev = Dev(tmp_path)
    place = Place(Brokers(dev.kafka), tmp_path, "crash.events")
    place.lake = dev.data / "lake"
    start = ("--no-generator", "--catalog", place.catalog)
    try:
        dev.start(*start)
        with Producing(place, count=200):
            for _ in range(4):
                time.sleep(rng.uniform(0.5, 2))
                dev.kill()
                dev.start(*start)
        place.wait_and_check()
        assert dev.stop() == 0, dev.output()
    finally:
        dev.end()
