-- Generated from schemas/ by `aion schemas generate`: edit there, not here.

CREATE TABLE IF NOT EXISTS aion.webhook_dead_letters
(
    endpoint LowCardinality(String) COMMENT 'The endpoint, by its id in the policy.' CODEC(ZSTD(1)),
    event_id String COMMENT 'Id of the event, and the Idempotency-Key of its requests.' CODEC(ZSTD(1)),
    topic LowCardinality(String) COMMENT 'Topic of the event.' CODEC(ZSTD(1)),
    topic_id LowCardinality(String) COMMENT 'Id of the topic\'s incarnation, as a hyphenated UUID.' CODEC(ZSTD(1)),
    partition Int64 COMMENT 'Partition of the event.' CODEC(T64, ZSTD(1)),
    offset Int64 COMMENT 'Offset of the event.' CODEC(T64, ZSTD(1)),
    reason LowCardinality(String) COMMENT 'attempts = all of them failed; age = it was tried, or waited for an endpoint that failed, for too long; too_large = its body is above 1 MiB; undecodable = its schema doesn\'t read it; no_schema = the registry didn\'t have its schema for too long. More may be added.' CODEC(ZSTD(1)),
    detail Nullable(String) COMMENT 'What is known about it, for people: the last failure.' CODEC(ZSTD(1)),
    attempts Int64 COMMENT 'How many attempts failed.' CODEC(T64, ZSTD(1)),
    body Nullable(String) COMMENT 'The exact body of its requests; none where it is too large or can\'t be made.' CODEC(ZSTD(1)),
    appended_at DateTime64(6, 'UTC') COMMENT 'When the event was appended to its topic.' CODEC(DoubleDelta, ZSTD(1)),
    buried_at DateTime64(6, 'UTC') COMMENT 'When it was given up.' CODEC(DoubleDelta, ZSTD(1)),
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
    INDEX ix_buried_at buried_at TYPE minmax GRANULARITY 1,
    INDEX ix_offset _offset TYPE minmax GRANULARITY 4,
    CONSTRAINT lease CHECK _lease > now(),
    PROJECTION chain (SELECT _topic_id, _partition, _batch_first, _batch_last, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) GROUP BY _topic_id, _partition, _batch_first, _batch_last)
)
ENGINE = MergeTree
PARTITION BY _batch_day
ORDER BY (endpoint, topic, buried_at)
SETTINGS non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'An event that could not be delivered to a webhook\'s endpoint within its policy, with the exact body that was sent.';
