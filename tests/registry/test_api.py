"""Confluent's API, against the embedded registry and Apicurio's.

Where they differ, the embedded one is held to Confluent's documentation, and embedded/README.md lists it.
"""

from __future__ import annotations

import json

import pytest
from registries import (
    JSON,
    Embedded,
    Registry,
    field,
    new_subject,
    record,
)

A = field("a")
B = field("b", default="x")
C = field("c")
INT = '"int"'


def test_versions_and_ids(registry: Registry):
    one, other = new_subject(), new_subject()
    assert registry.register(one, record("r", A)).body.keys() == {"id"}
    first = registry.id_of(one, record("r", A))
    second = registry.id_of(one, record("r", A, B))
    assert first != second
    # The same schema has the same id everywhere, and is the same version again.
    assert registry.id_of(one, record("r", A)) == first
    assert registry.id_of(other, record("r", A)) == first
    assert registry.get(f"/subjects/{one}/versions").body == [1, 2]
    assert {one, other} <= set(registry.get("/subjects").body)
    places = registry.get(f"/schemas/ids/{first}/versions").body
    wanted = [{"subject": one, "version": 1}, {"subject": other, "version": 1}]
    assert all(place in places for place in wanted)
    assert {one, other} <= set(registry.get(f"/schemas/ids/{first}/subjects").body)


def test_a_version_by_number_and_by_name(registry: Registry):
    subject = new_subject()
    first = registry.id_of(subject, record("r", A))
    second = registry.id_of(subject, record("r", A, B))
    for version, number, id_ in ((1, 1, first), ("latest", 2, second), (-1, 2, second)):
        answer = registry.get(f"/subjects/{subject}/versions/{version}")
        assert answer.status == 200, answer
        assert answer.body["subject"] == subject
        assert (answer.body["version"], answer.body["id"]) == (number, id_)
        assert json.loads(answer.body["schema"])["name"] == "r"
        assert answer.body.get("schemaType", "AVRO") == "AVRO"
    schema = registry.get(f"/subjects/{subject}/versions/1/schema").body
    assert schema["fields"][0]["name"] == "a"
    by_id = registry.get(f"/schemas/ids/{first}").body
    assert json.loads(by_id["schema"])["fields"][0]["name"] == "a"
    assert "AVRO" in registry.get("/schemas/types").body


def test_a_subject_may_have_any_name(registry: Registry):
    subject = new_subject() + " a/b%c?d"
    id_ = registry.id_of(subject, record("r", A))
    assert subject in registry.get("/subjects").body
    places = registry.get(f"/schemas/ids/{id_}/versions").body
    assert {"subject": subject, "version": 1} in places


def test_looking_a_schema_up(registry: Registry):
    subject = new_subject()
    id_ = registry.id_of(subject, record("r", A))
    found = registry.post(
        f"/subjects/{subject}", {"schema": json.dumps(record("r", A))}
    )
    assert (found.status, found.body["id"], found.body["version"]) == (200, id_, 1)
    spaced = json.dumps(record("r", A), indent=4)
    assert registry.post(f"/subjects/{subject}", {"schema": spaced}).body["id"] == id_
    other = registry.post(
        f"/subjects/{subject}", {"schema": json.dumps(record("r", C))}
    )
    assert (other.status, other.code) == (404, 40403)
    nobody = registry.post(f"/subjects/{new_subject()}", {"schema": INT})
    assert (nobody.status, nobody.code) == (404, 40401)


def test_what_is_not_there(registry: Registry):
    subject = new_subject()
    registry.id_of(subject, record("r", A))
    for path, code in (
        ("/schemas/ids/99999999", 40403),
        (f"/subjects/{new_subject()}/versions", 40401),
        (f"/subjects/{new_subject()}/versions/1", 40401),
        (f"/subjects/{new_subject()}/versions/latest", 40401),
        (f"/subjects/{subject}/versions/9", 40402),
    ):
        answer = registry.get(path)
        assert (answer.status, answer.code) == (404, code), path
        assert answer.body["message"]


