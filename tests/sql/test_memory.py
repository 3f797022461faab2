"""Questions that want more memory than they may have: they go to disk or end with a message, and events flow on."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPResponse

import psycopg
import pyarrow.ipc
import pyarrow.parquet
import pytest
from asking import Asking
from cluster import Producing
from frontend import FLUSH, SYNC, Frontend, bind, code, execute, message, parse
from processes import Process, binary, sql

MEMORY_MIB = 32
# About 70 MB of text, each different, in an order that isn't that of the text.
WIDE = "select value as k, repeat(reverse(cast(value * 7919 as varchar)), 20) as t from range(0, 500000)"
TOO_MUCH = f"more than the {MEMORY_MIB} MiB of memory it may have"


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory):
    asking = Asking(tmp_path_factory.mktemp("memory"), f"memory_mib = {MEMORY_MIB}")
    yield asking
    asking.end()


GROUPS = f"select count(*), sum(n), min(length(t)) from (select t, count(*) as n from ({WIDE}) w group by t) g"
# 48 MB of numbers.
SORT = """select count(*), min(k), max(k), sum(case when k < before then 1 else 0 end) from
    (select k, lag(k) over (order by k) as before from (select (value * 7919) % 3000017 as k from range(0, 3000000)) n) s"""
SORTED = ["3000000", "0", "3000016", "0"]
SORT_OF_TEXT = f"select t from ({WIDE}) w order by t"
JOIN = f"select count(*) from ({WIDE}) a join ({WIDE}) b on a.t = b.t"


def test_a_process_short_of_memory_answers_or_says_so_and_reads_on(asking: Asking):
    before = asking.run.memory_mib("VmRSS")
    with Producing(asking.place, pause_s=0.2):
        sent = asking.place.sent
        for ask, refused in ((asking.by_http, "422"), (asking.by_psql, "53200")):
            groups = ask(GROUPS)
            assert groups.rows == [["500000", "500000", "20"]], groups.message
            assert ask(SORT).rows == [SORTED]
            long = ask(SORT_OF_TEXT)
            texts = [row[0] for row in long.rows if not long.message]
            if texts:
                assert len(texts) == 500_000 and texts == sorted(texts)
            else:
                # Where merging has begun, the answer is broken off.
                assert TOO_MUCH in long.message or long.code == "broken off"
            join = ask(JOIN)
            assert (join.code, join.rows) == (refused, []), join.message
            assert TOO_MUCH in join.message and "ask for less at once" in join.message
            # The next one isn't the worse for it.
            assert ask("select 1").rows == [["1"]]
        assert asking.place.sent > sent + 1000
    assert asking.run.get("/readyz")[0] == 200
    # What isn't counted is small: pieces under way, what the allocator keeps.
    assert asking.run.memory_mib("VmHWM") < before + 12 * MEMORY_MIB
    asking.place.wait_and_check()


# What makes much out of little: it is refused, by the name of what would make it.
LARGE = {
    "repeat of a constant": "select repeat('x', 100000000) from range(0, 1000)",
    "repeat of rows": "select max(length(repeat(cast(value as varchar), 1000000))) from range(0, 5000)",
    "repeat in a condition": "select 1 from range(0, 5000) where repeat(cast(value as varchar), 1000000) = 'x'",
    "constants together": "select "
    + ", ".join(f"repeat('{n}', 2000000)" for n in range(500)),
    "lpad": "select lpad('x', 2000000000, cast(value as varchar)) from range(0, 1000)",
    "rpad": "select rpad(cast(value as varchar), 100000000) from range(0, 1000)",
    "replace": "select replace(repeat('a', 1000000), 'a', repeat('b', 1000000))",
    "regexp_replace": "select regexp_replace(repeat('a', 1000000), 'a', repeat('b', 1000000), 'g')",
    "a long constant": f"select count(*) from ({WIDE}) w where concat(t, repeat('x', 1000000)) = repeat(t, 100000)",
    "concat": "select max(length(concat("
    + ", ".join(["t"] * 5000)
    + f"))) from ({WIDE}) w",
    # The planner joins constants before anything is called.
    "concat_ws": "select length(concat_ws(repeat('x', 1000000), "
    + ", ".join(["'a'"] * 400)
    + "))",
    "concat_ws beside a column": "select max(length(concat_ws(repeat('x', 1000000), cast(value as varchar), "
    + ", ".join(["'a'"] * 400)
    + "))) from range(0, 2)",
    "concat_ws of rows": f"select max(length(concat_ws(t, {', '.join(['t'] * 5000)}))) from ({WIDE}) w",
    "range": "select cardinality(range(0, value * 1000000000)) from range(1, 10)",
    "generate_series": "select generate_series(date '0001-01-01', date '9999-12-31', interval '1 second')",
    "array_repeat": "select array_repeat(cast(value as varchar), 100000000) from range(0, 1000)",
    "make_array": f"select max(cardinality([{', '.join(['t'] * 5000)}])) from ({WIDE}) w",
    "array_to_string": "select array_to_string(range(0, 100000), repeat('x', 1000000))",
    "array_to_string of nulls": "select array_to_string(array_repeat(cast(null as varchar), 1000), ',', repeat('x', 1000000))",
    "array_agg": f"select array_agg(t) from ({WIDE}) w",
    "array_agg by group": f"select k % 3, array_agg(t) from ({WIDE}) w group by 1",
    "array_agg over rows": "select array_agg(value) over (order by value) from range(0, 100000)",
    "string_agg": f"select length(string_agg(t, ',')) from ({WIDE}) w",
    "a window over all rows": f"select max(t) over (), t from ({WIDE}) w",
    "a window that looks ahead": f"select max(t) over (order by k rows between current row and 400000 following) from ({WIDE}) w",
}


@pytest.mark.parametrize("name", LARGE)
def test_what_makes_much_out_of_little_is_refused_within_the_memory(asking, name: str):
    asking.run.forget_peak()
    before = asking.run.memory_mib("VmRSS")
    refused = asking.by_http(LARGE[name])
    assert (refused.code, refused.rows) == ("422", []), refused.message[:500]
    assert TOO_MUCH in refused.message and "ask for less at once" in refused.message
    # What the allocator keeps, and pieces under way, are not counted.
    assert asking.run.memory_mib("VmHWM") < before + 6 * MEMORY_MIB
    assert asking.by_http("select 1").rows == [["1"]]


# What is as much, a little at a time: more than may be there at once.
LENGTHY = {
    "long texts": (
        "select repeat(cast(value as varchar), 100000) as t from range(10, 600)",
        590,
        lambda row: len(row["t"]) in (200_000, 300_000),
    ),
    "lists": (
        "select range(0, 20000) as l from range(0, 500)",
        500,
        lambda row: row["l"] == list(range(20_000)),
    ),
    "a long constant for each row": (
        "select value, repeat('x', 100000) as t from range(0, 2000)",
        2000,
        lambda row: len(row["t"]) == 100_000,
    ),
}


DECODER = json.JSONDecoder()


def by_json(answer: HTTPResponse) -> Iterator[dict]:
    """Each row is a line; more follows it."""
    next(answer)
    return (DECODER.raw_decode(line.decode())[0] for line in answer)


def by_csv(answer: HTTPResponse) -> Iterator[dict]:
    """Of one column, whose texts need no quotes."""
    name = next(answer).decode().strip()
    return ({name: line.decode().strip()} for line in answer)


def by_arrow(answer: HTTPResponse) -> Iterator[dict]:
    for batch in pyarrow.ipc.open_stream(answer):
        yield from batch.to_pylist()


def by_parquet(answer: HTTPResponse) -> Iterator[dict]:
    file = pyarrow.parquet.ParquetFile(io.BytesIO(answer.read()))
    for batch in file.iter_batches(batch_size=64):
        yield from batch.to_pylist()


LINES = "application/x-ndjson"
FORMS = {
    LINES: lambda answer: map(json.loads, answer),
    "application/json": by_json,
    "text/csv": by_csv,
    "application/vnd.apache.arrow.stream": by_arrow,
    "application/vnd.apache.parquet": by_parquet,
}


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, LINES) for name in LENGTHY]
    + [("long texts", form) for form in FORMS if form != LINES],
)
def test_long_rows_are_made_a_few_at_a_time(asking, name: str, form: str):
    query, count, right = LENGTHY[name]
    asking.run.forget_peak()
    before = asking.run.memory_mib("VmRSS")
    with asking.open(query, form) as answer:
        assert answer.headers["Content-Type"] == form
        rows = [right(row) for row in FORMS[form](answer)]
    assert len(rows) == count and all(rows)
    assert asking.run.memory_mib("VmHWM") < before + 4 * MEMORY_MIB


def test_a_prepared_statement_sends_its_rows_as_they_come(asking: Asking):
    """About 300 MB: as a whole it would be there ten times what questions may have."""
    query = "select repeat(cast(value as varchar), 100) as t from range(0, 500000) where value >= %s"
    asking.run.forget_peak()
    before = asking.run.memory_mib("VmRSS")
    with asking.connect() as connection, connection.cursor(binary=True) as cursor:
        lengths = [len(text) for (text,) in cursor.stream(query, [0])]
    assert len(lengths) == 500_000 and sum(lengths) == 288_889_000
    assert asking.run.memory_mib("VmHWM") < before + 4 * MEMORY_MIB


def ticks(process: Process) -> Counter[tuple[str, str]]:
    """What each thread has had of the processors, by its number and its name."""
    return Counter(
        {
            (number, name): int(fields[11]) + int(fields[12])
            for number, (name, fields) in process.threads().items()
        }
    )


def test_rows_are_written_down_by_the_threads_of_questions(asking: Asking):
    """They give way to the jobs; those that talk to clients don't, since they are the jobs' too."""
    rows, bytes_each, ready = 200_000, 200, message(b"Z", b"I")
    # Quickly found, and slowly written as text.
    query = f"select x'{'c3' * bytes_each}' as b from range(0, {rows})"
    with Frontend(asking.port) as client:
        client.start()
        before = ticks(asking.run)
        client.send(message(b"Q", query.encode() + b"\0"))
        length, end = 0, b""
        while not end.endswith(ready):
            more = client.socket.recv(1 << 20)
            assert more, "the server closed the connection"
            length, end = length + len(more), (end + more)[-100:]
        used = ticks(asking.run) - before
    assert f"SELECT {rows}".encode() in end and length > rows * 2 * bytes_each
    theirs = sum(n for (_, name), n in used.items() if name == "aion-sql")
    assert used.total() > 20 and theirs > used.total() / 2, used


def test_rows_in_portions_go_on_where_they_were(asking: Asking):
    with Frontend(asking.port) as client:
        client.start()
        client.send(parse("select value from range(0, 25)"), bind())
        for wanted in (range(10), range(10, 20)):
            client.send(execute(10), FLUSH)
            assert client.numbers(b"s") == list(wanted)
        client.send(execute(10), FLUSH)
        assert client.numbers(b"C") == list(range(20, 25))
        # There are no more, and none again.
        client.send(execute(10), SYNC)
        assert client.numbers(b"Z") == []


def test_portals_live_as_long_as_their_transaction(asking: Asking):
    """One that waits for its client keeps a query's place."""
    with Frontend(asking.port) as client:
        client.start()
        for begin, ends in ((None, True), ("begin", False)):
            if begin:
                client.send(parse(begin), bind(), execute(0), SYNC)
                assert client.numbers(b"Z") == []
            client.send(parse("select value from range(0, 25)"), bind())
            client.send(execute(10), SYNC)
            assert client.numbers(b"Z") == list(range(10))
            client.send(execute(10), SYNC)
            again = list(client.until(b"Z"))
            assert again[0][0] == (b"E" if ends else b"D"), again


