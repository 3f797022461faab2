"""A log that was cut below what is stored, and counted: the partition stands still until `aion diverged` settles it."""

from __future__ import annotations

import random
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from both_stores import BothStores
from clickhouse.engine import Engine
from cluster import Cluster, Place
from confluent_kafka import Producer
from events import decision, text
from monitoring import samples
from processes import Process, binary, wait
from test_streams import bounds, set_config

SERIES = "[metrics]\nflush_age_s = 0\n"


class Jobs:
    """Who stores the topic's records and who counts them: one job, or one each."""

    def __init__(self, place: Place, is_one: bool) -> None:
        self.place, self.counted_before = place, 0
        self.names = [f"{place.table}-lake", f"{place.table}-prometheus"]
        self.more = SERIES
        if is_one:
            sinks = f'topic = "{place.topic}"\nsinks = ["lake", "prometheus"]'
            self.more += f'[[job]]\nname = "{self.names[0]}"\n{sinks}\n'
            for topic in ("aion.dead-letters", "aion.gaps"):
                self.more += f'[[job]]\ntopic = "{topic}"\nsinks = ["lake"]\n'
            self.names = self.names[:1]

    def start(self) -> Process:
        self.run = self.place.run(more=self.more)
        self.run.wait_ready(90)
        return self.run

    def counted(self) -> int:
        """How many decisions of partition 0 are in the series; never less than before. None are shown while the group
        has taken the partition away."""
        page = samples(self.run.get("/metrics/platform")[1])
        name, partition = "aion_router_decisions_total{", 'partition="0"'
        ours = [v for s, v in page.items() if s.startswith(name) and partition in s]
        if not ours:
            return 0
        counted = int(sum(ours))
        assert counted >= self.counted_before, "a counter fell"
        self.counted_before = counted
        return counted

    def stopped(self) -> int:
        stopped = "aion_partition_stopped"
        return int(self.run.metric(stopped, topic=self.place.topic))

    def gaps(self) -> list[tuple[str, str, int]]:
        gaps = self.place.gaps()
        return sorted((gap["job"], gap["reason"], gap["first"]) for gap in gaps)

    def settle(self, job: str, choice: str, partition: int, code: int = 0) -> str:
        config = self.place.config("operator", "operator", self.more, {})
        return settle(config, choice, [job, self.place.topic, str(partition)], code)


