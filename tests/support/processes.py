"""The real binary as a process, and the questions that its users put to it."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def binary() -> Path:
    """The `aion` under test: $AION_BIN, else the release build of this checkout."""
    if given := os.environ.get("AION_BIN"):
        return Path(given)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "aion"


def crashing_binary() -> Path:
    """The same with its crash points in it, which the one that ships doesn't have."""
    return binary().parent / "examples" / "crashing"


# Below what the system hands out by itself (32768 and up), where a client's connection could take a port between its
# choice and its use. Each worker of a test run has ports of its own, and begins anywhere among them.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = range(12_000 + WORKER * 5_000, 17_000 + WORKER * 5_000)
NEXT_PORT = itertools.islice(itertools.cycle(PORTS), random.randrange(len(PORTS)), None)


def free_port() -> int:
    for port in NEXT_PORT:
        with socket.socket() as s:
            # As servers do: what a connection of an ended one still holds doesn't count.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait(condition, what: str, seconds: float = 120, told=lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}\n{told()[-4000:]}")
        time.sleep(0.1)


class Process:
    """One `aion` process after the other, with a log file and an HTTP address."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.http = f"127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def launch(
        self,
        *command: object,
        crash_at: str = "",
        freeze_at: str = "",
        take_out: str = "",
    ) -> None:
        """Starts it. With NAME:COUNT it dies or stands still at that visit of a crash point; a protection of
        sinks/src/lake/testing.rs can be taken out. It has a session of its own, as all that runs for long here: Linux
        shares the processors out among sessions, and threads that give way, as those of questions do, would wait for
        ever where all tests are one."""
        plan = {
            "AION_CRASH_AT": crash_at,
            "AION_FREEZE_AT": freeze_at,
            "AION_TAKE_OUT": take_out,
        }
        program = crashing_binary() if any(plan.values()) else binary()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [program, *command],
                stdout=log,
                stderr=log,
                env=os.environ | self.environment | plan,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        if self.process and self.process.poll() is not None:
            pytest.fail(f"aion ended with {self.process.returncode}:\n{self.output()}")
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def wait_ready(self, seconds: float = 60) -> None:
        def told() -> str:
            try:
                return f"{self.output()}\n/readyz: {self.get('/readyz')}"
            except OSError as cause:
                return f"{self.output()}\n/readyz: {cause}"

        wait(self.is_ready, "aion is ready", seconds, told)

    def kill(self) -> int:
        """kill -9: no chance to write anything. The exit code, which is another where it had ended by itself."""
        assert self.process
        self.process.kill()
        return self.process.wait()

    def crashed(self, seconds: float = 30) -> str:
        """Waits until it died at a crash point; that point."""
        assert self.process
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it met no crash point in {seconds} s:\n{self.output()}")
        _, _, point = self.output().rpartition("crashed at ")
        assert code == -signal.SIGABRT and point, self.output()[-4000:]
        return point.split()[0]

    def freeze(self) -> None:
        """It stands still, as a process does that gets no CPU for long."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def is_frozen(self) -> bool:
        assert self.process
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        except FileNotFoundError:
            return False
        return stat.rpartition(")")[2].split()[0] == "T"

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def stop(self, how: signal.Signals = signal.SIGINT, seconds: float = 60) -> int:
        """Asks it to stop; the exit code."""
        assert self.process
        self.process.send_signal(how)
        return self.process.wait(seconds)

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            self.thaw()
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://{self.http}{path}", timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the series of a metric that have these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series.split("{")[0] != name:
                continue
            if all(f'{label}="{wanted}"' in series for label, wanted in labels.items()):
                total += float(value)
        return total

    def memory_mib(self, what: str) -> int:
        """What the system says of its memory: `VmRSS` now, `VmHWM` the most that it was."""
        assert self.process
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0]) // 1024

    def forget_peak(self) -> None:
        """The most is reckoned from now on."""
        assert self.process
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def threads(self) -> dict[str, tuple[str, list[str]]]:
        """Of each thread, by its number: its name, and what its `stat` says from the third field on."""
        assert self.process
        found = {}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                stat = (task / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                # It ended meanwhile.
                continue
            name, fields = stat[stat.index("(") + 1 :].rsplit(")", 1)
            found[task.name] = (name, fields.split())
        return found

    def wait(self, condition, what: str, seconds: float = 120) -> None:
        wait(condition, what, seconds, self.output)


class Dev(Process):
    """One data folder and the `aion dev` processes that run on it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "dev.log")
        self.data = folder / "data"
        self.kafka = f"127.0.0.1:{free_port()}"
        self.registry = f"127.0.0.1:{free_port()}"
        self.postgres = f"127.0.0.1:{free_port()}"

    def command(self, *arguments: str) -> list[object]:
        """What it is started by."""
        addresses = ["--kafka", self.kafka, "--http", self.http]
        addresses += ["--registry", self.registry, "--postgres", self.postgres]
        if "--webhooks" not in arguments:
            addresses += ["--no-webhooks"]  # nobody listens where the sample sends
        if "--bad-share" not in arguments:
            addresses += ["--bad-share", "0"]  # what is sent is what can be counted
        return ["dev", "--data", self.data, *addresses, *arguments]

    def begin(self, *arguments: str) -> None:
        """Starts it, and waits for nothing."""
        self.launch(*self.command(*arguments))

    def start(self, *arguments: str) -> None:
        self.begin(*arguments)
        self.wait_ready()

    def refused(self, seconds: float = 30) -> tuple[int, str]:
        """Waits for the end of one that can't start: its exit code, and the last that it said."""
        assert self.process
        return self.process.wait(seconds), self.output().splitlines()[-1]

    def sql(self, query: str) -> list[dict]:
        """Rows of a query over what is stored, by `aion sql`, whether `aion dev` runs or not."""
        return sql(query, "--data", self.data, "--stored")

    def count(self, table: str) -> int:
        return self.sql(f"select count(*) as n from {table}")[0]["n"]


def sql(query: str, *where: object) -> list[dict]:
    done = subprocess.run(
        [binary(), "sql", *where, "--format", "json", query],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


class Audit:
    """What one `aion audit` said."""

    def __init__(self, *where: object) -> None:
        done = subprocess.run(
            [binary(), "audit", *map(str, where), "--json"],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.code, self.errors = done.returncode, done.stderr
        self.report = json.loads(done.stdout) if done.stdout else {}

    def partitions(self, topic: str) -> list[dict]:
        (found,) = [t for t in self.report["topics"] if t["topic"] == topic]
        return found["partitions"]

    def total(self, count: str) -> int:
        """The sum of a count over all partitions of all topics."""
        topics = self.report["topics"]
        return sum(p[count] for topic in topics for p in topic["partitions"])

    def findings(self) -> set[tuple[str, int, str, int, int]]:
        """(topic, partition, kind, first, next) of every range that is wrong."""
        return {
            (topic["topic"], partition["partition"], finding["kind"], *bounds)
            for topic in self.report["topics"]
            for partition in topic["partitions"]
            for finding in partition["findings"]
            for bounds in finding["ranges"]
        }
