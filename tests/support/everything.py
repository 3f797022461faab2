"""A pipeline with everything that can be watched."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from brokers import Embedded
from clickhouse.engine import Engine
from confluent_kafka import Producer
from events import decision, text
from processes import Process, binary, free_port
from receivers import SECRET, Receiver, policy

# Each topic's flush is a file of the lake, a part of a table: work that the questions would have to wait for.
FLUSH_AGE_S = 3
# The first audit is so far away; those that follow say the same of ever more rows.
AUDIT_S = 10
# Series of a metric that a partition keeps apart: far more than the believable events have.
SERIES = 200


class Everything(Process):
    """One `aion run` with lake, ClickHouse, series, audit, webhooks, commands and PostgreSQL's clients, and events of
    all topics, some of them broken."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "aion.log")
        self.folder = folder
        self.broker = Embedded(folder / "broker")
        self.receiver, self.engine = Receiver(), Engine(folder / "engine")
        self.postgres = f"127.0.0.1:{free_port()}"
        self.events: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.broker.start()
        done = self.broker.bootstrap()
        assert done.returncode == 0, done.stdout + done.stderr
        hooks = self.folder / "webhooks.yaml"
        entry = {"id": "sink", "url": self.receiver.url, "topics": ["aion.tasks.*"]}
        policy(hooks, entry)
        config = self.folder / "aion.toml"
        config.write_text(
            f'[kafka]\nbrokers = "{self.broker.brokers()}"\n'
            f'[lake]\nurl = "{self.folder / "lake"}"\nflush_age_s = {FLUSH_AGE_S}\n'
            f'[clickhouse]\nurl = "{self.engine.url}"\nflush_age_s = {FLUSH_AGE_S}\n'
            f'[sql.postgres]\nlisten = "{self.postgres}"\n{self.certificate()}'
            f'[http]\nlisten = "{self.http}"\n'
            f"[metrics]\nflush_age_s = 2\nmax_series_per_metric = {SERIES}\n[audit]\nevery_s = {AUDIT_S}\n"
            f'[webhooks]\npolicy = "{hooks}"\nflush_ms = 200\n' + self.inbound()
        )
        subprocess.run(
            [binary(), "clickhouse", "apply", "--config", config],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.launch("run", "--config", config)
        self.wait_ready()
        assert (self.command(SECRET), self.command("x" * 16)) == (202, 401)
        self.produce_oddities()
        self.events = subprocess.Popen(
            [binary(), "generate", "--to", self.broker.brokers()]
            + ["--rate", "200", "--count", "1000000", "--bad-share", "0.04"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def produce_oddities(self) -> None:
        """What believable events don't have: a field of next year, series too many, two names that become one."""
        producer = Producer(self.broker.client("everybody"))
        now = datetime.now(UTC)
        event = decision(0, now, random.Random(1))
        producer.produce("aion.router.decisions", text(event), "task")
        odd = {"component": "odd", "kind": "counter", "timestamp": now.isoformat()}
        many = [("by_id_total", {"id": n}) for n in range(SERIES + 50)]
        for metric, labels in [*many, ("twice.met", {}), ("twice-met", {})]:
            values = {"metric": metric, "labels": labels, "value": 1}
            producer.produce("aion.metrics.runtime", text(odd | values), "odd")
        assert producer.flush(30) == 0

    def certificate(self) -> str:
        """PostgreSQL's clients are shown one that ends in two days."""
        pem, key = self.folder / "sql.pem", self.folder / "sql.key"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=aion", "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", key, "-out", pem]
        subprocess.run(command, check=True, capture_output=True)
        password = self.folder / "password"
        password.write_text(SECRET)
        return (
            f'certificate = "{pem}"\nkey = "{key}"\n'
            f'[sql.postgres.users]\ngrafana = "file:{password}"\n'
        )

    def postgres_client(self) -> dict[str, str]:
        """How one of them connects."""
        host, port = self.postgres.split(":")
        place = {"host": host, "port": port, "dbname": "aion"}
        who = {"user": "grafana", "password": SECRET}
        trust = {"sslrootcert": str(self.folder / "sql.pem")}
        return place | who | trust | {"sslmode": "verify-full"}

    def inbound(self) -> str:
        """Commands from somebody with a key, to a control plane that takes everything."""
        made = subprocess.run(
            [binary(), "keys", "new", "--principal", "me"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.key = made.stdout.strip()
        digest = hashlib.sha256(self.key.encode()).hexdigest()
        access, secret = self.folder / "access.yaml", self.folder / "secret"
        secret.write_text(SECRET)
        access.write_text(
            f'signing: ["file:{secret}"]\nroles: {{all: ["*"]}}\nprincipals:\n'
            f"  - {{id: me, roles: [all], keys: [{{prefix: {self.key[:17]}, sha256: {digest}}}]}}\n"
        )
        return (
            f'[access]\npolicy = "{access}"\n[inbound]\nurl = "{self.receiver.url}"\n'
            f'secrets = ["file:{secret}"]\nallow_http = true\nallow_private = ["127.0.0.1"]\n'
        )

    def command(self, secret: str, idempotency_key: str = "k") -> int:
        command = {"action": "approve_kernel_proposal", "timestamp": int(time.time())}
        command |= {
            "parameters": {"proposal_id": "p"},
            "idempotency_key": idempotency_key,
        }
        body = json.dumps(command).encode()
        mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-Aion-Signature": mac}
        headers["Authorization"] = f"Bearer {self.key}"
        url = f"http://{self.http}/webhooks/inbound"
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code

    def end(self) -> None:
        if self.events:
            self.events.kill()
            self.events.wait()
        super().end()
        self.receiver.close()
        self.engine.kill()
        self.broker.stop()
