"""Who may ask: passwords and encryption of PostgreSQL's protocol, and a server for readers alone."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from asking import ENDLESS
from brokers import Embedded
from cluster import Place
from frontend import Frontend, code, message
from processes import Process, binary, free_port
from readers import Server

PASSWORD = "pencil pass, ünïcode"
# The same as PostgreSQL keeps it: of the password `pencil`, from RFC 7677.
VERIFIER = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
# As the system writes the state of a socket that connections come in by.
LISTENS = "0A"
SPEC = {"host": "127.0.0.1", "dbname": "aion", "autocommit": True}


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    pem, key = folder / "sql.pem", folder / "sql.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=aion", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    return pem, key


@pytest.fixture
def server(tmp_path: Path):
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "verifier").write_text(VERIFIER)
    server = Server(tmp_path)
    yield server
    server.end()


def users(server: Server) -> str:
    folder = server.folder
    return f'users = {{ ann = "file:{folder / "password"}", bob = "file:{folder / "verifier"}" }}'


def connect(server: Server, user: str, password: str, **more: object):
    return psycopg.connect(
        port=server.port, user=user, password=password, **SPEC, **more
    )


def refused(server: Server, user: str, password: str, **more: object) -> str:
    with pytest.raises(psycopg.OperationalError) as error:
        connect(server, user, password, **more)
    return str(error.value)


def test_users_prove_their_passwords(server):
    server.start(users(server))
    for name, password in [("ann", PASSWORD), ("bob", "pencil")]:
        with connect(server, name, password) as connection:
            assert connection.execute("select count(*) from decisions").fetchall() == [
                (0,)
            ]
            assert connection.pgconn.parameter_status(b"session_authorization") == (
                name.encode()
            )
    messages = {
        refused(server, name, password).replace(name, "NAME")
        for name, password in [("ann", "x"), ("bob", PASSWORD), ("eve", PASSWORD)]
    }
    assert len(messages) == 1, "who is known can't be told from the answers"
    assert "password authentication failed for user" in messages.pop()
    assert "no password supplied" in refused(server, "ann", "")
    psql = ["psql", "-X", "-At", "-h", "127.0.0.1", "-p", str(server.port), "-U", "ann"]
    done = subprocess.run(
        [*psql, "aion", "-c", "select 1"],
        env={**os.environ, "PGPASSWORD": PASSWORD},
        check=True,
        capture_output=True,
    )
    assert done.stdout == b"1\n"
    assert PASSWORD not in server.output()


def answers(server: Server, *later: bytes) -> bytes:
    """All that is answered to somebody who says who they are and then these messages."""
    hello = struct.pack("!i", 196608) + b"user\0ann\0database\0aion\0\0"
    got = b""
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        try:
            for each in [struct.pack("!i", len(hello) + 4) + hello, *later]:
                client.sendall(each)
                got += client.recv(65536)
        except ConnectionError:
            pass  # it ended before all was said
    return got


def test_nothing_is_answered_before_the_proof(server):
    server.start(users(server))
    ask = message(b"Q", b"select 4242 as secret\0")
    initial = message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", 4) + b"n,,x")
    other = message(b"p", b"PLAIN\0" + struct.pack("!i", -1))
    for before in [(), (initial,), (other,), (message(b"p", b""),)]:
        got = answers(server, *before, ask, ask)
        assert b"4242" not in got and b"secret" not in got, (before, got)
        # No `AuthenticationOk`.
        assert b"R\0\0\0\x08\0\0\0\0" not in got, (before, got)
        assert b"FATAL" in got, (before, got)


def test_refusals_have_their_codes(server):
    """A driver doesn't tell the code of one that it met while it came in."""
    server.start(users(server))
    for user in (b"ann", b"eve"):
        with Frontend(server.port) as client:
            client.hello(user)
            asked, _ = next(client.until(b"R"))
            assert asked == b"R"
            first = b"n,,n=,r=abc"
            size = struct.pack("!i", len(first))
            client.send(message(b"p", b"SCRAM-SHA-256\0" + size + first))
            _, challenge = next(client.until(b"R"))
            nonce, *_ = challenge[4:].split(b",")
            proof = base64.b64encode(bytes(32))
            client.send(message(b"p", b"c=biws,%s,p=%s" % (nonce, proof)))
            *_, (kind, body) = client.until(b"E")
            assert (kind, code(body)) == (b"E", "28P01"), body
    with Frontend(server.port) as client:
        client.hello()
        client.send(message(b"Q", b"select 1\0"))
        *_, (kind, body) = client.until(b"E")
        assert (kind, code(body)) == (b"E", "08P01"), body


