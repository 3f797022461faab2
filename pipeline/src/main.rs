//! The binary `aion`.

use std::process::ExitCode;

fn main() -> ExitCode {
    aion::memory::bound_arenas();
    aion::cli::main()
}
