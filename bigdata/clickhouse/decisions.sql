-- Generated from schemas/ by `aion schemas generate`: edit there, not here.

CREATE TABLE IF NOT EXISTS aion.decisions
(
    event_id Nullable(String) COMMENT 'Id that the producer gave the event; the same event sent twice carries the same id.' CODEC(ZSTD(1)),
    task_id String COMMENT 'Id of the task that was routed.' CODEC(ZSTD(1)),
    tenant_id LowCardinality(Nullable(String)) COMMENT 'Id of the tenant that owns the task.' CODEC(ZSTD(1)),
    intent LowCardinality(String) COMMENT 'What the task is meant to do, as the router understood it.' CODEC(ZSTD(1)),
    route LowCardinality(String) COMMENT 'The route that was chosen: where the task runs.' CODEC(ZSTD(1)),
    reason LowCardinality(String) COMMENT 'Why this route was chosen, for people.' CODEC(ZSTD(1)),
    tier LowCardinality(String) COMMENT 'Privacy tier of the task; decides where its data may go.' CODEC(ZSTD(1)),
    timestamp DateTime64(6, 'UTC') COMMENT 'When the decision was made.' CODEC(DoubleDelta, ZSTD(1)),
    size Nullable(Int64) COMMENT 'Size of the task\'s input, in tokens.' CODEC(T64, ZSTD(1)),
    latency_budget_ms Nullable(Int64) COMMENT 'Time that the caller grants the task, in milliseconds.' CODEC(T64, ZSTD(1)),
    cost_budget Nullable(Float64) COMMENT 'Cost that the caller grants the task, in US dollars.' CODEC(ZSTD(1)),
    policy_overrides Nullable(String) COMMENT 'Routing policies that were overridden for this task, and by what.' CODEC(ZSTD(3)),
    policy_overrides_map Map(LowCardinality(String), String) MATERIALIZED if(policy_overrides IS NULL, CAST(map(), 'Map(LowCardinality(String), String)'), JSONExtract(assumeNotNull(policy_overrides), 'Map(LowCardinality(String), String)')) COMMENT 'The members of policy_overrides, values as text.' CODEC(ZSTD(1)),
    engine_model LowCardinality(Nullable(String)) COMMENT 'The model that the route runs.' CODEC(ZSTD(1)),
    engine_version LowCardinality(Nullable(String)) COMMENT 'Version of the engine that the route runs.' CODEC(ZSTD(1)),
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
    INDEX ix_task_id task_id TYPE bloom_filter(0.01) GRANULARITY 4,
    CONSTRAINT lease CHECK _lease > now(),
    PROJECTION chain (SELECT _topic_id, _partition, _batch_first, _batch_last, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) GROUP BY _topic_id, _partition, _batch_first, _batch_last)
)
ENGINE = MergeTree
PARTITION BY _batch_day
ORDER BY (intent, route, timestamp)
TTL toDateTime(_append_time) + toIntervalDay(30)
SETTINGS non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'The router chose a route for a task, and the privacy tier that the task may use.';
