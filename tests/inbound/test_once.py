"""A command is carried out once: repeated, from several gateways, through forged records and kill -9."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from gates import Gate, Hold, command, signature, token
from processes import wait


def test_a_thousand_replays_at_once_have_one_effect(gate: Gate):
    gate.start()
    body = json.dumps(command()).encode()
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: gate.send(body), range(1000)))
    statuses = {answer.status for answer in answers}
    assert statuses <= {202, 409} and 202 in statuses, statuses
    bodies = {answer.body for answer in answers if answer.status == 202}
    assert len(bodies) == 1, bodies
    (told,) = map(json.loads, bodies)
    gate.ended(told["id"])
    assert gate.send(body).json == told, "the answer is the same after it has ended"
    time.sleep(1)
    assert gate.plane.attempts() == {told["id"]: 1}
    assert gate.audit(told["id"]) == {"accepted": 1, "succeeded": 1}


def test_a_key_stands_for_one_command(gate: Gate):
    gate.start()
    first = command(idempotency_key="k", parameters={"proposal_id": "one"})
    accepted = gate.send(first)
    assert accepted.status == 202
    signed_again = first | {"timestamp": first["timestamp"] + 1}
    assert gate.send(signed_again).body == accepted.body, (
        "another time is no other command"
    )
    other = gate.send(first | {"parameters": {"proposal_id": "two"}})
    assert other.status == 422 and other.json["errors"][0]["field"] == "idempotency_key"
    assert (
        gate.send(
            first
            | {
                "action": "reject_kernel_proposal",
                "parameters": {"proposal_id": "one", "reason": "x"},
            }
        ).status
        == 422
    )
    gate.principal("twin", "approve")
    gate.write_policy()
    gate.gateway.process.send_signal(signal.SIGHUP)
    wait(lambda: gate.send(first, "twin").status != 401, "the twin is known", 10)
    twin = gate.send(first, "twin")
    assert twin.status == 202 and twin.json["id"] != accepted.json["id"], (
        "of another actor"
    )


def test_two_gateways_one_key_two_bodies(gate: Gate):
    gate.start(gateways=2)
    for number in range(10):
        bodies = [
            command(
                idempotency_key=f"k{number}",
                parameters={"proposal_id": f"{number}-{side}"},
            )
            for side in range(2)
        ]
        with ThreadPoolExecutor(2) as pool:
            sent = [pool.submit(gate.send, bodies[n], gateway=n) for n in range(2)]
            answers = [one.result() for one in sent]
        assert sorted(answer.status for answer in answers) == [202, 422], answers
        won = 0 if answers[0].status == 202 else 1
        told = answers[won].json["id"]
        gate.ended(told)
        asked = [c["parameters"] for key, c in gate.plane.asked if key == told]
        assert asked and all(p == bodies[won]["parameters"] for p in asked)
        for gateway in range(2):
            assert gate.send(bodies[won], gateway=gateway).body == answers[won].body
            assert gate.send(bodies[1 - won], gateway=gateway).status == 422
    assert set(gate.plane.attempts().values()) == {1}
    assert gate.state(told, gateway=1)[1]["state"] == "succeeded"


def test_a_forged_record_executes_nothing(gate: Gate):
    gate.start()
    told = gate.send(command()).json["id"]
    gate.ended(told)
    producer = Producer(gate.broker.client("evil"))
    event = {
        "actor_id": "reviewer",
        "action": "approve_kernel_proposal",
        "result": "accepted",
    }
    event |= {
        "resource": "command/cmd_" + "0" * 32,
        "timestamp": "2026-11-28T00:00:00Z",
    }
    event["context"] = {
        "command_id": "cmd_" + "0" * 32,
        "parameters": {"proposal_id": "evil"},
    }
    producer.produce("aion.audit.activity", json.dumps(event), "reviewer")
    # Whoever may write commands may command; one that isn't whole is passed over all the same.
    record = gate.read("aion.commands")[0]
    for change in (
        {"parameters": {"proposal_id": "evil"}},
        {"actor_id": "root"},
        {"command_id": "x"},
    ):
        producer.produce("aion.commands", json.dumps(record | change), "reviewer")
    producer.produce("aion.commands", b"{", "reviewer")
    assert producer.flush(20) == 0
    gate.gateway.wait(
        lambda: gate.gateway.metric("aion_commands_ignored_total") == 4,
        "they are counted",
        20,
    )
    after = gate.send(command()).json["id"]
    gate.ended(after)
    assert gate.plane.attempts() == {told: 1, after: 1}


def test_an_actors_commands_are_carried_out_in_order_and_a_dead_control_plane_loses_none(
    gate: Gate,
):
    gate.start()
    gate.plane.answer = 503
    sent = {"reviewer": [], "installer": []}
    install = {
        "action": "install_module",
        "parameters": {"module": "m", "version": "1"},
    }
    for number in range(10):
        answer = gate.send(command(parameters={"proposal_id": str(number)}))
        sent["reviewer"].append(answer.json["id"])
        answer = gate.send(command(tenant_id="acme", **install), "installer")
        sent["installer"].append(answer.json["id"])
    gate.gateway.wait(lambda: len(gate.plane.asked) > 4, "it is asked", 20)
    assert {key for key, _ in gate.plane.asked} == {ids[0] for ids in sent.values()}
    assert gate.gateway.metric("aion_commands_open") == 20
    gate.plane.answer = 200
    for who, ids in sent.items():
        gate.ended(ids[-1], 90, who=who)
    done = list(gate.plane.done)
    for ids in sent.values():
        assert [key for key in done if key in ids] == ids
    assert gate.gateway.metric("aion_commands_open") == 0


def test_an_answer_that_says_no_is_an_outcome(gate: Gate):
    gate.start()
    gate.plane.answer = 422
    told = gate.send(command()).json["id"]
    ended = gate.ended(told)
    assert ended["state"] == "failed" and ended["detail"].startswith("HTTP 422")
    assert gate.audit(told) == {"accepted": 1, "failed": 1}
    assert gate.plane.attempts() == {told: 1}


def test_a_conflict_may_mean_that_it_is_still_at_work(gate: Gate):
    """As it answers who repeats a key while the first attempt, whose answer came too late, isn't over."""
    gate.start()
    gate.plane.answer = 409
    told = gate.send(command()).json["id"]
    wait(lambda: gate.plane.attempts()[told] >= 2, "it is asked again", 30)
    gate.plane.answer = 200
    assert gate.ended(told)["state"] == "succeeded"
    assert gate.audit(told) == {"accepted": 1, "succeeded": 1}


