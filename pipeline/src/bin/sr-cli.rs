//! The binary `sr-cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    aion::sr_cli::main()
}
