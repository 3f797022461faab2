"""Processes that write the same topics into one ClickHouse database, and what must then be true."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

from clickhouse.engine import Engine
from processes import Dev, Process, binary

# How long a server takes what a writer sends, and a writer that oversleeps is frozen for longer.
LEASE_S = 60
TOPICS = {"tasks": "aion.tasks.lifecycle", "decisions": "aion.router.decisions"}


class Writers:
    """Processes that write the same topics to one database, each a group of its own: split brains."""

    def __init__(
        self,
        folder: Path,
        dev: Dev,
        engine: Engine,
        count: int,
        database: str = "aion",
    ) -> None:
        self.folder, self.dev, self.engine = folder, dev, engine
        self.database = database
        self.all = [Process(folder / f"run-{n}.log") for n in range(count)]
        # Those that are frozen while everybody else goes on, and when they wake.
        self.asleep: dict[int, float] = {}
        for number, process in enumerate(self.all):
            self.config(number).write_text(self.text(number, process))
        self.aion("clickhouse", "apply", "--config", str(self.config(0)))

    def config(self, number: int) -> Path:
        return self.folder / f"aion-{number}.toml"

    def text(self, number: int, process: Process) -> str:
        jobs = "".join(
            f'[[job]]\nname = "{table}-{number}"\ntopic = "{topic}"\nsinks = ["clickhouse"]\n'
            for table, topic in TOPICS.items()
        )
        return (
            f'drain_s = 10\n[kafka]\nbrokers = "{self.dev.kafka}"\n'
            # Short, so that a killed process' partitions don't wait long for the next one.
            "[kafka.properties]\n'session.timeout.ms' = 6000\n'heartbeat.interval.ms' = 500\n"
            f'[http]\nlisten = "{process.http}"\n'
            f'[lake]\nurl = "{self.folder}/unused"\n'
            f'[clickhouse]\nurl = "{self.engine.url}"\nflush_age_s = 1\n'
            f'database = "{self.database}"\n{self.account()}{jobs}'
        )

    def account(self) -> str:
        """That of a server which wants one."""
        if not (user := getattr(self.engine, "user", None)):
            return ""
        return f'user = "{user}"\npassword = "env:CLICKHOUSE_PASSWORD"\n'

    def aion(self, *arguments: str) -> str:
        done = subprocess.run(
            [binary(), *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def launch(self, number: int, **plan: str) -> None:
        self.all[number].launch("run", "--config", self.config(number), **plan)

    def disturb(
        self,
        rng: random.Random,
        kinds: tuple[str, ...] = ("writers", "engine", "frozen"),
    ) -> str:
        """Kills a writer or the engine, and starts it again; or freezes a writer for a while. Says which."""
        self.wake()
        kind = rng.choice(kinds)
        number = rng.choice([n for n in range(len(self.all)) if n not in self.asleep])
        process = self.all[number]
        if kind == "writers":
            process.kill()
            self.launch(number)
        elif kind == "engine":
            self.engine.kill()
            time.sleep(rng.uniform(0, 0.5))
            self.engine.start()
        else:
            os.kill(process.process.pid, signal.SIGSTOP)
            time.sleep(rng.uniform(0.5, 3))
            os.kill(process.process.pid, signal.SIGCONT)
        self.check_batches()
        return kind

    def oversleep(self, rng: random.Random) -> None:
        """Freezes a writer for longer than its lease, while the others go on; one at a time."""
        number = rng.randrange(len(self.all))
        os.kill(self.all[number].process.pid, signal.SIGSTOP)
        self.asleep[number] = time.monotonic() + LEASE_S + rng.uniform(1, 15)

    def wake(self, *, everybody: bool = False) -> None:
        """Those whose time has come."""
        now = time.monotonic()
        for number in [n for n, at in self.asleep.items() if everybody or at <= now]:
            os.kill(self.all[number].process.pid, signal.SIGCONT)
            del self.asleep[number]

    def end(self) -> None:
        for process in self.all:
            process.end()

    def count(self, table: str) -> int:
        return self.engine.rows(f"SELECT count() FROM {self.database}.{table}")[0][0]

    def batches(self, table: str) -> int:
        sql = f"SELECT uniqExact(_topic_id, _partition, _batch_first) FROM {self.database}.{table}"
        return self.engine.rows(sql)[0][0]

    def check(self) -> None:
        """No offset is there twice, none is left out, and batches follow on each other."""
        self.check_batches()
        for table in TOPICS:
            doubled = self.engine.rows(
                f"SELECT _topic_id, _partition, _offset FROM {self.database}.{table} GROUP BY ALL HAVING count() > 1 LIMIT 5"
            )
            assert not doubled, (table, doubled)

    def check_batches(self) -> None:
        """Each has as many rows as it says, and begins where the one before it ended."""
        for table in TOPICS:
            broken = self.engine.rows(
                "SELECT * FROM (SELECT _topic_id, _partition, _batch_first AS f, _batch_last + 1 AS e, count() AS n,"
                " max(_batch_rows) AS rows, lagInFrame(e, 1, f) OVER (PARTITION BY _topic_id, _partition ORDER BY f) AS before"
                f" FROM {self.database}.{table} GROUP BY _topic_id, _partition, _batch_first, _batch_last)"
                " WHERE f != before OR n != rows LIMIT 5"
            )
            assert not broken, (table, broken)

    def wait_for_all(self) -> None:
        """Everything that the undisturbed lake has is there, and nothing else."""

        def is_there() -> bool:
            # The lake may have to catch up itself.
            return all(
                self.count(table) == self.dev.count(table) > 0 for table in TOPICS
            )

        # A token without its part is passed once its lease and time have run out: two minutes.
        self.all[0].wait(is_there, "all is stored", 200)
        self.check()
