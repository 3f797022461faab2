"""A topic that lands in the lake and in ClickHouse by the same processes, and what must then be true of both."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

from brokers import Brokers
from clickhouse.engine import Engine
from cluster import Place
from processes import binary


class BothStores(Place):
    """As a place, with a ClickHouse that may be killed as well."""

    # What the dead have in their hands is waited for until its lease and its time are over: two minutes.
    patience_s = 300

    def __init__(
        self, cluster: Brokers, folder: Path, topic: str, engine: Engine, **settings
    ) -> None:
        super().__init__(cluster, folder, topic, **settings)
        self.engine = engine
        self.more = f'[clickhouse]\nurl = "{engine.url}"\nflush_age_s = 1\n'

    def bootstrap(self, *arguments: object) -> None:
        super().bootstrap(*arguments)
        config = self.config("apply", "pipeline", "", {})
        apply = [binary(), "clickhouse", "apply", "--config", config]
        done = subprocess.run(apply, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def in_house(self) -> Counter:
        """How often each (topic id, partition, offset) is in ClickHouse."""
        columns = "toString(_topic_id), _partition, _offset"
        rows = self.engine.rows(f"SELECT {columns} FROM aion.{self.table}")
        return Counter(map(tuple, rows))

    def landed(self) -> bool:
        return super().landed() and len(self.in_house()) >= len(self.stored())

    def check(self) -> None:
        super().check()
        in_house, in_lake = self.in_house(), self.stored()
        assert in_house == in_lake, (in_house - in_lake, in_lake - in_house)
