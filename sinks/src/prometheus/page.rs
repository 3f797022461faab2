//! The page that Prometheus reads: text format 0.0.4, each series with the label `partition`.
//!
//! Written by hand: crate `prometheus` wants every label of every series as two strings of its own, which takes longer
//! than all else. A test holds this page against what that crate writes.

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use aion_schemas::{
    catalog::RETRIES,
    log::{Mark, Timestamp},
};

use super::{
    Described, Kind,
    board::Shown,
    buckets, names,
    state::{Family, Outcome, Value},
};

type All = BTreeMap<(Arc<str>, i32), Shown>;
/// By name, and whether they are levels.
type Families<'a> = BTreeMap<(&'a str, bool), Vec<(String, &'a Family)>>;

/// Writes the page.
pub(super) fn write(shown: &All, now: Timestamp, stale_after: Duration) -> String {
    let series: usize = shown.values().map(|one| one.state.series()).sum();
    let mut page = Page {
        text: String::with_capacity(4_096 + series * 128),
        oldest: now.0.saturating_sub(stale_after.as_micros() as i64),
    };
    let mut families = Families::new();
    for ((topic, partition), one) in shown {
        let Some(partition) = label(topic, *partition, one.mark) else { continue };
        for family in &one.state.families {
            let key = (&*family.name, family.kind == Kind::Gauge);
            families.entry(key).or_default().push((partition.clone(), family));
        }
    }
    for ((name, is_gauge), parts) in &families {
        // One name can't have two types; of a gauge and a histogram the gauge gives way.
        let mut end = String::new();
        while *is_gauge && is_taken(&families, name, &end) {
            end.push_str("_value");
        }
        page.family(name, &end, parts);
    }
    page.own(shown);
    page.text
}

/// Whether a level can't have this name, since another metric has it.
fn is_taken(families: &Families<'_>, name: &str, end: &str) -> bool {
    let name = format!("{name}{end}");
    families.contains_key(&(&*name, false))
        || (!end.is_empty() && families.contains_key(&(&*name, true)))
}

/// Whether the series of a partition are on the page: not those of retries before there are any.
pub(super) fn is_shown(topic: &str, mark: Option<Mark>) -> bool {
    mark.is_some() || !topic.starts_with(RETRIES)
}

/// What stands for a partition. Retries make the same series as the topic that they are of, so theirs are told apart.
fn label(topic: &str, partition: i32, mark: Option<Mark>) -> Option<String> {
    is_shown(topic, mark).then(|| {
        let before = if topic.starts_with(RETRIES) { "retries-" } else { "" };
        format!("{before}{partition}")
    })
}

struct Page {
    text: String,
    /// Levels from before this aren't shown.
    oldest: i64,
}

/// A number of a partition that the page tells of itself: name, type, help, value.
type Own = (&'static str, &'static str, &'static str, fn(&Shown) -> Option<f64>);

const OWN: [Own; 3] = [
    ("aion_metrics_series", "gauge", "Series that are kept apart.", |one| {
        Some(one.state.series() as f64)
    }),
    (
        "aion_metrics_next_offset",
        "gauge",
        "All records below this are in the series, and none above.",
        |one| one.mark.map(|mark| mark.offset.get() as f64),
    ),
    (
        "aion_metrics_newest_timestamp_seconds",
        "gauge",
        "Append time of the newest record that is in the series.",
        |one| (one.state.newest > 0).then_some(one.state.newest as f64 / 1e6),
    ),
];

/// What the page tells of itself and of which not every partition has something: name, type, help.
const VALUES: (&str, &str, &str) = (
    "aion_metrics_values_total",
    "counter",
    "Values that events had for series, by what became of them.",
);
const FOLDED: (&str, &str, &str) = (
    "aion_metrics_folded_values_total",
    "counter",
    "Values of series beyond the cap of their metric: folded into one series, or, of levels, left out.",
);
const COLLISIONS: (&str, &str, &str) = (
    "aion_metrics_name_collisions",
    "gauge",
    "Names of metrics and labels that producers write and that become one with another's, and units whose buckets aren't the metric's.",
);

const BOUNDS: (&str, &str, &str) = (
    "aion_metrics_bucket_bounds",
    "gauge",
    "Checksum of the bounds of a histogram's buckets: of partitions in which it differs the buckets can't be summed.",
);

/// The word in `# TYPE`.
pub(super) const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

/// What the page tells of itself.
pub(super) fn described() -> impl Iterator<Item = Described> {
    let own = OWN.map(|(name, kind, help, _)| ((name, kind, help), None));
    let of_metrics = [FOLDED, COLLISIONS, BOUNDS].map(|one| (one, Some("metric")));
    let others = [(VALUES, Some("outcome"))].into_iter().chain(of_metrics);
    own.into_iter().chain(others).map(|((name, kind, help), label)| Described {
        name,
        kind,
        labels: ["partition", "topic"].into_iter().chain(label).collect(),
        help,
    })
}

impl Page {
    fn head(&mut self, name: &str, end: &str, kind: &str, help: &str) {
        // Quotes may stand as they are there.
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        write!(self.text, "# HELP {name}{end} {help}\n# TYPE {name}{end} {kind}\n").ok();
    }

    fn family(&mut self, name: &str, end: &str, parts: &[(String, &Family)]) {
        let Some((_, first)) = parts.first() else { return };
        let kind = word(first.kind);
        let before = self.text.len();
        self.head(name, end, kind, &first.help);
        let headed = self.text.len();
        for (partition, family) in parts {
            for one in &family.series {
                let value = (&one.value, &*family.bounds);
                self.value((name, end), &one.labels, partition, value);
            }
            if let Some(overflow) = &family.overflow {
                let labels = "overflow=\"true\"";
                self.value((name, end), labels, partition, (overflow, &family.bounds));
            }
        }
        if self.text.len() == headed {
            self.text.truncate(before); // all of its levels are old
        }
    }

    fn value(
        &mut self,
        (name, end): (&str, &str),
        labels: &str,
        partition: &str,
        (value, bounds): (&Value, &[f64]),
    ) {
        match value {
            Value::Counter(sum) => self.sample((name, end), labels, partition, None, *sum),
            Value::Gauge { at, .. } if *at < self.oldest => {}
            Value::Gauge { value, .. } => {
                self.sample((name, end), labels, partition, None, *value);
            }
            Value::Histogram { counts, sum } => {
                let mut below = 0;
                for (bound, here) in bounds.iter().zip(counts) {
                    below += here;
                    let le = Some(*bound);
                    self.sample((name, "_bucket"), labels, partition, le, below as f64);
                }
                let all = counts.iter().sum::<u64>() as f64;
                let le = Some(f64::INFINITY);
                self.sample((name, "_bucket"), labels, partition, le, all);
                self.sample((name, "_sum"), labels, partition, None, *sum);
                self.sample((name, "_count"), labels, partition, None, all);
            }
        }
    }

    fn sample(
        &mut self,
        (name, end): (&str, &str),
        labels: &str,
        partition: &str,
        le: Option<f64>,
        value: f64,
    ) {
        let comma = if labels.is_empty() { "" } else { "," };
        let text = &mut self.text;
        text.push_str(name);
        text.push_str(end);
        text.push('{');
        text.push_str(labels);
        write!(text, "{comma}partition=\"{partition}\"").ok();
        match le {
            None => {}
            Some(bound) if bound.is_infinite() => text.push_str(",le=\"+Inf\""),
            Some(bound) => drop(write!(text, ",le=\"{bound}\"")),
        }
        text.push_str("} ");
        number(text, value);
        text.push('\n');
    }

    /// What the page tells of itself.
    fn own(&mut self, shown: &All) {
        for (name, kind, help, value) in OWN {
            let lines: Vec<_> =
                shown.iter().filter_map(|(place, one)| Some((place, value(one)?))).collect();
            if lines.is_empty() {
                continue;
            }
            self.head(name, "", kind, help);
            for ((topic, partition), value) in lines {
                let (labels, partition) = (format!("topic=\"{topic}\""), partition.to_string());
                self.sample((name, ""), &labels, &partition, None, value);
            }
        }
        if shown.is_empty() {
            return;
        }
        self.head(VALUES.0, "", VALUES.1, VALUES.2);
        for ((topic, partition), one) in shown {
            for outcome in Outcome::ALL {
                let labels = format!("outcome=\"{}\",topic=\"{topic}\"", outcome.word());
                let count = one.state.outcomes.get(&outcome).copied().unwrap_or(0);
                self.sample((VALUES.0, ""), &labels, &partition.to_string(), None, count as f64);
            }
        }
        self.of_families(shown, FOLDED, |family| family.folded);
        self.of_families(shown, COLLISIONS, collisions);
        self.of_families(shown, BOUNDS, |family| match family.kind {
            Kind::Histogram => buckets::checksum(&family.bounds).into(),
            Kind::Counter | Kind::Gauge => 0,
        });
    }

    /// A number of each metric whose series are shown, where it isn't 0.
    fn of_families(
        &mut self,
        shown: &All,
        (name, kind, help): (&str, &str, &str),
        count: fn(&Family) -> u64,
    ) {
        let mut is_headed = false;
        for ((topic, partition), one) in shown {
            if !is_shown(topic, one.mark) {
                continue;
            }
            for family in one.state.families.iter().filter(|family| count(family) > 0) {
                if !std::mem::replace(&mut is_headed, true) {
                    self.head(name, "", kind, help);
                }
                let metric = names::escaped(&family.name);
                let labels = format!("metric=\"{metric}\",topic=\"{topic}\"");
                let partition = partition.to_string();
                self.sample((name, ""), &labels, &partition, None, count(family) as f64);
            }
        }
    }
}

/// How many names are written otherwise than the first that became the same.
fn collisions(family: &Family) -> u64 {
    let all = family.labels.values().chain([&family.written]);
    all.map(|written| written.len().saturating_sub(1) as u64).sum()
}

/// Whole numbers as such: they are most, and quicker.
fn number(text: &mut String, value: f64) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let written = if value.fract() == 0.0 && value.abs() < EXACT {
        write!(text, "{}", value as i64)
    } else {
        write!(text, "{value}")
    };
    written.ok();
}
