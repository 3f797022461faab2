"""The real ClickHouse engine (chDB) behind the part of its HTTP interface that we speak.

    python front.py FOLDER [--port N] [--user NAME --password SECRET] [--certificate PEM --key PEM]

Prints `listening on PORT`, and ends when its standard input closes. Everything is kept in FOLDER, so a
killed one can be started again on it. README.md beside this file says what it proves and what not.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shutil
import ssl
import sys
import threading
import time
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from chdb.state.sqlitelike import Connection

# What the interface itself takes; every other parameter of a URL is a setting.
OWN = {"query", "database", "query_id", "default_format", "user", "password"}
OWN |= {"wait_end_of_query", "client_protocol_version", "quota_key"}
# There are no sessions here: each query has a connection of its own.
OWN |= {"session_id", "session_timeout", "session_check"}
# As the server maps its codes to HTTP; any other is 500.
STATUS = {60: 404, 81: 404, 516: 403, 497: 403, 159: 408, 241: 507, 202: 503}
STATUS |= dict.fromkeys([6, 27, 36, 43, 46, 47, 53, 62, 386], 400)
INSERT = re.compile(
    r"\s*(INSERT\s+INTO\s.*?)(\s+SETTINGS\s.*?)?\s+FORMAT\s+(\w+)\s*",
    re.IGNORECASE | re.DOTALL,
)
# The faults that come once the query has run.
AFTER = {"sleep_after", "drop_after", "halve", "refuse_after"}
LETS_DATABASE_BE = re.compile(r"\s*(CREATE|DROP)\s+DATABASE", re.IGNORECASE)


class Refused(Exception):
    """An answer that isn't 200; `code` is ClickHouse's."""

    def __init__(self, code: int, name: str, text: str, status: int = 0) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {text}. ({name})")
        self.code, self.status = code, status or STATUS.get(code, 500)


class Dropped(Exception):
    """The connection ends without an answer."""


class Halved(Exception):
    """The connection ends in the middle of the answer."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.answer = answer