def test_room_is_not_made_by_what_a_client_says(asking: Asking):
    with Frontend(asking.port) as client:
        client.start()
        for most in (2**31 - 1, -1):
            client.send(parse("select value from range(0, 3)"), bind())
            client.send(execute(most), SYNC)
            assert client.numbers(b"Z") == [0, 1, 2]
    assert asking.by_psql("select 1").rows == [["1"]]


# As long as a statement may be over HTTP.
STATEMENT_BYTES = 1 << 20


def statement(length: int) -> str:
    return "select 1 --".ljust(length, "x")


@pytest.mark.parametrize("kind", ["simple", "prepared", "parameter"])
def test_a_statement_is_as_long_as_over_http_at_most(asking: Asking, kind: str):
    def ask(connection: psycopg.Connection, length: int) -> list[tuple]:
        if kind == "parameter":
            given = "x" * length
            rows = connection.execute("select 1 where %s > ''", [given]).fetchall()
        else:
            query, prepare = statement(length), kind == "prepared"
            rows = connection.execute(query, prepare=prepare).fetchall()
        return rows

    assert asking.by_http(statement(STATEMENT_BYTES - 100)).rows == [["1"]]
    assert asking.by_http(statement(STATEMENT_BYTES + 1)).code == "413"
    with asking.connect() as connection:
        assert ask(connection, STATEMENT_BYTES - 100) == [(1,)]
        with pytest.raises(psycopg.errors.ProgramLimitExceeded) as refused:
            ask(connection, STATEMENT_BYTES + 1)
        assert "longer than 1 MiB" in str(refused.value)
        # The next one isn't the worse for it.
        assert ask(connection, 100) == [(1,)]


