#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{HashMap, HashSet};

use super::*;
use crate::commands::generate::{
    Fields, Value,
    json::{push_bare, push_event},
};

/// 2026-03-01T00:00:00Z.
const START: Timestamp = Timestamp(1_772_323_200_000_000);

fn life(seed: u64, topics: &[Topic]) -> Life {
    Life::new(seed, START, topics, 200.0)
}

fn lines(events: impl Iterator<Item = Event>) -> Vec<u8> {
    let mut out = Vec::new();
    for event in events {
        push_event(&mut out, &event);
        out.push(b'\n');
    }
    out
}

fn text(event: &Event, field: &str) -> String {
    let mut out = Vec::new();
    event.get(field).inspect(|value| push_bare(&mut out, value));
    String::from_utf8(out).unwrap()
}

/// FNV-1a: a fixed hash that needs no crate.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Recorded output: a change here makes every recorded seed another life, which users see.
#[test]
fn the_bytes_of_a_seed_never_change() {
    let golden = [
        (Topic::Decisions, 0x489f_fe38_ddf4_e217),
        (Topic::Tasks, 0x4e2e_33e1_4206_f611),
        (Topic::Metrics, 0x4e98_1666_0de6_bc2c),
        (Topic::Audit, 0xac5b_7877_8253_6c7e),
    ];
    let made = golden.map(|(topic, _)| (topic, digest(&lines(life(7, &[topic]).take(500)))));
    assert_eq!(made, golden, "{made:#x?}");
}

#[test]
fn a_life_repeats_and_others_differ() {
    let of = |seed, start| lines(Life::new(seed, start, &Topic::ALL, 200.0).take(2_000));
    assert_eq!(of(1, START), of(1, START));
    assert_ne!(of(1, START), of(2, START));
    let ids = |start| -> HashSet<String> {
        Life::new(1, start, &Topic::ALL, 200.0)
            .take(20_000)
            .map(|event| text(&event, "event_id"))
            .collect()
    };
    let (first, later) = (ids(START), ids(Timestamp(START.0 + 1)));
    assert_eq!(first.len(), 20_000);
    assert!(first.is_disjoint(&later), "another start must not repeat ids");
}

#[test]
fn events_come_in_order_at_the_asked_rate_in_the_stated_shares() {
    for topics in [&Topic::ALL[..], &[Topic::Tasks], &[Topic::Decisions, Topic::Audit]] {
        let events: Vec<Event> = Life::new(5, START, topics, 100.0).take(400_000).collect();
        assert!(events.is_sorted_by_key(|event| event.time));
        assert!(events.iter().all(|event| topics.contains(&event.topic)));
        assert!(
            events.iter().all(|event| event.get("timestamp") == Some(&Value::Time(event.time)))
        );
        let seconds = (events.last().unwrap().time.0 - START.0) as f64 / 1e6;
        let rate = events.len() as f64 / seconds;
        assert!((85.0..115.0).contains(&rate), "{rate} for {topics:?}");
    }
    let mut counts = [0_u32; 4];
    life(5, &Topic::ALL).take(400_000).for_each(|event| counts[event.topic.index()] += 1);
    for (count, per_mille) in counts.iter().zip(PER_MILLE) {
        let share = f64::from(*count) / 400.0 / per_mille;
        assert!((0.85..1.15).contains(&share), "{counts:?}");
    }
}

#[test]
fn keys_are_the_text_of_the_key_field() {
    for event in life(3, &Topic::ALL).take(5_000) {
        let mut key = Vec::new();
        event.write_key(&mut key);
        assert!(!key.is_empty());
        assert_eq!(String::from_utf8(key).unwrap(), text(&event, event.topic.key_field()));
    }
}

#[test]
fn objects_have_sorted_names_and_scalar_values() {
    let sorted = |fields: &Fields| fields.is_sorted_by_key(|(name, _)| *name);
    for event in life(3, &Topic::ALL).take(50_000) {
        for (_, value) in &event.fields {
            if let Value::Object(fields) = value {
                assert!(sorted(fields), "{fields:?}");
                assert!(fields.iter().all(|(_, value)| !matches!(value, Value::Object(_))));
            }
        }
    }
}

#[derive(Default)]
struct Story {
    decided: Option<Timestamp>,
    last: String,
    last_time: Timestamp,
    retries: i64,
    error: String,
    events: u32,
}

