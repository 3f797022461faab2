// How AION Event Streams itself is doing. `exported_job` is the job of `aion run`: `job` is Prometheus' own.

import { board, graph, number } from './panels';

const ON = '{instance=~"$instance"}';
const JOB = 'exported_job';
const rate = (metric: string, by = JOB) =>
  `sum by (${by}) (rate(${metric}${ON}[$__rate_interval]))`;

// What AionNoEvents asks: of topics that had events in the day before, and not of what we write ourselves.
const OTHERS = 'topic!~"aion[.](dead-letters|gaps|commands|operator-decisions|retries[.].*|webhooks[.].*)"';
const SILENT =
  `max by (topic) (delta(aion_partition_end{instance=~"$instance",${OTHERS}}[1h])) == 0` +
  ` and max by (topic) (delta(aion_partition_end${ON}[1d] offset 1h)) > 0`;

// Whose buckets are summed: as in AionBucketsDiffer, not those of several deployments.
const ALIKE = 'without (instance, partition, topic)';

export const processes = () => number({
  title: 'Processes',
  description: 'Processes that Prometheus scrapes.',
  unit: 'short',
  queries: [[`count(aion_build_info${ON})`, 'processes']],
  alert: 'AionAbsent',
});

export const jobsDown = () => number({
  title: 'Jobs down',
  description: 'Jobs that have stopped for good, and partitions that wait for a person. 0 is good.',
  unit: 'short',
  queries: [[`sum(aion_job_up${ON} == bool 0) + sum(aion_partition_stopped${ON})`, 'down']],
  alert: 'AionJobDown',
  thresholds: { bad: 1 },
});

export const behind = () => number({
  title: 'Behind',
  description: 'Age of the newest stored row of the job that is furthest behind, 0 when none is.',
  unit: 's',
  queries: [[`max(aion_partition_lag_seconds${ON})`, 'behind']],
  alert: 'AionStale',
  thresholds: { warning: 60, bad: 300 },
});

export const rejected = () => number({
  title: 'Dead letters',
  description: 'Share of the records read in the last quarter of an hour that became dead letters. A record that goes to several places counts once.',
  unit: 'percentunit',
  queries: [
    [
      `clamp_max(sum(increase(aion_records_rejected_total${ON}[15m])) / (sum(clamp_min(delta(aion_partition_position${ON}[15m]), 0)) > 0), 1) or vector(0)`,
      'rejected',
    ],
  ],
  alert: 'AionRejects',
  thresholds: { warning: 0.001, bad: 0.01 },
});

export const stored = () => graph({
  title: 'Rows stored',
  description: 'Rows a second that became durable, by job. One in two places counts twice.',
  unit: 'rowsps',
  alert: 'AionLagGrowing',
  queries: [[rate('aion_rows_stored_total'), '{{exported_job}}']],
});

const jobs = {
  title: 'Jobs',
  panels: [
    processes(),
    jobsDown(),
    behind(),
    rejected(),
    stored(),
    graph({
      title: 'Lag in records',
      description: 'Records that are not yet durable in every place, by job.',
      unit: 'short',
      queries: [[`sum by (${JOB}) (aion_partition_lag_messages${ON})`, '{{exported_job}}']],
      alert: 'AionLagGrowing',
      thresholds: { bad: 10000 },
    }),
    graph({
      title: 'Lag in time',
      description: 'Age of the newest stored row while records wait behind it, by job.',
      unit: 's',
      queries: [[`max by (${JOB}) (aion_partition_lag_seconds${ON})`, '{{exported_job}}']],
      alert: 'AionStale',
      thresholds: { bad: 300 },
    }),
    graph({
      title: 'Records rejected',
      description: 'Records a second that went to the dead letters, by job.',
      unit: 'recps',
      queries: [[rate('aion_records_rejected_total'), '{{exported_job}}']],
      alert: 'AionRejects',
    }),
    graph({
      title: 'Fields that the contract lacks',
      description: 'Fields a second that producers send and the contract does not have: they are dropped.',
      unit: 'cps',
      queries: [
        [`${rate('aion_unknown_fields_total', 'topic, field')} or label_replace(vector(0), "topic", "none", "", "")`, '{{topic}} {{field}}'],
      ],
    }),
    graph({
      title: 'Failing',
      description: '1 while something fails that is tried again, by job. /readyz says what.',
      unit: 'short',
      queries: [[`max by (exported_job) (aion_job_trouble${ON})`, '{{exported_job}}']],
      alert: 'AionSinkFailing',
      thresholds: { bad: 1 },
      max: 1,
    }),
    graph({
      title: 'Waiting for a schema',
      description: 'Partitions whose next record waits for a schema that the registry does not give.',
      unit: 'short',
      queries: [[`sum by (${JOB}) (aion_partition_waits_for_schema${ON})`, '{{exported_job}}']],
      alert: 'AionWaitsForSchema',
      thresholds: { bad: 1 },
    }),
    graph({
      title: 'Guarantees',
      description: 'What is asked of each place that a job writes to. With at_least_once its table may have a record twice.',
      unit: 'short',
      queries: [
        [`max by (${JOB}, sink, guarantee) (aion_job_guarantee${ON})`, '{{exported_job}} {{sink}} {{guarantee}}'],
      ],
      max: 1,
    }),
    graph({
      title: 'Gaps',
      description: 'Stretches of the log that were lost and recorded, since the process started. 0 is good.',
      unit: 'short',
      queries: [[`sum by (${JOB}) (aion_gaps_total${ON})`, '{{exported_job}}']],
      alert: 'AionGap',
      thresholds: { bad: 1 },
    }),
    graph({
      title: 'Lost by a store',
      description: 'Offsets that a store had and has no more, erased or lost with a disk, as found at the last assignment. 0 is good, unless somebody erased them.',
      unit: 'short',
      queries: [[`sum by (${JOB}) (aion_partition_sink_lost_offsets${ON})`, '{{exported_job}}']],
      alert: 'AionSinkLost',
    }),
  ],
};

