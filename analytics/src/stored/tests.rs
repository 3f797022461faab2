//! The order of a query's two looks: what a job commits between them.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aion_schemas::{
    catalog::Catalog,
    log::{Offset, Partition, Stream, Timestamp},
};
use aion_sinks::{
    batch::Batch,
    budget::Reservation,
    lake::{self, StoreOptions, TableSpec},
    sink::{Accepted, Flush, Sink},
};
use arrow::{
    array::AsArray,
    datatypes::{Int64Type, SchemaRef},
    json::ReaderBuilder,
    record_batch::RecordBatch,
};
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use serde_json::json;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    engine::{Engine, Settings},
    tail::Tail,
};

/// What happens between two looks.
pub(crate) type Between = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Has that happen, once.
pub(super) async fn between_the_looks(tail: &Tail) {
    let between = tail.between.lock().unwrap().take();
    if let Some(between) = between {
        between().await;
    }
}

/// Two decisions, from an offset on.
fn two(schema: SchemaRef, partition: &Partition, first: i64) -> Batch {
    let line = |offset: i64| {
        let row = json!({
            "task_id": format!("task-{offset}"), "intent": "chat", "route": "local",
            "reason": "policy", "tier": "internal", "timestamp": "2026-11-25T12:00:00Z",
            "_topic_id": partition.stream.id, "_leader_epoch": 0, "_partition": partition.number,
            "_offset": offset, "_append_time": "2026-11-25T12:00:00Z",
        });
        row.to_string()
    };
    let lines: String = (first..first + 2).map(line).collect();
    let mut reader = ReaderBuilder::new(schema).build(lines.as_bytes()).unwrap();
    Batch {
        partition: partition.clone(),
        range: Offset(first)..Offset(first + 2),
        epoch: 0,
        appended: Some((Timestamp(0), Timestamp(0))),
        rows: reader.next().unwrap().unwrap(),
        memory: Reservation::none(),
    }
}

/// How many rows a query sees, and how many different ones.
async fn seen(engine: &Engine) -> [i64; 2] {
    let sql = "select count(*), count(distinct _offset) from decisions";
    let answer = engine.query(sql).await.unwrap();
    let rows: Vec<RecordBatch> = answer.try_collect().await.unwrap();
    [0, 1].map(|column| rows[0].column(column).as_primitive::<Int64Type>().value(0))
}

/// With the version taken first the rows would be in neither: that version hasn't got them, and the tail has dropped them.
#[tokio::test]
async fn what_is_committed_between_the_looks_is_seen_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path().join("lake")).unwrap();
    let catalog = Arc::new(Catalog::builtin());
    let topic = catalog.table("decisions").unwrap();
    let stream = Stream { topic: Arc::clone(&topic.name), id: Uuid::from_u128(7) };
    let partition = Partition { stream, number: 0 };
    let spec = TableSpec {
        name: "decisions".to_owned(),
        schema: topic.schema.arrow(),
        event_time: topic.schema.fields[topic.schema.event_time].name.to_string(),
    };
    let tail = Tail::default();
    let mut settings = Settings::new(url.clone(), Arc::clone(&catalog));
    (settings.threads, settings.tail) = (2, tail.clone());
    let engine = Engine::open(settings).unwrap();
    let lake = lake::Lake::open(&url, &StoreOptions::default()).unwrap();
    let sink = lake.sink(spec, lake::Settings::default()).await.unwrap();
    let mut sink = tail.of(&"decisions".into(), Box::new(sink));
    sink.assign(std::slice::from_ref(&partition)).await.unwrap();
    let sink = Arc::new(Mutex::new(sink));
    for first in [0, 2, 4] {
        let batch = two(topic.schema.arrow(), &partition, first);
        let taken = sink.lock().await.write(batch).await.unwrap();
        assert!(matches!(taken, Accepted::Taken));
        let committing = Arc::clone(&sink);
        let commit = async move {
            let why = Flush::Now { deadline: Instant::now() + Duration::from_mins(1) };
            let flushed = committing.lock().await.flush(Instant::now(), why).await.unwrap();
            assert_eq!(flushed.marks.len(), 1, "the rows land, and the tail drops them");
        };
        *tail.between.lock().unwrap() = Some(Box::new(move || commit.boxed()));
        assert_eq!(seen(&engine).await, [first + 2; 2]);
        assert!(tail.between.lock().unwrap().is_none(), "it happened");
        assert_eq!(tail.batches("decisions").len(), 0, "nothing is left but what is stored");
    }
}
