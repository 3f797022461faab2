//! The body of a request, of somebody who was let in: whole, no longer than it may be, and in time.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

/// How long the body of a request may take.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// With nothing of it coming.
    silent: Duration,
    /// All in all: it has somebody's turn.
    whole: Duration,
}

/// A silence may be as long as the head.
const TIMES: Times = Times { silent: Duration::from_secs(30), whole: Duration::from_mins(5) };
/// What is said to who takes longer.
pub(super) const TOO_SLOW: &str = "the body comes too slowly";

/// What is said of a body that is longer than this, or ends before it is whole.
pub(super) fn too_long(most_bytes: usize) -> String {
    let (most, unit) = match most_bytes >> 20 {
        0 => (most_bytes >> 10, "KiB"),
        most => (most, "MiB"),
    };
    format!("the body is cut short, or longer than {most} {unit}")
}

/// A body of at most so many bytes, or the status and the words in its place.
pub(super) async fn read(body: Body, most_bytes: usize) -> Result<Bytes, (StatusCode, String)> {
    read_within(TIMES, body, most_bytes).await
}

async fn read_within(
    times: Times,
    body: Body,
    most_bytes: usize,
) -> Result<Bytes, (StatusCode, String)> {
    let end = Instant::now() + times.whole;
    let mut chunks = body.into_data_stream();
    let mut all = Vec::new();
    loop {
        let next = timeout_at(end.min(Instant::now() + times.silent), chunks.next()).await;
        match next {
            Ok(Some(Ok(chunk))) if all.len() + chunk.len() <= most_bytes => {
                all.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => return Err((StatusCode::PAYLOAD_TOO_LARGE, too_long(most_bytes))),
            Ok(None) => return Ok(all.into()),
            Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, TOO_SLOW.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::{convert::Infallible, io};

    use futures::stream;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_millis(50);
    const PATIENT: Times = Times { silent: LONG, whole: LONG };

    #[tokio::test]
    async fn a_body_is_whole_and_in_time_or_an_answer() {
        let half = || stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"half"))]);
        let whole = read_within(PATIENT, Body::from_stream(half().chain(half())), 8).await;
        assert_eq!(whole.unwrap(), "halfhalf");
        let long = Body::from_stream(half().chain(half()));
        let (status, why) = read_within(PATIENT, long, 7).await.unwrap_err();
        assert_eq!(status.as_u16(), 413, "{why}");
        let broken = stream::iter([Ok(Bytes::new()), Err(io::Error::other("cut"))]);
        let (status, why) = read_within(PATIENT, Body::from_stream(broken), 8).await.unwrap_err();
        assert_eq!(status.as_u16(), 413, "{why}");
    }

    #[tokio::test]
    async fn a_body_may_be_slow_but_neither_silent_nor_without_end() {
        let stopped = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"half"))]);
        let stopped = Body::from_stream(stopped.chain(stream::pending()));
        let silent = Times { silent: SHORT, whole: LONG };
        let (status, why) = read_within(silent, stopped, 8).await.unwrap_err();
        assert_eq!((status.as_u16(), &*why), (408, TOO_SLOW));
        // A byte every tenth of a second.
        let drops = || {
            stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Some((Ok::<_, Infallible>(Bytes::from_static(b"x")), ()))
            })
        };
        // All of it takes longer than a silence may.
        let slow = Times { silent: Duration::from_secs(2), whole: LONG };
        let some = Body::from_stream(drops().take(25));
        assert_eq!(read_within(slow, some, 25).await.unwrap().len(), 25);
        let endless = Times { silent: LONG, whole: Duration::from_secs(1) };
        let (status, why) =
            read_within(endless, Body::from_stream(drops()), usize::MAX).await.unwrap_err();
        assert_eq!((status.as_u16(), &*why), (408, TOO_SLOW));
    }

    #[test]
    fn the_bound_is_told_in_its_unit() {
        for (bytes, unit) in [(64 << 10, "64 KiB"), (8 << 20, "8 MiB")] {
            assert!(too_long(bytes).ends_with(unit), "{bytes}");
        }
    }
}
