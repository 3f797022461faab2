"""The codes that errors have over PostgreSQL's protocol, as a driver receives them; those of coming in are in
test_access.py, of time in test_bounds.py, of a stop in test_stopping.py."""

from __future__ import annotations

import json
import re
import shutil
import struct
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from asking import KEY
from frontend import FLUSH, SYNC, Frontend, bind, code, message, parse
from processes import ROOT, Dev
from readers import Server


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with rows, that nobody writes any more."""
    dev = Dev(tmp_path_factory.mktemp("codes"))
    try:
        dev.start("--rate", "300")
        for table in ("decisions", "tasks"):
            # Some of its four partitions has an offset of 5 then.
            dev.wait(lambda table=table: dev.count(table) > 50, "rows are stored")
        assert dev.stop() == 0
    finally:
        dev.end()
    return dev.data / "lake"


@pytest.fixture
def server(tmp_path: Path, lake: Path) -> Iterator[Server]:
    """Not started yet, on a copy of the lake that may be spoilt."""
    shutil.copytree(lake, tmp_path / "lake")
    (tmp_path / "key").write_text(KEY)
    server = Server(tmp_path)
    yield server
    server.end()


def start(server: Server, bounds: str = "") -> psycopg.Connection:
    keys = f'http.keys = ["file:{server.folder / "key"}"]'
    server.start(sql=f"{keys}\n[sql]\n{bounds}")
    where = f"host=127.0.0.1 port={server.port} user=me dbname=aion"
    return psycopg.connect(where, autocommit=True)


def refused(
    connection: psycopg.Connection, query: str, prepare: bool = False
) -> tuple[str | None, str]:
    """Its code, and what is said. The session goes on."""
    with pytest.raises(psycopg.Error) as failed:
        connection.execute(query, prepare=prepare).fetchall()
    assert connection.execute("select 1").fetchall() == [(1,)]
    return failed.value.sqlstate, str(failed.value)


def by_http(server: Server, query: str) -> tuple[int, str]:
    """The status of what is refused, and what is said."""
    request = urllib.request.Request(
        f"http://{server.http}/v1/sql",
        query.encode(),
        {"Authorization": f"Bearer {KEY}"},
    )
    with pytest.raises(urllib.error.HTTPError) as failed:
        urllib.request.urlopen(request, timeout=60)
    return failed.value.code, json.load(failed.value)["detail"]


def test_the_codes_that_are_listed_are_those_that_there_are():
    page = (ROOT / "docs" / "sql.md").read_text()
    _, _, below = page.partition("### Codes of errors\n")
    table, _, _ = below.partition("\n### ")
    cells = [line.split("|")[1] for line in table.splitlines() if line[:1] == "|"]
    listed = re.findall(r"\b[0-9A-Z]{5}\b", " ".join(cells))
    assert len(listed) == len(set(listed))
    folder = ROOT / "analytics" / "src" / "postgres"
    # What only tests say isn't sent.
    sources = [
        file.read_text().partition("#[cfg(test)]")[0]
        for file in folder.rglob("*.rs")
        if file.name != "tests.rs"
    ]
    pattern = r'"((?:[0-9][0-9A-Z]|XX)[0-9A-Z]{3})"'
    quoted = re.findall(pattern, " ".join(sources))
    assert set(listed) == set(quoted) and len(listed) > 20


MANY_STEPS = "levenshtein(repeat(cast(value as varchar), 100), repeat('b', 400)) = 0"
STORED = "select count(*) from decisions where"
# What is asked, its code, and its status over HTTP. What fails while a file is read is no fault of the file.
ASKED = [
    ("select cast(3000000000 as int)", "22003", 400),
    (
        "select (-9223372036854775807 - value) / -value from range(1, 2)",
        "22003",
        400,
    ),
    ("select cast(1e300 * value as decimal(10, 2)) from range(1, 2)", "22003", 400),
    ("select cast(1000 * value as decimal(5, 2)) from range(1, 2)", "22003", 400),
    ("select cast('99999999999' as int)", "22P02", 400),
    ("select cast(task_id as int) from decisions", "22P02", 400),
    ("select cast(task_id as time) from decisions", "22007", 400),
    (f"{STORED} cast(task_id as int) = 1", "22P02", 400),
    (f"{STORED} cast(task_id as date) > current_date", "22007", 400),
    (f"{STORED} timestamp > 'yesterday'", "22007", 400),
    (f"{STORED} 10 / (_offset - 5) = 1", "22012", 400),
    (f"{STORED} repeat(task_id, 1000000000) = 'x'", "53200", 422),
    (f"select count(*) from range(1000, 9000) where {MANY_STEPS}", "42000", 400),
]


def test_what_is_wrong_with_values_has_its_code_over_stored_rows_too(server: Server):
    with start(server) as connection:
        for query, wanted, status in ASKED:
            for prepare in (False, True):
                found, said = refused(connection, query, prepare)
                assert found == wanted, (query, said)
            told, detail = by_http(server, query)
            assert told == status, (query, detail)
        # PostgreSQL's clients know no whole number that is so great.
        beyond = "select 18446744073709551615"
        for prepare in (False, True):
            assert refused(connection, beyond, prepare)[0] == "22003"
        assert refused(connection, "select 1; select 2", prepare=True)[0] == "42601"


WIDE = "select value as k, repeat(reverse(cast(value * 7919 as varchar)), 20) as t from range(0, 500000)"
# More than fits into 64 MiB.
SORT = f"select max(length(b)) from (select lag(t) over (order by t) as b from ({WIDE}) w) s"


def test_a_bound_on_temporary_files_has_its_code(server: Server):
    with start(server, "memory_mib = 64\nspill_mib = 1") as connection:
        found, said = refused(connection, SORT)
        assert found == "53400", said
        assert "more than the 1 MiB of temporary files" in said
        assert "spill_mib of [sql]" in said
        assert by_http(server, SORT)[0] == 422


def test_temporary_files_that_cannot_be_have_their_code(server: Server):
    server.environment = {"TMPDIR": "/nowhere/at/all"}
    with start(server, "memory_mib = 64") as connection:
        found, said = refused(connection, SORT)
        assert found == "53100" and "/nowhere/at/all doesn't take them" in said, said
        assert by_http(server, SORT)[0] == 503
        # Others need none.
        many = connection.execute("select count(*) > 50 from tasks").fetchall()
        assert many == [(True,)]


def test_with_room_for_temporary_files_there_is_an_answer(server: Server):
    """Negative control: it is the bound, or the folder, that refuses it."""
    with start(server, "memory_mib = 64") as connection:
        assert connection.execute(SORT).fetchall() == [(200,)]


def empty(file: Path) -> None:
    """As long as it was, and nothing in it."""
    file.write_bytes(bytes(file.stat().st_size))


def spoil_first_page(file: Path) -> None:
    """What says where the pages are is whole."""
    whole = bytearray(file.read_bytes())
    whole[4:64] = bytes(60)
    file.write_bytes(whole)


@pytest.mark.parametrize("damage", [Path.unlink, empty, spoil_first_page])
def test_a_lake_that_cannot_be_read_has_its_code(server: Server, damage):
    everything = "select * from decisions"
    with start(server) as connection:
        ((count,),) = connection.execute("select count(*) from decisions").fetchall()
        assert count > 50
        for file in list((server.lake / "decisions").rglob("*.parquet")):
            if "_delta_log" not in file.parts:
                damage(file)
        for prepare in (False, True):
            found, said = refused(connection, everything, prepare)
            assert found == "58030" and "read the lake's files" in said, said
        assert by_http(server, everything)[0] == 503
        # Other tables are answered, and what the log says of this one.
        others = connection.execute("select count(distinct status) > 0 from tasks")
        assert others.fetchall() == [(True,)]
        again = connection.execute("select count(*) from decisions")
        assert again.fetchall() == [(count,)]


def test_a_damaged_log_has_its_code_in_whatever_way_it_is_asked(server: Server):
    log = server.lake / "decisions" / "_delta_log"
    with start(server) as connection:
        ((count,),) = connection.execute("select count(*) from batches").fetchall()
        assert count > 0
        # The table itself is known by then.
        max(log.glob("*.json")).write_text('{"commitInfo":')
        for query in (
            "select * from batches",
            "select table_name, count(*) from batches group by table_name",
            "select version from batches order by version desc limit 3",
        ):
            found, said = refused(connection, query)
            assert found == "58030" and "the log of table decisions" in said, said


def answered(client: Frontend, query: str) -> dict[bytes, bytes]:
    client.send(message(b"Q", query.encode() + b"\0"))
    return dict(client.until(b"Z"))


def execute(portal: str, most: int) -> bytes:
    return message(b"E", portal.encode() + b"\0" + struct.pack("!i", most))


def describe(portal: str) -> bytes:
    return message(b"D", b"P" + portal.encode() + b"\0")


def test_close_gives_up_a_portal_and_nothing_that_there_is_not(server: Server):
    with start(server) as connection:
        for name in ("x", '"X y"', "X"):
            for prepare in (False, True):
                found, said = refused(connection, f"close {name}", prepare)
                bare = name.strip('"') if '"' in name else name.lower()
                assert found == "34000", said
                assert f'cursor "{bare}" does not exist' in said
        # Of none all can be closed.
        assert connection.execute("close all").statusmessage == "CLOSE CURSOR ALL"
        assert refused(connection, "declare x cursor for select 1")[0] == "0A000"
        assert refused(connection, "close")[0] == "42601"
    with Frontend(server.port) as client:
        client.start()
        for close in ("close p", "CLOSE ALL"):
            answered(client, "begin")
            client.send(parse("select value from range(0, 25)"), bind("p"))
            client.send(execute("p", 10), FLUSH)
            assert client.numbers(b"s") == list(range(10))
            client.send(SYNC)
            list(client.until(b"Z"))
            # It is still there, and goes on where it was.
            client.send(describe("p"), SYNC)
            assert b"T" in dict(client.until(b"Z"))
            client.send(execute("p", 10), SYNC)
            assert client.numbers(b"Z") == list(range(10, 20))
            assert answered(client, close)[b"C"].startswith(b"CLOSE CURSOR")
            for asked in (execute("p", 10), describe("p")):
                client.send(asked, SYNC)
                gone = dict(client.until(b"Z"))
                assert gone.keys() == {b"E", b"Z"}, gone
                assert code(gone[b"E"]) == "34000", gone
            answered(client, "rollback")
