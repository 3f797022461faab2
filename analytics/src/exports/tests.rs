//! Requests and their ids; rows and files are tested over a lake in `tests/sql`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use aion_schemas::catalog::Catalog;
use serde_json::{Value, json};
use uuid::Uuid;

use super::request::{Asked, Request, Split};

fn allowed() -> BTreeSet<String> {
    ["public", "internal"].map(str::to_owned).into()
}

fn check(body: Value) -> Result<Request, Vec<String>> {
    let asked: Asked = serde_json::from_value(body).map_err(|cause| vec![cause.to_string()])?;
    Request::check(&asked, &Catalog::builtin(), &allowed())
        .map_err(|wrong| wrong.iter().map(ToString::to_string).collect())
}

fn body(dataset: &str) -> Value {
    let interval = json!({ "start": "2026-11-23T05:00:00Z", "end": "2026-11-23T06:00:00Z" });
    json!({ "dataset": dataset, "interval": interval })
}

fn with(dataset: &str, name: &str, value: Value) -> Value {
    let mut body = body(dataset);
    body[name] = value;
    body
}

fn id(body: Value, topic: u128) -> String {
    check(body).unwrap().id(&BTreeSet::from([Uuid::from_u128(topic)]))
}

#[test]
fn an_id_is_the_same_for_the_same_request_however_it_is_written() {
    let first = id(body("decisions"), 7);
    // It must not change with the version, the machine or the order of keys: files are found by it.
    assert_eq!(first, "exp_49c02013d9e563bb7912");
    let mut other = body("decisions");
    other["interval"] =
        json!({ "start": "2026-11-23T06:00:00+01:00", "end": "2026-11-23 06:00:00.000Z" });
    other["lateness_s"] = json!(300);
    other["tiers"] = json!(["internal", "public"]);
    assert_eq!(id(other, 7), first);
}

#[test]
fn whatever_decides_what_comes_out_is_in_the_id() {
    let ids = [
        id(body("decisions"), 7),
        id(body("decisions"), 8),
        id(body("tasks"), 7),
        id(body("router_training"), 7),
        id(with("router_training", "horizon_s", json!(60)), 7),
        id(with("router_training", "split", json!({ "seed": 1 })), 7),
        id(with("decisions", "lateness_s", json!(60)), 7),
        id(with("decisions", "tiers", json!(["public"])), 7),
        id(with("decisions", "deduplicate", json!(true)), 7),
        id(with("decisions", "layout", json!({ "by_date": true })), 7),
        id(with("decisions", "layout", json!({ "rows_per_file": 100_000 })), 7),
    ];
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
}

#[test]
fn what_is_wrong_is_said_at_once() {
    let refused = |body: Value| check(body).unwrap_err().join("\n");
    assert!(refused(body("decision")).contains("did you mean \"decisions\""));
    assert!(refused(body("dead_letters")).contains("no dataset"), "internal topics stay in");
    let mut two = body("decisions");
    two["interval"] = json!({ "start": "now", "end": "2026-11-23T05:00:00" });
    let said = refused(two);
    assert!(said.contains("interval.start") && said.contains("interval.end: "), "{said}");
    let mut turned = body("decisions");
    turned["interval"] = json!({ "start": "2026-11-23T05:00:00Z", "end": "2026-11-23T05:00:00Z" });
    assert!(refused(turned).contains("after interval.start"));
    for (dataset, name, value, why) in [
        ("decisions", "tiers", json!(["restricted"]), "doesn't let restricted out"),
        ("tasks", "tiers", json!(["public"]), "have no tier"),
        ("decisions", "horizon_s", json!(5), "only router_training"),
        ("decisions", "split", json!({}), "only router_training"),
        ("router_training", "horizon_s", json!(0), "between a second"),
        ("router_training", "split", json!({ "train": 90, "validation": 20 }), "100 together"),
        ("decisions", "layout", json!({ "rows_per_group": 10 }), "rows_per_group"),
        ("decisions", "layout", json!({ "rows_per_file": 10 }), "rows_per_file"),
        ("decisions", "wher", json!("1=1"), "unknown field `wher`"),
    ] {
        let said = refused(with(dataset, name, value));
        assert!(said.contains(why), "{name}: {said}");
    }
}

#[test]
fn without_a_private_tier_allowed_none_is_in_effect() {
    assert_eq!(check(body("decisions")).unwrap().tiers, Some(allowed()));
    assert_eq!(check(body("metrics")).unwrap().tiers, None);
}

#[test]
fn a_split_divides_as_it_says_and_keeps_a_task_together() {
    let split = Split::default();
    let mut counts = std::collections::BTreeMap::new();
    for task in 0..10_000 {
        *counts.entry(split.side("acme", &format!("task-{task}"))).or_insert(0) += 1;
    }
    assert!((7_800..8_200).contains(&counts["train"]), "{counts:?}");
    assert!((850..1_150).contains(&counts["validation"]), "{counts:?}");
    assert!((850..1_150).contains(&counts["test"]), "{counts:?}");
    // What Python computes: int.from_bytes(sha256(b"0/acme/task-1").digest()[:8], "big") * 100 >> 64 = 88.
    assert_eq!(split.side("acme", "task-1"), "validation");
    let other = Split { seed: 1, ..Split::default() };
    assert!((0..100).any(|n| split.side("", &n.to_string()) != other.side("", &n.to_string())));
}
