"""What a policy promises, held against topics and events; what is said where it can't be kept, or isn't wise."""

from __future__ import annotations

import functools
import time

HOUR = {"retention.ms": "3600000"}
SECOND = {"retention.ms": "1000"}


def test_a_policy_that_tries_for_longer_than_a_topic_keeps_is_refused(hooks):
    """At a change and at the start, with line and reason; of a topic that comes later it is said."""
    receiver = hooks.receiver()
    entry = {"id": "all", "url": receiver.url}
    hooks.policy(entry | {"max_age": "1h"})
    hooks.start()
    hooks.born("all")
    hooks.topic("test.hour", **HOUR)
    hooks.topic("others.second", **SECOND)
    loaded = functools.partial(hooks.metric, "aion_webhook_policy_loaded")
    assert loaded() == 1
    missing = hooks.folder / "missing.pem"
    hooks.policy(entry | {"max_age": "1h", "tls": {"ca": str(missing)}})
    hooks.signal_hang_up()
    unread = f"the one before holds: {hooks.policy_file}:3: webhook all: tls: {missing}"
    hooks.wait(
        lambda: unread in hooks.output(), "so is one with a file that isn't there"
    )
    hooks.wait(lambda: loaded() == 0, "the metric says so")
    hooks.policy(entry | {"max_age": "1h"})
    hooks.hang_up()
    assert loaded() == 1
    hooks.policy(entry | {"max_age": "2h"})
    hooks.signal_hang_up()
    told = "webhook all tries for 120 min, and topic test.hour keeps its records for 60 min"
    refused = f"the one before holds: {hooks.policy_file}:3: {told}"
    hooks.wait(lambda: refused in hooks.output(), "it is refused")
    hooks.wait(lambda: loaded() == 0, "the metric says so")
    hooks.send("test.hour", [1])
    hooks.wait(lambda: receiver.taken, "the one before holds")
    hooks.kill()

    hooks.begin("--no-generator", "--webhooks", str(hooks.policy_file))
    code, last = hooks.refused()
    assert code == 2 and f"{hooks.policy_file}:3: {told}" in last, last

    hooks.policy(entry | {"max_age": "1h"})
    hooks.start()
    assert "what isn't delivered in time" not in hooks.output()
    hooks.topic("test.second", is_told=False, **SECOND)
    late = "topic test.second keeps its records for 1 s"
    hooks.wait(lambda: late in hooks.output(), "it is said of a topic that comes later")
    hooks.policy(entry | {"max_age": "1h", "timeout": "5s"})
    hooks.hang_up()


def test_whoever_leaves_a_backlog_is_reported_and_may_come_back(hooks):
    """An entry that goes, and a topic that an entry wants no more."""
    receivers = {name: hooks.receiver() for name in ("gone", "edited")}
    entries = {
        name: {"id": name, "url": receiver.url, "topics": ["test.a", "test.b"]}
        for name, receiver in receivers.items()
    }
    for receiver in receivers.values():
        receiver.answer = 503
    hooks.policy(*entries.values())
    hooks.start()
    for topic in ("test.a", "test.b"):
        hooks.topic(topic)
    hooks.born(*entries)
    hooks.send("test.a", range(10))
    hooks.send("test.b", range(100, 107))
    lag = lambda: hooks.metric("aion_webhook_lag_events")
    hooks.wait(lambda: lag() == 34, "all wait")
    hooks.policy(entries["edited"] | {"topics": ["test.a"]})
    hooks.hang_up()
    said = hooks.output()
    assert "the policy has gone no more, which still had 17 events to get" in said
    assert "edited wants test.b no more, of which it still had 7 events to get" in said
    assert "wants test.a no more" not in said
    status = {row["endpoint"]: row for row in hooks.rows("status")}
    told = (status["gone"]["state"], status["gone"]["waiting"])
    assert told == ("not in the policy", "17")

    hooks.policy(*entries.values())
    hooks.hang_up()
    wanted = dict.fromkeys([*range(10), *range(100, 107)], 1)
    for receiver in receivers.values():
        receiver.answer = 204
    for receiver in receivers.values():
        came = lambda values=receiver.values: values() == wanted
        hooks.wait(came, "whoever comes back gets them")
    # Asked to stop in the middle of a change, it hears the cluster out while there is one.
    began = time.monotonic()
    assert hooks.stop() == 0
    assert time.monotonic() - began < 30


def test_a_secret_in_the_file_is_frowned_upon_at_the_start_and_at_a_change(
    hooks, tmp_path
):
    def frowned() -> int:
        line = f"{hooks.policy_file}:4: a secret stands in the file"
        return hooks.output().count(line)

    entry = {"id": "all", "url": hooks.receiver().url}
    hooks.policy(entry)
    hooks.start()
    assert frowned() == 1
    hooks.policy(entry | {"timeout": "5s"})
    hooks.hang_up()
    assert frowned() == 2
    secret = tmp_path / "secret"
    secret.write_text("a-secret-for-tests-only")
    hooks.policy(entry | {"secret": f"file:{secret}"})
    hooks.hang_up()
    assert frowned() == 2


def test_no_more_deliveries_a_second_than_the_rate(hooks):
    slow, fast = hooks.receiver(), hooks.receiver()
    rate, events = 40, 120
    hooks.policy(
        {"id": "slow", "url": slow.url, "rate": rate}, {"id": "fast", "url": fast.url}
    )
    hooks.start()
    hooks.topic("test.a", 2)
    hooks.born("slow", "fast")
    began = time.monotonic()
    hooks.send("test.a", range(events))
    for receiver in (fast, slow):
        has_all = lambda taken=receiver.taken: len(taken) == events
        hooks.wait(has_all, "all come", 60)
    fast_s, slow_s = (one.deliveries[-1].at - began for one in (fast, slow))
    # A tenth of a second's deliveries may come at once.
    assert slow_s >= (events - 0.1 * rate - 1) / rate
    assert fast_s < slow_s, "whoever has no rate doesn't wait"
    assert set(slow.ids().values()) == {1}


def test_a_replay_has_a_beginning_and_an_end(hooks):
    receiver = hooks.receiver()
    hooks.policy({"id": "all", "url": receiver.url})
    hooks.start()
    hooks.topic("test.a", 2)
    hooks.born("all")
    moments = []
    for first in (0, 10, 20):
        hooks.send("test.a", range(first, first + 10))
        wanted = first + 10
        hooks.wait(lambda n=wanted: len(receiver.taken) == n, f"{wanted} are delivered")
        time.sleep(0.1)
        now_ms = time.time_ns() // 1_000_000
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ms / 1000))
        moments.append(f"{at}.{now_ms % 1000:03}Z")
        time.sleep(0.1)
    done = hooks.webhooks("replay", "all", "--from", moments[0], "--to", moments[1])
    assert "10 events are delivered to all once more" in done.stdout
    again = receiver.deliveries[30:]
    assert sorted(one.event["data"]["n"] for one in again) == list(range(10, 20))
    assert len(receiver.taken) == 30, "by the ids that they had"
    bodies = {one.id: one.body for one in receiver.deliveries[:30]}
    assert all(bodies[one.id] == one.body for one in again)
    done = hooks.webhooks("replay", "all", "--from", moments[2])
    assert "nothing to deliver once more" in done.stdout
