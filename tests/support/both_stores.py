"""A topic that lands in the lake and in ClickHouse by the same processes, and what must then be true of both."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

from brokers import Brokers
from clickhouse.engine import Engine
from cluster import Place
from deltalake import DeltaTable
from processes import Process, binary

# Where nothing is said of jobs, each topic has one for each store.
BY_ONE_JOB = """
[[job]]
topic = "{topic}"
sinks = ["lake", "clickhouse"]
[[job]]
topic = "aion.dead-letters"
sinks = ["lake"]
"""

# What a process says of rows of which ClickHouse, killed between the two, kept the token and not the part.
WAITS = re.compile(r"insert into .* under another token in (\d+) s")


class BothStores(Place):
    """As a place, with a ClickHouse that may be killed as well."""

    # What the dead have in their hands is waited for until its lease and its time are over: two minutes.
    patience_s = 300
    # Whether the clock is put ahead in place of that, once nobody else is alive who could send it.
    is_in_haste = False
    a_second = 1000

    def __init__(
        self,
        cluster: Brokers,
        folder: Path,
        topic: str,
        engine: Engine,
        *,
        by_one_job: bool = False,
        **settings,
    ) -> None:
        super().__init__(cluster, folder, topic, **settings)
        self.engine = engine
        self.passed: set[str] = set()
        self.more = f'[clickhouse]\nurl = "{engine.url}"\nflush_age_s = 1\n'
        if by_one_job:
            self.more += BY_ONE_JOB.format(topic=topic)

    def bootstrap(self, *arguments: object) -> None:
        super().bootstrap(*arguments)
        config = self.config("apply", "pipeline", "", {})
        apply = [binary(), "clickhouse", "apply", "--config", config]
        done = subprocess.run(apply, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def is_at_rest(self, run: Process) -> bool:
        if self.is_in_haste:
            for waits in WAITS.finditer(run.get("/readyz")[1]):
                # It is said until the next try: each second once.
                if waits[0] not in self.passed:
                    self.passed.add(waits[0])
                    self.engine.put_clock_ahead(int(waits[1]))
        return super().is_at_rest(run)

    def in_house(self) -> Counter:
        """How often each (topic id, partition, offset) is in ClickHouse."""
        # A row for each partition: as JSON of a million rows it would take several times as long.
        columns = "toString(_topic_id), _partition, groupArray(_offset)"
        rows = self.engine.rows(
            f"SELECT {columns} FROM aion.{self.table} GROUP BY _topic_id, _partition"
        )
        return Counter(
            (topic_id, partition, offset)
            for topic_id, partition, offsets in rows
            for offset in offsets
        )

    def landed(self) -> bool:
        """By counts, which are asked for again and again: what they are of is looked at once, by the check."""
        lake = DeltaTable(f"{self.lake}/{self.table}").to_pyarrow_dataset().count_rows()
        ((house,),) = self.engine.rows(f"SELECT count() FROM aion.{self.table}")
        return lake + len(self.rejected()) >= self.sent and house >= lake

    def compare(self, stored: Counter) -> None:
        in_house = self.in_house()
        assert in_house == stored, (in_house - stored, stored - in_house)
