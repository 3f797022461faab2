"""What docs/sql.md says of transactions, lists, bounds, forms and servers for readers, as those who read it try it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from offsets import ends
from processes import Dev
from readers import Server


def connect(port: int | str, autocommit: bool = True) -> psycopg.Connection:
    where = f"host=127.0.0.1 port={port} user=me dbname=aion"
    return psycopg.connect(where, autocommit=autocommit)


def port_of(dev: Dev) -> str:
    return dev.postgres.split(":")[1]


def test_each_statement_of_a_transaction_sees_what_came_since(live: Dev):
    with connect(port_of(live), autocommit=False) as connection:

        def count() -> int:
            found = connection.execute("select count(*) from decisions").fetchall()
            status = connection.info.transaction_status
            assert status == psycopg.pq.TransactionStatus.INTRANS
            return found[0][0]

        first = count()
        live.wait(lambda: count() > first, "what came since the first statement", 60)


@pytest.fixture(scope="module")
def begun(live: Dev) -> Dev:
    """Each partition has its first rows in the lake: what lies below this offset changes no more."""
    first = "select count(*) as n from (select _partition from decisions group by 1 having max(_offset) > 20)"
    live.wait(lambda: live.sql(first)[0]["n"] == 4, "rows are stored")
    return live


@pytest.mark.parametrize("binary", [False, True])
def test_lists_are_text_decimals_are_doubles_and_a_list_is_no_parameter(begun, binary):
    with connect(port_of(begun)) as connection:
        sent = connection.execute(
            "select [1, 2, 3] as l, cast('1.25' as decimal(10, 2)) as d", binary=binary
        )
        types = [column.type_code for column in sent.description or []]
        assert types == [
            psycopg.adapters.types[name].oid for name in ("varchar", "float8")
        ]
        assert sent.fetchall() == [("[1, 2, 3]", 1.25)]
        some = "select distinct route from decisions where _offset < 20 limit 2"
        routes = [route for (route,) in connection.execute(some).fetchall()]
        below = "select count(*) from decisions where _offset < 20 and route"
        wanted = [
            connection.execute(f"{below} = %s", [route]).fetchall()[0][0]
            for route in routes
        ]
        assert len(routes) == 2 and all(wanted)
        both = connection.execute(f"{below} in (%s, %s)", routes, binary=binary)
        assert both.fetchall() == [(sum(wanted),)]
        with pytest.raises(psycopg.Error):
            connection.execute(f"{below} = any(%s)", [routes], binary=binary)
        assert connection.execute("select 1").fetchall() == [(1,)]


def test_whole_numbers_go_round_and_decimals_do_not(live):
    with connect(port_of(live)) as connection:
        least, greatest = -(2**63), 2**63 - 1
        for query, wanted in [
            (f"select {greatest} + value from range(1, 2)", least),
            (f"select sum(value + {greatest}) from range(0, 1)", greatest),
            (f"select sum({greatest - 1} + value) from range(0, 2)", -3),
            (
                f"select sum(cast({greatest - 1} + value as decimal(38, 0))) from range(0, 2)",
                float(2 * greatest - 1),
            ),
        ]:
            assert connection.execute(query).fetchall() == [(wanted,)], query


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A row may have 8 MiB, and a function make 4 at once."""
    server = Server(tmp_path_factory.mktemp("bounded"))
    try:
        server.start(sql="[sql]\nmemory_mib = 64")
        yield server
    finally:
        server.end()


def long_row(columns: int) -> str:
    """Of three million bytes for each column."""
    letters = "abcdefgh"[:columns]
    made = [
        f"concat(repeat('{letter}', 2999999), cast(value as varchar)) as {letter}"
        for letter in letters
    ]
    return f"select {', '.join(made)} from range(0, 2)"


