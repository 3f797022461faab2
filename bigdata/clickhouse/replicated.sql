-- Generated from schemas/ by `aion schemas generate`: edit there, not here.
-- For a cluster: the servers' macros say its name, the shard and the replica.

CREATE DATABASE IF NOT EXISTS aion ON CLUSTER '{cluster}';

CREATE TABLE IF NOT EXISTS aion.marks ON CLUSTER '{cluster}'
(
    table_name LowCardinality(String) COMMENT 'The table that has it.',
    topic_id String COMMENT 'Id of the topic''s incarnation.',
    partition Int32 COMMENT 'Kafka partition.',
    kind LowCardinality(String) COMMENT 'opened: where the first batch begins; reached: how far it is; repair/OFFSET: the break from there on is to be filled; repairing: who repairs.',
    chain_end Int64 COMMENT 'The offset after the last batch that was seen stored.',
    next UInt64 COMMENT 'The next wanted offset; there are no rows from chain_end up to it.',
    epoch Int32 COMMENT 'Leader epoch of the last record below it; -1 where it is not known; -(E + 2) where that is a record of epoch E before offsets without one.',
    day Date COMMENT 'The table partition that the next batch goes to; 1970-01-01 before the first.',
    noted_at DateTime('UTC') DEFAULT now() COMMENT 'When this was noted.'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', next)
ORDER BY (table_name, topic_id, partition, kind)
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1
COMMENT 'How far each table has each Kafka partition, where its rows can''t tell.';

CREATE TABLE IF NOT EXISTS aion.decisions ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY _batch_day
ORDER BY (intent, route, timestamp)
TTL toDateTime(_append_time) + toIntervalDay(30)
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'The router chose a route for a task, and the privacy tier that the task may use.';

CREATE TABLE IF NOT EXISTS aion.tasks ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY _batch_day
ORDER BY (status, timestamp)
TTL toDateTime(_append_time) + toIntervalDay(30)
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'A task entered a state.';

CREATE VIEW IF NOT EXISTS aion.task_latency ON CLUSTER '{cluster}' AS
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

CREATE TABLE IF NOT EXISTS aion.metrics ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY _batch_day
ORDER BY (component, metric, timestamp)
TTL toDateTime(_append_time) + toIntervalDay(30)
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'A component measured a value.';

CREATE TABLE IF NOT EXISTS aion.audit ON CLUSTER '{cluster}'
(
    event_id Nullable(String) COMMENT 'Id that the producer gave the event; the same event sent twice carries the same id.' CODEC(ZSTD(1)),
    actor_id String COMMENT 'Id of the person or service that acted.' CODEC(ZSTD(1)),
    tenant_id LowCardinality(Nullable(String)) COMMENT 'Id of the tenant in which it happened.' CODEC(ZSTD(1)),
    action LowCardinality(String) COMMENT 'What was done.' CODEC(ZSTD(1)),
    resource Nullable(String) COMMENT 'What it was done to.' CODEC(ZSTD(1)),
    result LowCardinality(Nullable(String)) COMMENT 'How it ended.' CODEC(ZSTD(1)),
    timestamp DateTime64(6, 'UTC') COMMENT 'When it was done.' CODEC(DoubleDelta, ZSTD(1)),
    context Nullable(String) COMMENT 'What else is known about the act; free.' CODEC(ZSTD(3)),
    context_map Map(LowCardinality(String), String) MATERIALIZED if(context IS NULL, CAST(map(), 'Map(LowCardinality(String), String)'), JSONExtract(assumeNotNull(context), 'Map(LowCardinality(String), String)')) COMMENT 'The members of context, values as text.' CODEC(ZSTD(1)),
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
    INDEX ix_actor_id actor_id TYPE bloom_filter(0.01) GRANULARITY 4,
    CONSTRAINT lease CHECK _lease > now(),
    PROJECTION chain (SELECT _topic_id, _partition, _batch_first, _batch_last, max(_batch_rows), count(), max(_append_time), max(_leader_epoch), max(_lease) GROUP BY _topic_id, _partition, _batch_first, _batch_last)
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY _batch_day
ORDER BY (action, timestamp)
TTL toDateTime(_append_time) + toIntervalDay(30)
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'Somebody changed something, or tried to.';

CREATE TABLE IF NOT EXISTS aion.dead_letters ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY _batch_day
ORDER BY (job, topic, rejected_at)
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'A message that could not become a row, with its original bytes and the reason.';

CREATE TABLE IF NOT EXISTS aion.gaps ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY _batch_day
ORDER BY (job, topic, recorded_at)
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'A stretch of a log that a job will never have: offsets that were lost before they were read, or can\'t be trusted.';

CREATE TABLE IF NOT EXISTS aion.commands ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY _batch_day
ORDER BY (action, received_at)
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'A command from outside that the gateway accepted, and later what became of it. The first record of a command id whose stage is `accepted` is the command; a later one with the same id is a replay of it.';

CREATE TABLE IF NOT EXISTS aion.operator_decisions ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY _batch_day
ORDER BY decided_at
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'What a person decided about a partition that a job stopped at and won\'t pass by itself.';

CREATE TABLE IF NOT EXISTS aion.deliveries ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY _batch_day
ORDER BY (endpoint, topic, attempted_at)
TTL toDateTime(_append_time) + toIntervalDay(30)
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'One attempt to deliver an event to a webhook\'s endpoint, and how it ended.';

CREATE TABLE IF NOT EXISTS aion.webhook_dead_letters ON CLUSTER '{cluster}'
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')
PARTITION BY _batch_day
ORDER BY (endpoint, topic, buried_at)
SETTINGS replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    ttl_only_drop_parts = 1,
    min_bytes_for_wide_part = 67108864,
    lightweight_mutation_projection_mode = 'rebuild'
COMMENT 'An event that could not be delivered to a webhook\'s endpoint within its policy, with the exact body that was sent.';
