//! The suite of all sinks, over a local folder, over an object store in memory, and over one that speaks S3.

use std::sync::Arc;

use aion_sinks::{
    conformance::{Subject, schema},
    lake::{Lake, LakeSink, Settings, testing::Rig},
};
use async_trait::async_trait;
use object_store::memory::InMemory;
use tokio::sync::Mutex;
use url::Url;

use crate::shared::{Place, rows, settings, spec};

struct Lakes {
    lake: Lake,
    rigs: Mutex<Vec<Arc<Rig>>>,
    _place: Option<Place>,
}

fn local() -> Lakes {
    let place = Place::new();
    Lakes { lake: place.lake.clone(), rigs: Mutex::default(), _place: Some(place) }
}

fn objects() -> Lakes {
    let url = Url::parse("memory:///some/lake").unwrap();
    let lake = Lake::over(&url, Arc::new(InMemory::new()));
    Lakes { lake, rigs: Mutex::default(), _place: None }
}

fn s3() -> Lakes {
    Lakes { lake: crate::s3::lake(), rigs: Mutex::default(), _place: None }
}

#[async_trait]
impl Subject for Lakes {
    type Sink = LakeSink;

    async fn open(&self, hold_bytes: usize) -> LakeSink {
        let settings = Settings { hold_bytes, ..settings() };
        let sink = self.lake.sink(spec(schema()), settings).await.unwrap();
        self.rigs.lock().await.push(sink.rig());
        sink
    }

    async fn rows(&self) -> Vec<(String, i32, i64)> {
        rows(&self.lake).await
    }

    fn stall(&self, stalled: bool) {
        self.rigs.try_lock().unwrap().iter().for_each(|rig| rig.stall(stalled));
    }
}

mod in_a_folder {
    aion_sinks::conformance_tests!(super::local());
}

mod in_an_object_store {
    aion_sinks::conformance_tests!(super::objects());
}

mod in_s3 {
    aion_sinks::conformance_tests!(super::s3());
}

/// What a lake's log rests on there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_heeds_conditions() {
    s3().lake.probe().await.unwrap();
}
