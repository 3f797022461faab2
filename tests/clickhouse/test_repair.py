"""`aion clickhouse repair --yes`: several at once, and one after another that was killed."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from clickhouse.engine import Engine
from processes import binary

TRY_AGAIN = 75
HELD_S = 30
# Two batches of ten.
ROWS = (
    "INSERT INTO aion.tasks (task_id, _topic_id, _partition, _offset, _append_time, _batch_first, _batch_last,"
    " _batch_rows, _batch_day, _lease) SELECT toString(number), '00000000-0000-4000-8000-000000000001',"
    " intDiv(number, 10), number % 10, now64(6), 0, 9, 10, today(), now() + 600 FROM numbers(20)"
)


class House:
    """A database with the tables of a configuration, and whoever repairs them."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.engine, self.config = engine, folder / "aion.toml"
        self.config.write_text(
            '[kafka]\nbrokers = "127.0.0.1:9"\n'
            f'[lake]\nurl = "{folder}/unused"\n[clickhouse]\nurl = "{engine.url}"\n'
            '[[job]]\ntopic = "aion.tasks.lifecycle"\nsinks = ["clickhouse"]\n'
        )
        apply = [binary(), "clickhouse", "apply", "--config", self.config]
        subprocess.run(apply, check=True, capture_output=True, timeout=60)

    def copies(self) -> None:
        """Writes two batches, and each of them again."""
        for _ in range(2):
            self.engine.query(ROWS, insert_deduplicate=0)
        assert len(self.offsets()) == 40

    def repair(self) -> subprocess.Popen:
        return subprocess.Popen(
            [binary(), "clickhouse", "repair", "--yes", "--config", self.config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def offsets(self) -> list[list[int]]:
        sql = "SELECT _partition, _offset FROM aion.tasks ORDER BY ALL"
        return self.engine.rows(sql)


EACH_ONCE = [[partition, offset] for partition in range(2) for offset in range(10)]


@pytest.fixture
def house(tmp_path: Path):
    engine = Engine(tmp_path / "engine")
    yield House(tmp_path, engine)
    engine.kill()


def test_of_repairs_that_begin_at_once_one_works_and_the_others_say_whose_it_is(
    house: House,
):
    house.copies()
    # Longer than processes may differ in how soon they begin.
    house.engine.fault("DELETE FROM aion.tasks", "sleep_before", seconds=8)
    all_at_once = [house.repair() for _ in range(3)]
    told = {process.pid: process.communicate(timeout=60) for process in all_at_once}
    codes = sorted(process.returncode for process in all_at_once)
    assert codes == [0, TRY_AGAIN, TRY_AGAIN], told
    (worked,) = (process.pid for process in all_at_once if process.returncode == 0)
    assert "Copies are deleted" in told.pop(worked)[0]
    for _, errors in told.values():
        assert "database aion is being repaired by" in errors
        assert f"process {worked} on " in errors and "since 20" in errors, errors
    assert house.offsets() == EACH_ONCE
    # It is over with the work, not when it would be over by itself.
    last = house.repair()
    told = last.communicate(timeout=60)
    assert last.returncode == 0 and "No table has a break" in told[0], told


def test_a_repair_that_was_killed_keeps_the_next_one_out_for_half_a_minute(
    house: House,
):
    house.copies()
    house.engine.fault("DELETE FROM aion.tasks", "sleep_after", seconds=5)
    killed = house.repair()
    deadline = time.monotonic() + 60
    while len(house.offsets()) == 40:
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # Of one batch the copies are gone, and it doesn't know.
    killed.kill()
    killed.communicate()
    died = time.monotonic()
    assert len(house.offsets()) == 30
    refused = 0
    while True:
        following = house.repair()
        out, errors = following.communicate(timeout=60)
        if following.returncode != TRY_AGAIN:
            break
        refused += 1
        assert f"process {killed.pid} on " in errors, errors
        assert time.monotonic() < died + HELD_S + 15
        time.sleep(1)
    assert following.returncode == 0, errors
    assert "Copies are deleted" in out
    assert refused > 0
    assert house.offsets() == EACH_ONCE
