-- Generated from schemas/ by `aion schemas generate`: edit there, not here.

CREATE TABLE IF NOT EXISTS aion.gaps
(
    job LowCardinality(String) COMMENT 'The job that missed the stretch.' CODEC(ZSTD(1)),
    topic LowCardinality(String) COMMENT 'Name of the topic.' CODEC(ZSTD(1)),
    topic_id LowCardinality(String) COMMENT 'Id of the topic\'s incarnation, as a hyphenated UUID.' CODEC(ZSTD(1)),
    partition Int64 COMMENT 'Partition of the topic.' CODEC(T64, ZSTD(1)),
    first Int64 COMMENT 'First offset that is missing.' CODEC(T64, ZSTD(1)),
    next Int64 COMMENT 'First offset after the gap: the range is first..next, half-open.' CODEC(T64, ZSTD(1)),
    reason LowCardinality(String) COMMENT 'retention = the log dropped the offsets before they were read; diverged = the log was truncated below what is stored; diverged_kept, diverged_replaced = how an operator settled that; topic_deleted = the topic went with offsets unread; sink_lost = a sink lost rows that it had. More may be added.' CODEC(ZSTD(1)),
    detail Nullable(String) COMMENT 'What is known about it, for people.' CODEC(ZSTD(1)),
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the job recorded the gap.' CODEC(DoubleDelta, ZSTD(1)),
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
    INDEX ix_recorded_at recorded_at TYPE minmax GRANULARITY 1,
    INDEX ix_offset _offset TYPE minmax GRANULARITY 4,
    CONSTRAINT lease CHECK _lease > now(),
    PROJECTION chain (SELECT _topic_id, _partition, _batch_first, _batch_last, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) GROUP BY _topic_id, _partition, _batch_first, _batch_last)
)
ENGINE = MergeTree
PARTITION BY _batch_day
ORDER BY (job, topic, recorded_at)
SETTINGS non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'A stretch of a log that a job will never have: offsets that were lost before they were read, or can\'t be trusted.';
