"""A stop and those who ask: they are told of it, and hold it up for seconds only."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from asking import ENDLESS, KEY
from processes import Dev, Process
from readers import Server

LONG = "select value from range(0, 3000000000)"
# Far less than a question may take, on a machine that has other work.
AT_MOST_S = 20


def request(process: Process, query: str) -> urllib.request.Request:
    headers = {"Authorization": f"Bearer {KEY}"} if isinstance(process, Server) else {}
    return urllib.request.Request(
        f"http://{process.http}/v1/sql", query.encode(), headers
    )


def by_http(process: Process) -> tuple[int, dict]:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request(process, ENDLESS), timeout=100)
    return refused.value.code, json.load(refused.value)


def by_postgres(port: int) -> str:
    with connected(port) as client, pytest.raises(psycopg.Error) as refused:
        client.execute(ENDLESS)
    return f"{refused.value.sqlstate} {refused.value}"


def connected(port: int) -> psycopg.Connection:
    where = f"host=127.0.0.1 port={port} user=me dbname=aion"
    return psycopg.connect(where, autocommit=True)


def unread(process: Process) -> socket.socket:
    """A client that takes nothing of a long answer."""
    asked = request(process, LONG)
    assert isinstance(asked.data, bytes)
    lines = [f"{name}: {value}" for name, value in asked.header_items()]
    lines += [f"Host: {process.http}", f"Content-Length: {len(asked.data)}"]
    head = "\r\n".join(["POST /v1/sql HTTP/1.1", *lines, "", ""])
    host, port = process.http.split(":")
    client = socket.create_connection((host, int(port)))
    client.sendall(head.encode() + asked.data)
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


def stops(process: Process, port: int) -> None:
    with ThreadPoolExecutor(2) as clients, unread(process):
        asked = clients.submit(by_http, process)
        asked_of_postgres = clients.submit(by_postgres, port)
        idle = connected(port)
        time.sleep(2)
        assert not asked.done() and not asked_of_postgres.done()
        try:
            assert process.stop(signal.SIGTERM, AT_MOST_S) == 0, process.output()
        finally:
            process.end()  # or who asks would be waited for
        code, problem = asked.result(AT_MOST_S)
        told = asked_of_postgres.result(AT_MOST_S)
    assert code == 503 and "the process is stopping" in problem["detail"], problem
    assert told.startswith("57P01") and "the process is stopping" in told
    with idle, pytest.raises(psycopg.OperationalError):
        idle.execute("select 1")


def test_dev_stops_while_questions_take_long(dev: Dev):
    dev.start("--no-generator")
    stops(dev, int(dev.postgres.split(":")[1]))
    assert "Stopped; everything is kept." in dev.output()


def test_a_server_stops_while_questions_take_long(tmp_path: Path):
    (tmp_path / "key").write_text(KEY)
    server = Server(tmp_path)
    try:
        server.start(sql=f'http.keys = ["file:{tmp_path / "key"}"]')
        stops(server, server.port)
    finally:
        server.end()
