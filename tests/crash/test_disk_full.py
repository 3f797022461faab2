"""A disk that fills up under a lake, or under all of `aion dev`, and a process that is killed or stopped while it is full.

The disk is a real one, of a few megabytes, in a mount namespace of this test's own: nothing is left of it, whatever
becomes of the test. What happens on it stands in disk_full.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_disk_that_is_full(seed: int):
    space = ["unshare", "--mount"]
    if os.geteuid() != 0:
        space += ["--user", "--map-root-user"]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*space, *pytest, Path(__file__).with_name("disk_full.py")],
        env={**os.environ, "AION_SEED": str(seed)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, "see above; a machine that mounts nothing fails too"
