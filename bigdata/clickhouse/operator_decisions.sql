-- Generated from schemas/ by `aion schemas generate`: edit there, not here.

CREATE TABLE IF NOT EXISTS aion.operator_decisions
(
    job String COMMENT 'The job that stopped.' CODEC(ZSTD(1)),
    topic String COMMENT 'Name of the topic.' CODEC(ZSTD(1)),
    topic_id String COMMENT 'Id of the topic\'s incarnation, as a hyphenated UUID.' CODEC(ZSTD(1)),
    partition Int64 COMMENT 'Partition of the topic.' CODEC(T64, ZSTD(1)),
    decision String COMMENT 'accept = what is rejected below the offset doesn\'t stop the partition; keep = the log was cut and what is stored stays; replace = it was taken out of the store for what the log has now. More may be added.' CODEC(ZSTD(1)),
    below Int64 COMMENT 'The first offset that the decision doesn\'t cover: the log\'s end when it was taken; of a log that was cut, the mark.' CODEC(T64, ZSTD(1)),
    reason Nullable(String) COMMENT 'Why it was decided so, in the person\'s own words.' CODEC(ZSTD(1)),
    decided_at DateTime64(6, 'UTC') COMMENT 'When it was decided.' CODEC(DoubleDelta, ZSTD(1)),
    first Nullable(Int64) COMMENT 'Of a log that was cut: the first offset at which what is stored isn\'t what the log has.' CODEC(T64, ZSTD(1)),
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
    INDEX ix_decided_at decided_at TYPE minmax GRANULARITY 1,
    INDEX ix_offset _offset TYPE minmax GRANULARITY 4,
    INDEX ix_job job TYPE bloom_filter(0.01) GRANULARITY 4,
    CONSTRAINT lease CHECK _lease > now(),
    PROJECTION chain (SELECT _topic_id, _partition, _batch_first, _batch_last, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) GROUP BY _topic_id, _partition, _batch_first, _batch_last)
)
ENGINE = MergeTree
PARTITION BY _batch_day
ORDER BY decided_at
SETTINGS non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'What a person decided about a partition that a job stopped at and won\'t pass by itself.';
