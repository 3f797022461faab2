"""A pipeline with everything that can be watched."""

from __future__ import annotations

import subprocess
from pathlib import Path

from brokers import Embedded
from processes import Process, binary
from receivers import Receiver, policy


class Everything(Process):
    """One `aion run` with lake, series, audit and webhooks, and events of all topics, some of them broken."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "aion.log")
        self.folder = folder
        self.broker = Embedded(folder / "broker")
        self.receiver = Receiver()
        self.events: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.broker.start()
        done = self.broker.bootstrap()
        assert done.returncode == 0, done.stdout + done.stderr
        hooks = self.folder / "webhooks.yaml"
        entry = {"id": "sink", "url": self.receiver.url, "topics": ["aion.tasks.*"]}
        policy(hooks, entry)
        config = self.folder / "aion.toml"
        config.write_text(
            f'[kafka]\nbrokers = "{self.broker.brokers()}"\n'
            f'[lake]\nurl = "{self.folder / "lake"}"\nflush_age_s = 1\n'
            f'[http]\nlisten = "{self.http}"\n'
            "[metrics]\nflush_age_s = 1\n[audit]\nevery_s = 4\n"
            f'[webhooks]\npolicy = "{hooks}"\nflush_ms = 200\n'
        )
        self.launch("run", "--config", config)
        self.wait_ready()
        self.events = subprocess.Popen(
            [binary(), "generate", "--to", self.broker.brokers()]
            + ["--rate", "400", "--count", "1000000", "--bad-share", "0.02"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end(self) -> None:
        if self.events:
            self.events.kill()
            self.events.wait()
        super().end()
        self.receiver.close()
        self.broker.stop()
