"""Clients that are not ours against the embedded broker: confluent-kafka and Debian's kcat.

The same against Apache Kafka: the stand-in is held to the real thing. Where both differ, the embedded
broker's README says so, and the test names the broker that it is for.

kcat brings an older librdkafka (2.0.2), so other versions of most requests are spoken.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time
import uuid

import pytest
from cluster import Cluster
from confluent_kafka import (
    OFFSET_END,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from processes import binary

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE_S = 20
# Not so old that retention takes it.
A_TIME_MS = int(time.time() * 1000) - 60_000


def broker_binary():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    if "AION_BIN" in os.environ:
        target = pathlib.Path(os.environ["AION_BIN"]).resolve().parents[1]
    binary = target / "release" / "examples" / "broker"
    if not binary.exists():
        build = ["cargo", "build", "--release", "--locked", "--workspace"]
        subprocess.run([*build, "--example", "broker"], cwd=ROOT, check=True)
    return binary


@contextlib.contextmanager
def embedded(folder):
    command = [broker_binary(), folder / "kafka", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as broker:
        yield broker.stdout.readline().strip()
        broker.terminate()


@contextlib.contextmanager
def apache(folder):
    cluster = Cluster(folder / "cluster", nodes=1, is_open=True)
    cluster.start()
    yield f"127.0.0.1:{cluster.port}"
    cluster.stop()


@pytest.fixture(scope="module", params=[embedded, apache], ids=["embedded", "apache"])
def address(request, tmp_path_factory):
    with request.param(tmp_path_factory.mktemp("broker")) as address:
        yield address


@pytest.fixture(scope="module")
def embedded_address(tmp_path_factory):
    with embedded(tmp_path_factory.mktemp("broker")) as address:
        yield address


@pytest.fixture
def admin(address):
    return AdminClient({"bootstrap.servers": address})


def eventually(ask):
    """Asks again while the topic isn't known: a broker hears of a new one a moment after its creation."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            unknown = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
            if not unknown or time.monotonic() > until:
                raise
            time.sleep(0.05)


@pytest.fixture
def topic(admin):
    name = f"t-{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(name, 2, 1)])[name].result()
    eventually(lambda: admin.describe_topics(TopicCollection([name]))[name].result())
    yield name
    admin.delete_topics([name])[name].result()


def produce(address, topic, values, **record):
    refused = []
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True})
    for value in values:
        producer.produce(
            topic,
            value,
            partition=0,
            on_delivery=lambda error, _: refused.append(error) if error else None,
            **record,
        )
    assert producer.flush(PATIENCE_S) == 0
    assert refused == []


def consumer(address, group, **config):
    return Consumer(
        {
            "bootstrap.servers": address,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **config,
        }
    )


def read(reader, count):
    messages, until = [], time.monotonic() + PATIENCE_S
    while len(messages) < count:
        assert time.monotonic() < until, f"{len(messages)} of {count} messages"
        message = reader.poll(0.2)
        if message is not None:
            assert message.error() is None, message.error()
            messages.append(message)
    return messages