const workings = {
  title: 'Workings',
  panels: [
    graph({
      title: 'Disks in use',
      description: 'Share of the file systems of lake and exports that is in use. An object store is not a disk.',
      unit: 'percentunit',
      queries: [
        [`1 - min by (instance, place) (aion_disk_free_bytes${ON} / aion_disk_size_bytes${ON})`, '{{place}} {{instance}}'],
      ],
      alert: 'AionDiskFilling',
      thresholds: { warning: 0.7, bad: 0.95 },
      max: 1,
    }),
    number({
      title: 'Certificates that end',
      description: 'Certificates that are shown or trusted and end within two weeks. 0 is good.',
      unit: 'short',
      queries: [
        [`count(aion_certificate_expiry_timestamp_seconds${ON} - time() < 14 * 86400) or vector(0)`, 'ending'],
      ],
      alert: 'AionCertificateEnding',
      thresholds: { bad: 1 },
    }),
    number({
      title: 'Topics without events',
      description: 'Topics whose logs have not grown for an hour and had in the day before. Those that we write ourselves are left out: they rest when all is well.',
      unit: 'short',
      queries: [[`count(${SILENT}) or vector(0)`, 'silent']],
      alert: 'AionNoEvents',
    }),
    graph({
      title: 'Memory for rows',
      description:
        'Bytes that decoded rows hold, and the bound on them: of jobs that write to ClickHouse, and of the others. A part at its bound holds up its jobs alone.',
      unit: 'bytes',
      alert: 'AionLagGrowing',
      queries: [
        [`sum by (instance, part) (aion_memory_held_bytes${ON})`, 'held {{instance}} {{part}}'],
        [`sum by (instance, part) (aion_memory_budget_bytes${ON})`, 'bound {{instance}} {{part}}'],
      ],
    }),
    graph({
      title: 'Read and not taken',
      description: 'Bytes of rows that were read and not yet taken by every place, by job.',
      unit: 'bytes',
      alert: 'AionSinkFailing',
      queries: [[`sum by (exported_job) (aion_job_buffered_bytes${ON})`, '{{exported_job}}']],
    }),
    graph({
      title: 'Rebalances',
      description: 'Times that partitions were given or taken, in the last ten minutes.',
      unit: 'short',
      alert: 'AionDown',
      queries: [[`sum by (exported_job) (increase(aion_rebalances_total${ON}[10m]))`, '{{exported_job}}']],
    }),
    graph({
      title: 'Since the last poll',
      description: 'Seconds since a job last heard of its source.',
      unit: 's',
      alert: 'AionStale',
      queries: [[`max by (exported_job) (aion_job_poll_age_seconds${ON})`, '{{exported_job}}']],
    }),
    graph({
      title: 'Since the last commit',
      description: 'Seconds since the marks were last told to the consumer group. Where nothing comes, nothing is told.',
      unit: 's',
      alert: 'AionStale',
      queries: [[`max by (exported_job) (aion_partition_commit_age_seconds${ON})`, '{{exported_job}}']],
    }),
    graph({
      title: 'Read of the log',
      description: 'Records a second that are appended, and that are handed to the places, by topic.',
      unit: 'recps',
      alert: 'AionLagGrowing',
      queries: [
        [`sum by (topic) (deriv(aion_partition_end${ON}[5m]))`, 'appended {{topic}}'],
        [`sum by (topic) (deriv(aion_partition_position${ON}[5m]))`, 'read {{topic}}'],
      ],
    }),
  ],
};

