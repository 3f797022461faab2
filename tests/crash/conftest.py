"""The embedded broker as a process of its own, or Apache Kafka, and a topic for each test. The seed is printed when a test
fails: AION_SEED brings it back."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from both_stores import BothStores
from brokers import Embedded
from clickhouse.engine import Engine
from cluster import Cluster, Place


@pytest.fixture
def seed() -> int:
    seed = int(os.environ.get("AION_SEED") or random.randrange(2**31))
    print(f"AION_SEED={seed}")
    return seed


@pytest.fixture
def rng(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def broker(tmp_path: Path):
    broker = Embedded(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def kafka(tmp_path: Path):
    cluster = Cluster(tmp_path / "kafka", nodes=1, is_open=True)
    cluster.start()
    yield cluster
    cluster.stop()


def small(place: Place) -> Place:
    """Flushes as often as it can and is missed by its group after 2 s, so that much happens in little time."""
    place.flush_age_s = 0
    place.session_ms = 2000
    place.bootstrap()
    return place


@pytest.fixture
def place(broker: Embedded, tmp_path: Path, request: pytest.FixtureRequest):
    settings = getattr(request.node.get_closest_marker("topic"), "kwargs", {})
    place = small(Place(broker, tmp_path, "crash.events", **settings))
    yield place
    place.end()


@pytest.fixture
def engine(tmp_path: Path):
    engine = Engine(tmp_path / "engine")
    yield engine
    engine.kill()


# Which broker, and whether one job writes to both stores.
BOTH_STORES = {
    "a-job-each": ("broker", False),
    "one-job": ("broker", True),
    "apache-kafka": ("kafka", False),
}


@pytest.fixture(params=BOTH_STORES)
def both_stores(engine: Engine, tmp_path: Path, request: pytest.FixtureRequest):
    """Written by a job for each of the stores, or by one for both."""
    name, by_one_job = BOTH_STORES[request.param]
    broker = request.getfixturevalue(name)
    place = BothStores(broker, tmp_path, "crash.events", engine, by_one_job=by_one_job)
    place.is_in_haste = True
    yield small(place)
    place.end()
