"""Lands a topic in a Delta table by Structured Streaming, as it is usually done: what the lake's job is measured beside.

scripts/spark topic_to_delta.py --brokers HOST:PORT --topic aion.router.decisions --to FOLDER

Reads what the log has as it begins, in micro-batches, and ends. Exactly once by Spark's checkpoint and Delta's
transactions. JSON only, and what can't be read is dropped: it has no dead letters.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
MIRRORS = {
    "aion.router.decisions": "router_decision",
    "aion.tasks.lifecycle": "tasks_lifecycle",
}
TYPES = {"long": "bigint", "timestamp-micros": "timestamp"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True, choices=MIRRORS)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=1_000_000, help="events, at most")
    asked = parser.parse_args()
    spark = (
        SparkSession.builder.appName("topic-to-delta")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config(
            "spark.sql.catalog.spark_catalog",
            "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        )
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    log = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", asked.brokers)
        .option("subscribe", asked.topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", asked.batch)
        .load()
    )
    event = F.from_json(F.col("value").cast("string"), types(asked.topic))
    rows = log.select(
        event.alias("event"),
        F.col("partition").alias("_partition"),
        F.col("offset").alias("_offset"),
        F.col("timestamp").alias("_append_time"),
    ).where("event is not null")
    rows = rows.select("event.*", "_partition", "_offset", "_append_time")
    query = (
        rows.withColumn("_date", F.to_date("_append_time"))
        .writeStream.format("delta")
        .partitionBy("_date")
        .option("checkpointLocation", str(asked.to / "checkpoint"))
        .trigger(availableNow=True)
        .start(str(asked.to / "table"))
    )
    query.awaitTermination()


def types(topic: str) -> str:
    """The contract's fields, as Spark calls their types. Objects are kept as the text that they are."""
    mirror = json.loads((SCHEMAS / f"{MIRRORS[topic]}.avsc").read_text())
    fields = []
    for one in mirror["fields"]:
        kind = one["type"]
        if isinstance(kind, list):
            (kind,) = (each for each in kind if each != "null")
        name = kind["logicalType"] if isinstance(kind, dict) else kind
        fields.append(f"{one['name']} {TYPES.get(name, name)}")
    return ", ".join(fields)


if __name__ == "__main__":
    main()
