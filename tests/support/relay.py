"""A way to a broker that can be cut, as a network is: nothing is refused, nothing arrives, and what was on its way
arrives late."""

from __future__ import annotations

import contextlib
import socket
import threading


class Relay:
    """Listens in a broker's place. A client that comes by it is told this address as the broker's, so it can't come
    by another way."""

    def __init__(self, broker: str) -> None:
        host, port = broker.rsplit(":", 1)
        self.far = (host, int(port))
        self.listener = socket.create_server((host, 0))
        self.address = f"{host}:{self.listener.getsockname()[1]}"
        # Wherever a broker's answers name it: its host, then its port as four bytes.
        self.real, self.ours = (
            host.encode() + number.to_bytes(4, "big")
            for number in (int(port), self.listener.getsockname()[1])
        )
        self.flows = threading.Event()
        self.flows.set()
        threading.Thread(target=self.serve, daemon=True).start()

    def cut(self) -> None:
        self.flows.clear()

    def heal(self) -> None:
        self.flows.set()

    def close(self) -> None:
        self.heal()
        with contextlib.suppress(OSError):
            # Wakes the thread that waits for clients.
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                try:
                    far = socket.create_connection(self.far)
                except OSError:
                    near.close()
                    continue
                for pump, ends in (
                    (self.requests, (near, far)),
                    (self.answers, (far, near)),
                ):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    def requests(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError), client, broker:
            while data := client.recv(65536):
                self.flows.wait()
                broker.sendall(data)
            broker.shutdown(socket.SHUT_WR)

    def answers(self, broker: socket.socket, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            broker,
            client,
            broker.makefile("rb") as answers,
        ):
            # Whole ones, so that no address lies across two pieces.
            while len(size := answers.read(4)) == 4:
                answer = answers.read(int.from_bytes(size, "big"))
                self.flows.wait()
                client.sendall(size + answer.replace(self.real, self.ours))
