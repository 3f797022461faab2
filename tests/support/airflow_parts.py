"""Airflow as its parts, each a process that can be killed by itself, on a database of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from processes import ROOT, free_port, wait

SCRIPT = ROOT / "scripts" / "airflow"
OVER = ("success", "failed")


class Airflow:
    """API server, scheduler, reader of DAGs, triggerer."""

    PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")

    def __init__(self, folder: Path, aion: str, **settings: str) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        told = {"AIRFLOW_HOME": str(folder), "AIRFLOW_PORT": str(self.port)}
        given = {**os.environ, **told, "AION_URL": aion}
        subprocess.run([sys.executable, SCRIPT, "install"], check=True, env=given)
        shown = subprocess.check_output(
            [sys.executable, SCRIPT, "environment"], env=given
        )
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        self.bin = cache / "aion-event-streams" / "airflow" / "bin"
        path = f"{self.bin}:{os.environ['PATH']}"
        self.environment = {**given, **json.loads(shown), **settings, "PATH": path}
        self.parts: dict[str, subprocess.Popen[bytes]] = {}
        self.token, self.revived = "", 0

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "migrate.log").open("wb") as log:
            command = [self.bin / "airflow", "db", "migrate"]
            subprocess.run(
                command, check=True, env=self.environment, stdout=log, stderr=log
            )
        for part in self.PARTS:
            self.start_part(part)
        wait(self.is_healthy, "Airflow is healthy", 600)
        self.token = self.api("GET", "/auth/token")["access_token"]

    def start_part(self, part: str) -> None:
        with (self.folder / f"{part}.log").open("ab") as log:
            # A session of its own: its children end with it.
            self.parts[part] = subprocess.Popen(
                [self.bin / "airflow", part],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def revive(self) -> None:
        """Starts again what ended by itself, as whoever runs it in earnest has it done; they are counted."""
        for part, process in list(self.parts.items()):
            if process.poll() is not None:
                self.revived += 1
                self.start_part(part)

    def kill(self, part: str, how: signal.Signals = signal.SIGKILL) -> None:
        process = self.parts.pop(part)
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            pass
        process.wait(60)

    def end(self) -> None:
        for part in list(self.parts):
            self.kill(part)

    def is_healthy(self) -> bool:
        try:
            health = self.api("GET", "/api/v2/monitor/health")
        except (OSError, ValueError):
            return False
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        return all((health.get(p) or {}).get("status") == "healthy" for p in parts)

    def api(self, method: str, path: str, body: object = None):
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def is_paused(self, dag: str, paused: bool) -> None:
        """Sets it; waits for a DAG that wasn't read yet."""
        deadline = time.monotonic() + 180
        while True:
            try:
                self.api("PATCH", f"/api/v2/dags/{dag}", {"is_paused": paused})
                return
            except urllib.error.HTTPError as error:
                if error.code != 404 or time.monotonic() > deadline:
                    raise
                time.sleep(2)

    def trigger(self, dag: str, partition: str, **conf: object) -> str:
        body = {"logical_date": None, "partition_key": partition, "conf": conf}
        return self.api("POST", f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"]

    def runs(self, dag: str) -> list[dict]:
        path = f"/api/v2/dags/{dag}/dagRuns?limit=100&order_by=-run_after"
        return self.api("GET", path)["dag_runs"]

    def tasks(self, dag: str, run: str) -> list[dict]:
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances"
        return self.api("GET", path)["task_instances"]

    def states(self, dag: str, partitions: list[str]) -> dict[str, str]:
        """How the newest run of each of these partitions stands."""
        found: dict[str, str] = {}
        for run in self.runs(dag):
            if run["partition_key"] in partitions:
                found.setdefault(run["partition_key"], run["state"])
        return found

    def deferred(self, dag: str) -> int:
        """How many tasks wait in the triggerer."""
        path = f"/api/v2/dags/{dag}/dagRuns/~/taskInstances?state=deferred"
        return self.api("GET", path)["total_entries"]