def settle(config: Path, choice: str, where: list[str], code: int = 0) -> str:
    """What `aion diverged` prints."""
    done = subprocess.run(
        [binary(), "diverged", choice, *where]
        + ["--config", config, "--because", "a test"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr


def leader(place: Place) -> int:
    known = place.cluster.admin.list_topics(place.topic, timeout=20)
    return known.topics[place.topic].partitions[0].leader


def follower(place: Place) -> int:
    """The one node beside its leader that has partition 0."""
    known = place.cluster.admin.list_topics(place.topic, timeout=20)
    partition = known.topics[place.topic].partitions[0]
    (other,) = set(partition.replicas) - {partition.leader}
    return other


@pytest.mark.topic(partitions=2, replication=2)
@pytest.mark.parametrize("is_one", [False, True], ids=["two jobs", "one job"])
def test_an_unclean_election_cuts_the_log(place: Place, is_one: bool):
    """The follower that was left behind becomes leader: what only the old leader had is gone."""
    cluster, jobs = place.cluster, Jobs(place, is_one)
    set_config(place, unclean__leader__election__enable="true")
    old, heir = leader(place), follower(place)
    run = jobs.start()
    place.produce(300, partition=0)
    place.wait_and_check()
    _, agreed = bounds(place, 0)

    cluster.node("kill", heir)
    place.produce(50, partition=0)
    wait(lambda: len(place.stored()) == 350, "what only the leader has is stored")
    wait(lambda: jobs.counted() == 350, "what only the leader has is counted")
    # Two controllers of three have to live, so the follower comes back at once.
    cluster.node("kill", old)
    cluster.node("start", heir)
    wait(lambda: leader(place) == heir, "the follower leads", 60)
    place.produce(80, partition=0)
    run.wait(lambda: jobs.stopped() == len(jobs.names), "the partition stops")
    cluster.node("start", old)
    found = [(job, "diverged", agreed) for job in jobs.names]
    wait(lambda: jobs.gaps() == found, "the gap is recorded")
    assert {gap["next"] for gap in place.gaps()} == {agreed + 50}
    assert run.get("/readyz")[0] == 503
    assert len(place.stored()) == 350 and set(place.stored().values()) == {1}
    audit = place.audit()
    assert audit.code == 7
    wrong = (place.topic, 0, "diverged", agreed, agreed + 50)
    assert audit.findings() == {wrong}

    # The log is right: what only the old leader had leaves the lake, what the new one has comes in.
    lake, *others = jobs.names
    assert "never found" in jobs.settle(lake, "replace", 1, code=2)
    told = jobs.settle(lake, "replace", 0)
    assert f"50 rows of {place.topic}/0" in told and f"from {agreed} on" in told, told
    wait(lambda: len(place.stored()) == 380, "what the log has now is stored")
    assert set(place.stored().values()) == {1}
    for series in others:
        assert jobs.counted() == 350 and jobs.stopped() == 1, "the other job waits"
        told += jobs.settle(series, "replace", 0)
    assert "stays counted: no counter falls" in told, told
    run.wait(lambda: jobs.counted() == 430, "what the log has now is counted as well")
    # A group that was shared out by a broker that had just come back may have given nothing to anybody: who has
    # nothing asks after 10 s, waits 5 s for the answer, and joins anew, which a session (6 s) may hold up.
    run.wait_ready(90)
    settled = [(job, "diverged_replaced", agreed) for job in jobs.names]
    wait(
        lambda: jobs.gaps() == sorted(found + settled),
        "how it was settled is written down",
    )
    assert place.audit().code == 0, place.audit().report
    for job in jobs.names:
        assert "settled already" in jobs.settle(job, "keep", 0, code=2)

    # The next one to count takes it up from there.
    run.kill()
    run = jobs.start()
    place.produce(20, partition=0)
    run.wait(lambda: jobs.counted() == 450, "it goes on from what was counted")


@pytest.mark.topic(partitions=2, replication=2)
def test_a_cut_below_a_marker_is_found_at_the_next_start(place: Place):
    """While the job is stopped at a mark behind a transaction's marker, the log is cut below and grows past it."""
    cluster = place.cluster
    set_config(place, unclean__leader__election__enable="true")
    old, heir = leader(place), follower(place)
    producer = Producer(cluster.client("admin", transactional__id="cut"))
    producer.init_transactions(60)
    run = place.run()
    run.wait_ready()
    place.produce(300, partition=0)
    place.wait_and_check()
    _, agreed = bounds(place, 0)

    cluster.node("kill", heir)
    producer.begin_transaction()
    for n in range(50):
        event = decision(1000 + n, datetime.now(UTC), random.Random(n))
        producer.produce(place.topic, text(event), event["task_id"], 0)
    producer.commit_transaction(60)
    mark = agreed + 50 + 1
    wait(lambda: place.mark(0) == mark, "the marker is behind all that is stored")
    assert len(place.stored()) == 350
    run.stop()
    cluster.node("kill", old)
    cluster.node("start", heir)
    wait(lambda: leader(place) == heir, "the follower leads", 60)
    place.produce(80, partition=0)
    assert bounds(place, 0) == (0, agreed + 80) and agreed + 80 > mark

    cluster.node("start", old)
    again = place.run()
    wait(lambda: len(place.gaps()) == 1, "the gap is recorded", 120, again.output)
    (gap,) = place.gaps()
    found = gap["reason"], gap["first"], gap["next"]
    assert found == ("diverged", agreed, mark)
    assert again.metric("aion_partition_stopped", topic=place.topic) == 1
    assert len(place.stored()) == 350 and set(place.stored().values()) == {1}


@pytest.fixture
def both(cluster: Cluster, tmp_path: Path):
    """A topic that lands in the lake and in ClickHouse."""
    engine = Engine(tmp_path / "engine")
    place = BothStores(
        cluster, tmp_path, "test.cut", engine, replication=2, partitions=2
    )
    # Every topic into both would be fourteen jobs.
    for topic, sink in [
        (place.topic, "lake"),
        (place.topic, "clickhouse"),
        ("aion.dead-letters", "lake"),
        ("aion.gaps", "lake"),
    ]:
        place.more += f'[[job]]\ntopic = "{topic}"\nsinks = ["{sink}"]\n'
    place.bootstrap()
    wait(place.may_write, "the router may write", 20)
    yield place
    place.end()
    engine.kill()


def test_what_clickhouse_has_of_a_cut_log_stays_or_goes_by_hand(both: BothStores):
    """As docs/kafka.md has it: kept at first, and then taken out for what the log has."""
    cluster, engine, house = both.cluster, both.engine, f"aion.{both.table}"
    set_config(both, unclean__leader__election__enable="true")
    old, heir = leader(both), follower(both)
    run = both.run()
    run.wait_ready()
    both.produce(300, partition=0)
    run.wait(both.landed, "all is stored")
    _, agreed = bounds(both, 0)
    cluster.node("kill", heir)
    both.produce(50, partition=0)
    run.wait(lambda: both.in_house().total() == 350, "what only the leader has")
    run.wait(lambda: both.stored().total() == 350, "and the lake has it")
    cluster.node("kill", old)
    cluster.node("start", heir)
    wait(lambda: leader(both) == heir, "the follower leads", 60)
    both.produce(80, partition=0)
    stopped = lambda: run.metric("aion_partition_stopped", topic=both.topic)
    run.wait(lambda: stopped() == 2, "the partition stops in both jobs")
    cluster.node("start", old)

    operator = both.config("operator", "operator", "", {})
    in_lake, in_house = (
        [f"{both.table}-{sink}", both.topic, "0"] for sink in ("lake", "clickhouse")
    )
    settle(operator, "replace", in_lake)
    assert "by hand" in settle(operator, "replace", in_house, code=2)
    settle(operator, "keep", in_house)
    run.wait(lambda: stopped() == 0, "both go on")
    run.wait(lambda: both.stored().total() == 380, "what the log has now")
    run.wait(lambda: both.in_house() == both.stored(), "what came behind what is kept")
    epochs = (
        f"SELECT uniqExact(_leader_epoch) FROM {house} WHERE _offset >= {agreed}"
        " AND _partition = 0"
    )
    assert engine.rows(epochs) == [[2]], "rows of the old leader, then of the new one"

    assert run.stop() == 0
    topic_id = both.topic_id()
    engine.query(
        f"DELETE FROM aion.marks WHERE table_name = '{both.table}' AND topic_id = '{topic_id}'"
        " AND partition = 0 AND kind = 'reached'"
    )
    engine.query(
        f"DELETE FROM {house} WHERE _topic_id = '{topic_id}' AND _partition = 0"
        f" AND _batch_last >= {agreed}"
    )
    assert both.in_house().total() <= 300
    # The server forgets the tokens of what is gone, which two minutes would pass by as well.
    for tokens in (1, 10_000):
        setting = f"non_replicated_deduplication_window = {tokens}"
        engine.query(f"ALTER TABLE {house} MODIFY SETTING {setting}")
    run = both.run()
    run.wait(lambda: both.in_house() == both.stored(), "what the log has now", 240)
    assert engine.rows(epochs) == [[1]], "rows of the new leader"
    both.produce(20, partition=0)
    run.wait(lambda: both.in_house().total() == 400, "it goes on")
    assert both.in_house() == both.stored()
