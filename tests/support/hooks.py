"""`aion dev` without events of its own, receivers, and topics that are in no catalog."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from processes import Dev, binary
from receivers import Receiver, policy


class Hooks(Dev):
    """A process that sends webhooks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.environment = {"AION_LOG": "warn,aion::webhooks=info"}
        self.policy_file = folder / "webhooks.yaml"
        self.receivers: list[Receiver] = []

    def receiver(self, **more: object) -> Receiver:
        receiver = Receiver(**more)
        self.receivers.append(receiver)
        return receiver

    def policy(self, *entries: dict) -> None:
        policy(self.policy_file, *entries)

    def start(self, *arguments: str) -> None:
        super().start("--no-generator", "--webhooks", str(self.policy_file), *arguments)

    def followed(self) -> int:
        """How often a policy was taken up."""
        return self.output().count("the policy is followed")

    def born(self, *endpoints: str, seconds: float = 60) -> None:
        """Waits until the endpoints' births are written: what comes now is delivered."""

        def is_born() -> bool:
            text = self.get("/metrics")[1]
            waits = 'state="waiting"} 0'
            return all(
                f'aion_webhook_state{{endpoint="{one}",{waits}' in text
                for one in endpoints
            )

        self.wait(is_born, f"{endpoints} are born", seconds)

    def hang_up(self) -> None:
        """SIGHUP; waits until what the policy file says is followed."""
        before = self.followed()
        self.signal_hang_up()
        self.wait(lambda: self.followed() > before, "the policy is followed")

    def signal_hang_up(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGHUP)

    def topic(
        self, name: str, partitions: int = 1, *, is_told: bool = True, **config: str
    ) -> None:
        """Makes a topic. Told of it, the process looks at once; by itself it does every five seconds."""
        admin = AdminClient({"bootstrap.servers": self.kafka})
        topic = NewTopic(name, partitions, 1, config=config)
        admin.create_topics([topic])[name].result(30)
        if is_told and self.followed():
            self.hang_up()

    def send(
        self, topic: str, numbers, key=lambda n: f"k{n % 7}", value=lambda n: {"n": n}
    ) -> None:
        producer = Producer({"bootstrap.servers": self.kafka, "linger.ms": 5})
        for n in numbers:
            while True:
                try:
                    producer.produce(topic, json.dumps(value(n)), key(n))
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        assert producer.flush(60) == 0

    def webhooks(
        self, *arguments: object, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        task, *rest = map(str, arguments)
        where = ["--data", str(self.data), "--policy", str(self.policy_file)]
        done = subprocess.run(
            [binary(), "webhooks", task, *rest, *where],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def rows(self, *arguments: object) -> list[dict]:
        done = self.webhooks(*arguments, "--format", "json")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def end(self) -> None:
        super().end()
        for receiver in self.receivers:
            receiver.close()