def test_without_a_broker_nothing_is_promised(gate: Gate):
    gate.start()
    body = json.dumps(command()).encode()
    gate.broker.kill()
    answer = gate.send(body)
    assert answer.status == 503 and "repeat" in answer.json["detail"]
    gate.broker.start()
    wait(lambda: gate.send(body).status == 202, "it is taken in when repeated", 90)
    told = gate.send(body).json["id"]
    gate.ended(told, 60)
    assert gate.audit(told) == {"accepted": 1, "succeeded": 1}


SEED = int(os.environ.get("AION_SEED", "1"))
KILLS = int(os.environ.get("AION_KILLS", "20"))
ACTORS = [f"actor-{number}" for number in range(6)]


def sending(
    gate: Gate, accepted: list[str], over: threading.Event
) -> list[threading.Thread]:
    """Sends commands of several actors, each again until it is known what became of it."""

    def work(who: str) -> None:
        while not over.wait(0.1):
            body = json.dumps(command()).encode()
            while not over.is_set():
                try:
                    answer = gate.send(body, who)
                except OSError:
                    time.sleep(0.02)
                    continue
                if answer.status == 202:
                    accepted.append(answer.json["id"])
                    break
                assert answer.status in (409, 503), answer.body
                time.sleep(0.02)

    threads = [
        threading.Thread(target=work, args=(who,), daemon=True) for who in ACTORS
    ]
    for thread in threads:
        thread.start()
    return threads


def crowd(gate: Gate) -> None:
    for who in ACTORS:
        gate.principal(who, "approve")
    gate.write_policy()
    gate.start()


def settled(gate: Gate, accepted: list[str], hits: int) -> None:
    """Everything accepted was carried out, once given its id, and has its pair of events."""
    assert hits == KILLS, f"{hits} of {KILLS} kills came when they should"
    gate.gateway.wait_ready()
    gate.gateway.wait(
        lambda: gate.gateway.metric("aion_commands_open") == 0, "nothing is open", 120
    )
    assert not gate.plane.failures, gate.plane.failures
    assert set(accepted) <= gate.plane.done.keys()
    results: dict[str, dict[str, str]] = {}
    for event in gate.read("aion.audit.activity"):
        place = event.get("resource", "").removeprefix("command/")
        results.setdefault(place, {})[event["event_id"]] = event["result"]
    for told in gate.plane.done:
        assert sorted(results[told].values()) == ["accepted", "succeeded"], told
    attempts = gate.plane.attempts()
    again = sum(count > 1 for count in attempts.values())
    print(
        f"settled: {hits} of {KILLS} kills hit, {len(accepted)} answered 202, "
        f"{len(gate.plane.done)} carried out, {again} asked for more than once, none lost, "
        "each with its two events"
    )


def test_killed_between_acknowledgement_and_dispatch_nothing_is_lost(gate: Gate):
    """A kill hits when the process that dies has answered 202 to a command that the control plane never saw."""
    crowd(gate)
    rng, accepted, over = random.Random(SEED), [], threading.Event()
    gate.plane.answer = 503  # whatever is accepted waits
    senders = sending(gate, accepted, over)
    # From here on each actor's first command is asked for again and again, and no other.
    wait(lambda: len(gate.plane.attempts()) == len(ACTORS), "all are at work", 60)
    hits = 0
    for _ in range(KILLS):
        known = len(accepted)

        def waiting(since: int = known) -> set[str]:
            return set(accepted[since:]) - gate.plane.attempts().keys()

        gate.gateway.wait(waiting, "one waits for its dispatch", 60)
        time.sleep(rng.uniform(0, 0.2))
        gate.gateway.kill()
        hits += bool(waiting())
        gate.launch(gate.gateway)
    over.set()
    for sender in senders:
        sender.join(60)
    gate.plane.answer = 200
    settled(gate, accepted, hits)


