"""Endpoints that fail, hang or refuse; processes that are killed. Each event arrives, or is a dead letter."""

from __future__ import annotations

import os
import random
import time
from bisect import bisect
from functools import partial

from receivers import Delivery

RETRY = {"initial_interval": "50ms", "max_interval": "400ms", "max_attempts": 4}
KILLS = int(os.environ.get("AION_KILLS", "10"))
EVENTS = int(os.environ.get("AION_EVENTS", "12000"))
SEED = int(os.environ.get("AION_SEED", random.randrange(1, 2**31)))


RATE = 2_000
# `aion dev` stores cursors every 2 s. What was delivered since, and what was under way, is delivered again; half a second
# more is for a machine on which that takes longer.
BOUND = int(RATE * 2.5) + 32


def has_got(receiver, count: int) -> bool:
    return len(receiver.taken) >= count


def test_kill_9_in_the_middle_of_deliveries(hooks):
    """Each event at least once; what is doubled has the same id and bytes, and no kill doubles more than was delivered
    since the last store of a cursor."""
    receiver = hooks.receiver()
    hooks.policy({"id": "all", "url": receiver.url, "max_in_flight": 32, "rate": RATE})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a", 4)
    hooks.send("test.a", range(EVENTS))
    chance = random.Random(SEED)
    ends = []
    for kill in range(KILLS):
        # Spread over all of them, so that each kill has something new before it.
        share = (kill + chance.random()) / KILLS
        wanted = int(share * EVENTS * 0.95)
        hooks.wait(partial(has_got, receiver, wanted), f"{kill} kills, goes on", 60)
        hooks.kill()
        ends.append(len(receiver.deliveries))
        hooks.start()
    hooks.wait(partial(has_got, receiver, EVENTS), f"all come (seed {SEED})", 120)
    hooks.wait(lambda: hooks.metric("aion_webhook_lag_events") == 0, "nothing waits")
    assert receiver.failures == []
    assert receiver.values() == dict.fromkeys(range(EVENTS), 1)
    assert len(receiver.ids()) == EVENTS, "what came twice has the same id"
    bodies: dict[str, bytes] = {}
    twice = [0] * (KILLS + 1)
    for at, delivery in enumerate(receiver.deliveries):
        twice[bisect(ends, at)] += delivery.id in bodies
        assert bodies.setdefault(delivery.id, delivery.body) == delivery.body
    assert twice[0] == 0, "before the first kill nothing was delivered again"
    print(
        f"settled: {EVENTS:,} events in {len(receiver.deliveries):,} deliveries over {KILLS} kills, none lost; "
        f"{sum(twice):,} came twice, {max(twice):,} after one kill at most ({BOUND:,} allowed)"
    )
    assert max(twice) <= BOUND, f"seed {SEED}"


def test_a_poison_record_doesnt_stall_its_endpoint(hooks):
    receiver = hooks.receiver()
    receiver.answer = lambda d: 422 if d.event["data"]["n"] == 3 else 204
    hooks.policy(
        {"id": "all", "url": receiver.url, "retry": RETRY | {"max_attempts": 6}}
    )
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a")
    hooks.send("test.a", range(500))
    hooks.wait(lambda: len(receiver.values()) == 499, "the others are delivered", 20)
    hooks.wait(
        lambda: hooks.metric("aion_webhook_dead_letters_total") == 1, "it is given up"
    )
    failed = [
        row
        for row in hooks.rows("deliveries", "all", "--limit", "600")
        if row["outcome"] == "failed"
    ]
    assert [row["attempt"] for row in failed] == ["1", "2", "3", "4", "5", "6"]
    assert {row["status"] for row in failed} == {"422"}


def test_an_endpoint_down_past_its_policy_and_back(hooks):
    """Dead letters, then once more from the letters, over a crash: the same ids and bytes."""
    receiver = hooks.receiver()
    bodies: dict[str, bytes] = {}

    def refuse(delivery: Delivery) -> int:
        assert bodies.setdefault(delivery.id, delivery.body) == delivery.body
        return 503

    receiver.answer = refuse
    hooks.policy({"id": "all", "url": receiver.url, "retry": RETRY, "max_age": "2s"})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a", 2)
    hooks.send("test.a", range(150))
    buried = lambda: hooks.metric("aion_webhook_dead_letters_total")
    hooks.wait(lambda: buried() > 20, "some are given up")
    assert hooks.metric("aion_webhook_state", endpoint="all", state="failing") == 1
    hooks.kill()
    hooks.start()
    rows = lambda: hooks.rows("status")[0]
    hooks.wait(lambda: rows()["waiting"] == "0", "all are given up", 60)
    assert receiver.deliveries == []
    before = buried()
    hooks.webhooks("replay", "all", "--dead-letters", "--no-wait")
    time.sleep(0.5)
    receiver.answer = 204
    has_begun = lambda: receiver.ids() or buried() > before
    hooks.wait(has_begun, "letters are delivered, or given up once more")
    # Those that were given up once more while it still refused are asked for again.
    hooks.wait(lambda: rows()["waiting"] == "0", "nothing waits")
    hooks.webhooks("replay", "all", "--dead-letters")
    assert receiver.values() == dict.fromkeys(range(150), 1)
    for delivery in receiver.deliveries:
        assert bodies.get(delivery.id, delivery.body) == delivery.body
    assert receiver.failures == []
    hooks.stop()
    assert hooks.sql(
        "select count(distinct event_id) as n from webhook_dead_letters"
    ) == [{"n": 150}]


def test_two_processes_share_the_partitions_and_one_may_die(hooks, tmp_path):
    """`aion run` beside `aion dev`: partitions move by rebalance, cursors with them."""
    from processes import Process, wait

    receiver = hooks.receiver()
    hooks.policy({"id": "all", "url": receiver.url, "rate": 1500})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a", 6)
    other = Process(tmp_path / "run.log")
    config = tmp_path / "aion.toml"
    config.write_text(
        f"""
[kafka]
brokers = "{hooks.kafka}"
[kafka.properties]
"session.timeout.ms" = 6000
"heartbeat.interval.ms" = 500
[lake]
url = "{tmp_path}/other-lake"
[http]
listen = "{other.http}"
[webhooks]
policy = "{hooks.policy_file}"
[[job]]
topic = "aion.gaps"
sinks = ["lake"]
name = "other"
"""
    )
    other.launch("run", "--config", config)
    try:
        other.wait_ready()
        hooks.send("test.a", range(3_000))
        wait(
            lambda: (
                "webhook" in other.output()
                or other.metric("aion_webhook_attempts_total", outcome="delivered") > 50
            ),
            "the other delivers too",
            60,
            other.output,
        )
        other.kill()
        hooks.send("test.a", range(3_000, 6_000))
        hooks.wait(lambda: len(receiver.values()) == 6_000, "all are delivered", 120)
    finally:
        other.end()
    assert receiver.failures == []
    assert receiver.values() == dict.fromkeys(range(6_000), 1)
