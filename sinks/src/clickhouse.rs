//! ClickHouse: one table for each topic, each record in it exactly once, with no coordinator beside the server.
//!
//! | module | what it is |
//! |---|---|
//! | `sink` | [`ClickHouseSink`]: buffers, one INSERT on its way for each Kafka partition |
//! | `lane` | one partition: where its chain is, what goes next |
//! | `pace` | how fast it sends: by what the table remembers, and by how the server keeps up |
//! | `landing` | a batch on its way into the table, until it is known what became of it |
//! | `survey` | from what a table has to where a writer goes on |
//! | `retries` | rows that would store a record twice are left out |
//! | `ledger` | the questions put to a table, and the notes beside it |
//! | `repair` | breaks that are left alone, until somebody wants them filled; offsets that are there more than once |
//! | `hold` | who repairs: one at a time |
//! | `insert` | rows with their ledger, as an Arrow stream |
//! | `client`, `failure` | HTTP, and who can act on what went wrong |
//! | `replicas` | several addresses: are they replicas of one table? |
//! | [`guarantee`] | what is asked of a table, and what keeps it from giving it |
//! | [`check`] | can this table give the guarantee? |
//! | [`plan`] | what a database lacks of the contract's tables |
//! | `testing` | what tests do to a writer (feature `testing`) |
//!
//! Rows are the ledger: each carries the range of its batch. A batch is one INSERT of one record batch into one table
//! partition, so one part, and a part is atomic. Its deduplication token is the offset where it begins: of all
//! INSERTs that begin there, by whomever and whenever, the server takes one. A batch begins where the one before it
//! ended, so what lands is a chain.
//!
//! What a writer, or its successor, finds after a crash, and does:
//!
//! | killed | the table has | then |
//! |---|---|---|
//! | before the INSERT | nothing | the successor reads on from the chain's end |
//! | in the INSERT, nothing stored | nothing, the token is free | the same |
//! | in the INSERT, token stored, part not | nothing, the token is taken | the INSERT is acknowledged and stores nothing; the look afterwards tells. Sent again; then, once no INSERT of that token can be on its way, under the token `#1` |
//! | after the INSERT, before its answer | the batch | found at the chain's end; the writer itself finds it by a look, or by its token |
//! | after the answer | the batch | the same |
//! | before the note of what lies between its last row and the mark | the batch, which ends at that row | the successor reads on from there |
//! | (the rows are older than the table keeps) | nothing | they expire as they come: noted as stored |
//!
//! And what rivals do to each other:
//!
//! | a rival | keeps out by | then |
//! |---|---|---|
//! | inserts from the same offset | the token | one lands; the other looks, finds a batch not its own, and starts over ([`Flushed::moved`](crate::sink::Flushed::moved)) |
//! | is new, and began to read elsewhere (poison, retention) | the chain's end, not what was read, is where a batch begins; a table's very first is agreed on (note `opened`) | the same |
//! | uses another table partition at midnight, where tokens are apart | the day is that of the batch before | the same |
//! | slept until its token was forgotten | the lease: the server refuses rows stamped too long ago | it looks again, and finds that it is behind |
//! | went on behind a break that another fills | a lease that began within the break ends with it | the other looks, and starts over |
//! | stores by a retry a record that fills a break, or the other way round | a look with each lease; what fills a break waits until no retry is on its way that doesn't know of it | the second leaves it out (`retries`) |
//!
//! What the server had acknowledged and its disk lost shows as a break; `survey` says when it is filled. What it
//! won't take whole goes in halves, each a batch of the same chain, down to one row; that row's record is read again as
//! a rejected one ([`Refused`](crate::sink::Refused)). What is too large for the server, or for a proxy before it, or
//! comes to no answer twice, goes in halves as well; a single row of that kind is sent again as it is, and the sink says so.
//!
//! **Invariant:** every write is followed by a look; an acknowledgement alone proves nothing.
//! **Invariant:** one INSERT on its way for each Kafka partition, many partitions at once.
//! **Invariant:** the only clock is the server's. What a process measures itself only makes it look earlier. Of several
//! servers it is that of the one that was asked: a lease from one is held against the clock of another.
//!
//! Where at least once is asked for ([`guarantee`]), all of this is done as well, and what it can't keep out is put up
//! with: batches that are there twice stop nobody, the chain goes on behind the furthest. Into a replicated table there is
//! no `#1`: its tokens live in Keeper, whose part and token are one step.
//!
//! Deliberately absent: staging tables, a coordinator, exactly-once into replicated tables (nothing of it is proven).

use std::{sync::Arc, time::Duration};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};

use crate::sink::SinkError;

pub mod check;
mod client;
mod failure;
pub mod guarantee;
mod hold;
mod insert;
mod landing;
mod lane;
mod ledger;
mod pace;
pub mod plan;
mod repair;
mod replicas;
mod retries;
mod sink;
mod survey;
mod table;
#[cfg(feature = "testing")]
pub mod testing;

pub use client::Server;
pub use hold::{Claim, Hold, Holder};
pub use repair::{Break, Double};
pub use sink::ClickHouseSink;

