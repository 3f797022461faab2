"""Starts the real binary for the tests, and asks it questions the way its users do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def binary() -> Path:
    """The `aion` under test: $AION_BIN, else the release build of this checkout."""
    if given := os.environ.get("AION_BIN"):
        return Path(given)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "aion"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Dev:
    """One data folder and the `aion dev` processes that run on it, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.log = folder / "dev.log"
        self.kafka = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        command = [
            binary(),
            "dev",
            "--data",
            self.data,
            "--kafka",
            self.kafka,
            "--http",
            self.http,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], stdout=log, stderr=log
            )
        self.wait_ready()

    def wait_ready(self, seconds: float = 60) -> None:
        def ready() -> bool:
            if self.process and self.process.poll() is not None:
                pytest.fail(
                    f"aion dev ended with {self.process.returncode}:\n{self.output()}"
                )
            try:
                return self.get("/readyz")[0] == 200
            except OSError:
                return False

        self.wait(ready, "aion dev is ready", seconds)

    def kill(self) -> None:
        """kill -9: no chance to write anything."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 60) -> int:
        """Ctrl-C, and the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://{self.http}{path}", timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()

    def sql(self, query: str) -> list[dict]:
        """Rows of a query by `aion sql`, whether `aion dev` runs or not."""
        done = subprocess.run(
            [binary(), "sql", "--data", self.data, "--format", "json", query],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def count(self, table: str) -> int:
        return self.sql(f"select count(*) as n from {table}")[0]["n"]

    def wait(self, condition, what: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds} s: {what}\n{self.output()[-4000:]}")
            time.sleep(0.2)


@pytest.fixture
def dev(tmp_path: Path):
    dev = Dev(tmp_path)
    yield dev
    if dev.process and dev.process.poll() is None:
        dev.kill()