fn follow(stories: &mut HashMap<String, Story>, event: &Event) {
    let story = stories.entry(text(event, "task_id")).or_default();
    if event.topic == Topic::Decisions {
        assert!(story.decided.replace(event.time).is_none(), "decided twice");
        return;
    }
    let status = text(event, "status");
    let legal = match story.last.as_str() {
        "" => ["queued", "", "", ""],
        "queued" => ["running", "cancelled", "", ""],
        "running" => ["succeeded", "failed", "cancelled", "queued"],
        ended => panic!("{status} after {ended}"),
    };
    assert!(legal.contains(&status.as_str()), "{status} after {:?}", story.last);
    let decided = story.decided.expect("a decision comes first");
    assert!(event.time > decided && event.time > story.last_time);
    let latency_ms = (event.time.0 - decided.0) / 1000;
    assert_eq!(event.get("latency_ms"), Some(&Value::Integer(latency_ms)));
    story.retries += i64::from(story.last == "running" && status == "queued");
    assert_eq!(event.get("retries"), Some(&Value::Integer(story.retries)));
    story.error = text(event, "error_code");
    assert_eq!(status == "failed", !story.error.is_empty());
    (story.last, story.last_time, story.events) = (status, event.time, story.events + 1);
}

#[test]
fn every_task_has_one_decision_and_one_legal_course() {
    let mut stories = HashMap::new();
    for event in life(11, &[Topic::Decisions, Topic::Tasks]).take(300_000) {
        follow(&mut stories, &event);
    }
    assert!(stories.values().all(|story| story.decided.is_some() && story.retries <= 2));
    let ended = |status: &str| stories.values().filter(|story| story.last == status).count() as f64;
    let all = ended("succeeded") + ended("failed") + ended("cancelled");
    let under_way = stories.len() as f64 - all;
    assert!(under_way / all < 0.02, "{under_way} of {} tasks have not ended", stories.len());
    let (failed, cancelled) = (ended("failed") / all, ended("cancelled") / all);
    assert!((0.03..0.30).contains(&failed), "failed {failed}");
    assert!((0.005..0.10).contains(&cancelled), "cancelled {cancelled}");
    let retried = stories.values().filter(|story| story.retries > 0).count() as f64 / all;
    assert!((0.01..0.20).contains(&retried), "retried {retried}");
    let errors: HashSet<&str> = stories.values().map(|story| story.error.as_str()).collect();
    assert!(errors.len() >= 6, "{errors:?}");
    let per_task =
        stories.values().map(|story| f64::from(story.events)).sum::<f64>() / stories.len() as f64;
    assert!((2.9..3.3).contains(&per_task), "{per_task} lifecycle events a task");
}

/// What a model trained on decisions would look for: outcomes that follow from features.
#[test]
fn the_outcome_can_be_learned_from_the_features() {
    let mut slack: HashMap<String, (String, f64)> = HashMap::new();
    let mut cells: HashMap<(String, bool), [f64; 2]> = HashMap::new();
    for event in life(13, &[Topic::Decisions, Topic::Tasks]).take(400_000) {
        let task = text(&event, "task_id");
        let number = |field| text(&event, field).parse::<f64>().unwrap();
        if event.topic == Topic::Decisions {
            slack.insert(
                task,
                (text(&event, "route"), number("latency_budget_ms") / (number("size") + 1.0)),
            );
            continue;
        }
        let failed = match text(&event, "status").as_str() {
            "failed" => 1.0,
            "succeeded" => 0.0,
            _ => continue,
        };
        let (route, ms_per_token) = slack.remove(&task).unwrap();
        let cell = cells.entry((route, ms_per_token < 1.0)).or_default();
        *cell = [cell[0] + failed, cell[1] + 1.0];
    }
    let share = |route: &str, tight| {
        let [failed, all] = cells[&(route.to_owned(), tight)];
        assert!(all > 200.0, "{route} {tight}: {all}");
        failed / all
    };
    for route in ["local", "local-large", "cloud"] {
        let (tight, loose) = (share(route, true), share(route, false));
        assert!(
            tight > 1.5 * loose,
            "{route}: {tight} with a tight budget, {loose} with a loose one"
        );
    }
}

#[test]
fn tenants_are_few_large_and_many_small() {
    let mut counts: HashMap<String, u32> = HashMap::new();
    life(17, &[Topic::Decisions])
        .take(50_000)
        .for_each(|event| *counts.entry(text(&event, "tenant_id")).or_default() += 1);
    let none = counts.remove("").unwrap();
    assert!((1_000..2_000).contains(&none), "{none} without tenant");
    let mut counts: Vec<u32> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    assert!(counts.len() > 200);
    assert!(counts[0] > 6_000 && counts[100] < 200, "{} {}", counts[0], counts[100]);
}
