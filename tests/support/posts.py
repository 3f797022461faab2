"""A server on this machine that takes POSTs, for whoever plays the other side in a test."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The handler to answer by, the headers under small letters, the body.
Take = Callable[[BaseHTTPRequestHandler, dict[str, str], bytes], None]


class Server(ThreadingHTTPServer):
    """Serves in threads of its own, until it is shut down; with TLS if it is told what to show."""

    request_queue_size = 512
    daemon_threads = True

    def __init__(self, take: Take, tls: ssl.SSLContext | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                take(self, headers, body)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        if tls:
            # Each connection shakes hands in its own thread, at its first byte.
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        # How soon it hears that it shall stop: half a second would be most of a short test.
        wait = {"poll_interval": 0.02}
        threading.Thread(target=self.serve_forever, kwargs=wait, daemon=True).start()

    def handle_error(self, *_: object) -> None:
        pass  # a client that was killed