@pytest.mark.parametrize("kind", [b"Q", b"P", b"B", b"d"])
def test_what_is_too_long_is_read_past(asking: Asking, kind: bytes):
    """300 MB, as PostgreSQL's protocol allows."""
    count, piece = 300, b"x" * 1_000_000
    asking.run.forget_peak()
    before = asking.run.memory_mib("VmRSS")
    with Frontend(asking.port) as client:
        client.start()
        client.send(kind + struct.pack("!i", 4 + count * len(piece)))
        for _ in range(count):
            client.send(piece)
        client.send(SYNC)
        answered = list(client.until(b"Z"))
        assert answered[0][0] == b"E" and code(answered[0][1]) == "54000", answered
    assert asking.run.memory_mib("VmHWM") < before + MEMORY_MIB


@pytest.mark.parametrize("kind", ["statements", "portals"])
def test_what_is_kept_by_name_is_bounded(asking: Asking, kind: str):
    """300 MB, of which nothing is closed."""
    long = "x" * 1_000_000
    asking.run.forget_peak()
    before = asking.run.memory_mib("VmRSS")
    with Frontend(asking.port) as client:
        client.start()
        client.send(parse("begin"), bind(), execute(0), SYNC)
        list(client.until(b"Z"))
        client.send(parse("select 1 where $1 > ''"), SYNC)
        list(client.until(b"Z"))
        refused: list[int] = []
        for number in range(300):
            if kind == "statements":
                client.send(parse("", f"{number}{long}"), SYNC)
            else:
                client.send(bind(f"{number}", (long.encode(),)), SYNC)
            answered = dict(client.until(b"Z"))
            if b"E" in answered:
                refused.append(number)
                assert code(answered[b"E"]) == "53200", answered
                assert b"a connection keeps 8 MiB" in answered[b"E"]
        assert refused and refused[0] > 1, refused
        # It is this client's matter only, and it can make room.
        assert asking.by_psql("select 1").rows == [["1"]]
        client.send(message(b"Q", b"rollback; discard all\0"))
        assert b"E" not in dict(client.until(b"Z"))
        client.send(parse("select 1 where $1 > ''"), bind("p", (b"a",)), SYNC)
        assert b"E" not in dict(client.until(b"Z"))
    assert asking.run.memory_mib("VmHWM") < before + MEMORY_MIB


