"""A broker, gateways that take commands in, and a control plane that counts what it is asked to do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from brokers import Embedded
from confluent_kafka import Consumer, Message, TopicPartition
from posts import Server
from processes import Process, binary, wait
from standardwebhooks.webhooks import Webhook

SIGNING = "what-commands-are-signed-with"
OLD_SIGNING = "what-commands-were-signed-with"
CONTROL = "what-the-control-plane-knows"
JWT_SECRET = "0123456789abcdef0123456789abcdef"
ISSUER = "https://login.test/"
# Everything that could let a secret out.
LOG = "debug,hyper=info,h2=info,deltalake=info,delta_kernel=info,datafusion=info"


class Hold:
    """Answers that are held back: what was asked for is done, and nobody knows it yet."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.over = threading.Event()

    def wait(self, key: str) -> None:
        self.keys.append(key)
        self.over.wait(60)


class Plane:
    """A control plane: verifies, remembers by Idempotency-Key, and does as it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict]] = []
        self.done: dict[str, bytes] = {}
        self.failures: list[str] = []
        # A status, or a function of the command that answers one.
        self.answer: int | Callable[[dict], int] = 200
        self.hold: Hold | None = None
        self.lock = threading.Lock()
        self.server = Server(self.respond)
        self.url = f"http://127.0.0.1:{self.server.port}/commands"

    def respond(
        self, handler: BaseHTTPRequestHandler, headers: dict[str, str], body: bytes
    ) -> None:
        handler.send_response(self.take(headers, body))
        handler.send_header("content-length", "0")
        handler.end_headers()
        handler.wfile.flush()

    def take(self, headers: dict[str, str], body: bytes) -> int:
        command, key = json.loads(body), headers["idempotency-key"]
        try:
            secret = base64.b64encode(CONTROL.encode()).decode()
            Webhook(secret).verify(body, headers)
            assert key == command["id"]
            with self.lock:
                same = self.done.get(key, body) == body
            assert same, "the same key and other bytes"
        except Exception as failure:  # noqa: BLE001 - whatever it is, the test shall see it
            self.failures.append(repr(failure))
        with self.lock:
            self.asked.append((key, command))
        status = self.answer(command) if callable(self.answer) else self.answer
        if status // 100 == 2:
            with self.lock:
                self.done[key] = body
            if hold := self.hold:
                hold.wait(key)
        return status

    def attempts(self) -> Counter[str]:
        with self.lock:
            return Counter(key for key, _ in self.asked)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Gate:
    """Gateways of one broker, by one policy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plane = Plane()
        self.broker = Embedded(folder / "broker")
        self.gateways: list[Process] = []
        self.keys: dict[str, str] = {}
        self.policy_file = folder / "access.yaml"
        for name, text in [
            ("signing", SIGNING),
            ("old", OLD_SIGNING),
            ("control", CONTROL),
            ("jwt", JWT_SECRET),
        ]:
            (folder / name).write_text(text)
        self.entries: list[str] = []
        self.topic = ""
        # More lines of [http] and [inbound].
        self.http = self.inbound = ""
        self.jobs = ("aion.commands", "aion.gaps")
        self.principal("reviewer", "approve", rate=100_000)
        self.principal("installer", "install", tenants='["acme"]')
        self.principal("auditor", "read")
        self.principal("slow", "approve", rate=2)
        self.principal("engineer", "export")
        self.principal("analyst", "ask")
        self.principal("scraper", "scrape")
        self.write_policy()

    def principal(self, name: str, role: str, rate: int = 10_000, tenants: str = ""):
        made = subprocess.run(
            [binary(), "keys", "new", "--principal", name, "--roles", role],
            capture_output=True,
            text=True,
            check=True,
        )
        self.keys[name] = made.stdout.strip()
        prefix, digest = (
            made.stderr.partition(f"{what}: ")[2] for what in ("prefix", "sha256")
        )
        more = f", tenants: {tenants}" if tenants else ""
        self.entries.append(
            f"  - {{id: {name}, roles: [{role}], rate: {rate}{more}, "
            f"keys: [{{prefix: {prefix.split()[0]}, sha256: {digest.split()[0]}}}]}}"
        )

    def write_policy(
        self, signing: tuple[str, ...] = ("signing", "old"), more: str = ""
    ):
        secrets = ", ".join(f'"file:{self.folder / name}"' for name in signing)
        self.policy_file.write_text(
            f"signing: [{secrets}]\n"
            "roles:\n"
            "  approve: [approve_kernel_proposal, reject_kernel_proposal]\n"
            "  install: [install_module]\n"
            "  read: [commands.read]\n"
            "  export: [api.exports]\n"
            "  ask: [api.sql]\n"
            "  scrape: [api.metrics]\n"
            "principals:\n" + "\n".join(self.entries) + "\n"
            "issuers:\n"
            f"  - {{id: login, issuer: '{ISSUER}', audience: aion, algorithms: [HS256], "
            f"secret: 'file:{self.folder / 'jwt'}', roles: {{reviewers: [approve]}}}}\n{more}"
        )

    def start(self, gateways: int = 1, log: str = LOG, topic: str = "") -> None:
        """Commands go to the control plane, or to a topic."""
        self.topic = topic
        self.broker.start()
        done = self.broker.bootstrap()
        assert done.returncode == 0, done.stdout + done.stderr
        for _ in range(gateways):
            self.join(log)
        for gateway in self.gateways:
            gateway.wait_ready()

    def join(self, log: str = LOG) -> Process:
        """One more gateway."""
        gateway = Process(self.folder / f"gateway-{len(self.gateways)}.log")
        self.gateways.append(gateway)
        self.launch(gateway, log)
        return gateway

    def launch(self, gateway: Process, log: str = LOG) -> None:
        number = self.gateways.index(gateway)
        file = self.folder / f"gateway-{number}.toml"
        file.write_text(
            f'[kafka]\nbrokers = "{self.broker.brokers()}"\n'
            '[kafka.properties]\n"session.timeout.ms" = 2000\n"heartbeat.interval.ms" = 400\n'
            # A broker that comes back is found at once.
            '"reconnect.backoff.max.ms" = 500\n'
            # Whoever comes back under its name gets its partitions at once.
            f'"group.instance.id" = "gateway-{number}"\n'
            f'[lake]\nurl = "{self.folder / f"lake-{number}"}"\nflush_age_s = 1\n'
            f'[http]\nlisten = "{gateway.http}"\n{self.http}'
            f'[exports]\nurl = "{self.folder / "exports"}"\n'
            f'[access]\npolicy = "{self.policy_file}"\n'
            f'[log]\nfilter = "{log}"\n'
            # One job a process, each with a topic of its own: a job is wanted.
            f'[[job]]\ntopic = "{self.jobs[number]}"\nsinks = ["lake"]\n'
            f"[inbound]\n{self.target()}{self.inbound}"
        )
        gateway.launch("run", "--config", file)

    def target(self) -> str:
        if self.topic:
            return f'topic = "{self.topic}"\n'
        return (
            f'url = "{self.plane.url}"\nsecrets = ["file:{self.folder / "control"}"]\n'
            f'allow_http = true\nallow_private = ["127.0.0.1"]\ntimeout_s = 10\n'
        )

    @property
    def gateway(self) -> Process:
        return self.gateways[0]

    def send(
        self,
        body: bytes | dict,
        who: str = "reviewer",
        gateway: int = 0,
        tls: ssl.SSLContext | None = None,
        **headers: str | None,
    ) -> Answer:
        """Posts a body as it is; what is signed and who asks may be said otherwise. `None` leaves a header out."""
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        all_headers = {
            "content-type": "application/json",
            "x-aion-signature": signature(body),
            "authorization": f"Bearer {self.keys[who]}",
        }
        all_headers |= {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        sent = {name: value for name, value in all_headers.items() if value is not None}
        address, path = self.gateways[gateway].http, "/webhooks/inbound"
        return ask(address, "POST", path, body, sent, tls)

    def state(
        self, command: str, who: str = "reviewer", gateway: int = 0
    ) -> tuple[int, dict]:
        headers = {"authorization": f"Bearer {self.keys[who]}"}
        answer = ask(
            self.gateways[gateway].http,
            "GET",
            f"/webhooks/inbound/{command}",
            b"",
            headers,
        )
        return answer.status, json.loads(answer.body)

    def ended(
        self, command: str, seconds: float = 30, gateway: int = 0, who: str = "reviewer"
    ) -> dict:
        def is_over() -> bool:
            try:
                return self.state(command, who, gateway)[1].get("state") != "accepted"
            except OSError:
                return False

        wait(is_over, f"{command} has ended", seconds, self.gateways[gateway].output)
        return self.state(command, who, gateway)[1]

    def read(self, topic: str) -> list[dict]:
        """Every record of a topic, to its end."""
        return [json.loads(message.value()) for message in self.messages(topic)]

    def messages(self, topic: str) -> list[Message]:
        """Partition by partition, those of a key in order."""
        client = self.broker.client(
            "reader",
            group__id=str(uuid.uuid4()),
            enable__auto__commit=False,
            fetch__wait__max__ms=10,
        )
        consumer = Consumer(client)
        numbers = consumer.list_topics(topic, 10).topics[topic].partitions
        places = [TopicPartition(topic, number, 0) for number in numbers]
        ends = {
            place.partition: consumer.get_watermark_offsets(place, 10)[1]
            for place in places
        }
        left = {number for number, end in ends.items() if end}
        consumer.assign([place for place in places if place.partition in left])
        found = []
        while left:
            message = consumer.poll(10)
            assert message is not None and not message.error(), message
            number, at = message.partition(), message.offset()
            if at < ends[number]:
                found.append(message)
            if at + 1 >= ends[number]:
                left.discard(number)
        consumer.close()
        return sorted(found, key=lambda one: (one.partition(), one.offset()))

    def audit(self, command: str) -> Counter[str]:
        """The results of distinct audit events of a command."""
        events = {
            event["event_id"]: event["result"]
            for event in self.read("aion.audit.activity")
            if event.get("resource") == f"command/{command}"
        }
        return Counter(events.values())

    def end(self) -> None:
        for gateway in self.gateways:
            gateway.end()
        self.broker.stop()
        self.plane.close()
        assert not self.plane.failures, self.plane.failures


class Answer:
    """A response."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> dict:
        return json.loads(self.body)


def ask(
    address: str,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Asks once; with `tls` it is known by that whether the other side is who it should be."""
    if tls:
        connection = http.client.HTTPSConnection(address, timeout=30, context=tls)
    else:
        connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        given = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, given, answer.read())
    finally:
        connection.close()


