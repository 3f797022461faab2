//! SQL over what the sinks stored, and what this process's jobs are about to store: one table per table of
//! the catalog, tables about the streams themselves, and views; and exports of what is stored.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use aion_schemas::catalog::Catalog;
//! # async fn show(catalog: Arc<Catalog>) -> Result<(), Box<dyn std::error::Error>> {
//! use aion_analytics::{Engine, Settings};
//! use futures::TryStreamExt;
//!
//! let lake = url::Url::from_directory_path("/var/lib/aion/lake").map_err(|()| "a full path")?;
//! let engine = Engine::open(Settings::new(lake, catalog))?;
//! let mut answer = engine.query("select route, count(*) from decisions group by route").await?;
//! while let Some(batch) = answer.try_next().await? {
//!     println!("{} rows", batch.num_rows());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`engine`] | opens a lake, plans and runs queries within their bounds |
//! | [`tables`] | which tables there are, with columns and their docs |
//! | `stored` | a table of the lake for DataFusion: one snapshot, pruned by date and statistics |
//! | [`tail`] | rows of this process's jobs that are not committed yet |
//! | `holdings` | the memory that a query's share of them takes |
//! | `memory` | the memory that queries share |
//! | [`parameters`] | values for `$1` or `$name` |
//! | [`parquet`] | an answer as a Parquet file |
//! | [`postgres`] | the same over PostgreSQL's protocol |
//! | [`unread`] | an end to answers that nobody takes |
//! | [`alive`] | an end to connections whose peer has vanished |
//! | `derived` | views: `task_latency`, `decision_outcomes` |
//! | `views` | tables of at-least-once topics without their repetitions |
//! | [`filter`] | a condition over batches that aren't stored |
//! | [`lag`] | how far the lake is behind the logs |
//! | [`control`] | tables that no topic fills: what each commit covered, exports, schemas |
//! | [`exports`] | rows of a time interval as files, provable |
//! | [`digest`] | what rows say, as one number |
//! | [`statements`] | where one statement ends and the next begins |
//!
//! **Invariant:** queries write nothing: every plan passes DataFusion's `SQLOptions`, and the only
//! object store that a plan can name is the lake's.
//! **Invariant:** a query sees one snapshot of each table, whatever writers do meanwhile: each row that this
//! process has decoded or the lake has committed once, and none twice.
//!
//! Text columns are `Utf8View`: filters and groups then copy no text. To exports they are `Utf8`, which no window holds for longer than
//! it needs. `Binary` stays `Binary`.

pub mod alive;
pub mod control;
mod derived;
pub mod digest;
pub mod engine;
pub mod error;
pub mod exports;
pub mod filter;
mod holdings;
pub mod lag;
mod lake;
mod memory;
pub mod parameters;
pub mod parquet;
pub mod postgres;
pub mod statements;
mod stored;
pub mod tables;
pub mod tail;
pub mod unread;
mod views;

pub use self::{
    engine::{Answer, Description, Engine, Settings},
    error::{Asker, Error},
    filter::Filter,
    lag::LogEnds,
    parameters::Parameters,
    tail::Tail,
};
