//! `router_training`: one row for each decision of the router, with what became of it.
//!
//! Decisions and ends of tasks are laid on one line of time for each tenant and task; what follows a decision on it
//! is its outcome. Nothing is joined, so no row can be doubled.
//!
//! | what follows the decision | then |
//! |---|---|
//! | the task ended (`succeeded`, `failed`, `cancelled`) within the horizon | that is the outcome |
//! | another decision for the same task, within the horizon | `superseded`: this one had no outcome of its own |
//! | nothing within the horizon | `censored`: nobody knows yet, or nobody ever will |
//!
//! - An end that is reported several times counts once: the first in time follows the decision.
//! - An end at the very time of a decision follows it.
//! - An event without a tenant is of the tenant that has no name: tasks of others with the same id are others.
//! - Features are those of the decision itself, as it was served; nothing that came later is among them.
//! - Tiers are left out after outcomes are known: a decision of a tier that isn't let out still supersedes.

use std::sync::Arc;

use aion_schemas::{catalog::Catalog, schema::Kind};

use super::{
    Column, DECISIONS, Dataset, TASKS, TRAINING, Within, column, first_copies, list, of_tiers,
    place_columns, quoted,
};
use crate::exports::request::Request;

/// Where tasks end.
const ENDS: &str = "'succeeded', 'failed', 'cancelled'";
/// What of an end is told, by its name in the export and in table `tasks`.
const OUTCOME: [(&str, &str, Kind, &str); 5] = [
    ("outcome", "status", Kind::Text, "How the task ended; null where that isn't known."),
    ("outcome_time", "timestamp", Kind::Time, "When it ended."),
    (
        "outcome_latency_ms",
        "latency_ms",
        Kind::Integer,
        "Time from the creation of the task to its end, in milliseconds.",
    ),
    ("outcome_retries", "retries", Kind::Integer, "How many attempts failed before its last one."),
    ("outcome_error_code", "error_code", Kind::Text, "Why it failed, as a code."),
];
/// The last column, which is computed from others.
pub const SPLIT: &str = "split";

/// The dataset, where the catalog has what it is made of.
pub(super) fn dataset(catalog: &Catalog) -> Option<Dataset> {
    let (decisions, tasks) = (catalog.table(DECISIONS)?, catalog.table(TASKS)?);
    let has = |topic: &aion_schemas::catalog::Topic, names: &[&str]| {
        names.iter().all(|name| topic.schema.position(name).is_some())
    };
    let needed = ["event_id", "task_id", "tenant_id", "timestamp"];
    if !has(decisions, &needed)
        || !has(tasks, &needed)
        || !has(tasks, &OUTCOME.map(|(_, from, ..)| from))
    {
        return None;
    }
    let features = decisions.schema.fields.iter().map(|field| Column {
        name: Arc::clone(&field.name),
        kind: field.kind,
        doc: Arc::clone(&field.doc),
    });
    let outcome = OUTCOME.map(|(name, _, kind, doc)| column(name, kind, doc));
    let told = [
        column(
            "superseded",
            Kind::Boolean,
            "Whether another decision for the task came before its end.",
        ),
        column(
            "censored",
            Kind::Boolean,
            "Whether neither an end nor another decision came within the horizon.",
        ),
    ];
    let split =
        column(SPLIT, Kind::Text, "`train`, `validation` or `test`, by a hash of tenant and task.");
    let columns =
        features.chain(outcome).chain(told).chain(place_columns()).chain([split]).collect();
    let topics = vec![decisions.clone(), tasks.clone()];
    Some(Dataset { name: TRAINING.into(), topics, columns })
}

/// The rows, without the split.
pub(super) fn rows(dataset: &Dataset, request: &Request, within: &Within<'_>) -> String {
    let dialect = within.dialect;
    let decisions = &dataset.topics[0];
    let features: Vec<_> = decisions.schema.fields.iter().collect();
    let names = list(features.iter().map(|field| quoted(&field.name)));
    let nulls = list(features.iter().map(|field| match &*field.name {
        "task_id" | "tenant_id" | "timestamp" => quoted(&field.name),
        name => format!("{} as {}", dialect.null(field.kind), quoted(name)),
    }));
    let no_end =
        list(OUTCOME.iter().map(|(name, _, kind, _)| format!("{} as {name}", dialect.null(*kind))));
    let end = list(OUTCOME.iter().map(|(name, from, ..)| format!("\"{from}\" as {name}")));
    let place = "_topic_id, _partition, _offset, _append_time";
    let of_decisions = source(dataset, 0, "true", request, within);
    let of_tasks = source(dataset, 1, &format!("status in ({ENDS})"), request, within);
    let next =
        list(OUTCOME.iter().map(|(name, ..)| format!("lead({name}) over line as next_{name}")));
    let horizon = dialect.later("\"timestamp\"", request.horizon_s);
    let ended = format!("next_is_end = 1 and next_at < {horizon}");
    let outcome = list(
        OUTCOME
            .iter()
            .map(|(name, ..)| format!("case when {ended} then next_{name} end as {name}")),
    );
    let tiers = of_tiers(request);
    let order = dataset.order();
    let before_end = dialect.time(request.end);
    format!(
        "with line_of_time as (
            select 0 as is_end, {names}, {no_end}, {place} from {of_decisions}
            union all
            select 1 as is_end, {nulls}, {end}, {place} from {of_tasks}
        ), followed as (
            select *, lead(is_end) over line as next_is_end, lead(\"timestamp\") over line as next_at, {next}
            from line_of_time
            window line as (
                partition by coalesce(tenant_id, ''), task_id
                order by \"timestamp\", is_end, _topic_id, _partition, _offset)
        )
        select {names}, {outcome},
            coalesce(next_is_end = 0 and next_at < {horizon}, false) as superseded,
            coalesce(next_at >= {horizon}, true) as censored,
            {place}
        from followed where is_end = 0 and \"timestamp\" < {before_end}{tiers} order by {order}"
    )
}

/// The events of a topic up to the end of the horizon.
fn source(
    dataset: &Dataset,
    at: usize,
    which: &str,
    request: &Request,
    within: &Within<'_>,
) -> String {
    let topic = &dataset.topics[at];
    let dialect = within.dialect;
    let (start, end) = (dialect.time(request.start), dialect.time(request.horizon_end()));
    let kept = format!(
        "\"timestamp\" >= {start} and \"timestamp\" < {end} and {which} and {}",
        within.below(topic)
    );
    let from = within.table(topic);
    if !request.deduplicate {
        return format!("{from} where {kept}");
    }
    let copy = first_copies(dialect);
    format!("(select *, {copy} as _copy from {from} where {kept}) as copies_{at} where _copy = 1")
}
