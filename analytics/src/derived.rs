//! Views that answer what people ask most: how long tasks take, and what became of decisions.
//!
//! A view is SQL over the tables of the same query. A filter on its time column also goes into the SQL, as
//! a bound on the event time below it, so that the lake's files are skipped for it.
//!
//! Deliberately absent: views that take their own SQL from a configuration; a tool can keep that.

mod bounds;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::Column,
    error::Result,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, cast},
    physical_plan::ExecutionPlan,
};

use self::bounds::Bounds;
use crate::tables::{ColumnInfo, Named, SCHEMA, TableInfo, session_over, sql_type};

/// A view, as it is stated here.
#[derive(Debug)]
pub(crate) struct Statement {
    name: &'static str,
    doc: &'static str,
    /// The tables below it, each with a column that it must have.
    needs: [(&'static str, &'static str); 2],
    /// Which column is a time that bounds can be taken from.
    time: &'static str,
    /// How long after that time the event may have happened, in microseconds.
    width_us: i64,
    columns: &'static [(&'static str, Kind, &'static str)],
    sql: fn(&Bounds) -> String,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Int,
    Float,
    Time,
}

impl Kind {
    fn arrow(self) -> DataType {
        match self {
            Kind::Text => DataType::Utf8View,
            Kind::Int => DataType::Int64,
            Kind::Float => DataType::Float64,
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

const VIEWS: [Statement; 2] = [
    Statement {
        name: "task_latency",
        doc: "How long tasks took to reach a state: windows of a minute, one every 30 seconds.",
        needs: [("tasks", "latency_ms"), ("tasks", "retries")],
        time: "window_start",
        width_us: 60_000_000,
        columns: &[
            ("window_start", Kind::Time, "The window's first moment; it lasts a minute."),
            ("window_end", Kind::Time, "The moment after the window."),
            ("status", Kind::Text, "The state that tasks entered."),
            ("events", Kind::Int, "Events in the window."),
            (
                "average_ms",
                Kind::Float,
                "Mean time from a task's creation to the state, where events say it.",
            ),
            (
                "p95_ms",
                Kind::Float,
                "The time that 95 of 100 events kept within; exact, interpolated.",
            ),
            ("retries", Kind::Int, "Attempts that had failed before, summed."),
        ],
        sql: task_latency,
    },
    Statement {
        name: "decision_outcomes",
        doc: "Each decision with how its task ended: the last of succeeded, failed, cancelled.",
        needs: [("decisions", "route"), ("tasks", "latency_ms")],
        time: "decided_at",
        width_us: 0,
        columns: &[
            ("task_id", Kind::Text, "Id of the task that was routed."),
            ("tenant_id", Kind::Text, "Id of the tenant that owns the task."),
            ("intent", Kind::Text, "What the task is meant to do."),
            ("route", Kind::Text, "The route that was chosen."),
            ("reason", Kind::Text, "Why it was chosen."),
            ("tier", Kind::Text, "Privacy tier of the task."),
            ("decided_at", Kind::Time, "When the decision was made."),
            ("engine_model", Kind::Text, "The model that the route runs."),
            ("outcome", Kind::Text, "How the task ended; null while it hasn't."),
            ("ended_at", Kind::Time, "When it ended."),
            ("latency_ms", Kind::Int, "Time from the task's creation to its end, in milliseconds."),
            ("retries", Kind::Int, "Attempts that failed before the last one."),
            ("error_code", Kind::Text, "Why it failed."),
            ("_partition", Kind::Int, "Kafka partition of the decision."),
            ("_offset", Kind::Int, "Offset of the decision."),
        ],
        sql: decision_outcomes,
    },
];

/// Each event is in the window that starts at its half minute, and in the one before.
fn task_latency(bounds: &Bounds) -> String {
    let bounds = bounds.condition("timestamp");
    let part = |back: &str| {
        format!(
            "select date_bin(interval '30 seconds', timestamp) - interval '{back} seconds' as \
             window_start, status, latency_ms, retries from tasks where {bounds}"
        )
    };
    format!(
        "select window_start, window_start + interval '1 minute' as window_end, status, \
         count(*) as events, avg(latency_ms) as average_ms, \
         percentile_cont(0.95) within group (order by cast(latency_ms as double)) as p95_ms, \
         sum(retries) as retries \
         from ({} union all {}) group by window_start, status",
        part("0"),
        part("30")
    )
}

fn decision_outcomes(bounds: &Bounds) -> String {
    let of = bounds.condition("timestamp");
    // Only these tasks are looked for, where time leaves decisions out.
    let asked = if bounds.is_open() {
        String::new()
    } else {
        format!("and task_id in (select task_id from decisions where {of})")
    };
    format!(
        "select d.task_id, d.tenant_id, d.intent, d.route, d.reason, d.tier, \
         d.timestamp as decided_at, d.engine_model, e.status as outcome, e.timestamp as ended_at, \
         e.latency_ms, e.retries, e.error_code, d._partition, d._offset \
         from (select * from decisions where {of}) d left join ( \
           select distinct on (task_id) task_id, status, timestamp, latency_ms, retries, error_code \
           from tasks where status in ('succeeded', 'failed', 'cancelled') {asked} \
           order by task_id, timestamp desc, _topic_id desc, _partition desc, _offset desc \
         ) e on e.task_id = d.task_id"
    )
}

/// The views that can be had over these tables.
pub(crate) fn over(tables: &[TableInfo]) -> impl Iterator<Item = &'static Statement> + use<'_> {
    const ALL: &[Statement] = &VIEWS;
    let has = |(table, column): (&str, &str)| {
        let table = tables.iter().find(|one| one.name == table);
        table.is_some_and(|table| table.columns.iter().any(|one| one.name == column))
    };
    let taken = |name: &str| tables.iter().any(|table| table.name == name);
    ALL.iter().filter(move |view| view.needs.into_iter().all(has) && !taken(view.name))
}

impl Statement {
    /// The name to ask for.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// What people see of it.
    pub(crate) fn info(&self) -> TableInfo {
        let columns = self.columns.iter().map(|(name, kind, doc)| ColumnInfo {
            name: (*name).to_owned(),
            sql_type: sql_type(&kind.arrow()).to_owned(),
            nullable: true,
            doc: (*doc).to_owned(),
        });
        TableInfo {
            name: self.name.to_owned(),
            doc: self.doc.to_owned(),
            columns: columns.collect(),
        }
    }

    /// The view over the tables of one query.
    pub(crate) fn provider(
        &'static self,
        base: &SessionState,
        tables: &Arc<Named>,
    ) -> Arc<dyn TableProvider> {
        let field = |(name, kind, _): &(&str, Kind, _)| Field::new(*name, kind.arrow(), true);
        let fields: Vec<_> = self.columns.iter().map(field).collect();
        Arc::new(View {
            statement: self,
            schema: Arc::new(Schema::new(fields)),
            base: base.clone(),
            tables: Arc::clone(tables),
        })
    }
}

/// A view in one query.
struct View {
    statement: &'static Statement,
    schema: SchemaRef,
    base: SessionState,
    tables: Arc<Named>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("name", &self.statement.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for View {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Statement { time, width_us, sql, .. } = self.statement;
        let sql = sql(&Bounds::of(time, *width_us, filters));
        let tables = session_over(&self.base, [(SCHEMA, Arc::clone(&self.tables) as _)])?;
        // The query around it is optimised as a whole; twice is wrong where joins have been arranged.
        let below =
            SessionStateBuilder::new_from_existing(tables).with_physical_optimizer_rules(vec![]);
        let below = below.build();
        let plan = below.create_logical_plan(&sql).await?;
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all).iter().map(|at| self.schema.field(*at));
        let columns = wanted.map(|field| {
            cast(Expr::Column(Column::from_name(field.name())), field.data_type().clone())
                .alias(field.name())
        });
        let plan = LogicalPlanBuilder::from(plan).project(columns.collect::<Vec<_>>())?.build()?;
        below.create_physical_plan(&plan).await
    }
}