def test_what_is_refused(registry: Registry):
    subject = new_subject()
    for body, status, code in (
        ({"schema": "{"}, 422, 42201),
        ({"schema": '{"type":"record","name":"r"}'}, 422, 42201),
        ({"schema": '"integer"'}, 422, 42201),
    ):
        answer = registry.post(f"/subjects/{subject}/versions", body)
        assert (answer.status, answer.code) == (status, code), (body, answer)
    assert subject not in registry.get("/subjects").body
    put = registry.call("PUT", f"/config/{subject}", {"compatibility": "BACKWARDS"})
    assert (put.status, put.code) == (422, 42203)


LEVELS = {
    # What is registered in turn; then for each level whether a third schema is taken.
    "a field is added without a default": (
        [record("r", A)],
        record("r", A, C),
        {"BACKWARD": False, "FORWARD": True, "FULL": False, "NONE": True},
    ),
    "a field is taken away": (
        [record("r", A, C)],
        record("r", A),
        {"BACKWARD": True, "FORWARD": False, "FULL": False, "NONE": True},
    ),
    "a field with a default is added": (
        [record("r", A)],
        record("r", A, B),
        {"BACKWARD": True, "FORWARD": True, "FULL": True, "NONE": True},
    ),
    "the last version would do, the first one not": (
        [record("r", A, field("n", "long", default=0)), record("r", A)],
        record("r", A, field("n", "string", default="")),
        {
            "BACKWARD": True,
            "BACKWARD_TRANSITIVE": False,
            "FORWARD": True,
            "FORWARD_TRANSITIVE": False,
            "FULL": True,
            "FULL_TRANSITIVE": False,
        },
    ),
    "a type is widened": (
        [record("r", field("n", "int"))],
        record("r", field("n", "long")),
        {"BACKWARD": True, "FORWARD": False, "FULL_TRANSITIVE": False},
    ),
    "a symbol is added": (
        [{"type": "enum", "name": "e", "symbols": ["a"]}],
        {"type": "enum", "name": "e", "symbols": ["a", "b"]},
        {"BACKWARD": True, "FORWARD": False},
    ),
    "a type is named where it was defined in place": (
        [record("r", field("x", record("p", A)), field("y", "p"))],
        record("r", field("y", record("p", A))),
        {"BACKWARD": True, "FORWARD": False},
    ),
    "a branch is taken out of a union": (
        [record("r", field("n", ["null", "long", "string"]))],
        record("r", field("n", ["null", "long"])),
        {"BACKWARD": False, "FORWARD": True},
    ),
    "a field is renamed by an alias": (
        [record("r", A)],
        record("r", field("z", aliases=["a"])),
        {"BACKWARD": True, "FORWARD": False},
    ),
}


@pytest.mark.parametrize("change", LEVELS)
def test_levels(registry: Registry, change: str):
    before, after, verdicts = LEVELS[change]
    for level, taken in verdicts.items():
        subject = new_subject()
        registry.id_of(subject, before[0])
        put = registry.call("PUT", f"/config/{subject}", {"compatibility": "NONE"})
        assert put.status == 200, put
        for schema in before[1:]:
            registry.id_of(subject, schema)
        put = registry.call("PUT", f"/config/{subject}", {"compatibility": level})
        assert put.body["compatibility"] == level
        level_now = registry.get(f"/config/{subject}").body["compatibilityLevel"]
        assert level_now == level
        check = f"/compatibility/subjects/{subject}/versions"
        if not registry.is_ours and "TRANSITIVE" not in level:
            # Without a version, Apicurio compares with all of them at any level.
            check += "/latest"
        verdict = registry.post(check, {"schema": json.dumps(after)})
        assert verdict.body["is_compatible"] is taken, (level, verdict)
        answer = registry.register(subject, after)
        if taken:
            assert answer.status == 200, (level, answer)
        else:
            assert (answer.status, answer.code) == (409, 409), (level, answer)
            assert registry.get(f"/subjects/{subject}/versions").body == [
                n + 1 for n in range(len(before))
            ]


def test_one_version_may_be_compared_with(registry: Registry):
    subject = new_subject()
    registry.id_of(subject, record("r", A))
    registry.id_of(subject, record("r", A, B))
    body = {"schema": json.dumps(record("r", A, field("b", "int", default=0)))}
    check = f"/compatibility/subjects/{subject}/versions"
    assert registry.post(f"{check}/1", body).body["is_compatible"] is True
    assert registry.post(f"{check}/2", body).body["is_compatible"] is False
    assert registry.post(f"{check}/latest", body).body["is_compatible"] is False
    missing = registry.post(f"{check}/9", body)
    assert (missing.status, missing.code) == (404, 40402)


