//! The binary `aion`.

use std::process::ExitCode;

fn main() -> ExitCode {
    aion_kafka::bound_arenas();
    aion::cli::main()
}
