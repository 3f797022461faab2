//! Framed payloads, and a registry that says what the test says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aion::job::{
    schemas::{Found, Registry, WriterSchemas},
    status::{JobStatus, PartitionState},
};
use aion_schemas::{
    catalog::{Catalog, DEAD_LETTERS},
    decode::SchemaId,
};
use aion_sinks::memory::{Settings, Store};
use arrow::array::AsArray;
use async_trait::async_trait;

use crate::{Cluster, EVENTS, Running, event, stored_up_to, until};

/// A registry by script; an id that isn't in it has no answer.
#[derive(Debug, Default)]
struct Scripted {
    answers: Mutex<BTreeMap<u32, Found>>,
    asked: Mutex<Vec<u32>>,
}

impl Scripted {
    fn answer(&self, id: u32, found: Found) {
        self.answers.lock().unwrap().insert(id, found);
    }

    fn asked(&self, id: u32) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| **asked == id).count()
    }
}

#[async_trait]
impl WriterSchemas for Scripted {
    async fn look_up(&self, id: SchemaId) -> Found {
        self.asked.lock().unwrap().push(id.0);
        let found = self.answers.lock().unwrap().get(&id.0).cloned();
        found.unwrap_or_else(|| Found::Unknown("connection refused".to_owned()))
    }
}

fn start(cluster: &Cluster, store: &Store, script: &Arc<Scripted>, grace: Duration) -> Running {
    let schemas: Arc<dyn WriterSchemas> = Arc::<Scripted>::clone(script);
    let registry = Registry { schemas, grace };
    cluster.job_with("tasks", EVENTS, (store, Settings::default()), Some(registry))
}

fn found(text: &str) -> Found {
    Found::Schema { text: text.to_owned(), references: Vec::new() }
}

/// The contract's own schema.
fn contract() -> Found {
    found(&Catalog::builtin().topic(EVENTS).unwrap().schema.avro_text("aion.events"))
}

/// An older one: three fields, in another order.
fn older() -> Found {
    found(
        r#"{"type": "record", "name": "old", "fields": [
            {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "status", "type": "bytes"},
            {"name": "task_id", "type": "string"}]}"#,
    )
}

/// A newer one, with a field that the contract doesn't have.
fn newer() -> Found {
    found(
        r#"{"type": "record", "name": "new", "fields": [
            {"name": "task_id", "type": "string"},
            {"name": "status", "type": {"type": "enum", "name": "s", "symbols": ["queued", "done"]}},
            {"name": "added", "type": {"type": "array", "items": "long"}},
            {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#,
    )
}

fn long(value: i64) -> Vec<u8> {
    let mut zigzag = (value << 1 ^ value >> 63) as u64;
    let mut bytes = Vec::new();
    while zigzag >= 0x80 {
        bytes.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [long(text.len() as i64), text.as_bytes().to_vec()].concat()
}

/// The seconds since 1970 that [`event`] names.
fn seconds() -> i64 {
    let event: serde_json::Value = serde_json::from_str(&event()).unwrap();
    let year: i64 = event["timestamp"].as_str().unwrap()[..4].parse().unwrap();
    let leap_days = (1970..year).filter(|y| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0)).count();
    ((year - 1970) * 365 + leap_days as i64) * 86_400
}

fn frame(id: u32, body: &[Vec<u8>]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), &body.concat()].concat()
}

/// The event of [`event`], by [`older`].
fn by_older(id: u32) -> Vec<u8> {
    frame(id, &[long(seconds() * 1000), text("queued"), text("task-1")])
}

/// The same by [`newer`].
fn by_newer(id: u32) -> Vec<u8> {
    let added = [long(2), long(7), long(8), long(0)].concat();
    frame(id, &[text("task-1"), long(0), added, long(seconds() * 1_000_000)])
}

fn waits_for(id: u32) -> impl FnMut(&JobStatus) -> bool {
    move |status| {
        let waits =
            |one: &aion::job::status::PartitionStatus| one.wanted_schema == Some(SchemaId(id));
        status.partitions.iter().any(waits)
    }
}