def test_deleting_softly_and_for_good(registry: Registry):
    subject = new_subject()
    first = registry.id_of(subject, record(f"r{subject[2:8]}", A))
    registry.id_of(subject, record(f"r{subject[2:8]}", A, B))
    at = f"/subjects/{subject}"
    answer = registry.call("DELETE", f"{at}/versions/1")
    assert (answer.status, answer.body) == (200, 1)
    assert registry.get(f"{at}/versions").body == [2]
    assert registry.get(f"{at}/versions?deleted=true").body == [1, 2]
    gone = registry.get(f"{at}/versions/1")
    assert (gone.status, gone.code) == (404, 40402)
    # What was written with it can still be read.
    assert registry.get(f"/schemas/ids/{first}").status == 200
    twice = registry.call("DELETE", f"{at}/versions/1")
    missing = 404 if registry.is_ours else 409
    assert (twice.status, twice.code) == (missing, 40406)
    assert registry.call("DELETE", f"{at}/versions/1?permanent=true").body == 1
    assert registry.get(f"{at}/versions?deleted=true").body == [2]

    assert registry.call("DELETE", at).body == [2]
    assert subject not in registry.get("/subjects").body
    assert subject in registry.get("/subjects?deleted=true").body
    twice = registry.call("DELETE", at)
    assert (twice.status, twice.code) == (404, 40404)
    assert registry.call("DELETE", f"{at}?permanent=true").body == [2]
    assert subject not in registry.get("/subjects?deleted=true").body
    nobody = registry.call("DELETE", f"/subjects/{new_subject()}")
    assert (nobody.status, nobody.code) == (404, 40401)


def test_a_deleted_schema_may_come_back(registry: Registry):
    subject = new_subject()
    schema = record(f"r{subject[2:8]}", A)
    first = registry.id_of(subject, schema)
    registry.call("DELETE", f"/subjects/{subject}")
    assert registry.id_of(subject, schema) == first
    assert registry.get(f"/subjects/{subject}/versions").body == [2]


def test_references(registry: Registry):
    used, subject = new_subject(), new_subject()
    name = f"p{used[2:8]}"
    registry.id_of(used, record(name, A, namespace="x"))
    reference = {"name": f"x.{name}", "subject": used, "version": 1}
    schema = record("r", field("p", f"x.{name}"))
    id_ = registry.id_of(subject, schema, references=[reference])
    assert registry.get(f"/schemas/ids/{id_}").body["references"] == [reference]
    version = registry.get(f"/subjects/{subject}/versions/1").body
    assert version["references"] == [reference]
    users = registry.get(f"/subjects/{used}/versions/1/referencedby").body
    assert users == [id_]
    refused = registry.call("DELETE", f"/subjects/{used}/versions/1")
    assert (refused.status, refused.code) == (422, 42206)
    lost = {**reference, "subject": new_subject()}
    answer = registry.register(new_subject(), schema, references=[lost])
    assert (answer.status, answer.code) == (422, 42201)


def test_normalize(registry: Registry):
    subject = new_subject()
    spelled = {
        "type": "record",
        "name": "x.r",
        "fields": [{"type": {"type": "string"}, "name": "a"}],
    }
    plain = {
        "fields": [{"name": "a", "type": "string"}],
        "namespace": "x",
        "name": "r",
        "type": "record",
    }
    id_ = registry.id_of(subject, spelled, query="?normalize=true")
    assert registry.id_of(subject, plain, query="?normalize=true") == id_
    body = {"schema": json.dumps(plain)}
    found = registry.post(f"/subjects/{subject}?normalize=true", body)
    assert found.body["id"] == id_
    assert registry.get(f"/subjects/{subject}/versions").body == [1]


