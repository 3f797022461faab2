"""Events through `aion publish`, `/v1` and Confluent's serialisers; what is in the topics by `aion tap`."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path

import pytest
from ages import OLDER, by_metadata, framed, mixed_run
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from events import text
from processes import Audit, binary, free_port

TASKS = "aion.tasks.lifecycle"
DECISIONS = "aion.router.decisions"


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def task(n: int, **more: object) -> dict:
    event = {"task_id": f"task-{n}", "status": "queued", "timestamp": now()}
    return event | more


def lines(*events: dict | str) -> str:
    texts = [e if isinstance(e, str) else json.dumps(e) for e in events]
    return "\n".join(texts) + "\n"


def aion(*arguments: object, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [binary(), *map(str, arguments)],
        input=given,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def publish(dev, *arguments: object, given: str, topic: str = TASKS):
    where = ["--topic", topic, "--data", dev.data]
    return aion("publish", *where, *arguments, given=given)


def tap(dev, topic: str, *arguments: object) -> list[dict]:
    done = aion("tap", topic, "--data", dev.data, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def post(dev, path: str, body: str, **headers: str) -> tuple[int, dict]:
    request = urllib.request.Request(
        f"http://{dev.http}{path}", body.encode(), headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as answer:
        return answer.code, json.load(answer)


@pytest.fixture
def quiet(dev):
    """`aion dev` without events of its own."""
    dev.start("--no-generator")
    return dev


def test_lines_are_held_against_the_contract_before_they_are_sent(quiet):
    dev = quiet
    bad = [
        task(2, latency_ms="12"),
        {"task_id": "task-3", "timestamp": now()},
        "{not json",
        task(4, statu="x"),
    ]
    mixed = lines(task(1), *bad, task(5, metadata={"b": 1, "a": [1.5, None]}))
    # Strict: nothing is sent.
    done = publish(dev, "--strict", given=mixed)
    assert done.returncode == 9, done.stderr
    assert "0 events sent and acknowledged, 4 refused" in done.stderr
    assert tap(dev, TASKS) == []
    # Else the good ones are, and the others are told with line, field, rule and value.
    done = publish(dev, "--json", given=mixed)
    assert done.returncode == 9, done.stderr
    assert "2 events sent and acknowledged, 4 refused" in done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(one["line"], one["field"], one["rule"], one["value"]) for one in told} >= {
        (2, "latency_ms", "type", '"12"'),
        (3, "status", "required", None),
        (4, "", "json", "{not json"),
        (5, "statu", "additionalProperties", '"x"'),
    }
    records = tap(dev, TASKS)
    assert sorted(one["key"] for one in records) == ["task-1", "task-5"]
    assert all(one["encoding"] == "json" for one in records)
    # The same as Avro, by the schema that is registered; in text what is wrong is on standard error.
    done = publish(dev, "--encoding", "avro", given=mixed)
    assert done.returncode == 9
    assert 'line 2: field `latency_ms` must be of type integer; it is "12" (type)' in (
        done.stderr
    )
    dev.wait(lambda: dev.count("tasks") == 4, "all four are rows")
    rows = dev.sql(
        "select task_id, metadata, count(*) as n from tasks group by 1, 2 order by 1"
    )
    assert [row["n"] for row in rows] == [2, 2], "both encodings are the same rows"
    assert rows[1]["metadata"] == '{"a":[1.5,null],"b":1}'
    audit = Audit("--data", dev.data)
    assert audit.code == 0, audit.report
    assert (audit.total("stored"), dev.count("dead_letters")) == (4, 0)


def test_a_topic_that_cannot_be_published_to_is_named(quiet):
    dev = quiet
    for topic, what in [
        ("aion.dead-letters", "written by AION Event Streams itself"),
        ("aion.task.lifecycle", 'did you mean "aion.tasks.lifecycle"?'),
    ]:
        done = publish(dev, given=lines(task(1)), topic=topic)
        assert (done.returncode, what in done.stderr) == (2, True), done.stderr
    done = publish(dev, "--kafka", "127.0.0.1:1", given=lines(task(1)))
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr, done.stderr


def test_services_validate_and_publish_over_http(quiet):
    dev = quiet
    good, bad = lines(task(1), task(2)), lines(task(3), task(4, status=7))
    status, answer = post(dev, "/v1/validate/tasks", good)
    assert (status, answer["valid"], tap(dev, TASKS)) == (200, 2, [])
    status, answer = post(dev, "/v1/publish/tasks", bad)
    assert (status, answer["refused"], answer["acknowledged"]) == (422, 1, 0)
    (broken,) = answer["lines"][1]["violations"]
    assert (broken["field"], broken["rule"], broken["value"]) == ("status", "type", "7")
    assert tap(dev, TASKS) == []
    status, answer = post(dev, "/v1/publish/tasks?strict=false&encoding=avro", bad)
    assert (status, answer["refused"], answer["acknowledged"]) == (207, 1, 1)
    status, answer = post(dev, f"/v1/publish/{TASKS}", good)
    assert (status, answer["acknowledged"]) == (200, 2)
    placed = {(line["partition"], line["offset"]) for line in answer["lines"]}
    seen = {
        (one["partition"], one["offset"])
        for one in tap(dev, TASKS)
        if one["encoding"] == "json"
    }
    assert placed == seen
    for path, body, status in [
        ("/v1/publish/nothing", good, 404),
        ("/v1/publish/aion.gaps", good, 403),
        ("/v1/publish/tasks", lines(task(1)) * 10_001, 413),
        ("/v1/publish/tasks", "x" * ((8 << 20) + 1), 413),
    ]:
        assert post(dev, path, body)[0] == status, path
    page = {"Origin": "https://example.com"}
    assert post(dev, "/v1/publish/tasks", good, **page)[0] == 403
    dev.wait(lambda: dev.count("tasks") == 3, "three are rows")


def test_writers_of_three_ages_and_json_land_exactly_once(quiet):
    dev, rounds = quiet, 2_000
    mixed_run(dev.kafka, f"http://{dev.registry}", rounds)
    dev.wait(lambda: dev.count("tasks") == 4 * rounds, "all are rows")
    audit = Audit("--data", dev.data)
    assert (audit.code, audit.total("stored")) == (0, 4 * rounds), audit.report
    assert dev.count("dead_letters") == 0
    metadata = dev.sql("select metadata, count(*) as n from tasks group by 1")
    assert {row["metadata"]: row["n"] for row in metadata} == by_metadata(rounds)
    assert dev.metric("aion_unknown_fields_total", field="next_year") == rounds
    # What stands in the topic, by whom it was written.
    seen = tap(dev, TASKS)
    assert {one["encoding"] for one in seen} == {"avro", "json"}
    assert {one.get("version") for one in seen} == {None, 1, 2, 3}
    assert all(one["event"]["status"] == "queued" for one in seen)


def test_generated_avro_finds_the_ids_of_its_schemas(quiet):
    dev = quiet
    command = ["generate", "--encoding", "avro", "--count", "400", "--to", dev.kafka]
    named = ["--registry", f"http://{dev.registry}", "--topic", "tasks"]
    # In the registry of the `aion dev` whose broker is named, for all topics; and in one that is named.
    for where in (["--data", dev.data], [*named, "--seed", "2"]):
        done = aion(*command, *where)
        assert done.returncode == 0, done.stderr
    tables = ("decisions", "tasks", "metrics", "audit")
    dev.wait(lambda: sum(map(dev.count, tables)) == 800, "all are rows")
    assert dev.count("dead_letters") == 0
    for topic in (TASKS, DECISIONS):
        written = {(one["encoding"], one["subject"]) for one in tap(dev, topic)}
        assert written == {("avro", f"{topic}-value")}
    # With no registry to ask nothing is sent.
    done = aion(*command, "--data", dev.data / "nowhere")
    assert done.returncode == 2 and "--registry" in done.stderr, done.stderr
    # Nor where the registry lacks one of the schemas.
    urllib.request.urlopen(
        urllib.request.Request(
            f"http://{dev.registry}/subjects/{DECISIONS}-value", method="DELETE"
        ),
        timeout=10,
    ).close()
    done = aion(*command, "--data", dev.data)
    assert done.returncode == 1 and "aion bootstrap" in done.stderr, done.stderr
    assert sum(map(dev.count, tables)) == 800


def test_a_record_waits_for_its_schema_and_others_go_on(quiet):
    dev = quiet
    client = SchemaRegistryClient({"url": f"http://{dev.registry}"})
    producer = Producer({"bootstrap.servers": dev.kafka})
    frame = b"\0" + (987_654).to_bytes(4) + b"body"
    producer.produce(TASKS, frame, b"k", partition=0)
    producer.produce(TASKS, text(task(1)), b"k", partition=0)
    producer.produce(TASKS, text(task(2)), b"k", partition=1)
    # A schema of another topic is known, and not for this one.
    other = client.register_schema("orders-value", Schema(OLDER, "AVRO"))
    producer.produce(TASKS, b"\0" + other.to_bytes(4) + b"body", b"k", partition=1)
    assert producer.flush(30) == 0
    gauge = "aion_partition_waits_for_schema"
    dev.wait(lambda: dev.metric(gauge, partition="0") == 1, "partition 0 waits", 30)
    dev.wait(lambda: dev.count("dead_letters") == 2, "both are dead letters", 60)
    dev.wait(lambda: dev.count("tasks") == 2, "the others are rows")
    reasons = dev.sql("select reason, detail from dead_letters order by reason")
    assert [row["reason"] for row in reasons] == ["foreign_schema", "unknown_schema"]
    assert "orders-value" in reasons[0]["detail"]
    assert dev.metric(gauge) == 0
    shown = {one["offset"]: one for one in tap(dev, TASKS, "--partition", 0)}
    assert shown[0]["reason"] == "unreadable" and "987654" in shown[0]["detail"]
    # What became a dead letter is shown as one.
    (letter,) = [one for one in tap(dev, TASKS, "--partition", 1) if "reason" in one]
    assert letter["reason"] == "foreign_schema", letter
    assert "orders-value" in letter["detail"]
    # As soon as it is registered under the topic's subject too, it is the topic's.
    client.set_compatibility(f"{TASKS}-value", "NONE")
    client.register_schema(f"{TASKS}-value", Schema(OLDER, "AVRO"))
    producer.produce(TASKS, framed(other, OLDER, "late"), b"k", partition=1)
    assert producer.flush(30) == 0
    last = tap(dev, TASKS, "--partition", 1)[-1]
    assert last["event"]["task_id"] == "late"
    assert (last["subject"], last["version"]) == (f"{TASKS}-value", 2), last


def test_tap_shows_any_topic_from_anywhere(quiet):
    dev = quiet
    done = publish(
        dev,
        given=lines(*(task(n, latency_ms=n) for n in range(20))),
    )
    assert done.returncode == 0, done.stderr
    some = tap(dev, "tasks", "--where", "latency_ms >= 15 and status like 'q%'")
    assert sorted(one["event"]["latency_ms"] for one in some) == [15, 16, 17, 18, 19]
    assert len(tap(dev, TASKS, "--limit", 3)) == 3
    parts = {one["partition"] for one in tap(dev, TASKS)}
    last = tap(dev, TASKS, "--from", -1)
    assert len(last) == len(parts)
    assert tap(dev, TASKS, "--from", "end") == []
    assert len(tap(dev, TASKS, "--from", "1h")) == 20
    done = aion("tap", TASKS, "--data", dev.data, "--where", "latency > 1")
    assert done.returncode == 2 and "did you mean `latency_ms`?" in done.stderr
    done = aion("tap", "no.such.topic", "--data", dev.data)
    assert done.returncode == 2 and "no.such.topic" in done.stderr
    # A topic that isn't in the contract.
    producer = Producer({"bootstrap.servers": dev.kafka})
    values = [b'{"a": [1, 2]}', b"plain", b"\xff\x00", None]
    admin = AdminClient({"bootstrap.servers": dev.kafka})
    admin.create_topics([NewTopic("elsewhere", 1, 1)])["elsewhere"].result(30)
    for value in values:
        producer.produce("elsewhere", value, b"k", headers={"h": b"v"})
    assert producer.flush(30) == 0
    seen = tap(dev, "elsewhere")
    encodings = [one["encoding"] for one in seen]
    assert encodings == ["json", "text", "bytes", "tombstone"]
    assert seen[0]["event"] == {"a": [1, 2]} and seen[2]["value"] == "\\xff00"
    assert seen[0]["headers"] == [["h", "v"]]
    # Following shows what comes.
    follow = subprocess.Popen(
        [binary(), "tap", TASKS, "--data", str(dev.data), "--follow", "-n", "1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while follow.poll() is None and time.monotonic() < deadline:
            publish(dev, given=lines(task(99)))
        out, _ = follow.communicate(timeout=10)
        assert follow.returncode == 0 and '"task-99"' in out, out
    finally:
        follow.kill()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    pem, key = folder / "http.pem", folder / "http.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=aion", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    return pem, key


def test_a_process_of_its_own_wants_keys_and_may_speak_tls(quiet, tmp_path: Path):
    dev, secret = quiet, "0123456789abcdef0123"
    pem, key = certificate(tmp_path)
    (tmp_path / "secret").write_text(secret)
    http = f"127.0.0.1:{free_port()}"
    config = tmp_path / "aion.toml"
    plain = f"""
        kafka.brokers = "{dev.kafka}"
        lake.url = "{tmp_path / "lake"}"
        [http]
        listen = "{http}"
    """
    context = ssl.create_default_context(cafile=pem)

    def ask(scheme: str, **headers: str) -> int:
        url = f"{scheme}://{http}/v1/validate/tasks"
        body = lines(task(1)).encode()
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            https = context if scheme == "https" else None
            with urllib.request.urlopen(request, timeout=10, context=https) as answer:
                return answer.status
        except urllib.error.HTTPError as answer:
            return answer.code
        except (OSError, HTTPException):
            return 0

    keys = f'keys = ["file:{tmp_path / "secret"}"]'
    tls = f'certificate = "{pem}"\nkey = "{key}"'
    bearer = {"Authorization": f"Bearer {secret}"}
    for text_of, scheme, answers in [
        (plain, "http", (403, 403, 403)),
        (f"{plain}\n{keys}", "http", (401, 401, 200)),
        (f"{plain}\n{keys}\n{tls}", "https", (401, 401, 200)),
    ]:
        config.write_text(text_of)
        command = [binary(), "run", "--config", str(config)]
        with (tmp_path / "run.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            dev.wait(lambda: ask(scheme) != 0, "it answers", 60)  # noqa: B023
            wrong = {"Authorization": "Bearer wrong-wrong-wrong-wrong"}
            got = (ask(scheme), ask(scheme, **wrong), ask(scheme, **bearer))
            assert got == answers
            if scheme == "https":
                assert ask("http", **bearer) == 0, "nothing is served in the clear"
        finally:
            process.terminate()
            assert process.wait(60) == 0
