"""Processes that share a group, and one of them that the group takes for dead while it lives: the others have its
partitions, and when it goes on, what it still writes is its own or is turned away."""

from __future__ import annotations

import random
import time

import pytest
from cluster import Place, Producing
from processes import Process
from relay import Relay

pytestmark = pytest.mark.topic(partitions=6)


def position(run: Process) -> float:
    return run.metric("aion_partition_position", topic="crash.events")


def has_all(run: Process) -> bool:
    """Whether all partitions of the topic are its own, and read."""
    metrics = run.get("/metrics")[1].splitlines()
    mine = [m for m in metrics if m.startswith("aion_partition_position{")]
    return sum('topic="crash.events"' in m for m in mine) == 6


def shared(*runs: Process) -> None:
    """Waits until each reads some of the topic."""
    for run in runs:
        run.wait_ready()
        run.wait(lambda run=run: position(run) > 0, "each has a share")


def test_one_of_three_is_killed(place: Place):
    with Producing(place, count=200):
        runs = [place.run() for _ in range(3)]
        shared(*runs)
        runs[0].kill()
        runs[1].kill()
        runs[2].wait(lambda: has_all(runs[2]), "the last one has everything")
    place.wait_and_check()


def test_one_of_two_is_frozen_until_it_is_taken_for_dead(place: Place):
    with Producing(place, count=200):
        runs = [place.run() for _ in range(2)]
        shared(*runs)
        for sleeper, other in (runs, runs[::-1]):
            sleeper.freeze()
            other.wait(lambda other=other: has_all(other), "the other has everything")
            time.sleep(0.5)
            sleeper.thaw()
            shared(*runs)
    place.wait_and_check()


def taken_over(place: Place, plan: dict[str, str]) -> tuple[Process, Process]:
    """One process is frozen at a point, another has its partitions and goes on with them, the first wakes."""
    sleeper = place.run(plan=plan)
    sleeper.wait(sleeper.is_frozen, f"it comes to {plan['freeze_at']}")
    other = place.run()
    other.wait_ready()
    other.wait(lambda: has_all(other), "the other has everything")
    time.sleep(0.5)
    sleeper.thaw()
    return sleeper, other


@pytest.mark.parametrize("point", ["lake.before_commit", "job.dead_letter_sent"])
def test_one_of_two_is_frozen_between_its_last_look_and_its_next_step(
    place: Place, rng: random.Random, point: str
):
    with Producing(place, broken_every=20, count=200):
        shared(*taken_over(place, {"freeze_at": f"{point}:{rng.randint(2, 6)}"}))
    place.wait_and_check()


def test_without_a_look_at_the_marks_the_zombie_doubles(place: Place):
    """Negative control: the rule taken out of the binary, what it wakes with is stored again, and both counts say
    so."""
    # Without dead letters it can only be this topic's rows that it wakes with.
    with Producing(place, broken_every=0, count=200):
        plan = {"freeze_at": "lake.before_commit:3", "take_out": "Marks"}
        sleeper, _ = taken_over(place, plan)
        sleeper.wait(lambda: place.audit().code == 7, "the audit finds it", 30)
    kinds = {kind for _, _, kind, _, _ in place.audit().findings()}
    assert "stored_twice" in kinds
    with pytest.raises(AssertionError):
        place.check()


def test_one_of_two_is_cut_off_from_its_broker(place: Place):
    """The lake is within its reach all the time: it goes on writing what it had read."""
    relay = Relay(place.cluster.brokers())
    with Producing(place, count=200):
        far = place.run(bootstrap__servers=relay.address)
        near = place.run()
        shared(far, near)
        relay.cut()
        near.wait(lambda: has_all(near), "the other has everything")
        time.sleep(0.5)
        relay.heal()
        shared(far, near)
        relay.cut()
        near.wait(lambda: has_all(near), "the other has everything again")
        far.kill()
    relay.close()
    place.wait_and_check()
