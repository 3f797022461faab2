//! Adding events up: which series an event belongs to, and what it does to it.
//!
//! An event finds its series by the text that it says of itself, unchanged; only the first of a kind is made valid,
//! sorted and looked for by what it becomes.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::Arc,
};

use super::{
    Kind, Preset, Settings, buckets, names,
    source::{Listed, Source},
    state::{Family, Outcome, Series, State, Value},
};

/// One value that an event has for a series.
pub(super) struct Seen<'a> {
    pub(super) what: What<'a>,
    pub(super) value: f64,
    /// When it was so, in microseconds.
    pub(super) at: i64,
}

/// Which series it is for.
pub(super) enum What<'a> {
    Reported {
        component: &'a str,
        metric: &'a str,
        kind: Kind,
        unit: Option<&'a str>,
        /// Canonical JSON.
        labels: Option<&'a str>,
    },
    Listed {
        metric: &'static Listed,
        labels: &'a [&'a str],
    },
}

/// Where a series is in the state.
#[derive(Clone, Copy, Debug)]
enum Spot {
    Series(usize, usize),
    /// In the overflow of its family.
    Overflow(usize),
    /// Nowhere.
    None,
}

/// The state of a partition while events are added to it.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) state: State,
    limits: Limits,
    /// Levels, and what isn't one: a name may be of both.
    families: [HashMap<Arc<str>, usize>; 2],
    series: Vec<HashMap<Arc<str>, usize>>,
    /// By what events say of themselves.
    spots: HashMap<Box<str>, Spot>,
    count: usize,
    key: String,
}

#[derive(Debug)]
struct Limits {
    per_metric: usize,
    series: usize,
    metrics: usize,
    buckets: BTreeMap<String, Vec<f64>>,
}

impl Tally {
    /// Goes on from a state, in which what is known beforehand is there at 0.
    pub(super) fn new(state: State, source: Source, settings: &Settings) -> Tally {
        let limits = Limits {
            per_metric: settings.max_series_per_metric,
            series: settings.max_series,
            metrics: settings.max_metrics,
            buckets: settings.buckets.clone(),
        };
        let mut tally = Tally {
            state,
            limits,
            families: Default::default(),
            series: Vec::new(),
            spots: HashMap::new(),
            count: 0,
            key: String::new(),
        };
        tally.index();
        match source {
            Source::Runtime => settings.preset.iter().for_each(|one| tally.preset(one)),
            Source::Listed(metrics) => {
                for metric in metrics {
                    for labels in metric.known {
                        tally.find(&What::Listed { metric, labels });
                    }
                }
            }
        }
        tally
    }

    fn preset(&mut self, one: &Preset) {
        let Preset { component, metric, kind, unit, labels } = one;
        if *kind == Kind::Gauge {
            return; // nobody knows its level
        }
        let labels = serde_json::to_string(labels).ok();
        self.find(&What::Reported {
            component,
            metric,
            kind: *kind,
            unit: unit.as_deref(),
            labels: labels.as_deref(),
        });
    }

    /// Builds anew what finds series in the state.
    fn index(&mut self) {
        self.families = Default::default();
        for (at, family) in self.state.families.iter().enumerate() {
            self.families[of_kind(family.kind)].insert(Arc::clone(&family.name), at);
        }
        let of = |family: &Family| {
            let series = family.series.iter().enumerate();
            series.map(|(at, one)| (Arc::clone(&one.labels), at)).collect()
        };
        self.series = self.state.families.iter().map(of).collect();
        self.spots.clear();
        self.count = self.state.series();
    }

    /// Notes that the log is read up to a record of this append time.
    pub(super) fn reaches(&mut self, appended: i64) {
        self.state.newest = self.state.newest.max(appended);
    }

    /// Whether nothing was counted before of the record that a retry is of.
    pub(super) fn is_first(&mut self, origin: &str) -> bool {
        let is_first = self.state.origins.insert(origin.to_owned());
        if !is_first {
            self.note(Outcome::Repeated);
        }
        is_first
    }

    /// Forgets levels that nobody reports any more.
    pub(super) fn forget_levels(&mut self, older_than_us: i64) {
        if self.state.forget_levels(older_than_us) {
            self.index();
        }
    }

