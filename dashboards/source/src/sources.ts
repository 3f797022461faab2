// Whom panels ask, and how their questions stand in a dashboard's file.
//
// Invariant: a source is named by a variable, never by the name that somebody gave it.

import type * as cog from '@grafana/grafana-foundation-sdk/cog';
import type * as common from '@grafana/grafana-foundation-sdk/common';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';

/** A PromQL expression and the legend of its series. */
export type Query = [expression: string, legend: string];

/**
 * A question in SQL: to ClickHouse, or to a running process by PostgreSQL's protocol. A graph wants the columns `time`
 * and `value`, and `series` or `metric` where there are several lines.
 */
export interface Statement {
  source: 'clickhouse' | 'sql';
  text: string;
}

export const SOURCES = {
  prometheus: { type: 'prometheus', label: 'Prometheus' },
  clickhouse: { type: 'grafana-clickhouse-datasource', label: 'ClickHouse' },
  sql: { type: 'grafana-postgresql-datasource', label: 'AION SQL' },
} as const;

export type Source = keyof typeof SOURCES;

/** What is made of the answer. */
export type Shape = 'number' | 'graph' | 'table';

export function reference(source: Source): common.DataSourceRef {
  return { type: SOURCES[source].type, uid: '${' + source + '}' };
}

export function sourceOf(asked: Query[] | Statement): Source {
  return Array.isArray(asked) ? 'prometheus' : asked.source;
}

/** The targets of a panel. */
export function targets(asked: Query[] | Statement, shape: Shape): cog.Builder<cog.Dataquery>[] {
  if (!Array.isArray(asked)) {
    return [{ build: () => statement(asked, shape) }];
  }
  return asked.map(([expression, legend], at) => {
    const query = new prometheus.DataqueryBuilder()
      .refId(String.fromCharCode('A'.charCodeAt(0) + at))
      .datasource(reference('prometheus'))
      .expr(expression)
      .legendFormat(legend);
    return shape === 'graph' ? query.range() : query.instant();
  });
}

// The SDK has no types for these two: the members are those of the plug-ins.
function statement(asked: Statement, shape: Shape): cog.Dataquery {
  const isGraph = shape === 'graph';
  const members =
    asked.source === 'clickhouse'
      ? {
          editorType: 'sql',
          queryType: isGraph ? 'timeseries' : 'table',
          format: isGraph ? 0 : 1,
        }
      : { editorMode: 'code', rawQuery: true, format: isGraph ? 'time_series' : 'table' };
  const target = {
    refId: 'A',
    datasource: reference(asked.source),
    ...members,
    rawSql: asked.text.replace(/\s+/g, ' ').trim(),
  };
  return target as unknown as cog.Dataquery;
}
