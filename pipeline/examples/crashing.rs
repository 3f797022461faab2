//! The binary `aion` with its crash points in it: `AION_CRASH_AT` and `AION_FREEZE_AT` (`aion_sinks::fault`).
//!
//! An example and not a feature of the binary: examples are built with the features of the dev-dependencies, and
//! `cargo build` and `cargo install` build none. So the program that ships can't have the points, and a test run
//! gets this one for the price of linking it.

use std::process::ExitCode;

fn main() -> ExitCode {
    aion_kafka::bound_arenas();
    aion::cli::main()
}
