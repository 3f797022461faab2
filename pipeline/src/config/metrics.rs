//! `[metrics]`: the platform's series, and when they are checkpointed.

use std::{collections::BTreeMap, time::Duration};

use aion_sinks::prometheus::{Kind, Preset};
use serde::Deserialize;

/// The platform's series.
#[derive(Clone, Debug)]
pub struct MetricsConfig {
    /// Events are in the series that are shown after this time at the latest.
    pub flush_age: Duration,
    /// A level that nobody has reported for so long isn't shown.
    pub stale_after: Duration,
    /// Series of one metric that a partition keeps apart.
    pub max_series_per_metric: usize,
    /// Series of all metrics that a partition keeps apart.
    pub max_series: usize,
    /// Upper bounds of histograms' buckets, by the metric's name.
    pub buckets: BTreeMap<String, Vec<f64>>,
    /// Series that are there from the start, at 0.
    pub preset: Vec<Preset>,
}

impl Default for MetricsConfig {
    fn default() -> MetricsConfig {
        let file = MetricsFile::default();
        MetricsConfig {
            flush_age: Duration::from_secs(file.flush_age_s),
            stale_after: Duration::from_secs(file.stale_s),
            max_series_per_metric: file.max_series_per_metric,
            max_series: file.max_series,
            buckets: file.buckets,
            preset: file.preset,
        }
    }
}

/// `[metrics]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MetricsFile {
    flush_age_s: u64,
    stale_s: u64,
    max_series_per_metric: usize,
    max_series: usize,
    buckets: BTreeMap<String, Vec<f64>>,
    preset: Vec<Preset>,
}

impl Default for MetricsFile {
    fn default() -> MetricsFile {
        MetricsFile {
            flush_age_s: 5,
            stale_s: 300,
            max_series_per_metric: 2_000,
            max_series: 20_000,
            buckets: BTreeMap::new(),
            preset: Vec::new(),
        }
    }
}

pub(super) fn check(file: MetricsFile) -> Result<MetricsConfig, String> {
    for (metric, bounds) in &file.buckets {
        let rises = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        let is_finite = bounds.iter().all(|bound| bound.is_finite());
        if bounds.is_empty() || bounds.len() > 100 || !rises || !is_finite {
            return Err(format!("metrics.buckets.{metric}: 1 to 100 rising numbers are wanted"));
        }
    }
    if file.stale_s == 0 || file.max_series_per_metric == 0 || file.max_series == 0 {
        return Err("metrics: stale_s and the caps are whole numbers above 0".to_owned());
    }
    if let Some(one) = file.preset.iter().find(|one| one.kind == Kind::Gauge) {
        return Err(format!(
            "metrics.preset {}: a gauge has no value before its event",
            one.metric
        ));
    }
    Ok(MetricsConfig {
        flush_age: Duration::from_secs(file.flush_age_s),
        stale_after: Duration::from_secs(file.stale_s),
        max_series_per_metric: file.max_series_per_metric,
        max_series: file.max_series,
        buckets: file.buckets,
        preset: file.preset,
    })
}
