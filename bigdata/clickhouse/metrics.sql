-- Generated from schemas/ by `aion schemas generate`: edit there, not here.

CREATE TABLE IF NOT EXISTS aion.metrics
(
    event_id Nullable(String) COMMENT 'Id that the producer gave the event; the same event sent twice carries the same id.' CODEC(ZSTD(1)),
    component LowCardinality(String) COMMENT 'The component that measured.' CODEC(ZSTD(1)),
    metric LowCardinality(String) COMMENT 'Name of the metric.' CODEC(ZSTD(1)),
    value Float64 COMMENT 'The value, in the unit that `unit` names; what it means depends on `kind`.' CODEC(Gorilla, ZSTD(1)),
    labels Nullable(String) COMMENT 'What tells this series from others of the same metric; the values are scalars.' CODEC(ZSTD(3)),
    labels_map Map(LowCardinality(String), String) MATERIALIZED if(labels IS NULL, CAST(map(), 'Map(LowCardinality(String), String)'), JSONExtract(assumeNotNull(labels), 'Map(LowCardinality(String), String)')) COMMENT 'The members of labels, values as text.' CODEC(ZSTD(1)),
    timestamp DateTime64(6, 'UTC') COMMENT 'When the value was measured.' CODEC(DoubleDelta, ZSTD(1)),
    kind LowCardinality(Nullable(String)) COMMENT 'counter = the value is an increment; gauge = it is a level; histogram = it is one observation. Missing means gauge.' CODEC(ZSTD(1)),
    unit LowCardinality(Nullable(String)) COMMENT 'Unit of the value.' CODEC(ZSTD(1)),
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
    INDEX ix_timestamp timestamp TYPE minmax GRANULARITY 1,
    INDEX ix_offset _offset TYPE minmax GRANULARITY 4,
    CONSTRAINT lease CHECK _lease > now(),
    PROJECTION chain (SELECT _topic_id, _partition, _batch_first, _batch_last, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) GROUP BY _topic_id, _partition, _batch_first, _batch_last)
)
ENGINE = MergeTree
PARTITION BY _batch_day
ORDER BY (component, metric, timestamp)
TTL toDateTime(_append_time) + toIntervalDay(30)
SETTINGS non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'A component measured a value.';