def test_a_name_that_is_given_up_is_gone(asking: Asking):
    with asking.connect() as connection:
        wire = connection.pgconn
        for give_up, gone in (
            (b"deallocate one", b"26000"),
            (b'deallocate prepare "one"', b"26000"),
            (b"deallocate all", b"26000"),
            (b"discard all", b"26000"),
            (b"discard plans", None),
        ):
            assert wire.prepare(b"one", b"select 1").error_message == b""
            assert wire.exec_prepared(b"one", []).get_value(0, 0) == b"1"
            assert wire.exec_(give_up).error_message == b"", give_up
            after = wire.exec_prepared(b"one", [])
            state = after.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
            assert state == gone, give_up
        unknown = wire.exec_(b"deallocate nobody")
        assert unknown.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"26000"


def test_many_rows_out_of_few_are_counted(asking):
    """As large as all of these are together, none of them is there at once."""
    for query, wanted in (
        (
            "select count(*) from range(0, 1000) a cross join unnest(range(0, 10000)) b",
            "10000000",
        ),
        (
            "select sum(cardinality(l)) from (select range(0, 1000) as l from range(0, 10000)) x",
            "10000000",
        ),
    ):
        answer = asking.by_http(query)
        assert answer.rows == [[wanted]], answer.message


def test_a_statement_that_is_too_deep_is_refused(asking):
    """Its tree would take more of a thread's stack than there is, and the process would end."""
    for deep in (
        "select 1" + " + 1" * 50_000,
        "select 1" + " union all select 1" * 20_000,
        "select " + "not " * 50_000 + "true",
        "select 1 from " + ", ".join(f"tasks t{n}" for n in range(20_000)),
        "select " + " || ".join(["'a'"] * 20_000),
        "select " + "(" * 50_000 + "1" + ")" * 50_000,
        "select 1" + "::bigint" * 50_000,
    ):
        refused = asking.by_http(deep)
        assert refused.code == "400", (deep[:60], refused.message[:200])
    # As deep as one may be.
    assert asking.by_http("select 1" + " + 1" * 1999).rows == [["2000"]]
    both = " and ".join(["route <> 'x'"] * 900)
    table = asking.place.table
    assert asking.by_http(f"select count(*) from {table} where {both}").code == "200"
    values = ", ".join(f"'{n}'" for n in range(5_000))
    many = asking.by_http(f"select count(*) from {table} where task_id in ({values})")
    assert many.rows == [["0"]], many.message[:200]


