"""Who gets what, in which form, and what operators see and do."""

from __future__ import annotations

import json
import time

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from processes import Dev
from receivers import Delivery


def test_each_event_arrives_signed_and_once(hooks):
    receiver, other = hooks.receiver(), hooks.receiver(secret=None)
    hooks.policy(
        {"id": "all", "url": receiver.url, "max_in_flight": 64},
        {"id": "other", "url": other.url, "topics": ["elsewhere.*", "aion.*"]},
    )
    hooks.start()
    hooks.born("all", "other")
    # Appears after the endpoint: from its start, without anybody's saying.
    hooks.topic("test.later", 4, is_told=False)
    hooks.send("test.later", range(2_000))
    hooks.wait(lambda: len(receiver.ids()) >= 2_000, "all of them are delivered", 60)
    assert receiver.failures == []
    assert receiver.values() == dict.fromkeys(range(2_000), 1)
    assert set(receiver.ids().values()) == {1}, "nothing failed, so nothing is doubled"
    one = receiver.deliveries[0]
    assert one.event["type"] == "test.later" and set(one.event) == {
        "id",
        "type",
        "timestamp",
        "key",
        "data",
        "source",
    }
    time.sleep(2)
    assert other.deliveries == [], "internal topics are nobody's, whatever the pattern"
    assert hooks.metric("aion_webhook_attempts_total", outcome="delivered") == 2_000
    hooks.wait(
        lambda: hooks.metric("aion_webhook_lag_events", endpoint="all") == 0, "no lag"
    )
    assert hooks.stop() == 0
    count = "select count(*) as n, count(distinct event_id) as ids from deliveries"
    assert hooks.sql(count) == [{"n": 2_000, "ids": 2_000}]


def test_a_new_endpoint_begins_at_the_end(hooks):
    receiver = hooks.receiver()
    hooks.policy({"id": "old", "url": hooks.receiver().url, "topics": ["none"]})
    hooks.start()
    hooks.topic("test.before")
    hooks.send("test.before", range(50))
    hooks.policy({"id": "new", "url": receiver.url})
    hooks.hang_up()
    hooks.born("new")
    hooks.send("test.before", range(50, 60))
    hooks.wait(lambda: len(receiver.ids()) >= 10, "the new ones are delivered")
    time.sleep(1)
    assert sorted(receiver.values()) == list(range(50, 60))


def test_a_topic_made_anew_has_other_ids(hooks):
    receiver = hooks.receiver()
    hooks.policy({"id": "all", "url": receiver.url})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a")
    hooks.send("test.a", range(5))
    hooks.wait(lambda: len(receiver.ids()) == 5, "the first are delivered")
    first = set(receiver.ids())
    admin = AdminClient({"bootstrap.servers": hooks.kafka})
    admin.delete_topics(["test.a"])["test.a"].result(30)
    hooks.hang_up()  # a look at the topics
    hooks.topic("test.a")
    hooks.send("test.a", range(100, 105))
    hooks.wait(lambda: len(receiver.ids()) == 10, "those of the new topic are too")
    assert len(set(receiver.ids()) - first) == 5


