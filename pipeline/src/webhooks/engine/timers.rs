//! When endpoints are looked at again: for a hole's next try, a probe, the end of a pause.

use std::{cmp::Reverse, time::Duration};

use tokio::time::Instant;

use super::{Engine, SECOND, now};
use crate::webhooks::cursor::Millis;

impl Engine {
    /// The endpoint is looked at again at a time.
    pub(super) fn wake_at(&mut self, at: Millis, endpoint: u32) {
        self.timers.push(Reverse((at, endpoint)));
    }

    /// When the next of them is, or what else happens each second.
    pub(super) fn next_wake(&self) -> Instant {
        let far = Instant::now() + SECOND;
        let Some(Reverse((at, _))) = self.timers.peek() else { return far };
        let left = at.saturating_sub(now()).max(0);
        far.min(Instant::now() + Duration::from_millis(left.unsigned_abs()))
    }

    /// Sends to those whose time has come.
    pub(super) fn fire(&mut self) {
        let now = now();
        let mut due = Vec::new();
        while let Some(Reverse((at, endpoint))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            if !due.contains(&endpoint) {
                due.push(endpoint);
            }
        }
        for endpoint in due {
            self.pump(endpoint);
        }
    }
}