const series = {
  title: 'Series of the platform',
  panels: [
    graph({
      title: 'Values',
      description: 'Values a second that events had for series, by what became of them.',
      unit: 'cps',
      alert: 'AionSeriesFolded',
      queries: [[rate('aion_metrics_values_total', 'outcome'), '{{outcome}}']],
    }),
    graph({
      title: 'Series kept apart',
      description: 'Series in the checkpoints, by topic. Each partition has a cap.',
      unit: 'short',
      queries: [[`sum by (topic) (aion_metrics_series${ON})`, '{{topic}}']],
      alert: 'AionSeriesFolded',
    }),
    graph({
      title: 'Age of what is shown',
      description: 'Seconds since the newest record was appended that is in the series, by topic. A quiet topic ages too.',
      unit: 's',
      queries: [[`time() - max by (topic) (aion_metrics_newest_timestamp_seconds${ON})`, '{{topic}}']],
      alert: 'AionSeriesOld',
      thresholds: { bad: 300 },
    }),
    graph({
      title: 'Folded and colliding',
      description:
        'Values a second of series beyond the cap, names that became one with others, and histograms whose partitions have different buckets. 0 is good.',
      unit: 'short',
      queries: [
        [`sum(rate(aion_metrics_folded_values_total${ON}[$__rate_interval])) or vector(0)`, 'folded'],
        [`sum(aion_metrics_name_collisions${ON}) or vector(0)`, 'colliding'],
        [
          `sum(max ${ALIKE} (aion_metrics_bucket_bounds${ON}) != bool min ${ALIKE} (aion_metrics_bucket_bounds${ON}))`,
          'other buckets',
        ],
      ],
      alert: 'AionSeriesFolded',
    }),
    graph({
      title: 'Records in the series',
      description: 'Records a second that are added up, by topic.',
      unit: 'recps',
      alert: 'AionSeriesOld',
      queries: [[`sum by (topic) (deriv(aion_metrics_next_offset${ON}[5m]))`, '{{topic}}']],
    }),
  ],
};

export const pipeline = board(
  ['aion-pipeline', 'AION: pipeline health', 'How the jobs read, reject and store, and what keeps them from it.'],
  [jobs, workings, series],
);

const STORED = 'aion_partition_stored_timestamp_seconds';
const visible = (of: number) =>
  `histogram_quantile(${of}, sum by (table, le) (rate(aion_sql_visible_after_seconds_bucket${ON}[$__rate_interval])))`;

export const visibleToSql = () => graph({
  title: 'Visible to SQL',
  description: 'Seconds from the append of a row to when queries see it: half of the batches and 99 % of them, by table.',
  unit: 's',
  alert: 'AionStale',
  queries: [
    [visible(0.5), 'half of {{table}}'],
    [visible(0.99), '99 % of {{table}}'],
  ],
});

export const audit = board(
  ['aion-audit', 'AION: audit and freshness', 'Whether everything is stored once, and how fresh it is.'],
  [
    {
      title: 'Proof',
      panels: [
        number({
          title: 'Wrong',
          description: 'Topics and places of which the last audit found that they are not what the log says. 0 is good.',
          unit: 'short',
          queries: [[`sum(aion_audit_verdict{instance=~"$instance",verdict="wrong"})`, 'wrong']],
          alert: 'AionAuditWrong',
          thresholds: { bad: 1 },
        }),
        number({
          title: 'Since the last audit',
          description: 'Time since an audit was last carried out.',
          unit: 's',
          queries: [[`time() - max(aion_audit_last_run_timestamp_seconds${ON})`, 'age']],
          alert: 'AionAuditOld',
          thresholds: { warning: 7200, bad: 90000 },
        }),
        number({
          title: 'Could be carried out',
          description: '1 when the last audit came to its end.',
          unit: 'short',
          queries: [[`min(aion_audit_up${ON})`, 'up']],
          alert: 'AionAuditOld',
        }),
        number({
          title: 'Differing',
          description: 'Offsets of which lake and ClickHouse say different things. 0 is good.',
          unit: 'short',
          queries: [[`sum(aion_audit_differing_offsets${ON})`, 'differing']],
          alert: 'AionAuditWrong',
          thresholds: { bad: 1 },
        }),
        graph({
          title: 'Offsets by outcome',
          description: 'What the last audit found of each offset: all should be exact or pending.',
          unit: 'short',
          queries: [[`sum by (outcome) (aion_audit_offsets${ON})`, '{{outcome}}']],
          alert: 'AionAuditWrong',
        }),
        graph({
          title: 'How long an audit takes',
          description: 'Duration of the last audit that came to its end.',
          unit: 's',
          alert: 'AionAuditOld',
          queries: [[`max by (instance) (aion_audit_duration_seconds${ON})`, '{{instance}}']],
        }),
      ],
    },
    {
      title: 'Freshness',
      panels: [
        graph({
          title: 'Age of the newest stored row',
          description: 'Seconds since the newest row was appended that is durable in every place, by topic. A quiet topic ages too.',
          unit: 's',
          queries: [[`time() - max by (topic) (${STORED}${ON})`, '{{topic}}']],
          alert: 'AionStale',
        }),
        visibleToSql(),
      ],
    },
  ],
);
