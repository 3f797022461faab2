"""What happens to a cluster while the pipeline reads it. After each, every record of the log is in the lake
once or in the dead letters, counted by libraries that share no code with ours; or it is in a recorded gap."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from datetime import UTC, datetime

import pytest
from cluster import Place, Producing
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from events import decision, text
from processes import Process, wait


def set_config(place: Place, **settings: str) -> None:
    entries = [
        ConfigEntry(
            name.replace("__", "."), value, incremental_operation=AlterConfigOpType.SET
        )
        for name, value in settings.items()
    ]
    resource = ConfigResource(
        ResourceType.TOPIC, place.topic, incremental_configs=entries
    )
    asked = place.cluster.admin.incremental_alter_configs([resource])
    asked[resource].result(20)


def bounds(place: Place, partition: int) -> tuple[int, int]:
    reader = Consumer(place.cluster.client("admin", group__id="bounds"))
    low, high = reader.get_watermark_offsets(TopicPartition(place.topic, partition), 20)
    reader.close()
    return low, high


GIVEN = "given partitions"


def moves(run: Process, topic: str) -> list[tuple[str, set[int]]]:
    """What a process says of the partitions of a topic that came to it and left it, in order."""
    moves = []
    for line in run.output().splitlines():
        found = re.search(
            rf"(given partitions|giving partitions up|lost partitions).* topic={topic} .*?partitions=\[([\d, ]*)]",
            line,
        )
        if found:
            moves.append((found[1], {int(n) for n in found[2].split(",") if n}))
    return moves


def held(run: Process, topic: str) -> set[int]:
    have: set[int] = set()
    for what, partitions in moves(run, topic):
        have = have | partitions if what == GIVEN else have - partitions
    return have


@pytest.mark.topic(partitions=6)
def test_three_processes_come_and_go(place: Place):
    """What stays with a process isn't interrupted: a rebalance moves only the partitions that change hands."""
    # Long enough that nobody is taken for dead who is only slow.
    patient = {"session__timeout__ms": 15_000}
    first = place.run(**patient)
    first.wait_ready()
    with Producing(place):
        second, third = place.run(**patient), place.run(**patient)
        for run in (second, third):
            run.wait_ready()
        job = f"{place.table}-lake"

        def each_reads_some() -> bool:
            position = "aion_partition_position"
            return all(
                run.metric(position, job=job) > 0 for run in (first, second, third)
            )

        second.wait(each_reads_some, "each reads some")

        def shares() -> list[set[int]]:
            return [held(run, place.topic) for run in (first, second, third)]

        def all_are_held() -> bool:
            return sorted(n for share in shares() for n in share) == list(range(6))

        second.wait(all_are_held, "each partition is somebody's")
        kept, *others = shares()
        assert [len(kept), *map(len, others)] == [2, 2, 2]
        third.kill()
        assert second.stop(signal.SIGTERM) == 0, second.output()
        time.sleep(2)
    place.wait_and_check()
    assert held(first, place.topic) == set(range(6))
    of_kept = [(what, kept & numbers) for what, numbers in moves(first, place.topic)]
    assert [move for move in of_kept if move[1]] == [(GIVEN, kept)]
    # Two of three have nothing of the retries' only partition, and leave it to the third.
    for run in (first, second, third):
        assert "joining the group anew" not in run.output()


def test_a_rolling_restart_with_static_members(place: Place):
    members = ("one", "two")
    runs = {name: place.run(group__instance__id=name) for name in members}
    for run in runs.values():
        run.wait_ready()
    with Producing(place):
        for name in members:
            before = {n: r.metric("aion_rebalances_total") for n, r in runs.items()}
            assert runs[name].stop(signal.SIGTERM) == 0
            runs[name] = place.run(group__instance__id=name)
            runs[name].wait_ready()
            other = next(n for n in members if n != name)
            after = runs[other].metric("aion_rebalances_total")
            assert after == before[other], "nobody else's partitions moved"
    place.wait_and_check()


def test_a_broker_dies_while_both_ends_work(place: Place):
    place.run().wait_ready()
    with Producing(place):
        time.sleep(1)
        place.cluster.node("kill", 2)
        time.sleep(3)
        place.cluster.node("start", 2)
        time.sleep(3)
    place.wait_and_check()


def test_partitions_are_added(place: Place):
    place.run(topic__metadata__refresh__interval__ms=1000).wait_ready()
    place.produce(500, 50)
    grown = place.cluster.admin.create_partitions([NewPartitions(place.topic, 7)])
    grown[place.topic].result(20)
    for partition in range(4, 7):
        place.produce(100, partition=partition)
    place.wait_and_check()


@pytest.mark.topic(partitions=2)
def test_aborted_transactions(place: Place):
    """Aborted records are never stored, and markers move the marks; also over a change of leaders."""
    first = place.run()
    first.wait_ready()
    producer = Producer(place.cluster.client("admin", transactional__id="t"))
    producer.init_transactions(30)
    for n in range(30):
        producer.begin_transaction()
        for m in range(10):
            event = decision(n * 10 + m, datetime.now(UTC), random.Random(n))
            producer.produce(place.topic, text(event), event["task_id"])
        producer.flush(30)
        if n in (15, 29):
            # The records' epoch is the old leader's, the marker's the new one's.
            place.cluster.node("stop", 1)
            place.cluster.node("start", 1)
        if n % 3 == 1:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    wait(place.landed, "all committed records")
    assert len(place.stored()) == 200
    place.check()
    # A mark behind a new leader's marker isn't taken for one behind a cut when the process comes back.
    first.stop()
    again = place.run()
    again.wait_ready()
    place.produce(50)
    place.wait_and_check()
    assert again.metric("aion_partition_stopped") == 0, again.output()
    assert place.gaps() == []


