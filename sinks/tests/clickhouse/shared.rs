//! A database on an engine, and reading it back as a user would.

use std::{
    ops::Deref,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use aion_schemas::{
    clickhouse::{Table, database, marks},
    log::{Marks, Partition},
    schema::{Field, Kind, Schema},
};
use aion_sinks::{
    clickhouse::{
        Claim, ClickHouse, ClickHouseSink, Hold, Server, Settings, TableSpec, guarantee::Guarantee,
    },
    conformance::schema,
    sink::{Flush, Flushed, Sink, SinkError},
};
use serde_json::Value;

use crate::engine::{self, Engine};

pub(crate) enum Of {
    Shared(&'static Engine),
    Own(Engine),
}

impl Deref for Of {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        match self {
            Of::Shared(engine) => engine,
            Of::Own(engine) => engine,
        }
    }
}

pub(crate) struct Place {
    pub(crate) engine: Of,
    pub(crate) database: String,
    pub(crate) house: ClickHouse,
}

/// Times short enough to be waited for.
pub(crate) fn settings() -> Settings {
    Settings {
        flush_age: Duration::ZERO,
        lease: Duration::from_secs(4),
        max_execution: Duration::from_secs(1),
        ..Settings::default()
    }
}

pub(crate) fn spec() -> TableSpec {
    TableSpec {
        name: "orders".into(),
        schema: schema(),
        few_values: vec!["note".into()],
        partitions: 2,
    }
}

/// The table for the rows of the suite of all sinks.
pub(crate) fn orders(keep_days: Option<u32>) -> Table {
    let field = |name: &str, kind, required, few_values| Field {
        name: name.into(),
        kind,
        required,
        few_values,
        doc: "A field.".into(),
        aliases: Vec::new(),
        default: None,
    };
    let fields = vec![
        field("id", Kind::Text, true, false),
        field("at", Kind::Time, true, false),
        field("value", Kind::Number, true, false),
        field("note", Kind::Text, false, true),
    ];
    let schema = Schema { name: "orders".into(), doc: "An order.".into(), fields, event_time: 1 };
    Table::of_schema("orders", &schema, keep_days)
}

impl Place {
    pub(crate) async fn new() -> Place {
        Place::on(Of::Shared(engine::shared()), orders(None)).await
    }

    /// On an engine that may be killed.
    pub(crate) async fn own() -> Place {
        Place::on(Of::Own(Engine::own()), orders(None)).await
    }

    pub(crate) async fn on(engine: Of, table: Table) -> Place {
        let place = Place::empty(engine);
        let name = &place.database;
        for made in [database(name, None), marks(name, None), table.create(name, None)] {
            place.engine.run(&made.sql).await;
        }
        place
    }

    /// Without a database.
    pub(crate) fn empty(engine: Of) -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let database = format!("d{}", COUNT.fetch_add(1, Relaxed));
        let house = ClickHouse::new(server(&engine, &database)).unwrap();
        Place { engine, database, house }
    }

    pub(crate) fn open(&self) -> ClickHouseSink {
        self.house.sink(spec(), settings())
    }

    /// A writer that owns a partition.
    pub(crate) async fn owner(&self, partition: &Partition) -> ClickHouseSink {
        let mut sink = self.open();
        sink.assign(std::slice::from_ref(partition)).await.unwrap();
        sink
    }

    /// The right to repair its tables, which nobody has.
    pub(crate) async fn hold(&self) -> Hold {
        match self.house.hold_repairs("test", Duration::from_mins(1)).await.unwrap() {
            Claim::Taken(hold) => hold,
            Claim::Held(by) => panic!("{by:?} has it"),
        }
    }

    /// What the table says a writer goes on from.
    pub(crate) async fn found(&self, partition: &Partition) -> Marks {
        self.open().assign(std::slice::from_ref(partition)).await.unwrap()
    }

    pub(crate) fn table(&self) -> String {
        format!("{}.orders", self.database)
    }

    /// Stored offsets of a partition, sorted; doubles show.
    pub(crate) async fn offsets(&self, partition: &Partition) -> Vec<i64> {
        let sql = format!(
            "SELECT _offset FROM {} WHERE _topic_id = '{}' AND _partition = {} ORDER BY _offset",
            self.table(),
            partition.stream.id,
            partition.number
        );
        self.engine.rows(&sql).await.iter().map(|row| row[0].as_i64().unwrap()).collect()
    }

    /// First and last offset of each batch.
    pub(crate) async fn batches(&self) -> Vec<(i64, i64)> {
        let sql = format!(
            "SELECT _batch_first, _batch_last FROM {} GROUP BY ALL ORDER BY ALL",
            self.table()
        );
        let pair = |row: &Value| (row[0].as_i64().unwrap(), row[1].as_i64().unwrap());
        self.engine.rows(&sql).await.iter().map(pair).collect()
    }

    /// Stores the batch that begins there once more, as when a dump is loaded again, under a lease by which the copies
    /// are told from the first.
    pub(crate) async fn store_again(&self, first: i64) {
        let table = self.table();
        let sql = format!(
            "INSERT INTO {table} SELECT * REPLACE (toDateTime('2100-01-01 00:00:00') AS _lease) FROM \
             (SELECT * FROM {table} WHERE _batch_first = {first} AND _lease < '2099-01-01 00:00:00') \
             SETTINGS insert_deduplicate = 0"
        );
        self.engine.run(&sql).await;
    }
}

pub(crate) fn server(engine: &Engine, database: &str) -> Server {
    Server {
        urls: vec![format!("http://127.0.0.1:{}", engine.port).parse().unwrap()],
        database: database.to_owned(),
        user: None,
        password: None,
        ca: None,
        guarantee: Guarantee::ExactlyOnce,
    }
}

/// One try to write everything.
pub(crate) async fn once(sink: &mut ClickHouseSink) -> Result<Flushed, SinkError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    sink.flush(Instant::now(), Flush::Now { deadline }).await
}

/// One try of a writer that falls asleep in it, and may do so for long.
pub(crate) async fn sleeps(sleeper: &mut ClickHouseSink) -> Result<Flushed, SinkError> {
    let deadline = Instant::now() + Duration::from_mins(2);
    sleeper.flush(Instant::now(), Flush::Now { deadline }).await
}

/// Tries until it is written, with pauses, as a job does.
pub(crate) async fn settle_slowly(sink: &mut ClickHouseSink) -> Flushed {
    let start = Instant::now();
    loop {
        match once(sink).await {
            Ok(flushed) => return flushed,
            Err(SinkError::Retry { .. }) if start.elapsed() < Duration::from_mins(1) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => panic!("after {:?}: {error}", start.elapsed()),
        }
    }
}

/// `first..end` as a list.
pub(crate) fn range(first: i64, end: i64) -> Vec<i64> {
    (first..end).collect()
}
