"""PostgreSQL's protocol: psql, psycopg 3 and what Grafana's source sends."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta

import polars
import psycopg
import pytest
from asking import ENDLESS
from frontend import SYNC, Frontend, bind, code, execute, message, parse
from processes import Dev
from processes import binary as program
from vanished import asked_in_s

# As Grafana writes them, with their line breaks.
SEARCH_PATH = """
          quote_ident(table_schema) IN (
          SELECT
            CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM
            generate_series(
              array_lower(string_to_array(current_setting('search_path'),','),1),
              array_upper(string_to_array(current_setting('search_path'),','),1)
            ) as i,
            string_to_array(current_setting('search_path'),',') s
          )"""


def connect(dev, **more: object) -> psycopg.Connection:
    host, port = dev.postgres.split(":")
    return psycopg.connect(
        host=host, port=port, user="anyone", dbname="aion", autocommit=True, **more
    )


def ask(
    dev, query: str, parameters: object = None, binary: bool = False
) -> list[tuple]:
    with connect(dev) as connection:
        return connection.execute(query, parameters, binary=binary).fetchall()


def psql(dev, *arguments: str) -> subprocess.CompletedProcess[str]:
    host, port = dev.postgres.split(":")
    return subprocess.run(
        ["psql", "-X", "-h", host, "-p", port, "-U", "anyone", "aion", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_psql_lists_describes_and_asks(live):
    listed = psql(live, "-c", r"\d")
    assert listed.returncode == 0, listed.stderr
    for name in ["decisions", "tasks", "task_latency", "dead_letters", "batches"]:
        assert f" {name} " in listed.stdout, listed.stdout
    assert "decision_outcomes" in psql(live, "-c", r"\dv").stdout
    tables = psql(live, "-At", "-c", r"\dt")
    assert "public|decisions|table|" in tables.stdout, tables.stderr
    assert "decision_outcomes" not in tables.stdout
    databases = psql(live, "-At", "-c", r"\l")
    assert databases.stdout.startswith("aion|aion|UTF8|"), databases.stderr
    # There are no roles to list.
    assert "ERROR" in psql(live, "-c", r"\du").stderr
    described = psql(live, "-c", r"\d decisions")
    assert described.returncode == 0, described.stderr
    for line in [
        "timestamp with time zone",
        "character varying",
        "double precision",
        "not null",
    ]:
        assert line in described.stdout, described.stdout
    assert "The route that was chosen" in psql(live, "-c", r"\d+ decisions").stdout
    assert "public" in psql(live, "-c", r"\dn").stdout
    two = psql(live, "-At", "-c", "select 1; select 'b'")
    assert two.stdout == "1\nb\n", two.stderr
    broken = psql(live, "-v", "VERBOSITY=verbose", "-c", "select * from decision")
    assert "42P01" in broken.stderr and "did you mean `decisions`?" in broken.stderr


def by_http(dev: Dev, path: str, query: str | None = None) -> bytes:
    body = None if query is None else query.encode()
    with urllib.request.urlopen(f"http://{dev.http}{path}", body, timeout=60) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def letters(live: Dev) -> None:
    """Some decisions that can't become rows."""
    command = [program(), "generate", "--topic", "decisions", "--to", live.kafka]
    command += ["--count", "200", "--bad-share", "0.5"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    query = "select count(*) > 20 from dead_letters"
    live.wait(lambda: ask(live, query) == [(True,)], "dead letters")


# Those that have rows once events flow, some of them broken.
FILLED = {"decisions", "tasks", "metrics", "audit", "batches", "schemas"}
FILLED |= {"dead_letters", "dead_letters_raw"}


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("binary", [False, True])
def test_every_type_of_our_tables_round_trips(live, binary):
    values = {
        "varchar": ("'a''é\n'", "a'é\n"),
        "int": ("cast(7 as int)", 7),
        "bigint": ("9007199254740993", 9007199254740993),
        "double": ("cast('1.5e300' as double)", 1.5e300),
        "nan": ("cast('NaN' as double)", None),
        "boolean": ("1 = 1", True),
        "date": ("date '2026-11-25'", date(2026, 11, 25)),
        "timestamptz": (
            "timestamptz '2026-11-25 10:00:00.5+01'",
            datetime(2026, 11, 25, 9, 0, 0, 500_000, tzinfo=UTC),
        ),
        "timestamp": (
            "timestamp '2026-11-25 10:00:00'",
            datetime(2026, 11, 25, 10),
        ),
        "bytea": ("x'00ff'", b"\x00\xff"),
        "null": ("cast(null as bigint)", None),
    }
    live.wait(lambda: ask(live, "select 1 from batches limit 1"), "a commit")
    # Our types, each with PostgreSQL's.
    covered: dict[str, int] = {}
    with connect(live) as connection:
        for name, (text, wanted) in values.items():
            query = f"select {text} as v"
            found = connection.execute(query, binary=binary)
            (row,) = found.fetchall()
            (column,) = json.loads(by_http(live, "/v1/sql", query))["columns"]
            covered[column["type"]] = found.description[0].type_code
            if name == "nan":
                assert row[0] != row[0]
                continue
            assert row[0] == wanted, name
            if wanted is None:
                continue
            # And back, as a parameter that is compared.
            again = connection.execute(f"select {text} = %s", [wanted], binary=binary)
            assert again.fetchall() == [(True,)], name
        (row,) = connection.execute(
            "select timestamp, _partition, _offset from decisions limit 1",
            binary=binary,
        ).fetchall()
        assert row[0].tzinfo is not None and row[0].utcoffset() == timedelta(0)
        same = "select count(*) from decisions where timestamp = %s and _partition = %s and _offset = %s"
        assert connection.execute(same, row, binary=binary).fetchall() == [(1,)]
        filled = set()
        for table in json.loads(by_http(live, "/v1/tables"))["tables"]:
            name, columns = table["name"], table["columns"]
            assert {column["type"] for column in columns} <= covered.keys(), name
            query = f'select * from "{name}" limit 50'
            found = connection.execute(query, binary=binary)
            sent = {column.name: column.type_code for column in found.description}
            types = {column["name"]: covered[column["type"]] for column in columns}
            assert sent == types, name
            if found.fetchall():
                filled.add(name)
        assert filled >= FILLED


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("binary", [False, True])
def test_bytes_are_those_that_parquet_has(live, binary):
    query = 'select topic_id, "partition", "offset", "key", value from dead_letters'
    sent = {row[:3]: row[3:] for row in ask(live, query, binary=binary)}
    file = io.BytesIO(by_http(live, "/v1/sql?format=parquet", query))
    # Asked later: there may be more.
    stored = {row[:3]: row[3:] for row in polars.read_parquet(file).rows()}
    assert len(sent) > 20 and any(value for _, value in sent.values())
    assert sent.items() <= stored.items()


@pytest.mark.parametrize("binary", [False, True])
def test_columns_have_the_types_that_parameters_give_them(live, binary):
    """Also where the planner would have asked for another: a whole number and 1.5 are no whole number."""
    for query, given, wanted in [
        ("select %s", 5, 5),
        ("select %s", 1.5, 1.5),
        ("select %s", True, True),
        ("select %s", "5", "5"),
        ("select %s", date(2026, 11, 25), date(2026, 11, 25)),
        ("select min(size * 0 + %s) from decisions", 1.5, 1.5),
        ("select min(size * 0 + %s) from decisions", 5, 5),
        ("select min(size * 0 + %s) from decisions", None, None),
        ("select count(*) = 3 from (select 1 from decisions limit %s)", 3, True),
    ]:
        found = ask(live, query, [given], binary=binary)
        assert found == [(wanted,)] and type(found[0][0]) is type(wanted), query


def test_statements_prepared_limited_and_in_transactions(live):
    with connect(live, prepare_threshold=0) as connection:
        query = "select route, count(*) from decisions where size > %s and timestamp > %s group by route limit %s"
        since = datetime(2020, 1, 1, tzinfo=UTC)
        for _ in range(3):
            assert connection.execute(query, [0, since, 2]).fetchall()
    host, port = live.postgres.split(":")
    with psycopg.connect(host=host, port=port, user="u", dbname="aion") as connection:
        with connection.transaction():
            assert connection.execute("select 1").fetchall() == [(1,)]
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("select * from nothing")
        connection.rollback()
        assert connection.execute("show transaction isolation level").fetchall() == [
            ("read committed",)
        ]


def test_nothing_can_be_changed(live, tmp_path):
    stolen = tmp_path / "stolen.csv"
    tables = (
        "select table_schema, table_name from information_schema.tables order by 1, 2"
    )
    before = ask(live, tables)
    with connect(live) as connection:
        for statement in [
            "create table t (a int)",
            "create table t as select 1",
            "create view v as select 1",
            "create external table e stored as csv location '/etc/passwd'",
            "drop table decisions",
            "insert into decisions (task_id) values ('x')",
            "update decisions set route = 'x'",
            "delete from decisions",
            "truncate decisions",
            f"copy decisions to '{stolen}'",
            f"copy (select 1) to '{stolen}' stored as csv",
            "copy decisions to stdout",
            "copy decisions from '/etc/passwd'",
            "copy decisions from stdin",
            "select route into t from decisions",
            "merge into decisions d using tasks t on d.task_id = t.task_id when matched then delete",
            "with x as (select 'x' as task_id) insert into decisions (task_id) select task_id from x",
            # Behind what is allowed, in one message.
            "select 1; drop table decisions",
            f"select 1; copy decisions to '{stolen}'",
            "set datafusion.runtime.memory_limit = '100G'",
            "explain analyze drop table decisions",
            "select * from '/etc/passwd'",
            "select * from read_csv('/etc/passwd')",
            "select pg_read_file('/etc/passwd')",
        ]:
            for how in [{}, {"prepare": True}]:
                with pytest.raises(psycopg.Error) as refused:
                    connection.execute(statement, **how)
                # Not found, not allowed or not understood; never a fault.
                assert refused.value.sqlstate[:2] in ("0A", "25", "42"), statement
    assert not stolen.exists()
    assert ask(live, tables) == before
    assert ask(live, "select count(*) > 50 from decisions") == [(True,)]


def test_errors_have_their_codes(live):
    with connect(live) as connection:
        for statement, code in [
            ("selec 1", "42601"),
            ("select * from nothing", "42P01"),
            ("select nothing from decisions", "42703"),
            ("select nothing(1)", "42883"),
            ("select nothing(value) from range(1, 2)", "42883"),
            ("select nothing from range(1, 2)", "42703"),
            ("drop table decisions", "25006"),
            ("set nothing = 1", "42704"),
            ("listen x", "0A000"),
            ("select 1 / (value - value) from range(1, 2)", "22012"),
        ]:
            with pytest.raises(psycopg.Error) as failed:
                connection.execute(statement).fetchall()
            assert failed.value.sqlstate == code, (statement, failed.value)
            assert connection.execute("select 1").fetchall() == [(1,)], (
                "the session goes on"
            )


def test_values_that_do_not_fit_have_their_codes(live):
    with connect(live) as connection:
        query = "select count(*) from decisions where size = %s"
        with pytest.raises(
            psycopg.errors.InvalidTextRepresentation, match="bigint|int8"
        ):
            connection.execute(query, ["many"])
        assert connection.execute("select 1").fetchall() == [(1,)]
    with Frontend(int(live.postgres.split(":")[1])) as client:
        client.start()
        # It is bound without a value.
        client.send(parse("select $1 + 1"), bind(), execute(0), SYNC)
        assert code(dict(client.until(b"Z"))[b"E"]) == "08P01"


def test_a_query_can_be_cancelled(live):
    with connect(live) as connection:
        threading.Timer(1, connection.cancel).start()
        begun = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(ENDLESS)
        assert time.monotonic() - begun < 15
        assert connection.execute("select 1").fetchall() == [(1,)]


# As a driver asks for a primary key.
KEYS_OF_A_TABLE = """
    select k.relname, k.attname, (k.keys).n as key_seq from (
      select ct.relname, a.attname, a.attnum, information_schema._pg_expandarray(i.indkey) as keys
      from pg_catalog.pg_class ct join pg_catalog.pg_attribute a on ct.oid = a.attrelid
      join pg_catalog.pg_index i on a.attrelid = i.indrelid
      where ct.relname = 'decisions' and i.indisprimary
    ) k where k.attnum = (k.keys).x order by key_seq"""


@pytest.mark.parametrize("prepare", [False, True])
def test_only_a_relation_that_is_empty_is_empty(live, prepare):
    mine = "select 'pg_class' as a, ', ''pg_class'')' as b where 'pg_class' in ('a', 'pg_class')"
    comments = "select obj_description(oid, 'pg_class') = obj_description(oid) from pg_class where relname = 'decisions'"
    with connect(live) as connection:

        def ask(query: str) -> list[tuple]:
            return connection.execute(query, prepare=prepare).fetchall()

        classes = ask("select count(*) from pg_class")
        assert classes[0][0] > 5
        for relation in ("pg_proc", "pg_catalog.pg_index", "pg_matviews"):
            assert ask(f"select count(*) from {relation}") == [(0,)], relation
        joined = "from pg_class c left join pg_index i on i.indrelid = c.oid and i.indisprimary"
        assert ask(f"select count(*) {joined}") == classes
        assert ask(f"select count(i.indexrelid) {joined}") == [(0,)]
        found = "select relname from pg_class where oid not in (select inhrelid from pg_inherits)"
        assert [(len(ask(found)),)] == classes
        assert ask("select proname, prokind from pg_catalog.pg_proc") == []
        # What drivers ask of them in words, or by columns, that aren't known here.
        assert ask("select proacl, proargnames from pg_catalog.pg_proc") == []
        assert ask(KEYS_OF_A_TABLE) == []
        # And texts are whose they are.
        assert ask(mine) == [("pg_class", ", 'pg_class')")]
        assert ask("select 'pg_proc' as a") == [("pg_proc",)]
        assert ask(comments) == [(True,)]
        assert ask(comments.replace("'pg_class') =", "'pg_proc') =")) == [(None,)]


@pytest.mark.parametrize(
    "command", [r"\di", r"\df", r"\dP", r"\dRp", r"\dy", r"\dd", r"\dC", r"\da", r"\dD"]
)
def test_psql_lists_nothing_of_what_is_not_there(live, command):
    listed = psql(live, "-At", "-c", command)
    assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr
    assert "ERROR" not in listed.stderr


def test_psql_lists_who_may_what(live):
    listed = psql(live, "-At", "-c", r"\dp")
    assert "public|decisions|table|||" in listed.stdout, listed.stderr


NAMES_OF_UTC = [
    "'UTC'",
    "'Etc/UTC'",
    "'GMT'",
    "'Z'",
    "'+00:00'",
    "0",
    "default",
    "local",
]


def test_times_are_in_utc_and_no_other_zone_is_promised(live):
    with connect(live, options="-c TimeZone=Europe/Berlin") as connection:
        # Who comes in with one is told so.
        assert connection.info.parameter_status("TimeZone") == "UTC"
        for name in NAMES_OF_UTC:
            for begin in (
                "time zone",
                "session time zone",
                "timezone to",
                "TimeZone =",
            ):
                connection.execute(f"set {begin} {name}")
        assert connection.execute("show timezone").fetchall() == [("UTC",)]
        for end in (
            "time zone 'Europe/Berlin'",
            "local timezone to 'America/New_York'",
            "TimeZone = -5",
            "time zone interval '+01:00' hour to minute",
        ):
            with pytest.raises(psycopg.errors.FeatureNotSupported) as refused:
                connection.execute(f"set {end}")
            assert "times are in UTC" in str(refused.value), end
        # As the message says that it is done: the day begins an hour before that of UTC.
        day = "select date_trunc('day', timestamptz '2026-11-25 23:30:00+00' at time zone 'Europe/Berlin')"
        assert "at time zone 'Europe/Berlin'" in str(refused.value)
        assert connection.execute(day).fetchall() == [
            (datetime(2026, 11, 25, 23, tzinfo=UTC),)
        ]


@pytest.mark.parametrize("prepare", [False, True])
def test_no_other_isolation_encoding_or_style_is_promised(live, prepare):
    with connect(live) as connection:
        # As clients say it when they come in.
        for taken in (
            "SET client_encoding TO 'UTF8'",
            "SET client_encoding='utf-8'",
            "SET NAMES 'UNICODE'",
            "SET DateStyle=ISO",
            "SET datestyle TO 'ISO, MDY'",
            "SET bytea_output TO hex",
            "SET intervalstyle TO 'postgres'",
            "SET standard_conforming_strings = on",
            "SET default_transaction_read_only TO true",
            "SET search_path TO public",
            'SET search_path = public, "$user"',
            "SET search_path = pg_catalog, public",
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
            "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "ROLLBACK",
            "BEGIN READ WRITE",
        ):
            connection.execute(taken, prepare=prepare)
        # That isn't to say that it can.
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("drop table decisions", prepare=prepare)
        connection.execute("ROLLBACK", prepare=prepare)
        for refused, why in (
            ("begin isolation level repeatable read", "above read committed"),
            ("start transaction isolation level serializable", "above read committed"),
            (
                "set transaction isolation level serializable",
                "above read committed",
            ),
            ("set client_encoding to 'LATIN1'", "it is utf8 here"),
            ("set names 'latin1'", "it is utf8 here"),
            ("set datestyle = 'German'", "it is iso here"),
            ("set bytea_output = 'escape'", "it is hex here"),
            ("set intervalstyle to iso_8601", "it is postgres here"),
            ("set standard_conforming_strings to off", "it is on here"),
            ("set default_transaction_read_only = off", "it is on here"),
            (
                "set session characteristics as transaction read write",
                "this is read-only",
            ),
            ("set search_path to elsewhere", "search_path is public here"),
            (
                "set search_path to information_schema, public",
                "search_path is public here",
            ),
        ):
            with pytest.raises(psycopg.errors.FeatureNotSupported) as error:
                connection.execute(refused, prepare=prepare)
            assert why in str(error.value), refused
        # What was refused hasn't begun.
        idle = psycopg.pq.TransactionStatus.IDLE
        assert connection.info.transaction_status == idle
        shown = connection.execute("show datestyle").fetchall()
        assert shown == [("ISO, YMD",)]


def test_clients_that_may_have_vanished_are_asked(live):
    with connect(live) as connection:
        assert connection.execute("select 1").fetchall() == [(1,)]
        with socket.socket(fileno=os.dup(connection.fileno())) as idle:
            assert 0 < asked_in_s(idle) <= 240
    host, port = live.http.split(":")
    with socket.create_connection((host, int(port)), 10) as idle:
        assert 0 < asked_in_s(idle) <= 240


@pytest.mark.parametrize("kind", ["simple", "prepared"])
def test_a_client_that_goes_ends_its_query(live, kind):
    port = int(live.postgres.split(":")[1])
    ask = [message(b"Q", ENDLESS.encode() + b"\0")]
    if kind == "prepared":
        ask = [parse(ENDLESS), bind(), execute(0), SYNC]
    for _ in range(3):
        # As many as may run at a time, so that any which goes on is in the way.
        clients = [Frontend(port) for _ in range(8)]
        for client in clients:
            client.start()
            client.send(*ask)
        time.sleep(0.5)
        for client in clients:
            client.socket.close()
    with Frontend(port, 20) as client:
        client.start()
        client.send(message(b"Q", b"select 1\0"))
        assert b"D" in dict(client.until(b"Z"))


def test_a_client_may_send_more_while_it_waits(live):
    """That isn't the end: what was asked first is answered, then the rest."""
    with Frontend(int(live.postgres.split(":")[1])) as client:
        client.start()
        slow = b"select count(*) from range(0, 20000) a, range(0, 20000) b where a.value + b.value < 0"
        client.send(message(b"Q", slow + b"\0"))
        for _ in range(5):
            time.sleep(0.05)
            client.send(message(b"Q", b"select 1\0"))
        for _ in range(6):
            assert b"D" in dict(client.until(b"Z"))


def test_one_connection_too_many_is_told_so(live):
    port = int(live.postgres.split(":")[1])
    with ExitStack() as open_ones:

        def come_in() -> Frontend | None:
            client = open_ones.enter_context(Frontend(port, 10))
            return client if client.start()[-1][0] == b"Z" else None

        # Those of other tests may be about to end.
        clients: list[Frontend] = []
        until = time.monotonic() + 30
        while len(clients) < 100 and time.monotonic() < until:
            clients += filter(None, [come_in()])
        with Frontend(port, 10) as late:
            kind, body = late.start()[-1]
            assert (kind, code(body)) == (b"E", "53300") and b"too many" in body, body
            with pytest.raises(ConnectionError):
                late.exactly(1)
        assert "too many connections" in psql(live, "-c", "select 1").stderr
        # A question of those who are in can be stopped.
        clients[0].send(message(b"Q", ENDLESS.encode() + b"\0"))
        time.sleep(1)
        with Frontend(port, 10) as other:
            other.cancel(clients[0].key)
            with pytest.raises(ConnectionError):
                other.exactly(1)
        assert code(dict(clients[0].until(b"Z"))[b"E"]) == "57014"
        clients[1].send(message(b"Q", b"select 1\0"))
        assert b"D" in dict(clients[1].until(b"Z"))
    live.wait(lambda: psql(live, "-c", "select 1").returncode == 0, "room")


def test_what_grafana_asks(live):
    tables = f"""SELECT
    CASE WHEN {SEARCH_PATH}
      THEN quote_ident(table_name)
      ELSE quote_ident(table_schema) || '.' || quote_ident(table_name)
    END AS "table"
    FROM information_schema.tables
    WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog')
    ORDER BY CASE WHEN {SEARCH_PATH} THEN 0 ELSE 1 END, 1"""
    columns = f"""SELECT quote_ident(column_name) AS "column", data_type AS "type"
    FROM information_schema.columns
    WHERE
      CASE WHEN array_length(parse_ident('decisions'),1) = 2
        THEN quote_ident(table_schema) = (parse_ident('decisions'))[1]
          AND quote_ident(table_name) = (parse_ident('decisions'))[2]
        ELSE quote_ident(table_name) = 'decisions'
          AND {SEARCH_PATH}
      END"""
    assert ask(
        live, "SELECT current_setting('server_version_num')::int/100 as version"
    ) == [(1600,)]
    assert (
        ask(live, "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
        == []
    )
    schemas = "SELECT schema_name AS name FROM information_schema.schemata WHERE schema_name NOT IN ('information_schema', 'pg_catalog') ORDER BY 1"
    assert ask(live, schemas) == [("public",)]
    assert {("decisions",), ("task_latency",)} <= set(ask(live, tables))
    found = dict(ask(live, columns))
    assert found["timestamp"] == "timestamp with time zone"
    assert (found["size"], found["cost_budget"]) == ("bigint", "double precision")
    panel = """SELECT floor(extract(epoch from timestamp)/60)*60 AS time, route AS metric, count(*) AS n
      FROM decisions WHERE timestamp BETWEEN '2020-01-01T00:00:00Z' AND '2040-01-01T00:00:00Z'
      GROUP BY 1, 2 ORDER BY 1"""
    assert ask(live, panel)
    window = """SELECT window_start AS time, status AS metric, p95_ms FROM task_latency
      WHERE window_start BETWEEN '2020-01-01T00:00:00Z' AND '2040-01-01T00:00:00Z' ORDER BY 1"""
    assert ask(live, window)
