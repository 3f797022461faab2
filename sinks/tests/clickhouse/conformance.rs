//! The suite of all sinks.

use std::sync::Arc;

use aion_sinks::{
    clickhouse::{ClickHouseSink, Settings, testing::Rig},
    conformance::Subject,
};
use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::shared::{Place, settings, spec};

struct Houses {
    place: Place,
    rigs: Mutex<Vec<Arc<Rig>>>,
}

async fn houses() -> Houses {
    Houses { place: Place::new().await, rigs: Mutex::default() }
}

#[async_trait]
impl Subject for Houses {
    type Sink = ClickHouseSink;

    async fn open(&self, hold_bytes: usize) -> ClickHouseSink {
        let settings = Settings { hold_bytes, ..settings() };
        let sink = self.place.house.sink(spec(), settings);
        self.rigs.lock().await.push(sink.rig());
        sink
    }

    async fn rows(&self) -> Vec<(String, i32, i64)> {
        let sql = format!("SELECT _topic_id, _partition, _offset FROM {}", self.place.table());
        let rows = self.place.engine.rows(&sql).await;
        let row = |row: &serde_json::Value| {
            let number = |at: usize| row[at].as_i64().unwrap();
            (row[0].as_str().unwrap().to_owned(), number(1) as i32, number(2))
        };
        rows.iter().map(row).collect()
    }

    fn stall(&self, stalled: bool) {
        self.rigs.try_lock().unwrap().iter().for_each(|rig| rig.stall(stalled));
    }
}

aion_sinks::conformance_tests!(houses().await);
