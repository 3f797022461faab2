"""Jobs over registries as they are found: one that isn't ours, with writers of several ages, and one behind TLS."""

from __future__ import annotations

from pathlib import Path

import pytest
from ages import OLDER, TASKS, by_metadata, framed, mixed_run
from brokers import Embedded
from confluent_kafka import Producer
from processes import Audit, Process, sql
from registries import Apicurio, Registry, make_certificates, secured


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
        assert "refuses this account" in run.output()
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
