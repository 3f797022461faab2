// What components report of themselves through aion.metrics.runtime: by component, and by the label that tells more.
// A level is in one partition as a rule, and in two where it has moved: so the greatest, never the sum.

import { graph, type Section } from './panels';

const ON = '{instance=~"$instance"}';
const rate = (metric: string, by: string) =>
  `sum by (${by}) (rate(aion_runtime_${metric}${ON}[$__rate_interval]))`;
const level = (metric: string, by: string) => `max by (${by}) (aion_runtime_${metric}${ON})`;
const p95 = (metric: string) =>
  `histogram_quantile(0.95, sum by (component, le) (rate(aion_runtime_${metric}_bucket${ON}[$__rate_interval])))`;

export const components: Section = {
  title: 'Components',
  panels: [
    graph({
      title: 'Requests',
      description: 'Requests a second that components say they answered, by status.',
      unit: 'reqps',
      queries: [[rate('requests_total', 'component, status'), '{{component}} {{status}}']],
      stacked: true,
    }),
    graph({
      title: 'Tokens',
      description: 'Tokens a second of each engine, in and out.',
      unit: 'cps',
      queries: [[rate('tokens_total', 'component, direction'), '{{component}} {{direction}}']],
    }),
    graph({
      title: 'Decisions and what departs from them',
      description: 'A second: decisions by route as the router counts them, those that its policy changed, proposals, retries.',
      unit: 'cps',
      queries: [
        [rate('decisions_total', 'component, route'), '{{component}} on {{route}}'],
        [rate('policy_overrides_total', 'component'), '{{component}} overridden'],
        [rate('proposals_total', 'component, state'), '{{component}} proposals {{state}}'],
        [rate('retries_total', 'component, cause'), '{{component}} retries for {{cause}}'],
      ],
    }),
    graph({
      title: 'p95 of requests, inference and waiting',
      description: 'Time that requests, inference and waiting in a queue take: 95 of a hundred are quicker.',
      unit: 's',
      queries: [
        [p95('request_seconds'), '{{component}} requests'],
        [p95('inference_seconds'), '{{component}} inference'],
        [p95('wait_seconds'), '{{component}} waiting'],
      ],
    }),
    graph({
      title: 'p95 of decisions, look-ups and pauses',
      description: 'Time that decisions, look-ups in the memory and pauses of the kernel take: 95 of a hundred are quicker.',
      unit: 's',
      queries: [
        [p95('decision_seconds'), '{{component}} decisions'],
        [p95('lookup_seconds'), '{{component}} look-ups'],
        [p95('gc_pause_seconds'), '{{component}} pauses'],
      ],
    }),
    graph({
      title: 'Queues and connections',
      description: 'Tasks in each queue, and connections that are open.',
      unit: 'short',
      queries: [
        [level('queue_depth', 'component, queue'), '{{component}} {{queue}}'],
        [level('open_connections', 'component, tls'), '{{component}} connections, tls {{tls}}'],
      ],
    }),
    graph({
      title: 'Use and hits',
      description: 'Share of each processor for graphics that is in use, and of look-ups that the cache answers.',
      unit: 'percentunit',
      queries: [
        [level('gpu_utilization', 'component, gpu'), '{{component}} gpu {{gpu}}'],
        [level('cache_hit_ratio', 'component'), '{{component}} hits'],
      ],
      max: 1,
    }),
    graph({
      title: 'Memory of engines',
      description: 'Bytes that engines hold, by what they hold them for.',
      unit: 'bytes',
      queries: [[level('memory_bytes', 'component, pool'), '{{component}} {{pool}}']],
    }),
    graph({
      title: 'Entries',
      description: 'Entries that the memory has, by store.',
      unit: 'short',
      queries: [[level('entries', 'component, store'), '{{component}} {{store}}']],
    }),
    graph({
      title: 'Modules',
      description: 'Modules that the kernel has loaded.',
      unit: 'short',
      queries: [[level('modules_loaded', 'component'), '{{component}}']],
    }),
  ],
};
