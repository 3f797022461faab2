//! Places where rows become durable, and what they have in common: a batch, a mark, the contract of a sink.
//!
//! | module | what it is |
//! |---|---|
//! | [`batch`] | rows of one Kafka partition over a half-open offset range |
//! | [`budget`] | the one bound on bytes held in memory |
//! | [`sink`] | the contract: assign, write, flush, revoke |
//! | [`lake`] | Delta Lake tables of Parquet files |
//! | [`clickhouse`] | ClickHouse tables |
//! | [`prometheus`] | series that Prometheus reads |
//! | [`store`] | files that last, in a folder or an object store |
//! | [`fault`] | places where a crash test kills the process |
//! | `memory` | a sink for tests of what stands above it (feature `testing`) |
//! | `conformance` | the suite that every sink must pass (feature `testing`) |
//!
//! **Invariant:** nothing here knows Kafka: no client, no group, no consumer.

pub mod batch;
pub mod budget;
mod buffer;
pub mod clickhouse;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod fault;
pub mod lake;
#[cfg(feature = "testing")]
pub mod memory;
mod origins;
pub mod prometheus;
pub mod sink;
pub mod store;
