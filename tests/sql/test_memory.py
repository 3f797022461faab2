"""Questions that want more memory than they may have: they go to disk or end with a message, and events flow on."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from brokers import Embedded
from cluster import Place, Producing
from processes import Process, free_port, sql

MEMORY_MIB = 32
KEY = "a-key-of-32-characters-for-tests"
# About 70 MB of text, each different, in an order that isn't that of the text.
WIDE = "select value as k, repeat(reverse(cast(value * 7919 as varchar)), 20) as t from range(0, 500000)"
TOO_MUCH = f"more than the {MEMORY_MIB} MiB of memory it may have"


class Asked:
    """An answer, or why there is none."""

    def __init__(self, rows: list[list[str]], code: str, message: str) -> None:
        self.rows, self.code, self.message = rows, code, message


class Asking:
    """An `aion run` that takes questions and has little memory for them."""

    def __init__(self, folder: Path) -> None:
        self.broker = Embedded(folder / "broker")
        self.broker.start()
        self.place = Place(self.broker, folder, "asked.under-load")
        self.place.bootstrap()
        (folder / "key").write_text(KEY)
        self.port = free_port()
        more = f'keys = ["file:{folder / "key"}"]\n[sql]\nmemory_mib = {MEMORY_MIB}\n'
        more += f'[sql.postgres]\nlisten = "127.0.0.1:{self.port}"\n'
        self.run: Process = self.place.run(more=more)
        self.run.wait_ready()

    def by_http(self, query: str) -> Asked:
        headers = {"Authorization": f"Bearer {KEY}", "Accept": "application/json"}
        request = urllib.request.Request(
            f"http://{self.run.http}/v1/sql", query.encode(), headers
        )
        try:
            with urllib.request.urlopen(request, timeout=200) as answer:
                rows = json.load(answer)["rows"]
        except urllib.error.HTTPError as answer:
            problem = json.load(answer)
            return Asked([], str(answer.code), problem["detail"])
        return Asked([[str(cell) for cell in row.values()] for row in rows], "200", "")

    def by_psql(self, query: str) -> Asked:
        asked = ["psql", "-X", "-At", "-F,", "-v", "VERBOSITY=verbose"]
        asked += ["-h", "127.0.0.1", "-p", str(self.port), "-U", "me", "aion"]
        said = subprocess.run(
            [*asked, "-c", query],
            check=False,
            capture_output=True,
            text=True,
            timeout=200,
        )
        rows = [line.split(",") for line in said.stdout.splitlines()]
        code = said.stderr.removeprefix("ERROR:  ").split(":")[0]
        return Asked(rows, code or "200", said.stderr)

    def memory_mib(self, what: str) -> int:
        status = Path(f"/proc/{self.run.process.pid}/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0]) // 1024

    def end(self) -> None:
        self.place.end()
        self.broker.stop()


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory):
    asking = Asking(tmp_path_factory.mktemp("memory"))
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
    before = asking.memory_mib("VmRSS")
    with Producing(asking.place, pause_s=0.2):
        sent = asking.place.sent
        for ask, refused in ((asking.by_http, "422"), (asking.by_psql, "53200")):
            groups = ask(GROUPS)
            assert groups.rows == [["500000", "500000", "20"]], groups.message
            assert ask(SORT).rows == [SORTED]
            long = ask(SORT_OF_TEXT)
            texts = [row[0] for row in long.rows]
            if texts:
                assert len(texts) == 500_000 and texts == sorted(texts)
            else:
                assert TOO_MUCH in long.message
            join = ask(JOIN)
            assert (join.code, join.rows) == (refused, []), join.message
            assert TOO_MUCH in join.message and "ask for less at once" in join.message
            # The next one isn't the worse for it.
            assert ask("select 1").rows == [["1"]]
        assert asking.place.sent > sent + 1000
    assert asking.run.get("/readyz")[0] == 200
    # What isn't counted is small: pieces under way, what the allocator keeps.
    assert asking.memory_mib("VmHWM") < before + 12 * MEMORY_MIB
    asking.place.wait_and_check()


def test_with_more_memory_it_has_an_answer(asking: Asking):
    """Negative control: it is the bound that refuses it."""
    (row,) = sql(JOIN, "--lake", asking.place.lake, "--memory", "2GiB")
    assert row == {"count(*)": 500_000}
