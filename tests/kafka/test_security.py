"""What a client may do by whom it is, and what is said when it may not."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from cluster import Place
from confluent_kafka import Consumer, KafkaException, Producer
from processes import ROOT, binary, wait
from registries import Embedded as Registry


@pytest.mark.parametrize(
    "account, properties",
    [
        ("pipeline", {}),
        ("pipeline", {"sasl__mechanism": "SCRAM-SHA-256"}),
        ("pipeline", {"sasl__mechanism": "PLAIN"}),
        ("pipeline-mtls", {}),
    ],
    ids=["scram-512", "scram-256", "plain", "mtls"],
)
def test_every_way_to_sign_in(place: Place, account: str, properties: dict):
    place.produce(100)
    place.run(account, **properties).wait_ready()
    place.wait_and_check()


def refused(place: Place, account: str = "pipeline", **properties: object) -> str:
    """The message of an `aion run` that must not start."""
    run = place.run(account, **properties)
    assert run.process.wait(30) == 2, run.output()
    return run.output()


def test_a_wrong_password(place: Place, monkeypatch):
    monkeypatch.setenv("WRONG", "not the password")
    said = refused(place, sasl__password="env:WRONG")
    assert "sasl.username (pipeline), sasl.password and sasl.mechanism" in said
    assert "not the password" not in said


def test_a_password_in_the_file(place: Place):
    said = refused(place, sasl__password="hunter2")
    assert "env:NAME or file:PATH" in said and "hunter2" not in said


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate that nobody else knows, and its key."""
    certificate, key = folder / "other.pem", folder / "other.key"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=pipeline", "-keyout", key, "-out", certificate]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *names], check=True, capture_output=True
    )
    return certificate, key


def test_another_authority(place: Place, tmp_path):
    other, _ = self_signed(tmp_path)
    said = refused(place, ssl__ca__location=str(other))
    assert f"ssl.ca.location ({other}) has to hold the authority" in said


def test_a_certificate_of_another_authority(place: Place, tmp_path):
    """Of the right name, but not signed by whom the broker trusts."""
    certificate, key = self_signed(tmp_path)
    run = place.run(
        "pipeline-mtls",
        ssl__certificate__location=str(certificate),
        ssl__key__location=str(key),
    )
    wanted = f"ssl.certificate.location ({certificate}) has to be signed by"
    run.wait(lambda: wanted in run.output(), "it says so")
    assert run.get("/readyz")[0] == 503


@contextlib.contextmanager
def relay(host: str, port: int, address: str):
    """The address of a listener at `address` that passes everything on to `host`."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, port))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    listener = socket.create_server((address, 0))
    threading.Thread(target=serve, daemon=True).start()
    yield f"{address}:{listener.getsockname()[1]}"
    listener.close()


def test_a_broker_of_another_name(place: Place):
    """The certificate is good, but not for the address that was called."""
    host, port = place.cluster.brokers("pipeline").split(",")[0].rsplit(":", 1)
    with relay(host, int(port), "127.0.0.2") as other:
        said = refused(place, bootstrap__servers=other)
        assert f"has to name the address that was called ({other})" in said
        # Whoever takes the risk has to say so.
        unchecked = {"ssl__endpoint__identification__algorithm": "none"}
        place.run(bootstrap__servers=other, **unchecked).wait_ready()


def test_properties_that_would_break_the_guarantees(place: Place):
    for name in ("enable__auto__commit", "isolation__level", "auto__offset__reset"):
        said = refused(place, **{name: "x"})
        assert f"librdkafka property {name.replace('__', '.')} can't be set" in said


def test_an_account_without_rules_waits_for_them(place: Place):
    place.produce(100)
    run = place.run("gateway")
    run.wait(lambda: "User:gateway needs the access rule" in run.output(), "it says so")
    assert run.get("/readyz")[0] == 503
    # What the message asks for, given while it runs: by the catalog, under the account's name.
    place.bootstrap("--principal", "pipeline=User:gateway")
    run.wait_ready()
    place.wait_and_check()


def test_a_missing_topic_is_waited_for(place: Place):
    place.cluster.admin.delete_topics([place.topic])[place.topic].result(20)
    run = place.run()
    run.wait(lambda: "`aion bootstrap` makes" in run.output(), "it says what makes it")
    place.bootstrap()
    place.produce(100)
    place.wait_and_check()


def test_brokers_may_come_up_later(place: Place):
    run = place.run()
    run.wait_ready()
    assert run.stop() == 0
    # Nobody listens at port 1.
    run = place.run(bootstrap__servers="127.0.0.1:1")
    run.wait(lambda: "is the address right" in run.output(), "it says so")
    assert run.process.poll() is None and run.get("/readyz")[0] == 503


def try_to_read(place: Place, account: str, topic: str, group: str) -> str | None:
    """The error of a consumer, if it gets one before a record or the end."""
    consumer = Consumer(
        place.cluster.client(
            account,
            group__id=group,
            auto__offset__reset="earliest",
            enable__partition__eof=True,
        )
    )
    consumer.subscribe([topic])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None, "neither a record nor an error"
    error = message.error()
    return error.name() if error and error.name() != "_PARTITION_EOF" else None


def try_to_write(place: Place, account: str, topic: str) -> str | None:
    producer = Producer(place.cluster.client(account, message__timeout__ms=20_000))
    errors = []
    try:
        # With a key: compacted topics take no record without.
        producer.produce(
            topic, b"{}", b"key", on_delivery=lambda error, _: errors.append(error)
        )
    except KafkaException as refused:
        return refused.args[0].name()
    producer.flush(30)
    return errors[0].name() if errors[0] else None


@pytest.mark.topic(
    more='readers = ["pipeline", "operator", "webhooks", "exports", "spark", "read-only"]'
)
def test_least_privilege(place: Place):
    """Both ways: who may, can; who may not, can't."""
    denied, group_denied = "TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED"
    topic, letters = place.topic, "aion.dead-letters"
    wait(lambda: try_to_write(place, "router", topic) is None, "rules have spread", 20)
    for account in ("pipeline", "spark", "read-only", "exports"):
        assert try_to_write(place, account, topic) == denied, account
    for account in ("control-plane", "router"):
        assert try_to_write(place, account, letters) == denied, account
    assert try_to_write(place, "gateway", "aion.commands") is None
    for account in ("control-plane", "router", "pipeline", "webhooks"):
        assert try_to_write(place, account, "aion.commands") == denied, account
    # Who may write there may put rows into tables, or let a partition go on.
    for internal in (f"aion.retries.{place.table}", "aion.operator-decisions"):
        assert try_to_write(place, "operator", internal) is None, internal
        for account in ("router", "pipeline", "exports"):
            assert try_to_write(place, account, internal) == denied, account
    assert try_to_write(place, "operator", letters) == denied
    assert try_to_read(place, "read-only", topic, "read-only-x") is None
    for account, group in (
        ("pipeline", "aion-x"),
        ("spark", "spark-x"),
        ("exports", "exports-x"),
        ("webhooks", "aion-webhooks"),
    ):
        assert try_to_read(place, account, topic, group) is None, account
        assert try_to_read(place, account, topic, "router-x") == group_denied, account
    assert try_to_read(place, "read-only", topic, "aion-x") == group_denied
    assert try_to_read(place, "router", topic, "router-x") == group_denied
    assert try_to_read(place, "control-plane", topic, "control-plane-x") == denied
    assert try_to_read(place, "exports", letters, "exports-x") == denied
    done = place.cluster.bootstrap("--catalog", place.catalog, account="pipeline")
    assert done.returncode == 1 and "not allowed" in done.stderr, done.stderr


