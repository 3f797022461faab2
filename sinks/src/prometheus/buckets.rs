//! The buckets of histograms: by the metric's name where the configuration has it, else by its unit.
//!
//! A partition keeps the bounds with which it first met a metric, so partitions that met it before and after the
//! configuration changed, or with another unit first, have different ones. What was counted can't be spread anew, and
//! sums over buckets that not all have are wrong: that is told, by the log and by a number that can be compared
//! between processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flate2::Crc;

use super::{Kind, state::State};

/// A millisecond to five minutes.
const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// 64 B to 16 GiB, by four.
const BYTES: [f64; 15] = [
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
    17_179_869_184.0,
];
/// What has no unit that is known: a thousandth to a million, by about three.
const OTHERS: [f64; 19] = [
    0.001,
    0.003,
    0.01,
    0.03,
    0.1,
    0.3,
    1.0,
    3.0,
    10.0,
    30.0,
    100.0,
    300.0,
    1_000.0,
    3_000.0,
    10_000.0,
    30_000.0,
    100_000.0,
    300_000.0,
    1_000_000.0,
];

/// The upper bounds of a metric's buckets, the last one, infinity, left out.
pub(super) fn bounds(
    metric: &str,
    unit: Option<&str>,
    configured: &BTreeMap<String, Vec<f64>>,
) -> Arc<[f64]> {
    if let Some(bounds) = configured.get(metric) {
        return bounds.as_slice().into();
    }
    let is = |word: &str| unit == Some(word) || metric.ends_with(&format!("_{word}"));
    if is("seconds") || unit == Some("s") {
        SECONDS.into()
    } else if is("bytes") {
        BYTES.into()
    } else {
        OTHERS.into()
    }
}

/// Which bucket a value is in; the one after the last bound is for what is above all.
pub(super) fn of(bounds: &[f64], value: f64) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

/// A number that stands for these bounds: the same in every process and release.
pub(super) fn checksum(bounds: &[f64]) -> u32 {
    let mut sum = Crc::new();
    // The last one goes without saying elsewhere; here it keeps none of them from being 0.
    for bound in bounds.iter().chain([&f64::INFINITY]) {
        sum.update(&bound.to_le_bytes());
    }
    sum.sum()
}

/// The bounds that histograms were first shown with.
#[derive(Debug, Default)]
pub(super) struct Compared {
    first: BTreeMap<Arc<str>, Arc<[f64]>>,
    told: BTreeSet<Arc<str>>,
}

impl Compared {
    /// The histograms of which a partition's bounds aren't those of a partition before, each once.
    pub(super) fn differing(&mut self, state: &State) -> Vec<Arc<str>> {
        let mut differing = Vec::new();
        for family in state.families.iter().filter(|family| family.kind == Kind::Histogram) {
            let first = self.first.entry(Arc::clone(&family.name));
            let first = first.or_insert_with(|| Arc::clone(&family.bounds));
            if *first != family.bounds && self.told.insert(Arc::clone(&family.name)) {
                differing.push(Arc::clone(&family.name));
            }
        }
        differing
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::prometheus::state::Family;

    /// A state of one metric without series.
    pub(crate) fn state(name: &str, kind: Kind, bounds: &[f64]) -> State {
        let family = Family {
            name: name.into(),
            kind,
            help: Arc::default(),
            bounds: bounds.into(),
            written: Vec::new(),
            labels: BTreeMap::new(),
            series: Vec::new(),
            overflow: None,
            folded: 0,
        };
        State { families: vec![family], ..State::default() }
    }

    #[test]
    fn a_value_is_in_the_bucket_whose_bound_it_does_not_pass() {
        let bounds = [1.0, 2.0];
        assert_eq!([0.5, 1.0, 1.5, 2.0, 2.5].map(|value| of(&bounds, value)), [0, 0, 1, 1, 2]);
        assert_eq!(of(&bounds, -3.0), 0);
    }

    #[test]
    fn other_bounds_have_another_checksum() {
        // As other processes have it: the number is not to change.
        assert_eq!(checksum(&[]), 2_971_947_641);
        assert_eq!(checksum(&[1.0, 2.0]), 824_618_668);
    }

    #[test]
    fn a_histogram_whose_bounds_differ_among_partitions_is_told_once() {
        let mut compared = Compared::default();
        let mut told = |name, kind, bounds: &[f64]| -> Vec<String> {
            let differing = compared.differing(&state(name, kind, bounds));
            differing.iter().map(ToString::to_string).collect()
        };
        assert!(told("wait", Kind::Histogram, &[1.0]).is_empty());
        assert!(told("wait", Kind::Histogram, &[1.0]).is_empty());
        assert!(told("wait", Kind::Gauge, &[]).is_empty(), "a level of that name has no buckets");
        assert!(told("size", Kind::Histogram, &[2.0]).is_empty());
        assert_eq!(told("wait", Kind::Histogram, &[2.0]), ["wait"]);
        assert!(told("wait", Kind::Histogram, &[2.0]).is_empty());
        assert!(told("wait", Kind::Histogram, &[1.0]).is_empty());
    }

    #[test]
    fn bounds_are_by_name_then_by_unit() {
        let configured = BTreeMap::from([("wait_seconds".to_owned(), vec![1.0])]);
        let of = |metric, unit| bounds(metric, unit, &configured).to_vec();
        assert_eq!(of("wait_seconds", Some("seconds")), [1.0]);
        assert_eq!(of("gc", Some("seconds")), SECONDS);
        assert_eq!(of("gc_seconds", None), SECONDS);
        assert_eq!(of("size", Some("bytes")), BYTES);
        assert_eq!(of("size", None), OTHERS);
        for all in [&SECONDS[..], &BYTES, &OTHERS] {
            assert!(all.is_sorted());
        }
    }
}
