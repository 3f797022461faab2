//! Exports over a lake: which rows, in which order, in which bytes.

use std::{collections::BTreeMap, sync::Arc};

use aion_analytics::exports::{
    closing::Vector,
    dataset::{Dialect, Within},
    files::{FILE_BYTES, Writer},
    manifest::{About, FileEntry, Manifest},
    request::{Asked, Request},
    verify,
};
use aion_schemas::log::Offset;
use aion_sinks::store::{Store, StoreOptions};
use arrow::{json::LineDelimitedWriter, record_batch::RecordBatch};
use serde_json::{Value, json};

use crate::lake::{TOPIC_ID, TestLake, ask, decision};

/// A place for exports, and requests with the vectors that they are made below.
struct Place {
    folder: tempfile::TempDir,
    ends: i64,
}

/// What an export came to.
#[derive(Debug, PartialEq)]
struct Made {
    files: Vec<FileEntry>,
    digest: String,
    rows: Vec<Value>,
}

impl Place {
    /// Exports of rows below that offset.
    fn below(ends: i64) -> Place {
        Place { folder: tempfile::tempdir().unwrap(), ends }
    }

    fn store(&self) -> Store {
        let url = url::Url::from_directory_path(self.folder.path()).unwrap();
        Store::open(&url, &StoreOptions::default()).unwrap()
    }

    fn vectors(&self) -> BTreeMap<Arc<str>, Vector> {
        let vector = Vector(BTreeMap::from([((TOPIC_ID, 0), Offset(self.ends))]));
        ["decisions", "tasks"].map(|table| (table.into(), vector.clone())).into()
    }

    /// Rows as the engine gives them, cut into batches of `chunk`.
    async fn make(&self, lake: &TestLake, request: &Request, folder: &str, chunk: usize) -> Made {
        let vectors = self.vectors();
        let within = Within { dialect: Dialect::DataFusion, prefix: "", vectors: &vectors };
        let rows = ask(&lake.engine(), &request.dataset.rows(request, &within)).await.unwrap();
        let writer = Writer::start(self.store(), folder, request, FILE_BYTES).await.unwrap();
        Place::write(writer, rows, chunk).await
    }

    async fn write(mut writer: Writer, rows: Vec<RecordBatch>, chunk: usize) -> Made {
        for batch in &rows {
            for first in (0..batch.num_rows()).step_by(chunk) {
                let part = batch.slice(first, chunk.min(batch.num_rows() - first));
                writer.write(&part).await.unwrap();
            }
        }
        let (files, digest) = writer.finish().await.unwrap();
        Made { files, digest: digest.to_string(), rows: texts(&rows) }
    }

    async fn counts(&self, lake: &TestLake, request: &Request) -> Value {
        let vectors = self.vectors();
        let within = Within { dialect: Dialect::DataFusion, prefix: "", vectors: &vectors };
        let rows = ask(&lake.engine(), &request.dataset.counts(request, &within)).await.unwrap();
        let row = texts(&rows).remove(0);
        json!([row["kept"], row["late"]])
    }
}

