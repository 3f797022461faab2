"""What a manifest says of where its rows come from, and of those that aren't there any more."""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
import time
import urllib.request
from pathlib import Path

import polars
import pytest
from clickhouse.engine import Engine
from confluent_kafka import Producer
from deltalake import DeltaTable
from object_store import BUCKET, Moto
from processes import Dev, binary
from story import stamp

DAYS = [datetime.datetime(2026, 3, day, 12, tzinfo=datetime.UTC) for day in range(1, 5)]
EACH = 50


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory):
    """Decisions of four days; the first record of each partition is no event."""
    dev = Dev(tmp_path_factory.mktemp("manifests"))
    dev.start("--no-generator")
    producer = Producer({"bootstrap.servers": dev.kafka, "enable.idempotence": True})
    topic = "aion.router.decisions"
    for partition in producer.list_topics(topic).topics[topic].partitions:
        producer.produce(topic, b"poison", partition=partition)
    producer.flush(30)
    for day in DAYS:
        for number in range(EACH):
            producer.produce(topic, json.dumps(decision(day, number)), str(number))
    assert producer.flush(30) == 0
    dev.wait(lambda: dev.count("decisions") == EACH * len(DAYS), "all is stored")
    dev.sent_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
    yield dev
    dev.end()


def decision(day: datetime.datetime, number: int) -> dict:
    return {
        "task_id": f"task-{day.day}-{number}",
        "intent": "summarize",
        "route": "local",
        "reason": "policy",
        "tier": "public",
        "timestamp": stamp(day + datetime.timedelta(seconds=number)),
    }


def command(dev: Dev, day: datetime.datetime, *more: object) -> list[object]:
    """An export of a day, which everybody who was sent by now belongs to."""
    start = day.replace(hour=0)
    end = start + datetime.timedelta(days=1)
    lateness = int((dev.sent_at - end).total_seconds())
    rules = ["--dataset", "decisions", "--start", stamp(start), "--end", stamp(end)]
    return [*rules, "--lateness", lateness, *more]


def run(*arguments: object, **more: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [binary(), "export", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=150,
        **more,
    )


def export(dev: Dev, day: datetime.datetime, *more: object) -> tuple[dict, dict]:
    """How it stands, and its manifest."""
    wait = ["--wait", "--wait-for-close", "--data", dev.data]
    done = run(*command(dev, day, *wait, *more))
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout.splitlines()[-1])
    return status, json.loads(
        Path(status["manifest_uri"].removeprefix("file://")).read_text()
    )


def lake(dev: Dev, *arguments: object) -> None:
    command = [binary(), "lake", *map(str, arguments), "--data", dev.data]
    subprocess.run(command, check=True, timeout=60, capture_output=True)


def test_a_manifest_names_schemas_and_a_version_with_all_rows(dev: Dev):
    status, manifest = export(dev, DAYS[3])
    assert (status["rows"], status["gaps"], manifest["gaps"]) == (EACH, 0, [])
    (schema,) = manifest["schemas"]
    registered = registry(dev, f"/subjects/{schema['subject']}/versions/latest")
    assert schema["table"] == "decisions"
    assert (schema["id"], schema["version"]) == (
        registered["id"],
        registered["version"],
    )
    mirror = Path(__file__).parents[2] / "bigdata" / "schemas" / "router_decision.avsc"
    texts = [mirror.read_text(), mirror.read_text().rstrip("\n")]
    assert schema["fingerprint"] in [
        hashlib.sha256(t.encode()).hexdigest() for t in texts
    ]
    # Read by somebody else, that version has them.
    table = DeltaTable(
        dev.data / "lake" / "decisions", version=manifest["lake_versions"]["decisions"]
    )
    rows = polars.from_arrow(table.to_pyarrow_table())
    start = DAYS[3].replace(hour=0)
    of_day = rows.filter(
        polars.col("timestamp").is_between(start, start + datetime.timedelta(days=1))
    )
    assert of_day.height == manifest["rows"]


def registry(dev: Dev, path: str) -> dict:
    import urllib.request

    with urllib.request.urlopen(f"http://{dev.registry}{path}", timeout=10) as answer:
        return json.load(answer)


def test_a_plan_has_what_another_engine_needs(dev: Dev):
    done = run("plan", *command(dev, DAYS[3], "--data", dev.data))
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    status, manifest = export(dev, DAYS[3])
    about = plan["about"]
    assert about["export_id"] == status["id"]
    assert {name: manifest[name] for name in about if name != "lake_versions"} == {
        name: value for name, value in about.items() if name != "lake_versions"
    }
    assert plan["sql"].startswith("select ") and "timestamp_micros(" in plan["sql"]
    table = plan["tables"]["decisions"]
    assert table["uri"] == f"file://{dev.data}/lake/decisions"
    assert DeltaTable(table["uri"]).version() >= table["version"]


