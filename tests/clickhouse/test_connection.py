"""The way to the server: HTTPS, an account, and what is said when one of them is wrong; `aion validate`."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from clickhouse.engine import Engine
from processes import binary


def certificate(folder: Path) -> tuple[Path, Path]:
    pem, key = folder / "server.pem", folder / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(
        [*command, "-out", pem, "-keyout", key], check=True, capture_output=True
    )
    return pem, key


class Server:
    """A server that wants HTTPS and an account."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pem, key = certificate(folder)
        account = ["--user", "aion", "--password", "hunter2"]
        self.engine = Engine(
            folder / "engine", *account, "--certificate", self.pem, "--key", key
        )

    def aion(
        self, *command: str, password: str = "hunter2", ca: bool = True, extra: str = ""
    ) -> subprocess.CompletedProcess:
        config = self.folder / "aion.toml"
        trusted = f'ca = "{self.pem}"\n' if ca else ""
        config.write_text(
            '[kafka]\nbrokers = "127.0.0.1:9"\n'
            f'[lake]\nurl = "{self.folder}/lake"\n'
            f'[clickhouse]\nurl = "https://127.0.0.1:{self.engine.port}"\n'
            f'user = "aion"\npassword = "env:HOUSE_PASSWORD"\n{trusted}{extra}'
        )
        return subprocess.run(
            [binary(), *command, "--config", config],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "HOUSE_PASSWORD": password},
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    server = Server(tmp_path_factory.mktemp("house"))
    yield server
    server.engine.kill()


def test_tables_are_made_over_https_with_an_account(server: Server):
    done = server.aion("clickhouse", "apply")
    assert done.returncode == 0, done.stderr
    assert "added  tasks: the table is missing" in done.stdout
    done = server.aion("clickhouse", "plan")
    assert done.stdout == "database aion is as the contract wants it\n", done.stderr
    done = server.aion("clickhouse", "repair")
    assert "No table has a break" in done.stdout, done.stderr


def test_a_certificate_that_nobody_vouches_for_is_refused(server: Server):
    done = server.aion("clickhouse", "plan", ca=False)
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "certificate" in done.stderr, done.stderr


def test_a_wrong_password_is_said_and_not_shown(server: Server):
    done = server.aion("clickhouse", "plan", password="sesame")
    assert done.returncode == 6, (done.returncode, done.stderr)
    assert "user and password" in done.stderr
    assert "sesame" not in done.stderr


def test_a_proxy_of_the_environment_is_not_told_the_password(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, address)
            monkeypatch.setenv(name.upper(), address)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        done = server.aion("clickhouse", "plan")
        proxy.settimeout(0.1)
        with pytest.raises(TimeoutError):
            proxy.accept()
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_validate_without_asking_says_what_is_promised(server: Server):
    done = server.aion("validate")
    assert done.returncode == 0, done.stderr
    assert "tasks-clickhouse" in done.stdout
    assert "--connect asks whether it holds" in done.stdout
    done = server.aion("validate", extra="flush_age_s = 0\n")
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "clickhouse.flush_age_s" in done.stderr


def test_validate_says_what_less_is_asked_for(server: Server):
    done = server.aion("validate", extra='guarantee = "at_least_once"\n')
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "at least once: no offset is missing" in lines["tasks-clickhouse"]
    assert "exactly once" in lines["tasks-lake"], "the lake has nothing to do with it"
    jobs = (
        '[[job]]\ntopic = "aion.tasks.lifecycle"\nsinks = ["clickhouse"]\nguarantee = "at_least_once"\n'
        '[[job]]\ntopic = "aion.router.decisions"\nsinks = ["clickhouse"]\n'
    )
    done = server.aion("validate", extra=jobs)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "at least once: no offset is missing" in lines["tasks-clickhouse"]
    assert "exactly once: one row per offset" in lines["decisions-clickhouse"]
    done = server.aion("validate", extra='guarantee = "at_most_once"\n')
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "at_least_once" in done.stderr


def test_validate_says_what_it_could_not_ask(server: Server):
    """The tables are there, and the cluster isn't."""
    assert server.aion("clickhouse", "apply").returncode == 0
    done = server.aion("validate", "--connect")
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "not known" in done.stdout
