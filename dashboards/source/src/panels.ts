// What all dashboards have in common: a panel says what it shows, in which unit, and where to read on.
//
// Invariant: each panel has a title, a description, a unit and a link to the runbook or to the docs.

import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';

import { type Query, reference, type Source, SOURCES, sourceOf, type Statement, targets } from './sources';

const DOCS = 'https://github.com/aion-platform/event-streams/blob/main/docs';

/** What there is to say of a panel. */
export interface Panel {
  title: string;
  /** What it shows, and what is good. */
  description: string;
  /** Grafana's name of the unit. */
  unit: string;
  queries: Query[] | Statement;
  /** The alert whose part of the runbook helps here, by its name; without it the link leads to the page of the source. */
  alert?: string;
  /** Values from which on it is a warning, and from which on it is bad. */
  thresholds?: { warning?: number; bad: number };
  /** Adds the series up, one on the other. */
  stacked?: boolean;
  max?: number;
  /** Of a table: the units of its columns that aren't plain numbers or text. */
  units?: Record<string, string>;
}

/** Where to read on about what a source has. */
const PAGES: Record<Source, [title: string, page: string]> = {
  prometheus: ['What the metrics mean', 'metrics.md'],
  clickhouse: ['What the tables have', 'clickhouse.md#tables'],
  sql: ['What the tables have', 'sql.md#tables'],
};

function link(panel: Panel): dashboard.DashboardLinkBuilder {
  const [title, page] =
    panel.alert === undefined
      ? PAGES[sourceOf(panel.queries)]
      : [`Runbook: ${panel.alert}`, `runbook.md#${panel.alert.toLowerCase()}`];
  return new dashboard.DashboardLinkBuilder(title)
    .type(dashboard.DashboardLinkType.Link)
    .url(`${DOCS}/${page}`)
    .targetBlank(true);
}

function steps(panel: Panel): dashboard.ThresholdsConfigBuilder {
  const all: dashboard.Threshold[] = [{ value: null, color: 'green' }];
  if (panel.thresholds?.warning !== undefined) {
    all.push({ value: panel.thresholds.warning, color: 'orange' });
  }
  if (panel.thresholds !== undefined) {
    all.push({ value: panel.thresholds.bad, color: 'red' });
  }
  return new dashboard.ThresholdsConfigBuilder().mode(dashboard.ThresholdsMode.Absolute).steps(all);
}

/** A number as it is now, a quarter of a row wide. */
export function number(panel: Panel): stat.PanelBuilder {
  const builder = new stat.PanelBuilder()
    .title(panel.title)
    .description(panel.description)
    .datasource(reference(sourceOf(panel.queries)))
    .unit(panel.unit)
    .height(4)
    .span(6)
    .thresholds(steps(panel))
    .colorMode(common.BigValueColorMode.Value)
    .graphMode(common.BigValueGraphMode.None)
    .links([link(panel)])
    .targets(targets(panel.queries, 'number'));
  return panel.max === undefined ? builder : builder.max(panel.max);
}

/** A graph, half a row wide. */
export function graph(panel: Panel): timeseries.PanelBuilder {
  const stacking = new common.StackingConfigBuilder().mode(
    panel.stacked === true ? common.StackingMode.Normal : common.StackingMode.None,
  );
  const style = panel.thresholds === undefined ? 'Off' : 'Line';
  const builder = new timeseries.PanelBuilder()
    .title(panel.title)
    .description(panel.description)
    .datasource(reference(sourceOf(panel.queries)))
    .unit(panel.unit)
    .min(0)
    .height(8)
    .span(12)
    .fillOpacity(panel.stacked === true ? 25 : 8)
    .showPoints(common.VisibilityMode.Never)
    .stacking(stacking)
    .thresholds(steps(panel))
    .thresholdsStyle(
      new common.GraphThresholdsStyleConfigBuilder().mode(common.GraphThresholdsStyleMode[style]),
    )
    .legend(
      new common.VizLegendOptionsBuilder()
        .displayMode(common.LegendDisplayMode.List)
        .placement(common.LegendPlacement.Bottom)
        .showLegend(true),
    )
    .tooltip(new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi))
    .links([link(panel)])
    .targets(targets(panel.queries, 'graph'));
  if (sourceOf(panel.queries) === 'clickhouse') {
    builder.displayName('${__field.labels.series}');
  }
  return panel.max === undefined ? builder : builder.max(panel.max);
}

/** Rows as they come, half a row wide. */
export function rows(panel: Panel): table.PanelBuilder {
  const builder = new table.PanelBuilder()
    .title(panel.title)
    .description(panel.description)
    .datasource(reference(sourceOf(panel.queries)))
    .unit(panel.unit)
    .height(8)
    .span(12)
    .cellHeight(common.TableCellHeight.Sm)
    .links([link(panel)])
    .targets(targets(panel.queries, 'table'));
  for (const [column, unit] of Object.entries(panel.units ?? {})) {
    builder.overrideByName(column, [{ id: 'unit', value: unit }]);
  }
  return builder;
}

/** Rows of panels under a heading. */
export interface Section {
  title: string;
  panels: (stat.PanelBuilder | table.PanelBuilder | timeseries.PanelBuilder)[];
}

/** A dashboard of sections that ask one source, linked with the others. */
export function board(
  [uid, title, description]: [uid: string, title: string, description: string],
  sections: Section[],
  source: Source = 'prometheus',
): dashboard.DashboardBuilder {
  const all = new dashboard.DashboardBuilder(title)
    .uid(uid)
    .description(description)
    .tags(['aion'])
    .readonly()
    .refresh('30s')
    .time({ from: 'now-1h', to: 'now' })
    .timezone('browser')
    .tooltip(dashboard.DashboardCursorSync.Crosshair)
    .link(
      new dashboard.DashboardLinkBuilder('AION')
        .type(dashboard.DashboardLinkType.Dashboards)
        .tags(['aion'])
        .asDropdown(true)
        .includeVars(true)
        .keepTime(true),
    )
    .withVariable(
      new dashboard.DatasourceVariableBuilder(source).label(SOURCES[source].label).type(SOURCES[source].type),
    );
  if (source === 'prometheus') {
    all.withVariable(
      new dashboard.QueryVariableBuilder('instance')
        .label('Process')
        .datasource(reference(source))
        .query('label_values(aion_build_info, instance)')
        .refresh(dashboard.VariableRefresh.OnTimeRangeChanged)
        .multi(true)
        .includeAll(true)
        .allValue('.*'),
    );
  }
  for (const section of sections) {
    all.withRow(new dashboard.RowBuilder(section.title));
    section.panels.forEach((panel) => all.withPanel(panel));
  }
  return all;
}
