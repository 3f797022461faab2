"""The bounds of `aion run` on questions: their time, how many run at once, and the processors that they leave to jobs."""

from __future__ import annotations

import json
import os
import re
import socket
import time
import urllib.error
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from asking import ENDLESS, KEY, Asking
from processes import ROOT, Process, wait

TIMEOUT_S = 5
AT_ONCE = 2
MEMORY_MIB = 64
# What an answer may take beyond its time, on a machine that has other work.
LATE_S = 20


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory):
    bounds = f"timeout_s = {TIMEOUT_S}\nqueries = {AT_ONCE}\nmemory_mib = {MEMORY_MIB}"
    asking = Asking(tmp_path_factory.mktemp("bounds"), bounds)
    asking.place.produce(2000)
    wait(lambda: rows(asking) == 2000, "there are rows to multiply")
    yield asking
    asking.end()


def rows(asking: Asking) -> int:
    answer = asking.by_http(f"select count(*) as n from {asking.place.table}")
    assert answer.code == "200", answer.message
    return int(answer.rows[0][0])


def problem(asking: Asking, query: str) -> tuple[float, dict]:
    """Seconds until it was refused, and what was said."""
    begun = time.monotonic()
    with pytest.raises(urllib.error.HTTPError) as refused:
        asking.open(query)
    answer = refused.value
    assert answer.headers["Content-Type"] == "application/problem+json"
    return time.monotonic() - begun, json.load(answer)


def test_a_question_past_its_time_ends_with_advice_and_within_its_memory(
    asking: Asking,
):
    tables = ", ".join(f"{asking.place.table} t{n}" for n in range(10))
    multiply = f"select count(*) from {tables} where t0.size + t9.size = 1"
    before = asking.run.memory_mib("VmRSS")
    asking.run.forget_peak()
    # More than may run: those that only wait are stopped at their time as well.
    asked = [multiply, ENDLESS, ENDLESS, ENDLESS]
    with ThreadPoolExecutor(len(asked)) as clients:
        ends = clients.map(lambda query: problem(asking, query), asked)
        asking.place.produce(1000)
        for took_s, said in ends:
            assert TIMEOUT_S <= took_s < TIMEOUT_S + LATE_S, said
            assert (said["status"], said["title"]) == (504, "Gateway Timeout")
            assert f"stopped after {TIMEOUT_S}s" in said["detail"], said
            assert "ask for less at once" in said["detail"], said
            assert "timeout_s of [sql]" in said["detail"], said
    grown = asking.run.memory_mib("VmHWM") - before
    assert grown < 6 * MEMORY_MIB, f"{grown} MiB more"
    # Events flowed on, and the next one is answered.
    wait(lambda: rows(asking) == asking.place.sent, "what was sent meanwhile")


def test_past_its_time_a_client_of_postgresql_gets_its_code(asking: Asking):
    answer = asking.by_psql(ENDLESS)
    assert (answer.code, answer.rows) == ("57014", []), answer.message
    assert f"stopped after {TIMEOUT_S}s" in answer.message


@contextmanager
def greedy(asking: Asking):
    """A question without end, for as long as its client stays."""
    host, port = asking.run.http.split(":")
    body = ENDLESS.encode()
    head = f"POST /v1/sql HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body)
        time.sleep(0.5)
        yield


def test_a_question_too_many_waits_for_its_turn(asking: Asking):
    with ThreadPoolExecutor(1) as others:

        def ask() -> Future:
            return others.submit(asking.by_http, "select 1 as n")

        with greedy(asking):
            # One turn is left.
            assert ask().result(TIMEOUT_S).rows == [["1"]]
            with greedy(asking):
                waiting = ask()
                time.sleep(1.5)
                assert not waiting.done(), waiting.result()
            # Whoever goes makes room.
            answer = waiting.result(TIMEOUT_S)
            assert answer.rows == [["1"]], answer.message


def niceness(run: Process) -> dict[str, set[int]]:
    """Of the threads of a process, by their names without numbers."""
    found: dict[str, set[int]] = {}
    for name, fields in run.threads().values():
        found.setdefault(name.rstrip("0123456789-"), set()).add(int(fields[16]))
    return found


def test_questions_get_what_jobs_leave_of_the_processors(asking: Asking):
    page = (ROOT / "docs" / "sql.md").read_text()
    (said,) = re.findall(r"\(niceness (\d+)\)", page)
    # A test that runs politely itself starts a process that does.
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    threads = niceness(asking.run)
    assert threads.pop("aion-sql") == {max(int(said), ours)}
    # All others have what the process was started with, those of the jobs and of librdkafka among them.
    assert any(name.startswith("read asked") for name in threads)
    assert {"rdk:main", "rdk:broker", "tokio-rt-worker"} <= threads.keys()
    assert set.union(*threads.values()) == {ours}, threads
