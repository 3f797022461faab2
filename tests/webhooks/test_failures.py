"""Endpoints that fail, hang or refuse; processes that are killed. Each event arrives, or is a dead letter."""

from __future__ import annotations

import os
import random
import threading
import time
from functools import partial

from receivers import Delivery

RETRY = {"initial_interval": "50ms", "max_interval": "400ms", "max_attempts": 4}
KILLS = int(os.environ.get("AION_WEBHOOK_KILLS", "6"))
EVENTS = int(os.environ.get("AION_WEBHOOK_EVENTS", "12000"))


def has_more_than(receiver, count: int) -> bool:
    return len(receiver.deliveries) > count


def test_kill_9_in_the_middle_of_deliveries(hooks):
    """Each event at least once; what is doubled has the same id, and no more of it than was delivered since
    the last store of a cursor."""
    receiver = hooks.receiver()
    doubled: list[Delivery] = []
    hooks.policy({"id": "all", "url": receiver.url, "max_in_flight": 32, "rate": 2000})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a", 4)
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    sending = threading.Thread(target=hooks.send, args=("test.a", range(EVENTS)))
    sending.start()
    sending.join()  # the broker is in the process that is killed
    bound = 0
    for _ in range(KILLS):
        wanted = len(receiver.deliveries) + chance.randrange(500)
        hooks.wait(partial(has_more_than, receiver, wanted), "goes on")
        time.sleep(chance.random())
        hooks.kill()
        # Cursors are stored every 2 s here; at most so many were delivered in that time, and in flight.
        bound += int(2000 * 2.5) + 32
        hooks.start()
    hooks.wait(
        lambda: len(receiver.values()) == EVENTS,
        f"all are delivered (seed {seed})",
        120,
    )
    time.sleep(1)
    assert receiver.failures == []
    assert receiver.values() == dict.fromkeys(range(EVENTS), 1)
    assert len(receiver.ids()) == EVENTS, "what came twice has the same id"
    bodies: dict[str, bytes] = {}
    for delivery in receiver.deliveries:
        if bodies.setdefault(delivery.id, delivery.body) != delivery.body:
            doubled.append(delivery)
    assert not doubled, "and the same bytes"
    twice = len(receiver.deliveries) - EVENTS
    print(f"{twice} of {len(receiver.deliveries)} deliveries were made again")
    assert twice <= bound, f"seed {seed}"


def test_dead_and_hung_endpoints_hold_up_nobody(hooks):
    good = hooks.receiver()
    hung = hooks.receiver()
    release = threading.Event()
    hung.answer = lambda _: (release.wait(120), 204)[1]
    entries = [{"id": f"good-{n}", "url": f"{good.url}{n}"} for n in range(8)]
    dead = {"id": "dead", "url": "http://127.0.0.1:9/", "retry": RETRY}
    stuck = {"id": "hung", "url": hung.url, "timeout": "2s", "max_in_flight": 8}

    def deliver(topic: str, ids: list[str]) -> float:
        hooks.topic(topic, 2)
        hooks.born(*ids)
        good.deliveries.clear()
        start = time.monotonic()
        hooks.send(topic, range(2_000))
        hooks.wait(
            lambda: len(good.deliveries) >= 8 * 2_000, "the good ones have all", 90
        )
        return time.monotonic() - start

    hooks.policy(*entries)
    hooks.start()
    alone = deliver("test.alone", [one["id"] for one in entries])
    hooks.policy(*entries, dead | {"url": "http://127.0.0.1:1234/"}, stuck)
    together = deliver("test.together", ["dead", "hung"])
    release.set()
    print(f"alone {alone:.2f} s, beside a dead and a hung one {together:.2f} s")
    assert together < 1.5 * alone + 1, "nobody is held up"
    assert hooks.metric("aion_webhook_state", endpoint="dead", state="failing") == 1


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
    hooks.send("test.a", range(300))
    buried = lambda: hooks.metric("aion_webhook_dead_letters_total")
    hooks.wait(lambda: buried() > 20, "some are given up")
    assert hooks.metric("aion_webhook_state", endpoint="all", state="failing") == 1
    hooks.kill()
    hooks.start()
    rows = lambda: hooks.rows("status")[0]
    hooks.wait(lambda: rows()["waiting"] == "0", "all are given up", 60)
    assert receiver.deliveries == []
    hooks.webhooks("replay", "all", "--dead-letters", "--no-wait")
    time.sleep(1)
    receiver.answer = 204
    hooks.wait(
        lambda: len(receiver.ids()) >= 200, "they are delivered from the letters", 60
    )
    # Those that were given up once more while it still refused are asked for again.
    hooks.wait(lambda: rows()["waiting"] == "0", "nothing waits")
    hooks.webhooks("replay", "all", "--dead-letters")
    assert receiver.values() == dict.fromkeys(range(300), 1)
    for delivery in receiver.deliveries:
        assert bodies.get(delivery.id, delivery.body) == delivery.body
    assert receiver.failures == []
    hooks.stop()
    assert hooks.sql(
        "select count(distinct event_id) as n from webhook_dead_letters"
    ) == [{"n": 300}]


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
