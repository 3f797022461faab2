//! SIGINT and SIGTERM: the first asks for an orderly end, the second one ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of a process that a second signal ended, as shells count it for SIGINT.
const IMPATIENT: i32 = 130;

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
