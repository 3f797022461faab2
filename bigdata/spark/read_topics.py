"""Reads topics as a Spark job of the platform does, by the account `spark`, and counts what it could read.

scripts/spark read_topics.py --client-config spark.properties [--registry URL] [--audit REPORT] [TOPIC ...]

JSON and Confluent-framed Avro may stand in one partition. Of each partition it prints how many records it has, how
many of them are events by the contract (bigdata/schemas), and how many are not. With --audit, the output of
`aion audit --json` over the same topics while nobody writes them, it fails where that counted anything else.

What Spark's readers don't see, and the pipeline rejects: bytes behind an Avro body, numbers that aren't finite, a date
without an offset.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEMAS, EVENTS = ROOT / "bigdata" / "schemas", ROOT / "schemas" / "events"
TOPICS = {
    "aion.router.decisions": "router_decision",
    "aion.tasks.lifecycle": "tasks_lifecycle",
}
SPARK_TYPES = {
    "string": "string",
    "long": "bigint",
    "double": "double",
    "boolean": "boolean",
}
# What the pipeline accepts of an event's time, around the time of the append.
AHEAD_S, BEHIND_S = 86_400, 10 * 365.25 * 86_400
COUNTS = ("records", "tombstones", "json", "avro", "events", "rejected")


@dataclass
class Field:
    name: str
    type: str
    json_type: str
    is_required: bool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--client-config", type=Path, required=True)
    parser.add_argument("--registry", help="URL, for topics with Avro")
    parser.add_argument("--audit", type=Path, help="output of `aion audit --json`")
    parser.add_argument("topics", nargs="*", default=list(TOPICS), metavar="TOPIC")
    asked = parser.parse_args()
    unknown = set(asked.topics) - set(TOPICS)
    if unknown:
        parser.error(
            f"no schema for {', '.join(unknown)}; known are {', '.join(TOPICS)}"
        )
    spark = SparkSession.builder.appName("spark-read-topics").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    client = client_options(asked.client_config)
    found = {}
    for topic in asked.topics:
        found |= counts(spark, topic, client, asked.registry)
    print(f"{'topic':<24} {'partition':>9}" + "".join(f" {one:>10}" for one in COUNTS))
    for (topic, partition), counted in sorted(found.items()):
        numbers = "".join(f" {counted[one]:>10}" for one in COUNTS)
        print(f"{topic:<24} {partition:>9}{numbers}")
    if asked.audit:
        compare(found, json.loads(asked.audit.read_text()), asked.topics)


def client_options(file: Path) -> dict[str, str]:
    """Options of Spark's source from a file with librdkafka's names."""
    lines = [line.strip() for line in file.read_text().splitlines()]
    pairs = [
        line.split("=", 1) for line in lines if "=" in line and line[0] not in "#!"
    ]
    given = {name.strip(): value.strip() for name, value in pairs}
    options = {"bootstrap.servers": given["bootstrap.servers"]}
    options["security.protocol"] = given.get("security.protocol", "PLAINTEXT")
    if "ssl.ca.location" in given:
        options |= {
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": given["ssl.ca.location"],
        }
    if "ssl.certificate.location" in given:
        options |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": Path(
                given["ssl.certificate.location"]
            ).read_text(),
            "ssl.keystore.key": Path(given["ssl.key.location"]).read_text(),
        }
    if "sasl.username" in given:
        mechanism = given["sasl.mechanism"]
        module = (
            "plain.PlainLoginModule"
            if mechanism == "PLAIN"
            else "scram.ScramLoginModule"
        )
        options |= {
            "sasl.mechanism": mechanism,
            "sasl.jaas.config": f"org.apache.kafka.common.security.{module} required "
            f"username={quoted(given['sasl.username'])} "
            f"password={quoted(secret(given['sasl.password']))};",
        }
    # Aborted transactions are none of the log's events; groups are those that the account may use.
    options["isolation.level"] = "read_committed"
    return {f"kafka.{name}": value for name, value in options.items()} | {
        "groupIdPrefix": "spark-read-topics",
        "failOnDataLoss": "true",
    }


def secret(value: str) -> str:
    """A value as our other tools take it: itself, or env:NAME, or file:PATH."""
    where, _, name = value.partition(":")
    if where == "env":
        return os.environ[name]
    return Path(name).read_text().strip() if where == "file" else value


def quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def fields_of(topic: str) -> list[Field]:
    mirror = json.loads((SCHEMAS / f"{TOPICS[topic]}.avsc").read_text())
    contract = json.loads((EVENTS / f"{TOPICS[topic]}.schema.json").read_text())
    fields = []
    for one in mirror["fields"]:
        kind, is_required = one["type"], True
        if isinstance(kind, list):
            (kind,), is_required = [each for each in kind if each != "null"], False
        if isinstance(kind, dict):
            kind = kind["logicalType"]
        json_type = contract["properties"][one["name"]]["type"]
        fields.append(Field(one["name"], kind, json_type, is_required))
    return fields


def counts(
    spark: SparkSession, topic: str, client: dict[str, str], registry: str | None
) -> dict[tuple[str, int], dict[str, int]]:
    log = (
        spark.read.format("kafka")
        .options(**client)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("endingOffsets", "latest")
        .load()
        .select("partition", "value", F.col("timestamp").alias("appended"))
        .withColumn("encoding", encoding())
        .cache()
    )
    fields = fields_of(topic)
    events = json_events(log.where("encoding = 'json'"), fields)
    avro = log.where("encoding = 'avro'").withColumn(
        "schema_id", F.conv(F.hex(F.expr("substring(value, 2, 4)")), 16, 10)
    )
    ids = [row.schema_id for row in avro.select("schema_id").distinct().collect()]
    if ids and not registry:
        sys.exit(f"{topic} has events in Avro: give --registry URL")
    for id_ in ids:
        # Whoever has no schema, or that of another topic, is no event.
        writer = schema(registry, id_, topic) if id_ is not None else None
        if writer is not None:
            of_id = avro.where(F.col("schema_id") == id_)
            events = events.unionByName(avro_events(of_id, fields, writer))
    kinds = log.groupBy("partition").agg(
        F.count("*").alias("records"),
        *(
            F.count_if(F.col("encoding") == each).alias(each)
            for each in ("tombstone", "json", "avro")
        ),
    )
    good = events.groupBy("partition").agg(F.count("*").alias("events"))
    rows = kinds.join(good, "partition", "left").na.fill(0).collect()
    return {(topic, row.partition): in_full(row.asDict()) for row in rows}


def in_full(row: dict[str, int]) -> dict[str, int]:
    row["tombstones"] = row.pop("tombstone")
    return row | {"rejected": row["records"] - row["tombstones"] - row["events"]}


def encoding() -> Column:
    text = F.expr(r"ltrim(' \t\r\n', cast(value as string))")
    return (
        F.when(F.col("value").isNull(), "tombstone")
        .when(F.expr("substring(value, 1, 1)") == F.unhex(F.lit("00")), "avro")
        .when(text.startswith("{"), "json")
        .otherwise("unknown")
    )


def json_events(records: DataFrame, fields: list[Field]) -> DataFrame:
    """A field of the wrong type makes the whole record one that can't be read, and so does a name that stands there
    twice. `from_json` takes any value for a text, so the types of texts are looked at by themselves."""
    types = ", ".join(
        f"{one.name} {SPARK_TYPES.get(one.type, 'string')}" for one in fields
    )
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_broken"}
    read = (
        records.withColumn("text", F.expr("try_validate_utf8(cast(value as string))"))
        .withColumn("tree", F.expr("try_parse_json(text)"))
        .withColumn("event", F.from_json("text", f"{types}, _broken string", options))
        .where("tree is not null and event is not null and event._broken is null")
    )
    for one in fields:
        if one.json_type == "string":
            value = f"try_variant_get(tree, '$.{one.name}', 'variant')"
            found = f"coalesce(schema_of_variant({value}), 'VOID')"
            read = read.where(f"{found} in ('STRING', 'VOID')")
    return accepted(read, fields)


def avro_events(records: DataFrame, fields: list[Field], writer: str) -> DataFrame:
    body = F.expr("substring(value, 6)")
    read = records.withColumn("event", from_avro(body, writer, {"mode": "PERMISSIVE"}))
    return accepted(read.where("event is not null"), fields)


def accepted(read: DataFrame, fields: list[Field]) -> DataFrame:
    """Those that are events by the contract."""
    has = set(read.schema["event"].dataType.fieldNames())
    columns = []
    for one in fields:
        value = F.col(f"event.{one.name}") if one.name in has else F.lit(None)
        if one.type == "timestamp-micros":
            value = F.try_to_timestamp(value.cast("string"))
        columns.append(
            value.cast(SPARK_TYPES.get(one.type, "timestamp")).alias(one.name)
        )
    rows = read.select("partition", "appended", *columns)
    for one in fields:
        if one.is_required:
            rows = rows.where(F.col(one.name).isNotNull())
        if one.type == "string":
            rows = rows.where(
                F.expr(f"{one.name} is null or is_valid_utf8({one.name})")
            )
    ahead = F.col("timestamp").cast("double") - F.col("appended").cast("double")
    return rows.where(ahead.between(-BEHIND_S, AHEAD_S))


def schema(registry: str | None, id_: str, topic: str) -> str | None:
    """The text of a schema; nothing if there is none, or it is one of other topics alone."""
    try:
        found = ask(f"{registry}/schemas/ids/{id_}")
        places = ask(f"{registry}/schemas/ids/{id_}/versions?deleted=true")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    subjects = {place["subject"] for place in places}
    return found["schema"] if f"{topic}-value" in subjects else None


def ask(url: str):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.loads(answer.read())


def compare(found: dict, report: dict, topics: list[str]) -> None:
    """Ends with 1 where `aion audit` counted something else."""
    audited = {
        (topic["topic"], partition["partition"]): partition
        for topic in report["topics"]
        for partition in topic["partitions"]
        # Of a topic that was made anew, the one that there is.
        if topic["topic"] in topics and partition["log"] is not None
    }
    wrong = [
        f"{topic}: not in the audit"
        for topic in topics
        if topic not in {one for one, _ in audited}
    ]
    for place in sorted(audited.keys() | found.keys()):
        # A partition without records is none to Spark.
        ours = found.get(place, dict.fromkeys(COUNTS, 0))
        seen = (ours["events"], ours["rejected"], ours["tombstones"])
        if place not in audited:
            wrong.append(f"{place}: not in the audit")
            continue
        theirs = tuple(
            audited[place][one] for one in ("stored", "dead_letters", "tombstones")
        )
        if theirs != seen:
            wrong.append(f"{place}: aion audit counts {theirs}, Spark {seen}")
    if wrong:
        sys.exit("\n".join(["differs:", *wrong]))
    total = sum(one["events"] for one in found.values())
    bad = sum(one["rejected"] for one in found.values())
    print(f"aion audit counts the same: {total:,} events, {bad:,} that are none")


if __name__ == "__main__":
    main()