/// Why each letter of the dead-letter topic was rejected, by offset.
async fn reasons(cluster: &Cluster, count: usize) -> Vec<(i64, String, String)> {
    let letters = Store::new();
    let mut reader = cluster.job("letters", DEAD_LETTERS, &letters);
    reader.until("the letters stored", |status| status.rows_stored >= count as u64).await;
    reader.stop().await;
    let mut reasons = Vec::new();
    for batch in letters.rows() {
        let text = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        let offsets = batch.column_by_name("offset").unwrap();
        let offsets = offsets.as_primitive::<arrow::datatypes::Int64Type>();
        for row in 0..batch.num_rows() {
            let (reason, detail) =
                (text("reason").value(row).to_owned(), text("detail").value(row).to_owned());
            reasons.push((offsets.value(row), reason, detail));
        }
    }
    reasons.sort();
    reasons
}

const LONG: Duration = Duration::from_hours(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_waits_for_a_schema_and_no_other_does() {
    let cluster = Cluster::start(2).await;
    let (script, rows) = (Arc::new(Scripted::default()), Store::new());
    let json = event();
    let framed = by_older(7);
    let json = json.as_bytes();
    cluster.send_bytes(0, &[Some(json), Some(&framed), Some(json), Some(&framed)]);
    cluster.send_bytes(1, &[Some(json), Some(json)]);
    let mut job = start(&cluster, &rows, &script, LONG);
    let status = job.until("partition 0 waits", waits_for(7)).await;
    let waiting = &status.partitions[0];
    assert!(matches!(waiting.state, PartitionState::Paused(why) if why.contains("schema")));
    job.until("partition 1 is stored", |status| {
        status.partitions.iter().any(|one| {
            one.partition == 1 && one.marks.iter().all(|(_, at)| at.is_some_and(|at| at.get() == 2))
        })
    })
    .await;
    let status = job.until("people are told", |status| status.trouble.is_some()).await;
    let told = status.trouble.clone().unwrap();
    assert!(told.contains("schema id 7") && told.contains("connection refused"), "{told}");
    // It has what came before, and nothing that came after.
    until("what came before is stored", || rows.offsets(&cluster.partition(EVENTS, 0)) == [0])
        .await;
    assert!(script.asked(7) >= 1);

    script.answer(7, older());
    job.until("everything stored", stored_up_to(4)).await;
    assert_eq!(rows.offsets(&cluster.partition(EVENTS, 0)), [0, 1, 2, 3]);
    let status = job.until("it waits no more", |status| !waits_for(7)(status)).await;
    assert_eq!(status.rejected, 0);
    // What is known is not asked for again, also by the other partition.
    let asked = script.asked(7);
    cluster.send_bytes(1, &[Some(&framed), Some(&framed)]);
    until("partition 1 is stored", || rows.offsets(&cluster.partition(EVENTS, 1)) == [0, 1, 2, 3])
        .await;
    assert_eq!(script.asked(7), asked);
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_nobody_knows_is_a_dead_letter_after_the_grace_time() {
    let cluster = Cluster::start(1).await;
    let (script, rows) = (Arc::new(Scripted::default()), Store::new());
    script.answer(9, Found::Missing("Schema 9 not found".to_owned()));
    let (json, framed) = (event(), by_older(9));
    let after_zero = [b"\0", json.as_bytes()].concat();
    let values = [json.as_bytes(), &framed, &after_zero, &by_older(0), &by_older(u32::MAX)];
    cluster.send_bytes(0, &values.map(Some));
    let begun = std::time::Instant::now();
    let mut job = start(&cluster, &rows, &script, Duration::from_secs(3));
    // The second unknown id, which is JSON behind a zero byte, is missing too.
    let id = u32::from_be_bytes(json.as_bytes()[..4].try_into().unwrap());
    script.answer(id, Found::Missing("not found".to_owned()));
    job.until("everything stored", stored_up_to(5)).await;
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(rows.offsets(&cluster.partition(EVENTS, 0)), [0]);
    job.stop().await;
    let reasons = reasons(&cluster, 4).await;
    assert_eq!(reasons.iter().map(|(offset, ..)| *offset).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(reasons.iter().all(|(_, reason, _)| reason == "unknown_schema"), "{reasons:?}");
    assert!(reasons[0].2.contains("schema id 9: Schema 9 not found"), "{reasons:?}");
    // Ids that no registry gives are not asked for.
    assert_eq!(script.asked(0) + script.asked(u32::MAX), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_of_others_and_unreadable_ones_are_dead_letters_at_once() {
    let cluster = Cluster::start(1).await;
    let (script, rows) = (Arc::new(Scripted::default()), Store::new());
    script.answer(7, Found::Foreign("it is registered under orders-value".to_owned()));
    script.answer(8, Found::Unusable("it is JSON Schema".to_owned()));
    script.answer(
        9,
        found(
            r#"{"type": "record", "name": "r", "fields": [{"name": "status", "type": "string"}]}"#,
        ),
    );
    let json = event();
    let values = [&by_older(7), &by_older(8), &by_older(9), json.as_bytes()];
    cluster.send_bytes(0, &values.map(Some));
    let mut job = start(&cluster, &rows, &script, LONG);
    job.until("everything stored", stored_up_to(4)).await;
    job.stop().await;
    let reasons = reasons(&cluster, 3).await;
    let short: Vec<_> = reasons.iter().map(|(_, reason, _)| reason.as_str()).collect();
    assert_eq!(short, ["foreign_schema", "incompatible_schema", "incompatible_schema"]);
    for (at, word) in ["orders-value", "JSON Schema", "`task_id`"].into_iter().enumerate() {
        assert!(reasons[at].2.contains(word), "{reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_a_frame_is_a_dead_letter_that_says_so() {
    let cluster = Cluster::start(1).await;
    let rows = Store::new();
    let (json, framed) = (event(), by_older(7));
    cluster.send_bytes(0, &[Some(&framed), Some(json.as_bytes())]);
    let mut job = cluster.job("tasks", EVENTS, &rows);
    job.until("everything stored", stored_up_to(2)).await;
    job.stop().await;
    let reasons = reasons(&cluster, 1).await;
    assert!(reasons[0].2.contains("[registry]"), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_three_ages_and_json_share_a_partition() {
    const ROUNDS: usize = 500;
    let cluster = Cluster::start(1).await;
    let (script, mixed, alone) = (Arc::new(Scripted::default()), Store::new(), Store::new());
    for (id, answer) in [(7, contract()), (8, older()), (9, newer())] {
        script.answer(id, answer);
    }
    let json = event();
    let nothing = |count: usize| vec![0; count];
    // The contract's fields in order; those that may be missing are null.
    let fields = [
        nothing(1),
        text("task-1"),
        nothing(2),
        text("queued"),
        long(seconds() * 1_000_000),
        nothing(6),
    ];
    let (own, older, newer) = (frame(7, &fields), by_older(8), by_newer(9));
    let round = [json.as_bytes(), &own, &older, &newer].map(Some);
    cluster.send_bytes(0, &round.repeat(ROUNDS));
    let end = (4 * ROUNDS) as i64;
    let mut job = start(&cluster, &mixed, &script, LONG);
    let status = job.until("everything stored", stored_up_to(end)).await;
    assert_eq!(status.rejected, 0);
    assert_eq!(status.unknown_fields["added"], ROUNDS as u64);
    job.stop().await;
    // The same events by one writer are the same rows.
    cluster.delete(EVENTS);
    cluster.create(EVENTS, 1, &[]);
    cluster.new_producer();
    cluster.send_events(0, 4 * ROUNDS);
    let mut job = start(&cluster, &alone, &script, LONG);
    job.until("everything stored", stored_up_to(end)).await;
    job.stop().await;
    let columns = |store: &Store| {
        let batches = store.rows();
        let schema = batches[0].schema();
        let all = arrow::compute::concat_batches(&schema, &batches).unwrap();
        assert_eq!(all.num_rows(), 4 * ROUNDS);
        // Without where they stood: the topic's id and the append times differ.
        let of_event = Catalog::builtin().topic(EVENTS).unwrap().schema.fields.len();
        all.project(&(0..of_event).collect::<Vec<_>>()).unwrap()
    };
    assert_eq!(columns(&mixed), columns(&alone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_and_a_new_start_wait_for_nothing_that_a_schema_holds_up() {
    let cluster = Cluster::start(1).await;
    let (script, rows) = (Arc::new(Scripted::default()), Store::new());
    let (json, framed) = (event(), by_older(7));
    cluster.send_bytes(0, &[Some(json.as_bytes()), Some(&framed), Some(json.as_bytes())]);
    let mut job = start(&cluster, &rows, &script, LONG);
    job.until("partition 0 waits", waits_for(7)).await;
    let stored = || rows.offsets(&cluster.partition(EVENTS, 0)) == [0];
    until("what came before is stored", stored).await;
    let begun = std::time::Instant::now();
    job.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(rows.offsets(&cluster.partition(EVENTS, 0)), [0]);
    script.answer(7, older());
    let mut job = start(&cluster, &rows, &script, LONG);
    job.until("everything stored", stored_up_to(3)).await;
    assert_eq!(rows.offsets(&cluster.partition(EVENTS, 0)), [0, 1, 2]);
    job.stop().await;
}
