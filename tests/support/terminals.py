"""What a person sees of a program that runs on a terminal, and types into it."""

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

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A screen of 24 lines with a program on it."""

    def __init__(
        self, *command: object, columns: int = 80, **environment: str | None
    ) -> None:
        """`None` takes a variable of the environment away."""
        above, below = pty.openpty()
        size = struct.pack("HHHH", 24, columns, 0, 0)
        fcntl.ioctl(below, termios.TIOCSWINSZ, size)
        known = {**os.environ, "TERM": "xterm", **environment}
        self.process = subprocess.Popen(
            # `less` reads its keys, and Ctrl-C comes, from the terminal that controls a program.
            ["setsid", "--ctty", *command],
            stdin=below,
            stdout=below,
            stderr=below,
            env={name: value for name, value in known.items() if value is not None},
        )
        os.close(below)
        self.above, self.seen = above, ""

    def until(self, wanted: str, seconds: float = 30) -> str:
        """What is shown next, as far as this; a carriage return alone begins the line anew."""
        end = time.monotonic() + seconds
        while wanted not in self.seen:
            assert time.monotonic() < end, f"no {wanted!r} in {self.seen!r}"
            assert self.look(), f"it ended without {wanted!r}: {self.seen!r}"
        shown, self.seen = self.seen.split(wanted, 1)
        return shown + wanted

    def rest(self, seconds: float = 60) -> str:
        """What is shown until the program ends."""
        end = time.monotonic() + seconds
        while self.look():
            assert time.monotonic() < end, f"it doesn't end: {self.seen[-2000:]!r}"
        self.process.wait(10)
        shown, self.seen = self.seen, ""
        return shown

    def look(self) -> bool:
        """Takes what is there, after a moment; false once there will be no more."""
        if not select.select([self.above], [], [], 0.5)[0]:
            return True
        try:
            piece = os.read(self.above, 65536)
        except OSError:
            # Linux says so when nobody has the other side open.
            return False
        self.seen += ESCAPES.sub("", piece.decode(errors="replace"))
        return bool(piece)

    def say(self, text: str) -> None:
        os.write(self.above, text.encode())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.above)
