"""`sr-cli` and `aion bootstrap --registry`, as people run them, against both registries."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from processes import ROOT, Dev, binary, free_port
from registries import (
    Embedded,
    Registry,
    field,
    make_certificates,
    new_subject,
    record,
    secured,
    text,
)

DOCUMENTED = (
    "sr-cli --config schema-registry.properties register"
    " --subject aion.router.decisions-value --schema bigdata/schemas/router_decision.avsc"
)
SUBJECTS = [
    "aion.audit.activity-value",
    "aion.metrics.runtime-value",
    "aion.router.decisions-value",
    "aion.tasks.lifecycle-value",
]


class Cli:
    """`sr-cli` with a file of properties of its own."""

    def __init__(self, folder: Path, properties: str) -> None:
        self.folder = folder
        self.config = folder / "registry.properties"
        self.config.write_text(properties)

    def __call__(self, *arguments: object, **environment: str):
        return run(
            binary().with_name("sr-cli"),
            *("--config", self.config, *arguments),
            env=os.environ | environment,
        )

    def file(self, schema: object) -> Path:
        path = self.folder / "schema.avsc"
        path.write_text(text(schema))
        return path


def run(*command: object, **more: object):
    return subprocess.run(
        [*map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


@pytest.fixture
def cli(registry: Registry, tmp_path: Path) -> Cli:
    return Cli(tmp_path, f"schema.registry.url={registry.url}\n")


A, C = field("a"), field("c")


def test_a_schema_is_registered_once(cli: Cli):
    at = ["--subject", new_subject(), "--schema"]
    done = cli("register", *at, cli.file(record("r", A)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"registered {at[1]} version 1 id ")
    again = cli("register", *at, cli.file(record("r", A)))
    assert again.returncode == 0
    assert again.stdout == done.stdout.replace("registered", "unchanged")


def test_the_field_that_stands_in_the_way_is_named(cli: Cli):
    at = ["--subject", new_subject(), "--schema"]
    assert cli("check", *at, cli.file(record("r", A))).returncode == 0
    cli("register", *at, cli.file(record("r", A)))
    for command in ("check", "register"):
        done = cli(command, *at, cli.file(record("r", A, C)))
        assert done.returncode == 3, done
        assert "can't read version 1: field `c`: it has no default" in done.stdout
    good = record("r", A, field("c", default=""))
    done = cli("check", *at, cli.file(good))
    assert (done.returncode, done.stdout) == (
        0,
        f"compatible with {at[1]} (BACKWARD)\n",
    )


def test_levels(cli: Cli):
    subject = new_subject()
    cli("register", "--subject", subject, "--schema", cli.file(record("r", A)))
    done = cli("config", "--subject", subject, "--set", "FORWARD")
    assert (done.returncode, done.stdout) == (0, f"{subject}: FORWARD\n")
    done = cli("check", "--subject", subject, "--schema", cli.file(record("r")))
    assert done.returncode == 3
    assert "version 1 can't read the new schema: field `a`" in done.stdout
    assert cli("config", "--subject", subject, "--clear").returncode == 0
    done = cli("config", "--subject", subject)
    assert done.returncode == 0 and "BACKWARD" in done.stdout
    assert "BACKWARD" in cli("config").stdout
    done = cli("config", "--set", "BACKWARDS")
    assert done.returncode == 2 and "FULL_TRANSITIVE" in done.stderr


def test_get_list_diff_delete(cli: Cli):
    subject = new_subject()
    at = ["--subject", subject]
    name = f"r{subject[2:8]}"
    first, second = record(name, A), record(name, A, field("b", "long", default=0))
    for schema in (first, second):
        assert cli("register", *at, "--schema", cli.file(schema)).returncode == 0
    done = cli("get", *at, "--version", "1")
    assert json.loads(done.stdout)["fields"][0]["name"] == "a"
    id_ = done.stderr.split(" id ")[1].split()[0]
    assert json.loads(cli("get", "--id", id_).stdout) == json.loads(done.stdout)
    assert subject in cli("list").stdout.splitlines()
    listed = cli("list", *at).stdout.splitlines()
    assert listed[0] == f"version 1 id {id_} (Avro)" and len(listed) == 2

    done = cli("diff", *at, "--version", "1", "--with", "2")
    assert done.returncode == 3
    assert '+ field b: "long", default 0' in done.stdout
    assert "version 2 can read what" in done.stdout
    done = cli("diff", *at, "--schema", cli.file(record(name, A, C)))
    assert done.returncode == 3 and "- field b" in done.stdout
    assert "field `c`: it has no default, and was not written" in done.stdout
    assert cli("diff", *at, "--schema", cli.file(second)).returncode == 0

    done = cli("delete", *at, "--version", "1")
    assert (done.returncode, done.stdout) == (
        0,
        f"deleted softly: {subject} version 1\n",
    )
    assert len(cli("list", *at).stdout.splitlines()) == 1
    assert len(cli("list", *at, "--deleted").stdout.splitlines()) == 2
    assert cli("get", *at, "--version", "1").returncode == 4
    done = cli("delete", *at).stdout
    # Apicurio counts the one that was deleted before.
    assert done.startswith(f"deleted softly: {subject} ") and done.endswith("2\n")
    done = cli("delete", *at, "--permanent")
    assert done.stdout.startswith(f"deleted for good: {subject} version "), done
    assert cli("delete", *at).returncode == 4


def test_references(cli: Cli):
    used, subject = new_subject(), new_subject()
    name = f"p{used[2:8]}"
    cli("register", "--subject", used, "--schema", cli.file(record(name, A)))
    at = ["--subject", subject, "--reference", f"{name}={used}:1", "--schema"]
    done = cli("register", *at, cli.file(record("r", field("p", name))))
    assert done.returncode == 0, done.stderr
    more = record("r", field("p", name), C)
    done = cli("check", *at, cli.file(more))
    assert done.returncode == 3 and "field `c`" in done.stdout, done


def test_exit_codes(cli: Cli, tmp_path: Path):
    at = ["--subject", new_subject(), "--schema"]
    done = cli("register", *at, cli.file('{"type": "record"}'))
    assert done.returncode == 1 and "schema.avsc" in done.stderr, done
    done = cli("register", *at, tmp_path / "none.avsc")
    assert done.returncode == 1 and "none.avsc" in done.stderr
    assert cli("get", "--subject", new_subject()).returncode == 4
    assert cli("get", "--id", 99999999).returncode == 4
    assert cli("get").returncode == 2
    nobody = f"http://127.0.0.1:{free_port()}"
    done = run(binary().with_name("sr-cli"), "--url", nobody, "list")
    assert done.returncode == 6 and "Connection refused" in done.stderr, done
    cli.config.write_text("schema.registry.url=http://a:1\nbasic.auth.user.inf=x:y\n")
    done = cli("list")
    assert done.returncode == 2 and "did you mean basic.auth.user.info" in done.stderr


def test_the_documented_line(tmp_path: Path):
    """From the repository's root as it stands: `aion dev` with its own addresses' registry moved."""
    dev = Dev(tmp_path)
    dev.start("--no-generator")
    try:
        path = f"{binary().parent}{os.pathsep}{os.environ['PATH']}"
        words = DOCUMENTED.split()
        properties = (ROOT / words[2]).read_text()
        assert "schema.registry.url=http://127.0.0.1:8081\n" in properties
        # Port 8081 of this machine may be somebody else's: the same file for another port.
        moved = tmp_path / "schema-registry.properties"
        moved.write_text(properties.replace("127.0.0.1:8081", dev.registry))
        words[2] = str(moved)
        environment = os.environ | {"PATH": path}
        done = run(*words, cwd=ROOT, env=environment)
        # `aion dev` has registered it already.
        wanted = "unchanged aion.router.decisions-value version 1 id "
        assert done.returncode == 0 and done.stdout.startswith(wanted), done
        done = run("sr-cli", "--config", moved, "list", env=environment)
        assert done.stdout.splitlines() == SUBJECTS
        done = run(*words[:3], "config", *words[4:6], env=environment)
        assert done.stdout == "aion.router.decisions-value: BACKWARD_TRANSITIVE\n"
        assert f"Schemas http://{dev.registry}" in dev.output()
        dev.kill()
        dev.start("--no-generator")
        again = run(*words, cwd=ROOT, env=environment)
        assert again.stdout.startswith(wanted)
    finally:
        dev.end()


def test_bootstrap_registers_the_schemas(tmp_path: Path, registry: Registry):
    dev = Dev(tmp_path)
    dev.start("--no-generator")
    try:
        for subject in SUBJECTS:
            registry.call("DELETE", f"/subjects/{subject}")
            registry.call("DELETE", f"/subjects/{subject}?permanent=true")
            registry.call("DELETE", f"/config/{subject}")
        environment = os.environ | {
            "PATH": f"{binary().parent}{os.pathsep}{os.environ['PATH']}",
            "KAFKA_BROKERS": dev.kafka,
            "KAFKA_SCHEMA_REGISTRY": registry.url,
        }
        script = ROOT / "bigdata" / "scripts" / "bootstrap_kafka.sh"

        def bootstrap(*arguments: str):
            return run(script, *arguments, env=environment)

        planned = bootstrap("--dry-run")
        assert planned.returncode == 0, planned
        for subject in SUBJECTS:
            assert f"create    schema {subject}: " in planned.stdout
        assert registry.get(f"/subjects/{SUBJECTS[0]}/versions").status == 404
        done = bootstrap()
        assert done.returncode == 0, done
        assert "8 changed" in done.stdout, done.stdout
        for subject in SUBJECTS:
            level = registry.get(f"/config/{subject}").body["compatibilityLevel"]
            assert level == "BACKWARD_TRANSITIVE"
            assert registry.get(f"/subjects/{subject}/versions").body == [1]
        again = bootstrap()
        assert again.returncode == 0 and "0 changed" in again.stdout, again
        assert f"unchanged schema {SUBJECTS[2]}: version=1 id=" in again.stdout

        # Somebody registered another schema, and took the level away to be able to.
        subject = SUBJECTS[2]
        registry.call("PUT", f"/config/{subject}", {"compatibility": "NONE"})
        other = record(
            "router_decision", field("tier", "long"), namespace="aion.events"
        )
        registry.call("DELETE", f"/subjects/{subject}/versions/1")
        registry.id_of(subject, other)
        refused = bootstrap("--dry-run")
        assert refused.returncode == 1, refused
        assert f"alter     schema {subject}: compatibility NONE ->" in refused.stdout
        assert f"differs   schema {subject}: can't be registered" in refused.stdout
        assert "field `tier`: long is written, string is read" in refused.stdout
    finally:
        dev.end()


def test_an_account_and_certificates(tmp_path: Path, embedded: Embedded):
    """A registry behind TLS that wants a client certificate and a password."""
    certificates = tmp_path / "certs"
    make_certificates(certificates, ["server", "client"])
    server, requests = secured(certificates, embedded)
    try:
        port = server.server_address[1]
        base = (
            f"schema.registry.url=https://127.0.0.1:{port}\n"
            f"ssl.ca.location={certificates / 'ca.pem'}\n"
        )
        both = (
            f"ssl.certificate.location={certificates / 'client.pem'}\n"
            f"ssl.key.location={certificates / 'client.key'}\n"
        )
        login = "basic.auth.user.info=env:LOGIN\n"
        cli = Cli(tmp_path, base + both + login)
        done = cli("list", LOGIN="alice:hunter2")
        assert done.returncode == 0, done.stderr
        done = cli("list", LOGIN="alice:wrong")
        assert done.returncode == 5 and "refuses this account" in done.stderr
        seen = len(requests)
        done = Cli(tmp_path, base + login)("list", LOGIN="alice:hunter2")
        assert done.returncode == 6, done
        untrusted = base.split("\n")[0] + "\n" + both + login
        done = Cli(tmp_path, untrusted)("list", LOGIN="alice:hunter2")
        assert done.returncode == 6 and "certificate authority" in done.stderr, done
        # Nobody who isn't let in was sent the password.
        assert len(requests) == seen
    finally:
        server.shutdown()
