//! Which series a topic makes: those that the runtime metrics name themselves, and for other topics a list.
//!
//! **Invariant:** a list's metrics stand here and nowhere else; their names, help and labels are what the page shows and
//! what docs/metrics.md has.

use arrow::{
    array::{Array, AsArray, PrimitiveArray, StringArray, types},
    record_batch::RecordBatch,
};

use super::{
    Kind,
    tally::{Seen, Tally, What},
};

/// Which series a topic makes.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// Each event names its metric, labels and kind.
    Runtime,
    /// Each event adds to these.
    Listed(&'static [Listed]),
}

/// A metric that rows of other kinds add up to.
#[derive(Debug)]
pub struct Listed {
    /// Its whole name.
    pub name: &'static str,
    /// What it is, for people.
    pub help: &'static str,
    /// What its values mean.
    pub kind: Kind,
    /// The column that has the value, and what it is divided by; without it, each row counts 1.
    pub value: Option<(&'static str, f64)>,
    /// The columns that are labels, in the order of their names.
    pub labels: &'static [&'static str],
    /// The unit of the value: by it the buckets are chosen.
    pub unit: Option<&'static str>,
    /// Values of the labels that are known beforehand, those that the contract gives as examples: their series are there
    /// at 0 from the start, since to Prometheus the first value of a series that is new is no increase.
    pub known: &'static [&'static [&'static str]],
}

const STATES: &[&[&str]] =
    &[&["queued"], &["running"], &["succeeded"], &["failed"], &["cancelled"]];

/// Each route with each tier: that a private tier never went outside is seen by its 0.
const ROUTES_AND_TIERS: &[&[&str]] = &[
    &["local", "public"],
    &["local", "internal"],
    &["local", "restricted"],
    &["cloud", "public"],
    &["cloud", "internal"],
    &["cloud", "restricted"],
    &["hybrid", "public"],
    &["hybrid", "internal"],
    &["hybrid", "restricted"],
];

/// What router decisions add up to.
pub const DECISIONS: &[Listed] = &[Listed {
    name: "aion_router_decisions_total",
    help: "Tasks that the router sent on a route, by privacy tier.",
    kind: Kind::Counter,
    value: None,
    labels: &["route", "tier"],
    unit: None,
    known: ROUTES_AND_TIERS,
}];

/// What the lifecycle of tasks adds up to.
pub const TASKS: &[Listed] = &[
    Listed {
        name: "aion_task_events_total",
        help: "States that tasks entered.",
        kind: Kind::Counter,
        value: None,
        labels: &["status"],
        unit: None,
        known: STATES,
    },
    Listed {
        name: "aion_task_latency_seconds",
        help: "Time from the creation of a task to the state that it entered.",
        kind: Kind::Histogram,
        value: Some(("latency_ms", 1e3)),
        labels: &["status"],
        unit: Some("seconds"),
        known: STATES,
    },
    Listed {
        name: "aion_task_retries_total",
        help: "Attempts that had failed before a task entered this state, summed over its events.",
        kind: Kind::Counter,
        value: Some(("retries", 1.0)),
        labels: &["status"],
        unit: None,
        known: STATES,
    },
];

impl Source {
    /// What a topic of this schema makes; nothing for most.
    pub fn of(schema: &str) -> Option<Source> {
        match schema {
            "metrics_runtime" => Some(Source::Runtime),
            "router_decision" => Some(Source::Listed(DECISIONS)),
            "tasks_lifecycle" => Some(Source::Listed(TASKS)),
            _ => None,
        }
    }

    /// Adds rows up.
    pub(super) fn add_up(self, rows: &RecordBatch, tally: &mut Tally) {
        let columns = Columns::of(rows);
        match self {
            Source::Runtime => runtime(&columns, tally),
            Source::Listed(metrics) => {
                let readers: Vec<_> =
                    metrics.iter().map(|metric| Reader::of(metric, rows)).collect();
                columns.each(tally, |row, at, tally| {
                    for reader in &readers {
                        reader.read(row, at, tally);
                    }
                });
            }
        }
    }
}

/// The columns that rows of every topic have.
struct Columns<'a> {
    rows: &'a RecordBatch,
    times: Option<&'a PrimitiveArray<types::TimestampMicrosecondType>>,
    appended: Option<&'a PrimitiveArray<types::TimestampMicrosecondType>>,
    origins: Option<&'a StringArray>,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a RecordBatch) -> Columns<'a> {
        let time = |name| rows.column_by_name(name)?.as_primitive_opt();
        let origins = text(rows, "_origin").filter(|all| all.null_count() < all.len());
        Columns { rows, times: time("timestamp"), appended: time("_append_time"), origins }
    }