def test_the_level_of_all_others(embedded: Embedded):
    # Not at Apicurio's: its other tests run at the same level.
    assert embedded.get("/config").body == {"compatibilityLevel": "BACKWARD"}
    put = embedded.call("PUT", "/config", {"compatibility": "NONE"})
    assert put.body == {"compatibility": "NONE"}
    subject = new_subject()
    embedded.id_of(subject, '"int"')
    embedded.id_of(subject, '"string"')
    missing = embedded.get(f"/config/{subject}")
    assert (missing.status, missing.code) == (404, 40408)
    default = embedded.get(f"/config/{subject}?defaultToGlobal=true")
    assert default.body == {"compatibilityLevel": "NONE"}
    embedded.call("PUT", f"/config/{subject}", {"compatibility": "FULL"})
    cleared = embedded.call("DELETE", f"/config/{subject}")
    assert cleared.body == {"compatibilityLevel": "FULL"}
    assert embedded.get(f"/config/{subject}").code == 40408
    assert embedded.call("DELETE", "/config").body == {"compatibilityLevel": "NONE"}
    assert embedded.get("/config").body == {"compatibilityLevel": "BACKWARD"}


def test_only_ours_is_as_confluent_documents(embedded: Embedded):
    """Where Apicurio answers otherwise; embedded/README.md has the list."""
    subject = new_subject()
    registered = embedded.register(subject, record("r", A))
    assert registered.kind == JSON
    for method, path, body, status, code in (
        ("GET", f"/subjects/{subject}/versions/abc", None, 422, 42202),
        ("GET", f"/subjects/{subject}/versions/0", None, 422, 42202),
        ("POST", f"/subjects/{subject}/versions", {"schema": ""}, 422, 42201),
        ("POST", f"/subjects/{subject}/versions", {}, 422, 42201),
        ("POST", f"/subjects/{subject}/versions", b"{", 400, 400),
        ("DELETE", f"/subjects/{subject}?permanent=true", None, 404, 40405),
        ("DELETE", f"/subjects/{subject}/versions/1?permanent=true", None, 404, 40407),
        ("GET", "/nonsense", None, 404, 404),
        ("POST", "/subjects", {}, 405, 405),
        ("GET", f"/mode/{subject}", None, 404, 40409),
        ("PUT", "/mode", {"mode": "IMPORT"}, 422, 42204),
    ):
        answer = embedded.call(method, path, body)
        assert (answer.status, answer.code) == (status, code), (path, answer)
        assert answer.kind == JSON
    for more in (
        {"schemaType": "JSON"},
        {"schemaType": "PROTOBUF"},
        {"ruleSet": {"domainRules": []}},
    ):
        answer = embedded.register(new_subject(), "{}", **more)
        assert (answer.status, answer.code) == (422, 42201), more
        assert "embedded registry keeps" in answer.body["message"]
    given = embedded.register(new_subject(), INT, id=7, version=1)
    assert (given.status, given.code) == (422, 42205)
    assert embedded.get("/mode").body == {"mode": "READWRITE"}
    # Docs are part of a schema: two that differ in them are two versions.
    embedded.id_of(subject, record("r", A, doc="why"))
    assert embedded.get(f"/subjects/{subject}/versions").body == [1, 2]


def test_a_conflict_says_which_field(embedded: Embedded):
    subject = new_subject()
    embedded.id_of(subject, record("r", A))
    body = {"schema": json.dumps(record("r", A, C))}
    check = f"/compatibility/subjects/{subject}/versions/latest?verbose=true"
    messages = embedded.post(check, body).body["messages"]
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in messages[0] and "`c`" in messages[0]
    assert messages[-1] == "{compatibility: 'BACKWARD'}"
    refused = embedded.register(subject, record("r", A, C))
    assert "field `c`" in refused.body["message"], refused


def test_a_large_request_is_refused(embedded: Embedded):
    answer = embedded.register(new_subject(), " " * 3_000_000)
    assert answer.status == 413, answer


def test_what_was_answered_survives_kill_9(tmp_path):
    registry = Embedded(tmp_path)
    subject = new_subject()
    ids = {}
    for turn in range(5):
        registry.start()
        for n in range(turn * 10, turn * 10 + 10):
            schema = record("r", A, *(field(f"f{i}", default="") for i in range(n)))
            ids[n + 1] = registry.id_of(subject, schema)
        registry.kill()
    registry.start()
    assert registry.get(f"/subjects/{subject}/versions").body == list(ids)
    for version, id_ in ids.items():
        found = registry.get(f"/subjects/{subject}/versions/{version}").body
        assert found["id"] == id_
    registry.stop()
