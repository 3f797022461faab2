"""The test engine is what its README says: other tests stand on that."""

from __future__ import annotations

import struct
import threading
import urllib.error
from pathlib import Path

import pytest
from clickhouse.engine import Engine, QueryError

TABLE = (
    "CREATE TABLE t (n Int64) ENGINE = MergeTree ORDER BY n"
    " SETTINGS non_replicated_deduplication_window = 100"
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    engine = Engine(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.kill()


@pytest.fixture
def database(engine: Engine, request: pytest.FixtureRequest) -> str:
    name = request.node.name.partition("[")[0]
    engine.query(f"CREATE DATABASE {name}")
    engine.query(TABLE, database=name)
    return name


def insert(engine: Engine, database: str, first: int, count: int, **more) -> None:
    body = struct.pack(f"<{count}q", *range(first, first + count))
    engine.query("INSERT INTO t (n) FORMAT RowBinary", body, database=database, **more)


def count(engine: Engine, database: str) -> int:
    return engine.rows("SELECT count() FROM t", database=database)[0][0]


def test_binary_data_with_blank_lines_arrives_whole(engine, database):
    # 0x0a0a stands in every number of this range.
    insert(engine, database, 0x0A0A_0000_0000, 1000)
    assert count(engine, database) == 1000


def test_a_token_deduplicates_also_after_kill_9(tmp_path: Path):
    engine = Engine(tmp_path / "engine")
    try:
        engine.query("CREATE DATABASE d")
        engine.query(TABLE, database="d")
        insert(engine, "d", 0, 10, insert_deduplication_token="a")
        port = engine.port
        engine.kill()
        engine.start()
        assert engine.port == port
        insert(engine, "d", 0, 15, insert_deduplication_token="a")
        assert count(engine, "d") == 10
        insert(engine, "d", 0, 15, insert_deduplication_token="b")
        assert count(engine, "d") == 25
    finally:
        engine.kill()


def test_a_smaller_window_forgets_tokens_at_once(engine, database):
    for token in ("a", "b", "a", "b"):
        insert(engine, database, 0, 10, insert_deduplication_token=token)
    assert count(engine, database) == 20
    for window in (1, 100):
        setting = f"non_replicated_deduplication_window = {window}"
        engine.query(f"ALTER TABLE t MODIFY SETTING {setting}", database=database)
    insert(engine, database, 0, 10, insert_deduplication_token="b")
    assert count(engine, database) == 20, "the newest is still known"
    insert(engine, database, 0, 10, insert_deduplication_token="a")
    assert count(engine, database) == 30


def test_a_running_query_id_is_refused(engine, database):
    def ask(sql: str) -> bool:
        try:
            engine.query(sql, query_id="q", database=database)
        except QueryError as error:
            assert error.code == 216
            return False
        return True

    def ask_until_taken() -> None:
        while not ask("SELECT count() FROM t"):
            pass

    engine.fault("count", "sleep_before", seconds=2)
    slow = threading.Thread(target=ask_until_taken)
    slow.start()
    refused = 0
    while slow.is_alive():
        refused += not ask("SELECT 1")
    assert refused > 0
    assert ask("SELECT 1")


def test_errors_are_those_of_the_server(engine, database):
    with pytest.raises(QueryError) as unknown:
        engine.query("SELECT * FROM nowhere", database=database)
    assert (unknown.value.code, unknown.value.status) == (60, 404)
    assert "UNKNOWN_TABLE" in str(unknown.value)
    engine.fault("INSERT", "refuse", code=252, status=500, text="Too many parts")
    with pytest.raises(QueryError) as full:
        insert(engine, database, 0, 1)
    assert full.value.code == 252
    assert count(engine, database) == 0


def test_a_query_is_run_with_the_settings_of_a_fault(engine, database):
    little = {"max_memory_usage": 1, "max_untracked_memory": 1}
    engine.fault("INSERT", "set", settings=little)
    with pytest.raises(QueryError) as refused:
        insert(engine, database, 0, 16)
    assert (refused.value.code, refused.value.status) == (241, 507)
    insert(engine, database, 0, 16)
    assert count(engine, database) == 16


def test_refusals_are_counted_by_code(engine, database):
    constraint = "ADD CONSTRAINT few CHECK n < 10"
    engine.query(f"ALTER TABLE t {constraint}", database=database)
    before = engine.refusals(469)
    insert(engine, database, 0, 10)
    assert engine.refusals(469) == before
    with pytest.raises(QueryError):
        insert(engine, database, 5, 10)
    assert engine.refusals(469) == before + 1


def test_a_dropped_answer_leaves_the_rows(engine, database):
    engine.fault("INSERT", "drop_after")
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        insert(engine, database, 0, 3)
    assert count(engine, database) == 3
    engine.fault("INSERT", "drop_before")
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        insert(engine, database, 0, 3)
    assert count(engine, database) == 3


def test_a_fault_counts_as_met_once_the_query_has_run_or_waits(engine, database):
    before = engine.met()
    insert(engine, database, 0, 1)
    assert engine.met() == before, "nobody has asked for one"
    for kind, first in [("sleep_after", 10), ("sleep_before", 20)]:
        engine.fault("INSERT", kind, seconds=2)
        slow = threading.Thread(target=insert, args=(engine, database, first, 2))
        slow.start()
        while engine.met() == before:
            assert slow.is_alive()
        before += 1
        assert count(engine, database) == 3, kind
        slow.join()
    assert count(engine, database) == 5


def test_a_clock_that_is_put_ahead_is_that_of_questions_alone(engine, database):
    def now() -> int:
        return engine.rows("SELECT toUnixTimestamp(now())")[0][0]

    soon = f"n + toUnixTimestamp(now()) < {now() + 60}"
    constraint = f"ADD CONSTRAINT soon CHECK {soon}"
    engine.query(f"ALTER TABLE t {constraint}", database=database)
    before = now()
    for ahead_s in (70, 30):
        engine.put_clock_ahead(ahead_s)
    after = now()
    insert(engine, database, 0, 1)
    engine.put_clock_ahead(-100)
    assert 100 <= after - before < 130
    assert 0 <= now() - before < 60


def test_a_user_is_asked_for(tmp_path: Path):
    engine = Engine(tmp_path / "engine", "--user", "aion", "--password", "secret")
    try:
        with pytest.raises(QueryError) as refused:
            engine.query("SELECT 1")
        assert (refused.value.code, refused.value.status) == (516, 403)
        assert engine.query("SELECT 1", user="aion", password="secret") == "1\n"
    finally:
        engine.kill()
