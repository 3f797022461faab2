// What AION does: decisions and tasks. Rates first, sums afterwards: a partition that moves goes on under another
// instance.

import { board, graph, number } from './panels';

const ON = '{instance=~"$instance"}';
const decisions = (by: string) =>
  `sum by (${by}) (rate(aion_router_decisions_total${ON}[$__rate_interval]))`;
const tasks = (by: string, more = '') =>
  `sum by (${by}) (rate(aion_task_events_total{instance=~"$instance"${more}}[$__rate_interval]))`;
const quantile = (of: number, more = '') =>
  `histogram_quantile(${of}, sum by (status, le) (rate(aion_task_latency_seconds_bucket{instance=~"$instance"${more}}[$__rate_interval])))`;
const FAILED =
  'sum(rate(aion_task_events_total{instance=~"$instance",status="failed"}[$__rate_interval])) / ' +
  '(sum(rate(aion_task_events_total{instance=~"$instance",status=~"succeeded|failed|cancelled"}[$__rate_interval])) > 0) or vector(0)';

export const byRoute = () => graph({
  title: 'Decisions by route',
  description: 'Tasks a second that the router sent on each route.',
  unit: 'eps',
  alert: 'AionNoEvents',
  queries: [[decisions('route'), '{{route}}']],
  stacked: true,
});

export const byStatus = () => graph({
  title: 'Task events by state',
  description: 'States a second that tasks entered. What is queued should end as succeeded.',
  unit: 'eps',
  alert: 'AionNoEvents',
  queries: [[tasks('status'), '{{status}}']],
});

export const latency = () => graph({
  title: 'Latency to success',
  description: 'Time from the creation of a task to its success: half, 95 and 99 of a hundred are quicker.',
  unit: 's',
  queries: [
    [quantile(0.5, ',status="succeeded"'), 'p50'],
    [quantile(0.95, ',status="succeeded"'), 'p95'],
    [quantile(0.99, ',status="succeeded"'), 'p99'],
  ],
});

const failed = {
  title: 'Tasks that fail',
  description: 'The share of tasks that ended as failed, of all that ended.',
  unit: 'percentunit',
  thresholds: { warning: 0.05, bad: 0.2 },
};

export const failing = () => graph({ ...failed, queries: [[FAILED, 'failed']] });

export const router = board(
  ['aion-router', 'AION: router decisions', 'Where the router sends tasks, by route and privacy tier.'],
  [
    {
      title: 'Decisions',
      panels: [
        byRoute(),
        graph({
          title: 'Decisions by privacy tier',
          description: 'Tasks a second by the tier that says where their data may go.',
          unit: 'eps',
          queries: [[decisions('tier'), '{{tier}}']],
          stacked: true,
        }),
        graph({
          title: 'Share of each route',
          description: 'Which share of all decisions went on each route.',
          unit: 'percentunit',
          queries: [[`${decisions('route')} / ignoring (route) group_left () (sum(rate(aion_router_decisions_total${ON}[$__rate_interval])) > 0)`, '{{route}}']],
          stacked: true,
          max: 1,
        }),
        graph({
          title: 'Routes by tier',
          description: 'Decisions a second for each pair: a restricted tier on a route outside should not be here.',
          unit: 'eps',
          queries: [[decisions('route, tier'), '{{tier}} on {{route}}']],
        }),
        number({
          title: 'Decisions in the last hour',
          description: 'How many tasks were routed in the last hour.',
          unit: 'short',
          alert: 'AionNoEvents',
          queries: [[`sum(increase(aion_router_decisions_total${ON}[1h]))`, 'decisions']],
        }),
        number({
          title: 'Decisions since the topic began',
          description: 'All decisions that the log ever had, exactly: each record counts once.',
          unit: 'short',
          queries: [['sum(max without (instance) (aion_router_decisions_total))', 'decisions']],
        }),
      ],
    },
  ],
);

export const lifecycle = board(
  ['aion-tasks', 'AION: task lifecycle', 'How tasks come along: states, latency, failures.'],
  [
    {
      title: 'States',
      panels: [
        byStatus(),
        failing(),
        graph({
          title: 'Attempts that failed before',
          description: 'Failed attempts a second that tasks had behind them when they entered a state.',
          unit: 'cps',
          queries: [[`sum by (status) (rate(aion_task_retries_total${ON}[$__rate_interval]))`, '{{status}}']],
        }),
        number({
          title: 'Task events since the topic began',
          description: 'All states that tasks ever entered, exactly: each record counts once.',
          unit: 'short',
          queries: [['sum(max without (instance) (aion_task_events_total))', 'events']],
        }),
      ],
    },
    {
      title: 'Latency',
      panels: [
        latency(),
        graph({
          title: 'p95 by state',
          description: 'Time from the creation of a task to each state: 95 of a hundred are quicker.',
          unit: 's',
          queries: [[quantile(0.95), '{{status}}']],
        }),
        graph({
          title: 'Mean by state',
          description: 'Mean time from the creation of a task to each state.',
          unit: 's',
          queries: [
            [
              `sum by (status) (rate(aion_task_latency_seconds_sum${ON}[$__rate_interval])) / (sum by (status) (rate(aion_task_latency_seconds_count${ON}[$__rate_interval])) > 0)`,
              '{{status}}',
            ],
          ],
        }),
      ],
    },
  ],
);
