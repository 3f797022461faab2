"""`aion audit` of a lake that is right, and of lakes that were doctored behind the platform's back."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from deltalake import DeltaTable, write_deltalake
from events import TOPICS, messages
from processes import Audit, binary

DECISIONS = "aion.router.decisions"


def produce(brokers: str, count: int, seed: int) -> tuple[int, int]:
    """Sends events, some broken; how many are good and how many aren't."""
    producer, good, broken = Producer({"bootstrap.servers": brokers}), 0, 0
    for topic, key, value, reason in messages(count, seed):
        producer.produce(topic, value, key)
        producer.poll(0)
        good, broken = good + (reason is None), broken + (reason is not None)
    assert producer.flush(60) == 0
    return good, broken


def settled(dev, *arguments: object) -> Audit:
    """An audit with nothing left to be stored."""
    audit = None

    def nothing_is_pending() -> bool:
        nonlocal audit
        audit = Audit("--data", dev.data, *arguments)
        assert audit.report, audit.errors
        return audit.total("pending") == 0

    dev.wait(nothing_is_pending, "everything is stored")
    assert audit
    return audit


def commit(table: Path, *actions: dict) -> None:
    """Writes a log entry as no writer of ours would."""
    while True:
        version = DeltaTable(table).version() + 1
        try:
            with (table / "_delta_log" / f"{version:020}.json").open("x") as entry:
                entry.writelines(json.dumps(action) + "\n" for action in actions)
        except FileExistsError:
            continue
        return


def ranges(offsets: list[int]) -> set[tuple[int, int]]:
    """Half-open ranges of offsets."""
    found: list[list[int]] = []
    for offset in sorted(offsets):
        if found and found[-1][1] == offset:
            found[-1][1] += 1
        else:
            found.append([offset, offset + 1])
    return {(first, following) for first, following in found}