/// What the sink has to know of a table.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Its name in the database.
    pub name: String,
    /// The columns of a batch.
    pub schema: SchemaRef,
    /// Those of them whose values are few; they travel numbered.
    pub few_values: Vec<String>,
    /// How many Kafka partitions fill it, for the question whether its window is wide enough.
    pub partitions: usize,
}

/// So many bytes of rows go in one INSERT at most: with the ledger's columns, and as the server holds them, they stay below
/// the 256 MiB up to which they are one block (`client`).
pub const MAX_BATCH_BYTES: usize = 200 << 20;

/// The limits of one table's sink.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A partition's rows are inserted when they take this many bytes.
    pub flush_bytes: usize,
    /// A partition's rows are inserted when the first has waited this long.
    pub flush_age: Duration,
    /// Above this many bytes held, waiting or on their way, batches are handed back.
    pub hold_bytes: usize,
    /// So many rows at most in one INSERT; more than a million would be several blocks.
    pub max_rows: usize,
    /// So many bytes at most in one INSERT, but for a row that is larger.
    pub max_bytes: usize,
    /// How long after a look rows may still be inserted.
    pub lease: Duration,
    /// How long the server may work on one INSERT.
    pub max_execution: Duration,
    /// How long an INSERT's answer is waited for beyond that.
    pub answer_within: Duration,
    /// For how long after the batch before it was seen stored one that is gone is written again.
    pub repair_window: Duration,
    /// How often it is noted how far a partition is; offsets without rows are noted as often at most.
    pub note_every: Duration,
    /// How long `assign` waits for INSERTs that are under way.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            flush_bytes: 32 << 20,
            flush_age: Duration::from_secs(5),
            hold_bytes: 128 << 20,
            max_rows: 500_000,
            max_bytes: MAX_BATCH_BYTES,
            lease: Duration::from_mins(1),
            max_execution: Duration::from_mins(1),
            answer_within: Duration::from_secs(30),
            repair_window: Duration::from_hours(1),
            note_every: Duration::from_mins(1),
            patience: Duration::from_mins(2),
        }
    }
}

/// A database on a server.
#[derive(Clone, Debug)]
pub struct ClickHouse {
    client: client::Client,
}

impl ClickHouse {
    /// A database on that server. Nothing is asked yet: a server that is down delays nobody but its own jobs.
    pub fn new(server: Server) -> Result<ClickHouse, SinkError> {
        Ok(ClickHouse { client: client::Client::new(server)? })
    }

    /// The sink of a table. What the table can give is looked at when partitions are assigned.
    pub fn sink(&self, spec: TableSpec, settings: Settings) -> ClickHouseSink {
        ClickHouseSink::new(Arc::new(self.table(spec, settings)))
    }

    /// Asks a question in SQL, within the time; for those who read what sinks have written.
    pub async fn query(&self, sql: &str, within: Duration) -> Result<Vec<RecordBatch>, SinkError> {
        let answer = self.client.columns(sql, within).await;
        answer.map_err(|failure| failure.error("ask ClickHouse"))
    }

    /// The same, with the rows as they come: an answer may be larger than memory. One that breaks off is an error.
    pub async fn stream(
        &self,
        sql: &str,
        within: Duration,
    ) -> Result<BoxStream<'static, Result<RecordBatch, SinkError>>, SinkError> {
        let error = |failure: failure::Failure| failure.error("ask ClickHouse");
        let answer = self.client.stream(sql, within).await.map_err(error)?;
        Ok(answer.map_err(error).boxed())
    }

    /// The question how far a table has each partition: topic id, partition, next offset. Batch by batch, for that is what
    /// the projection `chain` has: of the greatest offset alone the server would read every row.
    pub fn marks(&self, table: &str) -> String {
        let database = self.database();
        format!(
            "select id, number, max(mark) from (
                select toString(topic) as id, number, max(last) + 1 as mark from (
                    select _topic_id as topic, _partition as number, _batch_last as last
                    from {database}.{table} group by _topic_id, _partition, _batch_last)
                group by id, number
                union all
                select topic_id as id, partition as number, toInt64(max(next)) as mark
                from {database}.{} where table_name = '{table}' and kind in ('reached', 'opened')
                group by id, number)
            group by id, number",
            aion_schemas::clickhouse::MARKS
        )
    }

    /// After how many days the table's TTL takes rows out, by the time of their append; `None` where it keeps them, does
    /// something else, or isn't there.
    pub async fn kept_days(&self, table: &str) -> Result<Option<u32>, SinkError> {
        let live = plan::live(&self.client, table).await;
        let live =
            live.map_err(|failure| failure.error("ask ClickHouse how long it keeps rows"))?;
        Ok(live.and_then(|live| live.deleted_after_days()))
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.client.server().database
    }

    /// The same database, with something else asked of its tables.
    #[must_use]
    pub fn asking(&self, guarantee: guarantee::Guarantee) -> ClickHouse {
        ClickHouse { client: self.client.asking(guarantee) }
    }

    fn table(&self, spec: TableSpec, settings: Settings) -> table::Table {
        let ledger = ledger::Ledger::new(self.client.of_table(&spec.name), &spec.name);
        table::Table::new(ledger, spec, settings)
    }
}
