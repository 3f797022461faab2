"""Dead letters: listed, shown, sent again and let be. Each record is stored once, whatever is sent twice or killed."""

from __future__ import annotations

import json
import random
import subprocess
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    Producer,
    TopicPartition,
)
from deltalake import DeltaTable
from events import decision, text
from processes import Audit, Dev, Process, binary, sql

DECISIONS = "aion.router.decisions"
RETRIES = "aion.retries.decisions"


class Place:
    """A broker, a lake, and a job named `mine` that fills it; `aion dev` only lends its broker."""

    def __init__(self, folder: Path, dev: Dev) -> None:
        self.folder, self.dev, self.lake = folder, dev, folder / "lake"
        self.config, self.run = folder / "aion.toml", Process(folder / "run.log")
        self.configure()

    def configure(
        self, knows_schemas: bool = False, max_reject_share: float = 1.0
    ) -> None:
        registry = f'[registry]\nurls = ["http://{self.dev.registry}"]\n'
        self.config.write_text(
            f'[kafka]\nbrokers = "{self.dev.kafka}"\n'
            "[kafka.properties]\n'session.timeout.ms' = 6000\n'heartbeat.interval.ms' = 500\n"
            f'[http]\nlisten = "{self.run.http}"\n'
            f'[lake]\nurl = "{self.lake}"\nflush_age_s = 1\nupkeep_every_m = 0\n'
            f"{registry if knows_schemas else ''}"
            f'[[job]]\nname = "mine"\ntopic = "{DECISIONS}"\nsinks = ["lake"]\n'
            f"max_reject_share = {max_reject_share}\n"
            '[[job]]\nname = "letters"\ntopic = "aion.dead-letters"\nsinks = ["lake"]\n'
        )

    def start(self, ready: bool = True) -> None:
        self.run.launch("run", "--config", self.config)
        if ready:
            self.run.wait_ready()

    def tell(self, *arguments: object, code: int = 0) -> str:
        """What `aion dead-letters` prints."""
        done = self.try_to(*arguments)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def try_to(self, *arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [
                *[binary(), "dead-letters", *map(str, arguments)],
                *["--config", self.config],
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )

    def letters(self, *arguments: object) -> list[dict]:
        told = self.tell(
            "list", "--job", "mine", "--all", "--format", "json", *arguments
        )
        return [json.loads(line) for line in told.splitlines()]

    def states(self) -> Counter:
        return Counter(letter["state"] for letter in self.letters())

    def rows(self, query: str) -> list[dict]:
        return sql(query, "--lake", self.lake)

    def count(self, what: str) -> int:
        return self.rows(f"select count(*) as n from {what}")[0]["n"]

    def wait(self, what: str, count: int, seconds: float = 60) -> None:
        def there() -> bool:
            return self.lake.exists() and self.count(what) == count

        self.run.wait(there, f"{count} {what}", seconds)

    def generate(self, count: int, *arguments: object, seed: int = 1) -> None:
        done = subprocess.run(
            [
                *[binary(), "generate", "--topic", DECISIONS, "--count", str(count)],
                *["--seed", str(seed), "--to", self.dev.kafka, *map(str, arguments)],
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr

    def avro(self, count: int, seed: int = 2) -> None:
        """Events that are good, and that a job without a registry can't know to be so."""
        self.generate(
            count, "--encoding", "avro", "--schema-id", self.schema_id(), seed=seed
        )

    def schema_id(self) -> int:
        subject = f"http://{self.dev.registry}/subjects/{DECISIONS}-value"
        with urllib.request.urlopen(f"{subject}/versions/latest", timeout=10) as answer:
            return json.load(answer)["id"]

    def log(self, topic: str) -> list:
        """Every message of a topic, by a client that is not ours."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.dev.kafka,
                "group.id": "independent",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        left = set(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in left])
        messages = []
        while left:
            message = consumer.poll(20)
            assert message is not None
            if message.error():
                left.discard(message.partition())
            else:
                messages.append(message)
        consumer.close()
        return messages

    def audited(self) -> Audit:
        """Everything is stored and exact."""
        audit = None

        def is_settled() -> bool:
            nonlocal audit
            audit = Audit("--config", self.config)
            assert audit.report, audit.errors
            return audit.total("pending") == 0

        self.run.wait(is_settled, "nothing is pending", 60)
        assert audit and audit.code == 0, audit.report
        return audit

    def check_origins(self, count: int) -> None:
        """By a reader that is not ours: each record has one row, be it of a retry."""
        table = DeltaTable(self.lake / "decisions").to_pyarrow_table(
            columns=["_topic_id", "_partition", "_offset", "_origin"]
        )
        places = [
            row["_origin"] or f"{row['_topic_id']}/{row['_partition']}/{row['_offset']}"
            for row in table.to_pylist()
        ]
        assert len(places) == len(set(places))
        assert table.num_rows - table.column("_origin").null_count == count


@pytest.fixture
def place(tmp_path: Path, dev: Dev):
    dev.start("--no-generator")
    place = Place(tmp_path, dev)
    yield place
    place.run.end()


def send(place: Place, values: list[bytes], partition: int = -1) -> None:
    producer = Producer({"bootstrap.servers": place.dev.kafka})
    for n, value in enumerate(values):
        producer.produce(DECISIONS, value, f"task-{n}".encode(), partition)
        producer.poll(0)
    assert producer.flush(60) == 0


def good(count: int) -> list[bytes]:
    rng = random.Random(count)
    return [text(decision(n, datetime.now(UTC), rng)) for n in range(count)]


def check_times_and_schemas(place: Place, originals: dict, began: datetime) -> None:
    """Of each letter in the table and of each message of the topic, by the record of the log that it names."""
    headers = {
        message.key().decode(): {
            name: value.decode() for name, value in message.headers()
        }
        for message in place.log("aion.dead-letters")
    }
    now = datetime.now(UTC)
    for letter in place.letters():
        kind, append_ms = originals[letter["partition"], letter["offset"]].timestamp()
        assert kind == TIMESTAMP_LOG_APPEND_TIME
        appended = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=append_ms)
        for told in letter, headers[letter["key"]]:
            assert int(told["schema_id"]) == place.schema_id()
            assert datetime.fromisoformat(told["append_time"]) == appended
            rejected = datetime.fromisoformat(told["rejected_at"])
            assert max(began, appended) <= rejected <= now


def test_a_schema_that_was_not_known_and_then_is(place: Place):
    began = datetime.now(UTC)
    place.start()
    place.generate(300)
    place.avro(40)
    place.wait("decisions", 300)
    place.wait("dead_letters where job = 'mine'", 40)

    letters = place.letters()
    assert {(one["reason"], one["state"], one["rejected"]) for one in letters} == {
        ("unknown_schema", "open", 1)
    }
    assert [one["rejected_at"] for one in letters] == sorted(
        (one["rejected_at"] for one in letters), reverse=True
    )
    groups = place.tell("list", "--job", "mine", "--by-reason", "--format", "csv")
    assert groups.splitlines()[1].startswith(
        f"mine,{DECISIONS},unknown_schema,,40,0,0,"
    )
    assert "40 open, 0 retried, 0 stored" in place.tell("list", "--job", "mine")

    originals = {
        (message.partition(), message.offset()): message
        for message in place.log(DECISIONS)
    }
    check_times_and_schemas(place, originals, began)
    one = letters[7]
    original = originals[one["partition"], one["offset"]]
    raw = subprocess.run(
        [
            *[binary(), "dead-letters", "show", one["key"], "--raw"],
            *["--config", place.config],
        ],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    assert raw == original.value()
    shown = place.tell("show", one["key"])
    assert "unknown_schema" in shown and original.key().decode() in shown
    assert f"00000000  00 00 00 00 {place.schema_id():02x}" in shown
    assert "no key" in place.tell("show", "nonsense", code=2)
    assert "no dead letter" in place.tell("show", one["key"] + "000", code=1)

    assert "which ones?" in place.tell("retry", code=2)
    assert "--yes" in place.tell("retry", "--job", "mine", code=2)
    assert "did you mean" in place.tell(
        "list", "--where", "reasom = 'unknown_schema'", code=2
    )

    # Sent while no job reads them: they wait, and nobody sends them again.
    assert place.run.stop() == 0
    sent = place.tell(
        "retry", "--where", "reason = 'unknown_schema'", "--job", "mine", "--yes"
    )
    assert f"40 to {RETRIES}: unknown_schema" in sent and "40 sent" in sent
    assert place.states() == {"retried": 40}
    again = place.tell("retry", "--job", "mine", "--yes")
    assert "40 left out" in again and "Nothing to send" in again
    # Somebody does all the same, by another client.
    producer = Producer({"bootstrap.servers": place.dev.kafka})
    for message in place.log(RETRIES):
        producer.produce(
            RETRIES, message.value(), message.key(), headers=message.headers()
        )
    assert producer.flush(60) == 0

    place.configure(knows_schemas=True)
    place.start()
    place.wait("decisions where _origin is not null", 40)
    audit = place.audited()
    assert audit.total("retried") == 40 and audit.total("passed_over") == 40
    assert audit.total("dead_letters") == 0
    assert place.states() == {"stored": 40}
    assert place.letters("--where", f'"offset" = {one["offset"]}')
    place.check_origins(40)

    # What is stored stays so, through a kill and a third try.
    place.run.kill()
    place.start()
    for message in place.log(RETRIES)[:40]:
        producer.produce(
            RETRIES, message.value(), message.key(), headers=message.headers()
        )
    assert producer.flush(60) == 0
    audit = place.audited()
    assert audit.total("retried") == 40 and audit.total("passed_over") == 80
    place.check_origins(40)
    assert place.count("decisions") == 340


def test_retries_that_are_killed_and_repeated(place: Place):
    seed = random.randrange(2**31)
    print("seed", seed)
    rng, count = random.Random(seed), 20_000
    place.start()
    place.avro(count)
    place.wait("dead_letters where job = 'mine'", count, 120)
    assert place.run.stop() == 0
    place.configure(knows_schemas=True)
    place.start()
    killed = 0
    for _ in range(8):
        command = [
            *[binary(), "dead-letters", "retry", "--all", "--job", "mine", "--yes"],
            *["--config", place.config],
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as retry:
            time.sleep(rng.uniform(0.05, 0.5))
            retry.kill()
            killed += retry.wait() != 0
        print(f"{killed} killed, {len(place.log(RETRIES))} sent so far")
        if rng.random() < 0.4:
            place.run.kill()
            place.start()
    assert killed > 0
    place.tell("retry", "--all", "--job", "mine", "--yes")
    place.wait("decisions where _origin is not null", count, 120)
    audit = place.audited()
    assert audit.total("retried") == count
    place.check_origins(count)
    assert place.states() == {"stored": count}


def test_a_record_that_stays_bad_is_a_dead_letter_again(place: Place):
    place.start()
    send(place, [*good(20), b'{"task_id": 7}'])
    place.wait("dead_letters where job = 'mine'", 1)
    (letter,) = place.letters()
    for tries in (2, 3):
        key = place.letters()[0]["key"]
        assert "1 sent" in place.tell("retry", key, "--yes")
        place.wait("dead_letters where job = 'mine'", tries)
        (again,) = place.letters()
        assert again["state"] == "open" and again["rejected"] == tries
        assert again["topic"] == RETRIES and again["key"] != letter["key"]
        place_of_first = (letter["topic_id"], letter["partition"], letter["offset"])
        assert again["origin"] == "/".join(map(str, place_of_first))
    shown = place.tell("show", letter["key"])
    assert "rejected  3 times" in shown and place.letters()[0]["key"] in shown
    assert "Nothing to send" in place.tell("retry", letter["key"], "--yes")
    # It doesn't go round by itself.
    time.sleep(3)
    assert place.count("dead_letters where job = 'mine'") == 3
    assert len(place.log(RETRIES)) == 2
    audit = place.audited()
    assert audit.total("retried") == 0
    # A record of nobody's in the topic of retries is one too.
    producer = Producer({"bootstrap.servers": place.dev.kafka})
    producer.produce(RETRIES, good(1)[0], b"x")
    assert producer.flush(20) == 0
    place.wait("dead_letters where reason = 'no_origin' and job = 'mine'", 1)
    place.audited()


def test_a_partition_that_stopped_goes_on_when_somebody_accepts(place: Place):
    place.configure(max_reject_share=0.5)
    send(place, good(50), 1)
    send(place, [b"nonsense"] * 3000, 0)
    send(place, good(30), 0)
    place.start(ready=False)

    def has_stopped() -> bool:
        try:
            code, said = place.run.get("/readyz")
        except OSError:
            return False
        accept = f"`aion dead-letters accept mine {DECISIONS} 0`"
        return code == 503 and accept in said

    place.run.wait(has_stopped, "partition 0 stops and says what to do", 60)
    place.wait("decisions where _partition = 1", 50)
    assert place.count("decisions where _partition = 0") == 0
    assert "did you mean" in place.tell("accept", "mime", DECISIONS, 0, code=2)
    assert "no partition" in place.tell("accept", "mine", DECISIONS, 9, code=2)
    assert "reads" in place.tell("accept", "mine", "aion.audit.activity", 0, code=2)
    # A decision about less than where it stopped changes nothing.
    place.tell("accept", "mine", DECISIONS, 0, "--below", 1)
    time.sleep(6)
    place.run.wait(has_stopped, "it stops again", 30)
    # The owner is down when the decision is taken.
    place.run.kill()
    told = place.tell("accept", "mine", DECISIONS, 0, "--because", "a test of theirs")
    assert "below 3030" in told
    place.start(ready=False)
    place.wait("decisions where _partition = 0", 30)
    place.wait("dead_letters where job = 'mine'", 3000)
    place.run.wait_ready()
    audit = place.audited()
    assert audit.total("dead_letters") == 3000
    # What comes later isn't covered.
    send(place, [b"nonsense"] * 1500, 0)
    place.run.wait(has_stopped, "it stops again", 60)
    place.tell("accept", "mine", DECISIONS, 0)
    place.wait("dead_letters where job = 'mine'", 4500)
    place.run.wait_ready()
    place.audited()
