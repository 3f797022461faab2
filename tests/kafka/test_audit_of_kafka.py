"""`aion audit` of logs that only Kafka has: transactions, retention, compaction; by the pipeline's account."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pyarrow
import pytest
from cluster import Place
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource
from deltalake import DeltaTable, write_deltalake
from events import decision, text
from processes import Audit, wait


def audited(place: Place, *arguments: object) -> Audit:
    """An audit with nothing left to be stored."""
    audits: list[Audit] = []

    def nothing_is_pending() -> bool:
        audits.append(place.audit(*arguments))
        assert audits[-1].report, audits[-1].errors
        return audits[-1].total("pending") == 0

    wait(nothing_is_pending, "everything is stored", 60)
    return audits[-1]


@pytest.mark.topic(partitions=2)
def test_audit_of_aborted_transactions(place: Place):
    """Markers and aborted records are holes; a row at one of them is wrong, until the topic is compacted."""
    place.run().wait_ready()
    producer = Producer(place.cluster.client("admin", transactional__id="audited"))
    producer.init_transactions(30)
    aborted: list[tuple[int, int]] = []
    for n in range(9):
        producer.begin_transaction()
        is_aborted = n % 3 == 1

        def sent(_error, message, is_aborted=is_aborted) -> None:
            if is_aborted:
                aborted.append((message.partition(), message.offset()))

        for m in range(10):
            event = decision(n * 10 + m, datetime.now(UTC), random.Random(n))
            producer.produce(
                place.topic, text(event), event["task_id"], on_delivery=sent
            )
        producer.flush(30)
        if is_aborted:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    wait(place.landed, "all committed records")
    audit = audited(place)
    assert audit.code == 0, audit.report
    assert audit.total("stored") == 60
    assert audit.total("holes") >= 30 + 9, "aborted records, and a marker for each"
    assert audit.total("judged") == sum(
        audit.total(fate) for fate in ("stored", "holes", "tombstones")
    )

    table = place.lake / place.table
    row = DeltaTable(table).to_pyarrow_table().slice(0, 1)
    partition, offset = aborted[0]
    for name, value in (("_partition", partition), ("_offset", offset)):
        index = row.schema.get_field_index(name)
        field = row.schema.field(index)
        row = row.set_column(index, field, pyarrow.array([value]).cast(field.type))
    write_deltalake(table, row, mode="append")
    audit = audited(place)
    assert audit.code == 7
    wrong = (place.topic, partition, "not_in_log", offset, offset + 1)
    assert audit.findings() == {wrong}

    resource = ConfigResource(
        ConfigResource.Type.TOPIC,
        place.topic,
        incremental_configs=[
            ConfigEntry(
                "cleanup.policy",
                "compact",
                incremental_operation=AlterConfigOpType.SET,
            )
        ],
    )
    place.cluster.admin.incremental_alter_configs([resource])[resource].result(20)
    assert audited(place).code == 0, "compaction may have taken the record"


@pytest.mark.topic(partitions=1)
def test_audit_of_a_log_that_expired(place: Place):
    """What the log has lost can't be judged, but rows of it that are there twice are still wrong."""
    place.run(more="[audit]\nevery_s = 1").wait_ready()
    place.produce(300, broken_every=50)
    place.wait_and_check()
    audit = audited(place)
    assert audit.code == 0 and audit.total("dead_letters") == 6

    (partition,) = audit.partitions(place.topic)
    kept = partition["mark"] - 100
    asked = place.cluster.admin.delete_records([TopicPartition(place.topic, 0, kept)])
    for future in asked.values():
        future.result(20)
    audit = audited(place)
    (partition,) = audit.partitions(place.topic)
    assert audit.code == 0 and partition["log"]["first"] == kept
    assert partition["judged"] == 100 and partition["expired"] > 0

    (run,) = place.runs
    labels = {"topic": place.topic, "outcome": "exact"}
    run.wait(
        lambda: run.metric("aion_audit_offsets", **labels) == 100,
        "the process audits itself",
    )
    exact = {"topic": place.topic, "verdict": "exact"}
    assert run.metric("aion_audit_verdict", **exact) == 1
    assert run.metric("aion_audit_up") == run.metric("aion_audit_configured") == 1
    assert run.metric("aion_audit_last_run_timestamp_seconds") > 1.7e9

    table = place.lake / place.table
    rows = DeltaTable(table).to_pyarrow_table().sort_by("_offset")
    write_deltalake(table, rows.slice(0, 1), mode="append")
    audit = audited(place)
    first = rows.column("_offset")[0].as_py()
    assert audit.code == 7
    assert audit.findings() == {(place.topic, 0, "stored_twice", first, first + 1)}
    assert audited(place, "--since", "1s").code == 0, "nothing was appended since"
    run.wait(
        lambda: (
            run.metric("aion_audit_verdict", topic=place.topic, verdict="wrong") == 1
        ),
        "the process finds it too",
    )

    asked = place.cluster.admin.delete_records([TopicPartition(place.topic, 0, -1)])
    for future in asked.values():
        future.result(20)
    audit = audited(place)
    assert audit.code == 7, "rows that are there twice need no log"


@pytest.mark.topic(partitions=1)
def test_audit_of_a_gap(place: Place):
    """Records that the log lost before they were stored can't be proven, until the job has written a gap down."""
    run = place.run()
    run.wait_ready()
    place.produce(100)
    place.wait_and_check()
    assert audited(place).code == 0
    run.stop()
    place.produce(100)
    end = max(offset for _, offset, _ in place.log()) + 1
    asked = place.cluster.admin.delete_records([TopicPartition(place.topic, 0, end)])
    for future in asked.values():
        future.result(20)
    place.produce(50)
    audit = place.audit()
    (partition,) = audit.partitions(place.topic)
    assert audit.code == 8
    assert [reason["reason"] for reason in partition["reasons"]] == ["lost_unread"]
    assert (partition["pending"], partition["judged"]) == (50, 0)

    place.run().wait_ready()
    wait(lambda: place.gaps() and len(place.stored()) == 150, "what is left is stored")
    audit = audited(place)
    (partition,) = audit.partitions(place.topic)
    assert audit.code == 0, audit.report
    assert (partition["judged"], partition["stored"], partition["expired"]) == (
        50,
        50,
        100,
    )
