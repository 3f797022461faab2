"""A receiver of webhooks that verifies with the official library, and one that does as it is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from posts import Server
from standardwebhooks.webhooks import Webhook

SECRET = "a-secret-for-tests-only"


class Delivery:
    """One request, verified."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path, self.headers, self.body = path, headers, body
        self.at = time.monotonic()
        self.event = json.loads(body)
        self.id = headers["idempotency-key"]

    def verify(self, secret: str = SECRET) -> None:
        """Raises where a signature or an id isn't what it has to be."""
        library(secret).verify(self.body, self.headers)
        assert self.is_signed_by(secret)
        assert self.id == self.headers["webhook-id"] == self.event["id"]

    def is_signed_by(self, secret: str) -> bool:
        """Whether `X-Aion-Signature` is by this secret."""
        mac = hmac.new(secret.encode(), self.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.headers["x-aion-signature"], f"sha256={mac}")


class Receiver:
    """Answers on a port of this machine. `answer` says what: a status, or a function of the delivery that
    answers one, with headers if it likes."""

    def __init__(
        self, secret: str | None = SECRET, tls: ssl.SSLContext | None = None
    ) -> None:
        self.deliveries: list[Delivery] = []
        self.failures: list[str] = []
        # The ids of all that it has taken.
        self.taken: set[str] = set()
        self.answer: int | Callable[[Delivery], object] = 204
        self.secret = secret
        self.lock = threading.Lock()
        self.server = Server(
            lambda handler, headers, body: self.take(
                handler, Delivery(handler.path, headers, body)
            ),
            tls,
        )
        self.tls = tls
        self.port = self.server.port

    def take(self, handler: BaseHTTPRequestHandler, delivery: Delivery) -> None:
        try:
            if self.secret:
                delivery.verify(self.secret)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the test shall see it
            self.failures.append(repr(failure))
        answer = self.answer(delivery) if callable(self.answer) else self.answer
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        with self.lock:
            if status // 100 == 2:
                self.deliveries.append(delivery)
                self.taken.add(delivery.id)
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", "0")
        handler.end_headers()
        handler.wfile.flush()

    @property
    def url(self) -> str:
        if self.tls:
            return f"https://localhost:{self.port}/"
        return f"http://127.0.0.1:{self.port}/"

    def ids(self) -> Counter[str]:
        with self.lock:
            return Counter(delivery.id for delivery in self.deliveries)

    def values(self) -> Counter:
        """What the events' data say under `n`, over distinct ids."""
        with self.lock:
            by_id = {d.id: d.event["data"]["n"] for d in self.deliveries}
        return Counter(by_id.values())

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def library(secret: str) -> Webhook:
    """The official library with a secret of ours."""
    if not secret.startswith("whsec_"):
        secret = base64.b64encode(secret.encode()).decode()
    return Webhook(secret)


def policy(path: Path, *entries: dict) -> Path:
    """Writes a policy file; what an entry doesn't say is as tests need it."""
    usual = {
        "secret": SECRET,
        "topics": ["test.*"],
        "retry": {
            "initial_interval": "100ms",
            "max_interval": "1s",
            "max_attempts": 20,
        },
        "allow_http": True,
        "allow_private": ["127.0.0.1"],
        "max_age": "1h",
    }
    # JSON is YAML.
    full = [usual | entry for entry in entries]
    for entry in full:
        if "secrets" in entry:
            del entry["secret"]
    text = json.dumps({"webhooks": full}, indent=1)
    path.write_text(text)
    return path