@pytest.mark.parametrize(
    ("within", "wanted", "beyond", "code", "part"),
    [
        (
            "select length(" + " || ".join(["'a'"] * 201) + ")",
            201,
            "select length(" + " || ".join(["'a'"] * 202) + ")",
            "42000",
            "201 times ||, of 200",
        ),
        (
            "select 1" + " + 1" * 2000,
            2001,
            "select 1" + " + 1" * 2001,
            "42000",
            "2001 operators, joins and unions, of 2000",
        ),
        (
            long_row(2),
            3_000_000,
            long_row(3),
            "53200",
            "of 8388608 that one may have",
        ),
    ],
    ids=["concatenations", "operators", "a row"],
)
def test_bounds_are_where_they_are_said_to_be(
    bounded, within, wanted, beyond, code, part
):
    with connect(bounded.port) as connection:
        (first, *_) = connection.execute(within).fetchall()
        values = [cell if isinstance(cell, int) else len(cell) for cell in first]
        assert set(values) == {wanted}
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(beyond).fetchall()
        assert refused.value.sqlstate == code, refused.value
        assert part in str(refused.value)


JSON, LINES, CSV = "application/json", "application/x-ndjson", "text/csv"


@pytest.mark.parametrize(
    ("body", "option", "accepted", "wanted"),
    [
        ("csv", "?format=jsonl", JSON, CSV),
        (None, "?format=jsonl", CSV, LINES),
        (None, "", CSV, CSV),
        (None, "", "text/html, text/csv;q=0.5", CSV),
        (None, "", "*/*", JSON),
        (None, "", "text/html", JSON),
    ],
)
def test_the_form_is_the_bodys_then_the_options_then_what_is_accepted(
    live, body, option, accepted, wanted
):
    asked = {"query": "select 1 as n"} | ({"format": body} if body else {})
    request = urllib.request.Request(
        f"http://{live.http}/v1/sql{option}",
        json.dumps(asked).encode(),
        {"Content-Type": JSON, "Accept": accepted},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["Content-Type"] == wanted


def call(dev: Dev, method: str, path: str, body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    url = f"http://{dev.http}/v1/exports{path}"
    request = urllib.request.Request(url, data, method=method)
    with urllib.request.urlopen(request, timeout=70) as answer:
        return json.load(answer)


def cancelled_export(dev: Dev) -> str:
    """One of an interval that isn't over, given up."""
    now = datetime.now(UTC)
    start, end = (
        time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in (now, now + timedelta(days=1))
    )
    interval = {"start": start, "end": end}
    body = {"dataset": "decisions", "interval": interval, "wait_for_close": True}
    export = call(dev, "POST", "", body)["id"]
    assert call(dev, "DELETE", f"/{export}")["state"] == "cancelled"
    return export


def test_a_server_for_readers_has_what_its_configuration_names(
    begun: Dev, tmp_path: Path
):
    live = begun
    export = cancelled_export(live)
    sections = f"""
        [kafka]
        brokers = "{live.kafka}"
        [exports]
        url = "{live.data / "exports"}"
        [registry]
        urls = ["http://{live.registry}"]
    """
    lag = """select "partition", end_offset from lag
        where topic = 'aion.router.decisions' order by 1"""
    registered = "select subject, version, id, fingerprint from schemas where source = 'registry' order by 1, 2"
    answers = {}
    for name, more in (("with", sections), ("without", "")):
        folder = tmp_path / name
        folder.mkdir()
        server = Server(folder, live.data / "lake")
        try:
            server.start(sql=more)
            before = ends(live)
            with connect(server.port) as connection:
                seen = dict(connection.execute(lag).fetchall())
                schemas = connection.execute(registered).fetchall()
                try:
                    exports = connection.execute("select id, state from exports")
                    answers[name] = schemas, exports.fetchall()
                except psycopg.errors.UndefinedTable as none:
                    answers[name] = schemas, str(none)
            after = ends(live)
        finally:
            server.end()
        assert sorted(seen) == [0, 1, 2, 3]
        for number, end in seen.items():
            place = ("decisions", number)
            if more:
                assert before.get(place, 0) <= end <= after.get(place, 0), seen
            else:
                assert end is None, seen
    with connect(port_of(live)) as connection:
        everything = connection.execute(registered).fetchall()
    schemas, exports = answers["with"]
    assert schemas == everything and len(schemas) >= 4
    assert (export, "cancelled") in exports
    # Negative control: it is the configuration that names them.
    schemas, none = answers["without"]
    assert schemas == [] and "no table `exports`" in none