def test_a_lake_that_is_right_then_without_a_file_then_with_rows_twice(dev):
    dev.start("--no-generator")
    good, broken = produce(dev.kafka, 4000, seed=3)
    producer = Producer({"bootstrap.servers": dev.kafka})
    for _ in range(5):
        producer.produce(DECISIONS, None, b"gone", 1)
    assert producer.flush(60) == 0

    audit = settled(dev)
    assert audit.code == 0 and audit.report["verdict"] == "exact", audit.report
    # The dead letters are stored too: they are a topic like any other.
    assert audit.total("stored") == good + broken
    assert audit.total("dead_letters") == broken
    assert audit.total("tombstones") == 5
    assert audit.total("judged") == good + 2 * broken + 5
    # Where windows end changes nothing.
    narrow = Audit("--data", dev.data, "--window", 61)
    assert narrow.report["topics"] == audit.report["topics"]
    dev.kill()
    dev.start("--no-generator")
    assert settled(dev).code == 0

    table = dev.data / "lake" / "decisions"
    rows = DeltaTable(table).to_pyarrow_table()
    added = pyarrow.table(DeltaTable(table).get_add_actions())
    victim = added.column("path").to_pylist()[0]
    kept = DeltaTable(table).to_pyarrow_dataset().files
    lost = pyarrow.parquet.read_table(
        table / victim, columns=["_partition", "_offset"], partitioning=None
    )
    assert any(victim in path for path in kept)
    now = int(time.time() * 1000)
    commit(
        table,
        {"remove": {"path": victim, "deletionTimestamp": now, "dataChange": True}},
    )

    audit = settled(dev, "--topic", "decisions")
    assert audit.code == 7 and audit.report["verdict"] == "wrong"
    expected = set()
    for partition in range(4):
        mask = pyarrow.compute.equal(lost.column("_partition"), partition)
        offsets = lost.filter(mask).column("_offset").to_pylist()
        expected |= {
            (DECISIONS, partition, "missing", *bounds) for bounds in ranges(offsets)
        }
    # Rows of a file that lie apart only by dead letters or tombstones are ranges of their own.
    assert audit.findings() == expected
    assert audit.total("missing") == lost.num_rows
    narrow = Audit("--data", dev.data, "--topic", "decisions", "--window", 7)
    assert narrow.report["topics"] == audit.report["topics"]
    shown = subprocess.run(
        [binary(), "audit", "--data", dev.data, "--topic", DECISIONS],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert shown.returncode == 7
    assert "wrong: neither stored nor a dead letter: " in shown.stdout
    assert settled(dev, "--topic", "tasks").code == 0, "the others are as they were"

    # Back again, by another file: every row is there once, whatever file it is in.
    columns = [name for name in rows.column_names if name != "_date"]
    back = pyarrow.parquet.read_table(table / victim, partitioning=None)
    day = victim.split("/")[0].split("=")[1]
    dates = pyarrow.array([day] * back.num_rows).cast(pyarrow.date32())
    back = back.select(columns).append_column("_date", dates)
    write_deltalake(table, back, mode="append")
    assert settled(dev).code == 0

    ours = back.filter(pyarrow.compute.equal(back.column("_partition"), 2))
    twice = ours.slice(0, 3)
    write_deltalake(table, twice, mode="append")
    audit = settled(dev)
    assert audit.code == 7
    offsets = twice.column("_offset").to_pylist()
    assert audit.findings() == {
        (DECISIONS, 2, "stored_twice", *bounds) for bounds in ranges(offsets)
    }


def test_rows_that_the_log_does_not_have(dev):
    dev.start("--no-generator")
    produce(dev.kafka, 800, seed=5)
    producer = Producer({"bootstrap.servers": dev.kafka})
    places = []
    producer.produce(
        DECISIONS, None, b"gone", 1, on_delivery=lambda _, m: places.append(m.offset())
    )
    assert producer.flush(60) == 0
    assert settled(dev).code == 0

    table = dev.data / "lake" / "decisions"
    row = DeltaTable(table).to_pyarrow_table().slice(0, 1)

    def placed(partition: int, offset: int) -> pyarrow.Table:
        changed = row
        for name, value in (("_partition", partition), ("_offset", offset)):
            index = changed.schema.get_field_index(name)
            field = changed.schema.field(index)
            column = pyarrow.array([value]).cast(field.type)
            changed = changed.set_column(index, field, column)
        return changed

    far = 10**15
    write_deltalake(table, placed(1, places[0]), mode="append")
    write_deltalake(table, placed(3, far), mode="append")
    write_deltalake(table, placed(77, 5), mode="append")
    audit = settled(dev, "--topic", DECISIONS)
    assert audit.code == 7
    assert audit.findings() == {
        (DECISIONS, 1, "not_in_log", places[0], places[0] + 1),
        (DECISIONS, 3, "beyond_mark", far, far + 1),
        (DECISIONS, 77, "beyond_mark", 5, 6),
    }


def test_a_topic_made_anew_and_a_broker_that_is_gone(dev):
    dev.start("--no-generator")
    produce(dev.kafka, 800, seed=7)
    assert settled(dev).code == 0
    topic, (_, _, table) = next(iter(TOPICS.items()))
    (old,) = dev.sql(f"select distinct _topic_id as id from {table}")
    admin = AdminClient({"bootstrap.servers": dev.kafka})
    admin.delete_topics([topic])[topic].result(20)
    admin.create_topics([NewTopic(topic, 4, 1)])[topic].result(20)
    produce(dev.kafka, 800, seed=9)

    def both_are_stored() -> bool:
        ids = f"select count(distinct _topic_id) as n from {table}"
        return dev.sql(ids)[0]["n"] == 2

    dev.wait(both_are_stored, "the new topic is stored too")
    audit = settled(dev)
    assert audit.code == 8 and audit.report["verdict"] == "not_provable"
    for partition in audit.partitions(topic):
        is_old = partition["topic_id"] == old["id"]
        assert partition["verdict"] == ("not_provable" if is_old else "exact")
        assert [r["reason"] for r in partition["reasons"]] == ["no_log"] * is_old
        assert (partition["log"] is None) == is_old
    # What is asked for is the present one only.
    assert settled(dev, "--since", "1s").code == 0

    assert dev.stop() == 0
    audit = Audit("--data", dev.data)
    assert audit.code == 2 and "start `aion dev" in audit.errors, audit.errors
    audit = Audit("--data", dev.data / "nowhere", "--kafka", dev.kafka)
    assert audit.code == 3, audit.errors
    audit = Audit("--data", dev.data, "--kafka", dev.kafka)
    assert audit.code == 1 and "connect to Kafka" in audit.errors, audit.errors
