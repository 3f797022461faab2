#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeSet, fmt::Write, path::Path};

use aion_schemas::catalog::Catalog;
use aion_sinks::{clickhouse::guarantee::Guarantee, prometheus::described};

use super::*;
use crate::{
    audit::Report,
    config::{SinkKind, default_jobs},
    inbound::{log::State, metrics::Counters},
    live_sql::LiveSql,
    webhooks::status::{EndpointStatus, Status},
};

/// A page with every family that there is.
fn whole() -> String {
    let jobs = [Arc::new(JobStatus::sample())];
    let report = Some(Arc::new(Report::sample()));
    let last = Last { at: Timestamp(1), succeeded: true, report };
    let webhooks = Status { endpoints: vec![EndpointStatus::default()], ..Status::default() };
    let sql = LiveSql::new().unwrap();
    sql.freshness.with_label_values(&["decisions"]).observe(1.0);
    let counters = Counters::default();
    counters.answered(202);
    counters.unauthenticated("signature");
    let mut more = sql.freshness.collect();
    more.extend(audits_configured(true).unwrap());
    more.extend(guarantees(&default_jobs(&Catalog::builtin(), SinkKind::Lake)).unwrap());
    more.extend(Host::sample().families(std::iter::empty()).unwrap());
    more.extend(inbound::metrics::families(&counters, &State::default()).unwrap());
    let memory = BTreeMap::from([("others", Budget::new(1))]);
    text(&jobs, &memory, more, (Some(&last), Some(&webhooks))).unwrap()
}

/// The rows of the table in docs/metrics.md: name, type, labels, help.
fn rows(page: &str) -> String {
    let (mut help, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help.extend(rest.split_once(' '));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            kinds.extend(rest.split_once(' '));
        } else {
            let (name, inner) =
                line.split_once('{').unwrap_or((line.split_once(' ').unwrap().0, ""));
            let ends = ["_bucket", "_sum", "_count"].into_iter();
            let family =
                ends.filter_map(|end| name.strip_suffix(end)).find(|one| kinds.contains_key(one));
            let names = inner.split(',').filter_map(|pair| Some(pair.split_once('=')?.0));
            labels.entry(family.unwrap_or(name)).or_default().extend(names);
        }
    }
    let mut rows = String::new();
    for (name, kind) in kinds {
        let of = labels.get(name).into_iter().flatten().filter(|label| **label != "le");
        let of: Vec<String> = of.map(|label| format!("`{label}`")).collect();
        writeln!(rows, "| `{name}` | {kind} | {} | {} |", of.join(", "), help[name]).unwrap();
    }
    rows
}

/// `AION_UPDATE=1 cargo test` writes the tables anew.
#[test]
fn the_page_of_metrics_lists_all_of_them() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut platform = String::new();
    for one in described() {
        let labels: Vec<String> = one.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        writeln!(platform, "| `{}` | {} | {labels} | {} |", one.name, one.kind, one.help).unwrap();
    }
    let mut wanted = text.clone();
    for (name, rows) in [("process", rows(&whole())), ("platform", platform)] {
        let (begin, end) = (format!("<!-- {name}: generated -->\n"), format!("<!-- /{name} -->"));
        let (before, rest) = wanted.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        let head = "| metric | type | labels | what it is |\n|---|---|---|---|\n";
        wanted = format!("{before}{begin}{head}{rows}{end}{after}");
    }
    if std::env::var_os("AION_UPDATE").is_some() {
        std::fs::write(&file, &wanted).unwrap();
    }
    assert!(
        text == wanted || std::env::var_os("AION_UPDATE").is_some(),
        "docs/metrics.md isn't what the program shows: AION_UPDATE=1 cargo test --release -- the_page_of_metrics"
    );
}

#[test]
fn what_is_asked_of_each_sink_is_told() {
    let jobs = default_jobs(&Catalog::builtin(), SinkKind::ClickHouse);
    let job = jobs.into_iter().find(|job| job.name == "tasks-clickhouse").unwrap();
    let less = JobConfig { guarantee: Guarantee::AtLeastOnce, ..job };
    let both = JobConfig {
        name: "both".to_owned(),
        sinks: vec![SinkKind::Lake, SinkKind::ClickHouse],
        ..less.clone()
    };
    let families = guarantees(&[less, both]).unwrap();
    let page = TextEncoder::new().encode_to_string(&families).unwrap();
    let of = |job: &str, sink: &str, guarantee: &str| {
        let labels = format!("guarantee=\"{guarantee}\",job=\"{job}\",sink=\"{sink}\"");
        format!("aion_job_guarantee{{{labels},topic=\"aion.tasks.lifecycle\"}} 1\n")
    };
    assert!(page.contains(&of("tasks-clickhouse", "clickhouse", "at_least_once")), "{page}");
    assert!(page.contains(&of("both", "clickhouse", "at_least_once")), "{page}");
    assert!(page.contains(&of("both", "lake", "exactly_once")), "{page}");
    assert!(!page.contains(&of("both", "lake", "at_least_once")), "{page}");
    assert!(page.contains("topic=\"aion.retries.tasks\""), "as other series of jobs: {page}");
}
