//! The buckets of histograms: by the metric's name where the configuration has it, else by its unit.

use std::{collections::BTreeMap, sync::Arc};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_whose_bound_it_does_not_pass() {
        let bounds = [1.0, 2.0];
        assert_eq!([0.5, 1.0, 1.5, 2.0, 2.5].map(|value| of(&bounds, value)), [0, 0, 1, 1, 2]);
        assert_eq!(of(&bounds, -3.0), 0);
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
