"""A secured Apache Kafka for tests, and topics of a test's own with the `aion run` that read them, on any brokers."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from brokers import Brokers
from clickhouse.engine import Engine
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    Producer,
    TopicCollection,
    TopicPartition,
)
from deltalake import DeltaTable
from events import BROKEN, decision, text
from processes import ROOT, Audit, Process, free_port, sql, wait

SCRIPT = ROOT / "scripts" / "kafka"


class Cluster(Brokers):
    """scripts/kafka, as a person uses it."""

    def __init__(self, folder: Path, nodes: int, is_open: bool = False) -> None:
        super().__init__("")
        self.folder, self.nodes, self.is_open = folder, nodes, is_open

    def start(self) -> None:
        for _ in range(3):
            # Ports next to each other; another process may have one of them.
            self.port = free_port()
            asked = ["start", "--nodes", str(self.nodes), "--port", str(self.port)]
            asked += ["--open"] * self.is_open
            if self.script(*asked, check=False) == 0:
                self.address = f"127.0.0.1:{self.port}"
                return
            self.script("stop", check=False)
            shutil.rmtree(self.folder, ignore_errors=True)
        raise AssertionError("scripts/kafka start failed")

    def stop(self) -> None:
        self.script("stop")

    def node(self, action: str, number: int) -> None:
        self.script("node", action, str(number))

    def script(self, *arguments: str, check: bool = True) -> int:
        command = [SCRIPT, *arguments, "--dir", self.folder]
        return subprocess.run(
            command, check=check, stdout=subprocess.DEVNULL
        ).returncode

    def client(self, account: str, **settings: object) -> dict:
        if self.is_open:
            return super().client(account, **settings)
        pairs = self.client_file(account).read_text().splitlines()
        signed_in = dict(line.split("=", 1) for line in pairs)
        return signed_in | {
            name.replace("__", "."): value for name, value in settings.items()
        }

    def client_file(self, account: str) -> Path:
        return self.folder / "clients" / f"{account}.properties"

    def secret(self, account: str) -> Path:
        return self.folder / "secrets" / account

    def bootstrap_arguments(self, account: str) -> list[object]:
        if self.is_open:
            return super().bootstrap_arguments(account)
        return ["--client-config", self.client_file(account)]


def catalog(
    folder: Path, topic: str, table: str, partitions: int = 4, more: str = ""
) -> Path:
    """A catalog with one topic of router decisions, under a name of the test's own."""
    shutil.copytree(ROOT / "schemas", folder, ignore=shutil.ignore_patterns("src"))
    whole = (folder / "catalog.toml").read_text()
    lines = [line for line in whole.splitlines() if not line.startswith("#")]
    head, *topics = "\n".join(lines).split("[[topic]]")
    internal = [entry for entry in topics if "internal = true" in entry]
    own = (
        f'[[topic]]\nname = "{topic}"\nkey = "task_id"\nschema = "router_decision"\ntable = "{table}"\n'
        f'partitions = {partitions}\nwriters = ["router"]\n{more}\n'
    )
    (folder / "catalog.toml").write_text(
        head + own + "".join("[[topic]]" + entry for entry in internal)
    )
    return folder


class Counted(NamedTuple):
    """How many records a check has seen: in the log with a value, in the lake, among the dead letters."""

    in_log: int
    stored: int
    rejected: int