class Front(ThreadingHTTPServer):
    """One engine, the queries that run in it, and the faults that a test has asked for."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, folder: Path, port: int, user: str | None, password: str
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.folder, self.user, self.password = folder, user, password
        self.spool = folder / "spool"
        shutil.rmtree(self.spool, ignore_errors=True)  # a killed one leaves its files
        self.spool.mkdir(parents=True)
        self.lock = threading.Lock()
        self.running: set[str] = set()
        self.faults: list[dict] = []
        self.met = 0
        self.ahead_s = 0
        self.refusals: Counter[int] = Counter()
        self.keeper = Connection(str(folder / "data"))

    def fault(self, query: str) -> dict | None:
        """Uses up the next fault that is meant for this query."""
        with self.lock:
            for at, fault in enumerate(self.faults):
                if re.search(fault["match"], query, re.DOTALL):
                    return self.faults.pop(at)
        return None

    def run(self, settings: dict, own: dict, query: str, body: Path | None) -> bytes:
        query_id = own.get("query_id") or str(uuid.uuid4())
        with self.lock:
            if query_id in self.running:
                text = f"Query with id = {query_id} is already running"
                raise Refused(216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", text)
            self.running.add(query_id)
        try:
            return self.meet_fault(settings, own, query, body)
        finally:
            with self.lock:
                self.running.discard(query_id)

    def meet_fault(self, settings: dict, own: dict, query: str, body) -> bytes:
        if not (fault := self.fault(query)):
            return self.ask(settings, own, query, body)
        kind = fault["kind"]
        answer = self.ask(settings, own, query, body) if kind in AFTER else b""
        with self.lock:
            self.met += 1
        if kind.startswith("refuse"):
            raise Refused(fault["code"], "SCRIPTED", fault["text"], fault["status"])
        if kind.startswith("drop"):
            raise Dropped
        if kind == "answer":
            return fault["text"].encode()
        if kind == "set":
            return self.ask(settings | fault["settings"], own, query, body)
        if kind == "halve":
            raise Halved(answer)
        time.sleep(fault["seconds"])
        return answer if kind in AFTER else self.ask(settings, own, query, body)

    def ask(self, settings: dict, own: dict, query: str, body: Path | None) -> bytes:
        """Runs a query on a connection of its own, which keeps USE and SET to it."""
        connection = Connection(str(self.folder / "data"))
        try:
            if not LETS_DATABASE_BE.match(query):
                connection.query(f"USE `{own.get('database') or 'default'}`")
            if settings:
                given = (f"{name} = '{value}'" for name, value in settings.items())
                connection.query(f"SET {', '.join(given)}")
            if self.ahead_s and query.startswith("SELECT"):
                query = query.replace("now()", f"(now() + {self.ahead_s})")
            if body is not None:
                query = from_file(query, body)
            return connection.query(
                query, own.get("default_format", "TabSeparated")
            ).bytes()
        finally:
            connection.close()


def from_file(query: str, body: Path) -> str:
    """The same INSERT with its data in a file: in the text of a query binary data is cut at blank lines."""
    parts = INSERT.fullmatch(query)
    if not parts:
        raise Refused(
            62, "SYNTAX_ERROR", f"an INSERT with a body wants FORMAT: {query[:200]}"
        )
    head, settings, form = parts.groups(default="")
    return f"{head} FROM INFILE '{body}' COMPRESSION 'none'{settings} FORMAT {form}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Front

    def do_GET(self) -> None:
        if self.path == "/ping":
            return self.answer(200, b"Ok.\n")
        if self.path == "/faults":
            with self.server.lock:
                return self.answer(200, json.dumps(self.server.met).encode())
        if self.path == "/refusals":
            with self.server.lock:
                return self.answer(200, json.dumps(self.server.refusals).encode())
        self.serve()

    def do_POST(self) -> None:
        if self.path == "/fault":
            fault = json.loads(self.body())
            with self.server.lock:
                self.server.faults.append(fault)
            return self.answer(200, b"")
        if self.path == "/clock":
            seconds = int(self.body())
            with self.server.lock:
                self.server.ahead_s += seconds
            return self.answer(200, b"")
        self.serve()

    def serve(self) -> None:
        spooled = None
        try:
            own, settings = self.parameters()
            body = self.body()
            self.check_user(own)
            query = own.get("query")
            if query is None:
                query = body.decode()
            elif body or INSERT.fullmatch(query):
                spooled = self.server.spool / str(uuid.uuid4())
                spooled.write_bytes(body)
            self.answer(200, self.server.run(settings, own, query, spooled))
        except (Dropped, ConnectionError):
            self.close_connection = True
        except Halved as halved:
            self.halve(halved.answer)
        except Refused as error:
            self.refuse(error.code, error.status, str(error))
        except RuntimeError as error:  # what the engine says
            text = str(error)
            code = re.search(r"Code: (\d+)", text)
            code = int(code[1]) if code else 1001
            self.refuse(code, STATUS.get(code, 500), text)
        finally:
            if spooled:
                spooled.unlink(missing_ok=True)

    def parameters(self) -> tuple[dict, dict]:
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        own = {name: value for name, value in given.items() if name in OWN}
        for header, name in [("Database", "database"), ("Query-Id", "query_id")]:
            if value := self.headers.get(f"X-ClickHouse-{header}"):
                own[name] = value
        return own, {name: value for name, value in given.items() if name not in OWN}

    def check_user(self, own: dict) -> None:
        if self.server.user is None:
            return
        user = self.headers.get("X-ClickHouse-User") or own.get("user")
        password = self.headers.get("X-ClickHouse-Key") or own.get("password")
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            user, _, password = base64.b64decode(token).decode().partition(":")
        if (user, password or "") != (self.server.user, self.server.password):
            text = f"{user or 'default'}: Authentication failed: password is incorrect, or there is no user with such name"
            raise Refused(516, "AUTHENTICATION_FAILED", text)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            whole = b"".join(iter(self.chunk, b""))
        else:
            length = int(self.headers.get("Content-Length", 0))
            whole = self.rfile.read(length)
            if len(whole) < length:
                raise Dropped  # the client went away in the middle: nothing is run
        return whole

    def chunk(self) -> bytes:
        line = self.rfile.readline()
        if not line.endswith(b"\r\n"):
            raise Dropped
        size = int(line.split(b";")[0], 16)
        data = self.rfile.read(size)
        if len(data) < size or self.rfile.readline() != b"\r\n":
            raise Dropped
        return data

    def answer(self, status: int, body: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:  # the client was killed meanwhile
            self.close_connection = True

    def halve(self, answer: bytes) -> None:
        """Promises a byte more than there is, and ends half way."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer) + 1))
        self.end_headers()
        self.wfile.write(answer[: len(answer) // 2])

    def refuse(self, code: int, status: int, text: str) -> None:
        with self.server.lock:
            self.server.refusals[code] += 1
        self.close_connection = True
        headers = {"X-ClickHouse-Exception-Code": str(code), "Connection": "close"}
        self.answer(status, (text + "\n").encode(), headers)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--user")
    options.add_argument("--password", default="")
    options.add_argument("--certificate")
    options.add_argument("--key")
    given = options.parse_args()
    front = Front(given.folder.resolve(), given.port, given.user, given.password)
    if given.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(given.certificate, given.key)
        front.socket = context.wrap_socket(front.socket, server_side=True)
    print(f"listening on {front.server_address[1]}", flush=True)
    threading.Thread(target=front.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)  # the engine's own end isn't what is under test


if __name__ == "__main__":
    main()
