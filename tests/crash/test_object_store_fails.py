"""A lake on an object store that answers 500 or 503, loses requests, or does what it is asked and never says so, and
processes that are killed meanwhile."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cluster import Place, Producing
from object_store import BUCKET, Moto, Proxy
from processes import binary


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Moto(tmp_path)
    # For commands and readers, which go there straight.
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    yield store
    store.stop()


def on_objects(place: Place, endpoint: str, store: Moto) -> None:
    key = place.folder / "key"
    key.write_text("test\n")
    place.lake, place.storage = f"s3://{BUCKET}/events", store.environment()
    place.flush_age_s = 1
    place.more = (
        f'[lake.storage]\nendpoint = "{endpoint}"\nregion = "us-east-1"\n'
        f'access_key_id = "file:{key}"\nsecret_access_key = "file:{key}"\n'
        'allow_http = true\ntimeout = "2s"\n'
    )


def test_kills_while_the_store_fails(
    place: Place, store: Moto, rng: random.Random, seed: int
):
    proxy = Proxy(store, seed)
    on_objects(place, proxy.url(), store)
    with Producing(place, count=200):
        for _ in range(4):
            run = place.run(group__instance__id="the-one")
            run.wait_ready()
            proxy.fail_share = 0.25
            time.sleep(rng.uniform(2, 4))
            run.kill()
            proxy.fail_share = 0.0
            assert place.audit().code in (0, 8)
    assert proxy.failed > 0
    run = place.run(group__instance__id="the-one")
    run.wait_ready()
    # To the end through failures too, which only take longer.
    proxy.fail_share = 0.1
    lag = "aion_partition_lag_messages"
    run.wait(lambda: run.metric(lag) == 0, "all is stored")
    proxy.fail_share = 0.0
    place.wait_and_check()
    assert run.stop() == 0, run.output()
    for task in (["compact", "--min-files", "2"], ["checkpoint"], ["vacuum"]):
        where = ["--lake", place.lake, "--catalog", place.catalog]
        subprocess.run([binary(), "lake", *task, *where], check=True, timeout=60)
    place.check()


def test_a_stop_says_what_it_could_not_write(
    place: Place, store: Moto, monkeypatch: pytest.MonkeyPatch
):
    """The store takes what it gets and answers nothing: the process ends all the same, in time, and says so."""
    proxy = Proxy(store)
    on_objects(place, proxy.url(), store)
    monkeypatch.setenv("AION__DRAIN_S", "2")
    run = place.run()
    run.wait_ready()
    proxy.put_takes_s = 300
    place.produce(200)
    position = "aion_partition_position"
    run.wait(lambda: run.metric(position, topic=place.topic) >= 200, "all is read")
    start = time.monotonic()
    assert run.stop(signal.SIGTERM) == 1, run.output()
    assert time.monotonic() - start < 20
    said = run.output()
    wanted = f"rows that are not written: lake 0..50 of {place.topic}/0"
    assert wanted in said and "the next start reads them again" in said, said
    proxy.put_takes_s = 0.0
    place.run().wait_ready()
    place.wait_and_check()
