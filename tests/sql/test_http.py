"""Questions over live and stored rows by HTTP: forms, parameters, bounds, and what they leave to ingestion."""

from __future__ import annotations

import csv
import io
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

import polars
import pytest
from asking import ENDLESS
from offsets import ends
from processes import Dev, sql

LARGE = "select a.value from range(0, 3000000) a"
TOPICS = {
    "decisions": "aion.router.decisions",
    "tasks": "aion.tasks.lifecycle",
    "metrics": "aion.metrics.runtime",
    "audit": "aion.audit.activity",
}
# What all questions together may hold, unless it is said otherwise.
MEMORY_MIB = 256


@pytest.fixture(scope="module")
def live(live: Dev) -> Dev:
    """Each partition has its first rows: what lies below this offset changes no more."""
    ask = "select count(*) as n from (select _partition from decisions group by 1 having max(_offset) > 20)"
    live.wait(lambda: rows(live, ask)[0]["n"] == 4, "rows can be seen")
    return live


def post(
    dev, body: object, options: str = "", **headers: str
) -> tuple[int, str, bytes]:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "application/sql" if isinstance(body, str) else "application/json"
    request = urllib.request.Request(
        f"http://{dev.http}/v1/sql{options}", data, {"Content-Type": kind, **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers["Content-Type"], answer.read()


def rows(dev, query: str, parameters: object = None) -> list[dict]:
    status, kind, body = post(dev, {"query": query, "parameters": parameters})
    assert (status, kind) == (200, "application/json"), body
    answer = json.loads(body)
    assert answer["count"] == len(answer["rows"])
    return answer["rows"]


def in_log(dev) -> int:
    """How many events the log has, asked of the broker."""
    return sum(ends(dev).values())


def stored(dev) -> int:
    """How many rows of those topics this process has stored in the lake."""
    jobs = [f"{table}-lake" for table in TOPICS]
    return int(sum(dev.metric("aion_rows_stored_total", job=job) for job in jobs))


def count(dev, where: str = "true") -> int:
    return rows(dev, f"select count(*) as n from decisions where {where}")[0]["n"]


def test_every_form_has_the_same_rows(live):
    query = "select task_id, route, size, cost_budget, timestamp from decisions where _offset < 20 order by 1, 5"
    expected = [row["task_id"] for row in rows(live, query)]
    assert len(expected) > 20
    status, kind, body = post(live, query, Accept="text/csv")
    assert (status, kind) == (200, "text/csv")
    assert [
        row["task_id"] for row in csv.DictReader(io.StringIO(body.decode()))
    ] == expected
    for form, read in [
        ("arrow", polars.read_ipc_stream),
        ("parquet", polars.read_parquet),
    ]:
        _, _, body = post(live, {"query": query, "format": form})
        frame = read(io.BytesIO(body))
        assert frame["task_id"].to_list() == expected
        assert frame.schema["timestamp"] == polars.Datetime("us", "UTC")
    _, _, body = post(live, {"query": query, "format": "jsonl"})
    assert [json.loads(line)["task_id"] for line in body.splitlines()] == expected
    with urllib.request.urlopen(f"http://{live.http}/v1/tables") as answer:
        tables = {table["name"]: table for table in json.load(answer)["tables"]}
    columns = {column["name"]: column for column in tables["decisions"]["columns"]}
    assert columns["route"]["doc"] == "The route that was chosen: where the task runs."
    assert columns["timestamp"]["type"] == "timestamptz"
    assert {"task_latency", "decision_outcomes", "lag"} <= tables.keys()
    assert {"batches", "exports", "schemas"} <= tables.keys()
    assert all(column["doc"] for column in tables["schemas"]["columns"])


def test_parameters_and_problems(live):
    (route,) = rows(live, "select route from decisions limit 1")
    by_place = rows(
        live,
        "select count(*) as n from decisions where route = $1 and timestamp > $2",
        [route["route"], "2020-01-01T00:00:00Z"],
    )
    by_name = rows(
        live, "select count(*) as n from decisions where route = $route", route
    )
    assert by_name[0]["n"] >= by_place[0]["n"] > 0
    assert len(rows(live, "select task_id from decisions limit $1", [3])) == 3
    for query, status, part in [
        ("select * from decision", 400, "did you mean `decisions`?"),
        ("select rout from decisions", 400, "did you mean `route`?"),
        ("selec 1", 400, "selec"),
        ("select * from decisions where route = $1", 400, "$1"),
        ("drop table decisions", 403, "read-only"),
        ("copy decisions to '/tmp/stolen.csv'", 403, "read-only"),
        (
            "create external table e stored as csv location '/etc/passwd'",
            403,
            "read-only",
        ),
        ("set datafusion.execution.batch_size = 1", 403, "read-only"),
    ]:
        answer = post(live, query)
        assert answer[:2] == (status, "application/problem+json"), (query, answer)
        problem = json.loads(answer[2])
        assert problem["status"] == status and part in problem["detail"], (
            query,
            problem,
        )
    near = json.loads(post(live, "select * from decision")[2])
    assert (near["name"], near["near"]) == ("decision", "decisions")
    assert "tasks" in near["names"]
    assert post(live, "select 1", Origin="https://example.com")[0] == 403
    assert post(live, {"querry": "select 1"})[0] == 400


def test_a_form_that_there_is_not_is_a_problem_with_those_that_there_are(live):
    assert post(live, "select 1 as n", "?format=csv")[2] == b"n\n1\n"
    for body, options, part in [
        ("select 1", "?format=xml", "`parquet`"),
        ("select 1", "?fromat=csv", "`format`"),
        ({"query": "select 1", "format": "xml"}, "", "`parquet`"),
    ]:
        status, kind, problem = post(live, body, options)
        assert (status, kind) == (400, "application/problem+json"), (options, problem)
        assert part in json.loads(problem)["detail"], (options, problem)


def test_two_columns_of_one_name_are_no_object(live):
    columns, tables = "a.value, b.value", "range(1, 2) a cross join range(2, 3) b"
    query = f"select {columns} from {tables}"
    for form in ("json", "jsonl"):
        status, kind, body = post(live, {"query": query, "format": form})
        assert (status, kind) == (400, "application/problem+json"), body
        assert "two columns are named `value`" in json.loads(body)["detail"], body
    assert post(live, {"query": query, "format": "csv"})[2] == b"value,value\n1,2\n"
    assert rows(live, f"select {columns} as other from {tables}") == [
        {"value": 1, "other": 2}
    ]
    with pytest.raises(AssertionError, match="two columns are named"):
        sql(query, "--url", f"http://{live.http}")


def test_a_list_is_a_parameter(live):
    routes = [
        row["route"] for row in rows(live, "select distinct route from decisions")
    ]
    some = routes[:2] or routes
    below = "_offset < 20"
    written = ", ".join(f"'{route}'" for route in some)
    where = f"from decisions where {below} and route"
    (wanted,) = rows(live, f"select count(*) as n {where} in ({written})")
    (rest,) = rows(live, f"select count(*) as n {where} not in ({written})")
    assert wanted["n"] > 0
    for condition, found in [
        ("in ($1)", wanted),
        ("= any($1)", wanted),
        ("not in ($1)", rest),
        ("<> all($1)", rest),
    ]:
        query = f"select count(*) as n {where} {condition}"
        assert rows(live, query, [some]) == [found], condition
    named = f"select count(*) as n {where} = any($routes)"
    assert rows(live, named, {"routes": some}) == [wanted]
    # Numbers, of both kinds, times, and nothing.
    numbers = "select value as v from range(0, 5) where value in ($1)"
    assert [row["v"] for row in rows(live, numbers, [[3, 1.0, 7]])] == [1, 3]
    assert rows(live, numbers, [[]]) == []
    assert [
        row["v"] for row in rows(live, numbers.replace("($1)", "($1, $2)"), [[1], 4])
    ] == [1, 4]
    times = "select count(*) as n from decisions where timestamp = any($1)"
    (moment,) = rows(
        live, f"select timestamp as t from decisions where {below} limit 1"
    )
    assert rows(live, times, [[moment["t"], "2020-01-01T00:00:00Z"]])[0]["n"] >= 1
    for wrong in ([[1, "a"]], [[[1]]], [{"a": 1}]):
        status, _, body = post(live, {"query": numbers, "parameters": wrong})
        assert status == 400, body


def test_lag_is_what_the_broker_has_beyond_the_lake(live):
    before = ends(live)
    told = rows(live, 'select topic, "partition", mark, end_offset, lag from lag')
    after = ends(live)
    lags = {(row["topic"], row["partition"]): row for row in told}
    assert sum(before.values()) > 0
    for (table, number), end in before.items():
        row = lags[TOPICS[table], number]
        assert end <= row["end_offset"] <= after[table, number], row
        assert row["lag"] == row["end_offset"] - (row["mark"] or 0), row


def test_an_answer_that_is_too_long_is_never_taken_for_a_whole_one(live):
    status, _, body = post(live, {"query": LARGE, "max_rows": 10})
    assert status == 422 and b"more than 10 rows" in body
    # What fails after the first piece was sent breaks the connection off.
    with pytest.raises(Exception, match="IncompleteRead|ncomplete"):
        post(live, {"query": LARGE, "max_rows": 2_000_000, "format": "jsonl"})


def test_a_client_that_goes_ends_its_query(live):
    host, port = live.http.split(":")
    body = ENDLESS.encode()
    head = f"POST /v1/sql HTTP/1.1\r\nHost: {live.http}\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(3):
        # As many as may run at a time, so that any which goes on is in the way.
        clients = [socket.create_connection((host, int(port))) for _ in range(8)]
        for client in clients:
            client.sendall(head.encode() + body)
        time.sleep(0.5)
        for client in clients:
            client.close()
    begun = time.monotonic()
    assert count(live) > 0
    assert time.monotonic() - begun < 20


def test_a_body_that_does_not_come_is_not_waited_for(live):
    host, port = live.http.split(":")
    begun = time.monotonic()
    with ExitStack() as connections:
        clients = {}
        for path in ["/v1/sql", "/v1/validate/tasks", "/v1/exports"]:
            client = socket.create_connection((host, int(port)), 90)
            clients[path] = connections.enter_context(client)
            head = f"POST {path} HTTP/1.1\r\nHost: {live.http}\r\n"
            head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
            client.sendall(head.encode() + b"{")
        for path, client in clients.items():
            got = b""
            while b"too slowly" not in got and (part := client.recv(65536)):
                got += part
            assert got.startswith(b"HTTP/1.1 408 "), (path, got)
            assert b"application/problem+json" in got and b"too slowly" in got, path
    assert 25 < time.monotonic() - begun < 80


def test_events_flow_on_beside_a_ten_way_cross_join(dev):
    rate, seconds = 2000, 10
    dev.start("--rate", str(rate))
    dev.wait(lambda: count(dev) > rate, "there are rows to multiply")
    tables = ", ".join(f"decisions t{n}" for n in range(10))
    stopped: list = []

    def multiply() -> None:
        try:
            stopped.append(
                post(dev, f"select count(*) from {tables} where t0.size + t9.size = 1")
            )
        except OSError as cause:
            stopped.append(cause)

    before = dev.memory_mib("VmRSS")
    dev.forget_peak()
    greedy = threading.Thread(target=multiply, daemon=True)
    greedy.start()
    begun = in_log(dev)
    time.sleep(seconds)
    end = in_log(dev)
    assert end - begun > rate * seconds / 2, "the generator keeps its pace"
    everything = " + ".join(f"(select count(*) from {table})" for table in TOPICS)
    dev.wait(
        lambda: rows(dev, f"select {everything} as n")[0]["n"] >= end,
        "ingestion keeps up",
        5,
    )
    # Those may be live; the lake gets them as well.
    dev.wait(lambda: stored(dev) >= end, "the lake has what came meanwhile", 60)
    assert not stopped, f"the cross join should still run: {stopped}"
    grown = dev.memory_mib("VmHWM") - before
    assert grown < MEMORY_MIB, f"{grown} MiB more"
    assert dev.get("/readyz")[0] == 200


def test_aion_sql_asks_the_running_process(live):
    ask = "select count(*) as n, max(_append_time) as newest from decisions"
    before = count(live)
    (running,) = sql(ask, "--data", live.data)
    (stored,) = sql(ask, "--data", live.data, "--stored")
    after = count(live)
    assert before <= running["n"] <= after
    assert stored["n"] <= after
    (by_url,) = sql(ask, "--url", f"http://{live.http}")
    assert by_url["n"] >= running["n"]
    visible = live.metric("aion_sql_visible_after_seconds_count")
    assert visible > 0
