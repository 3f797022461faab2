//! What can't be written: told to the log once, and to whoever asks until it can.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{Error, flusher::lock};

/// How long a failure that may pass is told of after it happened last. Clients try again each second at least, as long
/// as they have something to be written.
const LASTS: Duration = Duration::from_secs(10);

/// How the last write went. It has a lock of its own, so that whoever asks never waits for a disk.
#[derive(Default)]
pub(crate) struct Trouble(Mutex<Option<Failure>>);

struct Failure {
    at: Instant,
    what: String,
    is_for_good: bool,
}

impl Trouble {
    /// Notes a failure that may pass.
    pub(crate) fn failed(&self, error: &Error) {
        self.note(format!("{error}; clients try again"), false);
    }

    /// Notes a failure after which nothing is written until the next start.
    pub(crate) fn failed_for_good(&self, error: &Error) {
        self.note(format!("{error}; nothing more is taken there until the next start"), true);
    }

    /// Notes that something was written.
    pub(crate) fn is_over(&self) {
        *lock(&self.0) = None;
    }

    /// The last failure and its time, unless it is over or long ago.
    pub(crate) fn told(&self, now: Instant) -> Option<(Instant, String)> {
        let last = lock(&self.0);
        let failure = last.as_ref()?;
        let is_recent = now.saturating_duration_since(failure.at) < LASTS;
        (failure.is_for_good || is_recent).then(|| (failure.at, failure.what.clone()))
    }

    fn note(&self, what: String, is_for_good: bool) {
        let mut last = lock(&self.0);
        // What else fails afterwards, such as a rewrite of the file, changes nothing.
        if last.as_ref().is_some_and(|last| last.is_for_good) {
            return;
        }
        // Once is enough: clients try again many times.
        if last.is_none() || is_for_good {
            tracing::error!("{what}");
        }
        *last = Some(Failure { at: Instant::now(), what, is_for_good });
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::Path};

    use super::*;

    #[test]
    fn a_failure_is_told_until_something_is_written_or_nobody_tries_any_more() {
        let trouble = Trouble::default();
        let told = |after_s| {
            let then = Instant::now() + Duration::from_secs(after_s);
            trouble.told(then).map(|(_, what)| what)
        };
        let full = Error::io("write to", Path::new("/data/log"))(io::ErrorKind::StorageFull.into());
        assert_eq!(told(0), None);
        trouble.failed(&full);
        let what = "write to /data/log: no storage space; free some disk space; clients try again";
        assert_eq!(told(5).as_deref(), Some(what));
        assert_eq!(told(10), None);
        trouble.failed(&full);
        trouble.is_over();
        assert_eq!(told(0), None);
        trouble.failed_for_good(&full);
        trouble.failed(&full);
        assert!(told(1000).is_some_and(|what| what.ends_with("until the next start")));
    }
}
