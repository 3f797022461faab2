"""What `psql`, `curl` and `aion sql` count below the marks of an audit, while events flow: what the audit counts."""

from __future__ import annotations

import subprocess
import time
import urllib.parse
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from deltalake import DeltaTable
from processes import ROOT, Audit, Dev, Process, binary, sql, wait
from retries import JOB, REJECTED, RETRIED, send_a_retry

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


PLACES = ("_topic_id", "_partition", "_offset")


def below(partitions: list[dict], places: tuple[str, str, str] = PLACES) -> str:
    """Whether a row is one of those that an audit judged."""
    topic_id, partition, offset = places
    return " or ".join(
        f"({topic_id} = '{p['topic_id']}' and {partition} = {p['partition']} and {offset} < {p['mark'] or 0})"
        for p in partitions
    )


def audited(dev: Dev) -> Audit:
    audit = Audit("--data", dev.data)
    assert audit.code in (0, 8), audit.report or audit.errors
    return audit


def test_everybody_counts_what_the_audit_counts(flowing: Dev):
    ends, live = [], 0
    flowing.wait(lambda: flowing.count(REJECTED) > 0, "dead letters")
    send_a_retry(flowing)
    flowing.wait(lambda: flowing.count(RETRIED) == 1, "the retry")
    for _ in range(ROUNDS):
        audit = audited(flowing)
        for topic, table in TABLES.items():
            partitions = audit.partitions(topic)
            stored = {p["partition"]: p["stored"] for p in partitions if p["stored"]}
            where = below(partitions)
            query = f"select _partition, count(*) from {table} where {where} group by 1"
            for ask in EVERYBODY:
                assert dict(ask(flowing, query)) == stored, (topic, ask.__name__)
            # Negative control: without the marks there is more, since events flow.
            ((everything, _),) = by_psql(flowing, f"select count(*), 0 from {table}")
            live += everything - sum(stored.values())
        ends.append(audit.total("judged") + audit.total("pending"))
    assert live > 0, "nothing came while all were asked"
    assert ends == sorted(set(ends)), "the log stood still"
    audit = audited(flowing)
    a_retry_is_no_row_of_its_topic(flowing, audit)
    dead_letters_are_counted_once(flowing, audit)


def a_retry_is_no_row_of_its_topic(dev: Dev, audit: Audit) -> None:
    """Negative control: by partition and offset alone it would be one, below the marks."""
    partitions = audit.partitions("aion.tasks.lifecycle")
    alone = below(partitions).replace("_topic_id =", "'' <>")
    for where, rows in [(below(partitions), 0), (alone, 1)]:
        query = f"select count(*), 0 from {RETRIED} and ({where})"
        assert by_psql(dev, query) == [(rows, 0)], where


def dead_letters_are_counted_once(dev: Dev, audit: Audit) -> None:
    """That of the retry too: its record has a row, and what was rejected stays known."""
    parts, letters, retried = [], 0, 0
    for topic, table in TABLES.items():
        partitions = audit.partitions(topic)
        letters += sum(p["dead_letters"] for p in partitions)
        retried += sum(p["retried"] for p in partitions)
        where = below(partitions, ("topic_id", '"partition"', '"offset"'))
        parts.append(f"(job = '{table}-lake' and ({where}))")
    assert letters > 20 and retried == 1
    counts = [(letters + retried, 0)]
    query = f"select count(*), 0 from dead_letters where {' or '.join(parts)}"
    for ask in EVERYBODY:
        # They are a topic of their own, which a job of its own stores.
        wait(
            lambda: ask(dev, query) == counts,  # noqa: B023
            f"{ask.__name__} counts {counts} dead letters",
            30,
            dev.output,
        )


@pytest.fixture
def other(dev: Dev, tmp_path: Path):
    """A second job of the tasks, which fills a lake of its own; its dead letters are in the topic of all."""
    dev.start("--no-generator")
    run, config = Process(tmp_path / "other.log"), tmp_path / "other.toml"
    config.write_text(
        f'[kafka]\nbrokers = "{dev.kafka}"\n[http]\nlisten = "{run.http}"\n'
        f'[lake]\nurl = "{tmp_path / "other"}"\nflush_age_s = 1\n'
        '[[job]]\nname = "other"\ntopic = "aion.tasks.lifecycle"\nsinks = ["lake"]\n'
    )
    run.launch("run", "--config", config)
    run.wait_ready()
    yield
    run.end()


def open_ones(job: str) -> str:
    """Asks how many records have no row, as the handbook says."""
    page = (ROOT / "docs" / "sql.md").read_text()
    _, _, after = page.partition("```sql\n-- Records of tasks that are still open")
    query = "--" + after.partition(";\n```")[0]
    return f"select coalesce(sum(n), 0), 0 from ({query}) o where job = '{job}'"


@pytest.mark.usefixtures("other")
def test_a_letter_is_of_one_job_and_stays_when_its_record_is_stored(dev: Dev):
    command = [binary(), "generate", "--topic", "tasks", "--count", "300"]
    command += ["--bad-share", "0.1", "--to", dev.kafka]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    dev.wait(lambda: audited(dev).total("pending") == 0, "all is read")
    letters = audited(dev).total("dead_letters")
    assert letters > 5
    kept = f"select count(*), 0 from {REJECTED}"
    everybody = "select count(*), count(distinct job) from dead_letters"

    def all_count(query: str, wanted: tuple[int, int]) -> None:
        for ask in EVERYBODY:
            dev.wait(
                lambda: ask(dev, query) == [wanted],  # noqa: B023
                f"{ask.__name__}: {wanted} by {query}",
                30,
            )

    all_count(everybody, (2 * letters, 2))
    all_count(kept, (letters, 0))
    all_count(open_ones(JOB), (letters, 0))
    send_a_retry(dev)
    dev.wait(lambda: audited(dev).total("retried") == 1, "the retry")
    assert audited(dev).total("dead_letters") == letters - 1
    all_count(kept, (letters, 0))
    all_count(open_ones(JOB), (letters - 1, 0))


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
