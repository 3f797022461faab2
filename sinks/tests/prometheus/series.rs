//! What events add up to.

use std::collections::BTreeMap;

use aion_schemas::log::Stream;
use aion_sinks::{
    conformance::{settle, take},
    prometheus::{Kind, Preset, Settings, source::Source},
    sink::Sink,
};

use crate::shared::{EPOCH_S, Event, Page, Place, batch, partition, settings, topic};

/// The page of one process after these events, `after_s` seconds after the first was appended.
async fn page_of(settings: Settings, events: &[Event], after_s: i64) -> Page {
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let mut process = place.owner(&p0, settings.clone()).await;
    take(&mut process.sink, batch(&p0, 0, events)).await;
    settle(&mut process.sink).await;
    let page = process.page_at(EPOCH_S + after_s);
    drop(process);
    let again = place.owner(&p0, settings).await.page_at(EPOCH_S + after_s);
    assert_eq!(page.text, again.text, "after a restart");
    page
}

fn outcome(page: &Page, word: &str) -> Option<f64> {
    page.get(&format!(
        "aion_metrics_values_total{{outcome=\"{word}\",topic=\"aion.metrics.runtime\",partition=\"0\"}}"
    ))
}

#[tokio::test]
async fn the_three_kinds() {
    let mut seconds = Event::new("wait", "histogram", 0.3);
    seconds.unit = Some("seconds");
    let mut unknown = Event::new("queue_depth", "gauge", 4.0);
    unknown.kind = None;
    let events = [
        Event::new("requests", "counter", 2.0).labels(r#"{"code":200}"#),
        Event::new("requests", "counter", 0.5).labels(r#"{"code":200}"#),
        unknown,
        seconds.clone(),
        Event { value: 7.0, ..seconds },
    ];
    let page = page_of(settings(), &events, 10).await;
    let own = |name: &str| page.get(&format!("aion_runtime_{name}"));
    assert_eq!(own(r#"requests_total{code="200",component="gateway",partition="0"}"#), Some(2.5));
    assert_eq!(own(r#"queue_depth{component="gateway",partition="0"}"#), Some(4.0));
    let bucket =
        |le: &str| own(&format!(r#"wait_bucket{{component="gateway",partition="0",le="{le}"}}"#));
    assert_eq!(["0.25", "0.5", "5", "10", "+Inf"].map(bucket), [0.0, 1.0, 1.0, 2.0, 2.0].map(Some));
    assert_eq!(own(r#"wait_sum{component="gateway",partition="0"}"#), Some(7.3));
    assert_eq!(own(r#"wait_count{component="gateway",partition="0"}"#), Some(2.0));
    assert!(
        page.text
            .contains("# HELP aion_runtime_wait \"wait\" as components report it, in seconds.")
    );
    assert!(page.text.contains("# TYPE aion_runtime_requests_total counter"));
}

#[tokio::test]
async fn a_level_is_the_latest_by_event_time_and_goes_stale() {
    let level = |value, ahead_s| Event { ahead_s, ..Event::new("depth", "gauge", value) };
    let series = r#"aion_runtime_depth{component="gateway",partition="0"}"#;
    // The second arrives late; the third is from a clock an hour ahead, and the fourth comes after it.
    let events = [level(1.0, 0), level(2.0, -60), level(3.0, 3_600), level(4.0, 0)];
    let page = page_of(settings(), &events[..2], 10).await;
    assert_eq!((page.get(series), outcome(&page, "late")), (Some(1.0), Some(1.0)));
    let page = page_of(settings(), &events, 10).await;
    assert_eq!(page.get(series), Some(4.0), "a clock that is ahead hides nobody");
    let counted = Event::new("requests", "counter", 5.0);
    let page = page_of(settings(), &[level(1.0, 0), counted], 301).await;
    assert_eq!(page.get(series), None);
    assert!(!page.text.contains("aion_runtime_depth"), "no head without series");
    let total = r#"aion_runtime_requests_total{component="gateway",partition="0"}"#;
    assert_eq!(page.get(total), Some(5.0), "counters stay");
}

#[tokio::test]
async fn late_and_early_events_count() {
    let counted = |ahead_s| Event { ahead_s, ..Event::new("requests", "counter", 1.0) };
    let page = page_of(settings(), &[counted(0), counted(-86_000), counted(3_600)], 10).await;
    let total = r#"aion_runtime_requests_total{component="gateway",partition="0"}"#;
    assert_eq!(page.get(total), Some(3.0));
}

#[tokio::test]
async fn what_a_series_cannot_take_is_counted() {
    let events = [
        Event::new("requests", "counter", -1.0),
        Event::new("requests", "counter", f64::MAX),
        Event::new("requests", "counter", f64::MAX),
    ];
    let page = page_of(settings(), &events, 0).await;
    let words = ["counted", "negative", "too_large"];
    assert_eq!(words.map(|word| outcome(&page, word)), [Some(1.0); 3]);
}

/// Beyond the cap values are folded into one series: the sum of a metric stays what it is.
#[tokio::test]
async fn series_beyond_the_cap_are_folded_and_counted() {
    let settings = Settings { max_series_per_metric: 3, ..settings() };
    let of = |kind, n: i64| Event::new("seen", kind, 1.0).labels(&format!(r#"{{"user":{n}}}"#));
    let mut events: Vec<Event> = (0..10).map(|n| of("counter", n)).collect();
    events.extend((0..10).map(|n| of("counter", n)));
    events.extend((0..5).map(|n| of("histogram", n)));
    events.extend((0..5).map(|n| Event { metric: "level".into(), ..of("gauge", n) }));
    let page = page_of(settings, &events, 10).await;
    let counters: BTreeMap<&str, f64> = page.of("aion_runtime_seen_total").collect();
    assert_eq!(counters.len(), 4);
    let overflow = r#"aion_runtime_seen_total{overflow="true",partition="0"}"#;
    assert_eq!(counters.get(overflow), Some(&14.0));
    assert_eq!(Some(counters.values().sum::<f64>()), Some(20.0));
    let observed: f64 = page.of("aion_runtime_seen_count").map(|(_, value)| value).sum();
    assert_eq!(Some(observed), Some(5.0));
    assert_eq!(page.of("aion_runtime_level").count(), 3);
    let folded = r#"aion_metrics_folded_values_total{metric="aion_runtime_seen_total",topic="aion.metrics.runtime",partition="0"}"#;
    assert_eq!(page.get(folded), Some(14.0));
    let words = ["counted", "folded", "dropped"];
    assert_eq!(words.map(|word| outcome(&page, word)), [12.0, 16.0, 2.0].map(Some));
}

#[tokio::test]
async fn there_is_a_cap_on_all_series_and_one_on_metrics() {
    let settings = Settings { max_series: 4, max_metrics: 6, ..settings() };
    let events: Vec<Event> = (0..8).map(|n| Event::new(&format!("m{n}"), "counter", 1.0)).collect();
    let page = page_of(settings, &events, 10).await;
    let all: Vec<_> = page.of("aion_runtime_").collect();
    let kept = all.iter().filter(|(name, _)| name.contains("component")).count();
    assert_eq!((all.len(), kept), (6, 4), "{all:?}");
    assert_eq!(outcome(&page, "dropped"), Some(2.0));
}

#[tokio::test]
async fn names_that_become_one_are_told() {
    let events = ["gpu.use", "gpu_use", "gpu use"].map(|name| Event::new(name, "counter", 1.0));
    let page = page_of(settings(), &events, 10).await;
    let told = r#"aion_metrics_name_collisions{metric="aion_runtime_gpu_use_total",topic="aion.metrics.runtime",partition="0"}"#;
    assert_eq!(page.get(told), Some(2.0));
}

/// In one event their values are joined, in two they make one series of what were two: both are told.
#[tokio::test]
async fn labels_that_become_one_are_told() {
    let of = |labels: &str| Event::new("requests", "counter", 1.0).labels(labels);
    let told = |page: &Page| {
        page.get(
            r#"aion_metrics_name_collisions{metric="aion_runtime_requests_total",topic="aion.metrics.runtime",partition="0"}"#,
        )
    };
    let series = |page: &Page, a_b: &str| {
        let labels = format!(r#"a_b="{a_b}",component="gateway",partition="0""#);
        page.get(&format!("aion_runtime_requests_total{{{labels}}}"))
    };
    let page = page_of(settings(), &[of(r#"{"a.b":"1","a_b":"2"}"#)], 10).await;
    assert_eq!((series(&page, "1;2"), told(&page)), (Some(1.0), Some(1.0)));
    let page = page_of(settings(), &[of(r#"{"a_b":1}"#), of(r#"{"a.b":1}"#)], 10).await;
    assert_eq!((series(&page, "1"), told(&page)), (Some(2.0), Some(1.0)));
    let reserved = of(r#"{"le":1,"exported_le":2}"#);
    assert_eq!(told(&page_of(settings(), &[reserved], 10).await), Some(1.0));
    // One name with many values, and one that stands for nothing, collide with nobody.
    let events = [of(r#"{"a_b":1}"#), of(r#"{"a_b":2}"#), of(r#"{"a_b":3,"a.b":null}"#)];
    assert_eq!(told(&page_of(settings(), &events, 10).await), None);
}

/// A producer that leaves the kind out reports levels: they are no observations of a histogram of that name.
#[tokio::test]
async fn a_level_and_a_histogram_of_one_name_are_two_metrics() {
    let level = Event { kind: None, ..Event::new("wait", "gauge", 7.0) };
    let observed = Event::new("wait", "histogram", 0.3);
    let named = Event { metric: "wait_value".into(), ..Event::new("wait", "gauge", 9.0) };
    for events in [[level.clone(), observed.clone(), named.clone()], [observed, named, level]] {
        let page = page_of(settings(), &events, 10).await;
        let own = |name: &str| {
            page.get(&format!(r#"aion_runtime_{name}{{component="gateway",partition="0"}}"#))
        };
        assert_eq!((own("wait_count"), own("wait_sum")), (Some(1.0), Some(0.3)));
        assert_eq!((own("wait_value"), own("wait_value_value")), (Some(9.0), Some(7.0)));
    }
}

#[tokio::test]
async fn a_unit_with_other_buckets_is_told() {
    let observed = |unit| Event { unit, ..Event::new("wait", "histogram", 0.3) };
    let told = |page: &Page| {
        page.get(
            r#"aion_metrics_name_collisions{metric="aion_runtime_wait",topic="aion.metrics.runtime",partition="0"}"#,
        )
    };
    let page = page_of(settings(), &[observed(Some("seconds")), observed(Some("s"))], 10).await;
    assert_eq!(told(&page), None);
    let page = page_of(settings(), &[observed(Some("seconds")), observed(None)], 10).await;
    assert_eq!(told(&page), Some(1.0));
}

/// Two partitions of one board that met a metric with different configurations: each keeps its buckets, which no sum
/// over both can be made of, and the page says that they differ.
#[tokio::test]
async fn buckets_that_differ_among_partitions_are_told() {
    let with = |bounds: &[f64]| Settings {
        buckets: BTreeMap::from([("wait".to_owned(), bounds.to_vec())]),
        ..settings()
    };
    for (then, is_same) in [(&[1.0, 8.0][..], true), (&[2.0, 8.0][..], false)] {
        let (place, stream) = (Place::new(), topic());
        let (p0, p1) = (partition(&stream, 0), partition(&stream, 1));
        let mut before = place.owner(&p0, with(&[1.0, 8.0])).await;
        let events = [Event::new("wait", "histogram", 0.5)];
        take(&mut before.sink, batch(&p0, 0, &events)).await;
        settle(&mut before.sink).await;
        drop(before);
        // Whoever goes on has another configuration, and partition 1 is new.
        let mut process = place.owner(&p0, with(then)).await;
        process.sink.assign(std::slice::from_ref(&p1)).await.unwrap();
        take(&mut process.sink, batch(&p0, 1, &events)).await;
        take(&mut process.sink, batch(&p1, 0, &events)).await;
        settle(&mut process.sink).await;
        let page = process.page();
        let bounds = |partition| {
            let labels = format!(r#"topic="aion.metrics.runtime",partition="{partition}""#);
            page.get(&format!(
                r#"aion_metrics_bucket_bounds{{metric="aion_runtime_wait",{labels}}}"#
            ))
        };
        assert!(bounds(0).is_some() && bounds(1).is_some(), "{}", page.text);
        assert_eq!(bounds(0) == bounds(1), is_same);
        let bucket = |partition, le| {
            let labels = format!(r#"component="gateway",partition="{partition}",le="{le}""#);
            page.get(&format!("aion_runtime_wait_bucket{{{labels}}}"))
        };
        assert_eq!((bucket(0, 1), bucket(0, 2)), (Some(2.0), None), "the buckets stay");
        assert_eq!((bucket(1, 1).is_some(), bucket(1, 2).is_some()), (is_same, !is_same));
    }
}

#[tokio::test]
async fn what_is_known_beforehand_is_there_at_0() {
    let preset = Preset {
        component: "gateway".into(),
        metric: "requests".into(),
        kind: Kind::Counter,
        unit: None,
        labels: BTreeMap::from([("code".into(), "500".into())]),
    };
    let settings = Settings { preset: vec![preset], ..settings() };
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let mut process = place.owner(&p0, settings).await;
    let series = r#"aion_runtime_requests_total{code="500",component="gateway",partition="0"}"#;
    assert_eq!(process.page().get(series), Some(0.0));
    let event = Event::new("requests", "counter", 1.0).labels(r#"{"code":500}"#);
    take(&mut process.sink, batch(&p0, 0, &[event])).await;
    settle(&mut process.sink).await;
    assert_eq!(process.page().get(series), Some(1.0), "the number 500 and the text are one label");
}

/// Retries make the series of the topic that they are of: on one page each series is there once.
#[tokio::test]
async fn retries_are_told_apart_from_their_topic() {
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let retries = partition(&Stream { topic: "aion.retries.metrics".into(), ..topic() }, 0);
    let mut process = place.owner(&p0, settings()).await;
    let (source, board) = (Source::Runtime, &process.board);
    let mut beside = place.open(&retries.stream.topic, source, settings(), board).await;
    beside.assign(std::slice::from_ref(&retries)).await.unwrap();
    let events = [Event::new("requests", "counter", 1.0)];
    take(&mut process.sink, batch(&p0, 0, &events)).await;
    settle(&mut process.sink).await;
    assert_eq!(process.page().of("aion_runtime_requests_total").count(), 1);
    let events = [Event { origin: Some("a/0/1"), ..events[0].clone() }];
    take(&mut beside, batch(&retries, 0, &events)).await;
    settle(&mut beside).await;
    let page = process.page();
    let series = |partition| {
        let labels = format!("component=\"gateway\",partition=\"{partition}\"");
        page.get(&format!("aion_runtime_requests_total{{{labels}}}"))
    };
    assert_eq!(["0", "retries-0"].map(series), [Some(1.0); 2]);
}

/// The buckets changed since the topic was read, and retries there are none: of what is shown no buckets differ.
#[tokio::test]
async fn buckets_of_retries_are_told_when_there_are_some() {
    let with = |bounds: &[f64]| Settings {
        buckets: BTreeMap::from([("wait".to_owned(), bounds.to_vec())]),
        preset: vec![Preset {
            component: "gateway".into(),
            metric: "wait".into(),
            kind: Kind::Histogram,
            unit: None,
            labels: BTreeMap::new(),
        }],
        ..settings()
    };
    let (place, stream) = (Place::new(), topic());
    let p0 = partition(&stream, 0);
    let retries = partition(&Stream { topic: "aion.retries.metrics".into(), ..topic() }, 0);
    let events = [Event::new("wait", "histogram", 0.5)];
    let mut before = place.owner(&p0, with(&[1.0])).await;
    take(&mut before.sink, batch(&p0, 0, &events)).await;
    settle(&mut before.sink).await;
    drop(before);
    let process = place.owner(&p0, with(&[2.0])).await;
    let (source, board) = (Source::Runtime, &process.board);
    let mut beside = place.open(&retries.stream.topic, source, with(&[2.0]), board).await;
    beside.assign(std::slice::from_ref(&retries)).await.unwrap();
    let told = |page: &Page| {
        let all = page.of("aion_metrics_bucket_bounds").map(|(_, sum)| sum.to_bits());
        all.collect::<Vec<_>>()
    };
    assert_eq!(told(&process.page()).len(), 1);
    let events = [Event { origin: Some("a/0/1"), ..events[0].clone() }];
    take(&mut beside, batch(&retries, 0, &events)).await;
    settle(&mut beside).await;
    let [one, other] = told(&process.page())[..] else { panic!("{}", process.page().text) };
    assert_ne!(one, other);
}

#[tokio::test]
async fn a_record_that_is_retried_again_counts_once() {
    let retry = |origin| Event { origin: Some(origin), ..Event::new("requests", "counter", 1.0) };
    let events = [retry("a/0/1"), retry("a/0/1"), retry("a/0/2")];
    let page = page_of(settings(), &events, 10).await;
    let total = r#"aion_runtime_requests_total{component="gateway",partition="0"}"#;
    assert_eq!((page.get(total), outcome(&page, "repeated")), (Some(2.0), Some(1.0)));
}
