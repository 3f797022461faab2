"""How far the log of each partition goes, and how far the lake: both asked by clients that share no code with ours."""

from __future__ import annotations

import polars
from confluent_kafka import Consumer, TopicPartition
from events import TOPICS
from processes import Dev


def ends(dev: Dev) -> dict[tuple[str, int], int]:
    """By table and partition: the offset that the log's next record gets, where it has any."""
    consumer = Consumer({"bootstrap.servers": dev.kafka, "group.id": "counting"})
    try:
        topics = consumer.list_topics(timeout=10).topics
        places = {
            (table, number): TopicPartition(topic, number)
            for topic, (_, _, table) in TOPICS.items()
            for number in topics[topic].partitions
        }
        found = {
            place: consumer.get_watermark_offsets(partition, 10)[1]
            for place, partition in places.items()
        }
    finally:
        consumer.close()
    return {place: end for place, end in found.items() if end}


def stored(dev: Dev, *tables: str) -> dict[tuple[str, int], int]:
    """By table and partition: up to which offset each one below is a row, once. Fails where there is a hole or a repeat:
    it is for logs of which every record is a row."""
    found = {}
    for table in tables or [table for _, _, table in TOPICS.values()]:
        frame = polars.scan_delta(str(dev.data / "lake" / table))
        places = frame.group_by("_topic_id", "_partition").agg(
            rows=polars.len(),
            distinct=polars.col("_offset").n_unique(),
            low=polars.col("_offset").min(),
            high=polars.col("_offset").max(),
        )
        for place in places.collect().rows(named=True):
            assert place["low"] == 0, (table, place)
            whole = place["high"] + 1
            assert place["rows"] == place["distinct"] == whole, (table, place)
            assert (table, place["_partition"]) not in found, "it was never made anew"
            found[table, place["_partition"]] = whole
    return found
