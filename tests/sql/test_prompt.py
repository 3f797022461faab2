"""The prompt of `aion sql` on a terminal: what is longer than the screen goes through a pager, and nothing else does."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest
from processes import binary

COLOURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A person in front of a prompt, on a screen of 80 by 24."""

    def __init__(self, dev, folder: Path, **environment: str) -> None:
        above, below = pty.openpty()
        fcntl.ioctl(below, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        known = {k: v for k, v in os.environ.items() if k not in ("PAGER", "LESS")}
        known |= {"TERM": "xterm", "XDG_STATE_HOME": str(folder), **environment}
        self.process = subprocess.Popen(
            # `less` reads its keys from the terminal that controls it.
            ["setsid", "--ctty", binary(), "sql", "--url", f"http://{dev.http}"],
            stdin=below,
            stdout=below,
            stderr=below,
            env=known,
        )
        os.close(below)
        self.above, self.seen = above, ""
        self.until("aion> ")

    def until(self, wanted: str, seconds: float = 30) -> str:
        """What is shown next, as far as this."""
        end = time.monotonic() + seconds
        while wanted not in self.seen:
            assert time.monotonic() < end, f"no {wanted!r} in {self.seen!r}"
            if select.select([self.above], [], [], 0.5)[0]:
                piece = os.read(self.above, 65536).decode(errors="replace")
                self.seen += COLOURS.sub("", piece)
        shown, self.seen = self.seen.split(wanted, 1)
        return shown + wanted

    def say(self, text: str) -> None:
        os.write(self.above, text.encode())

    def ask(self, text: str, wanted: str = "aion> ") -> str:
        # The line that was typed is shown too.
        self.say(text + "\r")
        return self.until(wanted)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.above)


@pytest.fixture
def terminal(live, tmp_path: Path):
    opened = []

    def open_(**environment: str) -> Terminal:
        opened.append(Terminal(live, tmp_path, **environment))
        return opened[-1]

    yield open_
    for one in opened:
        one.end()


def test_what_is_longer_than_the_screen_goes_through_the_pager(terminal, tmp_path):
    seen = tmp_path / "seen"
    prompt = terminal(PAGER=f"cat > {seen}")
    short = prompt.ask("select value from range(0, 5);", "5 rows")
    assert "|     4 |" in short and not seen.exists()
    prompt.until("aion> ")
    prompt.ask("select value from range(0, 100);")
    lines = seen.read_text().splitlines()
    assert lines[-1].startswith("100 rows") and "|    99 |" in lines
    # All of it: nothing stands on the screen before it is known to be too long.
    assert lines[1] == "| value |"
    seen.unlink()
    prompt.ask(r"\d decisions")
    assert "task_id" in seen.read_text()
    seen.unlink()
    assert "not used" in prompt.ask(r"\pset pager off", "used")
    prompt.until("aion> ")
    prompt.ask("select value from range(0, 100);", "100 rows")
    assert not seen.exists()
    assert "the pager is used" in prompt.ask(r"\pset pager on", "used")


def test_less_shows_a_screen_and_whoever_leaves_it_is_back_at_the_prompt(terminal):
    prompt = terminal()
    first = prompt.ask("select value from range(0, 1000000000);", "|    10 |")
    assert "|  1000 |" not in first
    prompt.say("q")
    prompt.until("aion> ")
    assert "| 2 |" in prompt.ask("select 1 + 1 as n;", "1 row")


def test_without_a_terminal_there_is_no_pager(live, tmp_path):
    seen = tmp_path / "seen"
    command = [binary(), "sql", "--url", f"http://{live.http}"]
    said = subprocess.run(
        [*command, "select value from range(0, 1000)"],
        env={**os.environ, "PAGER": f"cat > {seen}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1000 rows" in said.stdout and not seen.exists()
