"""Runs of DAGs as `airflow dags test` makes them: one at a time, in one process, by the Airflow that scripts/airflow installs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from processes import ROOT

SCRIPT = ROOT / "scripts" / "airflow"


class DagRuns:
    """An Airflow with a database of its own and no scheduler."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.more = {"AIRFLOW_HOME": str(folder), **more}
        told = self.script("environment")
        self.environment = {**os.environ, **json.loads(told)}
        self.python = Path(self.script_venv()) / "bin" / "python"
        self.run([self.python.parent / "airflow", "db", "migrate"])

    def script(self, *arguments: str) -> str:
        return self.run(
            [sys.executable, SCRIPT, *arguments], {**os.environ, **self.more}
        )

    def script_venv(self) -> Path:
        self.script("install")
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        return cache / "aion-event-streams" / "airflow"

    def run(
        self, command: list[object], environment: dict[str, str] | None = None
    ) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            check=False,
            capture_output=True,
            text=True,
            env=environment or self.environment,
            timeout=400,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.stdout

    def told(self, program: str, *arguments: object) -> dict:
        """What a program beside this file prints last, by Airflow's Python."""
        file = ROOT / "tests" / "dags" / program
        return json.loads(self.run([self.python, file, *arguments]).splitlines()[-1])

    def driver(self, *arguments: object) -> dict:
        return self.told("driver.py", *arguments)

    def test(self, dag: str, **conf: object) -> dict[str, dict]:
        """The tasks of a run; each must have succeeded, at its first try."""
        told = self.driver(dag, json.dumps(conf))
        states = {name: task["state"] for name, task in told["tasks"].items()}
        assert states and set(states.values()) == {"success"}, told
        return {name: task.get("result") for name, task in told["tasks"].items()}