def delete(hooks, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": hooks.kafka})
    admin.delete_topics([topic])[topic].result(30)


def lost(hooks) -> list[tuple[str, str, int, int]]:
    query = "select * from gaps where job = 'aion-webhooks-all' order by topic, first"
    names = ("topic", "reason", "first", "next")
    return [tuple(row[name] for name in names) for row in hooks.sql(query)]


@pytest.mark.parametrize("is_seen", [True, False])
def test_what_waited_in_a_topic_that_was_deleted_is_a_gap(hooks, is_seen):
    """Whether somebody runs while it is deleted and made anew, or nobody does; and whether it is ever made anew."""
    receiver = hooks.receiver()
    receiver.answer = lambda delivery: 503 if delivery.event["data"]["n"] > 9 else 204
    hooks.policy({"id": "all", "url": receiver.url})
    hooks.start()
    hooks.born("all")
    topics = ["test.a", "test.b"] if is_seen else ["test.a"]
    for topic in topics:
        hooks.topic(topic)
        hooks.send(topic, range(30))
    count = len(topics)
    hooks.wait(lambda: len(receiver.ids()) == 10 * count, "ten of each are delivered")
    waiting = lambda: hooks.rows("status")[0]["waiting"]
    hooks.wait(lambda: waiting() == str(20 * count), "the others wait, as is stored")
    if is_seen:
        for topic in topics:
            delete(hooks, topic)
        hooks.hang_up()  # a look at the topics
        hooks.topic("test.a")
    else:
        hooks.kill()
        Dev.start(hooks, "--no-generator")
        delete(hooks, "test.a")
        hooks.topic("test.a", is_told=False)
        hooks.kill()
        hooks.start()
    receiver.answer = 204
    hooks.send("test.a", range(100, 105))
    came = lambda: len(receiver.ids()) == 10 * count + 5
    hooks.wait(came, "those of the new topic come")

    def is_lost() -> bool:
        hooks.hang_up()  # a look at the topics: six in a row have to find the same
        return hooks.metric("aion_webhook_lost_total") == 20 * count

    hooks.wait(is_lost, "what waited is lost")
    gaps = [(topic, "topic_deleted", 10, 30) for topic in topics]
    hooks.wait(lambda: lost(hooks) == gaps, "those are gaps")
    hooks.wait(lambda: waiting() == "0", "the cursors are gone")
    assert hooks.rows("status")[0]["lost"] == str(20 * count)
    assert receiver.values() == dict.fromkeys([*range(10), *range(100, 105)], 1) | (
        dict.fromkeys(range(10), count)
    )


def test_a_policy_is_taken_up_as_a_whole_or_not_at_all(hooks):
    receiver, second = hooks.receiver(), hooks.receiver()
    hooks.policy({"id": "all", "url": receiver.url})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a")
    hooks.policy({"id": "all", "url": second.url}, {"id": "bad", "url": "http://"})
    hooks.wait(
        lambda: "the one before holds" in hooks.output(), "the bad one is refused"
    )
    hooks.send("test.a", range(3))
    hooks.wait(lambda: len(receiver.ids()) == 3, "the one before holds")
    hooks.policy({"id": "all", "url": second.url})
    hooks.hang_up()
    hooks.send("test.a", [9])
    hooks.wait(lambda: second.ids(), "it goes where the good one says")
    assert len(receiver.ids()) == 3
    assert receiver.failures == second.failures == []


def test_sighup_has_the_secret_files_read_again(hooks, tmp_path):
    receiver = hooks.receiver(secret=None)
    secret = tmp_path / "secret"
    old, new = "a-secret-of-yesterday", "a-secret-of-today"
    secret.write_text(old)
    hooks.policy({"id": "all", "url": receiver.url, "secret": f"file:{secret}"})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a")

    def sent(n: int) -> Delivery:
        hooks.send("test.a", [n])
        hooks.wait(lambda: n in receiver.values(), f"{n} is delivered")
        return receiver.deliveries[-1]

    sent(1).verify(old)
    secret.write_text(new)
    sent(2).verify(old)  # the policy's own file is as it was
    hooks.hang_up()
    sent(3).verify(new)


def test_what_operators_see_and_do(hooks):
    receiver = hooks.receiver()
    hooks.policy({"id": "all", "url": receiver.url})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a", 2)
    hooks.send("test.a", range(20))
    hooks.wait(lambda: len(receiver.ids()) == 20, "all are delivered")
    assert hooks.rows("list")[0]["endpoint"] == "all"
    assert "took" in hooks.webhooks("test", "all").stdout
    assert receiver.failures == []
    receiver.deliveries.clear()

    def is_told() -> bool:
        (status,) = hooks.rows("status")
        told = [status[name] for name in ("state", "waiting", "failing")]
        return told == ["live", "0", "0"]

    hooks.wait(is_told, "the cursor is stored")
    assert len(hooks.rows("deliveries", "all", "--limit", "100")) == 20
    hooks.webhooks("test", "al", code=2)

    hooks.webhooks("disable", "all")
    hooks.wait(
        lambda: hooks.metric("aion_webhook_state", state="disabled") == 1, "it is off"
    )
    hooks.send("test.a", range(20, 25))
    time.sleep(1)
    assert receiver.deliveries == []
    hooks.webhooks("enable", "all")
    hooks.wait(lambda: len(receiver.ids()) == 5, "it gets what it missed")

    before = set(receiver.ids())
    hooks.webhooks("replay", "all", "--from", "1h")
    assert len(receiver.ids()) == 25 and before < set(receiver.ids())
    assert len(receiver.deliveries) == 30, "the same ids once more"


def test_410_disables_until_somebody_says_otherwise(hooks):
    receiver = hooks.receiver()
    receiver.answer = 410
    hooks.policy({"id": "all", "url": receiver.url})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a")
    hooks.send("test.a", range(5))
    disabled = lambda: hooks.metric("aion_webhook_state", state="disabled") == 1
    hooks.wait(disabled, "it is disabled")
    hooks.kill()
    receiver.answer = 204
    hooks.start()
    hooks.wait(disabled, "and still is after a crash")
    assert receiver.deliveries == []
    hooks.webhooks("enable", "all")
    hooks.wait(
        lambda: sorted(receiver.values()) == list(range(5)), "it gets all of them"
    )


def test_the_order_of_a_key_is_kept_where_it_is_asked_for(hooks):
    receiver = hooks.receiver()
    failed: set[str] = set()

    def sometimes(delivery) -> int:
        if delivery.event["data"]["n"] % 3 == 0 and delivery.id not in failed:
            failed.add(delivery.id)
            return 500
        return 204

    receiver.answer = sometimes
    retry = {"initial_interval": "10ms", "max_interval": "50ms", "max_attempts": 50}
    entry = {"id": "all", "url": receiver.url, "ordering": "key", "retry": retry}
    hooks.policy(entry)
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a", 2)
    hooks.send("test.a", range(300))
    hooks.wait(lambda: len(receiver.ids()) == 300, "all are delivered")
    by_key: dict[str, list[int]] = {}
    for delivery in receiver.deliveries:
        by_key.setdefault(delivery.event["key"], []).append(delivery.event["data"]["n"])
    assert all(numbers == sorted(numbers) for numbers in by_key.values()), by_key


def test_what_is_no_json_arrives_all_the_same(hooks):
    receiver = hooks.receiver()
    hooks.policy({"id": "all", "url": receiver.url})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a")
    producer = Producer({"bootstrap.servers": hooks.kafka})
    for value in [b"plain", b"\x00\x01\xff", None, b'{"a": 1}']:
        producer.produce("test.a", value, b"\xff")
    producer.flush(30)
    hooks.wait(lambda: len(receiver.ids()) == 4, "all are delivered")
    events = [d.event for d in receiver.deliveries]
    events.sort(key=lambda event: event["source"]["offset"])
    assert [event.get("data_base64") for event in events[:2]] == ["cGxhaW4=", "AAH/"]
    assert events[2]["data"] is None and events[3]["data"] == {"a": 1}
    assert events[0]["key_base64"] == "/w=="
    assert receiver.failures == []


def test_attempts_are_records_of_a_topic(hooks):
    receiver = hooks.receiver()
    hooks.policy({"id": "all", "url": receiver.url})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.a")
    hooks.send("test.a", [1])
    hooks.wait(lambda: receiver.ids(), "it is delivered")
    consumer = Consumer(
        {
            "bootstrap.servers": hooks.kafka,
            "group.id": "look",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["aion.webhooks.attempts"])
    deadline, record = time.monotonic() + 30, None
    while record is None and time.monotonic() < deadline:
        record = consumer.poll(1)
    consumer.close()
    attempt = json.loads(record.value())
    assert (attempt["outcome"], attempt["status"], attempt["attempt"]) == (
        "delivered",
        204,
        1,
    )
    assert record.key().decode() == f"all:{attempt['event_id']}"