@pytest.mark.topic(partitions=1)
def test_a_compacted_log_with_holes(place: Place):
    set_config(
        place,
        cleanup__policy="compact",
        segment__ms="100",
        min__cleanable__dirty__ratio="0.01",
        max__compaction__lag__ms="1000",
        delete__retention__ms="100",
    )
    for _ in range(4):
        # The same keys again and again.
        place.sent = 0
        place.produce(200)
        time.sleep(0.3)
    wait(lambda: len(place.log()) < 700, "the log was compacted", 60)
    place.run().wait_ready()
    wait(lambda: len(place.stored()) >= 200, "what is left was stored")
    place.sent = 1000
    place.produce(50)

    def all_left_is_stored() -> bool:
        # Compaction may go on after a record was stored; none of those left is missing.
        wanted = {(p, o) for p, o, has_value in place.log() if has_value}
        return wanted <= {(p, o) for _, p, o in place.stored()}

    wait(all_left_is_stored, "every record that is left is stored")
    assert set(place.stored().values()) == {1}
    assert place.gaps() == []
    assert place.audit().code == 0, "what compaction took is a row without a record"


def test_times_of_the_producer(place: Place):
    set_config(place, message__timestamp__type="CreateTime")
    place.run().wait_ready()
    place.produce(300, 30)
    place.wait_and_check()


def delete(place: Place) -> None:
    place.cluster.admin.delete_topics([place.topic])[place.topic].result(20)


def make_anew(place: Place) -> None:
    def made() -> bool:
        try:
            new = NewTopic(place.topic, 4, 3)
            place.cluster.admin.create_topics([new])[place.topic].result(20)
        except KafkaException:
            return False  # the old one is still going
        return True

    wait(made, "the topic was made anew", 30)
    place.bootstrap()


def both_are_stored(place: Place) -> None:
    """What the topic had and what it has now."""
    # More than before: old marks lie within the new log.
    place.produce(1000, 50)
    place.wait_and_check()
    assert len({topic_id for topic_id, _, _ in place.stored()}) == 2


def test_made_anew_while_nobody_reads(place: Place):
    run = place.run()
    run.wait_ready()
    place.produce(400)
    place.wait_and_check()
    run.stop()
    delete(place)
    make_anew(place)
    # More than before: old marks lie within the new log.
    place.produce(1000, 50)
    place.run().wait_ready()
    place.wait_and_check()
    assert len({topic_id for topic_id, _, _ in place.stored()}) == 2


def test_made_anew_while_it_is_read(place: Place):
    place.run(topic__metadata__refresh__interval__ms=1000).wait_ready()
    place.produce(400)
    place.wait_and_check()
    delete(place)
    make_anew(place)
    both_are_stored(place)


def test_made_anew_after_its_group_was_given_nothing(place: Place):
    """Kafka's client shares out what one broker knows at that moment; that the topic is there again, it doesn't see."""
    run = place.run()
    run.wait_ready()
    place.produce(400)
    place.wait_and_check()
    # The group misses it while it stands still; when it comes back, the topic is gone.
    run.freeze()
    delete(place)
    time.sleep(place.session_ms / 1000 + 2)
    run.thaw()
    run.wait(lambda: not held(run, place.topic), "its partitions are lost")
    given = lambda topic: [what for what, _ in moves(run, topic)].count(GIVEN)
    others = ("aion.gaps", "aion.dead-letters")
    run.wait(lambda: {2} == {given(one) for one in others}, "others are given again")
    make_anew(place)
    both_are_stored(place)
    run.wait_ready()


@pytest.mark.topic(partitions=1)
def test_retention_passes_while_nobody_reads(place: Place):
    run = place.run()
    run.wait_ready()
    place.produce(300)
    place.wait_and_check()
    run.stop()
    _, mark = bounds(place, 0)
    place.produce(500)
    _, high = bounds(place, 0)
    set_config(place, retention__ms="1000", segment__ms="100")
    wait(lambda: bounds(place, 0)[0] == high, "retention took everything", 60)
    set_config(place, retention__ms="604800000")
    place.produce(200)
    run = place.run(more='[log]\nformat = "json"')
    run.wait_ready()
    wait(
        lambda: len(place.stored()) == 500 and place.gaps(), "what is left, and the gap"
    )
    (gap,) = place.gaps()
    assert (gap["reason"], gap["first"], gap["next"]) == ("retention", mark, high)
    lines = (json.loads(line) for line in run.output().splitlines())
    (told,) = [line["fields"] for line in lines if line["level"] == "ERROR"]
    where = {name: told[name] for name in ("topic", "partition", "offset", "next")}
    assert where == {"topic": place.topic, "partition": 0, "offset": mark, "next": high}
    assert told["topic_id"] == place.topic_id() and "aion.gaps" in told["message"]
    assert place.audit().code == 0, "what is left in the log is stored"
