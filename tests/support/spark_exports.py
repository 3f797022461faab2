"""Exports by Spark on a cluster of this machine, held against those that the pipeline makes itself: `scripts/soak
spark-exports`."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from clickhouse.engine import Engine
from dag_runs import DagRuns
from processes import ROOT, Dev, binary, free_port, wait

DATASETS = ("decisions", "router_training")
BEGIN = datetime.datetime(2026, 3, 14, tzinfo=datetime.UTC)


def spark_home() -> Path:
    """Of the newest set-up by scripts/spark, which makes it where there is none."""
    subprocess.run(
        [ROOT / "scripts" / "spark", "export.py", "--help"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    done = (cache / "aion-event-streams").glob("spark-*/done")
    newest = max(done, key=lambda file: file.stat().st_mtime)
    (home,) = newest.parent.glob("venv/lib/python*/site-packages/pyspark")
    return home


class Cluster:
    """A master and two workers, of one core each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, spark_home()
        folder.mkdir()
        self.port = free_port()
        self.url = f"spark://127.0.0.1:{self.port}"
        self.parts: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        where = ["--host", "127.0.0.1", "--webui-port", str(free_port())]
        self.launch("master.Master", "--port", str(self.port), *where)
        wait(self.is_up, "Spark's master is up", 120)
        for _ in range(2):
            size = ["--cores", "1", "--memory", "2g"]
            where = ["--host", "127.0.0.1", "--webui-port", str(free_port())]
            work = ["--work-dir", str(self.folder / "work")]
            self.launch("worker.Worker", *size, *where, *work, self.url)

    def launch(self, part: str, *arguments: str) -> None:
        with (self.folder / f"{part}-{len(self.parts)}.log").open("wb") as log:
            self.parts.append(
                subprocess.Popen(
                    [self.home / "bin" / "spark-class"]
                    + [f"org.apache.spark.deploy.{part}", *arguments],
                    env={**os.environ, "SPARK_HOME": str(self.home)},
                    stdout=log,
                    stderr=log,
                )
            )

    def is_up(self) -> bool:
        log = self.folder / "master.Master-0.log"
        return "Starting Spark master" in log.read_text(errors="replace")

    def executors(self) -> list[int]:
        """The processes that our workers have started."""
        ours = {part.pid for part in self.parts}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int(
                    (folder / "stat").read_text().rpartition(")")[2].split()[1]
                )
                command = (folder / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent in ours and b"CoarseGrainedExecutorBackend" in command:
                found.append(int(folder.name))
        return found

    def end(self) -> None:
        for part in reversed(self.parts):
            part.terminate()
        for part in self.parts:
            try:
                part.wait(30)
            except subprocess.TimeoutExpired:
                part.kill()


class Exports:
    """Events in lake and ClickHouse, and exports of them by three engines."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.killed = folder, 0
        self.engine = Engine(folder / "engine")
        self.dev = Dev(folder)
        self.cluster = Cluster(folder / "spark")

    def fill(self, events: int) -> None:
        self.dev.start("--no-generator", "--clickhouse", self.engine.url)
        command = [binary(), "generate", "--start", BEGIN.isoformat()]
        topics = ["--topic", "decisions", "--topic", "tasks"]
        command += [*topics, "--count", str(events), "--to", self.dev.kafka]
        subprocess.run(command, check=True)
        self.sent = datetime.datetime.now(datetime.UTC)
        lag = "select sum(lag) as n from lag"
        self.dev.wait(lambda: self.dev.sql(lag)[0]["n"] == 0, "all is in the lake", 600)
        # 200 a second in their own times.
        self.end_at = BEGIN + datetime.timedelta(seconds=events // 200 - 600)
        self.cluster.start()

    def request(self, dataset: str) -> dict:
        body = {"dataset": dataset, "wait_for_close": True, "lateness_s": 0}
        body["interval"] = {
            "start": BEGIN.isoformat(),
            "end": self.end_at.isoformat(),
        }
        horizon = 0
        if dataset == "router_training":
            horizon = body["horizon_s"] = 600
        end = self.end_at + datetime.timedelta(seconds=horizon)
        body["lateness_s"] = int((self.sent - end).total_seconds()) + 1
        return body

    def compare(self, dataset: str) -> int:
        """Makes it by all three; the rows that each of them has."""
        body = self.request(dataset)
        ours = self.by_pipeline(body)
        # Of another store: another export only if something else is asked for.
        other = {**body, "lateness_s": body["lateness_s"] + 1}
        house = self.by_pipeline({**other, "source": "clickhouse"})
        theirs = self.by_spark({k: v for k, v in body.items() if k != "wait_for_close"})
        assert theirs["id"] == ours["id"]
        three = {(one["rows"], one["digest"]) for one in (ours, house, theirs)}
        assert len(three) == 1 and ours["rows"] > 0, three
        for source in ("lake", "clickhouse"):
            self.prove(theirs["manifest_uri"], source)
        self.read_by_spark(ours["manifest_uri"])
        print(f"{dataset}: {ours['rows']:,} rows, digest {ours['digest']}", flush=True)
        return ours["rows"]

    def compare_by_dag(self) -> None:
        """The DAG that has Spark make an export, beside the pipeline's own of that interval."""
        minutes = int((self.end_at - BEGIN).total_seconds()) // 60
        self.end_at = BEGIN + datetime.timedelta(minutes=minutes)
        body = self.request("decisions")
        airflow = DagRuns(
            self.folder / "airflow",
            AION_URL=f"http://{self.dev.http}",
            SPARK_MASTER=self.cluster.url,
        )
        told = airflow.test(
            "aion_from_spark",
            partition=BEGIN.strftime("%Y-%m-%dT%H:%M:%S"),
            minutes=minutes,
            lateness_s=body["lateness_s"],
            out=str(self.folder / "out-by-dag"),
        )["decisions"]
        ours = self.by_pipeline(body)
        for name in ("id", "rows", "digest"):
            assert told[name] == ours[name], (told, ours)
        print(f"by the DAG: {told['rows']:,} rows, digest {told['digest']}", flush=True)

    def by_pipeline(self, body: dict) -> dict:
        url = f"http://{self.dev.http}/v1/exports"
        call = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(call, timeout=60) as answer:
            id_ = json.load(answer)["id"]
        for _ in range(30):
            with urllib.request.urlopen(f"{url}/{id_}?wait=30", timeout=60) as answer:
                status = json.load(answer)
            if status["state"] not in ("queued", "running"):
                break
        assert status["state"] == "succeeded", status
        return status

    def by_spark(self, body: dict) -> dict:
        """On the cluster, one of whose executors is killed while it writes."""
        out = self.folder / "out"
        command = [ROOT / "scripts" / "spark", "export.py", "--out", out]
        command += ["--url", f"http://{self.dev.http}", "--request", json.dumps(body)]
        job = subprocess.Popen(
            command,
            env={**os.environ, "SPARK_MASTER": self.cluster.url},
            stdout=subprocess.PIPE,
            text=True,
        )
        home = out / body["dataset"]

        def is_writing() -> bool:
            assert job.poll() is None, "it ended before it was killed"
            return any(home.glob("*/*/data/_temporary/0/*/*/*.parquet"))

        wait(is_writing, "Spark writes", 600)
        victim = self.cluster.executors()[0]
        os.kill(victim, signal.SIGKILL)
        self.killed += 1
        told, _ = job.communicate(timeout=1200)
        assert job.returncode == 0
        time.sleep(1)
        return json.loads(told.splitlines()[-1])

    def read_by_spark(self, manifest: str) -> None:
        """What the pipeline wrote, read by Spark: it fails where rows or digest are others."""
        command = [ROOT / "scripts" / "spark", "read_export.py", manifest]
        subprocess.run(
            command, check=True, env={**os.environ, "SPARK_MASTER": self.cluster.url}
        )

    def prove(self, manifest: str, source: str) -> None:
        config = self.folder / "aion.toml"
        config.write_text(
            f'[kafka]\nbrokers = "{self.dev.kafka}"\n'
            f'[lake]\nurl = "{self.dev.data / "lake"}"\n'
            f'[clickhouse]\nurl = "{self.engine.url}"\n'
        )
        path = manifest.removeprefix("file://").removeprefix("file:")
        command = [binary(), "export", "verify", path, "--config", config]
        subprocess.run([*command, "--source", source], check=True)

    def end(self) -> None:
        self.cluster.end()
        self.dev.end()
        self.engine.kill()
