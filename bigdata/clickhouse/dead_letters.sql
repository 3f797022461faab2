-- Generated from schemas/ by `aion schemas generate`: edit there, not here.

CREATE TABLE IF NOT EXISTS aion.dead_letters
(
    job LowCardinality(String) COMMENT 'The job that rejected the message.' CODEC(ZSTD(1)),
    topic LowCardinality(String) COMMENT 'Name of the topic that the message stands in.' CODEC(ZSTD(1)),
    topic_id LowCardinality(String) COMMENT 'Id of the topic\'s incarnation, as a hyphenated UUID.' CODEC(ZSTD(1)),
    partition Int64 COMMENT 'Partition that the message stands in.' CODEC(T64, ZSTD(1)),
    offset Int64 COMMENT 'Offset of the message.' CODEC(T64, ZSTD(1)),
    reason LowCardinality(String) COMMENT 'Why it was rejected, as a code that programs can compare.' CODEC(ZSTD(1)),
    field LowCardinality(Nullable(String)) COMMENT 'The field at fault, where there is one.' CODEC(ZSTD(1)),
    detail Nullable(String) COMMENT 'Why it was rejected, for people.' CODEC(ZSTD(1)),
    schema_id Nullable(Int64) COMMENT 'Registry id of the writer\'s schema, for a message in Avro.' CODEC(T64, ZSTD(1)),
    append_time DateTime64(6, 'UTC') COMMENT 'When the broker appended the message to its topic.' CODEC(DoubleDelta, ZSTD(1)),
    rejected_at DateTime64(6, 'UTC') COMMENT 'When the job rejected it.' CODEC(DoubleDelta, ZSTD(1)),
    origin Nullable(String) COMMENT 'For a retry that was rejected again: the record that was rejected first, as <topic id>/<partition>/<offset>.' CODEC(ZSTD(1)),
    origin_append_time Nullable(DateTime64(6, 'UTC')) COMMENT 'When the broker appended that record.' CODEC(DoubleDelta, ZSTD(1)),
    key Nullable(String) COMMENT 'The message\'s original key, byte by byte.' CODEC(ZSTD(3)),
    value Nullable(String) COMMENT 'The message\'s original value, byte by byte.' CODEC(ZSTD(3)),
    _topic_id LowCardinality(String) COMMENT 'Id of the topic\'s incarnation.' CODEC(ZSTD(1)),
    _leader_epoch Int32 COMMENT 'Leader epoch of the record; -1 where it is not known.' CODEC(ZSTD(1)),
    _partition Int32 COMMENT 'Kafka partition.' CODEC(ZSTD(1)),
    _offset Int64 COMMENT 'Offset of the record in its partition.' CODEC(Delta, ZSTD(1)),
    _append_time DateTime64(6, 'UTC') COMMENT 'When the broker appended the record to its log.' CODEC(DoubleDelta, ZSTD(1)),
    _origin Nullable(String) COMMENT 'Of which rejected record the row is the retry.' CODEC(ZSTD(1)),
    _batch_first Int64 COMMENT 'Ledger: the first offset that the batch covers.' CODEC(ZSTD(1)),
    _batch_last Int64 COMMENT 'Ledger: the last offset that the batch covers.' CODEC(ZSTD(1)),
    _batch_rows UInt32 COMMENT 'Ledger: how many rows the batch was written with.' CODEC(ZSTD(1)),
    _batch_day Date COMMENT 'Ledger: the table partition of the batch.' CODEC(ZSTD(1)),
    _lease DateTime('UTC') COMMENT 'Ledger: until when the batch could be written.' CODEC(ZSTD(1)),
    INDEX ix_rejected_at rejected_at TYPE minmax GRANULARITY 1,
    INDEX ix_offset _offset TYPE minmax GRANULARITY 4,
    CONSTRAINT lease CHECK _lease > now(),
    PROJECTION chain (SELECT _topic_id, _partition, _batch_first, _batch_last, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) GROUP BY _topic_id, _partition, _batch_first, _batch_last)
)
ENGINE = MergeTree
PARTITION BY _batch_day
ORDER BY (job, topic, rejected_at)
SETTINGS non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'A message that could not become a row, with its original bytes and the reason.';
