//! What the events of a partition add up to below its mark: plain data, as it stands in a checkpoint.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Kind, buckets};

/// The series of one partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// The families, in the order in which they were met.
    pub(super) families: Vec<Family>,
    /// What became of the events.
    pub(super) outcomes: BTreeMap<Outcome, u64>,
    /// The greatest append time, in microseconds.
    pub(super) newest: i64,
    /// The records that retries were of; a second one of the same adds nothing. They are kept for ever: whatever was
    /// sent once can be sent again (docs/decisions/0014-series-in-checkpoints.md).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) origins: BTreeSet<String>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It is in a series of its own labels.
    Counted,
    /// It is in the overflow of its metric.
    Folded,
    /// A level that is older than the one that is shown.
    Late,
    /// A counter can't fall.
    Negative,
    /// The sum would not be a number any more.
    TooLarge,
    /// Its metric is one too many, or has labels that are too many and is a gauge.
    Dropped,
    /// A retry of what was counted before.
    Repeated,
}

impl Outcome {
    pub(super) const ALL: [Outcome; 7] = [
        Outcome::Counted,
        Outcome::Folded,
        Outcome::Late,
        Outcome::Negative,
        Outcome::TooLarge,
        Outcome::Dropped,
        Outcome::Repeated,
    ];

    /// The word that metrics have for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Outcome::Counted => "counted",
            Outcome::Folded => "folded",
            Outcome::Late => "late",
            Outcome::Negative => "negative",
            Outcome::TooLarge => "too_large",
            Outcome::Dropped => "dropped",
            Outcome::Repeated => "repeated",
        }
    }
}

/// All series of one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Family {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) help: Arc<str>,
    /// The upper bounds of a histogram's buckets. They stay as they were when the metric was first met: with others
    /// what was counted could not be shown any more.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub(super) bounds: Arc<[f64]>,
    /// As producers write it; several where different names become one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) written: Vec<Box<str>>,
    /// What its labels become, and how producers write each; several where different labels become one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<Box<str>, Vec<Box<str>>>,
    pub(super) series: Vec<Series>,
    /// What belongs to series beyond the cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) overflow: Option<Value>,
    /// How many events that were.
    #[serde(default)]
    pub(super) folded: u64,
}

fn is_empty(bounds: &Arc<[f64]>) -> bool {
    bounds.is_empty()
}

/// One series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Series {
    /// As they stand between the braces.
    pub(super) labels: Arc<str>,
    pub(super) value: Value,
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Value {
    Counter(f64),
    Gauge { value: f64, at: i64 },
    Histogram { counts: Box<[u64]>, sum: f64 },
}

impl Value {
    /// That of a series without events.
    pub(super) fn new(kind: Kind, bounds: &[f64]) -> Value {
        match kind {
            Kind::Counter => Value::Counter(0.0),
            Kind::Gauge => Value::Gauge { value: 0.0, at: i64::MIN },
            Kind::Histogram => {
                Value::Histogram { counts: vec![0; bounds.len() + 1].into(), sum: 0.0 }
            }
        }
    }

    /// Takes in what an event says that happened at `at`; what stands in the way, if it can't.
    pub(super) fn add(&mut self, seen: f64, at: i64, bounds: &[f64]) -> Result<(), Outcome> {
        let finite = |sum: f64| if sum.is_finite() { Ok(sum) } else { Err(Outcome::TooLarge) };
        match self {
            Value::Counter(_) if seen < 0.0 => return Err(Outcome::Negative),
            Value::Counter(sum) => *sum = finite(*sum + seen)?,
            Value::Gauge { at: newest, .. } if at < *newest => return Err(Outcome::Late),
            Value::Gauge { value, at: newest } => (*value, *newest) = (finite(seen)?, at),
            Value::Histogram { counts, sum } => {
                *sum = finite(*sum + seen)?;
                if let Some(count) = counts.get_mut(buckets::of(bounds, seen)) {
                    *count += 1;
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// How many series are kept apart.
    pub(super) fn series(&self) -> usize {
        self.families.iter().map(|family| family.series.len()).sum()
    }

    /// Forgets levels that nobody has reported for so long before the newest record; whether there were any.
    pub(super) fn forget_levels(&mut self, older_than_us: i64) -> bool {
        let (oldest, before) = (self.newest.saturating_sub(older_than_us), self.series());
        for family in self.families.iter_mut().filter(|family| family.kind == Kind::Gauge) {
            let is_old = |one: &Series| matches!(one.value, Value::Gauge { at, .. } if at < oldest);
            family.series.retain(|one| !is_old(one));
        }
        self.series() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_the_latest_by_its_own_time() {
        let mut level = Value::new(Kind::Gauge, &[]);
        assert_eq!(level.add(1.0, 10, &[]), Ok(()));
        assert_eq!(level.add(2.0, 5, &[]), Err(Outcome::Late));
        assert_eq!(level, Value::Gauge { value: 1.0, at: 10 });
        assert_eq!(level.add(3.0, 10, &[]), Ok(()), "of two at one time the one later in the log");
        assert_eq!(level, Value::Gauge { value: 3.0, at: 10 });
    }

    #[test]
    fn a_counter_takes_late_events_and_never_falls() {
        let mut sum = Value::new(Kind::Counter, &[]);
        assert_eq!(sum.add(1.5, 10, &[]), Ok(()));
        assert_eq!(sum.add(2.0, -5, &[]), Ok(()));
        assert_eq!(sum.add(-1.0, 11, &[]), Err(Outcome::Negative));
        assert_eq!(sum.add(f64::MAX, 11, &[]), Ok(()));
        assert_eq!(sum.add(f64::MAX, 11, &[]), Err(Outcome::TooLarge));
        assert_eq!(sum, Value::Counter(f64::MAX));
    }

    #[test]
    fn an_observation_is_in_one_bucket_and_in_the_sum() {
        let mut seen = Value::new(Kind::Histogram, &[1.0, 2.0]);
        for value in [0.5, 1.5, 1.5, 9.0] {
            assert_eq!(seen.add(value, 0, &[1.0, 2.0]), Ok(()));
        }
        assert_eq!(seen, Value::Histogram { counts: [1, 2, 1].into(), sum: 12.5 });
    }
}
