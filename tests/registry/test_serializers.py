"""Confluent's own serialisers and deserialisers for Python, unchanged, against both registries."""

from __future__ import annotations

import json

import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from processes import ROOT
from registries import Registry, field, new_subject, record, text

A = field("a")
B = field("b", "long", default=7)


@pytest.fixture
def client(registry: Registry):
    return SchemaRegistryClient({"url": registry.url})


@pytest.fixture
def place():
    """The value of a topic, as serialisers are told of it; its subject is `<topic>-value`."""
    topic = new_subject().removesuffix("-value")
    return SerializationContext(topic, MessageField.VALUE)


def subject(place: SerializationContext) -> str:
    return topic_subject_name_strategy(place, None)


def framed_id(payload: bytes) -> int:
    assert payload[0] == 0
    return int.from_bytes(payload[1:5], "big")


def test_a_schema_is_registered_by_its_first_event(client, place):
    write = AvroSerializer(client, text(record("r", A, B)))
    payload = write({"a": "x", "b": 1}, place)
    latest = client.get_latest_version(subject(place))
    assert framed_id(payload) == latest.schema_id
    assert AvroDeserializer(client)(payload, place) == {"a": "x", "b": 1}


def test_events_of_either_age_are_read_with_either_schema(client, place):
    old, new = text(record("r", A)), text(record("r", A, B))
    older = AvroSerializer(client, old)({"a": "x"}, place)
    newer = AvroSerializer(client, new)({"a": "y", "b": 1}, place)
    assert framed_id(older) != framed_id(newer)
    read_new, read_old = (AvroDeserializer(client, schema) for schema in (new, old))
    assert read_new(older, place) == {"a": "x", "b": 7}
    assert read_new(newer, place) == {"a": "y", "b": 1}
    assert read_old(newer, place) == {"a": "y"}


def test_a_change_that_breaks_readers_is_not_registered(client, place):
    AvroSerializer(client, text(record("r", A)))({"a": "x"}, place)
    broken = AvroSerializer(client, text(record("r", A, field("c"))))
    with pytest.raises(SchemaRegistryError) as error:
        broken({"a": "x", "c": "y"}, place)
    assert error.value.http_status_code == 409


def test_the_latest_version_is_used_and_none_registered(client, place):
    schema = text(record("r", A, B))
    settings = {"auto.register.schemas": False, "use.latest.version": True}
    write = AvroSerializer(client, schema, conf=settings)
    with pytest.raises(SchemaRegistryError) as error:
        write({"a": "x", "b": 1}, place)
    assert error.value.http_status_code == 404
    client.register_schema(subject(place), Schema(text(record("r", A)), "AVRO"))
    id_ = client.register_schema(subject(place), Schema(schema, "AVRO"))
    client.clear_caches()
    payload = AvroSerializer(client, schema, conf=settings)({"a": "x", "b": 1}, place)
    assert framed_id(payload) == id_
    assert len(client.get_versions(subject(place))) == 2


def test_normalize(client, place):
    spelled = record("x.r", {"type": {"type": "string"}, "name": "a"})
    settings = {"normalize.schemas": True}
    first = AvroSerializer(client, text(spelled), conf=settings)({"a": "x"}, place)
    plain = record("r", A, namespace="x")
    second = AvroSerializer(client, text(plain), conf=settings)({"a": "x"}, place)
    assert framed_id(first) == framed_id(second)


def test_references(client, place):
    name = f"p{place.topic[2:8]}"
    used = new_subject()
    client.register_schema(used, Schema(text(record(name, A)), "AVRO"))
    schema = Schema(
        text(record("r", field("p", name))), "AVRO", [SchemaReference(name, used, 1)]
    )
    write = AvroSerializer(client, schema)
    payload = write({"p": {"a": "x"}}, place)
    # A client without anything in its cache.
    assert AvroDeserializer(client, schema)(payload, place) == {"p": {"a": "x"}}
    known = client.get_schema(framed_id(payload))
    assert known.references == [SchemaReference(name, used, 1)]


def test_the_platforms_schemas(client, place):
    for path in (ROOT / "bigdata" / "schemas").glob("*.avsc"):
        schema = json.loads(path.read_text())
        sample = ROOT / "schemas" / "samples" / f"{path.stem}.jsonl"
        here = SerializationContext(f"{place.topic}-{path.stem}", MessageField.VALUE)
        write = AvroSerializer(client, path.read_text())
        read = AvroDeserializer(client)
        for line in sample.read_text().splitlines():
            event = avro_form(json.loads(line), schema)
            found = read(write(event, here), here)
            assert {name: found[name] for name in event} == event


def avro_form(event: dict, schema: dict) -> dict:
    """A sample, which is JSON, with times and free objects as Avro has them."""
    from datetime import datetime

    docs = {field["name"]: field for field in schema["fields"]}

    def value(name: str, given: object) -> object:
        if "timestamp-micros" in json.dumps(docs[name]["type"]):
            return datetime.fromisoformat(given)
        return json.dumps(given) if isinstance(given, dict) else given

    return {name: value(name, given) for name, given in event.items()}


def test_what_a_client_asks_besides(client, place, registry: Registry):
    schema = Schema(text(record("r", A)), "AVRO")
    id_ = client.register_schema(subject(place), schema)
    assert client.lookup_schema(subject(place), schema).schema_id == id_
    assert client.get_version(subject(place), 1).schema_id == id_
    assert subject(place) in client.get_subjects()
    assert client.test_compatibility(subject(place), schema)
    other = Schema(text(record("r", field("c"))), "AVRO")
    assert not client.test_compatibility(subject(place), other)
    assert client.set_compatibility(subject(place), "FULL")
    assert client.get_compatibility(subject(place)) == "FULL"
    assert client.delete_version(subject(place), 1) == 1
    if registry.is_ours:
        assert client.delete_subject(subject(place), permanent=True) == [1]
