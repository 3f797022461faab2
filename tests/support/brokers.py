"""Brokers that let everybody in, as a place of tests needs them; the embedded one as a process of its own."""

from __future__ import annotations

import subprocess
from functools import cached_property
from pathlib import Path

from confluent_kafka.admin import AdminClient
from processes import binary, free_port


class Brokers:
    """Whoever listens at an address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def client(self, _account: str, **settings: object) -> dict:
        """Settings of a client of confluent-kafka; `__` stands for a dot."""
        named = {name.replace("__", "."): value for name, value in settings.items()}
        return {"bootstrap.servers": self.address} | named

    @cached_property
    def admin(self) -> AdminClient:
        """Kept: a request dies with its client."""
        return AdminClient(self.client("admin"))

    def brokers(self, account: str = "admin") -> str:
        return self.client(account)["bootstrap.servers"]

    def bootstrap(self, *arguments: object, account: str = "admin"):
        """Runs `aion bootstrap`; what it printed, and its exit code."""
        where = self.bootstrap_arguments(account)
        return subprocess.run(
            [binary(), "bootstrap", *where, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def bootstrap_arguments(self, account: str) -> list[object]:
        return ["--brokers", self.brokers(account), "--no-access-rules"]


class Embedded(Brokers):
    """The embedded broker, which outlives the processes that read from it, and can be killed as well."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"127.0.0.1:{free_port()}")
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = binary().parent / "examples" / "broker"
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, self.folder / "data", self.address],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.process.stdout
        # The address, once it listens.
        line = self.process.stdout.readline()
        assert line, (self.folder / "broker.log").read_text()

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.kill()
