"""Events made without any code of this project, one in a hundred broken in one of several ways."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

ROUTES = ["local-small", "local-large", "cloud-eu", "cloud-us"]
TIERS = ["public", "internal", "confidential"]


def timestamp(moment: datetime, rng: random.Random) -> str:
    """RFC 3339 as different producers write it: UTC or with an offset, 0 to 6 digits of a second."""
    zone = rng.choice([UTC, timezone(timedelta(hours=5, minutes=30))])
    text = moment.astimezone(zone).isoformat(
        timespec=rng.choice(["seconds", "milliseconds", "microseconds"])
    )
    return text.replace("+00:00", "Z") if rng.random() < 0.5 else text


def decision(n: int, now: datetime, rng: random.Random) -> dict:
    return {
        "task_id": f"task-{n:07d}",
        "intent": "summarise",
        "route": rng.choice(ROUTES),
        "reason": 'größe ✓ "quoted" \\ back',
        "tier": rng.choice(TIERS),
        "timestamp": timestamp(now, rng),
        "size": rng.randrange(2**53, 2**60),
        "a_field_of_next_year": {"nested": [1, 2, {"deep": None}]},
    }


def lifecycle(n: int, now: datetime, rng: random.Random) -> dict:
    return {
        "task_id": f"task-{n:07d}",
        "status": rng.choice(["queued", "running", "succeeded", "failed"]),
        "timestamp": timestamp(now, rng),
        "metadata": {"z": 1, "a": {"y": [True, None], "b": "ü"}},
        "tenant_id": None,
    }


def metric(n: int, now: datetime, rng: random.Random) -> dict:
    return {
        "component": f"router-{n % 3}",
        "metric": "queue_depth",
        "value": rng.choice([n, n / 3, 1e-9, -0.0]),
        "labels": {"zone": "a", "shard": n % 5},
        "timestamp": timestamp(now, rng),
    }


def audit(n: int, now: datetime, rng: random.Random) -> dict:
    return {
        "actor_id": f"user-{n % 50}",
        "action": "policy.update",
        "timestamp": timestamp(now, rng),
    }


def text(event: dict) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def without(event: dict, name: str) -> bytes:
    return text({key: value for key, value in event.items() if key != name})


# Each way of being broken, with the reason that the dead letter must give.
BROKEN = {
    "truncated": (lambda e: text(e)[:-7], "malformed_json"),
    "not json": (lambda e: b"hello " + text(e), "unknown_encoding"),
    "trailing": (lambda e: text(e) + b"}", "malformed_json"),
    "latin-1": (lambda e: text(e)[:-1] + b', "note": "\xe9t\xe9"}', "invalid_utf8"),
    "no time": (lambda e: without(e, "timestamp"), "missing_field"),
    "null time": (lambda e: text({**e, "timestamp": None}), "missing_field"),
    "odd time": (lambda e: text({**e, "timestamp": "yesterday at noon"}), "bad_time"),
    "numeric time": (lambda e: text({**e, "timestamp": 1764000000}), "wrong_type"),
    "old time": (
        lambda e: text({**e, "timestamp": "1999-01-01T00:00:00Z"}),
        "time_out_of_bounds",
    ),
    "deep": (
        lambda e: text(e)[:-1] + b', "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "too_deep",
    ),
    "framed": (lambda e: b"\x00\x00\x00\x00\x07" + text(e), "unknown_schema"),
}

TOPICS = {
    "aion.router.decisions": ("task_id", decision, "decisions"),
    "aion.tasks.lifecycle": ("task_id", lifecycle, "tasks"),
    "aion.metrics.runtime": ("component", metric, "metrics"),
    "aion.audit.activity": ("actor_id", audit, "audit"),
}


@dataclass
class Sent:
    """What was produced, by topic: good events and the reasons of the broken ones."""

    good: Counter = field(default_factory=Counter)
    broken: Counter = field(default_factory=Counter)  # by (topic, reason)


def messages(count: int, seed: int):
    """Yields (topic, key, value, reason or None)."""
    rng = random.Random(seed)
    base = datetime.fromtimestamp(time.time(), UTC) - timedelta(hours=2)
    kinds = list(BROKEN.values())
    for n in range(count):
        topic = rng.choice(list(TOPICS))
        key, make, _ = TOPICS[topic]
        event = make(n, base + timedelta(milliseconds=n * 50), rng)
        if n % 100 == 37:
            breaker, reason = kinds[(n // 100) % len(kinds)]
            yield topic, event[key], breaker(event), reason
        else:
            yield topic, event[key], text(event), None
