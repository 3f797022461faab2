"""Tables about the streams themselves, beside what others say of the same: the lake by `deltalake`, the audit,
`aion export`, the registry."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import subprocess
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from deltalake import DeltaTable
from processes import ROOT, Audit, Dev, binary
from retries import REJECTED, RETRIED, send_a_retry

TABLES = {
    "decisions": "aion.router.decisions",
    "tasks": "aion.tasks.lifecycle",
    "dead_letters": "aion.dead-letters",
}
# Those that producers write.
TOPICS = [
    "aion.router.decisions",
    "aion.tasks.lifecycle",
    "aion.metrics.runtime",
    "aion.audit.activity",
]

# What an export came to.
MADE = ["rows", "files", "bytes", "gaps", "digest"]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory):
    """A lake of some commits by two processes, with records that made no row."""
    dev = Dev(tmp_path_factory.mktemp("control"))
    try:
        for run in range(2):
            dev.start("--rate", "300", "--bad-share", "0.02")
            if run == 1:
                send_a_retry(dev)
            wanted = dev.count("batches") + 12
            dev.wait(lambda wanted=wanted: dev.count("batches") > wanted, "commits")
            dev.wait(lambda: dev.count(REJECTED) > 5, "dead letters")
            if run == 1:
                dev.wait(lambda: dev.count(RETRIED) > 0, "the retry")
            assert dev.stop() == 0
            if run == 0:
                # An interval that ends here is complete a minute later, or when each partition has a later row.
                dev.middle = datetime.datetime.now(datetime.UTC)
        yield dev
    finally:
        dev.end()


def batches(dev: Dev, table: str) -> dict[tuple[str, int], list[dict]]:
    """Of each partition, in the order of the commits."""
    query = f"select * from batches where table_name = '{table}' order by version"
    found = defaultdict(list)
    for row in dev.sql(query):
        found[row["topic_id"], row["partition"]].append(row)
    return found


@pytest.mark.parametrize("table", TABLES)
def test_batches_cover_the_lake_without_a_hole_or_an_overlap(dev: Dev, table: str):
    stored = DeltaTable(Path(dev.data) / "lake" / table)
    columns = ["_topic_id", "_partition", "_offset"]
    rows = stored.to_pyarrow_table(columns=columns).to_pydict()
    offsets = defaultdict(list)
    for topic_id, partition, offset in zip(*(rows[name] for name in columns)):
        offsets[topic_id, partition].append(offset)
    found = batches(dev, table)
    assert found and offsets.keys() <= found.keys()
    for (topic_id, partition), covered in found.items():
        for one, other in itertools.pairwise(covered):
            assert one["next_offset"] == other["first_offset"]
        mark = stored.transaction_version(f"{topic_id}/{partition}")
        assert covered[-1]["next_offset"] == mark
        wanted = Counter()
        for offset in offsets[topic_id, partition]:
            (one,) = [
                one["version"]
                for one in covered
                if one["first_offset"] <= offset < one["next_offset"]
            ]
            wanted[one] += 1
        assert {one["version"]: one["rows"] for one in covered if one["rows"]} == wanted
        assert {one["topic"] for one in covered} == {TABLES[table]}
    told = {
        one["version"]: (one["commit_rows"], one["commit_files"], one["commit_bytes"])
        for covered in found.values()
        for one in covered
    }
    files = Counter()
    for entry in (Path(dev.data) / "lake" / table / "_delta_log").glob("*.json"):
        for line in map(json.loads, entry.read_text().splitlines()):
            if "add" in line:
                files[int(entry.stem), "files"] += 1
                files[int(entry.stem), "bytes"] += line["add"]["size"]
                count = json.loads(line["add"]["stats"])["numRecords"]
                files[int(entry.stem), "rows"] += count
    for version, counts in told.items():
        names = ("rows", "files", "bytes")
        assert counts == tuple(files[version, name] for name in names)


def test_batches_say_what_the_audit_counts_and_stay_after_a_compaction(dev: Dev):
    dev.start("--no-generator")
    try:
        dev.wait(lambda: Audit("--data", dev.data).code == 0, "all is stored")
        audit = Audit("--data", dev.data)
        before = {table: batches(dev, table) for table in TABLES}
        query = f"select distinct _topic_id from {RETRIED}"
        (retries,) = [row["_topic_id"] for row in dev.sql(query)]
        for table in ("decisions", "tasks"):
            for partition in audit.partitions(TABLES[table]):
                rows = sum(
                    one["rows"]
                    for (topic_id, number), covered in before[table].items()
                    for one in covered
                    if number == partition["partition"] and topic_id != retries
                )
                assert rows == partition["stored"]
        command = [binary(), "lake", "compact", "--data", dev.data]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        live = DeltaTable(Path(dev.data) / "lake" / "decisions")
        covered = itertools.chain.from_iterable(before["decisions"].values())
        commits = {one["version"] for one in covered if one["commit_files"]}
        assert len(live.file_uris()) < len(commits), "it is compacted"
        assert {table: batches(dev, table) for table in TABLES} == before
    finally:
        assert dev.stop() == 0


def call(dev: Dev, method: str, path: str, body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    url = f"http://{dev.http}/v1/exports{path}"
    request = urllib.request.Request(url, method=method, data=data)
    with urllib.request.urlopen(request, timeout=70) as answer:
        return json.load(answer)


def stamp(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_exports_are_those_of_aion_export_while_it_runs_and_afterwards(dev: Dev):
    now = datetime.datetime.now(datetime.UTC)
    dev.start("--rate", "300")
    try:
        command = [binary(), "export", "--data", dev.data, "--dataset", "tasks"]
        command += ["--start", stamp(dev.middle - datetime.timedelta(hours=1))]
        command += ["--end", stamp(dev.middle), "--lateness", "1", "--wait-for-close"]
        done = subprocess.run(
            [*command, "--wait"],
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout.splitlines()[-1])
        assert made["state"] == "succeeded" and made["rows"] > 0
        far = now + datetime.timedelta(days=1)
        interval = {"start": stamp(now), "end": stamp(far)}
        body = {"dataset": "decisions", "interval": interval, "wait_for_close": True}
        waits = call(dev, "POST", "", body)
        assert call(dev, "DELETE", f"/{waits['id']}")["state"] == "cancelled"
        listed = call(dev, "GET", "")["exports"]
        query = "select * from exports order by requested_at desc"
        with urllib.request.urlopen(
            f"http://{dev.http}/v1/sql?format=jsonl", data=query.encode(), timeout=60
        ) as answer:
            live = [json.loads(line) for line in answer.read().splitlines()]
    finally:
        assert dev.stop() == 0
    assert [one["id"] for one in live] == [one["id"] for one in listed]
    assert {one["id"] for one in live} == {made["id"], waits["id"]}
    for ours, theirs in zip(live, listed, strict=True):
        for name in ["dataset", "state", "attempt", "source", *MADE]:
            assert ours[name] == theirs.get(name), name
        assert json.loads(ours["request"]) == theirs["request"]
        for ours_name, theirs_name in [
            ("interval_start", theirs["request"]["interval"]["start"]),
            ("interval_end", theirs["request"]["interval"]["end"]),
            ("requested_at", theirs["created_at"]),
            ("finished_at", theirs["finished_at"]),
        ]:
            moment = datetime.datetime.fromisoformat
            assert moment(ours[ours_name]) == moment(theirs_name), ours_name
    # Nobody runs any more: what the folder says is the same.
    stored = dev.sql(query)
    assert [one["id"] for one in stored] == [one["id"] for one in live]
    (kept,) = [one for one in stored if one["id"] == made["id"]]
    assert (kept["rows"], kept["digest"]) == (made["rows"], made["digest"])


def test_schemas_are_those_of_the_registry_and_of_the_contract(dev: Dev):
    query = "select * from schemas order by topic, source, format"
    dev.start("--no-generator")
    try:
        rows = dev.sql(query)
        for topic in TOPICS:
            subject = f"{topic}-value"
            url = f"http://{dev.registry}/subjects/{subject}/versions/latest"
            with urllib.request.urlopen(url, timeout=10) as answer:
                latest = json.load(answer)
            (registered,) = [
                row
                for row in rows
                if (row["topic"], row["source"]) == (topic, "registry")
            ]
            assert registered["subject"] == subject
            for name in ("id", "version"):
                assert registered[name] == latest[name]
            assert registered["text"] == latest["schema"]
            assert registered["deleted"] is False
            mirror = ROOT / "bigdata" / "schemas"
            contract = {
                row["format"]: json.loads(row["text"])
                for row in rows
                if (row["topic"], row["source"]) == (topic, "contract")
            }
            assert contract["avro"] in [
                json.loads(path.read_text()) for path in mirror.glob("*.avsc")
            ]
            assert contract["json_schema"]["type"] == "object"
        for row in rows:
            print_of = hashlib.sha256(row["text"].encode()).hexdigest()
            assert row["fingerprint"] == print_of
    finally:
        assert dev.stop() == 0
    stopped = dev.sql(query)
    assert stopped == [row for row in rows if row["source"] == "contract"]


def test_a_lake_alone_has_no_exports(dev: Dev):
    lake = Path(dev.data) / "lake"
    command = [binary(), "sql", "--lake", lake, "select id from exports"]
    refused = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    assert "exports" in refused.stderr
