"""Jobs over registries as they are found: one that isn't ours, with writers of several ages, and one behind TLS."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ages import NEWER, OLDER, TASKS, by_metadata, framed, mixed_run
from brokers import Embedded
from confluent_kafka import Producer
from processes import Audit, Process, sql
from registries import (
    Apicurio,
    Registry,
    make_certificates,
    secured,
)
from registries import Embedded as EmbeddedRegistry


class Run(Process):
    """`aion run` over the embedded broker and a registry."""

    def __init__(self, folder: Path, broker: Embedded, registry: str) -> None:
        super().__init__(folder / "run.log")
        self.lake = folder / "lake"
        self.config = folder / "aion.toml"
        self.config.write_text(
            f'[kafka]\nbrokers = "{broker.address}"\n'
            '[kafka.properties]\n"session.timeout.ms" = 6000\n"heartbeat.interval.ms" = 500\n'
            f"[registry]\n{registry}\n"
            f'[lake]\nurl = "{self.lake}"\nflush_age_s = 1\n'
            f'[http]\nlisten = "{self.http}"\n'
        )

    def start(self) -> None:
        self.launch("run", "--config", self.config)
        self.wait_ready()

    def answers(self) -> bool:
        try:
            return self.get("/livez")[0] == 200
        except OSError:
            return False

    def count(self, table: str) -> int:
        return self.sql(f"select count(*) as n from {table}")[0]["n"]

    def sql(self, query: str) -> list[dict]:
        return sql(query, "--lake", self.lake, "--stored")


def test_writers_of_three_ages_and_json_land_exactly_once(
    tmp_path: Path, apicurio: Apicurio
):
    rounds = 1_000
    broker = Embedded(tmp_path / "broker")
    broker.start()
    run = Run(tmp_path, broker, f'urls = ["{apicurio.url}"]')
    try:
        done = broker.bootstrap("--registry", apicurio.url)
        assert done.returncode == 0, done.stderr
        run.start()
        mixed_run(broker.address, apicurio.url, rounds)
        run.wait(lambda: run.count("tasks") > 0, "a part is there")
        run.kill()
        run.start()
        mixed_run(broker.address, apicurio.url, rounds)
        run.wait(lambda: run.count("tasks") >= 8 * rounds, "all are rows")
        audit = Audit("--config", run.config, "--topic", TASKS)
        assert (audit.code, audit.total("stored")) == (0, 8 * rounds), audit.report
        assert run.count("dead_letters") == 0
        metadata = run.sql("select metadata, count(*) as n from tasks group by 1")
        assert {row["metadata"]: row["n"] for row in metadata} == by_metadata(
            2 * rounds
        )

        # Of the schema that a writer still has, the topic's version is deleted while another topic has
        # one: whoever starts anew knows the id as this topic's all the same.
        id_ = apicurio.id_of("others-value", OLDER)
        subject = f"/subjects/{TASKS}-value"
        found = apicurio.post(subject, {"schema": OLDER}).body
        assert found["id"] == id_, found
        gone = apicurio.call("DELETE", f"{subject}/versions/{found['version']}")
        assert gone.status == 200, gone
        assert run.stop() == 0
        run.start()
        producer = Producer({"bootstrap.servers": broker.address})
        producer.produce(TASKS, framed(id_, OLDER, "task-late"), b"k")
        assert producer.flush(30) == 0
        late = "select count(*) as n from tasks where task_id = 'task-late'"
        run.wait(lambda: run.sql(late)[0]["n"] == 1, "the late one is a row", 30)
        assert run.count("dead_letters") == 0
    finally:
        run.end()
        broker.stop()


def test_a_job_signs_in_to_its_registry(
    tmp_path: Path, embedded: Registry, monkeypatch: pytest.MonkeyPatch
):
    certificates = tmp_path / "certs"
    make_certificates(certificates, ["server", "client"])
    server, requests = secured(certificates, embedded)
    broker = Embedded(tmp_path / "broker")
    broker.start()
    run = Run(
        tmp_path,
        broker,
        f'urls = ["https://127.0.0.1:{server.server_address[1]}"]\n'
        f'ca = "{certificates / "ca.pem"}"\n'
        f'certificate = "{certificates / "client.pem"}"\n'
        f'key = "{certificates / "client.key"}"\n'
        'username = "alice"\npassword = "env:REGISTRY_PASSWORD"',
    )
    try:
        done = broker.bootstrap()
        assert done.returncode == 0, done.stderr
        id_ = embedded.id_of(f"{TASKS}-value", OLDER)
        producer = Producer({"bootstrap.servers": broker.address})
        producer.produce(TASKS, framed(id_, OLDER, "one"), b"k")
        assert producer.flush(30) == 0
        monkeypatch.setenv("REGISTRY_PASSWORD", "wrong")
        run.launch("run", "--config", run.config)
        waits = "aion_partition_waits_for_schema"
        run.wait(lambda: run.answers() and run.metric(waits) == 1, "it waits", 60)
        run.wait(lambda: "refuses this account" in run.output(), "it says why", 30)
        assert run.stop() == 0
        monkeypatch.setenv("REGISTRY_PASSWORD", "hunter2")
        run.start()
        run.wait(lambda: run.count("tasks") == 1, "it is a row", 60)
        assert run.count("dead_letters") == 0 and requests
        assert "hunter2" not in run.output()
    finally:
        run.end()
        broker.stop()
        server.shutdown()


def test_a_registry_that_lost_a_day_does_not_turn_it_into_dead_letters(tmp_path: Path):
    """Restored from a backup of yesterday, it doesn't have today's schema, and a job that starts knows of none."""
    count = 5_000
    registry, backup = EmbeddedRegistry(tmp_path), tmp_path / "backup"
    kept = registry.folder / "registry"
    registry.start()
    broker = Embedded(tmp_path / "broker")
    broker.start()
    run = Run(tmp_path, broker, f'urls = ["{registry.url}"]\ngrace_s = 1')
    try:
        done = broker.bootstrap()
        assert done.returncode == 0, done.stderr
        registry.id_of("others-value", OLDER)
        registry.stop()
        shutil.copytree(kept, backup)
        registry.start()
        subject = f"/subjects/{TASKS}-value"
        config = {"compatibility": "NONE"}
        assert registry.call("PUT", f"/config/{TASKS}-value", config).status == 200
        id_ = registry.id_of(f"{TASKS}-value", NEWER)
        body = framed(id_, NEWER, "t", metadata=None, next_year=[])
        producer = Producer({"bootstrap.servers": broker.address})
        for n in range(count):
            producer.produce(TASKS, body, b"k", partition=n % 2)
        assert producer.flush(60) == 0
        registry.stop()
        today = kept.rename(tmp_path / "today")
        shutil.copytree(backup, kept)
        registry.start()
        assert registry.get(f"{subject}/versions").status == 404

        run.launch("run", "--config", run.config)
        stopped = "put the schemas right and start again"
        run.wait(lambda: run.output().count(stopped) == 2, "both partitions stop", 60)
        assert run.get("/readyz")[0] == 503
        assert run.count("tasks") == 0
        assert run.stop() == 0
        # None, unless a part of the first 1,000 of a partition came by itself.
        letters = run.count("dead_letters")
        assert letters < 2_000

        registry.stop()
        shutil.rmtree(kept)
        today.rename(kept)
        registry.start()
        run.start()
        stored = count - letters
        run.wait(lambda: run.count("tasks") == stored, "the day is in the lake", 60)
        audit = Audit("--config", run.config, "--topic", TASKS)
        assert (audit.code, audit.total("stored")) == (0, stored), audit.report
        assert audit.total("dead_letters") == letters
    finally:
        run.end()
        broker.stop()
        registry.stop()
