"""The receiver that costs little (counter/main.go), as a process of its own."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.request
from pathlib import Path

SOURCE = Path(__file__).parent / "counter" / "main.go"


class Receiver:
    """Counts deliveries by the first part of their path. With a certificate and its key it speaks TLS as localhost."""

    def __init__(self, folder: Path, tls: tuple[Path, Path] | None = None) -> None:
        program = folder / "counter"
        if not program.exists():
            subprocess.run(["go", "build", "-o", program, SOURCE], check=True)
        shown = ["-certificate", tls[0], "-key", tls[1]] if tls else []
        self.process = subprocess.Popen([program, *shown], stdout=subprocess.PIPE)
        assert self.process.stdout
        port = int(self.process.stdout.readline())
        self.url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"

    def get(self, path: str) -> dict:
        # Whose certificate it is, is none of this question's business.
        context = ssl._create_unverified_context()
        with urllib.request.urlopen(self.url + path, context=context) as answer:
            return json.load(answer)

    def counts(self) -> dict[str, int]:
        return self.get("/counts")

    def ages(self) -> dict[str, float]:
        """count, p50, p99 and max of the time from append to arrival, in ms; begins anew with each question."""
        return self.get("/ages")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
