// What a running process knows of its events, rows that aren't committed yet included: who, why, which one.

import { board, graph, number, rows } from './panels';
import type { Statement } from './sources';

const ask = (text: string): Statement => ({ source: 'sql', text });
const EVERY = '$__timeGroupAlias(timestamp, $__interval)';

export const sql = board(
  ['aion-sql', 'AION: events by SQL', 'What stands behind the numbers: tenants, outcomes, causes, single events; live.'],
  [
    {
      title: 'Now',
      panels: [
        number({
          title: 'Decisions',
          description: 'Decisions in the time that is looked at, uncommitted ones included.',
          unit: 'short',
          alert: 'AionNoEvents',
          queries: ask('select count(*) as decisions from decisions where $__timeFilter(timestamp)'),
        }),
        number({
          title: 'Tenants',
          description: 'Tenants whose tasks were routed in the time that is looked at.',
          unit: 'short',
          queries: ask('select count(distinct tenant_id) as tenants from decisions where $__timeFilter(timestamp)'),
        }),
        number({
          title: 'Not in the lake yet',
          description: 'Records of the logs that the lake does not have yet, of all topics.',
          unit: 'short',
          queries: ask('select coalesce(sum(lag), 0) as records from lag'),
          alert: 'AionLagGrowing',
          thresholds: { bad: 10000 },
        }),
        number({
          title: 'Gaps',
          description: 'Stretches of a log that were lost, recorded in the time that is looked at. 0 is good.',
          unit: 'short',
          queries: ask('select count(*) as gaps from gaps where $__timeFilter(recorded_at)'),
          alert: 'AionGap',
          thresholds: { bad: 1 },
        }),
        graph({
          title: 'Decisions by tenant',
          description: 'Tasks that were routed in each interval: the ten tenants that have most, and the others.',
          unit: 'short',
          queries: ask(`
            select ${EVERY}, coalesce(most.tenant, 'others') as metric, count(*) as value
            from decisions left join (
              select coalesce(tenant_id, 'none') as tenant from decisions
              where $__timeFilter(timestamp) group by 1 order by count(*) desc limit 10
            ) as most on coalesce(tenant_id, 'none') = most.tenant
            where $__timeFilter(timestamp) group by 1, 2 order by 1`),
          stacked: true,
        }),
        graph({
          title: 'Latency in sliding windows',
          description: 'Time from the creation of tasks to each state: 95 of a hundred are quicker. Windows of a minute, each half minute.',
          unit: 'ms',
          queries: ask(`
            select $__time(window_start), status as metric, p95_ms as value
            from task_latency where $__timeFilter(window_start) order by 1`),
        }),
      ],
    },
    {
      title: 'Tasks',
      panels: [
        rows({
          title: 'Outcomes by route',
          description: 'What became of the tasks of each route, and how long that took on average.',
          unit: 'short',
          queries: ask(`
            select route, coalesce(outcome, 'open') as outcome, count(*) as tasks, avg(latency_ms) as latency
            from decision_outcomes where $__timeFilter(decided_at) group by 1, 2 order by 3 desc`),
          units: { latency: 'ms' },
        }),
        rows({
          title: 'Why tasks fail',
          description: 'Failed tasks by the code of their error, with the last of them.',
          unit: 'short',
          queries: ask(`
            select coalesce(error_code, 'none') as error, count(*) as tasks, max(timestamp) as last
            from tasks where status = 'failed' and $__timeFilter(timestamp) group by 1 order by 2 desc`),
        }),
        rows({
          title: 'Slowest tasks',
          description: 'The twenty tasks that took longest to succeed.',
          unit: 'short',
          queries: ask(`
            select task_id, tenant_id, intent, latency_ms as latency, retries, timestamp
            from tasks where status = 'succeeded' and latency_ms is not null and $__timeFilter(timestamp)
            order by latency_ms desc limit 20`),
          units: { latency: 'ms' },
        }),
        rows({
          title: 'Who did what',
          description: 'The newest twenty acts that are on record.',
          unit: 'short',
          queries: ask(`
            select timestamp, actor_id as actor, action, resource, result
            from audit where $__timeFilter(timestamp) order by timestamp desc limit 20`),
        }),
      ],
    },
    {
      title: 'The pipeline',
      panels: [
        rows({
          title: 'Dead letters by cause',
          description: 'What could not become a row, by job, topic, reason and field, with the last one. Records that were stored since are among them.',
          unit: 'short',
          queries: ask(`
            select job, topic, reason, coalesce(field, '') as field,
              count(distinct concat(topic_id, ' ', partition, ' ', "offset")) as letters, max(rejected_at) as last
            from dead_letters_raw where $__timeFilter(rejected_at) group by 1, 2, 3, 4 order by 5 desc limit 50`),
          alert: 'AionRejects',
        }),
        rows({
          title: 'Partitions',
          description: 'How far the lake is in each partition, and where its log ends.',
          unit: 'short',
          queries: ask('select topic, partition, mark, end_offset, lag from lag order by lag desc, topic, partition'),
          alert: 'AionLagGrowing',
        }),
      ],
    },
  ],
  'sql',
);
