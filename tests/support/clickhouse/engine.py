"""The test engine as a process: started, killed, started again on what it kept."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

FRONT = Path(__file__).with_name("front.py")


class QueryError(Exception):
    """The engine refused; `code` is ClickHouse's, `status` HTTP's."""

    def __init__(self, code: int, status: int, text: str) -> None:
        super().__init__(text)
        self.code, self.status = code, status


class Engine:
    """One engine on a folder. The port stays the same over restarts."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options, self.port = folder, options, 0
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, FRONT, self.folder, "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, *self.options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        line = self.process.stdout.readline().decode()
        if not line:
            raise RuntimeError(f"the engine ended with {self.process.wait()}")
        self.port = int(line.split()[-1])

    def kill(self) -> None:
        """kill -9: nothing is written that was not written."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def query(self, sql: str, body: bytes | None = None, **settings: object) -> str:
        """Runs one statement, with `body` as the data of an INSERT."""
        given = {name: str(value) for name, value in settings.items()}
        if body is None:
            body = sql.encode()
        else:
            given["query"] = sql
        url = f"{self.url}/?{urllib.parse.urlencode(given)}"
        try:
            with urllib.request.urlopen(url, data=body, timeout=60) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            code = int(error.headers.get("X-ClickHouse-Exception-Code", 0))
            raise QueryError(code, error.code, error.read().decode()) from None

    def rows(
        self, sql: str, form: str = "JSONCompactEachRow", **settings: object
    ) -> list[list]:
        """The rows of an answer, as JSON has them."""
        text = self.query(
            f"{sql} FORMAT {form}",
            output_format_json_quote_64bit_integers=0,
            **settings,
        )
        return [json.loads(line) for line in text.splitlines()]

    def fault(self, match: str, kind: str, **more: object) -> None:
        """The next query that `match` is found in meets a fault; the kinds stand in README.md."""
        body = json.dumps({"match": match, "kind": kind, **more}).encode()
        urllib.request.urlopen(f"{self.url}/fault", data=body, timeout=60).close()

    def put_clock_ahead(self, seconds: int) -> None:
        """From now on, until it is started again, questions are told a time that is so much later."""
        body = str(seconds).encode()
        urllib.request.urlopen(f"{self.url}/clock", data=body, timeout=60).close()

    def met(self) -> int:
        """How many faults queries have met since it was started; where one comes after, the query has run by then."""
        with urllib.request.urlopen(f"{self.url}/faults", timeout=60) as answer:
            return json.load(answer)

    def refusals(self, code: int) -> int:
        """How many queries were refused with this code since it was started."""
        with urllib.request.urlopen(f"{self.url}/refusals", timeout=60) as answer:
            return json.load(answer).get(str(code), 0)
