-- Generated from schemas/ by `aion schemas generate`: edit there, not here.

CREATE TABLE IF NOT EXISTS aion.commands
(
    command_id String COMMENT 'Hash of actor and idempotency key: the same command sent again has the same id.' CODEC(ZSTD(1)),
    actor_id String COMMENT 'Who sent it: the principal of the API key or token. Also the Kafka key, so that an actor\'s commands stay in order.' CODEC(ZSTD(1)),
    tenant_id LowCardinality(Nullable(String)) COMMENT 'The tenant for which it acts.' CODEC(ZSTD(1)),
    action LowCardinality(String) COMMENT 'What is to be done.' CODEC(ZSTD(1)),
    parameters String COMMENT 'The action\'s parameters, as they were checked; empty in an outcome.' CODEC(ZSTD(3)),
    parameters_map Map(LowCardinality(String), String) MATERIALIZED JSONExtract(parameters, 'Map(LowCardinality(String), String)') COMMENT 'The members of parameters, values as text.' CODEC(ZSTD(1)),
    idempotency_key String COMMENT 'The sender\'s own key for it, from within the signed bytes.' CODEC(ZSTD(1)),
    content_hash String COMMENT 'Hash of action and parameters in canonical form: a replay with other content is refused.' CODEC(ZSTD(1)),
    received_at DateTime64(6, 'UTC') COMMENT 'When the gateway took it in; of an outcome, when it was heard.' CODEC(DoubleDelta, ZSTD(1)),
    stage LowCardinality(Nullable(String)) COMMENT '`accepted`, or the outcome: `succeeded`, or `failed` where the control plane has refused it for good. The first outcome of a command id is its outcome.' CODEC(ZSTD(1)),
    detail Nullable(String) COMMENT 'What the control plane answered.' CODEC(ZSTD(1)),
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
    INDEX ix_received_at received_at TYPE minmax GRANULARITY 1,
    INDEX ix_offset _offset TYPE minmax GRANULARITY 4,
    INDEX ix_actor_id actor_id TYPE bloom_filter(0.01) GRANULARITY 4,
    CONSTRAINT lease CHECK _lease > now(),
    PROJECTION chain (SELECT _topic_id, _partition, _batch_first, _batch_last, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) GROUP BY _topic_id, _partition, _batch_first, _batch_last)
)
ENGINE = MergeTree
PARTITION BY _batch_day
ORDER BY (action, received_at)
SETTINGS non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'A command from outside that the gateway accepted, and later what became of it. The first record of a command id whose stage is `accepted` is the command; a later one with the same id is a replay of it.';
