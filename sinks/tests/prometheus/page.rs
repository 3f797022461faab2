//! The page against crate `prometheus`, which many read.

use aion_sinks::conformance::{settle, take};
use prometheus::{
    Encoder, TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::shared::{EPOCH_S, Event, Place, batch, partition, settings, topic};

fn metric(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[tokio::test]
async fn the_page_is_what_the_crate_writes() {
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let mut process = place.owner(&p0, settings()).await;
    let odd = "a\"b\\c\nd";
    let events = [
        Event::new("depth", "gauge", -0.25).labels(&serde_json::json!({ "path": odd }).to_string()),
        Event::new("requests", "counter", 1e15),
        Event::new("sizes", "histogram", 2.0),
        Event::new("sizes", "histogram", 5e6),
    ];
    take(&mut process.sink, batch(&p0, 0, &events)).await;
    settle(&mut process.sink).await;

    let mut depth = metric(&[("component", "gateway"), ("path", odd), ("partition", "0")]);
    let mut level = Gauge::default();
    level.set_value(-0.25);
    depth.set_gauge(level);
    let mut requests = metric(&[("component", "gateway"), ("partition", "0")]);
    let mut sum = Counter::default();
    sum.set_value(1e15);
    requests.set_counter(sum);
    let mut sizes = metric(&[("component", "gateway"), ("partition", "0")]);
    let bounds = [
        0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4,
        1e5, 3e5, 1e6,
    ];
    let bucket = |bound: f64| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(u64::from(bound >= 2.0));
        bucket
    };
    let mut seen = Histogram::default();
    seen.set_bucket(bounds.map(bucket).to_vec());
    seen.set_sample_count(2);
    seen.set_sample_sum(5_000_002.0);
    sizes.set_histogram(seen);
    let families = [
        family(
            "aion_runtime_depth",
            "\"depth\" as components report it.",
            MetricType::GAUGE,
            vec![depth],
        ),
        family(
            "aion_runtime_requests_total",
            "\"requests\" as components report it.",
            MetricType::COUNTER,
            vec![requests],
        ),
        family(
            "aion_runtime_sizes",
            "\"sizes\" as components report it.",
            MetricType::HISTOGRAM,
            vec![sizes],
        ),
    ];
    let mut wanted = Vec::new();
    TextEncoder::new().encode(&families, &mut wanted).unwrap();
    let page = process.page_at(EPOCH_S);
    let (shown, own) = page.text.split_once("# HELP aion_metrics_").unwrap();
    assert_eq!(shown, String::from_utf8(wanted).unwrap());
    assert!(
        own.contains("aion_metrics_next_offset{topic=\"aion.metrics.runtime\",partition=\"0\"} 4")
    );
}
