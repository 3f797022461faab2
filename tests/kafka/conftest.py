"""One secured three-node Kafka for the tests of a file, and a topic of its own for each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cluster import Cluster, Place
from processes import wait


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("kafka") / "cluster", nodes=3)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest):
    """A topic named after the test, made by `aion bootstrap`."""
    name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_")).strip("-")
    settings = getattr(request.node.get_closest_marker("topic"), "kwargs", {})
    place = Place(cluster, tmp_path, f"test.{name[:60]}", **settings)
    place.bootstrap()
    # Rules reach the brokers one after the other.
    wait(place.may_write, "the router may write", 20)
    yield place
    place.end()
