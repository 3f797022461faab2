//! The time that a question may take.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::error::{Bounds, Error};

/// No clock is asked for a later end.
const LONGEST: Duration = Duration::from_hours(30 * 365 * 24);

/// Until when a question may take, and whose it is: until its time is over, or its engine stops.
///
/// Whoever asks waits by it as well: a call that is long keeps its thread, and nothing on that thread would end the question.
#[derive(Clone, Debug)]
pub struct Allowed {
    deadline: Instant,
    bounds: Bounds,
    stopping: CancellationToken,
}

impl Allowed {
    /// From now on.
    pub(super) fn by(bounds: Bounds, stopping: &CancellationToken) -> Allowed {
        let deadline = Instant::now() + bounds.deadline.min(LONGEST);
        Allowed { deadline, bounds, stopping: stopping.clone() }
    }

    /// What comes of `work`, where it comes in time.
    pub async fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let in_time = timeout_at(self.deadline, work);
        let done = self.stopping.run_until_cancelled(in_time).await.ok_or(Error::Stopping)?;
        done.map_err(|_| self.too_late())
    }

    /// Ends with it.
    pub(super) fn end(&self) -> End {
        let late = Box::pin(sleep_until(self.deadline));
        let stopped = Box::pin(self.stopping.clone().cancelled_owned());
        End { bounds: self.bounds, late, stopped }
    }

    /// Fails once it is over.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.stopping.is_cancelled() {
            return Err(Error::Stopping);
        }
        if Instant::now() >= self.deadline {
            return Err(self.too_late());
        }
        Ok(())
    }

    fn too_late(&self) -> Error {
        self.bounds.too_late()
    }
}

/// The end of what is allowed, and why.
#[derive(Debug)]
pub(super) struct End {
    bounds: Bounds,
    late: Pin<Box<Sleep>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Future for End {
    type Output = Error;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Error> {
        if self.stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(Error::Stopping);
        }
        ready!(self.late.as_mut().poll(context));
        Poll::Ready(self.bounds.too_late())
    }
}
