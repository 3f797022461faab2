//! The webhooks' part of `/metrics`.

use prometheus::{
    Gauge, GaugeVec, IntCounterVec, Opts,
    core::Collector,
    proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use super::status::{EndpointStatus, LATENCY_BUCKETS, State, Status};

/// A gauge of an endpoint: name, help, value.
type OfEndpoint = (&'static str, &'static str, fn(&EndpointStatus) -> f64);

const GAUGES: [OfEndpoint; 4] = [
    ("aion_webhook_lag_events", "Events that the endpoint hasn't got yet.", |one| one.lag as f64),
    ("aion_webhook_failing_events", "Events that were tried in vain and wait.", |one| {
        one.holes as f64
    }),
    (
        "aion_webhook_oldest_failing_seconds",
        "Seconds since the oldest of them was first tried, 0 when there are none.",
        |one| one.oldest.map_or(0.0, |at| (super::engine::now() - at).max(0) as f64 / 1e3),
    ),
    ("aion_webhook_in_flight", "Deliveries under way.", |one| one.in_flight as f64),
];

type Value = fn(&EndpointStatus) -> u64;

/// Counters of attempts: the value of the label `outcome`, value.
const ATTEMPTS: [(&str, Value); 2] =
    [("delivered", |one| one.counters.delivered), ("failed", |one| one.counters.failed)];

/// A counter of an endpoint: name, help, value.
type Counter = (&'static str, &'static str, Value);

const COUNTERS: [Counter; 2] = [
    ("aion_webhook_dead_letters_total", "Events that were given up.", |one| one.counters.buried),
    ("aion_webhook_lost_total", "Events that the log lost before they were delivered.", |one| {
        one.counters.lost
    }),
];

/// The families of all endpoints.
pub(crate) fn families(status: &Status) -> prometheus::Result<Vec<MetricFamily>> {
    let mut all = Vec::new();
    for (name, help, value) in GAUGES {
        let family = GaugeVec::new(Opts::new(name, help), &["endpoint"])?;
        for one in &status.endpoints {
            family.with_label_values(&[&*one.id]).set(value(one));
        }
        all.extend(family.collect());
    }
    for (name, help, value) in COUNTERS {
        let family = IntCounterVec::new(Opts::new(name, help), &["endpoint"])?;
        for one in &status.endpoints {
            family.with_label_values(&[&*one.id]).inc_by(value(one));
        }
        all.extend(family.collect());
    }
    let opts = Opts::new("aion_webhook_attempts_total", "Attempts by how they ended.");
    let attempts = IntCounterVec::new(opts, &["endpoint", "outcome"])?;
    let opts = Opts::new(
        "aion_webhook_state",
        "1 for the state that the endpoint is in, 0 for the others.",
    );
    let by_state = GaugeVec::new(opts, &["endpoint", "state"])?;
    for one in &status.endpoints {
        for (outcome, value) in ATTEMPTS {
            attempts.with_label_values(&[&*one.id, outcome]).inc_by(value(one));
        }
        for state in State::ALL {
            let is_it = f64::from(u8::from(one.state == state));
            by_state.with_label_values(&[&*one.id, state.word()]).set(is_it);
        }
    }
    let loaded = Gauge::new(
        "aion_webhook_policy_loaded",
        "1 while the policy is followed as its file stands, 0 while that is refused and the one before holds.",
    )?;
    loaded.set(f64::from(u8::from(status.policy_error.is_none())));
    all.extend([attempts.collect(), by_state.collect(), loaded.collect()].concat());
    if !status.endpoints.is_empty() {
        all.push(latencies(&status.endpoints));
    }
    Ok(all)
}

/// A histogram is counted by the engine; here it is only shown.
fn latencies(endpoints: &[EndpointStatus]) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name("aion_webhook_attempt_duration_seconds".to_owned());
    family.set_help("How long attempts took, to the end of the answer.".to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    for one in endpoints {
        let mut histogram = Histogram::default();
        let (mut count, mut buckets) = (0, Vec::with_capacity(LATENCY_BUCKETS.len()));
        for (bound, here) in LATENCY_BUCKETS.iter().zip(one.counters.latency) {
            count += here;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        histogram.set_bucket(buckets);
        histogram.set_sample_count(one.counters.latency.iter().sum());
        histogram.set_sample_sum(one.counters.latency_sum);
        let mut label = LabelPair::default();
        label.set_name("endpoint".to_owned());
        label.set_value(one.id.to_string());
        let mut metric = Metric::from_label(vec![label]);
        metric.set_histogram(histogram);
        family.mut_metric().push(metric);
    }
    family
}
