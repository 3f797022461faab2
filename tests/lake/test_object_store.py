"""The lake on an object store: kept through kills and failures, read by others, and refused where puts aren't safe."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from deltalake import DeltaTable
from object_store import BUCKET, KEYS, Moto, Proxy
from processes import Dev, Process, binary

URL = f"s3://{BUCKET}/events"


@pytest.fixture
def store(tmp_path: Path):
    store = Moto(tmp_path)
    yield store
    store.stop()


@pytest.fixture
def dev(tmp_path: Path):
    """Only its broker is used."""
    dev = Dev(tmp_path)
    dev.start("--rate", "500")
    yield dev
    dev.end()


def configuration(folder: Path, dev: Dev, run: Process, endpoint: str) -> Path:
    (folder / "key").write_text("test\n")
    file = folder / "aion.toml"
    file.write_text(
        f'[kafka]\nbrokers = "{dev.kafka}"\n'
        # Short, so that a killed process' partitions don't wait long for the next one.
        "[kafka.properties]\n'session.timeout.ms' = 6000\n'heartbeat.interval.ms' = 500\n"
        f'[http]\nlisten = "{run.http}"\n'
        f'[lake]\nurl = "{URL}"\nflush_age_s = 1\nupkeep_every_m = 0\n'
        f'[lake.storage]\nendpoint = "{endpoint}"\nregion = "us-east-1"\nallow_http = true\n'
        f'access_key_id = "file:{folder}/key"\nsecret_access_key = "file:{folder}/key"\n'
        '[[job]]\ntopic = "aion.tasks.lifecycle"\nsinks = ["lake"]\n'
    )
    return file


def environment(store: Moto) -> dict[str, str]:
    where = {"AWS_ENDPOINT_URL": store.url(), "AWS_ALLOW_HTTP": "true"}
    return {**KEYS, **where, "AWS_REGION": "us-east-1"}


def aion(store: Moto, *arguments: str) -> str:
    done = subprocess.run(
        [binary(), *arguments, "--lake", URL],
        env={**os.environ, **environment(store)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def counted(store: Moto) -> int:
    told = aion(store, "sql", "--format", "csv", "select count(*) from tasks")
    return int(told.split()[-1])


def check(store: Moto) -> int:
    """Offsets of every partition are whole and there once: by a reader that is not ours."""
    table = DeltaTable(f"{URL}/tasks", storage_options=environment(store))
    rows = table.to_pyarrow_table(columns=["_partition", "_offset"])
    places = list(zip(*(column.to_pylist() for column in rows.columns)))
    assert len(places) == len(set(places)), "rows are there twice"
    for partition in {partition for partition, _ in places}:
        offsets = [offset for number, offset in places if number == partition]
        assert sorted(offsets) == list(range(len(offsets))), partition
    return len(places)


def test_kills_and_failures_lose_and_double_nothing(tmp_path, store: Moto, dev: Dev):
    seed = random.randrange(2**31)
    print("seed", seed)
    rng, proxy = random.Random(seed), Proxy(store, seed)
    run = Process(tmp_path / "run.log")
    config = configuration(tmp_path, dev, run, proxy.url())
    for _ in range(3):
        run.launch("run", "--config", config)
        run.wait_ready()
        proxy.fail_share = 0.25
        time.sleep(rng.uniform(2, 4))
        run.kill()
        proxy.fail_share = 0.0
        if "tasks" in aion(store, "lake", "status"):
            check(store)
    assert proxy.failed > 0
    assert dev.stop() == 0
    dev.start("--no-generator")
    run.launch("run", "--config", config)
    run.wait_ready()
    # What dev's own lake has, which is kept through no failures.
    run.wait(lambda: counted(store) == dev.count("tasks"), "all is stored", 60)
    assert run.stop() == 0
    sent = dev.count("tasks")
    assert check(store) == sent > 0
    aion(store, "lake", "compact", "--min-files", "2")
    aion(store, "lake", "checkpoint")
    aion(store, "lake", "vacuum")
    assert check(store) == sent


def test_a_store_that_ignores_conditions_is_refused(tmp_path, store: Moto, dev: Dev):
    proxy = Proxy(store)
    proxy.ignores_conditions = True
    run = Process(tmp_path / "run.log")
    run.launch("run", "--config", configuration(tmp_path, dev, run, proxy.url()))
    assert run.process.wait(60) == 6, run.output()
    assert "If-None-Match" in run.output()
