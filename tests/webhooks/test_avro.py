"""Events in Avro arrive as JSON, by the schema registry."""

from __future__ import annotations

import base64
import json

from ages import OLDER, TASKS, framed, mixed_run
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

# A topic that is in no catalog, with a schema of its own.
TOPIC = "test.avro"
SCHEMA = {
    "type": "record",
    "name": "proposal",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "why", "type": ["null", "string"]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "by", "type": {"type": "enum", "name": "by", "symbols": ["a", "b"]}},
        {"name": "limits", "type": {"type": "map", "values": "double"}},
    ],
}
VALUE = {"id": 2**53 + 1, "why": "ü", "tags": ["x"], "by": "b", "limits": {"cpu": 0.5}}
# What is in no column of the contract's, such as next_year, doesn't come.
KEYS = {"task_id", "status", "timestamp", "metadata"}


def test_avro_arrives_as_json(hooks):
    receiver = hooks.receiver()
    hooks.policy({"id": "all", "url": receiver.url, "topics": [TASKS, TOPIC]})
    hooks.start()
    hooks.topic(TOPIC)
    hooks.born("all")
    registry = f"http://{hooks.registry}"
    serializer = AvroSerializer(
        SchemaRegistryClient({"url": registry}), json.dumps(SCHEMA)
    )
    good = serializer(VALUE, SerializationContext(TOPIC, MessageField.VALUE))
    nobodys = framed(99_999, OLDER, "task")
    producer = Producer({"bootstrap.servers": hooks.kafka})
    for value in (good, good[:-1], nobodys):
        producer.produce(TOPIC, value)
    assert producer.flush(30) == 0
    rounds = 2
    mixed_run(hooks.kafka, registry, rounds)
    hooks.wait(lambda: len(receiver.taken) == 2 + 4 * rounds, "all come")
    buried = lambda: hooks.metric("aion_webhook_dead_letters_total")
    hooks.wait(lambda: buried() == 1, "what is cut off is a dead letter")
    assert receiver.failures == []

    events = [delivery.event for delivery in receiver.deliveries]
    others = [event for event in events if event["type"] == TOPIC]
    others.sort(key=lambda event: event["source"]["offset"])
    assert others[0]["data"] == VALUE and "data_base64" not in others[0]
    assert base64.b64decode(others[1]["data_base64"]) == nobodys
    tasks = [event["data"] for event in events if event["type"] == TASKS]
    for n in range(rounds):
        rows = [row for row in tasks if row["task_id"] == f"task-{n}"]
        metadata = sorted(json.dumps(row.get("metadata")) for row in rows)
        assert metadata == ["null", "null", '{"a": "b", "n": 1}', '{"n": 1}']
        times = {row["timestamp"] for row in rows if "metadata" in row}
        assert len(times) == 1, "one moment, to the microsecond, from two schemas"
        assert {row["status"] for row in rows} == {"queued"}
        assert all(row.keys() <= KEYS for row in rows)
