// What the tables in ClickHouse have: long times and many labels, by the same columns as everywhere.

import { board, graph, number, rows } from './panels';
import type { Statement } from './sources';

const ask = (text: string): Statement => ({ source: 'clickhouse', text });
const EVERY = '$__timeInterval(timestamp) AS time';
const RANGE = '$__timeFilter(timestamp)';

export const clickhouse = board(
  ['aion-clickhouse', 'AION: events in ClickHouse', 'Decisions and tasks by intent, model and tenant over long times; what the tables hold.'],
  [
    {
      title: 'Decisions and tasks',
      panels: [
        number({
          title: 'Decisions',
          description: 'Decisions in the time that is looked at.',
          unit: 'short',
          alert: 'AionNoEvents',
          queries: ask(`SELECT count() AS decisions FROM decisions WHERE ${RANGE}`),
        }),
        number({
          title: 'Tasks that fail',
          description: 'The share of tasks that ended as failed, of all that ended in the time that is looked at.',
          unit: 'percentunit',
          queries: ask(`
            SELECT if(count() = 0, 0, countIf(status = 'failed') / count()) AS failed
            FROM tasks WHERE ${RANGE} AND status IN ('succeeded', 'failed', 'cancelled')`),
          thresholds: { warning: 0.05, bad: 0.2 },
        }),
        number({
          title: 'Tokens',
          description: 'Tokens of input of the tasks that were routed in the time that is looked at.',
          unit: 'short',
          queries: ask(`SELECT ifNull(sum(size), 0) AS tokens FROM decisions WHERE ${RANGE}`),
        }),
        number({
          title: 'Age of the newest row',
          description: 'Seconds since the newest task event was appended to its log that the table has.',
          unit: 's',
          queries: ask('SELECT dateDiff(\'second\', max(_append_time), now64(6)) AS age FROM tasks'),
          alert: 'AionStale',
          thresholds: { warning: 60, bad: 300 },
        }),
        graph({
          title: 'Decisions by intent',
          description: 'Tasks a second by what they are meant to do.',
          unit: 'eps',
          queries: ask(`
            SELECT ${EVERY}, intent AS series, count() / $__interval_s AS value
            FROM decisions WHERE ${RANGE} GROUP BY time, series ORDER BY time`),
          stacked: true,
        }),
        graph({
          title: 'Tokens by model',
          description: 'Tokens of input a second by the model that the route runs.',
          unit: 'short',
          queries: ask(`
            SELECT ${EVERY}, ifNull(engine_model, 'none') AS series, sum(ifNull(size, 0)) / $__interval_s AS value
            FROM decisions WHERE ${RANGE} GROUP BY time, series ORDER BY time`),
          stacked: true,
        }),
        graph({
          title: 'Latency by intent',
          description: 'Time from the creation of a task to its success, by intent: 95 of a hundred are quicker.',
          unit: 'ms',
          queries: ask(`
            SELECT ${EVERY}, ifNull(intent, 'none') AS series, quantileTDigest(0.95)(latency_ms) AS value
            FROM tasks WHERE ${RANGE} AND status = 'succeeded' AND latency_ms IS NOT NULL
            GROUP BY time, series ORDER BY time`),
        }),
        graph({
          title: 'Latency in sliding windows',
          description: 'Time from the creation of tasks to each state: 95 of a hundred are quicker. Windows of a minute, each half minute.',
          unit: 'ms',
          queries: ask(`
            SELECT window_start AS time, status AS series, latency_p95_ms AS value
            FROM task_latency WHERE $__timeFilter(window_start) ORDER BY time`),
        }),
        rows({
          title: 'Why tasks fail',
          description: 'Failed tasks by the code of their error and the tenant.',
          unit: 'short',
          queries: ask(`
            SELECT ifNull(error_code, 'none') AS error, ifNull(tenant_id, 'none') AS tenant, count() AS tasks, max(timestamp) AS last
            FROM tasks WHERE ${RANGE} AND status = 'failed' GROUP BY error, tenant ORDER BY tasks DESC LIMIT 50`),
        }),
        rows({
          title: 'What components report',
          description: 'Metrics of components with their newest value and its labels.',
          unit: 'short',
          queries: ask(`
            SELECT component, metric, argMax(value, timestamp) AS newest, argMax(labels, timestamp) AS with_labels, count() AS values
            FROM metrics WHERE ${RANGE} GROUP BY component, metric ORDER BY component, metric LIMIT 100`),
        }),
      ],
    },
    {
      title: 'Tables',
      panels: [
        rows({
          title: 'What is stored',
          description: 'Rows, bytes on disk and active parts of each table. Hundreds of parts in one table are too many.',
          unit: 'short',
          queries: ask(`
            SELECT table, sum(rows) AS rows, sum(bytes_on_disk) AS on_disk, sum(data_uncompressed_bytes) AS uncompressed, count() AS parts
            FROM system.parts WHERE database = currentDatabase() AND active GROUP BY table ORDER BY on_disk DESC`),
          units: { on_disk: 'bytes', uncompressed: 'bytes' },
        }),
        rows({
          title: 'Dead letters by cause',
          description: 'What could not become a row, by job, topic, reason and field. Records that were stored since are among them.',
          unit: 'short',
          queries: ask(`
            SELECT job, topic, reason, ifNull(field, '') AS at, uniqExact(topic_id, partition, offset) AS letters, max(rejected_at) AS last
            FROM dead_letters WHERE $__timeFilter(rejected_at) GROUP BY job, topic, reason, at ORDER BY letters DESC LIMIT 50`),
          alert: 'AionRejects',
        }),
      ],
    },
  ],
  'clickhouse',
);
