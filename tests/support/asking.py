"""A process of the jobs that answers questions, and those who ask it."""

from __future__ import annotations

import http.client
import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import psycopg
from brokers import Embedded
from cluster import Place
from processes import Process, free_port

KEY = "a-key-of-32-characters-for-tests"
# A question that takes no memory, and all the time that it is given.
ENDLESS = "select count(*) from range(0, 3000000000) a, range(0, 3000000000) b"


class Asked:
    """An answer, or why there is none."""

    def __init__(self, rows: list[list[str]], code: str, message: str) -> None:
        self.rows, self.code, self.message = rows, code, message


class Asking:
    """An `aion run` that takes questions, within bounds that are small."""

    def __init__(self, folder: Path, bounds: str) -> None:
        self.broker = Embedded(folder / "broker")
        self.broker.start()
        self.place = Place(self.broker, folder, "asked.under-load")
        self.place.bootstrap()
        (folder / "key").write_text(KEY)
        self.port = free_port()
        more = f'keys = ["file:{folder / "key"}"]\n[sql]\n{bounds}\n'
        more += f'[sql.postgres]\nlisten = "127.0.0.1:{self.port}"\n'
        self.run: Process = self.place.run(more=more)
        self.run.wait_ready()

    def open(self, query: str, form: str = "application/json"):
        headers = {"Authorization": f"Bearer {KEY}", "Accept": form}
        url = f"http://{self.run.http}/v1/sql"
        request = urllib.request.Request(url, query.encode(), headers)
        return urllib.request.urlopen(request, timeout=200)

    def by_http(self, query: str) -> Asked:
        try:
            with self.open(query) as answer:
                rows = json.load(answer)["rows"]
        except urllib.error.HTTPError as answer:
            problem = json.load(answer)
            return Asked([], str(answer.code), problem["detail"])
        except http.client.IncompleteRead:
            return Asked([], "broken off", "")
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

    def connect(self) -> psycopg.Connection:
        where = f"host=127.0.0.1 port={self.port} user=me dbname=aion"
        return psycopg.connect(where, autocommit=True)

    def end(self) -> None:
        self.place.end()
        self.broker.stop()
