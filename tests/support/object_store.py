"""An object store that speaks S3 (moto), and a proxy before it that fails as real ones do.

Run as a program it is a store, without the proxy, until its standard input ends.
"""

from __future__ import annotations

import http.client
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from processes import free_port, wait

BUCKET = "lake"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
# How long an answer is in coming that never comes: longer than clients of the tests wait.
SILENCE_S = 4


class Moto:
    """The store itself, with one empty bucket."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log = (folder / "moto.log").open("wb")
        address = ["-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", *address],
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        wait(self.makes_bucket, "the object store answers", 60)

    def makes_bucket(self) -> bool:
        request = urllib.request.Request(f"{self.url()}/{BUCKET}", method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """How `aion` and deltalake reach it."""
        where = {"AWS_ENDPOINT_URL": self.url(), "AWS_ALLOW_HTTP": "true"}
        return {**KEYS, **where, "AWS_REGION": "us-east-1"}

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


class Proxy(ThreadingHTTPServer):
    """Passes requests on, or fails them: before they had an effect, or after."""

    daemon_threads = True

    def __init__(self, store: Moto, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store, self.random = store, random.Random(seed)
        self.fail_share = 0.0
        self.put_takes_s = 0.0
        self.ignores_conditions = False
        self.failed = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self) -> str | None:
        if self.random.random() >= self.fail_share:
            return None
        self.failed += 1
        return self.random.choice(
            ["500", "503", "lost before", "500 after", "lost after", "silent after"]
        )

    def handle_error(self, *_: object) -> None:
        """A client that hung up is no news."""


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault()
        if self.command == "PUT":
            time.sleep(self.server.put_takes_s)
        if fault in ("500", "503"):
            return self.answer(int(fault), {}, b"<Error><Code>SlowDown</Code></Error>")
        if fault == "lost before":
            return self.hang_up()
        headers = dict(self.headers.items())
        if self.server.ignores_conditions:
            headers = {
                name: value
                for name, value in headers.items()
                if name.lower() != "if-none-match"
            }
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.store.port)
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if fault == "silent after":
            time.sleep(SILENCE_S)
        if fault in ("lost after", "silent after"):
            return self.hang_up()
        if fault == "500 after":
            return self.answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
        return self.answer(answer.status, dict(answer.getheaders()), content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do

    def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in (
                "connection",
                "transfer-encoding",
                "content-length",
            ):
                self.send_header(name, value)
        length = headers.get("Content-Length", len(content))
        self.send_header(
            "Content-Length", str(length if self.command == "HEAD" else len(content))
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Not on the terminal."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Moto(Path(folder))
        print(f"listening at {store.url()}", flush=True)
        sys.stdin.read()
        store.stop()


if __name__ == "__main__":
    main()
