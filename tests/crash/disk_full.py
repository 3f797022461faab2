"""Run by test_disk_full.py, where mounts are its own."""

from __future__ import annotations

import errno
import random
import subprocess
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cluster import Place, Producing
from confluent_kafka import Producer
from deltalake import DeltaTable
from events import BROKEN, decision, text
from offsets import ends, stored
from processes import Audit, Dev

SIZE_KIB, ROOM_KIB = 4096, 600
LARGER_KIB = 32 * 1024


def mounted(disk: Path, size_kib: int) -> Path:
    disk.mkdir()
    size = f"size={size_kib}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], check=True)
    return disk


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return mounted(tmp_path / "disk", SIZE_KIB)


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


class Decisions:
    """Another library's decisions, some of them broken, on their way to `aion dev`; and where they were acknowledged."""

    TOPIC = "aion.router.decisions"

    def __init__(self, dev: Dev) -> None:
        settings = {"bootstrap.servers": dev.kafka, "log_level": 2}
        self.producer = Producer(settings | {"enable.idempotence": True})
        self.rng = random.Random(5)
        self.good: dict[tuple[int, int], str] = {}
        self.broken: set[tuple[int, int]] = set()
        self.sent = 0

    def produce(self, count: int, broken_every: int) -> None:
        failures = []
        for n in range(self.sent, self.sent + count):
            event = decision(n, datetime.now(UTC), self.rng)
            event["task_id"] = task = f"from-elsewhere-{n}"
            is_broken = n % broken_every == 3
            value = BROKEN["no time"][0](event) if is_broken else text(event)

            def answered(error, message, task=task, is_broken=is_broken) -> None:
                place = (message.partition(), message.offset())
                if error:
                    failures.append(error)
                elif is_broken:
                    self.broken.add(place)
                else:
                    self.good[place] = task

            self.producer.produce(self.TOPIC, value, task, on_delivery=answered)
            self.producer.poll(0)
        self.sent += count
        assert self.producer.flush(280) == 0, "messages were left unacknowledged"
        assert not failures, failures[:3]

    def found(self, dev: Dev) -> dict[tuple[int, int], str]:
        """Those that are rows, by their places."""
        return {
            (partition, offset): task
            for partition, offset, task in places(dev)
            if task.startswith("from-elsewhere-")
        }

    def check(self, dev: Dev) -> None:
        """Each one is a row or a dead letter, once, and nothing of theirs is anywhere else."""
        assert len(self.good) + len(self.broken) == self.sent
        rows = Counter((partition, offset) for partition, offset, _ in places(dev))
        doubled = {place: n for place, n in rows.items() if n > 1}
        assert not doubled, doubled
        assert self.found(dev) == self.good
        assert letters(dev) == self.broken


def places(dev: Dev) -> list[tuple[int, int, str]]:
    """Partition, offset and task of each decision that is stored, by a reader that shares no code with ours."""
    found = DeltaTable(dev.data / "lake" / "decisions").to_pyarrow_table()
    columns = ("_partition", "_offset", "task_id")
    return list(zip(*(found.column(name).to_pylist() for name in columns)))


def letters(dev: Dev) -> set[tuple[int, int]]:
    """The places of decisions that are dead letters; a letter may be written twice."""
    found = (
        DeltaTable(dev.data / "lake" / "dead_letters").to_pyarrow_table().to_pylist()
    )
    ours = [letter for letter in found if letter["topic"] == Decisions.TOPIC]
    return {(letter["partition"], letter["offset"]) for letter in ours}


def fill(ballast: Path) -> None:
    """Takes what room there is."""
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError) as full:
        while True:
            file.write(bytes(64 << 10))
    assert full.value.errno == errno.ENOSPC


def test_aion_dev_on_a_disk_that_becomes_full(dev: Dev, tmp_path: Path):
    """Log and lake are on it. What runs goes on by itself once there is room, and so does what was killed, or stopped,
    meanwhile and is started again."""
    disk = mounted(tmp_path / "disk", LARGER_KIB)
    dev.data, ballast = disk / "data", disk / "ballast"

    def is_full() -> bool:
        try:
            status, why = dev.get("/readyz")
        except OSError:
            return False  # it was started just now
        full = [
            line
            for line in why.splitlines()
            if "No space left on device" in line and "free some" in line
        ]
        of_log = [line for line in full if line.startswith("broker: ")]
        return (
            status == 503
            and any(f"{dev.data}/kafka/" in line for line in of_log)
            and any(f"{dev.data}/lake/" in line for line in full)
        )

    dev.start()
    dev.wait(lambda: dev.count("decisions") > 0, "the first rows are stored")
    sent = Decisions(dev)
    with Producing(sent, broken_every=20, count=20):
        dev.wait(lambda: letters(dev), "and the first dead letters")
        fill(ballast)
        dev.wait(is_full, "it says that log and lake have no room")
        status_line = "not ready: broker: "
        dev.wait(lambda: status_line in dev.output(), "so does the status line")
        dev.kill()
        dev.begin()
        dev.wait(is_full, "it takes no room to start, and there is still none")
        assert set(Counter(places(dev)).values()) == {1}, "nothing half is a row"
        assert Audit("--data", dev.data).code in (0, 8)
        ballast.unlink()
        dev.wait_ready()

        fill(ballast)
        dev.wait(is_full, "it is full once more")
        assert dev.stop(seconds=120) == 1, dev.output()
        last = dev.output().splitlines()[-1]
        assert "not written" in last and "the next start reads them again" in last, last
        ballast.unlink()
        dev.start("--no-generator")

    def own(upto: dict[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """Of topics that have none but its own events: all of them are to be rows."""
        return {place: end for place, end in upto.items() if place[0] != "decisions"}

    def is_all_there() -> bool:
        return (
            len(sent.found(dev)) >= len(sent.good)
            and len(letters(dev)) >= len(sent.broken)
            and own(stored(dev, "tasks", "metrics", "audit")) == own(ends(dev))
        )

    dev.wait(is_all_there, "whatever was acknowledged is a row or a dead letter")
    sent.check(dev)
    audit = Audit("--data", dev.data)
    assert audit.code == 0, audit.report or audit.errors
    assert audit.report["verdict"] == "exact" and audit.total("pending") == 0
    assert dev.stop() == 0, dev.output()
    assert "panicked" not in dev.output()
