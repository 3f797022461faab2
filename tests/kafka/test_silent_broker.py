"""A broker that takes requests and answers none, for longer than a member of a group may go unheard."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from brokers import Embedded
from processes import Process

SESSION_S = 6
# The session is over, and so are ten seconds without partitions and a question that nobody answers.
SILENT_S = 30


def test_who_has_nothing_outlives_a_broker_that_stands_still(tmp_path: Path):
    """Both lose what they have, ask whose it is, and go on once they are answered."""
    broker = Embedded(tmp_path / "broker")
    runs = [Process(tmp_path / f"{n}.log") for n in range(2)]
    try:
        broker.start()
        assert broker.bootstrap().returncode == 0
        for run in runs:
            config = tmp_path / "aion.toml"
            config.write_text(
                f'[kafka]\nbrokers = "{broker.brokers()}"\n[lake]\nurl = "{tmp_path / "lake"}"\n'
                f'[http]\nlisten = "{run.http}"\n'
                '[[job]]\ntopic = "aion.gaps"\nsinks = ["lake"]\n'
                '[[job]]\ntopic = "aion.dead-letters"\nsinks = ["lake"]\n'
                f"[kafka.properties]\n'session.timeout.ms' = {SESSION_S * 1000}\n'heartbeat.interval.ms' = 500\n"
            )
            run.launch("run", "--config", config)
            run.wait_ready()
        assert broker.process
        broker.process.send_signal(signal.SIGSTOP)
        time.sleep(SILENT_S)
        broker.process.send_signal(signal.SIGCONT)
        time.sleep(5)
        for run in runs:
            run.wait_ready()
            assert "lost partitions" in run.output()
    finally:
        for run in runs:
            run.end()
        broker.stop()
