//! The ClickHouse sink against the engine itself: the suite of all sinks, then each row of the tables in its
//! module's doc, each protection with its negative control.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "clickhouse/conformance.rs"]
mod conformance;
#[path = "clickhouse/crash_points.rs"]
mod crash_points;
#[path = "clickhouse/engine.rs"]
mod engine;
#[path = "clickhouse/failures.rs"]
mod failures;
#[path = "clickhouse/guarantee.rs"]
mod guarantee;
#[path = "clickhouse/hosts.rs"]
mod hosts;
#[path = "clickhouse/inserts.rs"]
mod inserts;
#[path = "clickhouse/lost_parts.rs"]
mod lost_parts;
#[path = "clickhouse/pace.rs"]
mod pace;
#[path = "shared/python.rs"]
mod python;
#[path = "clickhouse/refused.rs"]
mod refused;
#[path = "clickhouse/relay.rs"]
mod relay;
#[path = "clickhouse/repairs.rs"]
mod repairs;
#[path = "clickhouse/replicated.rs"]
mod replicated;
#[path = "clickhouse/retries.rs"]
mod retries;
#[path = "clickhouse/rivals.rs"]
mod rivals;
#[path = "clickhouse/shared.rs"]
mod shared;
#[path = "clickhouse/tables.rs"]
mod tables;
