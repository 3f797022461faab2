//! A connection whose peer has to take what it is sent.
//!
//! The system lets more be written once a third of what it buffers was taken, some 1.5 MB on Linux: less is nothing here.
//!
//! Whatever makes an answer is stopped by the failed write, as by any other: nothing here knows of queries.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long an answer may wait to be taken. A person who reads one in a pager takes nothing meanwhile.
pub const UNREAD: Duration = Duration::from_mins(5);

/// Fails what is written once its peer has taken nothing of it for so long.
#[derive(Debug)]
pub struct Unread<I> {
    io: I,
    patience: Duration,
    /// Runs while something waits to be taken.
    waiting: Option<Pin<Box<Sleep>>>,
}

/// Why it fails then.
#[derive(Debug, thiserror::Error)]
#[error("the client took nothing for {0:?}")]
struct TookNothing(Duration);

/// Whether it was this that broke a connection, and not its peer or the network.
pub fn is_why(cause: &io::Error) -> bool {
    matches!(cause.get_ref(), Some(inner) if inner.is::<TookNothing>())
}

impl<I> Unread<I> {
    /// Of a connection whose peer may let so much time pass.
    pub fn new(io: I, patience: Duration) -> Unread<I> {
        Unread { io, patience, waiting: None }
    }

    /// What came of a try to write, unless that has waited for too long.
    fn in_time<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, TookNothing(patience))))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Unread<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, into)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Unread<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.in_time(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, pieces);
        self.in_time(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.in_time(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(context);
        self.in_time(shut, context)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_given_up() {
        let (ours, _theirs) = duplex(16);
        let mut ours = Unread::new(ours, Duration::from_millis(50));
        ours.write_all(&[0; 16]).await.unwrap();
        let cause = ours.write_all(&[0; 1]).await.unwrap_err();
        assert!(is_why(&cause) && cause.kind() == io::ErrorKind::TimedOut, "{cause:?}");
        assert!(!is_why(&io::ErrorKind::TimedOut.into()), "the network's own");
    }

    #[tokio::test]
    async fn who_is_slow_gets_everything() {
        let (ours, mut theirs) = duplex(16);
        // Each piece has a small part of the time, since others may have the processor.
        let (patience, pause) = (Duration::from_secs(5), Duration::from_millis(300));
        let mut ours = Unread::new(ours, patience);
        let reading = tokio::spawn(async move {
            let (begun, mut taken) = (std::time::Instant::now(), 0);
            let mut into = [0; 16];
            while theirs.read(&mut into).await.unwrap() > 0 {
                taken += 1;
                sleep(pause).await;
            }
            (taken, begun.elapsed())
        });
        ours.write_all(&[0; 320]).await.unwrap();
        drop(ours);
        let (taken, took) = reading.await.unwrap();
        assert!(taken >= 20 && took > patience, "{taken} pieces in {took:?}");
    }
}
