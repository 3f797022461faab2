-- Generated from schemas/ by `aion schemas generate`: edit there, not here.

CREATE TABLE IF NOT EXISTS aion.deliveries
(
    endpoint LowCardinality(String) COMMENT 'The endpoint, by its id in the policy.' CODEC(ZSTD(1)),
    event_id String COMMENT 'Id of the event: the same at each attempt, and the Idempotency-Key of the request.' CODEC(ZSTD(1)),
    topic LowCardinality(String) COMMENT 'Topic of the event.' CODEC(ZSTD(1)),
    topic_id LowCardinality(String) COMMENT 'Id of the topic\'s incarnation, as a hyphenated UUID.' CODEC(ZSTD(1)),
    partition Int64 COMMENT 'Partition of the event.' CODEC(T64, ZSTD(1)),
    offset Int64 COMMENT 'Offset of the event.' CODEC(T64, ZSTD(1)),
    attempt Int64 COMMENT 'Which attempt it was, from 1.' CODEC(T64, ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'delivered = answered with success; failed = no answer, or another one; gone = answered with 410, which disables the endpoint. More may be added.' CODEC(ZSTD(1)),
    status Nullable(Int64) COMMENT 'HTTP status of the answer; none if there was no answer.' CODEC(T64, ZSTD(1)),
    error Nullable(String) COMMENT 'Why it failed, or the beginning of the answer\'s body, for people.' CODEC(ZSTD(1)),
    latency_ms Float64 COMMENT 'How long the attempt took, to the end of the answer.' CODEC(Gorilla, ZSTD(1)),
    attempted_at DateTime64(6, 'UTC') COMMENT 'When the attempt began.' CODEC(DoubleDelta, ZSTD(1)),
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
    INDEX ix_attempted_at attempted_at TYPE minmax GRANULARITY 1,
    INDEX ix_offset _offset TYPE minmax GRANULARITY 4,
    CONSTRAINT lease CHECK _lease > now(),
    PROJECTION chain (SELECT _topic_id, _partition, _batch_first, _batch_last, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) GROUP BY _topic_id, _partition, _batch_first, _batch_last)
)
ENGINE = MergeTree
PARTITION BY _batch_day
ORDER BY (endpoint, topic, attempted_at)
TTL toDateTime(_append_time) + toIntervalDay(30)
SETTINGS non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'One attempt to deliver an event to a webhook\'s endpoint, and how it ended.';