def test_what_came_too_late_is_counted_and_left_out(dev: Dev):
    """It is of the day, and was appended after the boundary."""
    day = DAYS[1]
    late = decision(day, EACH) | {"task_id": "late"}
    left = dev.sent_at - datetime.datetime.now(datetime.UTC)
    time.sleep(max(0, left.total_seconds()) + 0.1)
    producer = Producer({"bootstrap.servers": dev.kafka, "enable.idempotence": True})
    producer.produce("aion.router.decisions", json.dumps(late), "late")
    assert producer.flush(30) == 0
    dev.wait(lambda: dev.count("decisions") == EACH * len(DAYS) + 1, "it is stored")
    # The day's usual export isn't to be there yet when retention has taken its rows.
    status, manifest = export(dev, day, "--rows-per-file", 1000)
    assert (status["rows"], manifest["rows"]) == (EACH, EACH)
    assert manifest["late_rows"] == 1


def test_what_goes_to_an_object_store_is_proven_there(dev: Dev, tmp_path: Path):
    store = Moto(tmp_path)
    try:
        options = "".join(
            f'{name} = "{value}"\n'
            for name, value in {
                "endpoint": store.url(),
                "region": "us-east-1",
                "access_key_id": "env:AWS_ACCESS_KEY_ID",
                "secret_access_key": "env:AWS_SECRET_ACCESS_KEY",
            }.items()
        )
        config = tmp_path / "aion.toml"
        config.write_text(
            f'[kafka]\nbrokers = "{dev.kafka}"\n'
            f'[lake]\nurl = "{dev.data / "lake"}"\n'
            f'[exports]\nurl = "s3://{BUCKET}/exports"\n'
            f"[exports.storage]\nallow_http = true\n{options}"
        )
        where = {"env": {**environment(), **store.environment()}}
        layout = ["--rows-per-file", 1000, "--by-date", "--wait", "--wait-for-close"]
        asked = command(dev, DAYS[3], *layout, "--config", config)
        done = run(*asked, **where)
        assert done.returncode == 0, done.stderr
        status = json.loads(done.stdout.splitlines()[-1])
        assert status["manifest_uri"].startswith(f"s3://{BUCKET}/exports/decisions/")
        again = run(*asked, **where)
        assert json.loads(again.stdout.splitlines()[-1]) == status, (
            "asked twice is asked once"
        )
        proof = run("verify", status["manifest_uri"], "--config", config, **where)
        assert proof.returncode == 0, proof.stdout + proof.stderr
        assert "its files and the lake" in proof.stdout
        local, _ = export(dev, DAYS[3])
        assert status["digest"] == local["digest"] and status["rows"] == EACH
        read = polars.read_parquet(
            f"{status['data_uri']}/date=2026-03-04/part-00000.parquet",
            storage_options={
                "aws_endpoint_url": store.url(),
                "aws_access_key_id": "test",
                "aws_secret_access_key": "test",
                "aws_region": "us-east-1",
                "aws_allow_http": "true",
            },
        )
        assert read.height == EACH
    finally:
        store.stop()


def environment() -> dict[str, str]:
    import os

    return dict(os.environ)


def test_rows_that_retention_took_are_missed_by_name(dev: Dev):
    """The last one: it takes rows away."""
    kept, _ = export(dev, DAYS[0])
    old = command(dev, DAYS[1], "--wait", "--wait-for-close", "--data", dev.data)
    # Events were appended today; what is kept is told by their dates, from the newest append back.
    age = (datetime.datetime.now(datetime.UTC).date() - DAYS[2].date()).days
    lake(dev, "retention", "--table", "decisions", "--keep-days", age + 1)
    assert dev.count("decisions") == EACH * 2
    lake(dev, "checkpoint", "--table", "decisions")
    # What was made before is there, and can be proven by its files alone.
    again, _ = export(dev, DAYS[0])
    assert again == kept
    manifest = kept["manifest_uri"].removeprefix("file://")
    proof = run("verify", manifest, "--data", dev.data)
    assert proof.returncode == 1
    assert (
        "retention has taken rows of table decisions from before 2026-03-03"
        in proof.stdout
    )
    assert run("verify", manifest, "--files-only").returncode == 0
    # What wasn't would have fewer rows than it should: it is refused, also where the whole one would be made anew.
    for refused in (run(*old), run("plan", *command(dev, DAYS[1], "--data", dev.data))):
        assert refused.returncode == 1
        assert "interval.start: retention has taken rows" in refused.stderr
    forced = run(
        *command(dev, DAYS[0], "--force", "--wait-for-close", "--data", dev.data)
    )
    assert forced.returncode == 1 and "retention" in forced.stderr
    # Days that are kept are exported as before. Whether the lake never had the offsets before can't be told any more.
    status, manifest = export(dev, DAYS[2])
    assert status["rows"] == EACH
    reasons = {gap["reason"] for gap in manifest["gaps"]}
    assert reasons == {"expired_or_not_stored"}


