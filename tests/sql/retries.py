"""A dead letter of a task that is sent again, and what there was to send."""

from __future__ import annotations

import datetime
import subprocess

from confluent_kafka import Producer
from processes import Dev, binary

# The job of `aion dev`, and its letters.
JOB = "tasks-lake"
REJECTED = f"dead_letters where topic = 'aion.tasks.lifecycle' and job = '{JOB}'"
# Where one record of the lake's tasks comes from, and what it is a retry of.
RETRIES = "aion.retries.tasks"
RETRIED = "tasks where _origin is not null"


def send_a_retry(dev: Dev) -> None:
    """A row in the partition that nobody else writes to: a task's dead letter, sent again with a value that is good."""
    command = [binary(), "generate", "--topic", "tasks", "--count", "1"]
    made = subprocess.run(command, check=True, capture_output=True, timeout=60)
    (letter,) = dev.sql(f"select * from {REJECTED} order by rejected_at limit 1")
    origin = "/".join(str(letter[name]) for name in ("topic_id", "partition", "offset"))
    appended = datetime.datetime.fromisoformat(letter["append_time"])
    headers = {
        "job": letter["job"],
        "origin": origin,
        "origin_append_time": appended.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    producer = Producer({"bootstrap.servers": dev.kafka})
    producer.produce(RETRIES, made.stdout.rstrip(b"\n"), headers=headers)
    assert producer.flush(30) == 0
