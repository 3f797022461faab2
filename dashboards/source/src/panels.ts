// What all dashboards have in common: a panel says what it shows, in which unit, and where to read on.
//
// Invariant: each panel has a title, a description, a unit and a link to the runbook or to the docs.

import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';

const DOCS = 'https://github.com/aion-platform/event-streams/blob/main/docs';
const SOURCE = { type: 'prometheus', uid: '${prometheus}' };

/** A PromQL expression and the legend of its series. */
export type Query = [expression: string, legend: string];

/** What there is to say of a panel. */
export interface Panel {
  title: string;
  /** What it shows, and what is good. */
  description: string;
  /** Grafana's name of the unit. */
  unit: string;
  queries: Query[];
  /** The alert that watches the same, by its name; without it the link leads to docs/metrics.md. */
  alert?: string;
  /** Values from which on it is a warning, and from which on it is bad. */
  thresholds?: { warning?: number; bad: number };
  /** Adds the series up, one on the other. */
  stacked?: boolean;
  max?: number;
}

function link(panel: Panel): dashboard.DashboardLinkBuilder {
  const title = panel.alert === undefined ? 'What the metrics mean' : `Runbook: ${panel.alert}`;
  const page = panel.alert === undefined ? 'metrics.md' : `runbook.md#${panel.alert.toLowerCase()}`;
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

function targets(panel: Panel, isInstant: boolean): prometheus.DataqueryBuilder[] {
  return panel.queries.map(([expression, legend], at) => {
    const query = new prometheus.DataqueryBuilder()
      .refId(String.fromCharCode('A'.charCodeAt(0) + at))
      .datasource(SOURCE)
      .expr(expression)
      .legendFormat(legend);
    return isInstant ? query.instant() : query.range();
  });
}

/** A number as it is now, a quarter of a row wide. */
export function number(panel: Panel): stat.PanelBuilder {
  const builder = new stat.PanelBuilder()
    .title(panel.title)
    .description(panel.description)
    .datasource(SOURCE)
    .unit(panel.unit)
    .height(4)
    .span(6)
    .thresholds(steps(panel))
    .colorMode(common.BigValueColorMode.Value)
    .graphMode(common.BigValueGraphMode.None)
    .links([link(panel)])
    .targets(targets(panel, true));
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
    .datasource(SOURCE)
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
    .targets(targets(panel, false));
  return panel.max === undefined ? builder : builder.max(panel.max);
}

/** Rows of panels under a heading. */
export interface Section {
  title: string;
  panels: (stat.PanelBuilder | timeseries.PanelBuilder)[];
}

/** A dashboard of sections, linked with the others. */
export function board(
  [uid, title, description]: [uid: string, title: string, description: string],
  sections: Section[],
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
      new dashboard.DatasourceVariableBuilder('prometheus').label('Prometheus').type('prometheus'),
    )
    .withVariable(
      new dashboard.QueryVariableBuilder('instance')
        .label('Process')
        .datasource(SOURCE)
        .query('label_values(aion_build_info, instance)')
        .refresh(dashboard.VariableRefresh.OnTimeRangeChanged)
        .multi(true)
        .includeAll(true)
        .allValue('.*'),
    );
  for (const section of sections) {
    all.withRow(new dashboard.RowBuilder(section.title));
    section.panels.forEach((panel) => all.withPanel(panel));
  }
  return all;
}
