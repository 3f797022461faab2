//! SQL over lakes as the lake sink writes them.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bounds;
mod control;
mod errors;
mod exports;
mod lake;
mod live;
mod reading;
mod views;
