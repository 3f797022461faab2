"""`aion dev` with the policy and the receiver that are shipped, and what becomes of its events while that receiver is away.

One story for a short test and for `scripts/soak webhooks-outage`. Files are as they are shipped but for the port, which many
tests at once can't share.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

from confluent_kafka import Consumer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from hooks import Hooks
from processes import ROOT, Dev, free_port

PORT = "9009"
# Where events of topics that begin so are sent.
PATHS = {"aion.router.": "/router", "kernel.proposal.": "/proposals"}
UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Outage(Hooks):
    """The processes of the story, and what it comes to."""

    def __init__(self, folder: Path, rate: int) -> None:
        super().__init__(folder)
        self.rate, self.port = rate, str(free_port())
        self.log_of_receiver = folder / "receiver.log"
        self.script = folder / "webhook_receiver.py"
        self.receiving: subprocess.Popen[bytes] | None = None
        self.kills = 0
        for shipped, here in (
            ("policies/webhooks.yaml", self.policy_file),
            ("scripts/webhook_receiver", self.script),
        ):
            text = (ROOT / shipped).read_text()
            assert text.count(PORT) == 2, shipped
            here.write_text(text.replace(PORT, self.port))

    def start(self, *arguments: str) -> None:
        policy = ("--webhooks", str(self.policy_file))
        Dev.start(self, *policy, "--rate", str(self.rate), *arguments)

    def kill(self) -> None:
        super().kill()
        self.kills += 1

    def end(self) -> None:
        super().end()
        self.leave()

    def receive(self) -> None:
        """The receiver comes."""
        complaints = self.log_of_receiver.with_suffix(".err")
        with self.log_of_receiver.open("ab") as log, complaints.open("ab") as err:
            command = [sys.executable, self.script]
            self.receiving = subprocess.Popen(command, stdout=log, stderr=err)

    def leave(self) -> None:
        """The receiver dies."""
        if self.receiving:
            self.receiving.kill()
            self.receiving.wait()

    def story(self, outage_s: float, kills: int, seed: int) -> str:
        """Events come, the receiver dies, `aion dev` does so several times meanwhile, and once more when the receiver is
        back; then nothing may be missing. What came of it."""
        self.receive()
        self.start("--no-generator")
        self.born("router", "proposals")
        assert self.stop() == 0
        self.start()
        self.wait(self.is_heard, "events of both entries come")

        self.leave()
        began = time.monotonic()
        self.wait(self.is_told, "it is told that the receiver is away")
        chance = random.Random(seed)
        for moment in sorted(chance.uniform(0, outage_s) for _ in range(kills)):
            sleep_until(began + moment)
            self.kill()
            self.start()
            self.wait(self.is_told, f"it still is, after {self.kills} kills")
        sleep_until(began + outage_s)
        self.wait(self.is_told, "it is at the end")
        # Each of the entries has something within some seconds.
        away_s = time.monotonic() - began
        for row in self.status().values():
            assert seconds(row["oldest"]) >= away_s - 20, row
        waited = self.missing()
        assert waited

        self.receive()
        came = lambda: len(waited - self.delivered().keys()) < len(waited) * 0.9
        self.wait(came, "what waited begins to come", 120)
        self.kill()
        self.start("--no-generator")
        self.wait(lambda: not self.missing(), f"nothing is missing (seed {seed})", 300)
        self.wait(self.is_well, "it is told that all is well")
        return self.summary(len(waited))

    def summary(self, waited: int) -> str:
        delivered, sent = self.delivered(), self.sent()
        assert delivered.keys() == sent.keys()
        topics = Counter(sent.values())
        proposals = sum(n for topic, n in topics.items() if "proposal" in topic)
        return (
            f"{len(sent):,} events, {proposals:,} of proposals, in {delivered.total():,} deliveries; "
            f"{waited:,} of them waited, none lost, {delivered.total() - len(sent):,} came twice"
        )

    def shown(self) -> list[list[str]]:
        """What the receiver has shown: path, topic, id, data."""
        lines = self.log_of_receiver.read_text().splitlines(keepends=True)
        shown = [line.split(" ", 3) for line in lines if line.endswith("\n")]
        for line in shown:
            path, topic, event, _ = line
            prefix = topic.rpartition(".")[0] + "."
            assert PATHS[prefix] == path and event.startswith("evt_"), line
        return shown

    def delivered(self) -> Counter[str]:
        """How often each event came, by its id."""
        return Counter(event for _, _, event, _ in self.shown())

    def is_heard(self) -> bool:
        """Whether both entries delivered: decisions, and a proposal with what became of it."""
        topics = {topic for _, topic, *_ in self.shown()}
        decided = {"kernel.proposal.approved", "kernel.proposal.rejected"}
        created = {"aion.router.decisions", "kernel.proposal.created"}
        return created <= topics and bool(decided & topics)

    def sent(self) -> dict[str, str]:
        """The topic of each event that stands in Kafka, by the id that receivers have to see."""
        where = {"bootstrap.servers": self.kafka}
        consumer = Consumer({**where, "group.id": "look"})
        try:
            found = consumer.list_topics(timeout=20).topics
            found = {
                name: sorted(topic.partitions)
                for name, topic in found.items()
                if name.startswith(tuple(PATHS))
            }
            admin = AdminClient(where)
            described = admin.describe_topics(TopicCollection([*found]))
            sent = {}
            for name, partitions in found.items():
                topic_id = str(described[name].result(20).topic_id)
                topic_id = uuid.UUID(bytes=base64.urlsafe_b64decode(topic_id + "=="))
                for number in partitions:
                    place = TopicPartition(name, number)
                    first, end = consumer.get_watermark_offsets(place, timeout=20)
                    assert first == 0
                    for offset in range(end):
                        text = f"{topic_id}/{number}/{offset}".encode()
                        sent["evt_" + hashlib.sha256(text).hexdigest()[:32]] = name
            return sent
        finally:
            consumer.close()

    def missing(self) -> set[str]:
        """The ids of what isn't delivered."""
        sent = self.sent()
        return sent.keys() - self.delivered().keys()

    def status(self) -> dict[str, dict]:
        rows = {row["endpoint"]: row for row in self.rows("status")}
        assert rows.keys() == {"router", "proposals"}
        return rows

    def is_told(self) -> bool:
        """Whether `aion webhooks status` says of both that they fail, what waits, since when, and why."""
        return all(
            row["state"] == "failing"
            and int(row["waiting"]) >= int(row["failing"]) > 0
            and row["oldest"]
            and "onnect" in (row["last_error"] or "")
            for row in self.status().values()
        )

    def is_well(self) -> bool:
        wanted = ("live", "0", "0", "0", None, None)
        names = ("state", "waiting", "failing", "lost", "oldest", "last_error")
        told = (tuple(map(row.get, names)) for row in self.status().values())
        return all(one == wanted for one in told)


def sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def seconds(span: str) -> int:
    """A time as it is told to people: `9 min 58 s`."""
    return sum(int(n) * UNITS_S[u] for n, u in re.findall(r"(\d+) (\w+)", span))
