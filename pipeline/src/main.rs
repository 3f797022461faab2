//! The binary `aion`.

use std::process::ExitCode;

/// librdkafka's allocations go through it too: it takes a tenth or more off the cost of consuming.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    aion::cli::main()
}
