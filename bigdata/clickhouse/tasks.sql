-- Generated from schemas/ by `aion schemas generate`: edit there, not here.

CREATE TABLE IF NOT EXISTS aion.tasks
(
    event_id Nullable(String) COMMENT 'Id that the producer gave the event; the same event sent twice carries the same id.' CODEC(ZSTD(1)),
    task_id String COMMENT 'Id of the task.' CODEC(ZSTD(1)),
    tenant_id LowCardinality(Nullable(String)) COMMENT 'Id of the tenant that owns the task.' CODEC(ZSTD(1)),
    intent LowCardinality(Nullable(String)) COMMENT 'What the task is meant to do, as the router understood it.' CODEC(ZSTD(1)),
    status LowCardinality(String) COMMENT 'The state that the task entered.' CODEC(ZSTD(1)),
    timestamp DateTime64(6, 'UTC') COMMENT 'When the task entered the state.' CODEC(DoubleDelta, ZSTD(1)),
    metadata Nullable(String) COMMENT 'What else the producer knows about the task; free.' CODEC(ZSTD(3)),
    metadata_map Map(LowCardinality(String), String) MATERIALIZED if(metadata IS NULL, CAST(map(), 'Map(LowCardinality(String), String)'), JSONExtract(assumeNotNull(metadata), 'Map(LowCardinality(String), String)')) COMMENT 'The members of metadata, values as text.' CODEC(ZSTD(1)),
    agent_id LowCardinality(Nullable(String)) COMMENT 'Id of the agent that works on the task.' CODEC(ZSTD(1)),
    project_id LowCardinality(Nullable(String)) COMMENT 'Id of the project that the task belongs to.' CODEC(ZSTD(1)),
    latency_ms Nullable(Int64) COMMENT 'Time from the creation of the task to this state, in milliseconds.' CODEC(T64, ZSTD(1)),
    retries Nullable(Int64) COMMENT 'How many attempts failed before this one.' CODEC(T64, ZSTD(1)),
    error_code LowCardinality(Nullable(String)) COMMENT 'Why the task failed, as a code that programs can compare.' CODEC(ZSTD(1)),
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
    PROJECTION chain (SELECT _topic_id, _partition, _batch_first, _batch_last, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) GROUP BY _topic_id, _partition, _batch_first, _batch_last),
    PROJECTION slots (SELECT status, toStartOfInterval(timestamp, toIntervalSecond(30)) AS slot, quantileTDigestState(0.95)(latency_ms), avgState(latency_ms), countState(), sumState(retries) GROUP BY status, slot)
)
ENGINE = MergeTree
PARTITION BY _batch_day
ORDER BY (status, timestamp)
TTL toDateTime(_append_time) + toIntervalDay(30)
SETTINGS non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'A task entered a state.';

CREATE VIEW IF NOT EXISTS aion.task_latency AS
SELECT
    window_start,
    window_start + toIntervalSecond(60) AS window_end,
    status,
    quantileTDigestMerge(0.95)(p95) AS latency_p95_ms,
    avgMerge(average) AS latency_avg_ms,
    countMerge(events) AS events,
    sumMerge(retried) AS retries
FROM
(
    SELECT
        status,
        toStartOfInterval(timestamp, toIntervalSecond(30)) AS slot,
        quantileTDigestState(0.95)(latency_ms) AS p95,
        avgState(latency_ms) AS average,
        countState() AS events,
        sumState(retries) AS retried
    FROM aion.tasks
    GROUP BY status, slot
)
ARRAY JOIN [slot, slot - toIntervalSecond(30)] AS window_start
GROUP BY window_start, status
COMMENT 'Tasks by status in one-minute windows that slide by 30 seconds.';