def test_what_the_store_never_had_is_a_gap(tmp_path: Path):
    """A lake that begins where retention of the log has left off: offsets before it aren't the store's to miss."""
    dev = Dev(tmp_path)
    dev.start("--no-generator")
    try:
        topic = "aion.router.decisions"
        producer = Producer({"bootstrap.servers": dev.kafka})
        for number in range(40):
            event = json.dumps(decision(DAYS[0], number))
            producer.produce(topic, event, "k", partition=0)
        producer.flush(30)
        dev.wait(lambda: dev.count("decisions") == 40, "all is stored")
        cut(dev, topic, 25)
        # Another lake, filled from what is left.
        dev.stop()
        table = dev.data / "lake" / "decisions"
        table.rename(tmp_path / "gone")
        dev.start("--no-generator")
        dev.wait(lambda: dev.count("decisions") == 15, "what is left is stored again")
        dev.sent_at = datetime.datetime.now(datetime.UTC)
        status, manifest = export(dev, DAYS[0])
        assert status["rows"] == 15 and status["gaps"] == 1
        (gap,) = manifest["gaps"]
        assert (gap["table"], gap["partition"], gap["first"], gap["end"]) == (
            "decisions",
            0,
            0,
            25,
        )
        assert gap["reason"] == "not_stored"
    finally:
        dev.end()


def test_what_clickhouse_no_longer_keeps_is_a_gap(tmp_path: Path):
    """Rows that its TTL took. That they are made older by hand stands in for the days that would pass."""
    engine, dev = Engine(tmp_path / "engine"), Dev(tmp_path)
    try:
        dev.start("--no-generator", "--clickhouse", engine.url)
        producer = Producer({"bootstrap.servers": dev.kafka})
        for first, end in ((0, 25), (25, 40)):
            for number in range(first, end):
                event = json.dumps(decision(DAYS[0], number))
                producer.produce("aion.router.decisions", event, "k", partition=0)
            producer.flush(30)
            dev.wait(lambda end=end: in_clickhouse(engine) == end, "ClickHouse has it")
        dev.sent_at = datetime.datetime.now(datetime.UTC)
        status, manifest = export_by_http(dev, DAYS[0])
        assert status["rows"] == 40 and not manifest["gaps"]
        older = (
            "UPDATE _append_time = _append_time - toIntervalDay(60) WHERE _offset < 25"
        )
        for change in (older, "MATERIALIZE TTL"):
            engine.query(
                f"ALTER TABLE aion.decisions {change} SETTINGS mutations_sync = 2"
            )
        dev.wait(lambda: in_clickhouse(engine) == 15, "the TTL has taken them")
        status, manifest = export_by_http(dev, DAYS[0], force=True)
        assert status["rows"] == 15
        (gap,) = manifest["gaps"]
        place = (gap["table"], gap["partition"], gap["first"], gap["end"])
        assert place == ("decisions", 0, 0, 25) and gap["reason"] == "not_stored"
        # The lake has them still.
        status, manifest = export(dev, DAYS[0], "--source", "lake", "--force")
        assert status["rows"] == 40 and not manifest["gaps"]
    finally:
        dev.end()
        engine.kill()


def export_by_http(
    dev: Dev, day: datetime.datetime, **more: object
) -> tuple[dict, dict]:
    """Of ClickHouse, which the running process knows."""
    start = day.replace(hour=0)
    end = start + datetime.timedelta(days=1)
    body = {
        "dataset": "decisions",
        "interval": {"start": stamp(start), "end": stamp(end)},
        "lateness_s": int((dev.sent_at - end).total_seconds()),
        "source": "clickhouse",
        "wait_for_close": True,
        **more,
    }
    asked = urllib.request.Request(
        f"http://{dev.http}/v1/exports",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        status = json.load(answer)
    while status["state"] in ("queued", "running"):
        address = f"http://{dev.http}/v1/exports/{status['id']}?wait=30"
        with urllib.request.urlopen(address, timeout=60) as answer:
            status = json.load(answer)
    assert status["state"] == "succeeded", status
    manifest = Path(status["manifest_uri"].removeprefix("file://"))
    return status, json.loads(manifest.read_text())


def in_clickhouse(engine: Engine) -> int:
    return int(engine.query("SELECT count() FROM aion.decisions"))


def cut(dev: Dev, topic: str, before: int) -> None:
    """As retention would: takes the records before that offset."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": dev.kafka})
    spot = TopicPartition(topic, 0, before)
    (done,) = admin.delete_records([spot]).values()
    assert done.result(30).low_watermark == before
