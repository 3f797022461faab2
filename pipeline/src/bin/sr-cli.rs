//! The binary `sr-cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    aion::commands::sr_cli::main()
}
