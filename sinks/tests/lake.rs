//! The lake sink: the suite of all sinks, then what is its own: rivals, sleepers, lost answers, damaged tables.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "lake/checkpoints.rs"]
mod checkpoints;
#[path = "lake/conformance.rs"]
mod conformance;
#[path = "lake/crash.rs"]
mod crash;
#[path = "lake/due.rs"]
mod due;
#[path = "lake/format.rs"]
mod format;
#[path = "lake/history.rs"]
mod history;
#[path = "lake/power.rs"]
mod power;
#[path = "shared/python.rs"]
mod python;
#[path = "lake/retries.rs"]
mod retries;
#[path = "lake/rivals.rs"]
mod rivals;
#[path = "lake/s3.rs"]
mod s3;
#[path = "lake/shared.rs"]
mod shared;
#[path = "lake/sleepers.rs"]
mod sleepers;
#[path = "lake/take_back.rs"]
mod take_back;
#[path = "lake/upkeep.rs"]
mod upkeep;
