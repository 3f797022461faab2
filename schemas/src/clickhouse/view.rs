//! `task_latency`: how long tasks take, in one-minute windows that slide by 30 seconds.
//!
//! Two half-minute slots make a window. The slots are a projection of the table, so a question reads a
//! few rows of each part instead of all its events, and a part has both or neither.

use super::{
    Projection, Statement,
    sql::{create, quoted},
};
use crate::schema::{Kind, Schema};

const SLOT: &str = "toStartOfInterval(timestamp, toIntervalSecond(30)) AS slot";
const STATES: &str =
    "quantileTDigestState(0.95)(latency_ms), avgState(latency_ms), countState(), sumState(retries)";

/// The table that the view is of.
const TASKS: &str = "tasks";

/// Whether a table has what the view needs.
fn has_latency(table: &str, schema: &Schema) -> bool {
    let has = |name: &str, kind: Kind| {
        schema.position(name).is_some_and(|at| schema.fields[at].kind == kind)
    };
    table == TASKS
        && has("status", Kind::Text)
        && has("timestamp", Kind::Time)
        && has("latency_ms", Kind::Integer)
        && has("retries", Kind::Integer)
}

/// The half-minute slots of a table, where it has latencies.
pub(super) fn slots(table: &str, schema: &Schema) -> Option<Projection> {
    let query = format!("SELECT status, {SLOT}, {STATES} GROUP BY status, slot");
    has_latency(table, schema).then_some(Projection { name: "slots", query })
}

/// The view over a table, where it has latencies.
pub(super) fn task_latency(
    table: &str,
    schema: &Schema,
    database: &str,
    cluster: Option<&str>,
) -> Option<Statement> {
    if !has_latency(table, schema) {
        return None;
    }
    let [p95, average, count, retries] = ["p95", "average", "events", "retried"];
    let states: Vec<String> = STATES
        .split("), ")
        .zip([p95, average, count, retries])
        .map(|(state, name)| format!("        {}) AS {name}", state.trim_end_matches(')')))
        .collect();
    let head = create("VIEW", database, "task_latency", cluster);
    let sql = format!(
        "{head} AS
SELECT
    window_start,
    window_start + toIntervalSecond(60) AS window_end,
    status,
    quantileTDigestMerge(0.95)({p95}) AS latency_p95_ms,
    avgMerge({average}) AS latency_avg_ms,
    countMerge({count}) AS events,
    sumMerge({retries}) AS retries
FROM
(
    SELECT
        status,
        {SLOT},
{}
    FROM {database}.{table}
    GROUP BY status, slot
)
ARRAY JOIN [slot, slot - toIntervalSecond(30)] AS window_start
GROUP BY window_start, status
COMMENT {}",
        states.join(",\n"),
        quoted("Tasks by status in one-minute windows that slide by 30 seconds."),
    );
    Some(Statement { object: "task_latency".to_owned(), sql })
}
