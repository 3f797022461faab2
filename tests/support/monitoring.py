"""Prometheus and Alertmanager as processes of a test's own, and what a page of series says."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from processes import free_port, wait


def promtool(
    *arguments: object, text: str | None = None
) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["promtool", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def samples(page: str) -> dict[str, float]:
    """The value of each series of a page in Prometheus' text format."""
    lines = [line for line in page.splitlines() if line and not line.startswith("#")]
    pairs = [line.rpartition(" ") for line in lines]
    return {series: float(value) for series, _, value in pairs}


class Server:
    """A program that answers over HTTP."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder, self.program = folder, program
        self.address = f"127.0.0.1:{free_port()}"
        self.log = folder / f"{program}.log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def launch(self, *arguments: object) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, *arguments],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait(self.is_ready, f"{self.program} is ready", 30, self.output)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def get(self, path: str, **parameters: object) -> object:
        query = urllib.parse.urlencode(parameters)
        url = f"http://{self.address}{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as answer:
            return json.load(answer)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Prometheus(Server):
    """Scrapes once a second what the configuration says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "prometheus")

    def start(self, config: str) -> None:
        file = self.folder / "prometheus.yml"
        file.write_text(config)
        self.launch(
            f"--config.file={file}",
            f"--storage.tsdb.path={self.folder / 'tsdb'}",
            f"--web.listen-address={self.address}",
            "--log.level=warn",
        )

    def query(self, expression: str) -> list[dict]:
        answer = self.get("/api/v1/query", query=expression)
        assert answer["status"] == "success", (expression, answer)
        return answer["data"]["result"]

    def value(self, expression: str) -> float | None:
        """The value of an expression that has one series; none when it has none."""
        found = self.query(expression)
        assert len(found) < 2, (expression, found)
        return float(found[0]["value"][1]) if found else None


def scrape_config(
    addresses: list[str],
    paths: tuple[str, ...] = ("/metrics/platform",),
    every: str = "1s",
) -> str:
    """A configuration that scrapes these pages of these processes so often; a page may take as long to come."""
    jobs = [
        {
            "job_name": "aion" + path.removeprefix("/metrics").replace("/", "-"),
            "metrics_path": path,
            "static_configs": [{"targets": addresses}],
        }
        for path in paths
    ]
    whole = {
        "global": {"scrape_interval": every, "evaluation_interval": "1s"},
        "scrape_configs": jobs,
    }
    return json.dumps(whole)  # JSON is YAML