def peak_mib(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def test_nothing_long_is_held_before_the_proof(server):
    server.start(users(server))
    before, count, piece = peak_mib(server), 300, b"x" * 1_000_000
    with Frontend(server.port) as client:
        client.hello()
        assert next(client.until(b"R"))[0] == b"R"
        client.send(b"Q" + struct.pack("!i", 4 + count * len(piece)))
        for _ in range(count):
            client.send(piece)
        with pytest.raises(ConnectionError):
            client.exactly(1)
    assert peak_mib(server) < before + 32


def test_with_a_certificate_only_encrypted_clients_come_in(server):
    pem, key = certificate(server.folder)
    server.start(f'{users(server)}\ncertificate = "{pem}"\nkey = "{key}"')
    for more in [
        {"sslmode": "require"},
        {"sslmode": "verify-full", "sslrootcert": str(pem)},
        {"sslmode": "require", "sslnegotiation": "direct"},
        {"sslmode": "prefer"},
    ]:
        with connect(server, "ann", PASSWORD, **more) as connection:
            assert connection.pgconn.ssl_in_use, more
            many = connection.execute("select value from range(0, 100000)").fetchall()
            assert len(many) == 100_000
            assert connection.execute("select 1").fetchall() == [(1,)]
    assert "sslmode=require" in refused(server, "ann", PASSWORD, sslmode="disable")
    with Frontend(server.port) as plain:
        kind, body = plain.start()[-1]
        assert (kind, code(body)) == (b"E", "28000"), body
    assert "password authentication failed" in refused(
        server, "ann", "x", sslmode="require"
    )


# One question at a time, and not for long, so that a test ends when a protection is out.
ONE_TURN = "[sql]\nqueries = 1\ntimeout_s = 60"


def start_encrypted(server: Server, sql: str = "") -> None:
    pem, key = certificate(server.folder)
    server.start(f'{users(server)}\ncertificate = "{pem}"\nkey = "{key}"', sql)


def test_what_an_encrypted_client_asked_can_be_stopped(server):
    """By a request that is encrypted as well, and by a plain one, as older clients send."""
    start_encrypted(server, ONE_TURN)
    with connect(server, "ann", PASSWORD, sslmode="require") as connection:
        for cancel in [connection.cancel_safe, connection.cancel]:
            begun, later = time.monotonic(), threading.Timer(1, cancel)
            later.start()
            # Past its time it would end by the same code.
            with pytest.raises(psycopg.errors.QueryCanceled, match="client asked"):
                connection.execute(ENDLESS)
            assert 1 <= time.monotonic() - begun < 15
            later.join()
            assert connection.execute("select 1").fetchall() == [(1,)]


def vanish(connection: psycopg.Connection) -> None:
    """Its side of the connection ends, without a word by either protocol."""
    with socket.socket(fileno=os.dup(connection.fileno())) as own:
        own.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("go", [psycopg.Connection.close, vanish])
def test_an_encrypted_client_that_goes_ends_its_query(server, go):
    start_encrypted(server, ONE_TURN)
    greedy = connect(server, "ann", PASSWORD, sslmode="require")
    with connect(server, "bob", "pencil", sslmode="require") as other:
        greedy.pgconn.send_query(ENDLESS.encode())
        while greedy.pgconn.flush():
            time.sleep(0.01)
        time.sleep(0.5)
        with ThreadPoolExecutor(1) as waiting:
            turn = waiting.submit(other.execute, "select 1")
            time.sleep(1)
            assert not turn.done(), "the turn is taken"
            go(greedy)
            assert turn.result(20).fetchall() == [(1,)]
    greedy.close()


def test_bytes_before_encryption_are_not_read_as_encrypted(server):
    start_encrypted(server)
    hello = struct.pack("!i", 196608) + b"user\0ann\0database\0aion\0\0"
    begin = struct.pack("!ii", 8, 80877103)
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(begin + struct.pack("!i", len(hello) + 4) + hello)
        got = client.recv(1)
        assert got == b"S"
        try:
            rest = client.recv(65536)
        except ConnectionError:
            rest = b""
    # What was smuggled in is no handshake: a TLS alert and the end, never an answer.
    assert b"SCRAM" not in rest


def test_a_cancel_request_is_heard_by_the_right_query_only(server):
    server.start(users(server))
    with connect(server, "ann", PASSWORD) as one, connect(server, "bob", "pencil"):
        pid = one.pgconn.backend_pid
        forged = struct.pack("!iiii", 16, 80877102, pid, 12345)
        with socket.create_connection(("127.0.0.1", server.port), 10) as client:
            client.sendall(forged)
            assert client.recv(1) == b""
        assert one.execute(
            "select count(*) from range(0, 20000000) where value % 7 = 1"
        ).fetchall()


@pytest.mark.parametrize(
    ("listen", "rest", "part"),
    [
        ("0.0.0.0:0", "", "add users, certificate and key"),
        ("0.0.0.0:0", 'users = { ann = "env:HOME" }', "add users, certificate and key"),
        ("127.0.0.1:0", 'users = { ann = "secret" }', "env:NAME or file:PATH"),
        ("127.0.0.1:0", 'certificate = "a"\nkey = "b"', "add users"),
        ("127.0.0.1:0", 'certificate = "a"', "give both"),
        ("127.0.0.1:0", 'pasword = "a"', "unknown field `pasword`"),
    ],
)
def test_what_would_let_strangers_in_is_no_configuration(
    tmp_path: Path, listen: str, rest: str, part: str
):
    config = tmp_path / "reader.toml"
    config.write_text(
        f'lake.url = "{tmp_path}"\n[sql.postgres]\nlisten = "{listen}"\n{rest}'
    )
    for command in ["sql-server", "run"]:
        done = subprocess.run(
            [binary(), command, "--config", str(config)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2
        if command == "sql-server":
            assert part in done.stderr, done.stderr


def listened(process: Process) -> set[str]:
    """Where a process listens: of all such sockets of the system, those that it has open."""
    assert process.process
    own, found = Path(f"/proc/{process.process.pid}"), set()
    sockets = set()
    for descriptor in (own / "fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            sockets.add(os.readlink(descriptor))
    for table in ("tcp", "tcp6"):
        for line in (own / "net" / table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENS and f"socket:[{inode}]" in sockets:
                host, port = local.split(":")
                if table == "tcp":
                    host = socket.inet_ntoa(bytes.fromhex(host)[::-1])
                found.add(f"{host}:{int(port, 16)}")
    return found


def test_a_server_with_many_questions_is_ready(server):
    server.start("", "[sql]\nqueries = 1")
    with Frontend(server.port) as greedy, Frontend(server.port, 2) as waiting:
        greedy.start()
        waiting.start()
        greedy.send(message(b"Q", ENDLESS.encode() + b"\0"))
        time.sleep(1)
        waiting.send(message(b"Q", b"select 1\0"))
        with pytest.raises(TimeoutError):
            waiting.exactly(1)
        begun = time.monotonic()
        for _ in range(20):
            assert server.get("/readyz") == (200, "ready\n")
        assert time.monotonic() - begun < 5
    # It looks at the lake, though.
    log = server.lake / "decisions" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("{")
    status, why = server.get("/readyz")
    assert status == 503 and "decisions" in why, why


@pytest.mark.parametrize("is_on", [False, True])
def test_a_server_listens_where_it_is_told_and_nowhere_else(server, is_on: bool):
    server.start("" if is_on else None)
    theirs = {f"127.0.0.1:{server.port}"} if is_on else set()
    assert listened(server) == {server.http} | theirs


def test_jobs_listen_where_they_are_told_and_nowhere_else(tmp_path: Path):
    broker = Embedded(tmp_path / "broker")
    place = Place(broker, tmp_path, "asked.nowhere-else")
    broker.start()
    try:
        place.bootstrap()
        address = f"127.0.0.1:{free_port()}"
        section = f'[sql.postgres]\nlisten = "{address}"\n'
        for more, theirs in [("", set()), (section, {address})]:
            run = place.run(more=more)
            run.wait_ready()
            assert listened(run) == {run.http} | theirs
            assert run.stop() == 0
    finally:
        place.end()
        broker.stop()


def test_readers_of_a_lake_need_no_broker(dev, tmp_path: Path):
    dev.start("--rate", "500")
    dev.wait(lambda: dev.count("decisions") > 100, "some rows are stored")
    assert dev.stop() == 0
    stored = dev.count("decisions")
    servers = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        server = Server(folder, dev.data / "lake")
        server.start()
        servers.append(server)
    for server in servers:
        with connect(server, "anyone", "") as connection:
            assert connection.execute("select count(*) from decisions").fetchall() == [
                (stored,)
            ]
            assert connection.execute(
                "select sum(mark) > 0, sum(lag) is null from lag"
            ).fetchall() == [(True, True)]
        assert server.get("/livez")[0] == 200
        request = urllib.request.Request(
            f"http://{server.http}/v1/sql", b"select 1 as n", method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=10)
        assert error.value.code == 403, "no keys are configured"
        assert json.load(error.value)["status"] == 403
        assert server.stop() == 0