class Place:
    """A topic of the test's own, the processes that read it, and the lake that they share."""

    # Rows are flushed when they are this old.
    flush_age_s = 1
    # How long the group waits for a member that fell silent: short, so that its partitions don't wait long.
    session_ms = 6000
    # What else the configuration of every process says, after that of the lake.
    more = ""
    # How deltalake reaches the lake.
    storage: dict[str, str] | None = None
    # A ClickHouse that has the rows too, where there is one.
    engine: Engine | None = None
    # How long everything may take to come to rest after kills.
    patience_s = 120
    # How many events a second are sent under a plan of kills; 0 where a few now and then will do.
    a_second = 0

    def __init__(
        self,
        cluster: Brokers,
        folder: Path,
        topic: str,
        replication: int | None = None,
        **settings,
    ) -> None:
        self.replication = ["--replication", replication] if replication else []
        self.cluster, self.folder, self.topic = cluster, folder, topic
        self.table = topic.replace(".", "_").replace("-", "_")
        self.catalog = catalog(folder / "catalog", topic, self.table, **settings)
        self.lake: Path | str = folder / "lake"
        self.runs: list[Process] = []
        self.lock = threading.Lock()
        self.sent = 0

    def bootstrap(self, *arguments: object) -> None:
        asked = ["--catalog", self.catalog, *map(str, self.replication), *arguments]
        done = self.cluster.bootstrap(*asked)
        assert done.returncode == 0, done.stdout + done.stderr

    def run(
        self,
        account: str = "pipeline",
        *,
        more: str = "",
        flush_age_s: int | None = None,
        plan: dict[str, str] | None = None,
        **properties: object,
    ) -> Process:
        """Starts an `aion run`; properties are librdkafka's, `__` for a dot; `more` is configuration, `plan` what
        Process.launch takes of plans."""
        with self.lock:
            number = len(self.runs)
            run = Process(self.folder / f"run-{number}.log")
            self.runs.append(run)
        more = f'[http]\nlisten = "{run.http}"\n{more}'
        config = self.config(f"aion-{number}", account, more, properties, flush_age_s)
        run.launch("run", "--config", config, **(plan or {}))
        return run

    def config(
        self,
        name: str,
        account: str,
        more: str,
        properties: dict,
        flush_age_s: int | None = None,
    ) -> Path:
        """Writes a configuration."""
        age_s = self.flush_age_s if flush_age_s is None else flush_age_s
        client = self.cluster.client(account)
        if "sasl.password" in client:
            client["sasl.password"] = f"file:{self.cluster.secret(account)}"
        beats = {"heartbeat.interval.ms": min(500, self.session_ms // 4)}
        client |= {"session.timeout.ms": self.session_ms} | beats
        client |= {name.replace("__", "."): value for name, value in properties.items()}
        brokers = client.pop("bootstrap.servers")
        lines = [f'"{name}" = {json.dumps(value)}' for name, value in client.items()]
        file = self.folder / f"{name}.toml"
        file.write_text(
            f'catalog = "{self.catalog}"\n[kafka]\nbrokers = "{brokers}"\n[kafka.properties]\n'
            + "\n".join(lines)
            + f'\n[lake]\nurl = "{self.lake}"\nflush_age_s = {age_s}\n{self.more}\n{more}\n'
        )
        return file

    def end(self) -> None:
        for run in self.runs:
            run.end()

    def produce(
        self, count: int, broken_every: int = 0, partition: int = -1, **settings
    ) -> None:
        """Sends events of other libraries' making, and waits for every acknowledgement."""
        producer = Producer(
            # A broker that was killed is no news here.
            self.cluster.client(
                "router", enable__idempotence=True, log_level=2, **settings
            )
        )
        failures = []
        rng = random.Random(self.sent)
        breakers = [breaker for breaker, _ in BROKEN.values()]
        base = datetime.fromtimestamp(time.time(), UTC) - timedelta(hours=1)

        def acknowledged(error, _message) -> None:
            if error:
                failures.append(error)

        for n in range(self.sent, self.sent + count):
            event = decision(n, base + timedelta(milliseconds=n), rng)
            broken = broken_every and n % broken_every == 7 % broken_every
            value = (
                breakers[n // broken_every % len(breakers)](event)
                if broken
                else text(event)
            )
            producer.produce(
                self.topic,
                value,
                event["task_id"],
                partition,
                on_delivery=acknowledged,
            )
            producer.poll(0)
        self.sent += count
        assert producer.flush(120) == 0, "messages were left unacknowledged"
        assert not failures, failures[:3]

    def may_write(self) -> bool:
        """Whether every broker knows that the router's account may produce: by tombstones, which make no rows."""
        producer = Producer(self.cluster.client("router", message__timeout__ms=5000))
        errors = []
        for partition in (
            producer.list_topics(self.topic, timeout=20).topics[self.topic].partitions
        ):
            producer.produce(
                self.topic,
                None,
                b"probe",
                partition,
                on_delivery=lambda error, _: errors.append(error),
            )
        producer.flush(20)
        return bool(errors) and not any(errors)

    def log(self) -> list[tuple[int, int, bool]]:
        """(partition, offset, has a value) of every record that a reader of committed records sees."""
        consumer = Consumer(
            self.cluster.client(
                "admin",
                group__id="independent-reader",
                isolation__level="read_committed",
                enable__auto__commit=False,
                enable__partition__eof=True,
            )
        )
        known = (
            consumer.list_topics(self.topic, timeout=20).topics[self.topic].partitions
        )
        consumer.assign(
            [TopicPartition(self.topic, p, OFFSET_BEGINNING) for p in known]
        )
        records, open_partitions = [], set(known)
        while open_partitions:
            message = consumer.poll(20)
            assert message is not None, "the independent reader got nothing for 20 s"
            if message.error():
                assert message.error().name() == "_PARTITION_EOF", message.error()
                open_partitions.discard(message.partition())
                continue
            records.append(
                (message.partition(), message.offset(), message.value() is not None)
            )
        consumer.close()
        return records

    def topic_id(self) -> str:
        asked = self.cluster.admin.describe_topics(TopicCollection([self.topic]))
        topic_id = asked[self.topic].result(20).topic_id
        high = topic_id.get_most_significant_bits() & (2**64 - 1)
        low = topic_id.get_least_significant_bits() & (2**64 - 1)
        return str(uuid.UUID(int=high << 64 | low))

    def stored(self) -> Counter:
        """How often each (topic id, partition, offset) is in the lake."""
        return Counter(
            self.by_deltalake(self.table, "_topic_id", "_partition", "_offset")
        )

    def mark(self, partition: int) -> int | None:
        """The next offset that the lake's table wants."""
        opened = DeltaTable(f"{self.lake}/{self.table}", storage_options=self.storage)
        return opened.transaction_version(f"{self.topic_id()}/{partition}")

    def rejected(self) -> set[tuple[str, int, int]]:
        """The places of the dead letters, from the lake's table of them."""
        columns = ("topic", "topic_id", "partition", "offset")
        letters = self.by_deltalake("dead_letters", *columns)
        return {tuple(place) for topic, *place in letters if topic == self.topic}

    def by_deltalake(self, table: str, *columns: str) -> Iterator[tuple]:
        """Rows of a table, by a reader that shares no code with ours."""
        opened = DeltaTable(f"{self.lake}/{table}", storage_options=self.storage)
        found = opened.to_pyarrow_table(columns=list(columns))
        return zip(*(found.column(name).to_pylist() for name in columns))

    def gaps(self) -> list[dict]:
        return self.rows(f"select * from gaps where topic = '{self.topic}'")

    def rows(self, query: str) -> list[dict]:
        return sql(query, "--lake", self.lake, "--catalog", self.catalog)

    def is_at_rest(self, run: Process) -> bool:
        """Whether all is stored that was sent, as the only process says that is left."""
        return run.metric("aion_partition_lag_messages") == 0

    def landed(self) -> bool:
        """Whether as many records are stored or rejected as the log has."""
        values = sum(1 for _, _, has_value in self.log() if has_value)
        # Of a topic that was made anew, rows of the one before don't count.
        topic_id = self.topic_id()
        places = [*self.stored(), *self.rejected()]
        return sum(1 for place in places if place[0] == topic_id) >= values

    def check(self) -> Counted:
        """Every record of the log is in the lake once, or in the dead letters."""
        topic_id = self.topic_id()
        stored = self.stored()
        doubled = {place: n for place, n in stored.items() if n > 1}
        assert not doubled, doubled
        ours = {(p, o) for t, p, o in stored if t == topic_id}
        rejected = {(p, o) for t, p, o in self.rejected() if t == topic_id}
        assert not ours & rejected
        wanted = {(p, o) for p, o, has_value in self.log() if has_value}
        assert ours | rejected == wanted, (
            f"missing {sorted(wanted - ours - rejected)[:5]}, "
            f"too many {sorted((ours | rejected) - wanted)[:5]}"
        )
        self.compare(stored)
        # Rows of a topic that was made anew since can't be proven; nothing may be wrong.
        audit = self.audit()
        verdict = 0 if len({t for t, _, _ in stored}) == 1 else 8
        assert audit.code == verdict, audit.report or audit.errors
        return Counted(len(wanted), stored.total(), len(rejected))

    def compare(self, stored: Counter) -> None:
        """What the lake has is held against other stores, where there are some."""

    def audit(self, *arguments: object) -> Audit:
        """An audit of this topic, by the account that reads it."""
        config = self.config("audit", "pipeline", "", {})
        return Audit("--config", config, "--topic", self.topic, *arguments)

    def wait_and_check(self, seconds: float = 90) -> Counted:
        def told() -> str:
            return "\n".join(run.output()[-2000:] for run in self.runs[-5:])

        wait(
            self.landed, "every record of the log is stored or rejected", seconds, told
        )
        return self.check()


class Producing:
    """Sends in the background, in rounds, until it is left: so many at a time, and so many a second at least."""

    def __init__(
        self,
        place: Place,
        broken_every: int = 100,
        count: int = 500,
        pause_s: float = 0.1,
        a_second: int = 0,
    ) -> None:
        self.place, self.broken_every = place, broken_every
        self.count, self.pause_s, self.a_second = count, pause_s, a_second
        self.over = threading.Event()
        self.thread = ThreadPoolExecutor(1)

    def send(self) -> None:
        last = time.monotonic()
        while not self.over.wait(self.pause_s):
            now = time.monotonic()
            # What a broker was away for is made up for in part only: else nothing but that would come for a while.
            due = int(self.a_second * min(now - last, 5))
            last = now
            self.place.produce(max(self.count, due), self.broken_every)

    def __enter__(self) -> None:
        self.sending = self.thread.submit(self.send)

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.sending.result(180)
