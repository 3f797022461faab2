"""`aion lake` beside a running `aion dev`: killed, twice at once, and beside another maker's optimizer."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
from pathlib import Path

import polars
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from offsets import stored
from processes import Dev, binary


def lake(dev: Dev, *arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [binary(), "lake", *arguments, "--data", dev.data],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def status(dev: Dev) -> dict[str, dict]:
    lines = lake(dev, "status", "--json").stdout.splitlines()
    return {found["table"]: found for found in map(json.loads, lines)}


def check(dev: Dev, table: str) -> int:
    """Every offset below that of the last row is there once. How many rows there are."""
    return sum(stored(dev, table).values())


@pytest.fixture
def dev(tmp_path: Path):
    dev = Dev(tmp_path)
    dev.start("--rate", "2000")
    yield dev
    dev.end()


def test_upkeep_beside_writers(dev: Dev):
    seed = random.randrange(2**31)
    print("seed", seed)
    rng = random.Random(seed)
    table = dev.data / "lake" / "tasks"
    dev.wait(lambda: dev.count("tasks") > 0, "rows are in the lake")
    # Killed wherever it is, and two at once.
    for _ in range(6):
        compactors = [
            subprocess.Popen(
                [binary(), "lake", "compact", "--min-files", "2", "--data", dev.data]
            )
            for _ in range(2)
        ]
        time.sleep(rng.uniform(0.01, 0.4))
        compactors[0].kill()
        assert compactors[1].wait(60) == 0
        compactors[0].wait()
        try:
            DeltaTable(table).optimize.compact()
        except DeltaError as lost_the_race:
            print(lost_the_race)
        check(dev, "tasks")
        time.sleep(0.5)
    assert dev.stop() == 0
    rows = check(dev, "tasks")
    lake(dev, "compact", "--min-files", "2")
    assert check(dev, "tasks") == rows
    found = status(dev)["tasks"]
    assert found["rows"] == rows and found["files"] == 1, found
    # Nothing is old enough to go, and the whole history is still there.
    assert "0 files" in lake(dev, "vacuum", "--table", "tasks").stdout
    assert DeltaTable(table, version=1).to_pyarrow_table().num_rows >= 0
    lake(dev, "checkpoint")
    assert status(dev)["tasks"]["checkpoint"] == found["version"]
    # It goes on where it was.
    dev.start("--rate", "2000")
    dev.wait(lambda: dev.count("tasks") > rows, "rows go on coming")
    assert dev.stop() == 0
    check(dev, "tasks")


def test_retention_by_event_date(dev: Dev):
    dev.wait(lambda: dev.count("metrics") > 0, "rows are in the lake")
    assert dev.stop() == 0
    rows = dev.count("metrics")
    lake(dev, "retention", "--keep-days", "3", "--table", "metrics")
    assert dev.count("metrics") == rows, "they are of today"
    dates = status(dev)["metrics"]
    assert dates["first_date"] and dates["rows"] == rows


def age(table: Path, seconds: int) -> None:
    """As if everything in a table had been done so much earlier, but for its last entry's being written: the youngest file
    tells what time it is."""
    for entry in table.glob("_delta_log/*.json"):
        earlier = re.sub(
            r'(?<="deletionTimestamp":)\d+',
            lambda found: str(int(found[0]) - 1000 * seconds),
            entry.read_text(),
        )
        entry.write_text(earlier)
    then = time.time() - seconds
    for file in table.rglob("*"):
        os.utime(file, (then, then))
    max(table.glob("_delta_log/*.json")).touch()


def test_who_reads_what_is_gone_gets_an_error_and_not_fewer_rows(dev: Dev):
    table = dev.data / "lake" / "tasks"
    dev.wait(lambda: len(list(table.rglob("*.parquet"))) > 2, "there are some files")
    assert dev.stop() == 0
    rows = check(dev, "tasks")
    old = DeltaTable(table)
    lazy = polars.scan_delta(old)
    assert old.to_pyarrow_table().num_rows == rows
    lake(dev, "compact", "--min-files", "2", "--table", "tasks")
    assert old.to_pyarrow_table().num_rows == rows, "its files are kept for a week"
    age(table, 8 * 86_400)
    vacuumed = lake(dev, "vacuum", "--table", "tasks").stdout
    assert "0 files" not in vacuumed, vacuumed
    for read in (old.to_pyarrow_table, lazy.collect):
        with pytest.raises((OSError, polars.exceptions.ComputeError)):
            read()
    assert check(dev, "tasks") == rows, "whoever looks anew has all"
    (file,) = table.rglob("*.parquet")
    file.unlink()
    asked = [binary(), "sql", "--data", dev.data, "select count(task_id) from tasks"]
    done = subprocess.run(asked, check=False, capture_output=True, text=True)
    assert done.returncode != 0 and file.name in done.stderr, done


def test_a_table_that_is_not_there(dev: Dev):
    def refused(*arguments: object) -> tuple[int, str]:
        done = subprocess.run(
            [binary(), "lake", *arguments], check=False, capture_output=True, text=True
        )
        return done.returncode, done.stderr

    code, said = refused("status", "--table", "decision", "--data", dev.data)
    assert code == 2 and "decisions" in said
    code, said = refused("compact", "--data", dev.data / "nothing")
    assert code == 3 and "there is no lake at" in said
