//! A clock that also runs while the machine is suspended: how old something is, for a process that may have slept.
//!
//! `std::time::Instant` stands still during suspend on Linux and the wall clock can be set back; both make
//! a sleeper believe that it never slept.

use std::time::Duration;

/// A point on the clock; only differences mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// Time that passed since `earlier`.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The clock; tests can move it on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    #[cfg(feature = "testing")]
    skew_s: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Clock {
    /// The time now.
    pub(crate) fn now(&self) -> Moment {
        Moment(since_boot() + self.skew())
    }

    /// Moves the clock on, as if the process had slept.
    #[cfg(feature = "testing")]
    pub(crate) fn sleep(&self, time: Duration) {
        self.skew_s.fetch_add(time.as_secs(), std::sync::atomic::Ordering::SeqCst);
    }

    #[cfg(feature = "testing")]
    fn skew(&self) -> Duration {
        Duration::from_secs(self.skew_s.load(std::sync::atomic::Ordering::SeqCst))
    }

    #[cfg(not(feature = "testing"))]
    #[expect(clippy::unused_self, reason = "tests have a skew here")]
    fn skew(&self) -> Duration {
        Duration::ZERO
    }
}

/// Time since boot, suspend included; where the system doesn't tell, the wall clock.
fn since_boot() -> Duration {
    // `/proc/uptime` counts CLOCK_BOOTTIME, and reading it needs no unsafe call.
    let uptime = std::fs::read_to_string("/proc/uptime").ok();
    let seconds = uptime.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(uptime) => uptime,
        None => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    }
}
