"""The real binary killed at every named point of it: after each, nothing is wrong, and in the end nothing is missing."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

from cluster import Place, Producing
from confluent_kafka import TopicPartition
from kills import POINTS
from processes import ROOT, Process, binary, crashing_binary, wait


def at_work(place: Place, point: str) -> Process:
    return named(place, point)


def another_joins(place: Place, point: str) -> Process:
    """It has to give some of its partitions up."""
    run = place.run(plan={"crash_at": point})
    run.wait_ready()
    place.run()
    return run


def it_oversleeps(place: Place, point: str) -> Process:
    """Its group takes it for dead, and says so when it wakes."""
    run = named(place, point)
    run.wait_ready()
    run.freeze()
    time.sleep(1.5 * place.session_ms / 1000)
    run.thaw()
    return run


def it_is_asked_to_stop(place: Place, point: str) -> Process:
    run = named(place, point)
    run.wait_ready()
    run.process.send_signal(signal.SIGTERM)
    return run


def upkeep(*command: str):
    """By `aion lake`, beside a process that writes."""

    def bring(place: Place, point: str) -> Process:
        named(place, "").wait_ready()
        task = Process(place.folder / "upkeep.log")
        where = ["--lake", place.lake, "--catalog", place.catalog]
        task.launch("lake", *command, *where, "--table", place.table, crash_at=point)
        return task

    return bring


def sweeping(place: Place, point: str) -> Process:
    """There has to be a file that is old and that nothing uses."""
    wait(lambda: any(Path(place.lake, place.table).glob("_date=*")), "there are rows")
    litter = next(Path(place.lake, place.table).glob("_date=*")) / "litter.parquet"
    litter.write_bytes(b"what a crash left")
    os.utime(litter, (0, 0))
    return upkeep("vacuum")(place, point)


def named(place: Place, point: str) -> Process:
    """Under the same name each time: the group doesn't wait for the one that died."""
    return place.run(plan={"crash_at": point}, group__instance__id="the-one")


# What brings a process to each point; those of gaps have a test of their own.
SITUATIONS = {
    **dict.fromkeys(POINTS, at_work),
    "job.revoked": another_joins,
    "job.handed_over": another_joins,
    "job.lost": it_oversleeps,
    "job.stopped": it_is_asked_to_stop,
    "lake.before_checkpoint": upkeep("checkpoint"),
    "lake.after_checkpoint": upkeep("checkpoint"),
    "lake.before_swap": upkeep("compact", "--min-files", "2"),
    "lake.after_swap": upkeep("compact", "--min-files", "2"),
    "lake.before_sweep": sweeping,
}
GAPS = ("job.gap_sent", "job.gap_acknowledged")


def test_every_point_of_the_source_is_met():
    sources = [*ROOT.glob("sinks/src/**/*.rs"), *ROOT.glob("pipeline/src/**/*.rs")]
    found = {
        name
        for file in sources
        for name in re.findall(
            r'"((?:lake|job)\.[a-z]+_[a-z_]+|job\.[a-z]+)"', file.read_text()
        )
        if "fault::point" in file.read_text()
    }
    assert found == {*SITUATIONS, *GAPS}


def test_the_binary_that_ships_has_no_points():
    for plan in (b"AION_CRASH_AT", b"AION_FREEZE_AT"):
        assert plan in crashing_binary().read_bytes(), "built with the tests"
        assert plan not in binary().read_bytes(), binary()


def test_killed_at_every_point(place: Place, rng: random.Random):
    named(place, "").wait_ready()
    # One record in twenty becomes a dead letter.
    with Producing(place, broken_every=20, count=100):
        for point, bring in SITUATIONS.items():
            for run in place.runs:
                if run.process.poll() is None:
                    run.kill()
            count = rng.randint(1, 3) if bring is at_work else 1
            print(f"killed at {point}:{count}")
            assert bring(place, f"{point}:{count}").crashed() == point
            audit = place.audit()
            assert audit.code in (0, 8), (point, audit.report or audit.errors)
    named(place, "").wait_ready()
    place.wait_and_check()


def test_killed_around_a_gap(place: Place):
    """Retention takes records that were not read yet: the loss is told, whenever the process dies."""
    run = named(place, "")
    run.wait_ready()
    place.produce(200)
    place.wait_and_check()
    run.kill()
    marks = {p: 1 + max(o for q, o, _ in place.log() if q == p) for p in range(4)}
    place.produce(200)
    cut = {partition: mark + 20 for partition, mark in marks.items()}
    asked = [TopicPartition(place.topic, p, offset) for p, offset in cut.items()]
    for future in place.cluster.admin.delete_records(asked).values():
        future.result(20)
    for point in GAPS:
        assert named(place, f"{point}:1").crashed() == point
    named(place, "").wait_ready()

    def told() -> set[tuple]:
        return {(g["partition"], g["first"], g["next"]) for g in place.gaps()}

    lost = {(p, mark, cut[p]) for p, mark in marks.items()}
    left = {(p, o) for p, o, _ in place.log()}
    wait(
        lambda: told() == lost,
        "each gap is told, and no other",
        30,
        lambda: str(told()),
    )
    wait(lambda: len(place.stored()) == 200 + len(left), "what is left is stored")
    assert left <= {(p, o) for _, p, o in place.stored()}
    assert set(place.stored().values()) == {1}
    assert place.audit().code == 0
