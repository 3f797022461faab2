"""Schema registries for tests: the embedded one and Apicurio's, each as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from urllib.parse import quote

from processes import ROOT, binary, free_port

SCRIPT = ROOT / "scripts" / "registry"
JSON = "application/vnd.schemaregistry.v1+json"


@dataclass
class Answer:
    status: int
    kind: str
    body: object

    @property
    def code(self) -> int | None:
        return self.body.get("error_code") if isinstance(self.body, dict) else None


class Registry:
    """What tests ask of any registry."""

    url: str
    is_ours: bool

    def call(self, method: str, path: str, body: object = None, kind: str = JSON):
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": kind, "Accept": JSON}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return read(answer)
        except urllib.error.HTTPError as answer:
            return read(answer)

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def post(self, path: str, body: object) -> Answer:
        return self.call("POST", path, body)

    def register(self, subject: str, schema: object, *, query: str = "", **more):
        path = f"/subjects/{quote(subject, safe='')}/versions{query}"
        return self.post(path, {"schema": text(schema), **more})

    def id_of(self, subject: str, schema: object, **more) -> int:
        answer = self.register(subject, schema, **more)
        assert answer.status == 200, answer
        return answer.body["id"]


def read(answer) -> Answer:
    kind = answer.headers.get("Content-Type", "").split(";")[0]
    raw = answer.read()
    try:
        return Answer(answer.status, kind, json.loads(raw))
    except ValueError:
        return Answer(answer.status, kind, raw.decode(errors="replace"))


def text(schema: object) -> str:
    return schema if isinstance(schema, str) else json.dumps(schema)


def record(name: str = "r", *fields: dict, **more) -> dict:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, kind: object = "string", **more) -> dict:
    return {"name": name, "type": kind, **more}


def new_subject() -> str:
    return f"s-{uuid.uuid4().hex[:12]}-value"


class Embedded(Registry):
    """The example `registry`: the embedded registry, that can be killed and started again."""

    is_ours = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        example = binary().resolve().parent / "examples" / "registry"
        if not example.exists():
            build = ["cargo", "build", "--release", "--locked", "--workspace"]
            subprocess.run([*build, "--example", "registry"], cwd=ROOT, check=True)
        command = [example, self.folder / "registry", f"127.0.0.1:{self.port}"]
        log = (self.folder / "registry.err").open("ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        log.close()
        assert self.process.stdout
        said = self.process.stdout.readline().decode().strip()
        assert said == self.url, (self.folder / "registry.err").read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            assert self.process.wait(10) == 0


class Apicurio(Registry):
    """scripts/registry, as a person uses it."""

    is_ours = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    def start(self) -> None:
        self.script("start", "--port", str(self.port))

    def stop(self) -> None:
        self.script("stop")

    def script(self, *arguments: str) -> None:
        command = [SCRIPT, *arguments, "--dir", self.folder / "apicurio"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)


def secured(certificates: Path, registry: Registry):
    """A registry behind TLS, which lets in alice with her password and a certificate; and what it was sent."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.headers["Authorization"])
            # alice:hunter2
            right = self.headers["Authorization"] == "Basic YWxpY2U6aHVudGVyMg=="
            answer = registry.get(self.path) if right else None
            body = json.dumps(answer.body if answer else {"error_code": 401}).encode()
            self.send_response(answer.status if answer else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, requests


def make_certificates(folder: Path, names: list[str]) -> None:
    """By scripts/kafka's own function."""
    loader = SourceFileLoader("scripts_kafka", str(ROOT / "scripts" / "kafka"))
    module = module_from_spec(spec_from_loader("scripts_kafka", loader))
    loader.exec_module(module)
    module.make_certificates(folder, names)
