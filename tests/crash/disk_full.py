"""Run by test_disk_full.py, where mounts are its own."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest
from cluster import Place, Producing
from processes import Dev

SIZE_KIB, ROOM_KIB = 4096, 600


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = f"size={SIZE_KIB}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], check=True)
    return disk


def test_a_full_disk(place: Place, disk: Path, rng: random.Random):
    place.lake = disk / "lake"
    filler = disk / "filler"
    filler.write_bytes(bytes((SIZE_KIB - ROOM_KIB) << 10))

    def is_full() -> bool:
        return "free some space" in run.output()

    def isnt_ready() -> bool:
        status, why = run.get("/readyz")
        return status == 503 and "free some space" in why

    run = place.run(group__instance__id="the-one")
    run.wait_ready()
    with Producing(place, count=50):
        run.wait(is_full, "it says that the disk is full")
        assert "No space left on device" in run.output()
        for _ in range(3):
            # It goes on trying, and whatever it leaves behind must not be taken for rows.
            time.sleep(rng.uniform(0.2, 1.5))
            assert set(place.stored().values()) == {1}
            assert place.audit().code in (0, 8)
            run.kill()
            run = place.run(group__instance__id="the-one")
            run.wait(is_full, "it is still full")
            run.wait(isnt_ready, "whoever asks is told, too")
    behind = sum(1 for _ in place.log()) - len(place.stored())
    assert behind > 0, "rows wait for room"
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    place.wait_and_check()
    assert run.stop() == 0, run.output()


@pytest.mark.parametrize("room_kib", [4, 8, 12, 16, 32])
def test_a_disk_without_room_to_start(dev: Dev, disk: Path, room_kib: int):
    """Each small file takes 4 KiB, so that each time another is the first that finds no room: the broker's lock, its
    identity, the registry's log, an address, a secret."""
    filler = disk / "filler"
    filler.write_bytes(bytes((SIZE_KIB - room_kib) << 10))
    dev.data = disk / "data"
    dev.begin()
    code, last = dev.refused()
    assert code == 5, dev.output()
    assert "No space left on device" in last, last
    filler.unlink()
    dev.start("--no-generator")
    assert dev.stop() == 0, "what was begun there is no obstacle"