def kcat(address, *arguments, stdin=None):
    kcat_binary = shutil.which("kcat")
    assert kcat_binary, "kcat is missing: apt-get install kcat"
    done = subprocess.run(
        [kcat_binary, "-q", "-b", address, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_messages_come_back_with_key_headers_and_time(address, topic):
    headers = [("a", b"1"), ("a", b"2"), ("null", None), ("empty", b"")]
    produce(
        address,
        topic,
        ["one", "two"],
        key="k",
        headers=headers,
        timestamp=A_TIME_MS,
    )
    reader = consumer(address, "g")
    reader.subscribe([topic])
    messages = read(reader, 2)
    assert [message.value() for message in messages] == [b"one", b"two"]
    assert [message.offset() for message in messages] == [0, 1]
    assert messages[0].key() == b"k"
    assert messages[0].headers() == headers
    assert messages[0].timestamp() == (1, A_TIME_MS)
    reader.close()


def test_a_group_shares_partitions_and_keeps_its_marks(address, topic):
    produce(address, topic, [str(n) for n in range(10)])
    first, second = consumer(address, "shared"), consumer(address, "shared")
    first.subscribe([topic])
    second.subscribe([topic])
    until = time.monotonic() + PATIENCE_S
    while [len(reader.assignment()) for reader in (first, second)] != [1, 1]:
        assert time.monotonic() < until
        first.poll(0.1)
        second.poll(0.1)
    owner = first if first.assignment()[0].partition == 0 else second
    mark = TopicPartition(topic, 0, 4, metadata="mark of four")
    owner.commit(offsets=[mark], asynchronous=False)
    first.close()
    second.close()
    again = consumer(address, "shared")
    (place,) = again.committed([TopicPartition(topic, 0)], timeout=PATIENCE_S)
    assert (place.offset, place.metadata) == (4, "mark of four")
    again.subscribe([topic])
    assert read(again, 1)[0].value() == b"4"
    again.close()


def test_an_operator_sees_and_changes_topics(address, admin, topic):
    described = admin.describe_topics(TopicCollection([topic]))[topic].result()
    assert len(described.partitions) == 2
    topic_id = str(described.topic_id)
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result()
    resource = ConfigResource(ResourceType.TOPIC, topic)
    change = ConfigEntry(
        "retention.ms", "86400000", incremental_operation=AlterConfigOpType.SET
    )
    resource.add_incremental_config(change)
    admin.incremental_alter_configs([resource])[resource].result()
    resource = ConfigResource(ResourceType.TOPIC, topic)
    config = eventually(lambda: admin.describe_configs([resource])[resource].result())
    assert config["retention.ms"].value == "86400000"
    wrong = ConfigResource(ResourceType.TOPIC, topic)
    wrong.add_incremental_config(
        ConfigEntry(
            "retention.seconds", "1", incremental_operation=AlterConfigOpType.SET
        )
    )
    with pytest.raises(KafkaException) as refused:
        admin.incremental_alter_configs([wrong])[wrong].result()
    assert refused.value.args[0].code() == KafkaError.INVALID_CONFIG
    assert "retention.seconds" in refused.value.args[0].str()
    admin.delete_topics([topic])[topic].result()
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result()
    again = eventually(
        lambda: admin.describe_topics(TopicCollection([topic]))[topic].result()
    )
    assert str(again.topic_id) != topic_id


def test_an_operator_sees_offsets_and_groups(address, admin, topic):
    produce(address, topic, ["a", "b", "c"], timestamp=A_TIME_MS)
    place = TopicPartition(topic, 0)

    def offset(spec):
        found = admin.list_offsets(
            {place: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED
        )
        return found[place].result().offset

    assert offset(OffsetSpec.earliest()) == 0
    assert offset(OffsetSpec.latest()) == 3
    assert offset(OffsetSpec.for_timestamp(A_TIME_MS + 1)) == -1
    assert offset(OffsetSpec.for_timestamp(A_TIME_MS - 1000)) == 0
    deleted = admin.delete_records([TopicPartition(topic, 0, 2)])
    assert next(iter(deleted.values())).result().low_watermark == 2
    assert offset(OffsetSpec.earliest()) == 2
    reader = consumer(address, "seen", **{"client.id": "me"})
    reader.subscribe([topic])
    read(reader, 1)
    groups = admin.list_consumer_groups().result().valid
    assert "seen" in [group.group_id for group in groups]
    described = admin.describe_consumer_groups(["seen"])["seen"].result()
    assert described.state.name == "STABLE"
    (member,) = described.members
    assert member.client_id == "me"
    assert {place.partition for place in member.assignment.topic_partitions} == {0, 1}
    reader.close()
    moved = ConsumerGroupTopicPartitions("seen", [TopicPartition(topic, 0, 1)])
    admin.alter_consumer_group_offsets([moved])["seen"].result()
    asked = ConsumerGroupTopicPartitions("seen")
    offsets = (
        admin.list_consumer_group_offsets([asked])["seen"].result().topic_partitions
    )
    assert [(place.partition, place.offset) for place in offsets] == [(0, 1)]
    admin.delete_consumer_groups(["seen"])["seen"].result()


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_offsets_by_the_times_of_producers(request, address, topic, codec):
    """Both are exact, but in a compressed batch: there the embedded broker names the batch's first record."""
    refused = []
    producer = Producer(
        {
            "bootstrap.servers": address,
            "compression.type": codec,
            # One batch of all: none of them leaves before the flush, however slow the machine is.
            "linger.ms": 60_000,
        }
    )
    # With the partition known each goes straight into its queue. Else they would get there one by one under the flush,
    # which sets the linger aside.
    producer.list_topics(topic, timeout=PATIENCE_S)
    for second in range(4):
        # What becomes no smaller is sent as it is.
        producer.produce(
            topic,
            b"x" * 1000,
            partition=0,
            timestamp=A_TIME_MS + second * 1000,
            on_delivery=lambda error, _: refused.append(error) if error else None,
        )
    assert producer.flush(PATIENCE_S) == 0
    assert refused == []
    reader = consumer(address, "by-time")

    def offset(ms):
        place = TopicPartition(topic, 0, A_TIME_MS + ms)
        return reader.offsets_for_times([place], PATIENCE_S)[0].offset

    found = [offset(ms) for ms in (-1000, 0, 1, 1000, 2500, 3000)]
    is_exact = codec == "none" or request.node.callspec.params["address"] is apache
    assert found == ([0, 0, 1, 1, 3, 3] if is_exact else [0] * 6)
    # What is asked for is never left out, and past the end there is nothing.
    assert offset(3001) == OFFSET_END
    reader.close()


def test_transactions_are_refused_in_words(embedded_address):
    settings = {"bootstrap.servers": embedded_address, "transactional.id": "x"}
    producer = Producer(settings)
    with pytest.raises(KafkaException) as refused:
        producer.init_transactions(PATIENCE_S)
    error = refused.value.args[0]
    assert error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def test_an_unknown_topic_is_an_error(address):
    reader = consumer(address, "absent")
    reader.subscribe(["no-such-topic"])
    message = reader.poll(PATIENCE_S)
    assert message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    reader.close()


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_kcat_produces_and_consumes(address, topic, codec):
    lines = "".join(f"k{n}:value {n}\n" for n in range(1_000))
    arguments = ("-P", "-t", topic, "-p", "0", "-K", ":", "-z", codec, "-H", "h=1")
    kcat(address, *arguments, stdin=lines)
    out = kcat(address, "-C", "-t", topic, "-p", "0", "-e", "-f", "%o %k:%s %h\n")
    assert out.splitlines() == [f"{n} k{n}:value {n} h=1" for n in range(1_000)]


def test_kcat_lists_and_reads_as_a_group(address, topic):
    assert f'topic "{topic}" with 2 partitions' in kcat(address, "-L", "-t", topic)
    kcat(address, "-P", "-t", topic, "-p", "1", stdin="one\ntwo\n")
    wanted = ("-X", "auto.offset.reset=earliest", "-c", "2", "-f", "%p %s\n", topic)
    assert kcat(address, "-G", "kcat", *wanted).splitlines() == ["1 one", "1 two"]
    kcat(address, "-P", "-t", topic, "-p", "1", stdin="three\n")
    wanted = ("-X", "auto.offset.reset=earliest", "-c", "1", "-f", "%p %s\n", topic)
    assert kcat(address, "-G", "kcat", *wanted).splitlines() == ["1 three"]
    assert "1" in kcat(address, "-Q", "-t", f"{topic}:1:0")


def test_bootstrap_without_an_authorizer(address):
    """Topics are made, access rules can't be, and that is said; again nothing is left to do."""
    for changed in (16, 0):
        done = subprocess.run(
            [binary(), "bootstrap", "--brokers", address],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert any(line.startswith("skipped   access rules") for line in lines), lines
        assert lines[-1].startswith(f"{changed} changed"), lines
