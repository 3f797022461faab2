"""Every DAG, run by a real Airflow against a running `aion dev`."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path

import pytest
from clickhouse.engine import Engine
from dag_runs import DagRuns
from processes import Dev, binary

HOUR = "2026-03-14T09:00:00"
# In the words of Airflow's timetables: intervals are partitions, and training follows an asset's partitions.
HOURLY = "CronPartitionTimetable(expression='0 * * * *'"
DAILY = "CronPartitionTimetable(expression='0 2 * * *'"
TRAINING = "aion-router-training-daily"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    engine = Engine(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.kill()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, engine: Engine):
    """Believable events of an hour that is over, stored in both places."""
    dev = Dev(tmp_path_factory.mktemp("dev"))
    dev.start("--no-generator", "--clickhouse", engine.url)
    command = [binary(), "generate", "--start", f"{HOUR}Z", "--count", "60000"]
    subprocess.run([*command, "--to", dev.kafka], check=True, timeout=120)
    dev.wait(lambda: stored(dev) == 60_000, "all is stored")
    dev.sent_at = datetime.datetime.now(datetime.UTC)
    yield dev
    dev.end()


def stored(dev: Dev) -> int:
    return sum(dev.count(table) for table in ("decisions", "tasks", "metrics", "audit"))


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, dev: Dev, engine: Engine):
    url, home = f"http://{dev.http}", tmp_path_factory.mktemp("airflow")
    return DagRuns(home, AION_URL=url, CLICKHOUSE_URL=engine.url)


@pytest.fixture(scope="module")
def hour(dev: Dev) -> dict[str, object]:
    """The hour as a partition; its events may arrive until now, so it is closed in a minute."""
    end = datetime.datetime.fromisoformat(f"{HOUR}Z") + datetime.timedelta(hours=1)
    lateness = int((dev.sent_at - end).total_seconds()) + 1
    return {"partition": HOUR, "minutes": 60, "lateness_s": lateness}


# When each runs, what each task is followed by, the assets that it tells of.
DAGS = {
    "aion_hourly_exports": (
        HOURLY,
        {name: [] for name in ("decisions", "tasks", "metrics", "audit")},
        [f"aion-{name}-hourly" for name in ("decisions", "tasks", "metrics", "audit")],
    ),
    "aion_router_training": (DAILY, {"router_training": []}, [TRAINING]),
    "aion_train": (TRAINING, {"manifests": ["train"], "train": []}, []),
    "aion_from_clickhouse": (
        HOURLY,
        {
            "each_event_once": ["decisions"],
            "decisions": ["no_more_than_stored"],
            "no_more_than_stored": [],
        },
        ["aion-decisions-hourly-clickhouse"],
    ),
    "aion_stock_providers": (
        HOURLY,
        {"ask": ["wait"], "wait": ["look"], "look": ["check"], "check": []},
        [],
    ),
    "aion_from_spark": (
        HOURLY,
        {"decisions": ["tell"], "tell": []},
        ["aion-decisions-hourly-spark"],
    ),
    "aion_lake_maintenance": (
        "30 3 * * *",
        {"compact": ["checkpoint"], "checkpoint": ["vacuum"], "vacuum": []},
        [],
    ),
}


def test_dags_are_what_they_are_meant_to_be(airflow: DagRuns):
    told = airflow.driver()
    assert told["errors"] == {} and told["dags"].keys() == DAGS.keys()
    for name, (schedule, tasks, assets) in DAGS.items():
        outline = told["dags"][name]
        assert outline["tasks"] == tasks, name
        assert outline["assets"] == assets, name
        assert schedule in outline["schedule"], (name, outline["schedule"])


def test_the_provider_keeps_its_word(airflow: DagRuns, hour: dict):
    """What no run of a DAG comes by: kills, refusals, empty intervals, the sensor, the button."""
    end = datetime.datetime.fromisoformat(f"{HOUR}Z") + datetime.timedelta(hours=1)
    closed = (f"{HOUR}Z", end.isoformat(), hour["lateness_s"])
    told = airflow.told("provider.py", *closed)
    assert len(told) == 11
    assert not any(told.values()), "\n".join(filter(None, told.values()))


def test_a_dataset_is_exported_and_a_model_learns_from_it(
    airflow: DagRuns, dev: Dev, hour: dict
):
    told = airflow.test("aion_router_training", **hour, horizon_s=1)["router_training"]
    assert told["rows"] > 5000 and told["state"] == "succeeded"
    manifest = Path(told["manifest_uri"].removeprefix("file://"))
    proof = [binary(), "export", "verify", manifest, "--data", dev.data]
    assert subprocess.run(proof, check=False, timeout=60).returncode == 0
    metrics = airflow.test("aion_train", manifest_uri=told["manifest_uri"])["train[0]"]
    assert metrics["log_loss"] < metrics["log_loss_by_frequency"]
    assert metrics["digest"] == told["digest"]
    kept = json.loads((manifest.parent.parent / "model" / "metrics.json").read_text())
    assert kept == metrics


def test_the_same_hour_from_both_stores_and_by_stock_providers_is_the_same(
    airflow: DagRuns, hour: dict
):
    tables = airflow.test("aion_hourly_exports", **hour)
    assert {name: told["state"] for name, told in tables.items()} == dict.fromkeys(
        ("decisions", "tasks", "metrics", "audit"), "succeeded"
    )
    stock = airflow.test("aion_stock_providers", **hour)
    assert stock["check"]["id"] == tables["decisions"]["id"], (
        "asked twice is asked once"
    )
    # Of another store: another export only if something else is asked for.
    other = airflow.test(
        "aion_from_clickhouse", **hour | {"lateness_s": hour["lateness_s"] + 1}
    )
    assert other["decisions"]["digest"] == tables["decisions"]["digest"]
    assert other["decisions"]["id"] != tables["decisions"]["id"]


def test_the_lake_is_looked_after(airflow: DagRuns, dev: Dev):
    before = stored(dev)
    airflow.test(
        "aion_lake_maintenance", aion=str(binary()), lake=str(dev.data / "lake")
    )
    assert stored(dev) == before
