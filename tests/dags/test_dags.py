"""Every DAG, run by a real Airflow against a running `aion dev`."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from clickhouse.engine import Engine
from processes import ROOT, Dev, binary

SCRIPT = ROOT / "scripts" / "airflow"
HOUR = "2026-03-14T09:00:00"


class Airflow:
    """An Airflow with a database of its own."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.more = {"AIRFLOW_HOME": str(folder), **more}
        told = self.script("environment")
        self.environment = {**os.environ, **json.loads(told)}
        self.python = Path(self.script_venv()) / "bin" / "python"
        self.run([self.python.parent / "airflow", "db", "migrate"])

    def script(self, *arguments: str) -> str:
        return self.run(
            [sys.executable, SCRIPT, *arguments], {**os.environ, **self.more}
        )

    def script_venv(self) -> Path:
        self.script("install")
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        return cache / "aion-event-streams" / "airflow"

    def run(
        self, command: list[object], environment: dict[str, str] | None = None
    ) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            check=False,
            capture_output=True,
            text=True,
            env=environment or self.environment,
            timeout=400,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.stdout

    def told(self, program: str, *arguments: object) -> dict:
        """What a program beside this file prints last, by Airflow's Python."""
        file = ROOT / "tests" / "dags" / program
        return json.loads(self.run([self.python, file, *arguments]).splitlines()[-1])

    def driver(self, *arguments: object) -> dict:
        return self.told("driver.py", *arguments)

    def test(self, dag: str, **conf: object) -> dict[str, dict]:
        """The tasks of a run; each must have succeeded, at its first try."""
        told = self.driver(dag, json.dumps(conf))
        states = {name: task["state"] for name, task in told["tasks"].items()}
        assert states and set(states.values()) == {"success"}, told
        return {name: task.get("result") for name, task in told["tasks"].items()}


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
    return Airflow(home, AION_URL=url, CLICKHOUSE_URL=engine.url)


@pytest.fixture(scope="module")
def hour(dev: Dev) -> dict[str, object]:
    """The hour as a partition; its events may arrive until now, so it is closed in a minute."""
    end = datetime.datetime.fromisoformat(f"{HOUR}Z") + datetime.timedelta(hours=1)
    lateness = int((dev.sent_at - end).total_seconds()) + 1
    return {"partition": HOUR, "minutes": 60, "lateness_s": lateness}


def test_dags_are_what_they_are_meant_to_be(airflow: Airflow):
    told = airflow.driver()
    assert told["errors"] == {}
    assert {name: len(tasks) for name, tasks in told["dags"].items()} == {
        "aion_hourly_exports": 4,
        "aion_router_training": 1,
        "aion_train": 2,
        "aion_from_clickhouse": 3,
        "aion_stock_providers": 4,
        "aion_from_spark": 2,
        "aion_lake_maintenance": 3,
    }


def test_the_provider_keeps_its_word(airflow: Airflow, hour: dict):
    """What no run of a DAG comes by: kills, refusals, empty intervals, the sensor, the button."""
    end = datetime.datetime.fromisoformat(f"{HOUR}Z") + datetime.timedelta(hours=1)
    closed = (f"{HOUR}Z", end.isoformat(), hour["lateness_s"])
    told = airflow.told("provider.py", *closed)
    assert len(told) == 11
    assert not any(told.values()), "\n".join(filter(None, told.values()))


def test_a_dataset_is_exported_and_a_model_learns_from_it(
    airflow: Airflow, dev: Dev, hour: dict
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
    airflow: Airflow, hour: dict
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


def test_the_lake_is_looked_after(airflow: Airflow, dev: Dev):
    before = stored(dev)
    airflow.test(
        "aion_lake_maintenance", aion=str(binary()), lake=str(dev.data / "lake")
    )
    assert stored(dev) == before