    /// Adds one value.
    pub(super) fn add(&mut self, seen: &Seen<'_>) {
        let spot = self.find(&seen.what);
        let outcome = match spot {
            Spot::None => Outcome::Dropped,
            Spot::Series(at, series) => {
                let family = &mut self.state.families[at];
                let added = family.series[series].value.add(seen.value, seen.at, &family.bounds);
                added.err().unwrap_or(Outcome::Counted)
            }
            Spot::Overflow(at) => self.fold(at, seen),
        };
        self.note(outcome);
    }

    fn fold(&mut self, at: usize, seen: &Seen<'_>) -> Outcome {
        let family = &mut self.state.families[at];
        family.folded += 1;
        if family.kind == Kind::Gauge {
            return Outcome::Dropped; // one level says nothing of another
        }
        let fresh = || Value::new(family.kind, &family.bounds);
        let value = family.overflow.get_or_insert_with(fresh);
        value.add(seen.value, seen.at, &family.bounds).err().unwrap_or(Outcome::Folded)
    }

    fn note(&mut self, outcome: Outcome) {
        *self.state.outcomes.entry(outcome).or_default() += 1;
    }

    /// Where the series is, made if there is room.
    fn find(&mut self, what: &What<'_>) -> Spot {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        what.write(&mut key);
        let known = self.spots.get(&*key).copied();
        let spot = known.unwrap_or_else(|| {
            let spot = self.make(what);
            // Texts that differ and mean the same are many only where somebody makes them so.
            if self.spots.len() > 4 * self.limits.series {
                self.spots.clear();
            }
            self.spots.insert(key.as_str().into(), spot);
            spot
        });
        self.key = key;
        spot
    }

    fn make(&mut self, what: &What<'_>) -> Spot {
        let Some(at) = self.family(what) else { return Spot::None };
        let series = what.labels().and_then(|labels| self.one_of(at, labels));
        let Some(series) = series else { return Spot::Overflow(at) };
        self.meet_labels(at, what);
        Spot::Series(at, series)
    }

    /// The series of a family that has these labels, made if there is room.
    fn one_of(&mut self, at: usize, labels: String) -> Option<usize> {
        if let Some(series) = self.series[at].get(&*labels) {
            return Some(*series);
        }
        let family = &mut self.state.families[at];
        let (here, all) = (family.series.len(), self.count);
        if here >= self.limits.per_metric || all >= self.limits.series {
            return None;
        }
        let labels: Arc<str> = labels.into();
        let value = Value::new(family.kind, &family.bounds);
        family.series.push(Series { labels: Arc::clone(&labels), value });
        self.series[at].insert(labels, here);
        self.count += 1;
        Some(here)
    }

    /// Notes how the labels of a series are written, and tells of those that become one with others.
    fn meet_labels(&mut self, at: usize, what: &What<'_>) {
        let What::Reported { labels, .. } = what else { return };
        let family = &mut self.state.families[at];
        for (label, value) in names::of_json(*labels) {
            if value.is_empty() {
                continue; // the series hasn't got it
            }
            let made = names::label(&label);
            if let Some(written) = family.labels.get_mut(&*made) {
                if written.len() < MAX_WRITTEN && !written.iter().any(|one| **one == *label) {
                    let name = &family.name;
                    tracing::warn!("labels {written:?} and {label:?} of {name} are both {made}");
                    written.push(label.into());
                }
            } else if family.labels.len() < MAX_LABELS {
                family.labels.insert(made.into(), vec![label.into()]);
            }
        }
    }

    fn family(&mut self, what: &What<'_>) -> Option<usize> {
        let (name, of_kind) = (what.family(), of_kind(what.kind()));
        if let Some(at) = self.families[of_kind].get(&*name) {
            let family = &mut self.state.families[*at];
            if let Some(written) = what.collides_with(family, &self.limits)
                && family.written.len() < MAX_WRITTEN
            {
                tracing::warn!("metrics {:?} and {written:?} are both {name}", family.written);
                family.written.push(written);
            }
            return Some(*at);
        }
        if self.state.families.len() >= self.limits.metrics {
            return None;
        }
        let (name, at): (Arc<str>, usize) = (name.into(), self.state.families.len());
        self.state.families.push(what.new_family(&name, &self.limits));
        self.series.push(HashMap::new());
        self.families[of_kind].insert(name, at);
        Some(at)
    }
}

