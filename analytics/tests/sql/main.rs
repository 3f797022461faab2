//! SQL over lakes as the lake sink writes them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod bounds;
mod control;
mod errors;
mod exports;
mod lake;
mod live;
mod reading;
mod views;
