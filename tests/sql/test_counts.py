"""What `psql`, `curl` and `aion sql` count below the marks of an audit, while events flow: what the audit counts."""

from __future__ import annotations

import subprocess
import time
import urllib.parse
from collections.abc import Callable
from contextlib import contextmanager

import psycopg
import pytest
from deltalake import DeltaTable
from processes import Audit, Dev, binary, sql, wait

TABLES = {
    "aion.router.decisions": "decisions",
    "aion.tasks.lifecycle": "tasks",
    "aion.metrics.runtime": "metrics",
    "aion.audit.activity": "audit",
}
ROUNDS = 4


@contextmanager
def events_of(dev: Dev, bad_share: float):
    """Events of every topic, this share of them broken, for as long as the block takes."""
    dev.start("--no-generator")
    command = [binary(), "generate", "--to", dev.kafka, "--count", "10000000"]
    events = subprocess.Popen(
        [*command, "--rate", "400", "--bad-share", str(bad_share)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        dev.wait(lambda: dev.count("decisions") > 100, "events flow")
        yield
    finally:
        events.kill()
        events.wait()


@pytest.fixture
def flowing(dev: Dev):
    with events_of(dev, 0.02):
        yield dev


# Each asks one question whose rows are two whole numbers.
Ask = Callable[[Dev, str], list[tuple[int, int]]]


def by_psql(dev: Dev, query: str) -> list[tuple[int, int]]:
    host, port = dev.postgres.split(":")
    asked = ["psql", "-X", "-At", "-F,", "-h", host, "-p", port, "-U", "me", "aion"]
    said = subprocess.run(
        [*asked, "-c", query], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    return [pair(line.split(",")) for line in said.splitlines()]


def by_curl(dev: Dev, query: str) -> list[tuple[int, int]]:
    form = urllib.parse.urlencode({"format": "csv"})
    asked = ["curl", "-sSf", f"http://{dev.http}/v1/sql?{form}", "--data-binary", query]
    said = subprocess.run(
        asked, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    return [pair(line.split(",")) for line in said.splitlines()[1:]]


def by_aion_sql(dev: Dev, query: str) -> list[tuple[int, int]]:
    return [pair(row.values()) for row in sql(query, "--data", dev.data)]


def by_aion_sql_stored(dev: Dev, query: str) -> list[tuple[int, int]]:
    return [pair(row.values()) for row in dev.sql(query)]


def pair(values) -> tuple[int, int]:
    one, other = values
    return int(one), int(other)


EVERYBODY: list[Ask] = [by_psql, by_curl, by_aion_sql, by_aion_sql_stored]


def below(partitions: list[dict], partition: str, offset: str) -> str:
    """Whether a row is one of those that an audit judged."""
    return " or ".join(
        f"({partition} = {p['partition']} and {offset} < {p['mark'] or 0})"
        for p in partitions
    )


def audited(dev: Dev) -> Audit:
    audit = Audit("--data", dev.data)
    assert audit.code in (0, 8), audit.report or audit.errors
    return audit


def test_everybody_counts_what_the_audit_counts(flowing: Dev):
    ends, live = [], 0
    for _ in range(ROUNDS):
        audit = audited(flowing)
        for topic, table in TABLES.items():
            partitions = audit.partitions(topic)
            stored = {p["partition"]: p["stored"] for p in partitions if p["stored"]}
            where = below(partitions, "_partition", "_offset")
            query = f"select _partition, count(*) from {table} where {where} group by 1"
            for ask in EVERYBODY:
                assert dict(ask(flowing, query)) == stored, (topic, ask.__name__)
            # Negative control: without the marks there is more, since events flow.
            ((everything, _),) = by_psql(flowing, f"select count(*), 0 from {table}")
            live += everything - sum(stored.values())
        ends.append(audit.total("judged") + audit.total("pending"))
    assert live > 0, "nothing came while all were asked"
    assert ends == sorted(set(ends)), "the log stood still"
    dead_letters_are_counted_once(flowing, audited(flowing))


def dead_letters_are_counted_once(dev: Dev, audit: Audit) -> None:
    judged = {topic: audit.partitions(topic) for topic in TABLES}
    letters = sum(p["dead_letters"] for found in judged.values() for p in found)
    assert letters > 20
    parts = (
        f"(topic = '{topic}' and ({below(partitions, 'partition', 'offset')}))"
        for topic, partitions in judged.items()
    )
    query = f"select count(*), 0 from dead_letters where {' or '.join(parts)}"
    for ask in EVERYBODY:
        # They are a topic of their own, which a job of its own stores.
        wait(
            lambda: ask(dev, query) == [(letters, 0)],  # noqa: B023
            f"{ask.__name__} counts {letters} dead letters",
            30,
            dev.output,
        )


LOOKS = "select _partition, count(*), count(distinct _offset), max(_offset) from decisions group by 1"
COMMITS = "select count(distinct version) from batches where table_name = 'decisions'"
# Commits that are waited for before the compaction, and after it began.
FEW = 3


def looked(connection: psycopg.Connection) -> dict[int, tuple[int, int]]:
    """Of each partition, how many rows there are, and the highest offset."""
    found = connection.execute(LOOKS).fetchall()
    for look in found:
        _, rows, offsets, last = look
        assert rows == offsets <= last + 1, f"a row is there twice: {look}"
    return {partition: (rows, last) for partition, rows, _, last in found}


@pytest.mark.parametrize("bad_share", [0, 0.02])
def test_each_row_is_seen_once_and_on(dev: Dev, bad_share: float):
    """Whatever becomes of it meanwhile: it is live, then committed, then in a file of a compaction."""
    compact = [binary(), "lake", "compact", "--min-files", "2"]
    compact += ["--table", "decisions", "--data", dev.data]
    where = f"postgresql://me@{dev.postgres}/aion"
    with events_of(dev, bad_share), psycopg.connect(where, autocommit=True) as asking:

        def commits() -> int:
            ((count,),) = asking.execute(COMMITS).fetchall()
            return count

        dev.wait(lambda: commits() >= FEW, "there are files to compact")
        begun, until = commits(), time.monotonic() + 120
        compacting = subprocess.Popen(compact, stdout=subprocess.DEVNULL)
        before, news = looked(asking), 0
        while compacting.poll() is None or commits() < begun + FEW:
            assert time.monotonic() < until, dev.output()
            now = looked(asking)
            for partition, (rows, last) in before.items():
                assert partition in now, f"{partition} is gone"
                assert now[partition][0] >= rows, "a count fell"
                assert now[partition][1] >= last, "the end fell back"
            if not bad_share:
                assert all(rows == last + 1 for rows, last in now.values()), now
            before, news = now, news + (now != before)
        assert compacting.wait() == 0
    # There was something to see.
    assert news > 2 * FEW, news
    history = DeltaTable(dev.data / "lake" / "decisions").history()
    assert "OPTIMIZE" in {entry["operation"] for entry in history}
    # Control: what made no row would be missed.
    assert any(rows <= last for rows, last in before.values()) == bool(bad_share)
