//! SIGINT and SIGTERM: the first asks for an orderly end, the second one ends at once.

use std::time::Duration;

use anyhow::Context;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// The exit code of a process that a second signal ended, as shells count it for SIGINT.
const IMPATIENT: i32 = 130;

/// How long an ended process waits for threads that still wait for others, such as a broker that is gone. What they do
/// then is of no use any more.
const LEFT_OVER: Duration = Duration::from_secs(2);

/// Runs what listens to signals, on a runtime of its own.
pub fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = Runtime::new().context("start the runtime")?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LEFT_OVER);
    done
}

/// Cancels `shutdown` at the first signal; at the second the process ends where it is, which is safe:
/// it is what a crash would do.
pub fn listen(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                shutdown.cancel();
            } else {
                std::process::exit(IMPATIENT);
            }
        }
    });
    Ok(())
}