/// Where families of this kind are found.
fn of_kind(kind: Kind) -> usize {
    usize::from(kind == Kind::Gauge)
}

/// How many of the names that become one are kept.
const MAX_WRITTEN: usize = 8;
/// Of how many labels of one metric it is known how they are written: twice what a series may have.
const MAX_LABELS: usize = 64;

impl What<'_> {
    /// What the event says of itself, as one text.
    fn write(&self, key: &mut String) {
        match self {
            What::Reported { component, metric, kind, unit, labels } => {
                let labels = labels.unwrap_or_default();
                // Buckets go by it, so another unit is to be told.
                let unit = unit.filter(|_| *kind == Kind::Histogram).unwrap_or_default();
                let kind = match kind {
                    Kind::Counter => 'c',
                    Kind::Gauge => 'g',
                    Kind::Histogram => 'h',
                };
                // Lengths, so that no two events have one text by their content.
                write!(key, "{kind}{},{},{},", component.len(), metric.len(), unit.len()).ok();
                for part in [*component, *metric, unit, labels] {
                    key.push_str(part);
                }
            }
            What::Listed { metric, labels } => {
                key.push_str(metric.name);
                for label in *labels {
                    write!(key, ",{},{label}", label.len()).ok();
                }
            }
        }
    }

    fn kind(&self) -> Kind {
        match self {
            What::Reported { kind, .. } => *kind,
            What::Listed { metric, .. } => metric.kind,
        }
    }

    /// What it says of itself that isn't what the family was met with: another name, or a unit of other buckets.
    fn collides_with(&self, family: &Family, limits: &Limits) -> Option<Box<str>> {
        let What::Reported { metric, kind, unit, .. } = self else { return None };
        // What the configuration says of a metric may change, and its buckets stay.
        let other_buckets = *kind == Kind::Histogram
            && !limits.buckets.contains_key(*metric)
            && buckets::bounds(metric, *unit, &limits.buckets) != family.bounds;
        let written: Box<str> = match unit {
            Some(unit) if other_buckets => format!("{metric}, in {unit}").into(),
            None if other_buckets => format!("{metric}, without a unit").into(),
            _ => (*metric).into(),
        };
        (!family.written.contains(&written)).then_some(written)
    }

    fn family(&self) -> Cow<'static, str> {
        match self {
            What::Reported { metric, kind, .. } => names::family(metric, *kind).into(),
            What::Listed { metric, .. } => metric.name.into(),
        }
    }

    fn labels(&self) -> Option<String> {
        match self {
            What::Reported { component, labels, .. } => {
                names::labels(Some(component), names::of_json(*labels))
            }
            What::Listed { metric, labels } => {
                let pairs = metric.labels.iter().zip(*labels);
                names::labels(None, pairs.map(|(name, value)| ((*name).into(), (*value).into())))
            }
        }
    }

    fn new_family(&self, name: &Arc<str>, limits: &Limits) -> Family {
        let (kind, help, written, bounds) = match self {
            What::Reported { metric, kind, unit, .. } => {
                let unit_text = unit.map_or_else(String::new, |unit| format!(", in {unit}"));
                let help = format!("{metric:?} as components report it{unit_text}.");
                let bounds = buckets::bounds(metric, *unit, &limits.buckets);
                (*kind, help.into(), vec![(*metric).into()], bounds)
            }
            What::Listed { metric, .. } => {
                let bounds = buckets::bounds(metric.name, metric.unit, &limits.buckets);
                (metric.kind, metric.help.into(), Vec::new(), bounds)
            }
        };
        let bounds = if kind == Kind::Histogram { bounds } else { Arc::default() };
        Family {
            name: Arc::clone(name),
            kind,
            help,
            bounds,
            written,
            labels: BTreeMap::new(),
            series: Vec::new(),
            overflow: None,
            folded: 0,
        }
    }
}
