//! Tables of topics that are written at least once and say what is one and the same, without the repetitions.
//!
//! A dead letter or a gap that was acknowledged just before a crash is written again afterwards.
//! What is one and the same is told by its key; the first that was appended is kept.

use std::sync::Arc;

use aion_schemas::catalog::{DEAD_LETTERS, GAPS, Topic};
use datafusion::{
    catalog::TableProvider,
    common::Column,
    datasource::{ViewTable, provider_as_source},
    error::Result,
    functions_window::expr_fn::row_number,
    logical_expr::{Expr, ExprFunctionExt, LogicalPlanBuilder, lit},
};

/// The columns that make rows of a topic one and the same; `None` where each record stands for itself: of
/// events, and where the key only keeps records in order.
pub(crate) fn key(topic: &Topic) -> Option<Vec<String>> {
    let is_repeated = [DEAD_LETTERS, GAPS].contains(&&*topic.name);
    is_repeated.then(|| topic.key_fields().map(str::to_owned).collect())
}

/// The name under which the stored rows of a table with a view can be had.
pub(crate) fn raw_name(table: &str) -> String {
    format!("{table}_raw")
}

/// The view over `raw`, the stored rows of `table`.
pub(crate) fn distinct(
    table: &str,
    key: &[String],
    raw: Arc<dyn TableProvider>,
) -> Result<Arc<dyn TableProvider>> {
    let columns: Vec<Expr> =
        raw.schema().fields().iter().map(|field| column(field.name())).collect();
    let order = ["_append_time", "_topic_id", "_partition", "_offset"];
    let rank = row_number()
        .partition_by(key.iter().map(|name| column(name)).collect())
        .order_by(order.iter().map(|name| column(name).sort(true, false)).collect())
        .build()?
        .alias("_rank");
    let plan = LogicalPlanBuilder::scan(raw_name(table), provider_as_source(raw), None)?
        .window([rank])?
        .filter(column("_rank").eq(lit(1_u64)))?
        .project(columns)?
        .build()?;
    let definition = format!(
        "select distinct on ({}) * from {} order by {}",
        key.join(", "),
        raw_name(table),
        order.join(", ")
    );
    Ok(Arc::new(ViewTable::new(plan, Some(definition))))
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}
