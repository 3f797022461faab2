// What a dashboard's file may have: Grafana's own types, put together for the panels and questions that we use.
//
// `npm run schema` makes a JSON Schema of it, which tests hold the files against: a member that Grafana doesn't know, or
// one of another type, is an error there. The compiler alone can't see that, since a panel's options and targets are
// `any` to the types of a dashboard.

import type * as common from '@grafana/grafana-foundation-sdk/common';
import type * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import type * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import type * as stat from '@grafana/grafana-foundation-sdk/stat';
import type * as table from '@grafana/grafana-foundation-sdk/table';
import type * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';

/** What every question in SQL has, in either plug-in. */
interface Sql {
  refId: string;
  rawSql: string;
}

interface ClickHouse extends Sql {
  datasource: { type: 'grafana-clickhouse-datasource'; uid: string };
  editorType: 'sql' | 'builder';
  queryType: 'timeseries' | 'table' | 'logs' | 'traces';
  format: 0 | 1 | 2 | 3;
}

interface Postgres extends Sql {
  datasource: { type: 'grafana-postgresql-datasource'; uid: string };
  editorMode: 'code' | 'builder';
  rawQuery: boolean;
  format: 'time_series' | 'table' | 'logs';
}

type Target = Omit<prometheus.Dataquery, '_implementsDataqueryVariant'> | ClickHouse | Postgres;

/** The members of a type without its name: several have the same. */
type Members<T> = Pick<T, keyof T>;

type FieldConfig<Custom> = Omit<dashboard.FieldConfigSource, 'defaults'> & {
  defaults: Omit<dashboard.FieldConfig, 'custom'> & { custom?: Custom };
};

type Panel<Type extends string, Options, Custom> = Omit<
  dashboard.Panel,
  'type' | 'options' | 'fieldConfig' | 'targets'
> & { type: Type; options?: Options; fieldConfig?: FieldConfig<Custom>; targets: Target[] };

type Panels =
  | Panel<'stat', Members<stat.Options>, never>
  | Panel<'timeseries', Members<timeseries.Options>, Members<timeseries.FieldConfig>>
  | Panel<'table', Members<table.Options>, Members<common.TableFieldOptions>>
  | (Omit<dashboard.RowPanel, 'panels'> & { panels: [] });

/** A file. */
export type Board = Omit<dashboard.Dashboard, 'panels'> & { panels: Panels[] };