def test_killed_between_dispatch_and_outcome_it_is_carried_out_once_by_its_id(
    gate: Gate,
):
    """A kill hits when the control plane has carried a command out for the first time, and its answer isn't given
    before the process is dead: it has to be asked for once more, with the same bytes."""
    crowd(gate)
    rng, accepted, over = random.Random(SEED + 1), [], threading.Event()
    senders = sending(gate, accepted, over)
    hits = 0
    for _ in range(KILLS):
        before = gate.plane.attempts()
        gate.plane.hold = hold = Hold()

        def under_way(hold: Hold = hold, before: Counter = before) -> set[str]:
            return set(hold.keys) - before.keys()

        gate.gateway.wait(under_way, "one is under way", 60)
        time.sleep(rng.uniform(0, 0.1))
        gate.gateway.kill()
        gate.plane.hold = None
        left, asked = under_way(), gate.plane.attempts()
        hold.over.set()
        gate.launch(gate.gateway)

        def again(left: set[str] = left, asked: Counter = asked) -> bool:
            return all(gate.plane.attempts()[key] > asked[key] for key in left)

        gate.gateway.wait(again, "they are asked for again", 60)
        hits += bool(left)
    over.set()
    for sender in senders:
        sender.join(60)
    settled(gate, accepted, hits)


def test_one_of_two_gateways_takes_over_from_the_other(gate: Gate):
    gate.start(gateways=2)
    accepted = [gate.send(command(), gateway=n % 2).json["id"] for n in range(10)]
    gate.gateways[1].kill()
    accepted += [gate.send(command()).json["id"] for _ in range(10)]
    for told in accepted:
        gate.ended(told, 60)
    assert set(accepted) == gate.plane.done.keys()
    assert signature(b"") != signature(b"x")


def test_gateways_that_come_and_go_hand_over_what_is_under_way(gate: Gate):
    """Nobody is killed: so no command is asked for twice."""

    pause = 0.5

    def slowly(_: dict) -> int:
        time.sleep(pause)
        return 200

    gate.start()
    gate.plane.answer = slowly

    def send(actor: int) -> list[str]:
        bearer = f"Bearer {token(sub=f'actor-{actor}')}"
        sent = [gate.send(command(), authorization=bearer) for _ in range(25)]
        assert {answer.status for answer in sent} == {202}
        return [answer.json["id"] for answer in sent]

    with ThreadPoolExecutor(16) as senders:
        accepted = [told for sent in senders.map(send, range(16)) for told in sent]
    gate.join().wait_ready()
    # Members are given partitions a moment after they have joined.
    second = gate.gateways[1]
    had = len(gate.plane.done)
    second.wait(lambda: len(gate.plane.done) > had + 50, "both work", 30)
    # Longer than a process that ends anything else is waited for; within `timeout_s`, which is 10.
    pause = 7
    time.sleep(1)
    gate.gateway.process.send_signal(signal.SIGTERM)
    time.sleep(3)
    pause = 0.05
    assert gate.gateway.process.wait(30) == 0
    left = len(accepted) - len(gate.plane.done)
    assert left > 0, "all was done before: the test shows nothing"
    ended = "aion_commands_ended_total"
    second.wait(lambda: second.metric("aion_commands_open") == 0, "all is done", 60)
    assert second.metric(ended) >= left
    assert set(accepted) == gate.plane.done.keys()
    again = {key: n for key, n in gate.plane.attempts().items() if n > 1}
    assert not again


def test_commands_may_go_to_a_topic(gate: Gate):
    gate.start(topic="control.commands")
    gate.gateway.wait(
        lambda: "there is no topic control.commands" in gate.gateway.output(),
        "it is said that nobody could read them",
        20,
    )
    admin = AdminClient({"bootstrap.servers": gate.broker.address})
    made = admin.create_topics([NewTopic("control.commands", 2, 1)])
    made["control.commands"].result(20)
    answer = gate.send(command(parameters={"proposal_id": "p9"}))
    told = answer.json["id"]
    assert gate.ended(told)["state"] == "succeeded"
    assert gate.audit(told) == {"accepted": 1, "succeeded": 1}
    (message,) = gate.messages("control.commands")
    assert message.key() == b"reviewer"
    assert dict(message.headers())["Idempotency-Key"] == told.encode()
    asked = json.loads(message.value())
    assert (asked["id"], asked["parameters"]) == (told, {"proposal_id": "p9"})
    assert gate.plane.attempts() == {}
