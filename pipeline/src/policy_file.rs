//! A policy file that is taken up when it changes, or at SIGHUP: how that is noticed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Interval,
};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};

/// How often the file is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(5);

/// Notices changes of a file.
pub(crate) struct Changes {
    path: PathBuf,
    seen: Option<Vec<u8>>,
    hangup: Signal,
    looks: Interval,
}

impl Changes {
    /// Those from what the file is now: to be asked for before it is read.
    pub(crate) fn of(path: PathBuf) -> Result<Changes, Failure> {
        let hangup = signal(SignalKind::hangup()).map_err(|cause| {
            Failure::new(Exit::Failed, format!("can't listen for SIGHUP: {cause}"))
        })?;
        let (seen, looks) = (std::fs::read(&path).ok(), tokio::time::interval(LOOK));
        Ok(Changes { path, seen, hangup, looks })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the file is another or somebody asks for it by SIGHUP; false when `shutdown` comes first.
    pub(crate) async fn next(&mut self, shutdown: &CancellationToken) -> bool {
        loop {
            let is_asked = tokio::select! {
                () = shutdown.cancelled() => return false,
                _ = self.hangup.recv() => true,
                _ = self.looks.tick() => false,
            };
            let found = std::fs::read(&self.path).ok();
            if found != self.seen || is_asked {
                self.seen = found;
                return true;
            }
        }
    }
}