def head(gate: Gate, body: bytes, *more: str) -> bytes:
    """The head of a request for such a body, as bytes on a connection; the length is to be among `more`."""
    lines = [
        "POST /webhooks/inbound HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"X-Aion-Signature: {signature(body)}",
        f"Authorization: Bearer {gate.keys['reviewer']}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def connect(gate: Gate, seconds: float = 20) -> socket.socket:
    host, _, port = gate.gateway.http.partition(":")
    return socket.create_connection((host, int(port)), seconds)


def signature(body: bytes, secret: str = SIGNING) -> str:
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def command(**more: object) -> dict:
    """A command that is right; each one another."""
    usual = {
        "action": "approve_kernel_proposal",
        "parameters": {"proposal_id": "p1"},
        "timestamp": int(time.time()),
        "idempotency_key": str(uuid.uuid4()),
    }
    return {name: value for name, value in (usual | more).items() if value is not None}


def token(
    header: dict | None = None, secret: str | bytes = JWT_SECRET, **claims: object
) -> str:
    """A token of the issuer that the policy trusts, for a minute."""
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": "aion", "sub": "ann", "roles": ["reviewers"]}
    usual |= {"exp": now + 60, "nbf": now - 60}
    all_claims = {k: v for k, v in (usual | claims).items() if v is not None}

    def part(value: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    signed = f"{part(header or {'alg': 'HS256', 'typ': 'JWT'})}.{part(all_claims)}"
    secret = secret.encode() if isinstance(secret, str) else secret
    mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
