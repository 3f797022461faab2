"""Ten questions that people ask, over one lake, beside DuckDB and chDB on the same Parquet files.

    python benches/sql.py [--decisions 10000000] [--rounds 5] [--data DIR] [--memory-mib 4096]

Makes the lake by `aion dev` and `aion generate` (kept in --data, and taken up again), compacts it, and asks
`aion sql-server` over PostgreSQL's protocol, and the other two in this process, in turns. Answers have to be the
same, else it ends with 1. Shown is the least wall time and CPU time of the rounds, in milliseconds, and our ratio to the
better of the two. Ours and DuckDB may use --memory-mib; `sql.memory_mib` is 256 unless it is set, so `--memory-mib 256`
shows what is answered then. A question that is refused for want of memory is shown as `refused`, with the message.
Needs `pip install duckdb` beside tests/requirements.txt, and AION_BIN or target/release/aion.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import chdb.session
import duckdb
import psycopg
from deltalake import DeltaTable

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from processes import Dev, Process, binary, free_port, sql

THREADS = 2

# Name, SQL for all; where a dialect differs, `{p95}` and the like are filled in.
QUESTIONS = [
    ("rows", "select count(*) from decisions"),
    (
        "by route and tier",
        "select route, tier, count(*) from decisions group by route, tier order by 1, 2",
    ),
    (
        "p95 by minute",
        "select {minute} as m, {p95} from tasks where latency_ms is not null group by 1 order by 1",
    ),
    (
        "top errors",
        "select error_code, count(*) as n from tasks where error_code is not null group by 1 order by n desc, 1 limit 10",
    ),
    (
        "outcomes by route",
        (
            "select d.route, t.status, count(*) from decisions d join tasks t on t.task_id = d.task_id"
            " where t.status in ('succeeded', 'failed', 'cancelled') group by 1, 2 order by 1, 2"
        ),
    ),
    (
        "one task",
        "select route, reason, tier from decisions where task_id = '{task}' order by 1, 2, 3",
    ),
    (
        "last 15 minutes",
        "select route, count(*) from decisions where timestamp >= {since} group by 1 order by 1",
    ),
    ("tasks seen", "select count(distinct task_id) from decisions"),
    (
        "cost by tenant",
        "select tenant_id, count(*) as n, round(sum(cost_budget), 3) from decisions group by 1 order by n desc, 1 limit 10",
    ),
    (
        "text search",
        "select count(*) from decisions where reason like '%budget%' and intent <> 'summarize'",
    ),
]


def make(data: Path, decisions: int) -> Path:
    """A lake with so many decisions, and as many events of tasks."""
    done = data / f"made-{decisions}"
    lake = data / "data" / "lake"
    if done.exists():
        return lake
    data.mkdir(parents=True, exist_ok=True)
    dev = Dev(data)
    dev.start("--no-generator")
    for table in ["decisions", "tasks"]:
        command = [binary(), "generate", "--topic", table, "--count", str(decisions)]
        subprocess.run(
            [*command, "--to", dev.kafka], check=True, stdout=subprocess.DEVNULL
        )
        dev.wait(lambda: dev.count(table) == decisions, f"{table} are stored", 3600)  # noqa: B023
    assert dev.stop() == 0
    subprocess.run([binary(), "lake", "compact", "--data", dev.data], check=True)
    done.touch()
    return lake


class Ours:
    name = "aion"
    # Of memory, and of temporary files.
    refusals = (
        psycopg.errors.OutOfMemory,
        psycopg.errors.ConfigurationLimitExceeded,
    )

    def __init__(self, lake: Path, folder: Path, memory_mib: int) -> None:
        self.server = Process(folder / "server.log")
        port = free_port()
        config = folder / "reader.toml"
        config.write_text(
            f'lake.url = "{lake}"\nhttp.listen = "{self.server.http}"\n'
            f'sql.memory_mib = {memory_mib}\nsql.postgres.listen = "127.0.0.1:{port}"\n'
        )
        self.server.launch("sql-server", "--config", config)
        self.server.wait_ready()
        self.connection = psycopg.connect(
            f"host=127.0.0.1 port={port} user=bench dbname=aion", autocommit=True
        )

    words: ClassVar[dict[str, str]] = {
        "minute": "date_trunc('minute', timestamp)",
        "p95": "percentile_cont(0.95) within group (order by cast(latency_ms as double))",
        "since": "timestamp '{since}+00'",
    }

    def ask(self, query: str) -> list[tuple]:
        return self.connection.execute(query, binary=True).fetchall()

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.server.process.pid}/stat").read_text().split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.connection.close()
        self.server.end()


def own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Duck:
    name = "DuckDB"
    refusals = (duckdb.OutOfMemoryException,)
    words: ClassVar[dict[str, str]] = {
        "minute": "date_trunc('minute', timestamp)",
        "p95": "quantile_cont(latency_ms, 0.95)",
        "since": "timestamptz '{since}+00'",
    }

    def __init__(self, files: dict[str, list[str]], memory_mib: int) -> None:
        self.session = duckdb.connect(
            config={"threads": THREADS, "memory_limit": f"{memory_mib}MiB"}
        )
        self.session.execute("set timezone = 'UTC'")
        for table, parts in files.items():
            listed = ", ".join(f"'{part}'" for part in parts)
            self.session.execute(
                f"create view {table} as select * from read_parquet([{listed}])"
            )

    def ask(self, query: str) -> list[tuple]:
        return self.session.execute(query).fetchall()

    cpu_s = staticmethod(own_cpu_s)

    def close(self) -> None:
        self.session.close()


class Chdb:
    name = "chDB"
    # It has no bound.
    refusals = ()
    words: ClassVar[dict[str, str]] = {
        "minute": "toStartOfMinute(timestamp)",
        "p95": "quantileExactInclusive(0.95)(assumeNotNull(latency_ms))",
        "since": "toDateTime64('{since}', 6, 'UTC')",
    }

    def __init__(self, files: dict[str, list[str]]) -> None:
        self.session = chdb.session.Session()
        self.session.query("create database bench")
        for table, parts in files.items():
            # Of a path that begins with a brace it finds nothing.
            folder = os.path.commonpath([os.path.dirname(part) for part in parts])
            names = ",".join(os.path.relpath(part, folder) for part in parts)
            glob = f"{folder}/{{{names}}}"
            self.session.query(
                f"create view bench.{table} as select * from file('{glob}', Parquet)"
            )
        self.settings = (
            f" settings max_threads = {THREADS}, joined_subquery_requires_alias = 0"
        )

    def ask(self, query: str) -> list[tuple]:
        query = query.replace("from decisions", "from bench.decisions")
        query = query.replace("from tasks", "from bench.tasks")
        query = query.replace("join tasks", "join bench.tasks")
        answer = self.session.query(query + self.settings, "JSONCompact")

        return [tuple(row) for row in json.loads(str(answer))["data"]]

    cpu_s = staticmethod(own_cpu_s)

    def close(self) -> None:
        self.session.close()


def plain(rows: list[tuple]) -> list[tuple]:
    """Rows of any engine, to be compared: numbers as numbers, times as text."""

    def value(cell: object) -> object:
        if isinstance(cell, datetime):
            return cell.strftime("%Y-%m-%d %H:%M:%S")
        if isinstance(cell, str) and cell.replace(".", "", 1).isdigit():
            cell = float(cell)
        if isinstance(cell, int | float | Decimal):
            return float(cell)
        return cell

    return [tuple(value(cell) for cell in row) for row in rows]


def same(one: list[tuple], other: list[tuple]) -> bool:
    def alike(a: object, b: object) -> bool:
        if isinstance(a, float) and isinstance(b, float):
            return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-3)
        return a == b

    return len(one) == len(other) and all(
        len(a) == len(b) and all(map(alike, a, b))
        for a, b in zip(one, other, strict=True)
    )


@dataclass
class Asked:
    """One question to one engine: the least of each time, the answer of each round, and why there was none."""

    wall_s: float = math.inf
    cpu_s: float = math.inf
    answers: list[list[tuple]] = field(default_factory=list)
    refused: str = ""

    def ask(self, engine: Ours | Duck | Chdb, query: str) -> None:
        begun, used = time.perf_counter(), engine.cpu_s()
        try:
            rows = engine.ask(query)
        except engine.refusals as cause:
            self.refused = " ".join(str(cause).split())
            return
        self.wall_s = min(self.wall_s, time.perf_counter() - begun)
        self.cpu_s = min(self.cpu_s, engine.cpu_s() - used)
        self.answers.append(plain(rows))

    def cell(self) -> str:
        if self.refused:
            return "refused"
        return f"{1000 * self.wall_s:.0f} / {1000 * self.cpu_s:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--memory-mib",
        type=int,
        default=4096,
        metavar="N",
        help="memory that ours and DuckDB may use for questions, in MiB [default: 4096; 256 is what aion has unless told]",
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        lake = make(asked.data or Path(scratch) / "bench", asked.decisions)
        files = {
            table: [
                uri.removeprefix("file://")
                for uri in DeltaTable(str(lake / table)).file_uris()
            ]
            for table in ["decisions", "tasks"]
        }
        newest = sql("select max(timestamp) as t from decisions", "--lake", lake)
        since = datetime.fromisoformat(newest[0]["t"]) - timedelta(minutes=15)
        one = "select task_id from decisions order by task_id limit 1"
        task = sql(one, "--lake", lake)[0]["task_id"]
        engines = [
            Ours(lake, Path(scratch), asked.memory_mib),
            Duck(files, asked.memory_mib),
            Chdb(files),
        ]
        try:
            moment = since.strftime("%Y-%m-%d %H:%M:%S.%f")
            others = table(engines, asked.rounds, moment, task)
        finally:
            for engine in engines:
                engine.close()
    sys.exit(1 if others else 0)


def table(engines: list, rounds: int, since: str, task: str) -> int:
    """Asks, and prints a row for each question; how many answers were others than ours."""
    others = 0
    names = " | ".join(f"{engine.name} wall / CPU" for engine in engines)
    print(f"| question | {names} | wall, to the better | CPU, to the better |")
    print("|---" * (len(engines) + 3) + "|")
    for name, text in QUESTIONS:
        asked = {engine.name: Asked() for engine in engines}
        for _ in range(rounds + 1):  # the first warms up, and counts if it is the best
            for engine in engines:
                words = {k: v.format(since=since) for k, v in engine.words.items()}
                # Who refused once isn't asked again.
                if not asked[engine.name].refused:
                    asked[engine.name].ask(engine, text.format(task=task, **words))
        cells = " | ".join(each.cell() for each in asked.values())
        print(f"| {name} | {cells} | {' | '.join(ratios(asked))} |", flush=True)
        others += told(name, asked)
    return others


def ratios(asked: dict[str, Asked]) -> list[str]:
    """Our wall time and CPU time to the better of those that answered."""
    ours = asked["aion"]
    peers = [each for each in asked.values() if each is not ours and not each.refused]
    if ours.refused or not peers:
        return ["", ""]
    wall = ours.wall_s / max(min(each.wall_s for each in peers), 1e-3)
    cpu = ours.cpu_s / max(min(each.cpu_s for each in peers), 1e-3)
    return [f"{wall:.2f}", f"{cpu:.2f}"]


def told(question: str, asked: dict[str, Asked]) -> int:
    """Prints why there is no answer, and which answers aren't ours; how many aren't."""
    others = 0
    for name, each in asked.items():
        if each.refused:
            print(f"{question}: {name} refused it: {each.refused}", flush=True)
        if name == "aion":
            continue
        # Of rounds that both answered.
        for one, other in zip(asked["aion"].answers, each.answers, strict=False):
            if not same(one, other):
                what = f"has another answer: {one[:3]} {other[:3]}"
                print(f"{question}: {name} {what}", flush=True)
                others += 1
    return others


if __name__ == "__main__":
    main()
