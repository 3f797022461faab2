//! The time that a question may take.

use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::error::{Bounds, Error};

/// No clock is asked for a later end.
const LONGEST: Duration = Duration::from_hours(30 * 365 * 24);

/// Until when a question may take, and whose it is.
///
/// Whoever asks waits by it as well: a call that is long keeps its thread, and nothing on that thread would end the question.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    deadline: Instant,
    bounds: Bounds,
}

impl Allowed {
    /// From now on.
    pub(super) fn by(bounds: Bounds) -> Allowed {
        Allowed { deadline: Instant::now() + bounds.deadline.min(LONGEST), bounds }
    }

    /// What comes of `work`, where it comes in time.
    pub async fn wait<T>(self, work: impl Future<Output = T>) -> Result<T, Error> {
        timeout_at(self.deadline, work).await.map_err(|_| self.too_late())
    }

    /// Ends with it.
    pub(super) fn end(self) -> Sleep {
        sleep_until(self.deadline)
    }

    pub(super) fn is_over(self) -> bool {
        Instant::now() >= self.deadline
    }

    pub(super) fn too_late(self) -> Error {
        self.bounds.too_late()
    }
}
