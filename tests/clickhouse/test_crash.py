"""`aion run` into ClickHouse: killed, split in three, frozen, with the engine killed under it."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import time
import urllib.error
from pathlib import Path

import pytest
from clickhouse.engine import Engine
from clickhouse.writers import Writers
from processes import Dev, binary

# What a constraint refuses, which here is `lease`.
LEASE_IS_OVER = 469


@pytest.fixture
def dev(tmp_path: Path):
    """Its broker is used, and its own lake, which nobody kills, to compare with."""
    dev = Dev(tmp_path)
    dev.start("--rate", "500")
    yield dev
    dev.end()


@pytest.fixture
def engine(tmp_path: Path):
    engine = Engine(tmp_path / "engine")
    yield engine
    engine.kill()


@pytest.fixture
def writers(tmp_path: Path, dev: Dev, engine: Engine, request: pytest.FixtureRequest):
    writers = Writers(tmp_path, dev, engine, getattr(request, "param", 1))
    yield writers
    writers.end()


def no_more_events(dev: Dev) -> None:
    assert dev.stop() == 0
    dev.start("--no-generator")


def test_kills_of_process_and_engine(writers: Writers, dev: Dev, engine: Engine):
    seed = random.randrange(2**31)
    print("seed", seed)
    rng = random.Random(seed)
    for kill in ["process", "engine", "both", "process", "engine"]:
        writers.launch(0)
        writers.all[0].wait_ready()
        time.sleep(rng.uniform(2, 4))
        if kill != "process":
            engine.kill()
            time.sleep(rng.uniform(0, 0.5))
        if kill != "engine":
            writers.all[0].kill()
        if kill != "process":
            engine.start()
        if kill == "engine":
            time.sleep(rng.uniform(1, 3))
            writers.all[0].kill()
        writers.check()
    no_more_events(dev)
    writers.launch(0)
    writers.wait_for_all()
    assert writers.all[0].stop() == 0


@pytest.mark.parametrize("writers", [3], indirect=True)
def test_three_split_brains_killed_and_frozen(
    writers: Writers, dev: Dev, engine: Engine
):
    seed = random.randrange(2**31)
    print("seed", seed)
    rng = random.Random(seed)
    for number in range(3):
        writers.launch(number)
    for _ in range(12):
        time.sleep(rng.uniform(0.5, 2))
        writers.disturb(rng)
    no_more_events(dev)
    writers.wait_for_all()
    assert all(process.stop() == 0 for process in writers.all)
    writers.check()


@pytest.mark.parametrize(
    "point", ["clickhouse.before_insert", "clickhouse.after_insert"]
)
def test_the_process_dies_at_a_named_point(
    writers: Writers, dev: Dev, engine: Engine, point: str
):
    for visit in (1, 2, 4):
        writers.launch(0, crash_at=f"{point}:{visit}")
        assert writers.all[0].crashed(60) == point
        writers.check()
    no_more_events(dev)
    writers.launch(0)
    writers.wait_for_all()
    assert writers.all[0].stop() == 0


def test_the_engine_dies_in_the_middle_of_an_insert(
    writers: Writers, dev: Dev, engine: Engine
):
    """It has the rows, and dies before it says so; or has not begun."""
    writers.launch(0)
    writers.all[0].wait_ready()
    for kind in ["sleep_after", "sleep_before", "sleep_after"]:
        engine.fault(r"INSERT INTO aion\.(tasks|decisions) ", kind, seconds=30)
        writers.all[0].wait(lambda: engine.met() == 1, f"an INSERT meets {kind}", 60)
        engine.kill()
        engine.start()
        writers.check()
    no_more_events(dev)
    writers.wait_for_all()
    assert writers.all[0].stop() == 0


@pytest.mark.parametrize("writers", [2], indirect=True)
def test_a_writer_that_stands_before_its_insert_for_long_lands_nothing(
    writers: Writers, dev: Dev, engine: Engine
):
    """Frozen with stamped rows in its hands; the table has forgotten their token when it wakes, and takes no lease that
    old."""
    writers.launch(0, freeze_at="clickhouse.before_insert:3")
    frozen = writers.all[0]
    frozen.wait(frozen.is_frozen, "it stands", 60)
    stood = time.monotonic()
    writers.launch(1)
    other = writers.all[1]
    before = writers.batches("tasks")
    other.wait(lambda: writers.batches("tasks") > before + 2, "the other goes on", 60)
    # A smaller window forgets at once (test_engine.py); for what comes, when two are awake, it is again what the
    # sink asks for.
    for tokens in (1, 10_000):
        for table in ("tasks", "decisions"):
            setting = f"non_replicated_deduplication_window = {tokens}"
            engine.query(f"ALTER TABLE aion.{table} MODIFY SETTING {setting}")
    # Who goes on has leases that become old as well: what is refused now is the sleeper's.
    other.freeze()
    # Of the minute that a lease has from the look before it, fifty seconds are over sooner: nobody has to wait for them.
    lease_ends(engine, 50)
    time.sleep(max(1, stood + 12 - time.monotonic()))
    before = engine.refusals(LEASE_IS_OVER)
    frozen.thaw()
    frozen.wait(
        lambda: engine.refusals(LEASE_IS_OVER) > before, "its INSERT is refused", 30
    )
    # It may have had several in its hands.
    time.sleep(5)
    lease_ends(engine, 0)
    other.thaw()
    writers.check()
    no_more_events(dev)
    writers.wait_for_all()


def lease_ends(engine: Engine, sooner_s: int) -> None:
    """By so many seconds, in both tables."""
    after = f"now() + {sooner_s}" if sooner_s else "now()"
    lease = f"DROP CONSTRAINT lease, ADD CONSTRAINT lease CHECK _lease > {after}"
    for table in ("tasks", "decisions"):
        engine.query(f"ALTER TABLE aion.{table} {lease}")


def test_apply_makes_the_tables_and_says_so(writers: Writers, engine: Engine):
    config = str(writers.config(0))
    told = writers.aion("clickhouse", "apply", "--config", config)
    assert told == "database aion is as the contract wants it\n"
    engine.query("ALTER TABLE aion.tasks DROP COLUMN error_code")
    engine.query(
        "ALTER TABLE aion.audit MODIFY TTL toDateTime(_append_time) + toIntervalDay(3)"
    )
    told = writers.aion("clickhouse", "plan", "--config", config)
    assert "+ tasks: column error_code is missing\n" in told
    assert (
        "! audit: rows are kept 3 days, and would be kept 30 days; by hand: ALTER"
        in told
    )
    told = writers.aion("clickhouse", "apply", "--config", config)
    assert "added  tasks: column error_code is missing\n" in told
    assert "error_code" not in writers.aion("clickhouse", "plan", "--config", config)


def test_a_table_that_cant_give_the_guarantee_stops_its_job_unless_less_is_asked_for(
    writers: Writers, engine: Engine
):
    engine.query("ALTER TABLE aion.tasks DROP CONSTRAINT lease")
    engine.query("ALTER TABLE aion.decisions DROP CONSTRAINT lease")
    writers.launch(0)
    run = writers.all[0]
    assert run.process.wait(60) == 6, run.output()
    assert "it has no constraint lease" in run.output()
    assert "aion clickhouse plan" in run.output()
    assert 'guarantee = "at_least_once"' in run.output()
    config = writers.config(0)
    less = '\nguarantee = "at_least_once"\ndatabase = '
    config.write_text(config.read_text().replace("\ndatabase = ", less, 1))
    told = writers.aion("validate", "--connect", "--config", str(config))
    assert "at least once: " in told, told
    assert "it has no constraint lease" in told, told
    writers.launch(0)
    run.wait(lambda: writers.count("tasks") > 0, "rows land all the same", 60)
    assert run.stop() == 0
    writers.check()


def test_a_clock_that_is_far_off_is_told_at_the_start_and_stops_nobody(
    writers: Writers, engine: Engine
):
    an_hour_ahead = f"[{int(time.time()) + 3600}]\n"
    engine.fault(r"^SELECT toUnixTimestamp\(now\(\)\)$", "answer", text=an_hour_ahead)
    writers.launch(0)
    run = writers.all[0]
    run.wait(lambda: writers.count("tasks") > 0, "rows land", 60)
    run.wait(lambda: writers.count("decisions") > 0, "of both topics", 60)
    told = re.findall(r"its clock is (\d+) s ahead of this machine's", run.output())
    assert len(told) == 1, "of one table; that of the other is well"
    assert 3500 < int(told[0]) <= 3600, told
    assert run.stop() == 0


def test_a_server_that_is_down_delays_only_its_own_job(
    tmp_path: Path, writers: Writers, dev: Dev, engine: Engine
):
    """Also when it has been down for so long that its jobs hold all the memory that they may."""
    config = writers.config(0)
    both = config.read_text() + (
        '[[job]]\ntopic = "aion.tasks.lifecycle"\nsinks = ["lake"]\n'
        "[memory]\nbudget_mib = 16\n"
    )
    config.write_text(both.replace('/unused"', '/lake"\nflush_age_s = 1'))
    writers.launch(0)
    run = writers.all[0]
    run.wait(lambda: writers.count("tasks") > 0, "ClickHouse has rows", 60)
    engine.kill()
    command = [binary(), "generate", "--topic", "tasks", "--topic", "decisions"]
    subprocess.run([*command, "--count", "60000", "--to", dev.kafka], check=True)

    def stored() -> bool:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return run.metric("aion_rows_stored_total", job="tasks-lake") > 40_000
        return False

    run.wait(stored, "the lake's job goes on", 60)
    held = run.metric("aion_memory_held_bytes", part="clickhouse")
    assert held > 1 << 20, "rows for ClickHouse wait"
    bounds = [
        run.metric("aion_memory_budget_bytes", part=part)
        for part in ("clickhouse", "others")
    ]
    assert bounds == [3 << 19] * 2, "each has half of three sixteenths of 16 MiB"
    assert run.get("/readyz")[0] == 503, "the other ones don't"
    engine.start()
    run.wait(lambda: writers.count("tasks") > 40_000, "and then they do", 60)
    run.wait(lambda: run.get("/readyz")[0] == 200, "and says so", 60)
    assert run.stop() == 0
    writers.check()
