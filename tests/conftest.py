"""What every test may ask for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from processes import Dev


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long each folder's tests took, by one worker: what a change costs those who run all of them."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                folder = report.nodeid.partition("::")[0].split("/")[-2:-1] or ["."]
                seconds[folder[0]] += report.duration
    told = ", ".join(f"{name} {took:.0f}" for name, took in seconds.most_common())
    terminalreporter.write_line(f"seconds by folder: {told}")


@pytest.fixture
def dev(tmp_path: Path):
    dev = Dev(tmp_path)
    yield dev
    dev.end()
