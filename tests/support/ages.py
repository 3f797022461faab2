"""Services of several ages that write one topic: three versions of its schema, and JSON."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import fastavro
from confluent_kafka import Producer, SerializingProducer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from events import text
from processes import ROOT

TASKS = "aion.tasks.lifecycle"
OLDER = """{"type": "record", "name": "tasks_lifecycle", "namespace": "aion.events", "fields": [
    {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "status", "type": "string"},
    {"name": "task_id", "type": "string"}]}"""
NEWER = """{"type": "record", "name": "tasks_lifecycle", "namespace": "aion.events", "fields": [
    {"name": "task_id", "type": "string"},
    {"name": "status", "type": {"type": "enum", "name": "status", "symbols": ["queued", "done"]}},
    {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "metadata", "type": ["null", {"type": "map", "values": ["long", "string"]}]},
    {"name": "next_year", "type": {"type": "array", "items": "double"}}]}"""


def writers(registry: str) -> list:
    """One serialiser for each age of the schema; only the contract's own refuses to register."""
    client = SchemaRegistryClient({"url": registry})
    subject = f"{TASKS}-value"
    client.set_compatibility(subject, "NONE")
    contract = (ROOT / "bigdata/schemas/tasks_lifecycle.avsc").read_text()
    closed = {"auto.register.schemas": False, "normalize.schemas": True}
    for older in (OLDER, NEWER):
        client.register_schema(subject, Schema(older, "AVRO"))
    return [
        AvroSerializer(client, contract, conf=closed),
        AvroSerializer(client, OLDER, conf={"auto.register.schemas": False}),
        AvroSerializer(client, NEWER, conf={"auto.register.schemas": False}),
    ]


def mixed_run(brokers: str, registry: str, rounds: int) -> None:
    """Three writers and JSON take turns."""
    ages = writers(registry)
    common = {"bootstrap.servers": brokers, "enable.idempotence": True}
    producers = [
        SerializingProducer({**common, "value.serializer": age}) for age in ages
    ]
    json_producer = Producer(common)
    nothing = ["tenant_id", "intent", "agent_id", "project_id", "error_code"]
    nothing += ["event_id", "latency_ms", "retries"]
    for n in range(rounds):
        moment = datetime.now(UTC)
        base = {"task_id": f"task-{n}", "status": "queued", "timestamp": moment}
        producers[0].produce(
            TASKS,
            key=b"k",
            value={**base, "metadata": '{"n":1}', **dict.fromkeys(nothing)},
        )
        producers[1].produce(TASKS, key=b"k", value=base)
        newer = {**base, "metadata": {"n": 1, "a": "b"}, "next_year": [0.5]}
        producers[2].produce(TASKS, key=b"k", value=newer)
        json_producer.produce(TASKS, text(json_event(n)), b"k")
        for producer in (*producers, json_producer):
            producer.poll(0)
    for producer in (*producers, json_producer):
        assert producer.flush(60) == 0


def json_event(n: int) -> dict:
    moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {"task_id": f"task-{n}", "status": "queued", "timestamp": moment}


def by_metadata(rounds: int) -> dict[str | None, int]:
    """How many rows of a mixed run have which metadata."""
    return {None: 2 * rounds, '{"n":1}': rounds, '{"a":"b","n":1}': rounds}


def framed(id_: int, schema: str, task: str, **more: object) -> bytes:
    """An event in Confluent's framing, by a library that is no registry's client."""
    out = io.BytesIO()
    event = {"task_id": task, "status": "done", "timestamp": datetime.now(UTC), **more}
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(schema)), event)
    return b"\0" + id_.to_bytes(4) + out.getvalue()
