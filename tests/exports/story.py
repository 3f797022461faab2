"""A day of decisions and task events that this project's code didn't make, and what an export of it must have:
computed here, by rules of docs/exports.md written a second time."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import random
import uuid
from dataclasses import dataclass, field

from confluent_kafka import Producer

DAY = datetime.datetime(2026, 3, 14, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
ENDS = ("succeeded", "failed", "cancelled")


@dataclass
class Story:
    """Events in the order in which they were sent."""

    decisions: list[dict] = field(default_factory=list)
    tasks: list[dict] = field(default_factory=list)

    @staticmethod
    def of(tasks: int, seed: int) -> Story:
        rng, story = random.Random(seed), Story()
        for number in range(tasks):
            story.task(rng, f"task-{number}")
        rng.shuffle(story.decisions)
        rng.shuffle(story.tasks)
        return story

    def task(self, rng: random.Random, name: str) -> None:
        """One task: routed once or several times, ended or not, in time or not, told once or twice."""
        task = {"task_id": name}
        if rng.random() < 0.9:
            task["tenant_id"] = f"tenant-{rng.randrange(5)}"
        at = (
            DAY
            + HOUR * 9
            + datetime.timedelta(microseconds=rng.randrange(3 * 3600 * 10**6))
        )
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            decision = {
                **task,
                "event_id": str(uuid.UUID(int=rng.getrandbits(128))),
                "intent": rng.choice(["summarize", "translate"]),
                "route": rng.choice(["local", "cloud"]),
                "reason": "policy",
                "tier": rng.choice(["public", "internal", "restricted"]),
                "timestamp": stamp(at),
            }
            if rng.random() < 0.8:
                decision["size"] = rng.randrange(5000)
                decision["cost_budget"] = rng.random()
            self.decisions += [decision] * rng.choice([1, 1, 1, 1, 2])
            for status in ("queued", "running"):
                self.tasks.append({**task, "status": status, "timestamp": stamp(at)})
            if rng.random() < 0.85:
                at += datetime.timedelta(seconds=rng.choice([0, 1, 30, 599, 600, 4000]))
                end = {**task, "status": rng.choice(ENDS), "timestamp": stamp(at)}
                end |= {"latency_ms": rng.randrange(10**4), "retries": rng.randrange(3)}
                self.tasks += [end] * rng.choice([1, 1, 2])
            at += datetime.timedelta(seconds=rng.choice([1, 20, 900]))

    def send(self, brokers: str) -> None:
        producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True})
        for topic, events in [
            ("aion.router.decisions", self.decisions),
            ("aion.tasks.lifecycle", self.tasks),
        ]:
            for event in events:
                producer.produce(topic, json.dumps(event), event["task_id"])
                producer.poll(0)
        assert producer.flush(60) == 0

    def fates(self, start, end, horizon_s: int, tiers: set[str]) -> dict[tuple, int]:
        """How often (task, time, outcome, superseded, censored, split) must be there. Copies count each."""
        horizon = datetime.timedelta(seconds=horizon_s)
        lines: dict[tuple, list] = {}
        for event in self.decisions:
            lines.setdefault(key(event), []).append((moment(event), 0, event))
        for event in self.tasks:
            if event["status"] in ENDS:
                lines.setdefault(key(event), []).append((moment(event), 1, event))
        fates: dict[tuple, int] = {}
        for who, line in lines.items():
            # What comes after the horizon of the whole interval isn't looked at.
            line = [one for one in line if start <= one[0] < end + horizon]
            line.sort(key=lambda one: one[:2])
            for now, after in itertools.pairwise([*line, None]):
                at, is_end, event = now
                if is_end or at >= end or event["tier"] not in tiers:
                    continue
                is_known = after is not None and after[0] < at + horizon
                outcome = after[2]["status"] if is_known and after[1] else None
                superseded = bool(is_known and not after[1])
                fate = (
                    event["task_id"],
                    at,
                    outcome,
                    superseded,
                    not is_known,
                    side(*who),
                )
                fates[fate] = fates.get(fate, 0) + 1
        return fates


def stamp(at: datetime.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(event: dict) -> datetime.datetime:
    return datetime.datetime.fromisoformat(event["timestamp"])


def key(event: dict) -> tuple[str, str]:
    return event.get("tenant_id", ""), event["task_id"]


def side(tenant: str, task: str, seed: int = 0) -> str:
    digest = hashlib.sha256(f"{seed}/{tenant}/{task}".encode()).digest()
    hundredth = int.from_bytes(digest[:8], "big") * 100 >> 64
    return "train" if hundredth < 80 else "validation" if hundredth < 90 else "test"