def test_with_more_memory_there_is_an_answer(asking: Asking):
    """Negative control: it is the bound that refuses it."""
    lake = ("--lake", asking.place.lake, "--memory")
    (row,) = sql(JOIN, *lake, "2GiB")
    assert row == {"count(*)": 500_000}
    for name in ("repeat of rows", "array_agg", "a window that looks ahead"):
        assert sql(f"select count(*) as n from ({LARGE[name]})", *lake, "64GiB")


def test_temporary_files_that_cannot_be_are_named(asking: Asking):
    question = f"select max(length(b)) as n from (select lag(t) over (order by t) as b from ({WIDE}))"
    command = [binary(), "sql", "--lake", asking.place.lake, "--memory", "64MiB"]

    def asked(*options: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*command, *options, question],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=120,
        )

    short = asked("--spill", "1MiB")
    assert short.returncode == 1, short
    assert "more than the 1 MiB of temporary files" in short.stderr, short.stderr
    assert "--spill" in short.stderr, short.stderr
    away = asked(TMPDIR="/nowhere/at/all")
    assert away.returncode == 1, away
    assert "/nowhere/at/all doesn't take them" in away.stderr, away.stderr
    assert "TMPDIR" in away.stderr, away.stderr
    assert asked("--spill", "1GiB").returncode == 0
