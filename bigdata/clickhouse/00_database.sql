-- Generated from schemas/ by `aion schemas generate`: edit there, not here.

CREATE DATABASE IF NOT EXISTS aion;

CREATE TABLE IF NOT EXISTS aion.marks
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
ENGINE = ReplacingMergeTree(next)
ORDER BY (table_name, topic_id, partition, kind)
SETTINGS non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1,
    fsync_part_directory = 1
COMMENT 'How far each table has each Kafka partition, where its rows can''t tell.';
