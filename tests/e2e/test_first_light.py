"""100,000 foreign events, one in a hundred broken, through `aion dev`, with a kill -9 in the middle."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import polars
from confluent_kafka import Producer
from deltalake import DeltaTable
from events import TOPICS, Sent, messages
from processes import Audit

COUNT = 100_000


def produce(brokers: str, count: int, seed: int, on_progress=lambda n: None) -> Sent:
    sent, failures = Sent(), []
    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": 300_000,
            "compression.type": "lz4",
        }
    )

    def acknowledged(error, _message):
        if error:
            failures.append(error)

    for n, (topic, key, value, reason) in enumerate(messages(count, seed)):
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=acknowledged)
                break
            except BufferError:
                producer.poll(0.1)
        if reason:
            sent.broken[topic, reason] += 1
        else:
            sent.good[topic] += 1
        producer.poll(0)
        on_progress(n)
    assert producer.flush(300) == 0, "messages were left unacknowledged"
    assert not failures, failures[:3]
    return sent


def landed(dev, sent: Sent) -> bool:
    counts = [
        dev.count(table) == sent.good[topic] for topic, (_, _, table) in TOPICS.items()
    ]
    return all(counts) and dev.count("dead_letters") == sum(sent.broken.values())


Reader = Callable[[Path], tuple[int, int]]
PLACE = ["_topic_id", "_partition", "_offset"]


def by_deltalake(table: Path) -> tuple[int, int]:
    """Rows of a table, and how many different places in the log they have."""
    places = polars.from_arrow(DeltaTable(table).to_pyarrow_table(columns=PLACE))
    return places.height, places.unique().height


def by_polars(table: Path) -> tuple[int, int]:
    places = polars.scan_delta(str(table)).select(PLACE)
    distinct = places.unique().select(polars.len()).collect().item()
    return places.select(polars.len()).collect().item(), distinct


def by_clickhouse(table: Path) -> tuple[int, int]:
    """In a process of its own: ClickHouse's reader reads only below the working folder."""
    query = f"select count(), uniqExact({', '.join(PLACE)}) from deltaLakeLocal('{table}') format CSV"
    asked = [sys.executable, "-c", "import chdb, sys; print(chdb.query(sys.argv[1]))"]
    said = subprocess.run(
        [*asked, query],
        cwd=table.parent,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    rows, distinct = map(int, said.split(","))
    return rows, distinct


def check(dev, sent: Sent, *readers: Reader) -> None:
    for topic, (_, _, table) in TOPICS.items():
        assert dev.count(table) == sent.good[topic], table
        # No offset twice: counted by our SQL, and by readers that share no code with it.
        distinct = f"select count(*) as n from (select distinct _topic_id, _partition, _offset from {table})"
        assert dev.sql(distinct)[0]["n"] == sent.good[topic]
        for reader in readers:
            rows, places = reader(dev.data / "lake" / table)
            assert rows == places == sent.good[topic], (reader.__name__, table)
    letters = dev.sql(
        "select topic, reason, count(*) as n from dead_letters group by topic, reason"
    )
    assert {(r["topic"], r["reason"]): r["n"] for r in letters} == dict(sent.broken)


def test_foreign_events_land_once_through_a_kill(dev):
    dev.start("--no-generator")
    killed = threading.Event()

    def kill_in_the_middle(n: int) -> None:
        if n == COUNT // 2:
            dev.kill()
            dev.start("--no-generator")
            killed.set()

    sent = produce(dev.kafka, COUNT, seed=11, on_progress=kill_in_the_middle)
    assert killed.is_set()
    dev.wait(
        lambda: landed(dev, sent), "every event is in the lake or in the dead letters"
    )
    check(dev, sent, by_deltalake)
    # What was decoded is what was sent: integers beyond 2^53, text, canonical objects.
    row = dev.sql("select min(size) as low, min(reason) as reason from decisions")[0]
    assert row["low"] >= 2**53 and row["reason"] == 'größe ✓ "quoted" \\ back'
    assert dev.sql("select distinct metadata from tasks") == [
        {"metadata": '{"a":{"b":"ü","y":[true,null]},"z":1}'}
    ]

    dev.kill()
    dev.start("--no-generator")
    check(dev, sent, by_deltalake)
    audit = Audit("--data", dev.data)
    assert audit.code == 0, audit.report or audit.errors
    # A kill may have a dead letter sent twice: its topic may have more records than there are broken events.
    stored = {t: sum(p["stored"] for p in audit.partitions(t)) for t in TOPICS}
    assert stored == dict(sent.good)
    assert audit.total("dead_letters") == sum(sent.broken.values())
    assert dev.stop() == 0, dev.output()
    check(dev, sent, by_deltalake, by_polars, by_clickhouse)
