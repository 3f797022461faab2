//! The sink of series: the suite of all sinks, then what is its own: what is shown, by whom, and what it adds up to.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "prometheus/conformance.rs"]
mod conformance;
#[path = "prometheus/owners.rs"]
mod owners;
#[path = "prometheus/page.rs"]
mod page;
#[path = "prometheus/series.rs"]
mod series;
#[path = "prometheus/shared.rs"]
mod shared;