fn texts(rows: &[RecordBatch]) -> Vec<Value> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    for batch in rows {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn request(lake: &TestLake, mut more: Value) -> Request {
    more["interval"] = json!({ "start": "2026-11-25T10:00:00Z", "end": "2026-11-25T11:00:00Z" });
    let asked: Asked = serde_json::from_value(more).unwrap();
    let allowed = ["public", "internal"].map(str::to_owned).into();
    Request::check(&asked, &lake.catalog, &allowed).unwrap()
}

fn training(lake: &TestLake, more: &[(&str, Value)]) -> Request {
    let mut body = json!({ "dataset": "router_training", "horizon_s": 600 });
    for (name, value) in more {
        body[*name] = value.clone();
    }
    request(lake, body)
}

fn of_tenant(mut event: Value, tenant: &str) -> Value {
    event["tenant_id"] = json!(tenant);
    event
}

fn task(task: &str, status: &str, time: &str) -> Value {
    json!({ "task_id": task, "status": status, "timestamp": format!("2026-11-25T{time}Z"), "latency_ms": 5 })
}

/// `outcome superseded censored` of each row, by task in order.
fn fates(made: &Made) -> Vec<String> {
    let shown = |row: &Value| {
        format!(
            "{} {} {}{}",
            row["task_id"].as_str().unwrap(),
            row.get("outcome").and_then(Value::as_str).unwrap_or("-"),
            if row["superseded"] == json!(true) { "superseded" } else { "" },
            if row["censored"] == json!(true) { "censored" } else { "" },
        )
    };
    made.rows.iter().map(shown).collect()
}

#[tokio::test]
async fn an_interval_has_its_start_and_not_its_end_below_the_vector_in_one_order() {
    let lake = TestLake::new();
    let at = |n: usize, time: &str| decision(&format!("t{n}"), "local", time);
    let times = [
        "11:00:00",
        "10:59:59.999999",
        "10:00:00",
        "09:59:59.999999",
        "10:30:00",
        "10:30:00",
        "10:31:00",
    ];
    let rows: Vec<_> = times.iter().enumerate().map(|(n, time)| at(n, time)).collect();
    lake.append("decisions", 0, &rows).await;
    let place = Place::below(6);
    let asked = request(&lake, json!({ "dataset": "decisions" }));
    let made = place.make(&lake, &asked, "a", 100).await;
    let offsets: Vec<_> = made.rows.iter().map(|row| row["_offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [2, 4, 5, 1]);
    assert_eq!(made.files.len(), 1);
    assert_eq!(made.files[0].min_time, "2026-11-25T10:00:00.000000Z");
    assert_eq!(made.files[0].max_time, "2026-11-25T10:59:59.999999Z");
    // The one at 10:31 came behind the vector.
    assert_eq!(place.counts(&lake, &asked).await, json!([4, 1]));
}

#[tokio::test]
async fn the_same_bytes_come_out_however_rows_arrive_and_the_lake_is_laid_out() {
    let lake = TestLake::new();
    let rows: Vec<_> = (0..3_000_i64)
        .map(|n| {
            decision(&format!("t{n}"), "local", &format!("10:{:02}:{:02}", n * 7 % 60, n % 60))
        })
        .collect();
    for (n, part) in rows.chunks(500).enumerate() {
        lake.append("decisions", n as i64 * 500, part).await;
    }
    let place = Place::below(3_000);
    let layout = json!({ "rows_per_file": 2_500, "rows_per_group": 1_000 });
    let asked = request(&lake, json!({ "dataset": "decisions", "layout": layout }));
    let first = place.make(&lake, &asked, "a", 7).await;
    let second = place.make(&lake, &asked, "b", 1_500).await;
    assert_eq!(first.files.iter().map(|file| file.rows).collect::<Vec<_>>(), [2_500, 500]);
    assert_eq!(first, second);
    let whole = TestLake::new();
    whole.append("decisions", 0, &rows).await;
    assert_eq!(place.make(&whole, &asked, "c", 100).await, first);
    let other = request(&lake, json!({ "dataset": "decisions" }));
    let other = place.make(&lake, &other, "d", 100).await;
    assert_eq!(other.digest, first.digest, "the digest doesn't know of files");
    assert_ne!(other.files, first.files);
}

#[tokio::test]
async fn what_follows_a_decision_is_its_outcome() {
    let lake = TestLake::new();
    let decisions = [
        decision("ended", "local", "10:00:00"),
        decision("twice", "local", "10:01:00"),
        decision("twice", "cloud", "10:02:00"),
        decision("late", "local", "10:03:00"),
        decision("open", "local", "10:04:00"),
        decision("same-time", "local", "10:05:00"),
        decision("before", "local", "10:06:00"),
        decision("at-the-end", "local", "10:59:00"),
        // Not exported, and it supersedes the one before.
        decision("at-the-end", "cloud", "11:05:00"),
        of_tenant(decision("shared", "local", "10:07:00"), "acme"),
        of_tenant(decision("shared", "local", "10:07:01"), "globex"),
        decision("shared", "local", "10:07:02"),
    ];
    let ends = [
        task("ended", "queued", "10:00:01"),
        task("ended", "running", "10:00:02"),
        task("ended", "succeeded", "10:00:03"),
        task("ended", "failed", "10:00:04"),
        task("ended", "succeeded", "10:00:03"),
        task("twice", "cancelled", "10:02:30"),
        task("late", "succeeded", "10:13:00"),
        task("same-time", "failed", "10:05:00"),
        task("before", "failed", "10:05:59"),
        task("at-the-end", "succeeded", "11:06:00"),
        of_tenant(task("shared", "failed", "10:08:00"), "globex"),
        task("shared", "cancelled", "10:08:00"),
    ];
    lake.append("decisions", 0, &decisions).await;
    lake.append("tasks", 0, &ends).await;
    let place = Place::below(100);
    let made = place.make(&lake, &training(&lake, &[]), "a", 100).await;
    assert_eq!(
        fates(&made),
        [
            "ended succeeded ",
            "twice - superseded",
            "twice cancelled ",
            "late - censored",
            "open - censored",
            "same-time failed ",
            "before - censored",
            "shared - censored",
            "shared failed ",
            "shared cancelled ",
            "at-the-end - superseded",
        ]
    );
    assert_eq!(made.rows[0]["outcome_time"], json!("2026-11-25T10:00:03Z"));
    assert_eq!(made.rows[0]["outcome_latency_ms"], json!(5));
    let longer = training(&lake, &[("horizon_s", json!(601))]);
    assert!(
        fates(&place.make(&lake, &longer, "b", 100).await).contains(&"late succeeded ".to_owned())
    );
}

#[tokio::test]
async fn what_came_behind_the_vector_is_no_outcome() {
    let lake = TestLake::new();
    lake.append("decisions", 0, &[decision("a", "local", "10:00:00")]).await;
    lake.append("tasks", 0, &[task("x", "queued", "10:00:01"), task("a", "failed", "10:00:01")])
        .await;
    let made = Place::below(1).make(&lake, &training(&lake, &[]), "a", 100).await;
    assert_eq!(fates(&made), ["a - censored"]);
}

#[tokio::test]
async fn a_tier_that_stays_in_still_supersedes() {
    let lake = TestLake::new();
    let mut private = decision("a", "local", "10:01:00");
    private["tier"] = json!("restricted");
    lake.append("decisions", 0, &[decision("a", "cloud", "10:00:00"), private]).await;
    lake.append("tasks", 0, &[task("a", "succeeded", "10:02:00")]).await;
    let place = Place::below(10);
    let made = place.make(&lake, &training(&lake, &[]), "a", 100).await;
    assert_eq!(fates(&made), ["a - superseded"]);
    let plain =
        place.make(&lake, &request(&lake, json!({ "dataset": "decisions" })), "b", 100).await;
    assert_eq!(plain.rows.len(), 1);
    assert_eq!(place.counts(&lake, &training(&lake, &[])).await, json!([1, 0]));
}

#[tokio::test]
async fn copies_of_an_event_count_once_where_that_is_asked_for() {
    let lake = TestLake::new();
    let sent = |id: &str, task: &str| {
        let mut event = decision(task, "local", "10:00:00");
        event["event_id"] = json!(id);
        event
    };
    let none = decision("c", "local", "10:00:00");
    lake.append(
        "decisions",
        0,
        &[sent("1", "a"), sent("1", "a"), sent("2", "b"), none.clone(), none],
    )
    .await;
    let place = Place::below(10);
    let all = place.make(&lake, &request(&lake, json!({ "dataset": "decisions" })), "a", 9).await;
    assert_eq!(all.rows.len(), 5);
    let once = request(&lake, json!({ "dataset": "decisions", "deduplicate": true }));
    let offsets: Vec<_> = place
        .make(&lake, &once, "b", 9)
        .await
        .rows
        .iter()
        .map(|row| row["_offset"].clone())
        .collect();
    assert_eq!(offsets, [0, 2, 3, 4]);
    let once = training(&lake, &[("deduplicate", json!(true))]);
    assert_eq!(place.make(&lake, &once, "c", 9).await.rows.len(), 4);
}

#[tokio::test]
async fn each_day_can_have_a_folder() {
    let lake = TestLake::new();
    let days = ["2026-11-24T23:59:59Z", "2026-11-25T00:00:00Z", "2026-11-25T10:00:00Z"];
    let rows = days.map(|time| decision("a", "local", time));
    lake.append("decisions", 0, &rows).await;
    let mut asked =
        request(&lake, json!({ "dataset": "decisions", "layout": { "by_date": true } }));
    asked.start = aion_schemas::log::Timestamp(0);
    let made = Place::below(10).make(&lake, &asked, "a", 100).await;
    let paths: Vec<_> = made.files.iter().map(|file| (file.path.as_str(), file.rows)).collect();
    assert_eq!(
        paths,
        [
            ("data/date=2026-11-24/part-00000.parquet", 1),
            ("data/date=2026-11-25/part-00001.parquet", 2)
        ]
    );
}

#[tokio::test]
async fn a_file_ends_where_it_is_large_whatever_rows_it_was_to_have() {
    let lake = TestLake::new();
    let rows: Vec<_> =
        (0..5000).map(|n| decision(&format!("task-{n}"), "local", "10:00:00")).collect();
    lake.append("decisions", 0, &rows).await;
    let place = Place::below(5000);
    let layout = json!({ "rows_per_group": 1000, "rows_per_file": 20_000_000 });
    let asked = request(&lake, json!({ "dataset": "decisions", "layout": layout }));
    let vectors = place.vectors();
    let within = Within { dialect: Dialect::DataFusion, prefix: "", vectors: &vectors };
    let rows = ask(&lake.engine(), &asked.dataset.rows(&asked, &within)).await.unwrap();
    let mut made = Vec::new();
    for (folder, file_bytes, chunk) in [("a", 2, 700), ("b", 2, 5000), ("c", FILE_BYTES, 700)] {
        let writer = Writer::start(place.store(), folder, &asked, file_bytes).await.unwrap();
        made.push(Place::write(writer, rows.clone(), chunk).await);
    }
    let counts = |made: &Made| made.files.iter().map(|file| file.rows).collect::<Vec<_>>();
    assert_eq!(counts(&made[0]), [1000; 5]);
    assert_eq!(made[0], made[1], "however rows arrive");
    assert_eq!(counts(&made[2]), [5000]);
    assert_eq!(made[0].digest, made[2].digest);
}

#[tokio::test]
async fn a_proof_finds_what_was_changed() {
    let lake = TestLake::new();
    let rows: Vec<_> = (0..50).map(|n| decision(&format!("t{n}"), "local", "10:00:00")).collect();
    lake.append("decisions", 0, &rows).await;
    let place = Place::below(50);
    let asked = request(&lake, json!({ "dataset": "decisions" }));
    let made = place.make(&lake, &asked, "a", 100).await;
    let about = About {
        manifest_version: 1,
        export_id: "exp".into(),
        request: asked.asked(),
        canonical: Value::Null,
        columns: asked.dataset.columns().to_vec(),
        fingerprint: asked.dataset.fingerprint(),
        schemas: Vec::new(),
        lake_versions: BTreeMap::new(),
        offsets: place.vectors(),
        gaps: Vec::new(),
        late_rows: 0,
    };
    let manifest = Manifest {
        about,
        attempt: 1,
        rows: 50,
        bytes: made.files[0].bytes,
        digest: made.digest.clone(),
        files: made.files.clone(),
        source: "lake".into(),
        created_by: "test".into(),
    };
    let text = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
    let store = place.store();
    let wrong = async |manifest: &Manifest| {
        let found = verify::files(&store, "a/", manifest, &asked.dataset, |_| {}).await.unwrap();
        found.into_iter().map(|one| one.what).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(wrong(&manifest).await, "");
    let other = Manifest { digest: "0".into(), rows: 51, ..manifest.clone() };
    assert!(wrong(&other).await.contains("51 by the manifest, 50 in the files"));
    let file = place.folder.path().join("a").join(&manifest.files[0].path);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let other = file.with_file_name("part-00001.parquet");
    std::fs::copy(&file, &other).unwrap();
    assert!(wrong(&manifest).await.contains("the manifest doesn't name it"));
    std::fs::rename(&other, file.with_file_name("_part")).unwrap();
    assert_eq!(wrong(&manifest).await, "", "readers pass over that");
    std::fs::write(&file, &bytes).unwrap();
    assert!(wrong(&manifest).await.contains("sha256"));
    std::fs::remove_file(&file).unwrap();
    assert!(wrong(&manifest).await.contains("it isn't there"));
}
