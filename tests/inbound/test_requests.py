"""What is taken in and what is refused, over real HTTP: every bad input by its name."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from gates import (
    ISSUER,
    JWT_SECRET,
    OLD_SIGNING,
    SIGNING,
    Gate,
    ask,
    command,
    connect,
    head,
    signature,
    token,
)
from processes import ROOT, Process, binary, wait
from standardwebhooks.webhooks import Webhook


def standard(body: bytes, key: str, at: int) -> dict[str, str]:
    """The headers of Standard Webhooks, by hand: tests sign what the library wouldn't."""
    signed = f"{key}.{at}.".encode() + body
    mac = hmac.new(SIGNING.encode(), signed, hashlib.sha256).digest()
    return {
        "webhook-id": key,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def test_a_command_is_carried_out_and_its_trail_is_whole(open_gate: Gate):
    gate = open_gate
    answer = gate.send(command(parameters={"proposal_id": "first"}))
    assert answer.status == 202, answer.body
    told = answer.json
    assert told["state"] == "accepted" and answer.headers["location"].endswith(
        told["id"]
    )
    ended = gate.ended(told["id"])
    assert (ended["state"], ended["detail"]) == ("succeeded", "HTTP 200")
    assert gate.plane.attempts()[told["id"]] == 1
    (asked,) = [c for key, c in gate.plane.asked if key == told["id"]]
    assert (
        asked["actor_id"] == "reviewer" and asked["type"] == "approve_kernel_proposal"
    )
    assert asked["parameters"] == {"proposal_id": "first"}
    assert gate.audit(told["id"]) == {"accepted": 1, "succeeded": 1}
    stages = [
        c["stage"] for c in gate.read("aion.commands") if c["command_id"] == told["id"]
    ]
    assert stages == ["accepted", "succeeded"]


def test_a_token_is_as_good_as_a_key(open_gate: Gate):
    made = subprocess.run(
        [binary(), "keys", "token", "--subject", "ann", "--issuer", ISSUER]
        + ["--secret", f"file:{open_gate.folder / 'jwt'}", "--roles", "reviewers"],
        capture_output=True,
        text=True,
        check=True,
    )
    for bearer in (made.stdout.strip(), token()):
        answer = open_gate.send(command(), authorization=f"Bearer {bearer}")
        assert answer.status == 202, answer.body
    (event,) = [
        e
        for e in open_gate.read("aion.audit.activity")
        if e.get("resource") == f"command/{answer.json['id']}"
        and e["result"] == "accepted"
    ]
    assert event["actor_id"] == "login:ann"


def test_standard_webhooks_sign_as_well(open_gate: Gate):
    key, now = f"msg_{uuid.uuid4().hex}", int(time.time())
    body = json.dumps(command(timestamp=None, idempotency_key=None)).encode()
    headers = standard(body, key, now)
    Webhook(base64.b64encode(SIGNING.encode()).decode()).verify(body, headers)
    answer = open_gate.send(body, x_aion_signature=None, **headers)
    assert answer.status == 202, answer.body
    again = open_gate.send(body, x_aion_signature=None, **standard(body, key, now + 1))
    assert again.body == answer.body, "signed anew, it is the same command"


@pytest.fixture(scope="module")
def slow(open_gate: Gate) -> Iterator[list[socket.socket]]:
    """Connections that begin a request and don't go on; all tests after the first one run beside them."""
    slow = [connect(open_gate) for _ in range(300)]
    for connection in slow:
        connection.sendall(b"POST /webhooks/inbound HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    yield slow
    for connection in slow:
        connection.close()


def test_who_is_slow_holds_up_nobody(open_gate: Gate, slow: list[socket.socket]):
    began = time.monotonic()
    assert open_gate.send(command()).status == 202
    assert time.monotonic() - began < 5
    assert len(slow) == 300
    body = json.dumps(command()).encode()
    late = raw(open_gate, head(open_gate, body, "Content-Length: 500") + b"{")
    assert b" 408 " in late.split(b"\r\n")[0], late


BODY = json.dumps(command()).encode()
KEYLESS = json.dumps(command(idempotency_key=None, timestamp=None)).encode()


def later(seconds: int) -> bytes:
    return json.dumps(command(timestamp=int(time.time()) + seconds)).encode()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("no signature", lambda: (BODY, {"x_aion_signature": None})),
        ("an empty one", lambda: (BODY, {"x_aion_signature": ""})),
        ("a prefix alone", lambda: (BODY, {"x_aion_signature": "sha256="})),
        ("cut short", lambda: (BODY, {"x_aion_signature": signature(BODY)[:-2]})),
        (
            "another secret's",
            lambda: (BODY, {"x_aion_signature": signature(BODY, "x" * 32)}),
        ),
        (
            "of other bytes",
            lambda: (BODY + b"\n", {"x_aion_signature": signature(BODY)}),
        ),
        (
            "of a BOM less",
            lambda: (b"\xef\xbb\xbf" + BODY, {"x_aion_signature": signature(BODY)}),
        ),
        (
            "v1 in the wrong header",
            lambda: (BODY, {"x_aion_signature": "v1," + "A" * 44}),
        ),
        ("301 s old", lambda: (later(-301), {})),
        ("301 s ahead", lambda: (later(301), {})),
        ("a time that overflows", lambda: (later(2**70), {})),
        ("a negative time", lambda: (later(-(2**40)), {})),
        ("a standard header alone", lambda: (BODY, {"webhook_id": "k"})),
        ("an id with a dot", lambda: (BODY, standard(BODY, "a.b", int(time.time())))),
        (
            "a standard time of old",
            lambda: (KEYLESS, standard(KEYLESS, "k", int(time.time()) - 301)),
        ),
        ("no credential", lambda: (BODY, {"authorization": None})),
        (
            "an unknown key",
            lambda: (BODY, {"authorization": "Bearer aion_0123456789ab_" + "A" * 43}),
        ),
        ("a key as Basic", lambda: (BODY, {"authorization": "Basic YTpi"})),
        (
            "alg none",
            lambda: (BODY, {"authorization": f"Bearer {token({'alg': 'none'})}"}),
        ),
        (
            "alg NONE",
            lambda: (BODY, {"authorization": f"Bearer {token({'alg': 'NONE'})}"}),
        ),
        (
            "alg RS256",
            lambda: (BODY, {"authorization": f"Bearer {token({'alg': 'RS256'})}"}),
        ),
        (
            "crit",
            lambda: (
                BODY,
                {"authorization": f"Bearer {token({'alg': 'HS256', 'crit': ['x']})}"},
            ),
        ),
        (
            "jku",
            lambda: (
                BODY,
                {
                    "authorization": f"Bearer {token({'alg': 'HS256', 'jku': 'http://x'})}"
                },
            ),
        ),
        (
            "expired",
            lambda: (
                BODY,
                {"authorization": f"Bearer {token(exp=int(time.time()) - 60)}"},
            ),
        ),
        ("no exp", lambda: (BODY, {"authorization": f"Bearer {token(exp=None)}"})),
        (
            "exp as text",
            lambda: (BODY, {"authorization": f"Bearer {token(exp='9999999999')}"}),
        ),
        (
            "exp as a fraction",
            lambda: (BODY, {"authorization": f"Bearer {token(exp=9999999999.5)}"}),
        ),
        ("no nbf", lambda: (BODY, {"authorization": f"Bearer {token(nbf=None)}"})),
        (
            "not valid yet",
            lambda: (
                BODY,
                {"authorization": f"Bearer {token(nbf=int(time.time()) + 60)}"},
            ),
        ),
        (
            "another audience",
            lambda: (BODY, {"authorization": f"Bearer {token(aud='other')}"}),
        ),
        (
            "another issuer",
            lambda: (BODY, {"authorization": f"Bearer {token(iss='https://evil/')}"}),
        ),
        (
            "another secret",
            lambda: (BODY, {"authorization": f"Bearer {token(secret='y' * 32)}"}),
        ),
        (
            "10 KB of token",
            lambda: (BODY, {"authorization": f"Bearer {token(pad='x' * 10_000)}"}),
        ),
    ],
)
def test_what_isnt_authentic_is_401_and_always_the_same(
    open_gate: Gate, name: str, make
):
    body, headers = make()
    answer = open_gate.send(body, **headers)
    assert answer.status == 401, (name, answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    plain = open_gate.send(BODY, x_aion_signature=None)
    assert (answer.body, answer.headers.keys()) == (plain.body, plain.headers.keys())


def test_a_key_in_the_query_string_is_worth_nothing(open_gate: Gate):
    path = f"/webhooks/inbound?key={open_gate.keys['reviewer']}"
    headers = {"content-type": "application/json", "x-aion-signature": signature(BODY)}
    answer = ask(open_gate.gateway.http, "POST", path, BODY, headers)
    assert answer.status == 401


NO_COMMANDS = [
    ("no JSON", b"{", None),
    ("a list", b"[]", None),
    (
        "an action twice",
        BODY.replace(b"{", b'{"action":"install_module",', 1),
        None,
    ),
    ("deep nesting", b'{"action":' + b"[" * 50_000 + b"]" * 50_000 + b"}", None),
    ("two bodies", BODY + BODY, None),
    ("no action", json.dumps(command(action=None)).encode(), "action"),
    ("no parameters", json.dumps(command(parameters=None)).encode(), "parameters"),
    (
        "no key",
        json.dumps(command(idempotency_key=None)).encode(),
        "idempotency_key",
    ),
    ("no time", json.dumps(command(timestamp=None)).encode(), "timestamp"),
    ("a field too many", json.dumps(command(actor_id="root")).encode(), "body"),
]


@pytest.mark.parametrize(
    ("name", "body", "field"), NO_COMMANDS, ids=[name for name, _, _ in NO_COMMANDS]
)
def test_a_body_that_is_no_command_is_400(
    open_gate: Gate, name: str, body: bytes, field: str | None
):
    answer = open_gate.send(body)
    assert answer.status == 400, (name, answer.body)
    if field:
        assert answer.json["errors"][0]["field"] == field


def test_an_unsigned_idempotency_key_is_worth_nothing(open_gate: Gate):
    body = json.dumps(command(idempotency_key=None)).encode()
    assert open_gate.send(body, idempotency_key="k").status == 400
    body = json.dumps(command(idempotency_key="signed")).encode()
    assert open_gate.send(body, idempotency_key="another").status == 400
    assert open_gate.send(body, idempotency_key='"signed"').status == 202


@pytest.mark.parametrize(
    ("name", "who", "more", "status", "field"),
    [
        ("an unknown action", "reviewer", {"action": "drop_everything"}, 422, "action"),
        (
            "one that looks the same",
            "reviewer",
            {"action": "appr\u043eve_kernel_proposal"},
            422,
            "action",
        ),
        (
            "other case",
            "reviewer",
            {"action": "Approve_kernel_proposal"},
            422,
            "action",
        ),
        ("a role that is missing", "installer", {"tenant_id": "acme"}, 403, None),
        ("a role that reads only", "auditor", {}, 403, None),
        (
            "a parameter that is missing",
            "reviewer",
            {"parameters": {}},
            422,
            "parameters.proposal_id",
        ),
        (
            "of another type",
            "reviewer",
            {"parameters": {"proposal_id": 7}},
            422,
            "parameters.proposal_id",
        ),
        (
            "an unknown one",
            "reviewer",
            {"parameters": {"proposal_id": "p", "x": 1}},
            422,
            "parameters.x",
        ),
    ],
)
def test_who_is_known_is_told_what_is_wrong_and_it_is_audited(
    open_gate: Gate, name: str, who: str, more: dict, status: int, field: str | None
):
    asked = command(**more)
    answer = open_gate.send(asked, who)
    assert answer.status == status, (name, answer.body)
    if field:
        assert [e["field"] for e in answer.json["errors"]] == [field]
    # How others ended that were accepted before may be told meanwhile.
    events = [
        event
        for event in open_gate.read("aion.audit.activity")
        if event["actor_id"] == who and event["result"] in ("denied", "refused")
    ]
    assert events[-1]["result"] == ("denied" if status == 403 else "refused")
    assert events[-1]["context"]["peer"] == "127.0.0.1"
    keys = {record["idempotency_key"] for record in open_gate.read("aion.commands")}
    assert asked["idempotency_key"] not in keys


def test_a_principal_acts_for_its_tenants_only(open_gate: Gate):
    install = {
        "action": "install_module",
        "parameters": {"module": "m", "version": "1.0"},
    }
    for tenant, status in [("acme", 202), ("other", 403), (None, 403)]:
        answer = open_gate.send(command(tenant_id=tenant, **install), "installer")
        assert answer.status == status, (tenant, answer.body)


def test_bodies_have_a_size_and_a_kind(open_gate: Gate):
    big = json.dumps(command(parameters={"proposal_id": "x" * (256 << 10)})).encode()
    assert open_gate.send(big).status == 413
    assert open_gate.send(BODY, content_type="text/plain").status == 415
    assert open_gate.send(BODY, content_type="application/jsonx").status == 415
    assert open_gate.send(BODY, content_type=None).status == 415
    packed = gzip.compress(BODY)
    assert open_gate.send(packed, content_encoding="gzip").status == 415
    spaced = json.dumps(command()).encode()
    assert (
        open_gate.send(spaced, content_type="application/json; charset=utf-8").status
        == 202
    )


def raw(gate: Gate, text: bytes) -> bytes:
    with connect(gate) as connection:
        connection.sendall(text)
        received = b""
        try:
            while part := connection.recv(65_536):
                received += part
                if b"\r\n\r\n" in received:
                    break
        except (TimeoutError, ConnectionError):
            pass
        return received


def test_odd_framing_is_taken_apart_as_the_standard_says_or_refused(open_gate: Gate):
    body = json.dumps(command()).encode()
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    chunked = raw(
        open_gate, head(open_gate, body, "Transfer-Encoding: chunked") + chunks
    )
    assert b" 202 " in chunked.split(b"\r\n")[0]
    both = (
        head(open_gate, body, "Transfer-Encoding: chunked", "Content-Length: 5")
        + chunks
    )
    first = raw(open_gate, both).split(b"\r\n")[0]
    assert b" 202 " in first or b" 400 " in first, (
        "chunks are what counts, or it is refused"
    )
    twice = (
        head(open_gate, body, f"Content-Length: {len(body)}", "Content-Length: 5")
        + body
    )
    assert b" 400 " in raw(open_gate, twice).split(b"\r\n")[0]
    body = json.dumps(command()).encode()
    waits = head(
        open_gate, body, f"Content-Length: {len(body)}", "Expect: 100-continue"
    )
    assert b" 100 " in raw(open_gate, waits).split(b"\r\n")[0]
    for name in ("X-Aion-Signature: " + signature(body), "Authorization: Bearer x"):
        doubled = head(open_gate, body, name, f"Content-Length: {len(body)}") + body
        assert b" 401 " in raw(open_gate, doubled).split(b"\r\n")[0], name


def test_a_state_is_told_to_its_sender_and_to_who_may_read(open_gate: Gate):
    told = open_gate.send(command()).json["id"]
    open_gate.ended(told)
    assert open_gate.state(told)[0] == 200
    assert open_gate.state(told, "auditor")[0] == 200
    assert open_gate.state(told, "installer")[0] == 404
    for bad in ("cmd_0", "cmd_" + "0" * 32, "..%2f..", told.upper()):
        assert open_gate.state(bad)[0] == 404, bad
    nobody = ask(open_gate.gateway.http, "GET", f"/webhooks/inbound/{told}", b"", {})
    assert nobody.status == 401


def test_who_asks_too_often_is_told_when_to_come_back(open_gate: Gate):
    answers = [open_gate.send(command(), "slow") for _ in range(6)]
    statuses = [answer.status for answer in answers]
    assert statuses.count(202) in (2, 3) and set(statuses) == {202, 429}, statuses
    refused = next(answer for answer in answers if answer.status == 429)
    assert int(refused.headers["retry-after"]) >= 1


def test_the_description_is_served(open_gate: Gate):
    answer = ask(
        open_gate.gateway.http, "GET", "/webhooks/inbound/openapi.json", b"", {}
    )
    assert answer.status == 200
    committed = ROOT / "docs/inbound.openapi.json"
    assert answer.body.decode() == committed.read_text()


def test_the_key_guards_v1_too(open_gate: Gate):
    def asked(who: str | None, method: str, path: str) -> int:
        bearer = {"authorization": f"Bearer {open_gate.keys[who]}"} if who else {}
        return ask(open_gate.gateway.http, method, path, b"{}", bearer).status

    for method, path, allowed in [
        ("GET", "/v1/tables", 403),
        ("GET", "/v1/exports", 200),
        ("POST", "/v1/exports", 422),
        ("GET", "/v1/exports/exp_00000000000000000000", 404),
        ("DELETE", "/v1/exports/exp_00000000000000000000", 404),
    ]:
        statuses = [asked(who, method, path) for who in (None, "reviewer", "engineer")]
        assert statuses == [401, 403, allowed], (method, path)


def asking_is_for_who_may_use_sql(gate: Gate, address: str) -> None:
    def asked(method: str, path: str, body: bytes, *keys: str | None) -> list[int]:
        given = [{"authorization": f"Bearer {key}"} if key else {} for key in keys]
        return [ask(address, method, path, body, one).status for one in given]

    right, other = gate.keys["analyst"], gate.keys["engineer"]
    mixed = "_".join([*other.split("_", 2)[:2], right.split("_", 2)[2]])
    wrong = [None, "x", right[:-1], right + "x", mixed]
    may_not = [gate.keys[who] for who in ("engineer", "reviewer", "scraper")]
    for method, path, body in [
        ("POST", "/v1/sql", b"select 1 as n"),
        ("POST", "/v1/sql?format=csv", b"select 1 as n"),
        ("POST", "/v1/sql", b"selec"),
        ("GET", "/v1/tables", b""),
    ]:
        what = (method, path, body)
        assert asked(*what, *wrong) == [401] * len(wrong), what
        assert asked(*what, *may_not) == [403] * len(may_not), what
        assert asked(*what, right) == [400 if body == b"selec" else 200], what
    bearer = {"authorization": f"Bearer {right}"}
    answer = ask(address, "POST", "/v1/sql", b"select 1 as n", bearer)
    assert answer.json["rows"] == [{"n": 1}]
    tables = ask(address, "GET", "/v1/tables", b"", bearer).json["tables"]
    assert "decisions" in {table["name"] for table in tables}


def test_asking_is_for_who_may_use_sql(open_gate: Gate):
    asking_is_for_who_may_use_sql(open_gate, open_gate.gateway.http)


def test_a_server_for_readers_goes_by_the_same_policy(open_gate: Gate, tmp_path: Path):
    server, config = Process(tmp_path / "server.log"), tmp_path / "reader.toml"
    config.write_text(
        f'lake.url = "{tmp_path / "lake"}"\nhttp.listen = "{server.http}"\n'
        f'access.policy = "{open_gate.policy_file}"\n'
    )
    try:
        server.launch("sql-server", "--config", config)
        server.wait_ready()
        asking_is_for_who_may_use_sql(open_gate, server.http)
    finally:
        server.end()


def test_noise_is_counted_and_not_audited_one_by_one(open_gate: Gate):
    def refusals() -> int:
        events = open_gate.read("aion.audit.activity")
        kinds = [(event["action"], event["result"]) for event in events]
        noise = ("inbound.unauthenticated", "denied")
        return sum(kind != noise and kind[1] in ("denied", "refused") for kind in kinds)

    before = refusals()
    counted = open_gate.gateway.metric(
        "aion_inbound_unauthenticated_total", cause="signature"
    )
    for _ in range(5):
        assert open_gate.send(BODY, x_aion_signature="0" * 64).status == 401
    now = open_gate.gateway.metric(
        "aion_inbound_unauthenticated_total", cause="signature"
    )
    assert now == counted + 5
    assert refusals() == before


def test_secrets_and_keys_change_without_a_break(gate: Gate):
    gate.start()
    process = gate.gateway.process
    by_old = json.dumps(command()).encode()
    old = {"x_aion_signature": signature(by_old, OLD_SIGNING)}
    assert gate.send(by_old, **old).status == 202, (
        "the old secret holds until it is taken out"
    )
    gate.principal("newcomer", "approve")
    gate.write_policy(signing=("signing",))
    process.send_signal(signal.SIGHUP)
    wait(lambda: gate.send(by_old, **old).status == 401, "the old secret is out", 10)
    assert gate.send(command(), "newcomer").status == 202
    gate.entries = [entry for entry in gate.entries if "newcomer" not in entry]
    gate.write_policy()
    wait(lambda: gate.send(command(), "newcomer").status == 401, "the key is out", 10)
    gate.policy_file.write_text("signing: [")
    process.send_signal(signal.SIGHUP)
    wait(lambda: "the policy is refused" in gate.gateway.output(), "it is said", 10)
    assert gate.send(command()).status == 202, "the policy before holds"


def test_no_secret_is_in_any_log(open_gate: Gate):
    open_gate.send(command())
    open_gate.send(command(), authorization=f"Bearer {token(secret='y' * 32)}")
    told = open_gate.gateway.output()
    assert "aion" in told and len(told) > 1_000
    bearer = token()
    open_gate.send(command(), authorization=f"Bearer {bearer}")
    told = open_gate.gateway.output() + open_gate.gateway.get("/metrics")[1]
    told += json.dumps(
        open_gate.read("aion.audit.activity") + open_gate.read("aion.commands")
    )
    secrets = [SIGNING, OLD_SIGNING, JWT_SECRET, "what-the-control-plane-knows", bearer]
    for secret in [*secrets, *open_gate.keys.values()]:
        assert secret not in told
    for key in open_gate.keys.values():
        assert key[18:] not in told
        assert hashlib.sha256(key.encode()).hexdigest() not in told


def test_who_is_slow_is_not_waited_for(slow: list[socket.socket]):
    """The last one here: their 30 seconds have passed beside the others."""
    began = time.monotonic()
    for connection in slow:
        connection.settimeout(45)
        try:
            assert connection.recv(1024)[:12] in (b"", b"HTTP/1.1 408")
        except ConnectionError:
            pass
    assert time.monotonic() - began < 60
