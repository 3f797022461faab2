"""The pages for receivers: their snippets verify what is really sent, and refuse what was tampered with."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer
from jsonschema import Draft202012Validator
from processes import ROOT
from receivers import SECRET, Delivery, Receiver, library

STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NODE = """
import { readFileSync } from "node:fs";
import { verify } from "./verify.mjs";
const cases = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map(({ secret, headers, body }) => {
  try { verify(secret, headers, Buffer.from(body)); return true; } catch { return false; }
})));
"""
GO = """
package main

import (
	"encoding/json"
	"net/http"
	"os"
)

func main() {
	var cases []struct {
		Secret, Body string
		Headers      map[string]string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	right := []bool{}
	for _, one := range cases {
		header := http.Header{}
		for name, value := range one.Headers {
			header.Set(name, value)
		}
		right = append(right, Verify(one.Secret, header, []byte(one.Body)) == nil)
	}
	json.NewEncoder(os.Stdout).Encode(right)
}
"""


def snippet(language: str) -> str:
    page = (ROOT / "docs/webhooks.md").read_text()
    (found,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return found


@pytest.fixture
def cases(hooks) -> list[dict]:
    """Deliveries by both kinds of secrets, and each with something changed; with whether it is right."""
    cases = []
    for secret in (SECRET, STANDARD):
        receiver = hooks.receiver(secret=secret)
        hooks.policy(
            {
                "id": "one",
                "url": receiver.url,
                "secrets": [secret, "another-secret-beside-it"],
            }
        )
        hooks.webhooks("test", "one")
        assert receiver.failures == []
        (delivery,) = receiver.deliveries
        cases += tampered(secret, delivery)
    return cases


def tampered(secret: str, delivery: Delivery) -> list[dict]:
    headers, body = delivery.headers, delivery.body.decode()
    signature, at = headers["webhook-signature"], int(headers["webhook-timestamp"])
    first, second = signature.split(" ")

    def case(
        right: bool, body: str = body, secret: str = secret, **changed: str
    ) -> dict:
        changed = {name.replace("_", "-"): value for name, value in changed.items()}
        return {
            "secret": secret,
            "headers": headers | changed,
            "body": body,
            "right": right,
        }

    return [
        case(True),
        case(True, webhook_signature=f"v1,AAAA {first}"),
        case(False, webhook_signature=second),
        case(False, webhook_signature=""),
        case(False, webhook_signature="v1,"),
        case(False, webhook_signature=first[:20]),
        case(False, body=body + " "),
        case(False, body=body.replace("true", "false")),
        case(False, webhook_id="evt_other"),
        case(False, webhook_timestamp=str(at + 1)),
        case(False, webhook_timestamp=str(at - 3600)),
        case(False, webhook_timestamp="soon"),
        case(False, secret="a-secret-of-somebody-else"),
    ]


def by_python(case: dict) -> bool:
    try:
        library(case["secret"]).verify(case["body"].encode(), case["headers"])
    except Exception:  # noqa: BLE001 - by whatever the library raises
        return False
    return True


def by_javascript(cases: list[dict]) -> list[bool]:
    place = ROOT / "tests" / "webhooks" / "javascript"
    assert (place / "node_modules").exists(), "run `scripts/setup test`"
    return run(["node", "official.mjs"], place, json.dumps(cases))


def check(cases: list[dict], answers: list[bool]) -> None:
    wrong = [
        case
        for case, right in zip(cases, answers, strict=True)
        if case["right"] != right
    ]
    assert not wrong, wrong[0]


def test_the_snippets_verify_and_refuse(cases, tmp_path: Path):
    names: dict = {}
    exec(compile(snippet("python"), "docs/webhooks.md", "exec"), names)  # noqa: S102

    def verified(case: dict) -> bool:
        try:
            names["verify"](case["secret"], case["headers"], case["body"].encode())
        except Exception:  # noqa: BLE001 - by whatever the library raises
            return False
        return True

    check(cases, [verified(case) for case in cases])
    given = json.dumps(cases)
    (tmp_path / "verify.mjs").write_text(snippet("javascript"))
    (tmp_path / "main.mjs").write_text(NODE)
    check(cases, run(["node", "main.mjs"], tmp_path, given))
    (tmp_path / "verify.go").write_text(snippet("go"))
    (tmp_path / "main.go").write_text(GO)
    (tmp_path / "go.mod").write_text("module verify\n\ngo 1.21\n")
    check(cases, run(["go", "run", "."], tmp_path, given))


def run(command: list[str], folder: Path, given: str) -> list[bool]:
    done = subprocess.run(
        command,
        cwd=folder,
        input=given,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_official_libraries_verify_and_refuse(cases):
    check(cases, [by_python(case) for case in cases])
    check(cases, by_javascript(cases))


def has_taken(receiver: Receiver, count: int) -> bool:
    return len(receiver.taken) == count


def test_a_secret_is_changed_while_events_flow(hooks):
    """The steps of the page: at each of them whoever has a secret that is listed verifies, and nobody else."""
    receiver = hooks.receiver(secret=None)

    def step(*secrets: str) -> None:
        hooks.policy({"id": "all", "url": receiver.url, "secrets": secrets})

    step(SECRET)
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a")
    cases = []
    steps = [(SECRET,), (SECRET, STANDARD), (STANDARD, SECRET), (STANDARD,)]
    for count, secrets in enumerate(steps, 1):
        step(*secrets)
        hooks.hang_up()
        hooks.send("test.a", [count])
        hooks.wait(partial(has_taken, receiver, count), f"it is signed by {secrets}")
        delivery = receiver.deliveries[-1]
        assert len(delivery.headers["webhook-signature"].split()) == len(secrets)
        assert delivery.is_signed_by(secrets[0])
        cases += [
            {
                "secret": secret,
                "headers": delivery.headers,
                "body": delivery.body.decode(),
                "right": secret in secrets,
            }
            for secret in (SECRET, STANDARD)
        ]
    check(cases, [by_python(case) for case in cases])
    check(cases, by_javascript(cases))


def samples() -> list[dict]:
    page = (ROOT / "docs/webhook-events.md").read_text()
    return [
        json.loads(one) for one in re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    ]


def test_the_samples_are_as_their_schemas_say():
    envelope = json.loads((ROOT / "schemas/webhook.schema.json").read_text())
    contract = tomllib.loads((ROOT / "schemas/catalog.toml").read_text())
    schemas = {topic["name"]: topic["schema"] for topic in contract["topic"]}
    assert len(samples()) >= 4
    for sample in samples():
        Draft202012Validator(envelope).validate(sample)
        name = f"schemas/events/{schemas[sample['type']]}.schema.json"
        schema = json.loads((ROOT / name).read_text())
        Draft202012Validator(schema).validate(sample["data"])


def test_the_samples_are_what_comes(hooks):
    receiver = hooks.receiver()
    hooks.policy({"id": "all", "url": receiver.url, "topics": ["aion.*"]})
    hooks.start()
    hooks.born("all")
    producer = Producer({"bootstrap.servers": hooks.kafka})
    for sample in samples():
        producer.produce(sample["type"], json.dumps(sample["data"]), sample["key"])
    assert producer.flush(30) == 0
    hooks.wait(lambda: len(receiver.ids()) == len(samples()), "all are delivered")
    came = {delivery.event["type"]: delivery.event for delivery in receiver.deliveries}
    for sample in samples():
        event = came[sample["type"]]
        assert list(event) == list(sample)
        assert (event["key"], event["data"]) == (sample["key"], sample["data"])


def test_bodies_are_as_their_schema_says(cases):
    schema = json.loads((ROOT / "schemas/webhook.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for case in cases:
        if case["right"]:
            validator.validate(json.loads(case["body"]))