def test_bootstrap_changes_only_what_differs(place: Place):
    def bootstrap(*arguments: object) -> list[str]:
        done = place.cluster.bootstrap("--catalog", place.catalog, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    again = bootstrap()
    assert again[-1].startswith("0 changed"), again
    assert all(line.startswith("unchanged") for line in again[:-1]), again

    plan = bootstrap("--environment", "prod", "--partitions", "6", "--dry-run")
    wanted = f"alter     topic {place.topic}: retention.ms 604800000 -> 2592000000"
    assert wanted in plan
    (differs,) = [line for line in plan if line.startswith("differs")]
    wanted = f"topic {place.topic}: partitions 4 -> 6; --raise-partitions does it"
    assert wanted in differs
    assert bootstrap()[-1].startswith("0 changed"), "a dry run changes nothing"

    bootstrap("--environment", "prod", "--partitions", "6", "--raise-partitions")
    known = place.cluster.admin.list_topics(place.topic, timeout=20)
    assert len(known.topics[place.topic].partitions) == 6
    # Fewer in the catalog than there are: nothing is taken away.
    assert bootstrap("--environment", "prod")[-1].startswith("0 changed")


def test_bootstrap_by_the_platforms_script(place: Place, tmp_path: Path):
    """Topics, access rules and schemas in one go, as the platform's page has it."""
    registry = Registry(tmp_path)
    registry.start()
    client = place.cluster.folder / "clients" / "admin.properties"

    def script(*arguments: str) -> str:
        done = subprocess.run(
            ["bash", "bigdata/scripts/bootstrap_kafka.sh", *arguments],
            env={
                # The script finds `aion` on the PATH.
                "PATH": f"{binary().parent}:/usr/bin:/bin",
                "KAFKA_BROKERS": place.cluster.brokers(),
                "KAFKA_CLIENT_CONFIG": str(client),
                "KAFKA_SCHEMA_REGISTRY": registry.url,
                "AION_ENV": "prod",
                "AION_PARTITIONS": "2",
                "AION_REPLICATION": "1",
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        decisions = "aion.router.decisions"
        planned = script("--dry-run")
        assert f"create    topic {decisions}: " in planned
        assert "2592000000" in planned, "thirty days"
        assert decisions not in place.cluster.admin.list_topics(timeout=20).topics
        script()
        known = place.cluster.admin.list_topics(decisions, timeout=20).topics[decisions]
        assert len(known.partitions) == 2
        assert all(len(one.replicas) == 1 for one in known.partitions.values())
        versions = registry.get(f"/subjects/{decisions}-value/versions")
        assert versions.body == [1]
        wait(
            lambda: try_to_write(place, "router", decisions) is None,
            "rules have spread",
            20,
        )
        denied = "TOPIC_AUTHORIZATION_FAILED"
        assert try_to_write(place, "pipeline", decisions) == denied
        assert script().splitlines()[-1].startswith("0 changed")
    finally:
        registry.stop()