    /// Calls `take` with each row that counts, and when it happened: not after the log took it, for a producer whose
    /// clock is ahead must not keep others' levels from being seen.
    fn each(&self, tally: &mut Tally, mut take: impl FnMut(usize, i64, &mut Tally)) {
        for row in 0..self.rows.num_rows() {
            let appended = self.appended.map_or(0, |all| all.value(row));
            let at = self.times.map_or(appended, |all| all.value(row).min(appended));
            let origin = self.origins.filter(|all| all.is_valid(row)).map(|all| all.value(row));
            tally.reaches(appended);
            if origin.is_none_or(|origin| tally.is_first(origin)) {
                take(row, at, tally);
            }
        }
    }
}

fn text<'a>(rows: &'a RecordBatch, name: &str) -> Option<&'a StringArray> {
    rows.column_by_name(name)?.as_string_opt::<i32>()
}

fn runtime(columns: &Columns<'_>, tally: &mut Tally) {
    let rows = columns.rows;
    let column = |name| text(rows, name);
    let values = rows.column_by_name("value");
    let values = values.and_then(|all| all.as_primitive_opt::<types::Float64Type>());
    let (Some(components), Some(metrics), Some(values)) =
        (column("component"), column("metric"), values)
    else {
        return;
    };
    let (kinds, units, labels) = (column("kind"), column("unit"), column("labels"));
    columns.each(tally, |row, at, tally| {
        let kind = match at_row(kinds, row) {
            Some("counter") => Kind::Counter,
            Some("histogram") => Kind::Histogram,
            _ => Kind::Gauge,
        };
        let what = What::Reported {
            component: components.value(row),
            metric: metrics.value(row),
            kind,
            unit: at_row(units, row),
            labels: at_row(labels, row),
        };
        tally.add(&Seen { what, value: values.value(row), at });
    });
}

fn at_row(column: Option<&StringArray>, row: usize) -> Option<&str> {
    column.filter(|all| all.is_valid(row)).map(|all| all.value(row))
}

/// One listed metric over the columns of a batch.
struct Reader<'a> {
    metric: &'static Listed,
    labels: Vec<Option<&'a StringArray>>,
    value: Option<Numbers<'a>>,
}

/// A column of numbers.
enum Numbers<'a> {
    Whole(&'a PrimitiveArray<types::Int64Type>),
    Any(&'a PrimitiveArray<types::Float64Type>),
}

impl<'a> Reader<'a> {
    fn of(metric: &'static Listed, rows: &'a RecordBatch) -> Reader<'a> {
        let labels = metric.labels.iter().map(|name| text(rows, name)).collect();
        let value = metric.value.and_then(|(name, _)| {
            let column = rows.column_by_name(name)?;
            let whole = column.as_primitive_opt().map(Numbers::Whole);
            whole.or_else(|| column.as_primitive_opt().map(Numbers::Any))
        });
        Reader { metric, labels, value }
    }

    fn read(&self, row: usize, at: i64, tally: &mut Tally) {
        let value = match (&self.metric.value, &self.value) {
            (None, _) => 1.0,
            (Some((_, per)), Some(Numbers::Whole(all))) if all.is_valid(row) => {
                all.value(row) as f64 / per
            }
            (Some((_, per)), Some(Numbers::Any(all))) if all.is_valid(row) => all.value(row) / per,
            _ => return,
        };
        let labels: Vec<&str> =
            self.labels.iter().map(|column| at_row(*column, row).unwrap_or_default()).collect();
        let what = What::Listed { metric: self.metric, labels: &labels };
        tally.add(&Seen { what, value, at });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::collections::BTreeSet;

    use super::*;

    /// Every combination of the contract's examples, and no other.
    fn of_contract(schema: &str, labels: &[&str]) -> BTreeSet<Vec<String>> {
        let file = format!("{}/../schemas/events/{schema}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).unwrap();
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        labels.iter().fold(BTreeSet::from([Vec::new()]), |known, label| {
            let examples = schema["properties"][label]["examples"].as_array().unwrap();
            let with = |before: &Vec<String>| {
                let before = before.clone();
                let one = move |example: &serde_json::Value| {
                    [&before[..], &[example.as_str().unwrap().to_owned()]].concat()
                };
                examples.iter().map(one).collect::<Vec<_>>()
            };
            known.iter().flat_map(with).collect()
        })
    }

    #[test]
    fn what_is_known_beforehand_is_what_the_contract_gives_as_examples() {
        for (schema, metrics) in [("router_decision", DECISIONS), ("tasks_lifecycle", TASKS)] {
            for metric in metrics {
                let known = metric.known.iter();
                let known = known.map(|set| set.iter().map(|one| (*one).to_owned()).collect());
                let known: BTreeSet<Vec<String>> = known.collect();
                assert_eq!(known, of_contract(schema, metric.labels), "{}", metric.name);
            }
        }
    }
}
