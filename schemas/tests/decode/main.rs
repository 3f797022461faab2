//! The decoder against tables of bad input, against `serde_json` and `apache-avro`, and against itself.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod accepted;
mod checks;
mod common;
mod differential;
mod frames;
mod fuzz;
mod oracle;
mod rejected;
mod resolution;
mod writers;
